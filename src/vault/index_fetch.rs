//! Fetch and decode index objects, a bounded number at a time.

use crate::error::{Error, Kind, Result};
use crate::format::index::{INDEX_BYTES_MAX, decode_index, plain_bytes_max};
use crate::format::index_name;
use crate::id::IndexId;
use crate::place::{IndexContents, PackContents};
use crate::seal::{open_object, sealed_object_bytes_max};
use crate::vault::opened::OpenedRepository;
use crate::vault::parallel::fetch_all;
use std::collections::{HashMap, VecDeque};

/// Index objects that are fetched together take this many bytes, with the one that passes it.
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_OBJECTS_MAX: usize = 256;

/// An iterator over what index objects say. [`finish`](Self::finish) tells whether they were all read.
pub(super) struct IndexFetch<'a> {
    opened: &'a OpenedRepository,
    sizes: &'a HashMap<IndexId, u64>,
    wanted: Vec<IndexId>,
    ready: VecDeque<(IndexId, Result<Vec<u8>>)>,
    unread: UnreadIndexes,
    failure: Option<Error>,
}

/// Index objects that could not be read, in a repository that is there.
#[derive(Default)]
pub(super) struct UnreadIndexes {
    /// They were removed after the listing.
    pub vanished: Vec<IndexId>,
    pub damaged: Vec<(IndexId, Error)>,
}

/// Bytes of an index object as it is stored.
fn bytes_max() -> u64 {
    sealed_object_bytes_max(INDEX_BYTES_MAX)
}

impl<'a> IndexFetch<'a> {
    /// `sizes` are those of the listing, in bytes, where they are known.
    pub(crate) fn new(opened: &'a OpenedRepository, wanted: Vec<IndexId>, sizes: &'a HashMap<IndexId, u64>) -> Self {
        IndexFetch { opened, sizes, wanted, ready: VecDeque::new(), unread: UnreadIndexes::default(), failure: None }
    }

    /// What could not be read; an error if that says nothing of the objects, as the repository cannot be reached.
    pub(crate) fn finish(self) -> Result<UnreadIndexes> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        if !self.unread.vanished.is_empty() || !self.unread.damaged.is_empty() {
            self.opened.check_is_there()?;
        }
        Ok(self.unread)
    }

    fn fetch_batch(&mut self) {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while bytes < BATCH_BYTES && batch.len() < BATCH_OBJECTS_MAX {
            let Some(index) = self.wanted.pop() else { break };
            // Of unknown size, it is taken for a large one.
            bytes += self.sizes.get(&index).copied().unwrap_or(BATCH_BYTES / 8);
            batch.push(index);
        }
        let names: Vec<String> = batch.iter().map(index_name).collect();
        let fetched = fetch_all(self.opened.storage(), &names, bytes_max());
        self.ready = batch.into_iter().zip(fetched).collect();
    }

    /// What an object says that was fetched. A read can fail for other reasons: only if a second one, of the medium itself,
    /// fails as well, the object is damaged.
    fn contents(&self, index: IndexId, fetched: Result<Vec<u8>>) -> Result<IndexContents> {
        let contents = |bytes: Vec<u8>| {
            let packs = self.decode(&index, &bytes).map_err(|error| error.with_kind(Kind::Corrupt))?;
            Ok(IndexContents { index, bytes: bytes.len() as u64, packs })
        };
        match fetched.and_then(contents) {
            Err(error) if error.is(Kind::Corrupt) => {
                let again = self.opened.storage().get_uncached(&index_name(&index), bytes_max());
                again.and_then(|(bytes, _)| contents(bytes))
            }
            read => read,
        }
    }

    fn decode(&self, index: &IndexId, bytes: &[u8]) -> Result<Vec<PackContents>> {
        if blake3::hash(bytes).as_bytes() != index.as_bytes() {
            return Err(Error::corrupt("trust", "it", "the content hash does not match the object's name"));
        }
        let plain = open_object(self.opened.keys(), "index", bytes, plain_bytes_max(bytes.len() as u64))?;
        decode_index(&plain)
    }
}

impl Iterator for IndexFetch<'_> {
    type Item = IndexContents;

    fn next(&mut self) -> Option<Self::Item> {
        while self.failure.is_none() {
            if self.ready.is_empty() {
                self.fetch_batch();
            }
            let (index, fetched) = self.ready.pop_front()?;
            match self.contents(index, fetched) {
                Ok(contents) => return Some(contents),
                Err(error) if error.is(Kind::NotFound) => self.unread.vanished.push(index),
                // Cut, too large, or with wrong bytes: the object's own fault, which must not keep the others from being read.
                Err(error) if error.is(Kind::Corrupt) => {
                    self.unread.damaged.push((index, Error::corrupt("read the index object", index, error)));
                }
                Err(error) => self.failure = Some(error),
            }
        }
        None
    }
}
