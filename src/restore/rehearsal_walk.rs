//! Rehearse a restore: walk its directories without a change, and find out whether they meet.

use crate::disk::apply::is_as_saved;
use crate::disk::device::has_lasting_inodes;
use crate::disk::open::read_link;
use crate::disk::{Directory, Stat, Subject};
use crate::entry::{Entry, Metadata};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::counts::EntryFate;
use crate::restore::folder::{FolderState, OpenFolder, TargetFolder};
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::real_path;
use crate::restore::other_sources::OtherSources;
use crate::restore::overlap::{SourceOverlap, without_time};
use crate::restore::paths::shown;
use crate::restore::rehearsal::{MetDirectories, Rehearsal, RehearsedAction, SeenDirectory};
use crate::restore::run::{PlanGathering, RestoreRun, RunMode};
use rustix::fd::AsFd;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

impl RestoreRun<'_> {
    pub(crate) fn rehearsal(&self) -> Option<&Rehearsal> {
        match &self.mode {
            RunMode::Plan(planning) => planning.rehearsal.as_ref(),
            RunMode::Restore { .. } => None,
        }
    }

    /// Returns the overlap if directories meet. If none do, records each directory that the restore enters with the other
    /// sources, because it may be inside an extra directory of another source.
    pub(crate) fn rehearse(
        &self,
        guess: SourceOverlap,
        root: &Entry,
        base: &[u8],
        others: &mut OtherSources,
    ) -> Result<Option<SourceOverlap>> {
        // With --include, directories are entered in which things are only deleted. What --exclude leaves out is not entered: where
        // the snapshot was made, other sources are known, but not elsewhere. Links that lead nowhere may lead somewhere later.
        let is_hidden = match self.target.in_place.get() {
            Some(true) => self.options.include.is_some(),
            _ => self.options.has_filter(),
        };
        if guess.has_dangling() || (self.options.delete && is_hidden) {
            return Ok(Some(guess));
        }
        let planning = PlanGathering { rehearsal: Some(Rehearsal::default()), ..PlanGathering::default() };
        let mode = RunMode::Plan(Box::new(planning));
        let run = RestoreRun::new(self.repo, self.reader.clone(), self.options, self.scope, mode, self.watch)?;
        let is_of_many = guess.is_of_many;
        run.target.overlap.get_or_init(|| Some(guess));
        run.go(root, base)?;
        if let Some(error) = run.ledger.take_failure() {
            return Err(error);
        }
        let Some(rehearsal) = run.rehearsal() else {
            return Err(Error::new(Kind::Failed, "look for directories that meet", ""));
        };
        Ok(match rehearsal.met.get() {
            Some(MetDirectories::Yes(one, other)) => {
                let why = format!("{} and {} have the same place", shown(one), shown(other));
                let is_of_many = self.scope.source_of(one) != self.scope.source_of(other);
                Some(SourceOverlap::of(KeepReason::state(why), is_of_many))
            }
            Some(MetDirectories::Maybe(reason)) => Some(SourceOverlap::of(reason.clone(), is_of_many)),
            None => {
                others.note_restored(locked(&rehearsal.seen).keys().copied());
                self.target.spared.get_or_init(|| std::mem::take(&mut *locked(&rehearsal.spared)));
                None
            }
        })
    }

    /// Whether nothing of a directory is restored because another path has the same place. Counts the directory, and reports it if
    /// its metadata differ from those saved.
    pub(crate) fn is_spared(&self, path: &[u8], directory: &Directory, stat: &Stat, entry: &Entry) -> bool {
        let Some(spared) = self.target.spared.get().and_then(|spared| spared.get(path)) else { return false };
        let but_time = Metadata { modified: stat.modified, ..entry.meta.clone() };
        let is_right = || is_as_saved(Subject::Open(directory.as_fd()), stat, &but_time, &self.apply_options());
        if spared.is_restored || is_right() {
            self.fate(EntryFate::Kept, || path.to_vec())
        } else {
            self.met(path.to_vec(), &spared.other)
        }
        true
    }

    /// In a rehearsal, notes a directory that is entered.
    pub(crate) fn rehearse_directory(&self, folder: &TargetFolder, here: &OpenFolder) -> Result<()> {
        let Some(rehearsal) = self.rehearsal() else { return Ok(()) };
        let Some(directory) = self.identity_of(here)? else {
            rehearsal.cannot_tell(|| format!("cannot tell what {} is", shown(&folder.path)));
            return Ok(());
        };
        let deletes = || self.options.delete && here.facts.mounted == here.facts.deletes_on;
        let does = match &folder.entry {
            _ if !folder.inside => RehearsedAction::LeadsOn,
            Some(entry) if !self.has_entries(entry)? && !deletes() => RehearsedAction::Nothing,
            _ => RehearsedAction::Restores,
        };
        match does {
            // It does not spare the same directory in another way.
            RehearsedAction::Nothing if here.facts.is_read_only => return Ok(()),
            RehearsedAction::Nothing => {}
            RehearsedAction::LeadsOn | RehearsedAction::Restores => self.rehearse_device(rehearsal, folder, here),
        }
        let meta = folder.entry.as_ref().map_or(0, |entry| meta_hash(&entry.meta));
        rehearsal.see(directory, SeenDirectory { path: folder.path.clone(), does, meta, spares: Vec::new() });
        Ok(())
    }

    /// Records that a file system is entered. If its inode numbers can change, they cannot show whether two ways to it meet.
    fn rehearse_device(&self, rehearsal: &Rehearsal, folder: &TargetFolder, here: &OpenFolder) {
        let mounted_above = folder.above.as_ref().and_then(|above| match above.state() {
            FolderState::Ready(here) => Some(here.facts.mounted),
            FolderState::Closed(facts) => Some(facts.mounted),
            FolderState::Unmade | FolderState::Refused => None,
        });
        if let Some(target) = here.target.as_ref().filter(|_| mounted_above != Some(here.facts.mounted))
            && let lasts = has_lasting_inodes(target.directory())
            && !matches!(lasts, Ok(true))
            && !locked(&rehearsal.devices).insert(here.facts.mounted.0)
        {
            rehearsal.note_passing(&folder.path, lasts);
        }
    }

    /// In a rehearsal, notes a link above a source that was followed. What it leads to is entered; but a link that leads to it
    /// through another link may lose that one as an extra entry. In place, those are known: see [`OtherSources`].
    pub(crate) fn rehearse_link(&self, root: &Directory, above: &Directory, name: &[u8], end: &Directory) {
        let Some(rehearsal) = self.rehearsal() else { return };
        rehearsal.note_passing(name, has_lasting_inodes(end));
        if self.target.in_place.get() == Some(&true) {
            return;
        }
        let leads_straight = || -> Result<bool> {
            let (link, end) = (read_link(above, name)?, real_path(end)?);
            let from = real_path(if link.starts_with(b"/") { root } else { above })?;
            Ok(joined(&from, &link).is_some_and(|path| path == end))
        };
        match leads_straight() {
            Ok(true) => {}
            Ok(false) => rehearsal.cannot_tell(|| {
                format!("the symbolic link {} leads through others, or into a directory and up again", shown(name))
            }),
            Err(error) => rehearsal.fail_to_tell(error),
        }
    }
}

