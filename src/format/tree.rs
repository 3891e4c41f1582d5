//! Trees: directories as pages of entries, cut where names say so, under inner pages when there are several.
//!
//! A page holds its entries in columns (names, kinds, owners, times, sizes, extras, ids), because that compresses best;
//! the layout stands byte by byte in docs/FORMAT.md. Decoding takes its input as hostile.

use crate::entry::{
    CHUNKS_DIRECT_MAX, Content, Entry, EntryKind, Hole, Metadata, PATH_BYTES_MAX, Time, Xattr, is_valid_name,
};
use crate::error::{Error, Kind, Result};
use crate::format::wire::{Put, Take};
use crate::id::ChunkId;

const MAGIC: u8 = b'T';
const VERSION: u8 = 1;

/// No page holds more entries.
pub const PAGE_ENTRIES_MAX: usize = 512;
/// A page whose encoding is longer is split, so that it stays a chunk.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// The highest level of an inner page; pages above it carry it as well and are cut by count alone.
pub const LEVELS_MAX: u8 = 8;
/// How many pages may lie above each other in one directory; more is an attack.
pub const PAGE_DEPTH_MAX: usize = 24;
/// Holes that one entry can have; more are stored as zeros.
pub const HOLES_MAX: usize = 4096;

/// A page with the first name in it.
pub type NamedPage = (Vec<u8>, ChunkId);

/// One page, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Entries of the directory, sorted by name.
    Entries(Vec<Entry>),
    /// Pages below, each with the first name in it, sorted.
    Inner { level: u8, pages: Vec<NamedPage> },
}

/// The level of inner pages that only join the halves of a page that was too large.
const LEVEL_SPLIT: u8 = 1;

/// Whether a page begins at an entry of that name: depends on nothing else, so a change of one entry changes one page.
/// FNV-1a (64 bits) of the level and the name, whitened; one name in 64 begins a page.
pub fn begins_page(level: u8, name: &[u8]) -> bool {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ u64::from(level);
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58 == 0
}

/// Splits sorted names into pages; yields the length of each.
pub fn page_lengths<'a>(level: u8, names: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut current = 0;
    for name in names {
        if current == PAGE_ENTRIES_MAX || (current > 0 && begins_page(level, name)) {
            lengths.push(current);
            current = 0;
        }
        current += 1;
    }
    if current > 0 {
        lengths.push(current);
    }
    lengths
}

