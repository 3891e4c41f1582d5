//! Compares what a snapshot has below a path with a directory on disk.

use super::change::{Change, ChangeKind, DiffTotals};
use super::path::{clean, resolve};
use super::shown;
use super::walk::{DirectoryPages, WalkPath, damage_to, is_too_deep};
use crate::disk::flags::read_flags;
use crate::disk::has_saved_attributes;
use crate::disk::open::{open_file_checked, raise_open_files, read_link};
use crate::disk::xattr::read_xattrs_at;
use crate::disk::{Directory, FolderHandle, ListBuffer, NameList, Owners, Stat, levels_open};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::repo::{Reader, Repository, Snapshot};
use crate::watch::{NoticeKind, Watch};
use std::cmp::Ordering;
use std::path::Path;

/// What to compare with a folder.
#[derive(Clone, Copy, Debug)]
pub struct FolderDiff<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// A directory in the snapshot.
    pub path: &'a [u8],
    /// The folder on this machine.
    pub folder: &'a Path,
    /// Read every file whose size is the same, whatever its time says. Nothing is fetched from the repository for it:
    /// names of chunks are computed from the disk.
    pub content: bool,
}

/// Takes a path, what of it changed, the saved entry and the stat of the one on disk.
pub(crate) type EachFolderChange<'a> = dyn FnMut(&[u8], Change, Option<&Entry>, Option<&Stat>) -> Result<()> + 'a;

/// A name, with the saved entry of that name, and whether it is on disk.
struct NextName {
    name: Vec<u8>,
    old: Option<Entry>,
    is_on_disk: bool,
}

/// A name that is a directory on at least one side.
struct DiskBelow {
    old: Option<Entry>,
    new: Option<Directory>,
}

struct DiffLevel<'r> {
    old: Option<DirectoryPages<'r>>,
    new: Option<OnDisk>,
    path_length: usize,
}

/// A folder, its names and which comes next.
struct OnDisk {
    handle: FolderHandle,
    names: NameList,
    next: usize,
}

pub(super) struct DiskComparison<'a> {
    pub(super) reader: &'a Reader,
    pub(super) repo: &'a Repository,
    wanted: &'a FolderDiff<'a>,
    pub(super) watch: &'a Watch,
    owners: Owners,
    buffer: ListBuffer,
    pub(super) bytes: Vec<u8>,
    /// What is compared on disk, and the length of the path that it has in the snapshot.
    top: Vec<u8>,
    top_length: usize,
    levels_open: usize,
    streams_without_file: u64,
    totals: DiffTotals,
}

/// Compares a snapshot (old) with a folder (new): kind, size, modification time, mode, owner, group, extended attributes with ACLs
/// and capabilities, flags, where links point to, and with `content` every byte. Owners are compared by name where both sides have
/// one. Of the folder itself nothing is compared but what is in it. A stream is compared with the file of its name; streams without one are
/// a notice. What cannot be read is a warning. `each` receives the path below the snapshot's root, the change, the saved entry and the
/// stat of the one on disk.
pub fn diff_folder(
    repo: &Repository,
    wanted: &FolderDiff,
    watch: &Watch,
    each: &mut EachFolderChange<'_>,
) -> Result<DiffTotals> {
    let reader = &repo.reader();
    let path = clean(wanted.path)?;
    let saved = resolve(reader, wanted.snapshot, &path)?;
    if !saved.is_directory() {
        return Err(Error::invalid("compare with a directory", shown(&path), "it is not a directory in the snapshot"));
    }
    let mut walk = WalkPath::new(&path);
    let mut work = DiskComparison {
        reader,
        repo,
        wanted,
        watch,
        owners: Owners::load()?,
        buffer: ListBuffer::default(),
        bytes: Vec::new(),
        top: wanted.folder.as_os_str().as_encoded_bytes().to_vec(),
        top_length: walk.0.len(),
        levels_open: levels_open(raise_open_files(), 1),
        streams_without_file: 0,
        totals: DiffTotals::default(),
    };
    let directory = Directory::open_path(&work.top)?;
    let new = Some(work.list(directory, 0)?);
    let mut levels = vec![DiffLevel { old: DirectoryPages::of(reader, &saved), new, path_length: walk.0.len() }];
    while let Some(mut level) = levels.pop() {
        watch.cancel.check()?;
        walk.0.truncate(level.path_length);
        let next = level.next()?;
        level.old.iter_mut().for_each(|pages| pages.tell_damage(&walk.0, &mut damage_to(watch)));
        let Some(next) = next else { continue };
        let below = {
            let on_disk = work.on_disk(&walk.0);
            let directory = match level.new.as_ref().map(|new| new.handle.get(&on_disk)).transpose() {
                Ok(directory) => directory,
                Err(error) => {
                    // Nothing more of this directory is compared.
                    work.warn(&walk.0, error)?;
                    continue;
                }
            };
            let is_damaged = level.old.as_ref().is_some_and(DirectoryPages::is_damaged);
            work.compare_next(&mut walk, directory.as_deref(), next, is_damaged, each)?
        };
        let depth = levels.len() + 1;
        levels.push(level);
        if let Some(found) = below {
            levels.extend(work.enter(&walk.0, found, depth)?);
        }
    }
    if work.streams_without_file > 0 {
        let what =
            format!("streams not compared, as the directory has no file for them: {}", work.streams_without_file);
        watch.notice(NoticeKind::Skipped, what);
    }
    Ok(work.totals)
}

