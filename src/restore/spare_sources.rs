//! Keep what other sources are on this machine: nothing deletes or replaces it.

use crate::disk::stat::fstat;
use crate::disk::{Directory, Stat};
use crate::entry::Entry;
use crate::error::{Kind, Result};
use crate::restore::keep_reason::KeepReason;
use crate::restore::needed::{NeededEntry, NeededRole};
use crate::restore::other_sources::OtherSources;
use crate::restore::overlap::{is_alike, without_time};
use crate::restore::paths::{child_path, shown};
use crate::restore::run::RestoreRun;
use crate::restore::scope::is_at_or_below;
use crate::watch::NoticeKind;

/// What the snapshot has at a path of another source.
enum SourceElsewhere {
    Nothing,
    Entry(Box<Entry>),
    Damaged,
}

impl RestoreRun<'_> {
    /// Returns why nothing is deleted in a directory, the target or one that a source is restored into: another source has
    /// something else there.
    pub(crate) fn why_nothing_is_deleted(
        &self,
        others: &OtherSources,
        path: &[u8],
        directory: &Directory,
        entry: Option<&Entry>,
    ) -> Result<Option<KeepReason>> {
        let look = || -> Result<Option<KeepReason>> {
            let mut found: Vec<Vec<u8>> = others.source_of(&fstat(directory)?).map(<[u8]>::to_vec).collect();
            // A target that is not where it was saved was named by the user.
            if self.target.in_place.get() == Some(&true) {
                match others.paths_of(directory) {
                    Ok(paths) => found.extend(paths),
                    Err(error) => {
                        let why = format!("cannot tell whether it is in another source: {error}");
                        return Ok(Some(KeepReason::failure(why)));
                    }
                }
            }
            for other in found.iter().filter(|other| *other != path) {
                let Some(saved) = self.stored(self.scope.saved_at(&self.reader, other))? else { continue };
                if self.has_entries(&saved)? && !entry.is_some_and(|entry| is_alike(&saved, entry)) {
                    let why = format!("it is now {}, which belongs to another source of the snapshot", shown(other));
                    return Ok(Some(KeepReason::state(why)));
                }
            }
            Ok(None)
        };
        match look() {
            // Damage in another source does not stop this restore.
            Err(error) if error.is(Kind::Corrupt) => {
                let why = format!("cannot tell what another source of the snapshot has there: {error}");
                Ok(Some(KeepReason::failure(why)))
            }
            found => found,
        }
    }

    /// Returns the path of the other source of the snapshot that this directory is now. A source that the snapshot has with the
    /// same content and metadata does not count: it was in the same place when it was saved.
    pub(crate) fn other_source(&self, path: &[u8], stat: &Stat, entry: Option<&Entry>) -> Result<Option<Vec<u8>>> {
        let Some(others) = self.target.other_sources.get() else { return Ok(None) };
        if let Some(entry) = entry
            && self.is_mount_point_of_other(path, stat, entry)?
        {
            return Ok(None);
        }
        if let Some(other) = self.first_unlike(others.source_of(stat).filter(|other| *other != path), entry)? {
            return Ok(Some(other));
        }
        for mount in others.mounted.get(&stat.identity()).into_iter().flatten() {
            // A backup of one file system saved nothing of what is mounted.
            if is_at_or_below(path, &mount.source) || (entry.is_some() && !self.has_saved_in(&mount.path)?) {
                continue;
            }
            if let Some(other) = self.first_unlike(std::iter::once(mount.path.as_slice()), entry)? {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// Returns the path of another source that is mounted on a directory that was saved empty, if the two have different
    /// metadata: they are those of what is mounted, and not of the directory below it.
    pub(crate) fn other_mounted_on_empty(
        &self,
        path: &[u8],
        directory: &Directory,
        entry: &Entry,
    ) -> Result<Option<Vec<u8>>> {
        let Some(others) = self.target.other_sources.get() else { return Ok(None) };
        if self.has_entries(entry)? {
            return Ok(None);
        }
        for other in others.paths_of(directory)?.into_iter().filter(|other| other != path) {
            let is_alike = |saved: &Entry| without_time(&saved.meta) == without_time(&entry.meta);
            match self.saved_elsewhere(&other)? {
                SourceElsewhere::Nothing => {}
                SourceElsewhere::Entry(saved) if is_alike(&saved) => {}
                SourceElsewhere::Entry(_) | SourceElsewhere::Damaged => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    /// Whether a directory was a mount point already when it was saved, with another source mounted on it: a backup of one file
    /// system saves only its metadata, which are those of the other source.
    fn is_mount_point_of_other(&self, path: &[u8], stat: &Stat, entry: &Entry) -> Result<bool> {
        let others = self.target.other_sources.get().into_iter().flat_map(|others| others.source_of(stat));
        let mut others = others.filter(|other| *other != path).peekable();
        if others.peek().is_none() || self.scope.is_named(path) || self.has_entries(entry)? {
            return Ok(false);
        }
        for other in others {
            let is_alike = |saved: &Entry| without_time(&saved.meta) == without_time(&entry.meta);
            if !matches!(self.saved_elsewhere(other)?, SourceElsewhere::Entry(saved) if is_alike(&saved)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same for an entry that is not a directory: the source that the entry is now, that a link leads to, or whose data it holds.
    fn other_source_at(
        &self,
        path: &[u8],
        directory: &Directory,
        name: &[u8],
        entry: Option<&Entry>,
    ) -> Result<Option<NeededEntry>> {
        let Some(found) = self.target.other_sources.get().and_then(|others| others.names.get(name)) else {
            return Ok(None);
        };
        let here = fstat(directory)?.identity();
        let found = || found.iter().filter(|found| found.directory == here);
        if let Some(needed) = found().find(|found| found.role != NeededRole::Source) {
            return Ok(Some(NeededEntry { source: needed.source.clone(), holds: needed.role == NeededRole::Holds }));
        }
        let sources = found().map(|found| found.source.as_slice()).filter(|source| *source != path);
        Ok(self.first_unlike(sources, entry)?.map(NeededEntry::by))
    }

    /// Whether the snapshot has, or may have, a directory there with something in it.
    fn has_saved_in(&self, path: &[u8]) -> Result<bool> {
        match self.saved_elsewhere(path)? {
            SourceElsewhere::Entry(entry) => match self.has_entries(&entry) {
                Err(error) if error.is(Kind::Corrupt) => Ok(true),
                has => has,
            },
            SourceElsewhere::Damaged => Ok(true),
            SourceElsewhere::Nothing => Ok(false),
        }
    }

    /// What the snapshot has at a path of another source. Damage there does not stop the restore of this one.
    fn saved_elsewhere(&self, path: &[u8]) -> Result<SourceElsewhere> {
        match self.stored(self.scope.saved_at(&self.reader, path)) {
            Ok(Some(entry)) => Ok(SourceElsewhere::Entry(Box::new(entry))),
            Ok(None) => Ok(SourceElsewhere::Nothing),
            Err(error) if error.is(Kind::Corrupt) => Ok(SourceElsewhere::Damaged),
            Err(error) => Err(error),
        }
    }

    fn first_unlike<'p>(
        &self,
        paths: impl Iterator<Item = &'p [u8]>,
        entry: Option<&Entry>,
    ) -> Result<Option<Vec<u8>>> {
        for path in paths {
            let Some(entry) = entry else { return Ok(Some(path.to_vec())) };
            if !matches!(self.saved_elsewhere(path)?, SourceElsewhere::Entry(other) if is_alike(&other, entry)) {
                return Ok(Some(path.to_vec()));
            }
        }
        Ok(None)
    }

    /// Whether what has the name of an entry is, or leads to, another source: then it is not replaced.
    pub(crate) fn is_name_of_other(&self, above: &[u8], directory: &Directory, entry: &Entry) -> Result<bool> {
        let has_name = self.target.other_sources.get().is_some_and(|others| others.names.contains_key(&entry.name));
        Ok(has_name
            && self.other_source_at(&child_path(above, &entry.name), directory, &entry.name, Some(entry))?.is_some())
    }

    /// Whether a directory that is to make way for an entry at this path is another source, or on the way to one.
    pub(crate) fn leads_to_source(&self, path: &[u8], stat: &Stat) -> bool {
        self.target.other_sources.get().is_some_and(|others| {
            others.ways.contains(&stat.identity())
                || others.layers.contains_key(&stat.identity())
                || others.mounted.contains_key(&stat.identity())
                || others.source_of(stat).any(|other| other != path)
        })
    }

    /// Whether an extra directory is kept because it is another source now, is on the way to one or holds its data. Reports it.
    pub(crate) fn keeps_other_source(&self, path: &[u8], stat: &Stat) -> Result<bool> {
        let Some(others) = self.target.other_sources.get() else { return Ok(false) };
        let layer_of = || others.layers.get(&stat.identity());
        let why = match self.other_source(path, stat, None)? {
            Some(other) => NeededEntry::by(other).why("it is now"),
            None if let Some(source) = layer_of() => NeededEntry { source: source.clone(), holds: true }.why(""),
            None if others.ways.contains(&stat.identity()) => {
                "it is on the way to a source of the snapshot now".to_owned()
            }
            None => return Ok(false),
        };
        self.tell_kept(path, why);
        Ok(true)
    }

    /// The same for an extra entry that is not a directory.
    pub(crate) fn keeps_other_source_at(
        &self,
        path: &[u8],
        directory: &Directory,
        name: &[u8],
        stat: &Stat,
    ) -> Result<bool> {
        let needed = match self.other_source(path, stat, None)? {
            Some(mounted) => Some(NeededEntry::by(mounted)),
            None => self.other_source_at(path, directory, name, None)?,
        };
        needed.iter().for_each(|needed| self.tell_kept(path, needed.why("it now is, or leads to,")));
        Ok(needed.is_some())
    }

    /// Says that an extra entry stays.
    pub(crate) fn tell_kept(&self, path: &[u8], why: impl std::fmt::Display) {
        if self.compares() {
            self.watch.notice(NoticeKind::Deletion, format!("{} was not deleted: {why}", shown(path)));
        }
    }
}
