//! Read content into buffers, and count what was read.

use crate::backup::bytes::ContentBytes;
use crate::backup::chunks::{ChunkSaver, ExpectedContent, SaveError};
use crate::backup::counts::{BackupCounts, add};
use crate::backup::zeros::{FillLimits, PassedZeros, ZeroChunk, fill, pass_zeros};
use crate::error::Result;
use crate::watch::Watch;

pub(super) struct Intake<'a> {
    pub chunks: ChunkSaver<'a>,
    pub watch: &'a Watch,
    counts: &'a BackupCounts,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(chunks: ChunkSaver<'a>, watch: &'a Watch, counts: &'a BackupCounts) -> Self {
        Intake { chunks, watch, counts }
    }

    /// Fills the buffer as [`fill`] does.
    pub(crate) fn fill(
        &self,
        from: &mut impl ContentBytes,
        buffer: &mut [u8],
        filled: &mut usize,
        expected: ExpectedContent,
    ) -> Result<bool, SaveError> {
        let tell = |read, done| {
            add(&self.counts.bytes_read, read);
            add(&self.watch.progress.bytes_read, read);
            self.done(done);
        };
        let chunk_bytes_max = self.chunks.chunk_bytes_max(expected.kind);
        let limits = FillLimits { chunk_bytes_max, expected: expected.bytes };
        fill(from, buffer, filled, limits, &tell).map_err(SaveError::Source)
    }

    /// Passes over zeros as [`pass_zeros`] does.
    pub(crate) fn pass_zeros(
        &self,
        from: &mut impl ContentBytes,
        expected: ExpectedContent,
        begun: &[u8],
        known: &mut ZeroChunk,
    ) -> Result<Option<PassedZeros>, SaveError> {
        let passed = pass_zeros(&self.chunks, from, expected.kind, begun, known)?;
        passed.iter().for_each(|passed| self.done(passed.skipped));
        Ok(passed)
    }

    /// Counts bytes of content as done, for progress displays.
    pub(crate) fn done(&self, bytes: u64) {
        add(&self.watch.progress.bytes_done, bytes);
    }

    pub(crate) fn check_cancel(&self) -> Result<(), SaveError> {
        self.watch.cancel.check().map_err(SaveError::Store)
    }
}
