//! Directories that were apart when they were saved can be one in the target: a link above a source leads into another one, or
//! one file system is mounted twice. Such a restore deletes nothing, as what one directory does not have may be what the other one
//! needs; it restores no directory twice; and it has one writer, so that the plan and the restore meet them in one order.

use crate::disk::apply::set_time;
use crate::disk::device::{MountPoint, mount_points};
use crate::disk::stat::fstat;
use crate::disk::{Directory, Identity};
use crate::entry::{Content, Entry, EntryKind, Metadata};
use crate::error::{Error, Kind, Result};
use crate::restore::Overwrite;
use crate::restore::folder::{Folder, Here};
use crate::restore::plan::{child_path, shown};
use crate::restore::run::{Run, locked};
use crate::restore::scope::is_at_or_below;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reported for an entry that is not replaced by one of another kind.
const MAY_BE_OF_OTHERS: &str =
    "its place is taken by an entry of another kind, which was kept, as it may belong to another source";

/// The device of directories that a plan only imagines.
const UNMADE_DEVICE: u64 = u64::MAX;

pub(super) struct Overlap {
    /// Why directories may meet.
    pub why: String,
    /// Something was not restored for that.
    has_blocked: AtomicBool,
    /// Paths in the target whose links led nowhere when the restore began: what is restored must not change where they lead.
    dangling: HashSet<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The directories at and below sources that are restored.
    entered: HashMap<Identity, Entered>,
    /// What was restored into directories above sources, by directory and name.
    sources: HashMap<(Identity, Vec<u8>), Found>,
    /// In a plan: the directories that the restore will make, by what they will be in.
    unmade: HashMap<(Identity, Vec<u8>), Identity>,
}

/// What was restored into a directory.
struct Entered {
    path: Vec<u8>,
    content: Content,
    meta: Metadata,
    /// All of it is restored.
    is_wanted: bool,
}

/// What stands for a directory that a restore will make.
pub(super) struct Imagined {
    pub identity: Identity,
    /// No other way to it was met.
    pub is_first: bool,
}

struct Found {
    path: Vec<u8>,
    entry: Entry,
}

/// Whether a directory or another entry was restored before, through another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Before {
    No,
    /// The same: there is nothing left to do.
    Same,
    /// Another one, with this path in the snapshot.
    Other(Vec<u8>),
}

impl Overlap {
    fn new(why: String, dangling: HashSet<Vec<u8>>) -> Self {
        let (has_blocked, state) = Default::default();
        Overlap { why, has_blocked, dangling, state }
    }

    pub fn has_blocked(&self) -> bool {
        self.has_blocked.load(Ordering::Relaxed)
    }

    /// Notes that something was kept, or not restored, for this reason.
    pub fn blocks(&self) {
        self.has_blocked.store(true, Ordering::Relaxed);
    }

    /// Whether a link above a source led nowhere when the restore began.
    pub fn is_dangling(&self, path: &[u8]) -> bool {
        self.dangling.contains(path)
    }

    /// Records a directory that is restored. Directories above sources do not count: only sources are restored into them.
    fn before(&self, directory: Identity, folder: &Folder, entry: &Entry) -> Before {
        if !folder.inside {
            return Before::No;
        }
        let mut state = locked(&self.state);
        match state.entered.get(&directory) {
            Some(before) if before.path == folder.path => Before::No,
            Some(before) if before.content == entry.content && before.meta == entry.meta => Before::Same,
            Some(before) => Before::Other(before.path.clone()),
            None => {
                let (content, meta) = (entry.content.clone(), entry.meta.clone());
                let entered = Entered { path: folder.path.clone(), content, meta, is_wanted: folder.wanted };
                state.entered.insert(directory, entered);
                Before::No
            }
        }
    }

    /// In a plan: what stands for a directory that will be made.
    fn unmade(&self, above: Identity, name: &[u8]) -> Imagined {
        let unmade = &mut locked(&self.state).unmade;
        let inode = unmade.len() as u64;
        let identity = *unmade.entry((above, name.to_vec())).or_insert(Identity { device: UNMADE_DEVICE, inode });
        Imagined { identity, is_first: identity.inode == inode }
    }
}

