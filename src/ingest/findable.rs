//! Make what is stored findable: packs are written, then the index object that names them.

use crate::error::Result;
use crate::format::index::{INDEX_CHUNKS_MAX, encode_index};
use crate::format::index_name;
use crate::id::IndexId;
use crate::index::IndexBasis;
use crate::ingest::sink::ChunkSink;
use crate::lock::locked;
use crate::place::{IndexContents, PackContents};
use crate::seal::{Recipients, seal_object};

impl ChunkSink {
    pub(super) fn make_findable(&self, findable: impl FnOnce(IndexBasis, &[IndexId]) + Send) -> Result<()> {
        self.uploads.check()?;
        self.flush_lanes()?;
        let mut contents = Vec::new();
        for packs in &self.packs {
            packs.close().map_or(Ok(()), |leaving| self.send(packs, leaving))?;
            packs.wait_for_closed(|| self.uploads.check())?;
            contents.append(&mut packs.take_sent());
        }
        // Sealed while the last packs are on their way, and written only after them.
        let indexes = self.seal_index(contents)?;
        self.uploads.settle()?;
        if !indexes.is_empty() {
            // Another repository must not get index objects that it cannot read.
            self.vault.check_is_there()?;
        }
        let mut named = Vec::with_capacity(indexes.len());
        for (sealed, index) in indexes {
            self.uploads.count(sealed.len() as u64);
            self.vault.storage().put(&index_name(&index.index), sealed.into())?;
            named.push(index);
        }
        let own: Vec<IndexId> = named.iter().map(|named| named.index).collect();
        let relied = self.relied();
        let (learned, ()) = rayon::join(|| self.learn(&named), || findable(relied, &own));
        learned
    }

    /// Index objects that name all this: the bytes of each, and what it names.
    pub(super) fn seal_index(&self, contents: Vec<PackContents>) -> Result<Vec<(Vec<u8>, IndexContents)>> {
        let mut sealed = Vec::new();
        let mut group: Vec<PackContents> = Vec::new();
        let mut chunks = 0;
        let mut rest = contents.into_iter().peekable();
        while let Some(pack) = rest.next() {
            chunks += pack.frames.iter().map(|frame| frame.chunks.len()).sum::<usize>();
            group.push(pack);
            if chunks >= INDEX_CHUNKS_MAX || rest.peek().is_none() {
                let bytes = seal_object(self.vault.keys(), Recipients::Writers, "index", &encode_index(&group))?;
                let index = IndexId(*blake3::hash(&bytes).as_bytes());
                let named = IndexContents { index, bytes: bytes.len() as u64, packs: std::mem::take(&mut group) };
                sealed.push((bytes, named));
                chunks = 0;
            }
        }
        Ok(sealed)
    }

    /// Takes into the local index what is findable for everybody.
    pub(super) fn learn(&self, indexes: &[IndexContents]) -> Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        let mut relied = locked(&self.relied);
        self.vault.learn(indexes, &self.watch)?;
        self.refresh_claims(&mut relied);
        let frames = indexes.iter().flat_map(|index| &index.packs).flat_map(|pack| &pack.frames);
        self.claims.settled(frames.flat_map(|frame| frame.chunks.iter().map(|(id, _)| id)));
        Ok(())
    }
}
