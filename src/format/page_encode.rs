//! Encode pages of directories (docs/FORMAT.md, section 9).

use crate::entry::{Content, Entry};
use crate::format::page::{
    CONTENT_CHUNKS, CONTENT_EMPTY, CONTENT_INLINE, CONTENT_LIST, CONTENT_TREE, EXTRA_DEVICE, EXTRA_FLAGS, EXTRA_HOLES,
    EXTRA_LINKS, EXTRA_TAGS, EXTRA_TARGET, EXTRA_XATTRS, MAGIC, NamedPage, TAG_DOUBTFUL, TAG_LACKS_XATTRS, TAG_MOUNTED,
    TAG_PARTIAL, VERSION,
};
use crate::format::wire::PutWire;

/// Encodes a page of entries, which must be sorted by name.
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

/// The tags of the marks that an entry has, rising.
fn marks_of(entry: &Entry) -> impl Iterator<Item = u64> {
    let marks = [
        (TAG_PARTIAL, entry.is_partial),
        (TAG_DOUBTFUL, entry.is_doubtful),
        (TAG_MOUNTED, entry.is_mounted),
        (TAG_LACKS_XATTRS, entry.meta.lacks_xattrs),
    ];
    marks.into_iter().filter(|(_, is_set)| *is_set).map(|(tag, _)| tag)
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
    set(EXTRA_TAGS, marks_of(entry).next().is_some());
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
        bytes.put_number(marks_of(entry).count() as u64);
        for tag in marks_of(entry) {
            bytes.put_number(tag);
            bytes.put_bytes(b"");
        }
    }
}

pub(super) fn encode_inner(level: u8, pages: &[NamedPage]) -> Vec<u8> {
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