/// Whether two entries of one name would be restored alike.
fn is_alike(one: &Entry, other: &Entry) -> bool {
    // Numbers of link groups tell names of one snapshot apart, not content.
    let others = Entry { link_group: one.link_group, ..other.clone() };
    *one == others
}

impl Run<'_> {
    pub fn overlap(&self) -> Option<&Overlap> {
        self.overlap.get().and_then(Option::as_ref)
    }

    /// Whether a directory of the target may be restored into; it was entered through this folder now.
    pub fn met_before(&self, directory: Identity, folder: &Folder, entry: &Entry) -> Before {
        match self.overlap().map_or(Before::No, |overlap| overlap.before(directory, folder, entry)) {
            // A filter may let through here what it did not let through there.
            Before::Same if self.options.has_filter() => Before::No,
            before => before,
        }
    }

    /// In a plan, what stands for a directory that the restore will make; None without overlap.
    pub fn imagined(&self, above: &Here, entry: &Entry) -> Result<Option<Imagined>> {
        let Some(overlap) = self.overlap().filter(|_| !self.is_deed()) else { return Ok(None) };
        Ok(self.identity_of(above)?.map(|above| overlap.unmade(above, &entry.name)))
    }

    /// What a directory of the target is, or will be.
    fn identity_of(&self, here: &Here) -> Result<Option<Identity>> {
        match &here.target {
            Some(target) => fstat(target.directory()).map(|stat| Some(stat.identity())),
            None => Ok(here.facts.imagined),
        }
    }

    /// Whether an entry has the name of one that was restored into the same directory through another way. Two directories are
    /// told apart by [`met_before`](Self::met_before).
    pub fn restored_before(&self, folder: &Folder, here: &Here, entry: &Entry) -> Result<Before> {
        let Some(overlap) = self.overlap() else { return Ok(Before::No) };
        let Some(directory) = self.identity_of(here)? else { return Ok(Before::No) };
        let path = child_path(&folder.path, &entry.name);
        // Above sources, only a source is restored; it may have the name of what is in the directory of another one.
        let inside = match folder.inside {
            true => None,
            false => locked(&overlap.state).entered.get(&directory).map(|on| (on.path.clone(), on.content.clone())),
        };
        if let Some((on, Content::Tree(tree))) = inside
            && let Some(other) = self.stored(self.reader.lookup(&tree, &entry.name))?
        {
            return Ok(self.decided(&other, entry, child_path(&on, &entry.name)));
        }
        let mut state = locked(&overlap.state);
        if state.sources.is_empty() && folder.inside {
            return Ok(Before::No);
        }
        let name = (directory, entry.name.clone());
        match state.sources.get(&name) {
            Some(found) if found.path == path => Ok(Before::No),
            Some(found) => Ok(self.decided(&found.entry, entry, found.path.clone())),
            None => {
                if !folder.inside {
                    state.sources.insert(name, Found { path, entry: entry.clone() });
                }
                Ok(Before::No)
            }
        }
    }

    /// Tells that something was not restored, as its place was taken by another path of the snapshot.
    pub fn met(&self, path: Vec<u8>, other: &[u8]) {
        self.overlap().iter().for_each(|overlap| overlap.blocks());
        let why = format!("its place is also that of {} now, which was restored there", shown(other));
        self.blocked_at(path, &why);
    }

    /// Why an entry is not replaced by one of another kind.
    pub fn keeps_other_kinds(&self) -> Option<&'static str> {
        let overlap = self.overlap()?;
        overlap.blocks();
        Some(MAY_BE_OF_OTHERS)
    }

    fn decided(&self, other: &Entry, entry: &Entry, path: Vec<u8>) -> Before {
        match is_alike(other, entry) {
            _ if other.is_directory() && entry.is_directory() => Before::No,
            // The other one may have been left out.
            true if self.options.has_filter() => Before::No,
            true => Before::Same,
            false => Before::Other(path),
        }
    }

    /// Gives a directory its time again in which a source was restored through a directory above it.
    pub fn mend_time(&self, folder: &Folder, here: &Here) {
        let replaces = matches!(self.options.overwrite, Overwrite::Always | Overwrite::IfChanged);
        let mends = self.is_deed() && !folder.inside && replaces;
        let (Some(overlap), Some(target), true) = (self.overlap(), &here.target, mends) else { return };
        let Ok(stat) = fstat(target.directory()) else { return };
        let time = locked(&overlap.state)
            .entered
            .get(&stat.identity())
            .filter(|entered| entered.is_wanted)
            .map(|entered| entered.meta.modified);
        if let Some(time) = time.filter(|time| *time != stat.modified)
            && let Err(error) = set_time(target.directory(), time)
        {
            self.trouble(&folder.path, format!("its time could not be restored: {error}"));
        }
    }

    /// Whether directories of the snapshot may meet in the target. `base` is the path that it stands for.
    pub fn find_overlap(&self, root: &Directory, base: &[u8]) -> Option<Overlap> {
        if self.is_fresh.get() == Some(&true) {
            return None;
        }
        let inside = self.scope.is_inside(base);
        let sources = self.scope.sources_below(base);
        let may_be_many = !inside && (sources.len() > 1 || self.scope.sources_cut);
        let mut why = None;
        let mut dangling = HashSet::new();
        if may_be_many {
            let parent = |source: &&[u8]| source.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            let parents: BTreeSet<&[u8]> = sources.iter().map(|source| &source[base.len()..parent(source)]).collect();
            for path in parents {
                let found = self.follow_way(root, base, path, &mut dangling);
                why = why.or(found);
            }
        }
        let places = match inside || self.scope.sources_cut {
            true => vec![base],
            false => outermost(&sources),
        };
        let why = why.or_else(|| self.mounted_twice(&places, base))?;
        Some(Overlap::new(why, dangling))
    }

    /// Goes the way to a source as the restore will, as far as it is there. Returns why it may lead elsewhere, and notes the links
    /// that lead nowhere.
    fn follow_way(&self, root: &Directory, base: &[u8], way: &[u8], dangling: &mut HashSet<Vec<u8>>) -> Option<String> {
        let unseen = |path: &[u8], error: Error| Some(format!("cannot tell where {} leads: {error}", shown(path)));
        let mut why = None;
        let mut here = match root.open_child(c".") {
            Ok(here) => here,
            Err(error) => return unseen(base, error),
        };
        let mut path = Vec::new();
        for name in way.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
            let whole = [base, &path].concat();
            let opened = match here.open_child(name) {
                Err(error) if error.is(Kind::Denied) => here.open_child_to_search(name),
                Err(error) if error.is(Kind::Conflict) => match here.stat(name) {
                    Ok(stat) if stat.is(EntryKind::Symlink) => {
                        why.get_or_insert_with(|| format!("{} is a symbolic link", shown(&whole)));
                        let Ok(followed) = self.open_link(root, &here, name, &path) else {
                            dangling.insert(whole);
                            return why;
                        };
                        Ok(followed)
                    }
                    Ok(_) => return why,
                    Err(error) => Err(error),
                },
                opened => opened,
            };
            match opened {
                Ok(next) => here = next,
                Err(error) if error.is(Kind::NotFound) => return why,
                Err(error) => return why.or_else(|| unseen(&whole, error)),
            }
        }
        why
    }

    /// Why two of these paths, or a path and itself, may lead to one directory through mounts.
    fn mounted_twice(&self, places: &[&[u8]], base: &[u8]) -> Option<String> {
        let target = match std::fs::canonicalize(&self.options.target) {
            Ok(target) => target,
            Err(error) => return Some(format!("cannot tell where the target is: {error}")),
        };
        let mounts = match mount_points() {
            Ok(mounts) => mounts,
            Err(error) => return Some(format!("cannot tell what is mounted where: {error}")),
        };
        let target = target.as_os_str().as_bytes().strip_suffix(b"/").unwrap_or(target.as_os_str().as_bytes());
        let places: Vec<Vec<u8>> = places.iter().map(|place| [target, &place[base.len()..]].concat()).collect();
        let parts = parts_of(&places, &mounts);
        for (at, part) in parts.iter().enumerate() {
            if let Some(other) = parts[..at].iter().find(|other| part.meets(other)) {
                let (one, other) = (shown(&other.place), shown(&part.place));
                return Some(format!("{one} and {other} are, or are in, one directory of a file system"));
            }
        }
        None
    }
}

