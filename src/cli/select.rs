//! Words that name a snapshot and a path in it, and the snapshot that they mean.

use super::exit::Failure;
use super::options::{FilterOptions, bytes_parser, moment};
use super::output::Console;
use super::text::show_path;
use clap::Args;
use siltstone::error::Error;
use siltstone::repo::{Repository, Snapshot, SnapshotSource};
use siltstone::watch::{Notice, NoticeKind, Watch};
use siltstone::when::{Moment, Selector, format_counted, parse_target};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `SNAPSHOT[:PATH]`, or `:PATH` where --at says which snapshot.
#[derive(Clone, Debug)]
pub(super) struct SelectedTarget {
    pub selector: Option<Selector>,
    pub path: Option<Vec<u8>>,
}

pub(super) fn target(words: &[u8]) -> Result<SelectedTarget, Error> {
    if words.starts_with(b":") {
        Ok(SelectedTarget { selector: None, path: parse_target(&[b"latest", words].concat())?.1 })
    } else {
        parse_target(words).map(|(selector, path)| SelectedTarget { selector: Some(selector), path })
    }
}

/// Which snapshot, and what in it.
#[derive(Args, Clone, Debug)]
pub(super) struct TargetOptions {
    /// latest, latest~N (the Nth before it) or the first digits of an id, optionally with a path; with --at only :PATH
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = bytes_parser(target), required_unless_present = "at")]
    pub snapshot: Option<SelectedTarget>,

    /// The newest snapshot at or before this time: "2026-11-19", "yesterday 14:00" or RFC 3339; a time zone may follow
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<Moment>,

    #[command(flatten)]
    pub filter: FilterOptions,
}

impl TargetOptions {
    /// Refuses words that contradict each other, before anything is opened.
    pub(super) fn check(&self) -> Result<Selector, Failure> {
        let named = self.snapshot.as_ref().and_then(|target| target.selector.clone());
        match (&self.at, named) {
            (None, Some(selector)) => Ok(selector),
            (Some(moment), None) => Ok(Selector::At(moment.end)),
            (Some(_), Some(_)) => Err(Failure::Usage(
                "name the snapshot or use --at, not both: with --at, write a path as :PATH".to_owned(),
            )),
            (None, None) => {
                Err(Failure::Usage("name a snapshot before the colon (latest:PATH), or use --at".to_owned()))
            }
        }
    }

    pub(super) fn path(&self) -> Option<Vec<u8>> {
        self.snapshot.as_ref().and_then(|target| target.path.clone())
    }

    pub(super) fn find(&self, repo: &Repository, console: &Console, watch: &Watch) -> Result<Snapshot, Failure> {
        let selector = self.selector(console)?;
        Ok(repo.select(&selector, &self.filter.filter()?, watch)?)
    }

    /// The same for a command that would destroy something with the wrong one.
    pub(super) fn find_certain(
        &self,
        repo: &Repository,
        console: &Console,
        watch: &Watch,
    ) -> Result<Snapshot, Failure> {
        let selector = self.selector(console)?;
        Ok(repo.select_certain(&selector, &self.filter.filter()?, watch)?)
    }

    /// Says if the path is above what the snapshot saved: another snapshot may have all of it.
    pub(super) fn note_part(&self, snapshot: &Snapshot, console: &Console) {
        let Some(path) = self.path().filter(|_| snapshot.all_sources.is_none()) else { return };
        let whole = |path: &[u8]| Path::new("/").join(OsStr::from_bytes(path));
        let wanted = whole(&path);
        let trees = snapshot.sources.iter().filter_map(|source| match source {
            SnapshotSource::Tree { path } => Some(path.0.as_slice()),
            _ => None,
        });
        let trees: Vec<PathBuf> = trees.map(whole).collect();
        let mut below = trees.iter().filter(|source| source.starts_with(&wanted));
        let Some(first) = below.next() else { return };
        if wanted.parent().is_none() || trees.iter().any(|source| wanted.starts_with(source)) {
            return;
        }
        let others = match below.count() {
            0 => String::new(),
            count => format!(" and {}", format_counted(count as u64, "other", "others")),
        };
        let text = format!(
            "snapshot {} has of {} only what it saved below it: {}{others}; `silt snapshots --path {}` shows the others",
            snapshot.id.short(),
            show_path(&path),
            show_path(first.as_os_str().as_bytes()),
            show_path(&path),
        );
        console.note(Notice { kind: NoticeKind::Snapshot, text });
    }

    fn selector(&self, console: &Console) -> Result<Selector, Failure> {
        let selector = self.check()?;
        if let Some(note) = self.at.as_ref().and_then(|moment| moment.note.as_ref()) {
            console.note(Notice { kind: NoticeKind::Clock, text: note.clone() });
        }
        Ok(selector)
    }
}
