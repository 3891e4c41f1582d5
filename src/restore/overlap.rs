//! Sources that were apart when they were saved can meet in the target: a link above one of them leads into another one, or one
//! file system is mounted twice. Then nothing is deleted, as what one source does not have may be what another one needs, and
//! no directory is restored twice.

use crate::disk::device::{MountPoint, mount_points};
use crate::disk::stat::stat_path;
use crate::disk::{Directory, Identity, Stat};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Kind, Result};
use crate::restore::plan::shown;
use crate::restore::run::{Run, locked};
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

/// Reported for an entry that is not replaced by one of another kind.
pub(super) const MAY_BE_OF_OTHERS: &str =
    "something of another kind is in its place, and was kept, as it may belong to another source";

pub(super) struct Overlap {
    /// Why sources may overlap.
    pub why: String,
    /// The directories at and below sources that are restored, and what they hold.
    entered: Mutex<HashMap<Identity, Content>>,
    /// Sources that are no directories, by their directory and name.
    above: Mutex<HashMap<(Identity, Vec<u8>), Entry>>,
}

/// Whether a directory or another entry was restored before, through another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    No,
    /// With the same content: there is nothing left to do.
    Same,
    Other,
}

impl Overlap {
    fn new(why: String) -> Self {
        let (entered, above) = Default::default();
        Overlap { why, entered, above }
    }

    /// Records a directory that is restored. Returns whether another directory of the snapshot was restored into it. Directories
    /// above sources do not count: only sources are restored into them.
    pub fn before(&self, stat: &Stat, is_inside: bool, content: &Content) -> Before {
        let mut entered = locked(&self.entered);
        match entered.entry(stat.identity()) {
            Slot::Occupied(slot) if is_inside && slot.get() == content => Before::Same,
            Slot::Occupied(_) if is_inside => Before::Other,
            Slot::Vacant(slot) if is_inside => {
                slot.insert(content.clone());
                Before::No
            }
            _ => Before::No,
        }
    }

    /// Records an entry, other than a directory, that is restored into this directory. Returns whether another source has an entry
    /// of that name there.
    pub fn name_before(&self, directory: &Stat, is_inside: bool, entry: &Entry) -> Before {
        let is_same =
            |before: &Entry| before.content == entry.content && before.meta == entry.meta && before.kind == entry.kind;
        if !is_inside && locked(&self.entered).contains_key(&directory.identity()) {
            return Before::Other;
        }
        let mut above = locked(&self.above);
        match above.entry((directory.identity(), entry.name.clone())) {
            Slot::Occupied(slot) if is_same(slot.get()) => Before::Same,
            Slot::Occupied(_) => Before::Other,
            Slot::Vacant(slot) if !is_inside => {
                slot.insert(entry.clone());
                Before::No
            }
            Slot::Vacant(_) => Before::No,
        }
    }
}

impl Run<'_> {
    pub fn overlap(&self) -> Option<&Overlap> {
        self.overlap.get().and_then(Option::as_ref)
    }

    /// Whether sources below `base`, the path that the target stands for, may meet in the target.
    pub fn find_overlap(&self, root: &Directory, base: &[u8]) -> Option<Overlap> {
        let sources = self.scope.sources_below(base);
        let may_be_many = sources.len() > 1 || self.scope.sources_cut;
        if self.scope.is_inside(base) || !may_be_many {
            return None;
        }
        let parent = |source: &&[u8]| source.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let parents: BTreeSet<&[u8]> = sources.iter().map(|source| &source[base.len()..parent(source)]).collect();
        for path in parents {
            match has_link(root, path) {
                Ok(false) => {}
                Ok(true) => return Some(Overlap::new(format!("{} leads through a symbolic link", shown(path)))),
                Err(error) => {
                    return Some(Overlap::new(format!("it cannot be seen where {} leads: {error}", shown(path))));
                }
            }
        }
        self.mounted_twice(&sources, base)
    }

    fn mounted_twice(&self, sources: &[&[u8]], base: &[u8]) -> Option<Overlap> {
        let target = std::fs::canonicalize(&self.options.target).ok()?;
        let target = target.as_os_str().as_bytes().strip_suffix(b"/").unwrap_or(target.as_os_str().as_bytes());
        let places: Vec<Vec<u8>> = sources.iter().map(|source| [target, &source[base.len()..]].concat()).collect();
        let mut met: Vec<MountPoint> = Vec::new();
        for mount in mount_points() {
            let concerns = |place: &Vec<u8>| meet(place, &mount.point);
            if !places.iter().any(concerns) || !is_directory(&mount.point) {
                continue;
            }
            let shares = |other: &&MountPoint| other.device == mount.device && meet(&other.root, &mount.root);
            if let Some(other) = met.iter().filter(|other| other.point != mount.point).find(shares) {
                let (one, other) = (shown(&other.point), shown(&mount.point));
                return Some(Overlap::new(format!("one file system is mounted at {one} and at {other}")));
            }
            met.push(mount);
        }
        None
    }
}

fn is_directory(path: &[u8]) -> bool {
    stat_path(path, false).is_ok_and(|stat| stat.is(EntryKind::Directory))
}

/// Whether one of two paths is at or below the other one.
fn meet(one: &[u8], other: &[u8]) -> bool {
    let is_below = |path: &[u8], top: &[u8]| {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || top == b"/")
    };
    is_below(one, other) || is_below(other, one)
}

/// Whether a path below `root` has a symbolic link in it, as far as it is there.
fn has_link(root: &Directory, path: &[u8]) -> Result<bool> {
    let mut here = root.open_child(c".")?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let opened = match here.open_child(name) {
            Err(error) if error.is(Kind::Denied) => here.open_child_to_search(name),
            opened => opened,
        };
        match opened {
            Ok(next) => here = next,
            Err(error) if error.is(Kind::NotFound) => return Ok(false),
            Err(error) if error.is(Kind::Conflict) => return here.stat(name).map(|stat| stat.is(EntryKind::Symlink)),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
