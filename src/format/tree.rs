//! Trees: directories as pages of entries, cut where names say so, under inner pages when there are several.
//!
//! A page holds its entries in columns (names, kinds, owners, times, sizes, extras, ids), because that compresses best;
//! docs/FORMAT.md has the layout. Decoding takes its input as hostile.

use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::format::page::LEVELS_MAX;
pub use crate::format::page::TreePage;
pub(crate) use crate::format::page::{HOLES_MAX, NamedPage};
pub use crate::format::page_decode::{decode_inner, decode_page};
pub use crate::format::page_encode::encode_entries;
use crate::format::page_encode::encode_inner;
use crate::id::ChunkId;

/// No page holds more entries.
pub(crate) const PAGE_ENTRIES_MAX: usize = 512;
/// A page whose encoding is longer is split, so that it stays a chunk.
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 20;
/// How many pages may be above each other in one directory; more is an attack.
pub(crate) const PAGE_DEPTH_MAX: usize = 24;
/// The level of inner pages that only join the halves of a page that was too large.
const LEVEL_SPLIT: u8 = 1;

/// Whether a page begins at an entry of that name: depends on nothing else, so a change of one entry changes one page.
/// FNV-1a (64 bits) of the level and the name, whitened; one name in 64 begins a page.
pub(crate) fn begins_page(level: u8, name: &[u8]) -> bool {
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
pub(crate) fn check_entries(entries: &[Entry]) -> Result<()> {
    let why = match decode_page(&encode_entries(entries)) {
        Ok(TreePage::Entries(found)) if found == entries => return Ok(()),
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
