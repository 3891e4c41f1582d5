//! Directories that were apart when they were saved can be one in the target: a link above a source leads into another one, or
//! one file system is mounted twice. Such a restore deletes nothing, as what one directory does not have may be what the other one
//! needs; it restores no directory twice; and it has one writer, so that the plan and the restore meet them in one order.

use crate::disk::apply::set_time;
use crate::disk::device::{MountPoint, mount_points};
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Identity};
use crate::entry::{Content, Entry, EntryKind, Metadata};
use crate::error::{Error, Kind, Result};
use crate::restore::Overwrite;
use crate::restore::folder::{Folder, Here};
use crate::restore::plan::{child_path, shown};
use crate::restore::run::{Run, locked};
use crate::restore::scope::is_at_or_below;
use rustix::fd::{AsFd, AsRawFd};
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

/// Whether two entries would be restored alike, whatever their names are.
pub(super) fn is_alike(one: &Entry, other: &Entry) -> bool {
    // Numbers of link groups tell names of one snapshot apart, not content.
    let others = Entry { name: one.name.clone(), link_group: one.link_group, ..other.clone() };
    *one == others
}

impl Run<'_> {
    pub fn overlap(&self) -> Option<&Overlap> {
        self.overlap.get().and_then(Option::as_ref)
    }

    /// Whether a directory of the target may be restored into; it was entered through this folder now.
    pub fn met_before(&self, directory: Identity, folder: &Folder, entry: &Entry) -> Result<Before> {
        let Some(overlap) = self.overlap() else { return Ok(Before::No) };
        // Into one that was saved empty, as a backup of one file system saves mount points, nothing is restored.
        if !self.has_entries(entry)? {
            return Ok(Before::No);
        }
        Ok(match overlap.before(directory, folder, entry) {
            // A filter may let through here what it did not let through there.
            Before::Same if self.options.has_filter() => Before::No,
            before => before,
        })
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
        let why = format!("its place is also that of {} of the snapshot now, which comes first", shown(other));
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
            self.trouble(&folder.path, format!("its time could not be restored: {error}"));
        }
    }

    /// Whether directories of the snapshot may meet in the target. `base` is the path that it stands for.
    pub fn find_overlap(&self, root: &Directory, base: &[u8]) -> Option<Overlap> {
        if self.is_fresh.get() == Some(&true) {
            return None;
        }
        let sources = self.scope.sources_below(base);
        // Where not all sources are named, any directory may be one.
        let is_one = self.scope.is_inside(base) || self.scope.sources_cut;
        let outermost = if is_one { vec![base] } else { outermost(&sources) };
        let may_be_many = !self.scope.is_inside(base) && (sources.len() > 1 || self.scope.sources_cut);
        let parent = |source: &[u8]| source.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let ways: BTreeSet<&[u8]> = match self.scope.is_inside(base) {
            true => BTreeSet::new(),
            false => sources.iter().map(|source| &source[base.len()..parent(source)]).collect(),
        };
        let (mut why, mut found) = (None, HashMap::new());
        let mut dangling = HashSet::new();
        for path in ways {
            let mut way = self.follow_way(root, base, path);
            // One source alone can meet others only where something is mounted.
            why = why.or(way.link.take().filter(|_| may_be_many));
            dangling.extend(way.dangling.take());
            found.insert(path, way.end);
        }
        let mut places = Vec::new();
        for place in outermost {
            let end = parent(place);
            let at = match is_one {
                true => root.open_child(c".").and_then(|root| Place::of(&root)).map(Some),
                false => match found.get(&place[base.len()..end]) {
                    Some(Ok(Some(above))) => above.child(&place[end..]).map(Some),
                    Some(Err(error)) => Err(error.copy()),
                    _ => Ok(None),
                },
            };
            match at {
                Ok(place) => places.extend(place),
                Err(error) => {
                    why.get_or_insert_with(|| format!("cannot tell where {} is: {error}", shown(place)));
                }
            }
        }
        let why = why.or_else(|| mounted_twice(&places))?;
        Some(Overlap::new(why, dangling))
    }

    /// Goes the way to a source as the restore will, as far as it is there.
    fn follow_way(&self, root: &Directory, base: &[u8], path: &[u8]) -> Way {
        let mut way = Way { link: None, dangling: None, end: Ok(None) };
        way.end = self.end_of(root, base, path, &mut way.link, &mut way.dangling);
        way
    }

    fn end_of(
        &self,
        root: &Directory,
        base: &[u8],
        path: &[u8],
        link: &mut Option<String>,
        dangling: &mut Option<Vec<u8>>,
    ) -> Result<Option<Place>> {
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
                Err(error) if error.is(Kind::NotFound) => return Place::of(&here)?.child(&path[above..]).map(Some),
                Err(error) => return Err(error),
            }
        }
        Place::of(&here).map(Some)
    }
}

