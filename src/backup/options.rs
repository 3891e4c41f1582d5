//! What to back up and how.

use crate::backup::detect::Comparison;
use crate::backup::nested;
use crate::entry::{PathText, Time, Warning};
use crate::error::{Error, Result};
use crate::format::snapshot::{LABELS_BYTES_MAX, encoded_length};
use crate::id::SnapshotId;
use crate::repo::{SnapshotSource, Stamp};
use crate::seal::Compression;
use crate::source::rules::Rules;
use crate::source::stream::Stream;
use crate::watch::now;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

/// What a reader takes of the memory allowed, in bytes, with its share of the packs on their way; measured.
pub(super) const READER_MEMORY_BYTES: u64 = 24 << 20;

/// Where the standard input goes in a snapshot, and what reads it.
pub type Input = Box<dyn Read + Send + Sync>;

/// What to back up and how.
pub struct BackupOptions {
    /// Absolute, without `.` and `..`. A path that is saved with one above it is dropped when the backup begins.
    pub paths: Vec<PathBuf>,
    /// Sources that are known to be missing before the backup begins: each is a warning.
    pub missing: Vec<Warning>,
    pub streams: Vec<Stream>,
    /// Environment variables that the commands of streams see although they may hold secrets.
    pub stream_environment: Vec<String>,
    /// Standard input, and the name of its stream.
    pub input: Option<(Vec<u8>, Input)>,
    pub rules: Rules,
    pub comparison: Comparison,
    /// Read all files, even those that seem unchanged.
    pub force: bool,
    /// Compare with this snapshot instead of the local state.
    pub parent: Option<SnapshotId>,
    pub dry_run: bool,
    pub skip_if_unchanged: bool,
    pub host: String,
    pub user: String,
    pub job: String,
    pub tags: Vec<String>,
    /// The time of the snapshot, instead of now.
    pub time: Option<Time>,
    /// The offset of the host's time zone from UTC, in seconds east.
    pub offset: i32,
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
    pub fn default_memory_bytes() -> u64 {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
        (256 << 20).max(processors * READER_MEMORY_BYTES)
    }

    /// Backs up these paths with every setting at its default.
    pub fn new(paths: Vec<PathBuf>, host: &str) -> Self {
        BackupOptions {
            paths,
            missing: Vec::new(),
            streams: Vec::new(),
            stream_environment: Vec::new(),
            input: None,
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
        self.check_places()
    }

    /// Refuses streams that have the place of another source in the snapshot.
    fn check_places(&self) -> Result<()> {
        let input = self.input.as_ref().map(|(name, _)| name);
        let streams =
            || self.streams.iter().map(|stream| &stream.name).chain(input).map(|name| [b"/", &name[..]].concat());
        let trees = self.paths.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        let mut taken: BTreeSet<Vec<u8>> = trees.filter(|path| path != b"/").collect();
        for place in streams() {
            let below = [&place[..], b"/"].concat();
            let has_below = taken.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below));
            let ends = (1..place.len()).filter(|at| place[*at] == b'/').chain([place.len()]);
            if has_below || ends.into_iter().any(|end| taken.contains(&place[..end])) {
                return Err(same_place(&place[1..]));
            }
            taken.insert(place);
        }
        Ok(())
    }

    /// When the snapshot begins. An error if its name cannot hold that time.
    pub(super) fn started(&self) -> Result<Stamp> {
        let started = Stamp::new(self.time.unwrap_or_else(now), self.offset);
        started.compact()?;
        Ok(started)
    }

    /// Names the local state: the same sources under the same job share it.
    pub(super) fn state_name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.job.as_bytes());
        // Which of the others are sources of their own depends on what is mounted.
        for path in nested::tops(&self.paths) {
            hasher.update(&[0]);
            hasher.update(path.as_os_str().as_encoded_bytes());
        }
        hasher.finalize().to_hex()[..24].to_owned()
    }

    /// A copy without standard input, which can be read only once.
    pub(super) fn copy(&self) -> BackupOptions {
        BackupOptions {
            paths: self.paths.clone(),
            missing: self.missing.clone(),
            streams: self.streams.clone(),
            stream_environment: self.stream_environment.clone(),
            input: None,
            rules: self.rules.clone(),
            comparison: self.comparison,
            force: self.force,
            parent: self.parent,
            dry_run: self.dry_run,
            skip_if_unchanged: self.skip_if_unchanged,
            host: self.host.clone(),
            user: self.user.clone(),
            job: self.job.clone(),
            tags: self.tags.clone(),
            time: self.time,
            offset: self.offset,
            compression: self.compression,
            count_ahead: self.count_ahead,
            readers: self.readers,
            memory_bytes: self.memory_bytes,
        }
    }

    /// All sources, as the snapshot names them.
    pub(super) fn sources(&self, input_name: Option<&Vec<u8>>) -> Vec<SnapshotSource> {
        let path = |path: &PathBuf| PathText(path.as_os_str().as_encoded_bytes().to_vec());
        let trees = self.paths.iter().map(|at| SnapshotSource::Tree { path: path(at) });
        let streams = self.streams.iter().map(|stream| SnapshotSource::Stream {
            name: PathText(stream.name.clone()),
            command: Some(String::from_utf8_lossy(&stream.command).into_owned()),
        });
        let input =
            input_name.iter().map(|name| SnapshotSource::Stream { name: PathText(name.to_vec()), command: None });
        trees.chain(streams).chain(input).collect()
    }
}

/// The error for a stream where another source has its place.
pub(super) fn same_place(name: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(name).into_owned();
    Error::invalid("save", shown, "two sources of this backup have the same path").hint("give the stream another name")
}
