//! Save streams: what commands write, and standard input.

use crate::backup::baseline::Baseline;
use crate::backup::bytes::StreamBytes;
use crate::backup::chunks::{ExpectedContent, SaveError};
use crate::backup::content::{ContentSaver, SavedContent};
use crate::backup::counts::{BackupCounts, add};
use crate::backup::damage::damage_found;
use crate::backup::options::BackupOptions;
use crate::backup::readers::Readers;
use crate::backup::root_tree::RootTree;
use crate::backup::streams::Streams;
use crate::chunk::ContentKind;
use crate::disk::PageBuffer;
use crate::entry::{Entry, EntryKind};
use crate::error::Result;
use crate::source::ByteSource;
use crate::watch::{Ledger, now};
use std::io::Read;
use std::sync::Arc;

pub(super) struct StreamSaver<'a> {
    pub options: &'a BackupOptions,
    pub sources: &'a [Arc<dyn ByteSource>],
    pub content: &'a ContentSaver<'a>,
    pub baseline: &'a Baseline<'a>,
    pub readers: &'a Readers,
    pub counts: &'a BackupCounts,
    pub ledger: &'a Ledger<'a>,
}

impl StreamSaver<'_> {
    /// Saves all streams, each under its name.
    pub(crate) fn save(&self, streams: &mut Streams, tree: &mut RootTree) -> Result<()> {
        let names: Vec<&[u8]> = self.sources.iter().map(|source| source.name()).collect();
        if names.is_empty() {
            return Ok(());
        }
        if let Some(parent) = self.baseline.parent().filter(|_| self.options.skip_if_unchanged) {
            self.baseline.read_old_streams(parent, &names);
        }
        if let Some(error) = self.ledger.take_failure() {
            return Err(error);
        }
        // A run that starts over in any case does so before the streams, which then rest on nothing damaged.
        if !self.baseline.store.is_dry_run() && self.baseline.damage.has_found_packs() {
            return Err(damage_found());
        }
        for source in self.sources {
            tree.add_stream(source.name(), self.save_one(source, streams)?)?;
        }
        Ok(())
    }

    /// The content of a stream, whole or not at all: its last read fails when its producer failed. What an earlier attempt
    /// read is not read again.
    fn save_one(&self, source: &Arc<dyn ByteSource>, streams: &mut Streams) -> Result<Entry> {
        let name = source.name();
        self.ledger.watch().progress.set_current(name);
        let entry = match streams.saved(name) {
            Some(saved) => saved.clone(),
            None => {
                let mut entry = Entry::new(name.rsplit(|byte| *byte == b'/').next().unwrap_or(name), EntryKind::Stream);
                entry.meta.mode = 0o600;
                entry.meta.modified = now();
                if !self.baseline.store.is_dry_run() {
                    streams.note_opened(source);
                    let SavedContent { content, bytes } = self.read(name, source.open(self.ledger.watch())?)?;
                    (entry.content, entry.size) = (content, bytes);
                    streams.add(name, entry.clone());
                }
                entry
            }
        };
        add(&self.counts.streams, 1);
        add(&self.counts.bytes, entry.size);
        Ok(entry)
    }

    /// Reads a stream to its end; its producer's failure is an error.
    fn read(&self, name: &[u8], source: impl Read) -> Result<SavedContent> {
        let reading = StreamBytes { name, source, watch: self.ledger.watch(), warned: false };
        let expected = ExpectedContent { kind: ContentKind::Dump, bytes: u64::MAX };
        let saved = self
            .readers
            .pool
            .in_place_scope(|scope| self.content.save(scope, reading, expected, &mut PageBuffer::default()));
        saved.map_err(SaveError::into_error)
    }
}