/// Whether following a link failed because it leads to no directory in the target.
pub(super) fn leads_nowhere(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Unsupported)
}

/// The way to a source in the target. It keeps no directory open: there may be more sources than descriptors.
struct Way {
    /// Why it may lead elsewhere.
    link: Option<String>,
    /// A link on it that leads nowhere.
    dangling: Option<Vec<u8>>,
    /// Where it ends; None if nothing can be restored there.
    end: Result<Option<Place>>,
}

/// Where a source is, or will be.
struct Place {
    path: Vec<u8>,
    /// The number of its mount.
    mount: u64,
}

impl Place {
    fn of(directory: &Directory) -> Result<Place> {
        let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        let path = std::fs::read_link(&link).map_err(|error| Error::io("read the link", link, error))?;
        let path = without_slash(path.as_os_str().as_bytes()).to_vec();
        Ok(Place { path, mount: fstat(directory)?.mount })
    }

    /// A path below it. What is not there yet will be on the mount of the directory that it is made in.
    fn child(&self, below: &[u8]) -> Result<Place> {
        let path = [&self.path, below].concat();
        match stat_path(&path, false) {
            Ok(stat) => Ok(Place { path, mount: stat.mount }),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                Ok(Place { path, mount: self.mount })
            }
            Err(error) => Err(error),
        }
    }
}

/// Why two of these places, or a place and itself, may lead to one directory through mounts.
fn mounted_twice(places: &[Place]) -> Option<String> {
    let parts = match mount_points().and_then(|mounts| parts_of(places, &mounts)) {
        Ok(parts) => parts,
        Err(error) => return Some(format!("cannot tell what is mounted where: {error}")),
    };
    first_meeting(&parts).map(|(one, other)| {
        let (one, other) = (shown(&one.place), shown(&other.place));
        format!("{one} and {other} are, or are in, one directory of a file system")
    })
}

/// The paths above a path, from the top on; `/` is the empty one.
fn paths_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..path.len()).filter(|at| path[*at] == b'/').map(|at| &path[..at])
}

/// Two parts of which one is in the other one, if there are any.
fn first_meeting(parts: &[Part]) -> Option<(&Part, &Part)> {
    let mut known: HashMap<(u64, &[u8]), &Part> = HashMap::new();
    for part in parts {
        if let Some(other) = known.insert((part.device, &part.path), part) {
            return Some((other, part));
        }
    }
    for part in parts {
        if let Some(other) = paths_above(&part.path).find_map(|above| known.get(&(part.device, above))) {
            return Some((other, part));
        }
    }
    None
}

