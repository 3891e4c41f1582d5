//! Sources of the snapshot that are in the way of a restore: since they were saved, data may have been moved, linked or mounted from
//! one source into another one. A restore never deletes or replaces anything that is now another source, or a link or directory on
//! the way to one.

use crate::disk::backing_devices::images_below;
use crate::disk::device::has_lasting_inodes;
use crate::disk::follow::{LINKS_MAX, names_to_pass};
use crate::disk::mounts::MountPoint;
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Identity, Stat};
use crate::entry::EntryKind;
use crate::error::{Error, Kind, Result};
use crate::repo::Reader;
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::{DirectoryLocation, FileSystemParts, MountTable};
use crate::restore::needed::{NeededName, NeededRole};
use crate::restore::paths::shown;
use crate::restore::scope::{SnapshotScope, is_at_or_below};
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

/// So many directories are kept open at most.
const PINNED_MAX: usize = 256;

/// What is mounted in a source.
pub(super) struct MountedIn {
    pub source: Vec<u8>,
    /// Its path in the snapshot.
    pub path: Vec<u8>,
}

/// What is at the end of the path of a source.
enum LinkEnd {
    Nothing,
    Directory(DirectoryLocation),
    /// A file, or a link that was saved as such.
    Other,
}

#[derive(Default)]
pub(super) struct OtherSources {
    /// Directories that are sources, with their paths in the snapshot.
    directories: HashMap<Identity, BTreeSet<Vec<u8>>>,
    pub mounted: HashMap<Identity, Vec<MountedIn>>,
    /// Sources that are not directories, symbolic links on the way to a source and images that hold its data: by name, with the
    /// directory that each is in and the path of the source.
    pub names: HashMap<Vec<u8>, Vec<NeededName>>,
    /// Directories on the way to a source.
    pub ways: HashSet<Identity>,
    /// Layers of overlays, with the path of what they hold the data of.
    pub layers: HashMap<Identity, Vec<u8>>,
    /// Where sources are, and what is mounted in them.
    parts: FileSystemParts,
    /// Directories whose inode numbers last only while they are open.
    pinned: Vec<Directory>,
    /// Whether the inode numbers of a file system last, by its own number.
    lasting: HashMap<u64, bool>,
    /// None if they cannot be listed, which is why some may be missing here.
    mounts: Option<MountTable>,
    /// Why some may be missing here. Then nothing is deleted.
    pub unknown: Option<KeepReason>,
}

impl OtherSources {
    /// Looks at all sources on this machine but those that the restored path is in. Of other paths only the ways to them count.
    pub(crate) fn look(scope: &SnapshotScope, reader: &Reader, base: &[u8], ways: &[&[u8]]) -> Self {
        let mut others = OtherSources::default();
        for way in ways {
            if let Err(error) = others.follow(way, || Ok(false)) {
                others.note_failure(format!("cannot tell where {} is: {error}", shown(way)));
            }
        }
        others.directories.clear();
        if scope.sources_cut {
            others.note(KeepReason::state("the snapshot has too many sources to name them all".to_owned()));
        }
        let mut ends = Vec::new();
        for source in scope.sources_besides(base) {
            let is_saved_as_link = || {
                let saved = scope.saved_at(reader, source)?;
                Ok(saved.is_some_and(|entry| entry.kind == EntryKind::Symlink))
            };
            match others.follow(source, is_saved_as_link) {
                Ok(Some(end)) => ends.push((end, source)),
                Ok(None) => {}
                Err(error) => others.note_failure(format!("cannot tell where {} is: {error}", shown(source))),
            }
        }
        if !ends.is_empty() {
            match MountTable::list() {
                Ok(mounts) => {
                    others.note_mounts(&ends, &mounts);
                    others.mounts = Some(mounts);
                }
                Err(error) => others.note_failure(format!("cannot tell what is mounted where: {error}")),
            }
        }
        others
    }

    /// Notes why not all is known here.
    pub(crate) fn note(&mut self, reason: KeepReason) {
        reason.note(&mut self.unknown);
    }

    fn note_failure(&mut self, why: String) {
        self.note(KeepReason::failure(why));
    }

    /// The paths in other sources that a directory has now, whether the snapshot has something there or not.
    pub(crate) fn paths_of(&self, directory: &Directory) -> Result<Vec<Vec<u8>>> {
        let Some(mounts) = &self.mounts else { return Ok(Vec::new()) };
        let location = DirectoryLocation::of(directory)?;
        // An automounter may have mounted it since the mounts were listed.
        let part = mounts.part_or_own(&location).or_else(|_| MountTable::list()?.part_or_own(&location))?;
        Ok(self.parts.names_of(&part))
    }

