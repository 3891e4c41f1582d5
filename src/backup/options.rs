//! What to back up and how.

use crate::backup::detect::Comparison;
use crate::backup::split_sources::SplitSources;
use crate::entry::Time;
use crate::error::{Error, Result};
use crate::format::snapshot::LABELS_BYTES_MAX;
use crate::format::snapshot_source::encoded_length;
use crate::id::SnapshotId;
use crate::repo::Stamp;
use crate::seal::Compression;
use crate::source::Source;
use crate::source::rules::Rules;
use crate::watch::now;
use std::path::PathBuf;

/// What a reader takes of the memory allowed, in bytes, with its share of the packs on their way; measured.
pub(super) const READER_MEMORY_BYTES: u64 = 24 << 20;

/// What to back up and how.
#[derive(Clone)]
pub struct BackupOptions {
    /// A tree that is saved with one above it is dropped when the backup begins.
    pub sources: Vec<Source>,
    /// What is left out.
    pub rules: Rules,
    /// What counts as a change.
    pub comparison: Comparison,
    /// Read all files, even those that seem unchanged.
    pub force: bool,
    /// Compare with this snapshot instead of the local state.
    pub parent: Option<SnapshotId>,
    /// Say what would be read, and store nothing.
    pub dry_run: bool,
    /// Make no snapshot if nothing has changed since the last one.
    pub skip_if_unchanged: bool,
    /// The name of this host.
    pub host: String,
    /// The name of the user that runs the backup; may be empty.
    pub user: String,
    /// The name of the job; may be empty.
    pub job: String,
    /// Words for the snapshot, to select it by.
    pub tags: Vec<String>,
    /// The time of the snapshot, instead of now.
    pub time: Option<Time>,
    /// The offset of the host's time zone from UTC, in seconds east.
    pub offset: i32,
    /// How chunks are compressed.
    pub compression: Compression,
    /// If the size of the sources is not known from an earlier backup, count them at the same time, so that progress can
    /// say how much is left.
    pub count_ahead: bool,
    /// How many files are read at the same time; with none, as many as keep the processors busy.
    pub readers: Option<usize>,
    /// The memory that all buffers together may take, in bytes.
    pub memory_bytes: u64,
}

impl BackupOptions {
    /// The default limit of the buffers of a backup, in bytes: more on machines with many processors.
    pub(crate) fn default_memory_bytes() -> u64 {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
        (256 << 20).max(processors * READER_MEMORY_BYTES)
    }

    /// Backs up these trees with every setting at its default.
    pub fn new(paths: Vec<PathBuf>, host: &str) -> Self {
        BackupOptions {
            sources: paths.into_iter().map(Source::Tree).collect(),
            rules: Rules::default(),
            comparison: Comparison::default(),
            force: false,
            parent: None,
            dry_run: false,
            skip_if_unchanged: false,
            host: host.to_owned(),
            user: String::new(),
            job: String::new(),
            tags: Vec::new(),
            time: None,
            offset: 0,
            compression: Compression::Auto,
            count_ahead: false,
            readers: None,
            memory_bytes: Self::default_memory_bytes(),
        }
    }

    /// Refuses what no snapshot can hold, before anything is read.
    pub fn check(&self) -> Result<()> {
        let labels = (&self.host, &self.user, &self.job, &self.tags);
        let bytes = encoded_length(&labels);
        if bytes > LABELS_BYTES_MAX {
            let why = format!(
                "its host, user, job and tags take {bytes} bytes as JSON; at most {LABELS_BYTES_MAX} can be saved"
            );
            return Err(Error::invalid("make the snapshot", "", why)
                .hint("use fewer or shorter tags, or a shorter name of the job"));
        }
        SplitSources::of(&self.sources).check_places()
    }

    /// When the snapshot begins. An error if its name cannot hold that time.
    pub(super) fn started(&self) -> Result<Stamp> {
        let started = Stamp::new(self.time.unwrap_or_else(now), self.offset);
        started.compact()?;
        Ok(started)
    }
}
