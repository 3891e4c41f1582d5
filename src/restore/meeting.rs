//! What becomes of directories of the snapshot that meet in the target.

use crate::disk::apply::set_time;
use crate::disk::device::is_read_only;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Identity};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::{DirectoryLocation, mounted_twice, paths_above};
use crate::restore::options::Overwrite;
use crate::restore::overlap::{
    ImaginedDirectory, MAY_BE_OF_OTHERS, RestoredBefore, RestoredName, SourceOverlap, is_alike,
};
use crate::restore::paths::{child_path, shown};
use crate::restore::reached::ReachedDirectory;
use crate::restore::run::RestoreRun;
use std::collections::{BTreeSet, HashMap, HashSet};

impl RestoreRun<'_> {
    pub(crate) fn overlap(&self) -> Option<&SourceOverlap> {
        self.target.overlap.get().and_then(Option::as_ref)
    }

    /// Whether a directory of the target may be restored into; it was entered through this folder now. `location`: where it is.
    pub(crate) fn met_before(
        &self,
        at: &ReachedDirectory,
        location: impl FnOnce() -> Result<DirectoryLocation>,
        folder: &TargetFolder,
        entry: &Entry,
    ) -> Result<RestoredBefore> {
        let Some(overlap) = self.overlap().filter(|_| self.rehearsal().is_none()) else {
            return Ok(RestoredBefore::No);
        };
        let is_empty = !self.has_entries(entry)?;
        let (before, replaced) = overlap.before(at, folder, entry, is_empty);
        replaced.into_iter().for_each(|other| self.met(other, &folder.path));
        match before {
            // A filter may let through here what it did not let through there.
            RestoredBefore::Same if self.options.has_filter() => Ok(RestoredBefore::No),
            RestoredBefore::Same => self.same_by(overlap, at, location, folder),
            before => Ok(before),
        }
    }

    /// A directory that was restored through another path of the snapshot is the same, unless something else is mounted below it here
    /// or there.
    fn same_by(
        &self,
        overlap: &SourceOverlap,
        at: &ReachedDirectory,
        location: impl FnOnce() -> Result<DirectoryLocation>,
        folder: &TargetFolder,
    ) -> Result<RestoredBefore> {
        let (Some((other, first)), Some(second)) = (overlap.first_way(at.identity), at.mount) else {
            return Ok(RestoredBefore::Same);
        };
        // Linux before 5.8 does not number mounts.
        if first == second || first == 0 {
            return Ok(RestoredBefore::Same);
        }
        let places = match (&overlap.mounts, location()) {
            (Some(mounts), Ok(second)) => self.only_by_second_way(&folder.path, mounts, first, &second)?,
            _ => None,
        };
        Ok(match places {
            Some(places) if places.is_empty() => RestoredBefore::Same,
            places => RestoredBefore::SameBut { other, places },
        })
    }

    /// In a plan, what stands for a directory that the restore will make; None without overlap.
    pub(crate) fn imagined(&self, above: &OpenFolder, entry: &Entry) -> Result<Option<ImaginedDirectory>> {
        let Some(overlap) = self.overlap().filter(|_| !self.is_restore()) else { return Ok(None) };
        Ok(self.identity_of(above)?.map(|above| overlap.unmade(above, &entry.name)))
    }

    /// What a directory of the target is, or will be.
    pub(crate) fn identity_of(&self, here: &OpenFolder) -> Result<Option<Identity>> {
        match &here.target {
            Some(target) => fstat(target.directory()).map(|stat| Some(stat.identity())),
            None => Ok(here.facts.imagined),
        }
    }

    /// Whether an entry has the name of one that was restored into the same directory through another way. Two directories are
    /// told apart by [`met_before`](Self::met_before).
    pub(crate) fn restored_before(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        entry: &Entry,
    ) -> Result<RestoredBefore> {
        let Some(overlap) = self.overlap() else { return Ok(RestoredBefore::No) };
        let Some(directory) = self.identity_of(here)? else { return Ok(RestoredBefore::No) };
        let path = child_path(&folder.path, &entry.name);
        // Above sources, only a source is restored; it may have the name of what is in the directory of another one.
        let inside = if folder.inside {
            None
        } else {
            locked(&overlap.state).entered.get(&directory).map(|on| (on.path.clone(), on.content.clone()))
        };
        if let Some((on, Content::Tree(tree))) = inside
            && let Some(other) = self.stored(self.reader.lookup(&tree, &entry.name))?
        {
            return self.decided(here, &other, entry, child_path(&on, &entry.name), &path);
        }
        // By a way that is read-only nothing is restored.
        let is_recorded =
            !folder.inside && !here.target.as_ref().is_some_and(|target| is_read_only(target.directory()));
        let mut state = locked(&overlap.state);
        if state.sources.is_empty() && !is_recorded {
            return Ok(RestoredBefore::No);
        }
        let name = (directory, entry.name.clone());
        match state.sources.get(&name) {
            Some(found) if found.path == path => Ok(RestoredBefore::No),
            Some(found) => self.decided(here, &found.entry, entry, found.path.clone(), &path),
            None => {
                if is_recorded {
                    state.sources.insert(name, RestoredName { path, entry: entry.clone() });
                }
                Ok(RestoredBefore::No)
            }
        }
    }

    /// Tells that something was not restored, as its place was taken by another path of the snapshot.
    pub(crate) fn met(&self, path: Vec<u8>, other: &[u8]) {
        self.overlap().iter().for_each(|overlap| overlap.blocks());
        let why = format!("{} has the same place now, and was restored instead", shown(other));
        self.blocked_at(path, &why);
    }

    /// Why an entry is not replaced by one of another kind.
    pub(crate) fn keeps_other_kinds(&self) -> Option<&'static str> {
        let overlap = self.overlap().filter(|_| self.rehearsal().is_none())?;
        overlap.blocks();
        Some(MAY_BE_OF_OTHERS)
    }

    /// What was restored before, at the path `other_path`, is to an entry that has its name in the same directory.
    fn decided(
        &self,
        here: &OpenFolder,
        other: &Entry,
        entry: &Entry,
        other_path: Vec<u8>,
        path: &[u8],
    ) -> Result<RestoredBefore> {
        let are_directories = other.is_directory() && entry.is_directory();
        if let Some(rehearsal) = self.rehearsal()
            && !(are_directories && self.is_free_or_directory(here, entry)?)
        {
            rehearsal.meet(&other_path, path);
        }
        let is_alike = is_alike(other, entry);
        // With a filter, the other one may have been left out.
        Ok(if are_directories || (is_alike && self.options.has_filter()) {
            RestoredBefore::No
        } else if is_alike {
            RestoredBefore::Same
        } else {
            RestoredBefore::Other(other_path)
        })
    }

    /// Whether a directory can be entered under this name by all that have it: no link would be followed by one of them, and
    /// replaced by another one.
    fn is_free_or_directory(&self, here: &OpenFolder, entry: &Entry) -> Result<bool> {
        let Some(target) = &here.target else { return Ok(true) };
        match target.directory().stat(entry.name.as_slice()) {
            Err(error) if error.is(Kind::NotFound) => Ok(true),
            stat => stat.map(|stat| stat.is(EntryKind::Directory)),
        }
    }

    /// Gives a directory its time again in which a source was restored through a directory above it.
    pub(crate) fn mend_time(&self, folder: &TargetFolder, here: &OpenFolder) {
        let replaces = matches!(self.options.overwrite, Overwrite::Always | Overwrite::IfChanged);
        let mends = self.is_restore() && !folder.inside && replaces;
        let (Some(overlap), Some(target), true) = (self.overlap(), &here.target, mends) else { return };
        let mend = || {
            let stat = fstat(target.directory())?;
            let state = locked(&overlap.state);
            let entered = state.entered.get(&stat.identity()).filter(|entered| entered.is_wanted);
            match entered.map(|entered| entered.meta.modified).filter(|time| *time != stat.modified) {
                Some(time) => set_time(target.directory(), time),
                None => Ok(()),
            }
        };
        if let Err(error) = mend() {
            self.warn(&folder.path, format!("its time could not be restored: {error}"));
        }
    }

    /// Whether directories of the snapshot may meet in the target. `base` is the path that it stands for.
    pub(crate) fn find_overlap(&self, root: &Directory, base: &[u8]) -> Option<SourceOverlap> {
        let sources = self.scope.sources_below(base);
        // Where not all sources are named, any directory may be one.
        let is_one = self.scope.is_inside(base) || self.scope.sources_cut;
        let outermost = if is_one { vec![base] } else { outermost(&sources) };
        let may_be_many = !self.scope.is_inside(base) && (sources.len() > 1 || self.scope.sources_cut);
        let parent = |source: &[u8]| source.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let ways: BTreeSet<&[u8]> = if self.scope.is_inside(base) {
            BTreeSet::new()
        } else {
            sources.iter().map(|source| &source[base.len()..parent(source)]).collect()
        };
        let (mut reason, mut found) = (None, HashMap::new());
        let mut dangling = HashSet::new();
        for path in ways {
            let mut route = self.follow_route(root, base, path);
            // One source alone can meet others only where something is mounted. In place, all links on the way to it are known.
            let may_lead_through_itself = self.target.in_place.get() != Some(&true);
            let link = route.link.take().filter(|_| may_be_many || may_lead_through_itself);
            link.into_iter().for_each(|link| KeepReason::state(link).note(&mut reason));
            dangling.extend(route.dangling.take());
            found.insert(path, route.end);
        }
        let mut places = Vec::new();
        for place in outermost {
            let end = parent(place);
            let at = if is_one {
                root.open_child(c".").and_then(|root| DirectoryLocation::of(&root)).map(Some)
            } else {
                match found.get(&place[base.len()..end]) {
                    Some(Ok(Some(above))) => above.child(&place[end..]).map(Some),
                    Some(Err(error)) => Err(error.clone()),
                    _ => Ok(None),
                }
            };
            match at {
                Ok(place) => places.extend(place),
                Err(error) => {
                    let why = format!("cannot tell where {} is: {error}", shown(place));
                    KeepReason::failure(why).note(&mut reason);
                }
            }
        }
        let reason = reason.or_else(|| mounted_twice(&places))?;
        Some(SourceOverlap::new(reason, may_be_many, dangling))
    }

    /// Goes the way to a source as the restore will, as far as it is there.
    fn follow_route(&self, root: &Directory, base: &[u8], path: &[u8]) -> MeetingRoute {
        let mut route = MeetingRoute { link: None, dangling: None, end: Ok(None) };
        route.end = self.end_of(root, base, path, &mut route.link, &mut route.dangling);
        route
    }

    fn end_of(
        &self,
        root: &Directory,
        base: &[u8],
        path: &[u8],
        link: &mut Option<String>,
        dangling: &mut Option<Vec<u8>>,
    ) -> Result<Option<DirectoryLocation>> {
        let mut here = root.open_child(c".")?;
        let mut done = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let above = done.len();
            done.push(b'/');
            done.extend_from_slice(name);
            let opened = match here.open_child(name) {
                Err(error) if error.is(Kind::Denied) => here.open_child_to_search(name),
                Err(error) if error.is(Kind::Conflict) => {
                    if !here.stat(name)?.is(EntryKind::Symlink) {
                        return Ok(None);
                    }
                    let whole = [base, &done].concat();
                    link.get_or_insert_with(|| format!("{} is a symbolic link", shown(&whole)));
                    match self.open_link(root, &here, name, &done) {
                        Err(error) if leads_nowhere(&error) => {
                            *dangling = Some(whole);
                            return Ok(None);
                        }
                        followed => followed,
                    }
                }
                opened => opened,
            };
            match opened {
                Ok(next) => here = next,
                Err(error) if error.is(Kind::NotFound) => {
                    return DirectoryLocation::of(&here)?.child(&path[above..]).map(Some);
                }
                Err(error) => return Err(error),
            }
        }
        DirectoryLocation::of(&here).map(Some)
    }
}

/// Whether following a link failed because it leads to no directory in the target.
pub(super) fn leads_nowhere(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Unsupported)
}

/// The route to a source in the target. It keeps no directory open: there may be more sources than descriptors.
struct MeetingRoute {
    /// Why it may lead elsewhere.
    link: Option<String>,
    /// A link on it that leads nowhere.
    dangling: Option<Vec<u8>>,
    /// Where it ends; None if nothing can be restored there.
    end: Result<Option<DirectoryLocation>>,
}

/// Those of these paths, in order, that are in no other one.
fn outermost<'p>(sources: &[&'p [u8]]) -> Vec<&'p [u8]> {
    let all: HashSet<&[u8]> = sources.iter().copied().collect();
    let is_in_another = |path: &[u8]| paths_above(path).any(|above| all.contains(above));
    sources.iter().copied().filter(|source| !is_in_another(source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_in_another_one_is_no_place_of_its_own() {
        let sources: [&[u8]; 4] = [b"/a", b"/a/b", b"/ab", b"/c/d"];
        let expected: [&[u8]; 3] = [b"/a", b"/ab", b"/c/d"];
        assert_eq!(outermost(&sources), expected);
    }
}