    fn add_name(&mut self, name: &[u8], above: &Stat, source: &[u8], role: NeededRole) {
        let found = NeededName { directory: above.identity(), source: source.to_vec(), role };
        self.names.entry(name.to_vec()).or_default().push(found);
    }

    /// Adds directories that are restored now: none of them is deleted as an extra one of another directory.
    pub(crate) fn note_restored(&mut self, directories: impl Iterator<Item = Identity>) {
        self.ways.extend(directories);
    }

    /// The sources that a directory is.
    pub(crate) fn source_of(&self, stat: &Stat) -> impl Iterator<Item = &[u8]> {
        self.directories.get(&stat.identity()).into_iter().flatten().map(Vec::as_slice)
    }

    /// The identity of the directory at a path. It is kept open where its inode number would not last.
    fn pin(&mut self, path: &[u8], stat: &Stat) -> Identity {
        if self.lasting.get(&stat.device) == Some(&true) {
            return stat.identity();
        }
        let path = if path.is_empty() { b"/" } else { path };
        match open_to_look_at(path) {
            Ok(directory) => {
                let ask = || has_lasting_inodes(&directory).unwrap_or(false);
                let lasts = *self.lasting.entry(stat.device).or_insert_with(ask);
                let identity = fstat(&directory).map_or(stat.identity(), |stat| stat.identity());
                if lasts || self.pinned.iter().any(|known| is_same(known, identity)) {
                    return identity;
                }
                if self.pinned.len() < PINNED_MAX {
                    self.pinned.push(directory)
                } else {
                    self.note(KeepReason::state(format!(
                        "{} is one of too many directories whose inode numbers do not last",
                        shown(path)
                    )));
                }
                identity
            }
            Err(error) => {
                self.note_failure(format!("cannot tell what {} is: {error}", shown(path)));
                stat.identity()
            }
        }
    }

    /// Records what is on the way to a source. Returns the real path of the source if it is a directory. The target of a source
    /// that was saved as a symbolic link does not belong to the source.
    fn follow(
        &mut self,
        source: &[u8],
        is_saved_as_link: impl Fn() -> Result<bool>,
    ) -> Result<Option<DirectoryLocation>> {
        let mut links = Vec::new();
        let end = self.follow_to_end(source, is_saved_as_link, &mut links);
        // A way that ends nowhere leads to nothing that must stay.
        if !matches!(end, Ok(LinkEnd::Nothing)) {
            links.iter().for_each(|(name, above)| self.add_name(name, above, source, NeededRole::Leads));
        }
        match end? {
            LinkEnd::Directory(location) => Ok(Some(location)),
            LinkEnd::Nothing | LinkEnd::Other => Ok(None),
        }
    }

