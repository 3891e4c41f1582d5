//! The line of content: read, cut, claim and store chunk by chunk.

use crate::backup::bytes::ContentBytes;
use crate::backup::chunk_store::ChunkStore;
use crate::backup::chunks::{ChunkSaver, ExpectedContent, SaveError};
use crate::backup::counts::BackupCounts;
use crate::backup::helpers::HelperPool;
use crate::backup::intake::Intake;
use crate::backup::large::{BatchSizes, HELPED_BYTES_MIN, HelpedContent};
use crate::backup::readers::Readers;
use crate::backup::zeros::ZeroChunk;
use crate::disk::PageBuffer;
use crate::entry::{CHUNKS_DIRECT_MAX, Content};
use crate::error::Result;
use crate::format::list::{ListItem, ListWriter};
use crate::watch::Watch;
use rayon::Scope;

/// Content of at most this many bytes is kept in the tree: an id and its place in the index take more.
const INLINE_BYTES_MAX: usize = 32;
/// One read of a large file. The chunker may leave up to a chunk of it for the next round.
const READ_BYTES: usize = 1 << 20;

/// Content as it was saved, and its length in bytes.
pub(super) struct SavedContent {
    pub content: Content,
    pub bytes: u64,
}

pub(super) struct ContentSaver<'a> {
    pub intake: Intake<'a>,
    helpers: HelperPool,
    /// How many readers share the work of the processors.
    readers: usize,
    batches: BatchSizes,
}

impl<'a> ContentSaver<'a> {
    pub(crate) fn new(
        store: &'a ChunkStore<'a>,
        readers: &Readers,
        memory_bytes: u64,
        watch: &'a Watch,
        counts: &'a BackupCounts,
    ) -> Self {
        ContentSaver {
            intake: Intake::new(ChunkSaver::new(store), watch, counts),
            helpers: HelperPool::default(),
            readers: readers.least,
            batches: BatchSizes::new(readers.least, memory_bytes),
        }
    }

    /// How many readers can help the calling thread.
    fn helpers_max(&self) -> usize {
        self.readers.saturating_sub(usize::from(rayon::current_thread_index().is_some()))
    }

    /// Cuts content into chunks and stores them. If it turns out to be large, other readers help with the rest of it, unless
    /// they are helping with other content. They run in `scope`.
    pub(crate) fn save<'s>(
        &'s self,
        scope: &Scope<'s>,
        mut from: impl ContentBytes,
        expected: ExpectedContent,
        buffer: &mut PageBuffer,
    ) -> Result<SavedContent, SaveError> {
        let Self { intake, .. } = self;
        let mut list = ChunkList { writer: ListWriter::default(), intake };
        let max = intake.chunks.chunk_bytes_max(expected.kind);
        // One byte more than expected, so that one read tells whether the file has grown.
        let size = usize::try_from(expected.bytes).unwrap_or(usize::MAX);
        let mut wanted = size.saturating_add(1).clamp(4096, READ_BYTES + max);
        if buffer.len() < wanted {
            *buffer = PageBuffer::new(wanted.max(READ_BYTES));
        }
        let (mut filled, mut total, mut last) = (0, 0, false);
        let mut zero_chunk = ZeroChunk::default();
        loop {
            if let Some(passed) = intake.pass_zeros(&mut from, expected, &buffer[..filled], &mut zero_chunk)? {
                list.push(passed.chunk, passed.run.count).map_err(SaveError::Store)?;
                filled -= passed.run.of_begun;
                total += passed.run.bytes;
            }
            last = last || intake.fill(&mut from, &mut buffer[..wanted], &mut filled, expected)?;
            if total == 0 && last && filled <= INLINE_BYTES_MAX {
                let content = if filled == 0 { Content::Empty } else { Content::Inline(buffer[..filled].to_vec()) };
                return Ok(SavedContent { content, bytes: filled as u64 });
            }
            let ends = intake.chunks.cut(expected.kind, &buffer[..filled], last);
            let at = ends.last().copied().unwrap_or(0);
            for chunk in intake.chunks.store(&buffer[..at], &ends).map_err(SaveError::Store)? {
                list.push(chunk, 1).map_err(SaveError::Store)?;
            }
            total += at as u64;
            if last {
                break;
            }
            intake.check_cancel()?;
            if expected.bytes.saturating_sub(total) >= HELPED_BYTES_MIN
                && let Some(permit) = self.helpers.permit(scope, &intake.chunks, self.helpers_max())
            {
                let helped = HelpedContent { intake, permit, sizes: self.batches, expected };
                let mut push = |chunk, count| list.push(chunk, count);
                total += helped.save(&mut from, &buffer[at..filled], &mut push)?;
                break;
            }
            if wanted < READ_BYTES + max {
                // It has grown. A buffer for the size that it had may hold no whole chunk of what it is now.
                wanted = READ_BYTES + max;
                let mut larger = PageBuffer::new(wanted);
                larger[..filled].copy_from_slice(&buffer[..filled]);
                *buffer = larger;
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        let content = list.finish().map_err(SaveError::Store)?;
        Ok(SavedContent { content, bytes: total })
    }
}

/// The list of the chunks of one content, whose levels are stored as they fill.
struct ChunkList<'l> {
    writer: ListWriter,
    intake: &'l Intake<'l>,
}

