//! Compare what a snapshot holds below a path with a folder on disk.

use super::content::hole_free;
use super::diff::{Change, DiffTotals, What};
use super::path::{clean, resolve};
use super::shown;
use super::walk::{Pages, WalkPath, is_too_deep};
use crate::disk::flags::read_flags;
use crate::disk::open::{open_file_checked, raise_open_files, read_full_at, read_link};
use crate::disk::xattr::read_xattrs_at;
use crate::disk::{Directory, Handle, ListBuffer, Names, Owners, Stat, levels_open};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkKind;
use crate::repo::{Reader, Repository, Snapshot};
use crate::watch::Watch;
use rustix::fd::OwnedFd;
use std::cmp::Ordering;

/// How to compare with a folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct FolderDiff {
    /// Read every file whose size is the same, whatever its time says. Nothing is fetched from the repository for it:
    /// names of chunks are computed from the disk.
    pub content: bool,
}

/// Takes a path, what of it changed, the saved entry and the stat of the one on disk.
pub type EachFolderChange<'a> = dyn FnMut(&[u8], Change, Option<&Entry>, Option<&Stat>) -> Result<()> + 'a;

/// A name, the saved entry of that name and whether it is on disk.
type NextName = (Vec<u8>, Option<Entry>, bool);

struct Level<'r> {
    old: Option<Pages<'r>>,
    new: Option<OnDisk>,
    path_length: usize,
}

/// A folder, its names and which comes next.
struct OnDisk {
    handle: Handle,
    names: Names,
    next: usize,
}

struct Folder<'a> {
    reader: &'a Reader,
    repo: &'a Repository,
    options: FolderDiff,
    watch: &'a Watch,
    owners: Owners,
    buffer: ListBuffer,
    bytes: Vec<u8>,
    /// What is compared on disk, and the length of the path that it has in the snapshot.
    top: Vec<u8>,
    top_length: usize,
    levels_open: usize,
}

/// What differs between a snapshot at `path` (old) and a folder (new): kind, size, modification time, mode, owner, group,
/// extended attributes with ACLs and capabilities, flags, where links point to, and with `content` every byte. Owners are
/// compared by name where both sides have one. Of the folder itself nothing is compared but what is in it. Streams of the
/// snapshot have no counterpart and are passed over; what cannot be read is told as warning. `each` is handed the path
/// below the snapshot's root, the change, the saved entry and the stat of the one on disk.
pub fn diff_folder(
    repo: &Repository,
    reader: &Reader,
    (snapshot, path): (&Snapshot, &[u8]),
    folder: &std::path::Path,
    options: FolderDiff,
    watch: &Watch,
    each: &mut EachFolderChange<'_>,
) -> Result<DiffTotals> {
    let path = clean(path)?;
    let top = resolve(reader, snapshot, &path)?;
    if !top.is_directory() {
        return Err(Error::invalid("compare with a directory", shown(&path), "it is not a directory in the snapshot"));
    }
    let mut totals = DiffTotals::default();
    let mut walk = WalkPath::new(&path);
    let mut work = Folder {
        reader,
        repo,
        options,
        watch,
        owners: Owners::load()?,
        buffer: ListBuffer::default(),
        bytes: Vec::new(),
        top: folder.as_os_str().as_encoded_bytes().to_vec(),
        top_length: walk.0.len(),
        levels_open: levels_open(raise_open_files(), 1),
    };
    let directory = Directory::open_path(&work.top)?;
    let new = Some(work.list(directory, 0)?);
    let mut levels = vec![Level { old: Pages::of(reader, &top), new, path_length: walk.0.len() }];
    while let Some(level) = levels.last_mut() {
        watch.cancel.check()?;
        walk.0.truncate(level.path_length);
        let next = level.next()?;
        level.old.iter_mut().for_each(|pages| pages.tell_damage(&walk.0, watch));
        let Some((name, old, on_disk)) = next else {
            levels.pop();
            continue;
        };
        let directory = match level.new.as_ref().map(|new| new.handle.get(&work.on_disk(&walk.0))).transpose() {
            Ok(directory) => directory,
            Err(error) => {
                work.tell(&walk.0, error)?;
                levels.pop();
                continue;
            }
        };
        // What cannot be read of the snapshot may have it.
        if old.is_none() && level.old.as_ref().is_some_and(Pages::is_damaged) {
            continue;
        }
        if walk.push(&name).is_none() {
            watch.warn(&walk.0, "its contents are not compared: their paths are too long");
            continue;
        }
        let mut new = None;
        if on_disk && let Some(directory) = &directory {
            match directory.stat(name.as_slice()) {
                Ok(stat) => new = Some(stat),
                Err(error) if error.is(Kind::NotFound) => (),
                Err(error) => {
                    work.tell(&walk.0, error)?;
                    continue;
                }
            }
        }
        let old = old.filter(|old| old.kind != EntryKind::Stream);
        // Sockets are never saved.
        let new = new.filter(|new| new.kind.is_some());
        let change = match (&old, &new) {
            (None, None) => continue,
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Removed),
            (Some(old), Some(new)) => match work.compare(directory.as_deref(), old, new) {
                Ok(what) => what.map(Change::Changed),
                Err(error) => {
                    work.tell(&walk.0, error)?;
                    continue;
                }
            },
        };
        if let Some(change) = change {
            let size = |stat: &Stat| if stat.is(EntryKind::File) { stat.size } else { 0 };
            totals.count(change, old.as_ref().map_or(0, |old| old.size), new.as_ref().map_or(0, size));
            each(&walk.0, change, old.as_ref(), new.as_ref())?;
        }
        let below_old = old.as_ref().and_then(|old| Pages::of(reader, old));
        let below_new = match (&directory, new.is_some_and(|new| new.is(EntryKind::Directory))) {
            (Some(above), true) => {
                above.open_child(name.as_slice()).and_then(|below| work.list(below, levels.len())).map(Some)
            }
            _ => Ok(None),
        };
        match below_new {
            Ok(below_new) if below_old.is_some() || below_new.is_some() => {
                if is_too_deep(levels.len()) {
                    watch.warn(&walk.0, "its contents are not compared: they are deeper than what a backup saves")
                } else {
                    levels.push(Level { old: below_old, new: below_new, path_length: walk.0.len() })
                }
            }
            Ok(_) => (),
            // Not as removed: what is in it is not known.
            Err(error) => work.tell(&walk.0, error)?,
        }
    }
    Ok(totals)
}

