//! Decode pages of directories, which a hostile writer may have made (docs/FORMAT.md, section 9).

use crate::entry::{
    CHUNKS_DIRECT_MAX, Content, Entry, EntryKind, Hole, Metadata, PATH_BYTES_MAX, Time, Xattr, is_valid_name,
};
use crate::error::{Error, Result};
use crate::format::page::{
    CONTENT_CHUNKS, CONTENT_EMPTY, CONTENT_INLINE, CONTENT_LIST, CONTENT_TREE, EXTRA_DEVICE, EXTRA_FLAGS, EXTRA_HOLES,
    EXTRA_LINKS, EXTRA_TAGS, EXTRA_TARGET, EXTRA_XATTRS, EXTRAS_KNOWN, HOLES_MAX, LEVELS_MAX, MAGIC, NamedPage,
    TAG_DOUBTFUL, TAG_LACKS_XATTRS, TAG_MOUNTED, TAG_PARTIAL, TreePage, VERSION,
};
use crate::format::wire::TakeWire;
use crate::id::ChunkId;

/// The pages below an inner page; none for a page of entries, which is not decoded.
pub fn decode_inner(bytes: &[u8]) -> Result<Option<Vec<NamedPage>>> {
    match bytes.get(2) {
        Some(0) => Ok(None),
        _ => match decode_page(bytes)? {
            TreePage::Inner { pages, .. } => Ok(Some(pages)),
            TreePage::Entries(_) => Ok(None),
        },
    }
}

/// Decodes a page of either sort.
pub fn decode_page(bytes: &[u8]) -> Result<TreePage> {
    let mut take = TakeWire::new("tree page", bytes);
    if (take.byte()?, take.byte()?) != (MAGIC, VERSION) {
        return Err(take.bad(
            "it is not a tree page, or of a version that this program does not know: use a newer version of silt",
        ));
    }
    let level = take.byte()?;
    if level == 0 {
        return Ok(TreePage::Entries(take_entries(take)?));
    }
    if level > LEVELS_MAX {
        return Err(take.bad("it has too many levels"));
    }
    let count = take.count(1 + ChunkId::BYTES)?;
    if count == 0 {
        // Such pages could be named without end: they have no names that could be out of order.
        return Err(take.bad("it names no pages"));
    }
    let mut pages: Vec<NamedPage> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take.bytes()?.to_vec();
        if !is_valid_name(&name) || pages.last().is_some_and(|(last, _)| *last >= name) {
            return Err(take.bad("its names are invalid or out of order"));
        }
        pages.push((name, ChunkId([0; ChunkId::BYTES])));
    }
    for (_, id) in &mut pages {
        *id = ChunkId(take.array()?);
    }
    take.end_with_tagged()?;
    Ok(TreePage::Inner { level, pages })
}

fn take_entries(mut take: TakeWire) -> Result<Vec<Entry>> {
    let count = take.count(9)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let previous = entries.last().map_or(&b""[..], |entry| &entry.name);
        let shared = take.number_to(previous.len() as u64)? as usize;
        let suffix = take.bytes()?;
        let name = [&previous[..shared], suffix].concat();
        if !is_valid_name(&name) || (!entries.is_empty() && previous >= name.as_slice()) {
            return Err(take.bad("a name is invalid or out of order"));
        }
        entries.push(Entry::new(name, EntryKind::File));
    }
    let mut contents = Vec::with_capacity(count);
    for entry in &mut entries {
        let byte = take.byte()?;
        entry.kind = EntryKind::from_number(byte & 15).ok_or_else(|| {
            take.bad("an entry is of a kind that this program does not know: use a newer version of silt")
        })?;
        let content = byte >> 4;
        let fits = match entry.kind {
            EntryKind::File | EntryKind::Stream => content <= CONTENT_LIST,
            EntryKind::Directory => content == CONTENT_TREE || content == CONTENT_EMPTY,
            _ => content == CONTENT_EMPTY,
        };
        if !fits {
            return Err(take.bad("an entry has content that its kind does not allow"));
        }
        contents.push(content);
    }
    take_owners(&mut take, &mut entries)?;
    let mut previous = 0i64;
    for entry in &mut entries {
        previous = previous.wrapping_add(take.signed()?);
        entry.meta.modified.seconds = previous;
    }
    for entry in &mut entries {
        let nanoseconds = u32::from_le_bytes(take.array()?);
        if nanoseconds >= 1_000_000_000 {
            return Err(take.bad("a time has too many nanoseconds"));
        }
        entry.meta.modified = Time { nanoseconds, ..entry.meta.modified };
    }
    for entry in entries.iter_mut().filter(|entry| entry.kind.has_content()) {
        entry.size = take.number_to(i64::MAX as u64)?;
    }
    let extras = take.slice(count)?;
    for (entry, extras) in entries.iter_mut().zip(extras) {
        take_extras(&mut take, entry, *extras)?;
    }
    take_contents(&mut take, &mut entries, &contents)?;
    take.end_with_tagged()?;
    Ok(entries)
}

