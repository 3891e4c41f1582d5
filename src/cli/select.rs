//! Words that name a snapshot and a path in it, and the snapshot that they mean.

use super::exit::Failure;
use super::options::{FilterOptions, bytes_parser, moment};
use super::output::Console;
use super::text::show_path;
use clap::Args;
use siltstone::error::Error;
use siltstone::repo::{Repository, Snapshot, SnapshotSource};
use siltstone::watch::{Notice, NoticeKind, Watch};
use siltstone::when::{Moment, Selector, format_count, parse_target};

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
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
        };
        let path_names = names(&path);
        let trees = snapshot.sources.iter().filter_map(|source| match source {
            SnapshotSource::Tree { path } => Some(&path.0),
            _ => None,
        });
        let trees: Vec<&Vec<u8>> = trees.collect();
        let is_whole = trees.iter().any(|source| path_names.starts_with(&names(source)));
        let below: Vec<&&Vec<u8>> = trees.iter().filter(|source| names(source).starts_with(&path_names)).collect();
        let Some(first) = below.first().filter(|_| !is_whole && !path_names.is_empty()) else { return };
        let others = match below.len() {
            1 => String::new(),
            count => format!(" and {} others", format_count(count as u64 - 1)),
        };
        let text = format!(
            "snapshot {} has of {} only what it saved below it: {}{others}; `silt snapshots --path {}` shows the others",
            snapshot.id.short(),
            show_path(&path),
            show_path(first),
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