/// Encodes entries (sorted by name) as pages and hands each to `store`, which names it; returns the root's id.
/// Usually that is one page; entries too large for one are split under an inner page.
pub fn store_page(entries: &[Entry], store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<ChunkId> {
    let bytes = encode_entries(entries);
    if bytes.len() <= PAGE_BYTES_MAX || entries.len() < 2 {
        return store(bytes);
    }
    let (left, right) = entries.split_at(entries.len() / 2);
    let pages =
        vec![(left[0].name.clone(), store_page(left, store)?), (right[0].name.clone(), store_page(right, store)?)];
    store(encode_inner(LEVEL_SPLIT, &pages))
}

/// Reads entries as readers will, and returns an error if those would refuse them: then none of the page could be restored.
pub fn check_entries(entries: &[Entry]) -> Result<()> {
    let why = match decode_page(&encode_entries(entries)) {
        Ok(Page::Entries(found)) if found == entries => return Ok(()),
        Ok(_) => "readers would find something else".to_owned(),
        Err(error) => error.why(),
    };
    let name = entries.first().map(|entry| entry.name.as_slice()).unwrap_or_default();
    Err(Error::new(Kind::Invalid, "save", String::from_utf8_lossy(name))
        .because(format!("a snapshot cannot hold what the file system says of it ({why})"))
        .hint("check the file system for damage, or exclude this path"))
}

/// Joins the pages of a directory (sorted, each with its first name) under one root.
pub fn store_root(mut pages: Vec<NamedPage>, store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<ChunkId> {
    if pages.is_empty() {
        return store(encode_entries(&[]));
    }
    let mut level = LEVEL_SPLIT + 1;
    while pages.len() > 1 {
        let mut upper = Vec::new();
        let lengths = if level < LEVELS_MAX {
            page_lengths(level, pages.iter().map(|(name, _)| name.as_slice()))
        } else {
            pages.chunks(PAGE_ENTRIES_MAX).map(<[_]>::len).collect()
        };
        let mut rest = pages.as_slice();
        for length in lengths {
            let (group, after) = rest.split_at(length);
            upper.push((group[0].0.clone(), store(encode_inner(level, group))?));
            rest = after;
        }
        pages = upper;
        level = LEVELS_MAX.min(level + 1);
    }
    Ok(pages[0].1)
}

fn encode_inner(level: u8, pages: &[NamedPage]) -> Vec<u8> {
    let mut bytes = vec![MAGIC, VERSION, level];
    bytes.put_number(pages.len() as u64);
    for (name, _) in pages {
        bytes.put_bytes(name);
    }
    for (_, id) in pages {
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

const EXTRA_TARGET: u8 = 1;
const EXTRA_DEVICE: u8 = 2;
const EXTRA_LINKS: u8 = 4;
const EXTRA_XATTRS: u8 = 8;
const EXTRA_HOLES: u8 = 16;
const EXTRA_FLAGS: u8 = 32;
/// A list of tagged values, of which a reader skips those that it does not know.
const EXTRA_TAGS: u8 = 64;
const EXTRAS_KNOWN: u8 = 127;

/// The entry is a directory of which not everything was saved; its value is empty.
const TAG_PARTIAL: u64 = 1;

const CONTENT_EMPTY: u8 = 0;
const CONTENT_INLINE: u8 = 1;
const CONTENT_CHUNKS: u8 = 2;
const CONTENT_LIST: u8 = 3;
const CONTENT_TREE: u8 = 4;

pub fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![MAGIC, VERSION, 0];
    bytes.put_number(entries.len() as u64);
    let mut previous: &[u8] = b"";
    for entry in entries {
        let shared = entry.name.iter().zip(previous).take_while(|(a, b)| a == b).count();
        bytes.put_number(shared as u64);
        bytes.put_bytes(&entry.name[shared..]);
        previous = &entry.name;
    }
    for entry in entries {
        bytes.push(entry.kind as u8 | content_kind(&entry.content) << 4);
    }
    put_owners(&mut bytes, entries);
    let mut previous = 0;
    for entry in entries {
        bytes.put_signed(entry.meta.modified.seconds.wrapping_sub(previous));
        previous = entry.meta.modified.seconds;
    }
    for entry in entries {
        bytes.extend_from_slice(&entry.meta.modified.nanoseconds.to_le_bytes());
    }
    for entry in entries.iter().filter(|entry| entry.kind.has_content()) {
        bytes.put_number(entry.size);
    }
    for entry in entries {
        bytes.push(extras_of(entry));
    }
    for entry in entries {
        put_extras(&mut bytes, entry);
    }
    for entry in entries {
        match &entry.content {
            Content::Empty => {}
            Content::Inline(content) => bytes.put_bytes(content),
            Content::Chunks(ids) => bytes.put_number(ids.len() as u64),
            Content::List { depth, .. } => bytes.push(*depth),
            Content::Tree(_) => {}
        }
    }
    for entry in entries {
        match &entry.content {
            Content::Empty | Content::Inline(_) => {}
            Content::Chunks(ids) => ids.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes())),
            Content::List { root: id, .. } | Content::Tree(id) => bytes.extend_from_slice(id.as_bytes()),
        }
    }
    bytes
}

fn content_kind(content: &Content) -> u8 {
    match content {
        Content::Empty => CONTENT_EMPTY,
        Content::Inline(_) => CONTENT_INLINE,
        Content::Chunks(_) => CONTENT_CHUNKS,
        Content::List { .. } => CONTENT_LIST,
        Content::Tree(_) => CONTENT_TREE,
    }
}

type Owner<'a> = (u32, u32, u32, &'a str, &'a str);

/// Mode and owner repeat from entry to entry: a table of the distinct ones, then one number an entry.
fn put_owners(bytes: &mut Vec<u8>, entries: &[Entry]) {
    let mut table: Vec<Owner> = Vec::new();
    let mut which = Vec::with_capacity(entries.len());
    for Entry { meta, .. } in entries {
        let owner = (meta.mode, meta.uid, meta.gid, meta.user.as_str(), meta.group.as_str());
        let at = table.iter().rposition(|known| *known == owner).unwrap_or_else(|| {
            table.push(owner);
            table.len() - 1
        });
        which.push(at as u64);
    }
    bytes.put_number(table.len() as u64);
    for (mode, uid, gid, user, group) in table {
        bytes.put_number(u64::from(mode));
        bytes.put_number(u64::from(uid));
        bytes.put_number(u64::from(gid));
        bytes.put_bytes(user.as_bytes());
        bytes.put_bytes(group.as_bytes());
    }
    which.into_iter().for_each(|at| bytes.put_number(at));
}

fn extras_of(entry: &Entry) -> u8 {
    let mut extras = 0;
    let mut set = |bit, present| extras |= if present { bit } else { 0 };
    set(EXTRA_TARGET, !entry.target.is_empty());
    set(EXTRA_DEVICE, entry.device != (0, 0));
    set(EXTRA_LINKS, entry.link_group != 0);
    set(EXTRA_XATTRS, !entry.meta.xattrs.is_empty());
    set(EXTRA_HOLES, !entry.holes.is_empty());
    set(EXTRA_FLAGS, entry.meta.flags != 0);
    set(EXTRA_TAGS, entry.is_partial);
    extras
}

fn put_extras(bytes: &mut Vec<u8>, entry: &Entry) {
    let extras = extras_of(entry);
    if extras & EXTRA_TARGET != 0 {
        bytes.put_bytes(&entry.target);
    }
    if extras & EXTRA_DEVICE != 0 {
        bytes.put_number(u64::from(entry.device.0));
        bytes.put_number(u64::from(entry.device.1));
    }
    if extras & EXTRA_LINKS != 0 {
        bytes.extend_from_slice(&entry.link_group.to_le_bytes());
    }
    if extras & EXTRA_XATTRS != 0 {
        bytes.put_number(entry.meta.xattrs.len() as u64);
        for xattr in &entry.meta.xattrs {
            bytes.put_bytes(&xattr.name);
            bytes.put_bytes(&xattr.value);
        }
    }
    if extras & EXTRA_HOLES != 0 {
        bytes.put_number(entry.holes.len() as u64);
        let mut at = 0;
        for hole in &entry.holes {
            bytes.put_number(hole.offset - at);
            bytes.put_number(hole.length);
            at = hole.offset + hole.length;
        }
    }
    if extras & EXTRA_FLAGS != 0 {
        bytes.put_number(u64::from(entry.meta.flags));
    }
    if extras & EXTRA_TAGS != 0 {
        bytes.put_number(1);
        bytes.put_number(TAG_PARTIAL);
        bytes.put_bytes(b"");
    }
}

/// The pages below an inner page; none for a page of entries, which is not decoded.
pub fn decode_inner(bytes: &[u8]) -> Result<Option<Vec<NamedPage>>> {
    match bytes.get(2) {
        Some(0) => Ok(None),
        _ => match decode_page(bytes)? {
            Page::Inner { pages, .. } => Ok(Some(pages)),
            Page::Entries(_) => Ok(None),
        },
    }
}

/// Decodes a page of either sort.
pub fn decode_page(bytes: &[u8]) -> Result<Page> {
    let mut take = Take::new("tree page", bytes);
    if (take.byte()?, take.byte()?) != (MAGIC, VERSION) {
        return Err(take.bad("it is not a tree page, or of a version that this program does not know"));
    }
    let level = take.byte()?;
    if level == 0 {
        return Ok(Page::Entries(take_entries(take)?));
    }
    if level > LEVELS_MAX {
        return Err(take.bad("it has too many levels"));
    }
    let count = take.count(1 + ChunkId::BYTES)?;
    if count == 0 {
        // Such pages could be named without end: there is no name in them to be out of order.
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
    take.end()?;
    Ok(Page::Inner { level, pages })
}

fn take_entries(mut take: Take) -> Result<Vec<Entry>> {
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
        entry.kind = EntryKind::from_number(byte & 15).ok_or_else(|| take.bad("an entry has an unknown kind"))?;
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
    take.end()?;
    Ok(entries)
}

fn take_owners(take: &mut Take, entries: &mut [Entry]) -> Result<()> {
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

fn take_extras(take: &mut Take, entry: &mut Entry, extras: u8) -> Result<()> {
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

/// Tags rise strictly, so that each value has one place. Unknown tags are skipped.
fn take_tags(take: &mut Take, entry: &mut Entry) -> Result<()> {
    let mut last = None;
    for _ in 0..take.count(2)? {
        let tag = take.number()?;
        let value = take.bytes()?;
        if last.is_some_and(|last| tag <= last) {
            return Err(take.bad("the tags of an entry are out of order"));
        }
        last = Some(tag);
        if tag == TAG_PARTIAL {
            if !value.is_empty() || !entry.is_directory() {
                return Err(take.bad("a mark of a partial directory is malformed"));
            }
            entry.is_partial = true;
        }
    }
    Ok(())
}

fn take_contents(take: &mut Take, entries: &mut [Entry], contents: &[u8]) -> Result<()> {
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

    fn directory(name: &str, is_partial: bool) -> Entry {
        Entry { is_partial, ..Entry::new(name, EntryKind::Directory) }
    }

    #[test]
    fn the_mark_of_a_partial_directory_comes_back() {
        let entries = vec![directory("a", true), directory("b", false), Entry::new("c", EntryKind::File)];
        assert_eq!(decode_page(&encode_entries(&entries)).unwrap(), Page::Entries(entries));
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
        assert_eq!(read(&[1, 1, 0]).unwrap(), Page::Entries(vec![directory("a", true)]));
        assert_eq!(read(&[2, 1, 0, 9, 2, 7, 7]).unwrap(), Page::Entries(vec![directory("a", true)]));
        assert_eq!(read(&[1, 9, 2, 7, 7]).unwrap(), Page::Entries(vec![directory("a", false)]));
        assert!(read(&[2, 9, 0, 1, 0]).is_err(), "out of order");
        assert!(decode_page(&[MAGIC, VERSION, 1, 0]).is_err(), "an inner page without pages");
        assert!(read(&[2, 1, 0, 1, 0]).is_err(), "twice");
        assert!(read(&[1, 1, 1, 0]).is_err(), "a value where none belongs");
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