fn take_owners(take: &mut TakeWire, entries: &mut [Entry]) -> Result<()> {
    let count = take.count(5)?;
    let mut table = Vec::with_capacity(count);
    for _ in 0..count {
        let mode = take.number_to(0o7777)? as u32;
        let (uid, gid) = (take.number_to(u64::from(u32::MAX))? as u32, take.number_to(u64::from(u32::MAX))? as u32);
        let user = String::from_utf8_lossy(take.bytes()?).into_owned();
        let group = String::from_utf8_lossy(take.bytes()?).into_owned();
        table.push(Metadata { mode, uid, gid, user, group, ..Metadata::default() });
    }
    for entry in entries {
        let at = take.number()? as usize;
        entry.meta = table.get(at).ok_or_else(|| take.bad("an owner is not in its table"))?.clone();
    }
    Ok(())
}

fn take_extras(take: &mut TakeWire, entry: &mut Entry, extras: u8) -> Result<()> {
    if extras & !EXTRAS_KNOWN != 0 {
        return Err(take.bad("an entry has a field that this program does not know: use a newer version of silt"));
    }
    if extras & EXTRA_TARGET != 0 {
        entry.target = take.bytes()?.to_vec();
        if entry.target.len() > PATH_BYTES_MAX || entry.target.contains(&0) {
            return Err(take.bad("the target of a link is invalid"));
        }
    }
    if extras & EXTRA_DEVICE != 0 {
        let most = u64::from(u32::MAX);
        entry.device = (take.number_to(most)? as u32, take.number_to(most)? as u32);
    }
    if extras & EXTRA_LINKS != 0 {
        entry.link_group = u64::from_le_bytes(take.array()?);
    }
    if extras & EXTRA_XATTRS != 0 {
        for _ in 0..take.count(2)? {
            let (name, value) = (take.bytes()?.to_vec(), take.bytes()?.to_vec());
            if name.is_empty() || name.contains(&0) {
                return Err(take.bad("the name of an extended attribute is invalid"));
            }
            entry.meta.xattrs.push(Xattr { name, value });
        }
    }
    if extras & EXTRA_HOLES != 0 {
        let count = take.count(2)?;
        if count > HOLES_MAX {
            return Err(take.bad("a file has too many holes"));
        }
        let mut at = 0u64;
        for _ in 0..count {
            let offset = at.checked_add(take.number()?);
            let length = take.number()?;
            let end = offset.and_then(|offset| offset.checked_add(length)).filter(|end| *end <= entry.size);
            let (Some(offset), Some(end), true) = (offset, end, length > 0) else {
                return Err(take.bad("a hole is outside its file"));
            };
            entry.holes.push(Hole { offset, length });
            at = end;
        }
    }
    if extras & EXTRA_FLAGS != 0 {
        entry.meta.flags = take.number_to(u64::from(u32::MAX))? as u32;
    }
    if extras & EXTRA_TAGS != 0 {
        take_tags(take, entry)?;
    }
    Ok(())
}

/// Unknown tags are skipped.
fn take_tags(take: &mut TakeWire, entry: &mut Entry) -> Result<()> {
    take.tagged(&mut |tag, value| {
        let (mark, is_of_its_kind) = match tag {
            TAG_PARTIAL => (&mut entry.is_partial, entry.kind == EntryKind::Directory),
            TAG_DOUBTFUL => (&mut entry.is_doubtful, entry.kind == EntryKind::File),
            TAG_MOUNTED => (&mut entry.is_mounted, matches!(entry.kind, EntryKind::File | EntryKind::Directory)),
            TAG_LACKS_XATTRS => (&mut entry.meta.lacks_xattrs, true),
            _ => return Ok(()),
        };
        if !value.is_empty() || !is_of_its_kind {
            return Err(Error::corrupt("read the", "tree page", "a mark of an entry is malformed"));
        }
        *mark = true;
        Ok(())
    })
}

