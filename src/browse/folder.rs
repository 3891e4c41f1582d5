//! Compare what a snapshot holds below a path with a folder on disk.

use super::content::hole_free;
use super::diff::{Change, DiffTotals, What};
use super::path::{clean, resolve};
use super::shown;
use super::walk::{Pages, WalkPath};
use crate::disk::open::{open_file_checked, read_full_at, read_link};
use crate::disk::{Directory, ListBuffer, Names, Stat};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
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
    /// The folder, its names and which comes next.
    new: Option<(Directory, Names, usize)>,
    path_length: usize,
}

struct Folder<'a> {
    reader: &'a Reader,
    repo: &'a Repository,
    options: FolderDiff,
    watch: &'a Watch,
    buffer: ListBuffer,
    bytes: Vec<u8>,
}

/// What differs between a snapshot at `path` (old) and a folder (new): kind, size, modification time, mode, where
/// links point to, and with `content` every byte. Owners and attributes are not compared. Streams of the snapshot
/// have no counterpart and are passed over; what cannot be read is told as trouble. `each` is handed the path below
/// the snapshot's root, the change, the saved entry and the stat of the one on disk.
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
        return Err(Error::invalid("compare with a folder", shown(&path), "it is no directory in the snapshot"));
    }
    let mut totals = DiffTotals::default();
    let (buffer, bytes) = (ListBuffer::default(), Vec::new());
    let mut work = Folder { reader, repo, options, watch, buffer, bytes };
    let directory = Directory::open_path(folder.as_os_str().as_encoded_bytes())?;
    let mut walk = WalkPath::new(&path);
    let mut names = Names::default();
    directory.names(&mut names, &mut work.buffer)?;
    let mut levels =
        vec![Level { old: Pages::of(reader, &top), new: Some((directory, names, 0)), path_length: walk.0.len() }];
    while let Some(level) = levels.last_mut() {
        watch.cancel.check()?;
        walk.0.truncate(level.path_length);
        let Some((name, old, on_disk)) = level.next()? else {
            levels.pop();
            continue;
        };
        walk.push(&name)?;
        let mut new = None;
        if on_disk && let Some((directory, ..)) = &level.new {
            match directory.stat(name.as_slice()) {
                Ok(stat) => new = Some(stat),
                Err(error) if error.is(Kind::NotFound) => (),
                Err(error) => {
                    watch.trouble(&walk.0, error.to_string());
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
            (Some(old), Some(new)) => match level.compare(&mut work, old, new) {
                Ok(what) => what.map(Change::Changed),
                Err(error) if error.is(Kind::Cancelled) || error.is(Kind::Corrupt) => return Err(error),
                Err(error) => {
                    watch.trouble(&walk.0, error.to_string());
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
        let below_new = match new.is_some_and(|new| new.is(EntryKind::Directory)) {
            true => level.open(&name, &mut work.buffer),
            false => Ok(None),
        };
        match below_new {
            Ok(below_new) if below_old.is_some() || below_new.is_some() => {
                levels.push(Level { old: below_old, new: below_new, path_length: walk.0.len() });
            }
            Ok(_) => (),
            // Not as removed: what is in it is not known.
            Err(error) => watch.trouble(&walk.0, error.to_string()),
        }
    }
    Ok(totals)
}

impl Level<'_> {
    /// The next name on either side.
    fn next(&mut self) -> Result<Option<NextName>> {
        let disk = match &self.new {
            Some((_, names, at)) if *at < names.len() => Some(names.get(*at).to_bytes().to_vec()),
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
        if let (Some((_, _, at)), true) = (&mut self.new, on_disk) {
            *at += 1;
        }
        Ok(saved.filter(|_| order != Ordering::Greater).or(disk).map(|name| (name, entry, on_disk)))
    }

    fn open(&self, name: &[u8], buffer: &mut ListBuffer) -> Result<Option<(Directory, Names, usize)>> {
        let Some((above, ..)) = &self.new else { return Ok(None) };
        let directory = above.open_child(name)?;
        let mut names = Names::default();
        directory.names(&mut names, buffer)?;
        Ok(Some((directory, names, 0)))
    }

    fn compare(&self, work: &mut Folder<'_>, old: &Entry, new: &Stat) -> Result<Option<What>> {
        if new.kind != Some(old.kind) {
            return Ok(Some(What::Kind));
        }
        let Some((directory, ..)) = &self.new else { return Ok(None) };
        let name = old.name.as_slice();
        let changed = match old.kind {
            EntryKind::File if old.size != new.size => true,
            EntryKind::File if work.options.content => !work.same_bytes(directory, old)?,
            // As in a backup: another time is taken for other bytes.
            EntryKind::File => old.meta.modified != new.modified,
            EntryKind::Symlink => read_link(directory, name)? != old.target,
            EntryKind::BlockDevice | EntryKind::CharDevice => old.device != new.special,
            _ => false,
        };
        let mode = old.kind != EntryKind::Symlink && old.meta.mode != new.permissions();
        Ok(match changed {
            true => Some(What::Content),
            false if mode || old.meta.modified != new.modified => Some(What::Metadata),
            false => None,
        })
    }
}

impl Folder<'_> {
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
        let mut same = true;
        self.reader.for_each_chunk(old, &mut |id| {
            self.watch.cancel.check()?;
            if same {
                let length = u64::from(self.reader.locate(id)?.length);
                same =
                    self.read_content(&file, old, &mut at, length)? && self.repo.keys().content_id(&self.bytes) == *id;
            }
            Ok(())
        })?;
        Ok(same)
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
