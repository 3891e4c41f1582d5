//! Chunk lists: the ids of a file of many chunks, as pages of their own, cut where ids say so.
//!
//! Plain form: `L`, version 1, level (0 lists content chunks, n lists lists of level n-1), then ids without gaps; above level 0 each is
//! followed by how many bytes of content are below it, so that a place in a long file is found without reading all pages before it. A page
//! ends after an id whose last two bytes, as a little-endian number, are a multiple of 512, or at 8192 ids.

use crate::error::Result;
use crate::format::wire::TakeWire;
use crate::id::ChunkId;

const MAGIC: u8 = b'L';
const VERSION: u8 = 1;
const LIST_IDS_MAX: usize = 8192;
/// Levels above the content: 8192 to the power of this many chunks.
pub(crate) const LIST_DEPTH_MAX: u8 = 6;

/// Bytes of an id, and of the length below it, on levels above 0.
const ITEM_BYTES: usize = ChunkId::BYTES + 8;

/// A chunk or a list, and how many bytes of content it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListItem {
    /// The chunk or the list.
    pub id: ChunkId,
    /// Bytes of content in it or below it.
    pub bytes: u64,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The chunks or lists, in order.
    pub ids: Vec<ChunkId>,
    /// Bytes of content below each id. None on level 0: the index knows the lengths of chunks.
    pub bytes_below: Option<Vec<u64>>,
}

type Store<'s> = &'s mut dyn FnMut(Vec<u8>) -> Result<ChunkId>;

/// Collects the ids of one file and stores full pages as they fill, so that memory does not grow with the file.
#[derive(Default)]
pub struct ListWriter {
    levels: Vec<Vec<ListItem>>,
    count: u64,
}

impl ListWriter {
    /// Adds the next chunk; a list that is full goes to `store`.
    pub fn push(&mut self, item: ListItem, store: Store) -> Result<()> {
        self.count += 1;
        self.push_at(0, item, store)
    }

    /// The same chunk `count` times. The pages that hold nothing else are all one page: it is made and stored once, so that
    /// this takes no longer for more of them.
    pub(crate) fn push_run(&mut self, item: ListItem, count: u64, store: Store) -> Result<()> {
        self.count += count;
        self.push_run_at(0, item, count, store)
    }

    fn push_run_at(&mut self, level: usize, item: ListItem, mut count: u64, store: Store) -> Result<()> {
        while count > 0 && self.levels.get(level).is_some_and(|items| !items.is_empty()) {
            self.push_at(level, item, store)?;
            count -= 1;
        }
        let in_page = if ends_page(item.id) { 1 } else { LIST_IDS_MAX };
        let pages = count / in_page as u64;
        if pages > 0 {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let page = store_page(level, &vec![item; in_page], store)?;
            self.push_run_at(level + 1, page, pages, store)?;
        }
        (0..count % in_page as u64).try_for_each(|_| self.push_at(level, item, store))
    }

    fn push_at(&mut self, level: usize, item: ListItem, store: Store) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let items = &mut self.levels[level];
        items.push(item);
        if ends_page(item.id) || items.len() == LIST_IDS_MAX {
            let page = store_page(level, items, store)?;
            self.levels[level].clear();
            return self.push_at(level + 1, page, store);
        }
        Ok(())
    }

    /// The chunks so far, while none has gone to a page.
    pub fn direct(&self) -> Option<&[ListItem]> {
        match self.levels.as_slice() {
            [] => Some(&[]),
            [items] => Some(items),
            _ => None,
        }
    }

    /// Stores what is left; returns the depth and the root.
    pub fn finish(mut self, store: Store) -> Result<(u8, ChunkId)> {
        let mut level = 0;
        loop {
            let items = std::mem::take(&mut self.levels[level]);
            let top = level + 1 == self.levels.len();
            // A single page at the top is the root itself.
            if top && level > 0 && items.len() == 1 {
                return Ok((level as u8, items[0].id));
            }
            if !items.is_empty() {
                let page = store_page(level, &items, store)?;
                if top {
                    return Ok((level as u8 + 1, page.id));
                }
                self.levels[level + 1].push(page);
            }
            level += 1;
        }
    }
}

/// Whether a page ends after this id.
fn ends_page(id: ChunkId) -> bool {
    u16::from_le_bytes([id.0[ChunkId::BYTES - 2], id.0[ChunkId::BYTES - 1]]).is_multiple_of(512)
}

fn store_page(level: usize, items: &[ListItem], store: Store) -> Result<ListItem> {
    let bytes = items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.bytes));
    Ok(ListItem { id: store(encode(level as u8, items))?, bytes })
}

fn encode(level: u8, items: &[ListItem]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + items.len() * ITEM_BYTES);
    bytes.extend_from_slice(&[MAGIC, VERSION, level]);
    for item in items {
        bytes.extend_from_slice(item.id.as_bytes());
        if level > 0 {
            bytes.extend_from_slice(&item.bytes.to_le_bytes());
        }
    }
    bytes
}