fn take_contents(take: &mut TakeWire, entries: &mut [Entry], contents: &[u8]) -> Result<()> {
    let zero = ChunkId([0; ChunkId::BYTES]);
    for (entry, content) in entries.iter_mut().zip(contents) {
        entry.content = match *content {
            CONTENT_EMPTY => Content::Empty,
            CONTENT_INLINE => Content::Inline(take.bytes()?.to_vec()),
            CONTENT_CHUNKS => Content::Chunks(vec![zero; take.number_to(CHUNKS_DIRECT_MAX as u64)? as usize]),
            CONTENT_LIST => Content::List { depth: take.byte()?, root: zero },
            _ => Content::Tree(zero),
        };
        let bytes = entry.content_bytes();
        let consistent = match &entry.content {
            Content::Empty => bytes == 0,
            Content::Inline(content) => bytes == content.len() as u64,
            Content::Chunks(ids) => !ids.is_empty() && bytes > 0,
            Content::List { .. } => bytes > 0,
            Content::Tree(_) => true,
        };
        if !consistent {
            return Err(take.bad("the size of an entry does not fit its content"));
        }
    }
    for entry in entries {
        match &mut entry.content {
            Content::Empty | Content::Inline(_) => {}
            Content::Chunks(ids) => {
                for id in ids {
                    *id = ChunkId(take.array()?);
                }
            }
            Content::List { root: id, .. } | Content::Tree(id) => *id = ChunkId(take.array()?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::page_encode::encode_entries;
    use crate::format::tree::check_entries;

    fn directory(name: &str, is_partial: bool) -> Entry {
        Entry { is_partial, ..Entry::new(name, EntryKind::Directory) }
    }

    #[test]
    fn marks_come_back() {
        let file = Entry::new("c", EntryKind::File);
        let doubtful = Entry { is_doubtful: true, ..Entry::new("d", EntryKind::File) };
        let mounted = Entry { is_mounted: true, ..directory("e", true) };
        let mut lacking = Entry::new("f", EntryKind::Symlink);
        lacking.meta.lacks_xattrs = true;
        let entries = vec![directory("a", true), directory("b", false), file, doubtful, mounted, lacking];
        assert_eq!(decode_page(&encode_entries(&entries)).unwrap(), TreePage::Entries(entries));
    }

    /// A page of one directory whose tagged values are these bytes.
    fn page_with_tags(tags: &[u8]) -> Vec<u8> {
        let page = encode_entries(&[directory("a", true)]);
        let (head, _own) = page.split_at(page.len() - 3);
        [head, tags].concat()
    }

    #[test]
    fn unknown_tags_are_skipped_and_malformed_ones_refused() {
        let read = |tags: &[u8]| decode_page(&page_with_tags(tags));
        assert_eq!(read(&[1, 1, 0]).unwrap(), TreePage::Entries(vec![directory("a", true)]));
        assert_eq!(read(&[2, 1, 0, 9, 2, 7, 7]).unwrap(), TreePage::Entries(vec![directory("a", true)]));
        assert_eq!(read(&[1, 9, 2, 7, 7]).unwrap(), TreePage::Entries(vec![directory("a", false)]));
        assert!(read(&[2, 9, 0, 1, 0]).is_err(), "out of order");
        assert!(decode_page(&[MAGIC, VERSION, 1, 0]).is_err(), "an inner page without pages");
        assert!(read(&[2, 1, 0, 1, 0]).is_err(), "twice");
        assert!(read(&[1, 1, 1, 0]).is_err(), "a value where none belongs");
        assert!(read(&[1, 2, 0]).is_err(), "a directory with the mark of a file");
        assert!(read(&[9, 1, 0]).is_err(), "more values than bytes");
    }

    #[test]
    fn an_unknown_extra_is_refused() {
        let mut page = encode_entries(&[Entry::new("a", EntryKind::File)]);
        let extras = page.len() - 1;
        assert_eq!(page[extras], 0);
        page[extras] = 128;
        assert!(decode_page(&page).is_err());
    }

    /// Such a page was stored, and a restore found none of its entries.
    #[test]
    fn what_readers_refuse_is_an_error() {
        let entry = |name: &str| Entry::new(name, EntryKind::File);
        let with_hole = Entry { holes: vec![Hole { offset: 5, length: 5 }], size: 9, ..entry("b") };
        let mut late = entry("b");
        late.meta.modified.nanoseconds = 1_000_000_000;
        let twice = vec![entry("b"), entry("b")];
        for (entries, comes_back) in [
            (vec![entry("a"), entry("b"), entry("c")], true),
            (vec![entry("a"), with_hole], false),
            (vec![entry("a"), late], false),
            (twice, false),
        ] {
            let checked = check_entries(&entries);
            assert_eq!(checked.is_ok(), comes_back, "{entries:?}");
        }
    }
}