impl Level<'_> {
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
        Ok(saved.filter(|_| order != Ordering::Greater).or(disk).map(|name| (name, entry, on_disk)))
    }
}

impl Folder<'_> {
    /// The path on disk of a directory that the walk has come to.
    fn on_disk(&self, walked: &[u8]) -> Vec<u8> {
        [self.top.as_slice(), &walked[self.top_length..]].concat()
    }

    fn list(&mut self, directory: Directory, level: usize) -> Result<OnDisk> {
        let mut names = Names::default();
        directory.names(&mut names, &mut self.buffer)?;
        Ok(OnDisk { handle: Handle::new(directory, level < self.levels_open)?, names, next: 0 })
    }

    /// An error with one name: told, unless it ends everything.
    fn tell(&self, path: &[u8], error: Error) -> Result<()> {
        match error.kind() {
            Kind::Cancelled | Kind::Full => return Err(error),
            Kind::Corrupt => self.watch.damage(path, error.to_string()),
            _ => self.watch.warn(path, error.to_string()),
        }
        Ok(())
    }

    fn compare(&mut self, directory: Option<&Directory>, old: &Entry, new: &Stat) -> Result<Option<What>> {
        if new.kind != Some(old.kind) {
            return Ok(Some(What::Kind));
        }
        let Some(directory) = directory else { return Ok(None) };
        let name = old.name.as_slice();
        let changed = match old.kind {
            EntryKind::File if old.size != new.size => true,
            EntryKind::File if self.options.content => !self.same_bytes(directory, old)?,
            // As in a backup: another time is taken for other bytes.
            EntryKind::File => old.meta.modified != new.modified,
            EntryKind::Symlink => read_link(directory, name)? != old.target,
            EntryKind::BlockDevice | EntryKind::CharDevice => old.device != new.special,
            _ => false,
        };
        if changed {
            return Ok(Some(What::Content));
        }
        let is_same = self.same_metadata(directory, old, new)?;
        Ok((!is_same).then_some(What::Metadata))
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
        if read_xattrs_at(directory, old.name.as_slice())? != meta.xattrs {
            return Ok(false);
        }
        let opened = match old.kind {
            EntryKind::File => open_file_checked(directory, old.name.as_slice()).map(|(file, _)| read_flags(file)),
            EntryKind::Directory => directory.open_child(old.name.as_slice()).map(read_flags),
            _ => return Ok(true),
        };
        match opened {
            // Who may not open it cannot see its flags, and need not see a difference for that.
            Err(error) if error.is(Kind::Denied) => Ok(true),
            other => Ok(other? == meta.flags),
        }
    }

    /// Whether a file on disk has the bytes that were saved.
    fn same_bytes(&mut self, directory: &Directory, old: &Entry) -> Result<bool> {
        let (file, stat) = open_file_checked(directory, old.name.as_slice())?;
        if stat.size != old.size {
            return Ok(false);
        }
        for hole in &old.holes {
            if !self.is_zero(&file, hole.offset, hole.length)? {
                return Ok(false);
            }
        }
        let mut at = 0;
        if let Content::Inline(bytes) = &old.content {
            return Ok(self.read_content(&file, old, &mut at, bytes.len() as u64)? && self.bytes == *bytes);
        }
        let (reader, mut same) = (self.reader, true);
        let walked = reader.for_each_chunk(old, &mut |id| {
            self.watch.cancel.check()?;
            let length = u64::from(self.reader.locate(id)?.length);
            same = self.read_content(&file, old, &mut at, length)?
                && self.repo.keys().chunk_id(ChunkKind::Content, &self.bytes) == *id;
            if same { Ok(()) } else { Err(Error::new(Kind::Failed, "compare the content", "")) }
        });
        // Nothing behind the first difference is of interest: a hostile list would never end.
        if same { walked.map(|()| true) } else { Ok(false) }
    }

    fn is_zero(&mut self, file: &OwnedFd, mut offset: u64, mut length: u64) -> Result<bool> {
        while length > 0 {
            self.watch.cancel.check()?;
            self.bytes.resize(length.min(1 << 20) as usize, 0);
            let count = read_full_at(file, &mut self.bytes, offset)?;
            if count < self.bytes.len() || self.bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += count as u64;
            length -= count as u64;
        }
        Ok(true)
    }

    /// Reads the next bytes that are not in holes; false when the file ends before.
    fn read_content(&mut self, file: &OwnedFd, entry: &Entry, at: &mut u64, length: u64) -> Result<bool> {
        self.bytes.resize(length as usize, 0);
        let mut filled = 0;
        while filled < self.bytes.len() {
            let (from, until) = hole_free(entry, *at);
            let count = (self.bytes.len() - filled).min(usize::try_from(until - from).unwrap_or(usize::MAX));
            if count == 0 || read_full_at(file, &mut self.bytes[filled..filled + count], from)? < count {
                return Ok(false);
            }
            filled += count;
            *at = from + count as u64;
        }
        Ok(true)
    }
}