impl DiffLevel<'_> {
    /// The next name on either side.
    fn next(&mut self) -> Result<Option<NextName>> {
        let disk = match &self.new {
            Some(new) if new.next < new.names.len() => Some(new.names.get(new.next).to_bytes().to_vec()),
            _ => None,
        };
        let saved = match &mut self.old {
            Some(pages) => pages.peek()?.map(|entry| entry.name.clone()),
            None => None,
        };
        let order = match (&saved, &disk) {
            (None, None) => return Ok(None),
            (Some(saved), Some(disk)) => saved.cmp(disk),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let entry = match (&mut self.old, order) {
            (Some(pages), Ordering::Less | Ordering::Equal) => pages.next()?,
            _ => None,
        };
        let on_disk = order != Ordering::Less;
        if let (Some(new), true) = (&mut self.new, on_disk) {
            new.next += 1;
        }
        let name = saved.filter(|_| order != Ordering::Greater).or(disk);
        Ok(name.map(|name| NextName { name, old: entry, is_on_disk: on_disk }))
    }
}

impl<'a> DiskComparison<'a> {
    /// The path on disk of a directory that the walk has come to.
    fn on_disk(&self, walked: &[u8]) -> Vec<u8> {
        [self.top.as_slice(), &walked[self.top_length..]].concat()
    }

    fn list(&mut self, directory: Directory, level: usize) -> Result<OnDisk> {
        let mut names = NameList::default();
        directory.names(&mut names, &mut self.buffer)?;
        Ok(OnDisk { handle: FolderHandle::new(directory, level < self.levels_open)?, names, next: 0 })
    }

