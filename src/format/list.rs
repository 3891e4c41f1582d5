//! Chunk lists: the ids of a file of many chunks, as pages of their own, cut where ids say so.
//!
//! Plain form: `L`, version 1, level (0 lists content chunks, n lists lists of level n-1), then ids without gaps. A page
//! ends behind an id whose last two bytes, as a little-endian number, are a multiple of 512, or at 8192 ids.

use crate::error::Result;
use crate::format::wire::Take;
use crate::id::ChunkId;

const MAGIC: u8 = b'L';
const VERSION: u8 = 1;
const LIST_IDS_MAX: usize = 8192;
/// Levels above the content: 8192 to the power of this many chunks.
pub const LIST_DEPTH_MAX: u8 = 6;

/// Collects the ids of one file and stores full pages as they fill, so that memory does not grow with the file.
#[derive(Default)]
pub struct ListWriter {
    levels: Vec<Vec<ChunkId>>,
    count: u64,
}

impl ListWriter {
    pub fn push(&mut self, id: ChunkId, store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<()> {
        self.count += 1;
        self.push_at(0, id, store)
    }

    /// The same id `count` times. The pages that hold nothing else are all one page: it is made and stored once, so that
    /// this takes no longer for more of them.
    pub fn push_run(
        &mut self,
        id: ChunkId,
        count: u64,
        store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>,
    ) -> Result<()> {
        self.count += count;
        self.push_run_at(0, id, count, store)
    }

    fn push_run_at(
        &mut self,
        level: usize,
        id: ChunkId,
        mut count: u64,
        store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>,
    ) -> Result<()> {
        while count > 0 && self.levels.get(level).is_some_and(|ids| !ids.is_empty()) {
            self.push_at(level, id, store)?;
            count -= 1;
        }
        let in_page = if ends_page(id) { 1 } else { LIST_IDS_MAX };
        let pages = count / in_page as u64;
        if pages > 0 {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let page = store(encode(level as u8, &vec![id; in_page]))?;
            self.push_run_at(level + 1, page, pages, store)?;
        }
        (0..count % in_page as u64).try_for_each(|_| self.push_at(level, id, store))
    }

    fn push_at(&mut self, level: usize, id: ChunkId, store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let ids = &mut self.levels[level];
        ids.push(id);
        if ends_page(id) || ids.len() == LIST_IDS_MAX {
            let page = store(encode(level as u8, ids))?;
            self.levels[level].clear();
            return self.push_at(level + 1, page, store);
        }
        Ok(())
    }

    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The ids so far, while none has gone to a page.
    pub fn direct(&self) -> Option<&[ChunkId]> {
        match self.levels.as_slice() {
            [] => Some(&[]),
            [ids] => Some(ids),
            _ => None,
        }
    }

    /// Stores what is left; returns the depth and the root.
    pub fn finish(mut self, store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<(u8, ChunkId)> {
        let mut level = 0;
        loop {
            let ids = std::mem::take(&mut self.levels[level]);
            let top = level + 1 == self.levels.len();
            // A single page at the top is the root itself.
            if top && level > 0 && ids.len() == 1 {
                return Ok((level as u8, ids[0]));
            }
            if !ids.is_empty() {
                let page = store(encode(level as u8, &ids))?;
                if top {
                    return Ok((level as u8 + 1, page));
                }
                self.levels[level + 1].push(page);
            }
            level += 1;
        }
    }
}

/// Whether a page ends behind this id.
fn ends_page(id: ChunkId) -> bool {
    u16::from_le_bytes([id.0[ChunkId::BYTES - 2], id.0[ChunkId::BYTES - 1]]).is_multiple_of(512)
}

fn encode(level: u8, ids: &[ChunkId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + ids.len() * ChunkId::BYTES);
    bytes.extend_from_slice(&[MAGIC, VERSION, level]);
    ids.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
    bytes
}

/// Reads a list page, which must be of the level expected.
pub fn decode_list(bytes: &[u8], level: u8) -> Result<Vec<ChunkId>> {
    let mut take = Take::new("chunk list", bytes);
    if (take.byte()?, take.byte()?, take.byte()?) != (MAGIC, VERSION, level) {
        return Err(take.bad("it is not a chunk list of the expected level"));
    }
    if !take.remaining().is_multiple_of(ChunkId::BYTES) || take.remaining() == 0 {
        return Err(take.bad("its length is wrong"));
    }
    if take.remaining() > LIST_IDS_MAX * ChunkId::BYTES {
        return Err(take.bad(format!("it has more than {LIST_IDS_MAX} ids")));
    }
    let mut ids = Vec::with_capacity(take.remaining() / ChunkId::BYTES);
    while take.remaining() > 0 {
        ids.push(ChunkId(take.array()?));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(pages: &HashMap<ChunkId, Vec<u8>>, depth: u8, id: ChunkId, out: &mut Vec<ChunkId>) {
        if depth == 0 {
            return out.push(id);
        }
        for id in decode_list(&pages[&id], depth - 1).unwrap() {
            read(pages, depth - 1, id, out);
        }
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
            if one_by_one {
                (0..*count).for_each(|_| writer.push(*id, &mut store).unwrap())
            } else {
                writer.push_run(*id, *count, &mut store).unwrap()
            }
        }
        assert_eq!(writer.len(), runs.iter().map(|(_, count)| count).sum::<u64>());
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
        let list = |count| encode(0, &vec![ChunkId([1; 24]); count]);
        assert_eq!(decode_list(&list(LIST_IDS_MAX), 0).unwrap().len(), LIST_IDS_MAX);
        assert!(decode_list(&list(LIST_IDS_MAX + 1), 0).unwrap_err().to_string().contains("more than 8192 ids"));
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
                writer.push(*id, &mut store).unwrap();
            }
            let (depth, root) = writer.finish(&mut store).unwrap();
            let mut out = Vec::new();
            read(&pages, depth, root, &mut out);
            assert_eq!(out, ids);
        }
    }
}