impl ChunkList<'_> {
    /// Adds a chunk that follows itself `count` times.
    fn push(&mut self, chunk: ListItem, count: u64) -> Result<()> {
        let store = &mut |bytes: Vec<u8>| self.intake.chunks.store_list(&bytes);
        if count == 1 { self.writer.push(chunk, store) } else { self.writer.push_run(chunk, count, store) }
    }

    fn finish(self) -> Result<Content> {
        match self.writer.direct() {
            Some(chunks) if chunks.len() <= CHUNKS_DIRECT_MAX => {
                Ok(Content::Chunks(chunks.iter().map(|chunk| chunk.id).collect()))
            }
            _ => {
                let (depth, root) = self.writer.finish(&mut |bytes| self.intake.chunks.store_list(&bytes))?;
                Ok(Content::List { depth, root })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::test_parts::TestParts;
    use crate::chunk::ContentKind;
    use crate::entry::{Entry, EntryKind};
    use crate::id::ChunkId;

    struct Slice<'b>(&'b [u8]);

    impl ContentBytes for Slice<'_> {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let (now, later) = self.0.split_at(self.0.len().min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    /// Content of any size, read alone or with help, of a known size or of an unknown one.
    #[test]
    fn content_comes_back_and_is_cut_alike_with_and_without_help() {
        let parts = TestParts::new(3);
        let store = parts.store();
        let saver = ContentSaver::new(&store, &parts.readers, parts.options.memory_bytes, &parts.watch, &parts.counts);
        let mut saved = Vec::new();
        for length in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 100_000, 3 << 20, 20 << 20] {
            let mut bytes = vec![0; length];
            blake3::Hasher::new_keyed(&[7; 32]).finalize_xof().fill(&mut bytes);
            for expected in [length as u64, 10, u64::MAX] {
                let expected = ExpectedContent { kind: ContentKind::Dump, bytes: expected };
                let done = parts.readers.pool.in_place_scope(|scope| {
                    saver.save(scope, Slice(&bytes), expected, &mut PageBuffer::default()).unwrap()
                });
                assert_eq!(done.bytes, length as u64);
                saved.push((bytes.clone(), done.content));
            }
        }
        store.sink().unwrap().checkpoint(|_, _| ()).unwrap();
        let reader = parts.repo.reader();
        for three in saved.chunks(3) {
            assert!(three[0].1 == three[1].1 && three[1].1 == three[2].1);
            let (bytes, content) = &three[0];
            let mut read = match content {
                Content::Inline(bytes) => bytes.clone(),
                _ => Vec::new(),
            };
            let entry =
                Entry { content: content.clone(), size: bytes.len() as u64, ..Entry::new(*b"x", EntryKind::File) };
            let collect = &mut |id: &ChunkId| {
                read.extend_from_slice(&reader.content(id)?);
                Ok(())
            };
            reader.for_each_chunk(&entry, collect).unwrap();
            assert!(read == *bytes, "{} bytes", bytes.len());
        }
    }
}
