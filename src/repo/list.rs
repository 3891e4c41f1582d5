//! Chunk lists: the ids of a file of many chunks, as pages of their own, cut where ids say so.
//!
//! Plain form: `L`, version 1, level (0 lists content chunks, n lists lists of level n-1), then ids without gaps. A page
//! ends behind an id whose last two bytes, as a little-endian number, are a multiple of 512, or at 8192 ids.

use crate::error::Result;
use crate::id::ChunkId;
use crate::repo::wire::Take;

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

    fn push_at(&mut self, level: usize, id: ChunkId, store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let ids = &mut self.levels[level];
        ids.push(id);
        let last = u16::from_le_bytes([id.0[ChunkId::BYTES - 2], id.0[ChunkId::BYTES - 1]]);
        if last.is_multiple_of(512) || ids.len() == LIST_IDS_MAX {
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