/// A part of a file system, and where it is reached.
struct Part {
    device: u64,
    /// On the file system.
    path: Vec<u8>,
    place: Vec<u8>,
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// The parts of file systems that are at and below these places, none of which is in another one.
fn parts_of(places: &[Place], mounts: &[MountPoint]) -> Result<Vec<Part>> {
    let by_number: HashMap<u64, &MountPoint> = mounts.iter().map(|mount| (mount.number, mount)).collect();
    let by_place: HashSet<&[u8]> = places.iter().map(|place| place.path.as_slice()).collect();
    let mut parts = Vec::with_capacity(places.len());
    for Place { path: place, mount } in places {
        let unlisted = || Error::new(Kind::Unsupported, "find the mount of", shown(place)).because("it is not listed");
        let on = match mount {
            // Linux before 5.8 does not number mounts: the last one at the deepest point.
            0 => {
                let covers = |on: &&MountPoint| is_at_or_below(place, without_slash(&on.point));
                mounts.iter().filter(covers).max_by_key(|on| on.point.len())
            }
            number => by_number.get(number).copied(),
        };
        let on = on.ok_or_else(unlisted)?;
        let rest = place.strip_prefix(without_slash(&on.point)).ok_or_else(unlisted)?;
        parts.push(Part { device: on.device, path: [without_slash(&on.root), rest].concat(), place: place.clone() });
    }
    for mount in mounts.iter().filter(|mount| !mount.is_pseudo()) {
        let point = without_slash(&mount.point);
        if paths_above(point).any(|above| by_place.contains(above)) {
            let path = without_slash(&mount.root).to_vec();
            parts.push(Part { device: mount.device, path, place: mount.point.clone() });
        }
    }
    Ok(parts)
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

    /// Mounts by device, root and point, numbered in their order.
    fn mounts(them: &[(u64, &str, &str)]) -> Vec<MountPoint> {
        let numbered = them.iter().zip(1..);
        let mount = |(&(device, root, point), number): (&(u64, &str, &str), u64)| MountPoint {
            number,
            device,
            root: root.into(),
            point: point.into(),
            ..MountPoint::default()
        };
        numbered.map(mount).collect()
    }

    /// Whether places, each on the mount of that number, meet.
    fn meet(places: &[(&str, u64)], them: &[(u64, &str, &str)]) -> bool {
        let place = |(path, mount): &(&str, u64)| Place { path: path.as_bytes().to_vec(), mount: *mount };
        let places: Vec<Place> = places.iter().map(place).collect();
        first_meeting(&parts_of(&places, &mounts(them)).expect("they are listed")).is_some()
    }

    /// Any second mount of a file system counted, and one source was never looked at.
    #[test]
    fn only_parts_that_are_restored_can_meet() {
        let plain = [(1, "/", "/"), (2, "/", "/home")];
        let with = |more: (u64, &'static str, &'static str)| [plain[0], plain[1], more];
        assert!(!meet(&[("/work", 1), ("/home/a", 2)], &plain));
        assert!(!meet(&[("", 1)], &plain));
        // A directory of one source is mounted on one of another, or of itself.
        assert!(meet(&[("/one", 1), ("/two", 1)], &with((1, "/two/a", "/one/a"))));
        assert!(meet(&[("/one", 1)], &with((1, "/one/a", "/one/b"))));
        assert!(meet(&[("/one", 3), ("/two", 1)], &with((1, "/two", "/one"))));
        assert!(meet(&[("", 1)], &with((1, "/usr/share/x", "/var/x"))));
        // The mounted directory is outside of what is restored, or all of the target is on one mount.
        assert!(!meet(&[("/one", 1), ("/two", 1)], &with((1, "/other", "/one/a"))));
        assert!(!meet(&[("/mnt/one", 3), ("/mnt/two", 3)], &with((1, "/real", "/mnt"))));
        // The mount that is seen counts, not one that another one hides.
        let hidden = [plain[0], (3, "/", "/x/y"), (1, "/other", "/x")];
        assert!(meet(&[("/x/y/s", 3), ("/other/y/s", 1)], &hidden));
        // The mount of a chroot directory is not listed if that directory is not a mount point.
        let place = Place { path: b"/one".to_vec(), mount: 9 };
        assert!(parts_of(&[place], &mounts(&plain)).is_err());
    }

    #[test]
    fn a_source_in_another_one_is_no_place_of_its_own() {
        let sources: [&[u8]; 4] = [b"/a", b"/a/b", b"/ab", b"/c/d"];
        let expected: [&[u8]; 3] = [b"/a", b"/ab", b"/c/d"];
        assert_eq!(outermost(&sources), expected);
    }
}