    /// Compares the next name. Returns what is below it, if it is a directory on at least one side.
    fn compare_next(
        &mut self,
        walk: &mut WalkPath,
        directory: Option<&Directory>,
        next: NextName,
        is_damaged: bool,
        each: &mut EachFolderChange<'_>,
    ) -> Result<Option<DiskBelow>> {
        let NextName { name, old, is_on_disk } = next;
        // What cannot be read of the snapshot may have it.
        if old.is_none() && is_damaged {
            return Ok(None);
        }
        if walk.push(&name).is_none() {
            self.watch.warn(&walk.0, "its contents are not compared: their paths are too long");
            return Ok(None);
        }
        let stat = match directory.filter(|_| is_on_disk).map(|directory| directory.stat(name.as_slice())) {
            Some(Err(error)) if error.is(Kind::NotFound) => None,
            Some(Err(error)) => return self.warn(&walk.0, error).map(|()| None),
            Some(Ok(stat)) => Some(stat),
            None => None,
        };
        let old = match old {
            // As a restore makes it.
            Some(old) if old.kind == EntryKind::Stream && stat.is_some_and(|stat| stat.is(EntryKind::File)) => {
                Some(Entry { kind: EntryKind::File, ..old })
            }
            Some(old) if old.kind == EntryKind::Stream => {
                self.streams_without_file += 1;
                None
            }
            old => old,
        };
        // Sockets are never saved.
        let new = stat.filter(|new| new.kind.is_some());
        let change = match (&old, &new) {
            (None, None) => return Ok(None),
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Removed),
            (Some(old), Some(new)) => match self.compare(directory, old, new) {
                Ok(kind) => kind.map(Change::Changed),
                Err(error) => return self.warn(&walk.0, error).map(|()| None),
            },
        };
        if let Some(change) = change {
            let size = |stat: &Stat| if stat.is(EntryKind::File) { stat.size } else { 0 };
            self.totals.count(change, old.as_ref().map_or(0, |old| old.size), new.as_ref().map_or(0, size));
            each(&walk.0, change, old.as_ref(), new.as_ref())?;
        }
        let is_directory = new.is_some_and(|new| new.is(EntryKind::Directory));
        match directory.filter(|_| is_directory).map(|above| above.open_child(name.as_slice())).transpose() {
            Ok(new) => Ok(Some(DiskBelow { old, new })),
            // Not as removed: what is in it is not known.
            Err(error) => self.warn(&walk.0, error).map(|()| None),
        }
    }

    /// The level below a name; none if nothing is there on either side.
    fn enter(&mut self, path: &[u8], below: DiskBelow, depth: usize) -> Result<Option<DiffLevel<'a>>> {
        let old = below.old.as_ref().and_then(|old| DirectoryPages::of(self.reader, old));
        let new = match below.new.map(|new| self.list(new, depth)).transpose() {
            Ok(new) => new,
            Err(error) => return self.warn(path, error).map(|()| None),
        };
        if old.is_none() && new.is_none() {
            return Ok(None);
        }
        if is_too_deep(depth) {
            self.watch.warn(path, "its contents are not compared: they are deeper than what a backup saves");
            return Ok(None);
        }
        Ok(Some(DiffLevel { old, new, path_length: path.len() }))
    }

    /// Warns of an error with one name, unless it ends everything.
    fn warn(&self, path: &[u8], error: Error) -> Result<()> {
        match error.kind() {
            Kind::Cancelled | Kind::Full => return Err(error),
            Kind::Corrupt => self.watch.damage(path, error.to_string()),
            _ => self.watch.warn(path, error.to_string()),
        }
        Ok(())
    }

    fn compare(&mut self, directory: Option<&Directory>, old: &Entry, new: &Stat) -> Result<Option<ChangeKind>> {
        if new.kind != Some(old.kind) {
            return Ok(Some(ChangeKind::Kind));
        }
        let Some(directory) = directory else { return Ok(None) };
        let name = old.name.as_slice();
        let changed = match old.kind {
            EntryKind::File if old.size != new.size => true,
            EntryKind::File if self.wanted.content => !self.same_bytes(directory, old)?,
            // As in a backup: another time is taken for other bytes.
            EntryKind::File => old.meta.modified != new.modified,
            EntryKind::Symlink => read_link(directory, name)? != old.target,
            EntryKind::BlockDevice | EntryKind::CharDevice => old.device != new.special,
            _ => false,
        };
        if changed {
            return Ok(Some(ChangeKind::Content));
        }
        let is_same = self.same_metadata(directory, old, new)?;
        Ok((!is_same).then_some(ChangeKind::Metadata))
    }

    fn same_metadata(&self, directory: &Directory, old: &Entry, new: &Stat) -> Result<bool> {
        let meta = &old.meta;
        let same_id = |was: u32, is: u32, old_name: &str, new_name: &str| {
            if old_name.is_empty() || new_name.is_empty() { was == is } else { old_name == new_name }
        };
        let same_owner = same_id(meta.uid, new.uid, &meta.user, self.owners.user_name(new.uid))
            && same_id(meta.gid, new.gid, &meta.group, self.owners.group_name(new.gid));
        let same_mode = old.kind == EntryKind::Symlink || meta.mode == new.permissions();
        if !same_owner || !same_mode || meta.modified != new.modified {
            return Ok(false);
        }
        if !has_saved_attributes(
            &read_xattrs_at(directory, old.name.as_slice())?,
            meta,
            self.wanted.snapshot.lacks_trusted,
        ) {
            return Ok(false);
        }
        let opened = match old.kind {
            EntryKind::File => open_file_checked(directory, old.name.as_slice()).and_then(|(file, _)| read_flags(file)),
            EntryKind::Directory => directory.open_child(old.name.as_slice()).and_then(read_flags),
            _ => return Ok(true),
        };
        match opened {
            // Flags of a file that may not be opened are not known, so they are not a difference.
            Err(error) if error.is(Kind::Denied) => Ok(true),
            other => Ok(other? == meta.flags),
        }
    }
}