/// A part of a file system, and where it is reached.
struct Part {
    device: u64,
    /// On the file system.
    path: Vec<u8>,
    place: Vec<u8>,
}

impl Part {
    fn meets(&self, other: &Part) -> bool {
        let is_above = |one: &Part, other: &Part| is_at_or_below(&other.path, &one.path);
        self.device == other.device && (is_above(self, other) || is_above(other, self))
    }
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// The parts of file systems that are at and below these places, none of which is in another one.
fn parts_of(places: &[Vec<u8>], mounts: &[MountPoint]) -> Vec<Part> {
    let mut parts = Vec::new();
    for place in places {
        let covering = mounts.iter().filter(|mount| is_at_or_below(place, without_slash(&mount.point)));
        // Of those at one point, the last one covers the others.
        if let Some(mount) = covering.max_by_key(|mount| without_slash(&mount.point).len()) {
            let rest = &place[without_slash(&mount.point).len()..];
            let path = [without_slash(&mount.root), rest].concat();
            parts.push(Part { device: mount.device, path, place: place.clone() });
        }
        let below = mounts.iter().filter(|mount| {
            let point = without_slash(&mount.point);
            point != place.as_slice() && is_at_or_below(point, place) && !mount.is_pseudo
        });
        parts.extend(below.map(|mount| Part {
            device: mount.device,
            path: without_slash(&mount.root).to_vec(),
            place: mount.point.clone(),
        }));
    }
    parts
}

/// Those of these paths, in order, that are in no other one.
fn outermost<'p>(sources: &[&'p [u8]]) -> Vec<&'p [u8]> {
    let all: HashSet<&[u8]> = sources.iter().copied().collect();
    let is_in_another = |path: &[u8]| (0..path.len()).any(|at| path[at] == b'/' && all.contains(&path[..at]));
    sources.iter().copied().filter(|source| !is_in_another(source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: u64, root: &str, point: &str) -> MountPoint {
        MountPoint { device, root: root.into(), point: point.into(), is_pseudo: false }
    }

    fn meet(places: &[&str], mounts: &[MountPoint]) -> bool {
        let places: Vec<Vec<u8>> = places.iter().map(|place| place.as_bytes().to_vec()).collect();
        let parts = parts_of(&places, mounts);
        parts.iter().enumerate().any(|(at, part)| parts[..at].iter().any(|other| part.meets(other)))
    }

    /// Any second mount of a file system counted, and one source was never looked at.
    #[test]
    fn only_parts_that_are_restored_can_meet() {
        let plain = || vec![mount(1, "/", "/"), mount(2, "/", "/home")];
        let with = |more: MountPoint| plain().into_iter().chain([more]).collect::<Vec<_>>();
        assert!(!meet(&["/work", "/home/a"], &plain()));
        assert!(!meet(&[""], &plain()));
        // A directory of one source is mounted on one of another, or of itself.
        assert!(meet(&["/one", "/two"], &with(mount(1, "/two/a", "/one/a"))));
        assert!(meet(&["/one"], &with(mount(1, "/one/a", "/one/b"))));
        assert!(meet(&["/one", "/two"], &with(mount(1, "/two", "/one"))));
        assert!(meet(&[""], &with(mount(1, "/usr/share/x", "/var/x"))));
        // What is mounted there is no part of what is restored, or the target itself is mounted somewhere else.
        assert!(!meet(&["/one", "/two"], &with(mount(1, "/other", "/one/a"))));
        assert!(!meet(&["/mnt/one", "/mnt/two"], &with(mount(1, "/real", "/mnt"))));
        // The last mount at a point covers the others.
        let covered = [with(mount(1, "/two", "/one")), vec![mount(3, "/", "/one")]];
        let covered: Vec<MountPoint> = covered.into_iter().flatten().collect();
        assert!(!meet(&["/one", "/two"], &covered));
    }

    #[test]
    fn a_source_in_another_one_is_no_place_of_its_own() {
        let sources: [&[u8]; 4] = [b"/a", b"/a/b", b"/ab", b"/c/d"];
        let expected: [&[u8]; 3] = [b"/a", b"/ab", b"/c/d"];
        assert_eq!(outermost(&sources), expected);
    }
}