fn meta_hash(meta: &Metadata) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(without_time(meta))
}

/// Resolves the text of a link without looking at the file system. This is the real path only if no other link is on the way.
/// None if the link goes into a directory and up again: it needs that directory, which it does not lead to.
fn joined(from: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    let (mut path, mut is_below) = (from.to_vec(), false);
    for part in link.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if is_below => return None,
            b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            name => {
                is_below = true;
                path.push(b'/');
                path.extend_from_slice(name);
            }
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Identity;
    use crate::restore::overlap::UNMADE_DEVICE;

    #[test]
    fn what_does_nothing_meets_nobody() {
        let directory = |inode| Identity { device: 1, inode };
        let seen = |path: &str, does, meta| SeenDirectory { path: path.into(), does, meta, spares: Vec::new() };
        let met_with = |uses: &[(&str, u64, RehearsedAction, u64)]| {
            let rehearsal = Rehearsal::default();
            uses.iter().for_each(|(path, at, does, meta)| rehearsal.see(directory(*at), seen(path, *does, *meta)));
            rehearsal.is_over()
        };
        let met = |uses: &[(&str, u64, RehearsedAction)]| {
            let uses: Vec<_> = uses.iter().map(|(path, at, does)| (*path, *at, *does, 0)).collect();
            met_with(&uses)
        };
        use RehearsedAction::{LeadsOn, Nothing, Restores};
        for (one, other, expected) in [
            (Restores, Restores, true),
            (LeadsOn, Restores, true),
            (LeadsOn, LeadsOn, false),
            (Nothing, Restores, false),
            (Nothing, LeadsOn, false),
            (Nothing, Nothing, false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(met(&[("/a", 1, one), ("/b", 1, other)]), expected);
                // Above a source, metadata are not restored.
                let differ = met_with(&[("/a", 1, one, 1), ("/b", 1, other, 2)]);
                assert_eq!(differ, expected || (one != LeadsOn && other != LeadsOn));
            }
        }
        // What does nothing does not hide what came before or after.
        assert!(met(&[("/a", 1, Nothing), ("/b", 1, Restores), ("/c", 1, Restores)]));
        assert!(met(&[("/b", 1, Restores), ("/a", 1, Nothing), ("/c", 1, Restores)]));
        // A path that restores nothing spares those that an earlier one spared.
        let rehearsal = Rehearsal::default();
        for (path, does) in [("/a", Nothing), ("/b", Nothing), ("/c", LeadsOn)] {
            rehearsal.see(directory(1), seen(path, does, 0));
        }
        let spared = locked(&rehearsal.spared);
        assert!(spared.len() == 2 && spared.values().all(|spared| spared.other == b"/c" && !spared.is_restored));
        // A directory that is still to be made.
        let unmade = Identity { device: UNMADE_DEVICE, inode: 1 };
        let rehearsal = Rehearsal::default();
        for (path, expected) in [("/a", false), ("/a", false), ("/b", true)] {
            rehearsal.see(unmade, seen(path, LeadsOn, 0));
            assert_eq!(rehearsal.is_over(), expected);
        }
        // It is entered again, or another directory.
        assert!(!met(&[("/a", 1, Restores), ("/a", 1, Restores), ("/b", 2, Restores)]));
    }

    #[test]
    fn a_link_is_joined_to_its_directory() {
        for (from, link, expected) in [
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "../c//d/./e", "/a/c/d/e"),
            ("/a", "../../../c", "/c"),
            ("", "/x/y/", "/x/y"),
            ("/target", "/x", "/target/x"),
        ] {
            let found = joined(from.as_bytes(), link.as_bytes());
            assert_eq!(found.as_deref(), Some(expected.as_bytes()), "{from} {link}");
        }
        assert_eq!(joined(b"/a", b"b/../c"), None);
    }
}