    /// `links`: gets the symbolic links on the way, with the directory that each is in.
    fn follow_to_end(
        &mut self,
        source: &[u8],
        is_saved_as_link: impl Fn() -> Result<bool>,
        links: &mut Vec<(Vec<u8>, Stat)>,
    ) -> Result<LinkEnd> {
        let (mut here, mut left, mut links_passed) = (Vec::new(), names_to_pass(source), 0);
        let mut above = stat_path(b"/", false)?;
        let mut has_ended = false;
        while let Some(part) = left.pop() {
            // The last name of the path of the source itself, and not of the path in a link.
            let is_source = left.is_empty() && !has_ended;
            has_ended |= is_source;
            let way = self.pin(&here, &above);
            self.ways.insert(way);
            if part == b".." {
                here.truncate(here.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                above = stat_path(if here.is_empty() { b"/" } else { &here }, false)?;
                continue;
            }
            let next = [&here[..], b"/", &part].concat();
            let stat = match stat_path(&next, false) {
                Ok(stat) => stat,
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => return Ok(LinkEnd::Nothing),
                // This user cannot look there. If no link led here, and none is below, this is where the source is.
                Err(error) if error.is(Kind::Denied) && links_passed == 0 => {
                    return Ok(LinkEnd::Directory(DirectoryLocation::at(source.to_vec(), &above)));
                }
                Err(error) => return Err(error),
            };
            match stat.kind {
                Some(EntryKind::Directory) => (here, above) = (next, stat),
                Some(EntryKind::Symlink) => {
                    if is_source {
                        self.add_name(&part, &above, source, NeededRole::Source);
                        if is_saved_as_link()? {
                            return Ok(LinkEnd::Other);
                        }
                    } else {
                        links.push((part, above));
                    }
                    links_passed += 1;
                    if links_passed > LINKS_MAX {
                        return Ok(LinkEnd::Nothing);
                    }
                    let to = read_link_at(&next)?;
                    if to.starts_with(b"/") {
                        (here, above) = (Vec::new(), stat_path(b"/", false)?);
                    }
                    left.extend(names_to_pass(&to));
                }
                _ if left.is_empty() => {
                    self.add_name(&part, &above, source, NeededRole::Source);
                    return Ok(LinkEnd::Other);
                }
                _ => return Ok(LinkEnd::Nothing),
            }
        }
        let end = self.pin(&here, &above);
        self.directories.entry(end).or_default().insert(source.to_vec());
        Ok(LinkEnd::Directory(DirectoryLocation::at(here, &above)))
    }

    /// Notes what holds the data of a mount in a source: the layers of an overlay, the images of loop devices.
    fn keep_backing(&mut self, mount: &MountPoint, mounts: &MountTable, path: &[u8]) {
        for layer in mount.layers() {
            // A name of another mount namespace, or of before the root directory was changed: containers, live systems.
            let mut may_be_gone = layer.name.starts_with(b"/");
            for place in layer.places {
                match stat_path(place.as_os_str().as_bytes(), true) {
                    Ok(stat) => {
                        may_be_gone = true;
                        let layer = self.pin(place.as_os_str().as_bytes(), &stat);
                        self.layers.insert(layer, path.to_vec());
                    }
                    // This user can delete nothing there.
                    Err(error) if error.is(Kind::Denied) => may_be_gone = true,
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {}
                    Err(error) => self.note_failure(error.to_string()),
                }
            }
            if !may_be_gone {
                let (layer, point) = (shown(&layer.name), shown(&mount.point));
                self.note(KeepReason::state(format!("cannot find {layer}, a layer of the overlay at {point}")));
            }
        }
        let images = images_below(mount, &mounts.points).unwrap_or_else(|error| {
            self.note_failure(error.to_string());
            BTreeSet::new()
        });
        for image in images {
            let (Some(name), Some(above)) = (image.file_name(), image.parent()) else { continue };
            match stat_path(above.as_os_str().as_bytes(), true) {
                Ok(above) => self.add_name(name.as_bytes(), &above, path, NeededRole::Holds),
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Denied) => {}
                Err(error) => self.note_failure(error.to_string()),
            }
        }
    }

    /// Notes where sources are and what is mounted in them: another name may lead there.
    fn note_mounts(&mut self, ends: &[(DirectoryLocation, &[u8])], mounts: &MountTable) {
        for (end, source) in ends {
            match mounts.part_or_own(end) {
                Ok(part) => self.parts.add(part, source.to_vec()),
                Err(error) => self.note_failure(error.to_string()),
            }
        }
        let mut seen = HashSet::new();
        for (end, source) in ends {
            if let Some(mount) = mounts.covering(end).filter(|mount| seen.insert(mount.number)) {
                self.keep_backing(mount, mounts, source);
            }
        }
        for mount in mounts.of_files() {
            let is_in = |end: &DirectoryLocation| mount.point != end.path && is_at_or_below(&mount.point, &end.path);
            for (end, source) in ends.iter().filter(|(end, _)| is_in(end)) {
                let path = [*source, &mount.point[end.path.len()..]].concat();
                self.parts.add_mount(mount, path.clone());
                self.keep_backing(mount, mounts, &path);
                // Its server may not answer.
                if mounts.is_only_way_to_remote(mount) {
                    continue;
                }
                match stat_path(&mount.point, false) {
                    Ok(stat) if stat.is(EntryKind::Directory) || stat.links == 1 => {
                        let mounted = MountedIn { source: source.to_vec(), path };
                        self.mounted.entry(stat.identity()).or_default().push(mounted);
                    }
                    Ok(_) => {}
                    // Another mount hides it.
                    Err(error) if error.is(Kind::NotFound) => {}
                    Err(error) => {
                        self.note_failure(format!("cannot tell what is mounted at {}: {error}", shown(&mount.point)));
                    }
                }
            }
        }
    }
}

/// Opens a directory without a right to it.
fn open_to_look_at(path: &[u8]) -> Result<Directory> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map(Directory::from).map_err(|errno| Error::io("open the directory", shown(path), errno.into()))
}

fn is_same(directory: &Directory, identity: Identity) -> bool {
    fstat(directory).is_ok_and(|stat| stat.identity() == identity)
}

fn read_link_at(path: &[u8]) -> Result<Vec<u8>> {
    let link = rustix::fs::readlink(path, Vec::new());
    link.map(|to| to.into_bytes()).map_err(|errno| Error::io("read the link", shown(path), errno.into()))
}