/// Reads a list page, which must be of the level expected.
pub fn decode_list(bytes: &[u8], level: u8) -> Result<ListPage> {
    let mut take = TakeWire::new("chunk list", bytes);
    if (take.byte()?, take.byte()?, take.byte()?) != (MAGIC, VERSION, level) {
        return Err(take.bad("it is not a chunk list of the expected level"));
    }
    let each = if level == 0 { ChunkId::BYTES } else { ITEM_BYTES };
    let count = take.remaining() / each;
    if !take.remaining().is_multiple_of(each) || count == 0 {
        return Err(take.bad("its length is wrong"));
    }
    if count > LIST_IDS_MAX {
        return Err(take.bad(format!("it has more than {LIST_IDS_MAX} ids")));
    }
    let (mut ids, mut lengths) = (Vec::with_capacity(count), Vec::new());
    while take.remaining() > 0 {
        ids.push(ChunkId(take.array()?));
        if level > 0 {
            lengths.push(u64::from_le_bytes(take.array()?));
        }
    }
    let sum = lengths.iter().try_fold(0, |sum: u64, bytes| sum.checked_add(*bytes).filter(|_| *bytes > 0));
    if sum.is_none_or(|sum| sum > i64::MAX as u64) {
        return Err(take.bad("the lengths in it are out of bounds"));
    }
    Ok(ListPage { ids, bytes_below: (level > 0).then_some(lengths) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(pages: &HashMap<ChunkId, Vec<u8>>, depth: u8, id: ChunkId, out: &mut Vec<ChunkId>) {
        if depth == 0 {
            return out.push(id);
        }
        for id in decode_list(&pages[&id], depth - 1).unwrap().ids {
            read(pages, depth - 1, id, out);
        }
    }

    /// What the pages say is below a list, found by adding up.
    fn bytes_below(pages: &HashMap<ChunkId, Vec<u8>>, depth: u8, id: ChunkId, bytes_each: u64) -> u64 {
        let Some(level) = depth.checked_sub(1) else { return bytes_each };
        let page = decode_list(&pages[&id], level).unwrap();
        let sums: Vec<u64> = page.ids.iter().map(|id| bytes_below(pages, level, *id, bytes_each)).collect();
        assert!(page.bytes_below.is_none_or(|stated| stated == sums));
        sums.iter().sum()
    }

    fn list_id(number: u32, last: u16) -> ChunkId {
        let mut id = ChunkId::from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..24]).unwrap();
        id.0[ChunkId::BYTES - 2..].copy_from_slice(&last.to_le_bytes());
        id
    }

    /// The root of a list of these runs, and how often a page was stored.
    fn list_of(runs: &[(ChunkId, u64)], one_by_one: bool) -> (u8, ChunkId, usize) {
        let mut stored = 0;
        let mut store = |bytes: Vec<u8>| {
            stored += 1;
            Ok(ChunkId::from_slice(&blake3::hash(&bytes).as_bytes()[..24]).unwrap())
        };
        let mut writer = ListWriter::default();
        for (id, count) in runs {
            let item = ListItem { id: *id, bytes: 100 };
            if one_by_one {
                (0..*count).for_each(|_| writer.push(item, &mut store).unwrap())
            } else {
                writer.push_run(item, *count, &mut store).unwrap()
            }
        }
        assert_eq!(writer.count, runs.iter().map(|(_, count)| count).sum::<u64>());
        let (depth, root) = writer.finish(&mut store).unwrap();
        (depth, root, stored)
    }

    #[test]
    fn runs_of_one_id_make_the_list_that_pushing_it_again_and_again_makes() {
        let (plain, other, ending) = (list_id(1, 1), list_id(2, 77), list_id(3, 1024));
        for runs in [
            &[(plain, 1)][..],
            &[(plain, 8191), (other, 1), (plain, 8192)],
            &[(other, 3), (plain, 30_000), (other, 8192), (plain, 0), (other, 5)],
            &[(ending, 20_000)],
            &[(plain, 100), (ending, 9000), (plain, 8192), (other, 1)],
        ] {
            let (slow, fast) = (list_of(runs, true), list_of(runs, false));
            assert_eq!((slow.0, slow.1), (fast.0, fast.1), "{runs:?}");
        }
        assert!(list_of(&[(plain, 1 << 50)], false).2 < 50, "it is not made page by page");
    }

    /// A chunk has room for 174,762 ids, which on six levels make a list of 10^31 chunks.
    #[test]
    fn a_list_has_no_more_ids_than_writers_give_it() {
        let list = |level, count| encode(level, &vec![ListItem { id: ChunkId([1; 24]), bytes: 5 }; count]);
        for level in [0, 1] {
            assert_eq!(decode_list(&list(level, LIST_IDS_MAX), level).unwrap().ids.len(), LIST_IDS_MAX);
            let error = decode_list(&list(level, LIST_IDS_MAX + 1), level).unwrap_err();
            assert!(error.to_string().contains("more than 8192 ids"));
        }
    }

    #[test]
    fn lengths_that_no_file_has_are_damage() {
        let item = |bytes| ListItem { id: ChunkId([1; 24]), bytes };
        for (items, is_sound) in [
            (vec![item(1), item(i64::MAX as u64 - 1)], true),
            (vec![item(2), item(i64::MAX as u64 - 1)], false),
            (vec![item(u64::MAX), item(2)], false),
            (vec![item(1), item(0)], false),
        ] {
            assert_eq!(decode_list(&encode(1, &items), 1).is_ok(), is_sound, "{items:?}");
        }
    }

    #[test]
    fn lists_of_any_length_come_back() {
        for count in [1u32, 4, 500, 8192, 20_000] {
            let ids: Vec<ChunkId> = (0..count)
                .map(|n| ChunkId::from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..24]).unwrap())
                .collect();
            let mut pages = HashMap::new();
            let mut store = |bytes: Vec<u8>| {
                let id = ChunkId::from_slice(&blake3::hash(&bytes).as_bytes()[..24]).unwrap();
                pages.insert(id, bytes);
                Ok(id)
            };
            let mut writer = ListWriter::default();
            for id in &ids {
                writer.push(ListItem { id: *id, bytes: 7 }, &mut store).unwrap();
            }
            let (depth, root) = writer.finish(&mut store).unwrap();
            let mut out = Vec::new();
            read(&pages, depth, root, &mut out);
            assert_eq!(out, ids);
            assert_eq!(bytes_below(&pages, depth, root, 7), 7 * u64::from(count));
        }
    }
}
