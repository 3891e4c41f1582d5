//! The sources of a backup by their kind: trees are walked together, streams are read one after the other.

use crate::backup::nested::tops;
use crate::disk::rights;
use crate::entry::{PathText, Warning};
use crate::error::{Error, Result};
use crate::repo::SnapshotSource;
use crate::source::{ByteSource, Source};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(super) struct SplitSources {
    pub paths: Vec<PathBuf>,
    pub missing: Vec<Warning>,
    pub streams: Vec<Arc<dyn ByteSource>>,
}

impl SplitSources {
    pub(crate) fn of(sources: &[Source]) -> Self {
        let mut split = SplitSources::default();
        for source in sources {
            match source {
                Source::Tree(path) => split.paths.push(path.clone()),
                Source::Missing(warning) => split.missing.push(warning.clone()),
                Source::Stream(stream) => split.streams.push(stream.clone()),
            }
        }
        split
    }

    /// Refuses streams that have the place of another source in the snapshot.
    pub(crate) fn check_places(&self) -> Result<()> {
        let trees = self.paths.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        let mut taken: BTreeSet<Vec<u8>> = trees.filter(|path| path != b"/").collect();
        for place in self.streams.iter().map(|stream| [b"/", stream.name()].concat()) {
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

    /// Names the local state: backups of the same trees under the same job share it, if the kernel shows them the same of these.
    pub(crate) fn state_name(&self, job: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(job.as_bytes());
        // What another view hides looks unchanged: it has a state of its own.
        hasher.update(&[0]).update(rights::view().as_bytes());
        // Which of the others are sources of their own depends on what is mounted.
        for path in tops(&self.paths) {
            hasher.update(&[0]);
            hasher.update(path.as_os_str().as_encoded_bytes());
        }
        hasher.finalize().to_hex()[..24].to_owned()
    }

    /// All sources, as the snapshot names them.
    pub(crate) fn in_snapshot(&self) -> Vec<SnapshotSource> {
        let path = |path: &PathBuf| PathText(path.as_os_str().as_encoded_bytes().to_vec());
        let trees = self.paths.iter().map(|at| SnapshotSource::Tree { path: path(at) });
        let streams = self
            .streams
            .iter()
            .map(|stream| SnapshotSource::Stream { name: PathText(stream.name().to_vec()), command: stream.command() });
        trees.chain(streams).collect()
    }
}

/// The error for a stream where another source has its place.
pub(super) fn same_place(name: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(name).into_owned();
    Error::invalid("save", shown, "two sources of this backup have the same path").hint("give the stream another name")
}
