//! Objects as files below a folder: written whole under a temporary name, synced, then renamed.

use crate::disk::WRITE_BYTES_MAX;
use crate::disk::device::{Medium, medium_of};
use crate::disk::own_files::{names_behind_links, open_at_once};
use crate::disk::whole::sync_directory;
use crate::error::{Error, Kind, Result};
use crate::storage::beneath::{self, Owner};
use crate::storage::local_folder::{
    check_folder, is_absent, is_no_way, remove_unfinished, rename_new, unfinished_name,
};
use crate::storage::{Abilities, Body, Listed, Stat, Storage, Version, check_name};
use rustix::fs::{Advice, CWD, FileType, fadvise};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where unfinished writes stand; never listed.
const UNFINISHED: &str = ".tmp";
/// Unfinished writes of this age were left by a crash.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// Files kept open for further ranges.
const OPEN_FILES_MAX: usize = 16;

/// A folder on this machine (or mounted on it).
pub struct Local {
    root: PathBuf,
    /// Device and inode of the root when it was opened: something else is mounted, or uncovered, where they differ.
    number: (u64, u64),
    /// User and group that files are given to: those of the folder, where root writes into that of somebody else.
    owner: Option<Owner>,
    serial: AtomicU64,
    /// Whether what killed writers left was looked for.
    is_swept: AtomicBool,
    open: Mutex<VecDeque<OpenFile>>,
}

struct OpenFile {
    name: String,
    /// Its device and inode, which no other file takes while it is open.
    number: (u64, u64),
    file: Arc<File>,
}

impl Local {
    /// Opens a folder that is there.
    pub fn open(root: &Path) -> Result<Self> {
        let meta = std::fs::metadata(root).map_err(|error| {
            Error::io("open the repository", root.display(), error)
                .hint("check the path, or create a repository with `silt init`")
        })?;
        if !meta.is_dir() {
            return Err(Error::invalid("open the repository", root.display(), "it is not a directory"));
        }
        let is_others = rustix::process::geteuid().is_root() && meta.uid() != 0;
        let owner = is_others.then(|| Owner { user: meta.uid(), group: meta.gid() });
        Ok(Local {
            root: root.to_owned(),
            number: number_of(&meta),
            owner,
            serial: AtomicU64::new(0),
            is_swept: AtomicBool::new(false),
            open: Mutex::default(),
        })
    }

    /// Opens a folder, made (for its owner alone) when it is not there.
    pub fn create(root: &Path) -> Result<Self> {
        make_folders(root)?;
        Local::open(root)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// That a folder is empty and that it is gone are two things: what was mounted there may be no more.
    fn check_root(&self) -> Result<()> {
        let doing = "open the directory";
        let error = match std::fs::metadata(&self.root) {
            Ok(meta) if number_of(&meta) == self.number => return Ok(()),
            Ok(_) => Error::new(Kind::Gone, doing, self.root.display()).because("it is another directory now"),
            Err(error) if is_absent(&error) => Error::io(doing, self.root.display(), error).with_kind(Kind::Gone),
            Err(error) => return Err(Error::io(doing, self.root.display(), error)),
        };
        Err(error.hint("it existed a moment ago: check whether its disk is still mounted"))
    }

    /// Removes what killed writers left long ago, once for each opening: only a command that writes does, and by the clock of the file
    /// system, as this machine's may be wrong. Best effort: what cannot be removed now is tried next time.
    fn remove_abandoned(&self, written_now: &File) {
        // What is in the folder of somebody else is theirs to tidy.
        if self.owner.is_some() || self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(now) = written_now.metadata() else { return };
        let _best_effort = remove_unfinished(&self.root.join(UNFINISHED), now.mtime() - ABANDONED.as_secs() as i64);
    }

    /// The file that the name stands for now, open since an earlier range if it is still the same. If the file was replaced
    /// or removed, here or in another process, the number of the file at its path differs.
    fn open_for_ranges(&self, name: &str, path: &Path) -> Result<(Arc<File>, u64)> {
        let read = |error| cannot_read(path, error);
        let meta = self.object_meta("read", path)?;
        let number = number_of(&meta);
        let find = |open: &mut VecDeque<OpenFile>| {
            open.retain(|known| known.name != name || known.number == number);
            open.iter().find(|known| known.name == name).map(|known| known.file.clone())
        };
        let known = find(&mut self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if let Some(file) = known {
            return Ok((file, meta.len()));
        }
        let file = Arc::new(open_at_once(OpenOptions::new().read(true), path).map_err(read)?);
        let meta = file.metadata().map_err(read)?;
        let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        open.push_back(OpenFile { name: name.to_owned(), number: number_of(&meta), file: file.clone() });
        if open.len() > OPEN_FILES_MAX {
            open.pop_front();
        }
        Ok((file, meta.len()))
    }

    /// Writes a synced file under a temporary name.
    fn write_unfinished(&self, body: &Body) -> Result<PathBuf> {
        let folder = self.root.join(UNFINISHED);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(unfinished_name(serial));
        let open = || match self.owner {
            Some(owner) => beneath::create(&self.root, self.below(&path), owner),
            None => OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path),
        };
        let file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.make_folder(&folder)?;
                open()
            }
            other => other,
        };
        let mut file = file.map_err(|error| failed("write", &path, error))?;
        let written = write_pieces(&mut file, body).and_then(|()| file.sync_data());
        written.map_err(|error| {
            self.discard(&path);
            failed("write", &path, error)
        })?;
        self.remove_abandoned(&file);
        Ok(path)
    }

    /// Makes a folder below the root, and those between. Never the root itself: where it is gone, its disk may not be
    /// mounted, and what is below it now is not the repository.
    fn make_folder(&self, folder: &Path) -> Result<()> {
        self.check_root()?;
        match self.owner {
            // Made with the file in it.
            Some(_) => Ok(()),
            None => make_folders(folder),
        }
    }

    /// A path below the root, without it.
    fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Removes an unfinished file as far as that goes; what stays is swept away later.
    fn discard(&self, unfinished: &Path) {
        let _best_effort = match self.owner {
            Some(_) => beneath::remove(&self.root, self.below(unfinished)),
            None => std::fs::remove_file(unfinished),
        };
    }

    /// Why something could not be done with an object: it may be that something else is in the place of its folder.
    fn failed(&self, doing: &str, path: &Path, error: std::io::Error) -> Error {
        match self.check_above(path, &error) {
            Ok(()) => failed(doing, path, error),
            Err(why) => why,
        }
    }

    fn check_above(&self, path: &Path, error: &std::io::Error) -> Result<()> {
        let folder = self.below(path).parent().and_then(|folder| folder.components().next());
        let Some(folder) = folder.filter(|_| is_absent(error)).map(|folder| self.root.join(folder)) else {
            return Ok(());
        };
        if self.owner.is_some() && error.kind() == std::io::ErrorKind::NotADirectory && folder.is_symlink() {
            return Err(Error::new(Kind::Failed, "write below", folder.display())
                .because("it is a symbolic link, which root does not follow in the repository of another user")
                .hint("run silt as the user who owns the repository"));
        }
        check_folder("list", &folder)
    }

    fn cannot_rename(&self, from: &Path, to: &Path, error: std::io::Error) -> Error {
        match self.check_above(to, &error) {
            Ok(()) => self.failed("rename", from, error),
            Err(why) => why,
        }
    }

    /// What is known of the object at a path; a folder is none.
    fn object_meta(&self, doing: &str, path: &Path) -> Result<std::fs::Metadata> {
        let meta = std::fs::metadata(path).map_err(|error| self.failed(doing, path, error))?;
        check_object(doing, path, &meta)?;
        Ok(meta)
    }

    /// The whole object. `uncached` drops what the system keeps of it in memory first.
    fn read_whole(&self, name: &str, bytes_max: u64, uncached: bool) -> Result<(Vec<u8>, Version)> {
        let path = self.path(name)?;
        let read = |error: std::io::Error| match is_absent(&error) {
            true => self.failed("read", &path, error),
            false => cannot_read(&path, error),
        };
        let file = open_at_once(OpenOptions::new().read(true), &path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        check_object("read", &path, &meta)?;
        let too_large = || Error::corrupt("read", path.display(), format!("it has more than {bytes_max} bytes"));
        if meta.len() > bytes_max {
            return Err(too_large());
        }
        if uncached {
            // Where the system keeps its copy all the same, that is what is read.
            let _best_effort = fadvise(&file, 0, None, Advice::DontNeed);
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(read)?;
        match bytes.len() as u64 > bytes_max {
            true => Err(too_large()),
            false => Ok((bytes, version_of(&meta))),
        }
    }

    fn finish(&self, unfinished: &Path, path: &Path, replace: bool) -> Result<()> {
        if let Some(owner) = self.owner {
            let moved = beneath::rename(&self.root, self.below(unfinished), self.below(path), replace, owner);
            return moved.map_err(|error| {
                self.discard(unfinished);
                self.failed("write", path, error)
            });
        }
        let place = || match replace {
            true => std::fs::rename(unfinished, path),
            false => rename_new(CWD, unfinished, CWD, path),
        };
        let folder = path.parent().expect("an object lies below the root");
        let mut placed = place();
        if placed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            self.make_folder(folder).inspect_err(|_| self.discard(unfinished))?;
            placed = place();
        }
        if let Err(error) = placed {
            self.discard(unfinished);
            return Err(self.failed("write", path, error));
        }
        sync_folder(folder)
    }
}

/// What may stand beside the objects of a repository, or be what an `init` that was interrupted left.
const EXPECTED: [&str; 10] =
    ["config", "expired", "index", "keys", "lost+found", "packs", "pending", "probe", "snapshots", UNFINISHED];

/// Something in a folder that belongs to no repository, if there is any; a folder that is not there has none.
pub fn stranger_in(folder: &Path) -> Result<Option<OsString>> {
    let failed = |error| Error::io("look into", folder.display(), error);
    let names = match names_behind_links(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut names = names.into_iter().map(|(name, _)| name);
    Ok(names.find(|name| EXPECTED.iter().all(|expected| *expected != name)))
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    // Below an object nothing can be: an object, too, may stand where a folder is asked for.
    let is_below_object = is_no_way(&error);
    let may_pass = error.raw_os_error().is_some_and(|number| may_pass(Errno::from_raw_os_error(number), path));
    let is_across = error.kind() == std::io::ErrorKind::CrossesDevices;
    let is_full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let error = Error::io(doing, path.display(), error);
    match error.kind() {
        _ if is_below_object => error.with_kind(Kind::NotFound),
        _ if may_pass => {
            error.with_kind(Kind::Temporary).hint("check the file system and the server that it comes from")
        }
        _ if is_across => {
            error.hint("all directories of a repository must be on one file system, as objects are renamed into them")
        }
        _ if is_full => error.hint("free space on that file system; what is stored already stays good"),
        Kind::Denied => {
            error.hint("check who owns the directory of the repository, and whether it is mounted read-only")
        }
        _ => error,
    }
}

/// Whether the disk cannot read what it has.
fn is_unreadable(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // The last two are what the kernel makes of errors of the medium, too.
    let known = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO];
    errno.is_some_and(|errno| known.contains(&errno))
}

/// Whether something else is in the place of an object: a directory, or a socket.
fn is_no_object(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| matches!(errno, Errno::ISDIR | Errno::NXIO))
}

/// Classifies a failed read: if the disk cannot read the object, it is damaged; if the object is not a file, it is missing.
fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    let (is_unreadable, is_no_object) = (is_unreadable(&error), is_no_object(&error));
    let error = failed("read", path, error);
    match is_unreadable && !error.is(Kind::Temporary) {
        true => error.with_kind(Kind::Corrupt).hint("check the disk: it cannot read this file"),
        false if is_no_object => error.with_kind(Kind::NotFound),
        false => error,
    }
}

/// Whether an error may be over soon: of a disk of this machine none is, of a network file system several.
fn may_pass(errno: Errno, path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    let is_far = || medium_of(folder.as_os_str().as_bytes()).is_ok_and(|medium| medium == Medium::Network);
    match errno {
        Errno::AGAIN | Errno::INTR | Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::NOLINK => true,
        // A disk that cannot be read, or the answer of a mount that gave up on its server.
        Errno::IO | Errno::REMOTEIO => is_far(),
        _ => false,
    }
}

fn write_pieces(file: &mut File, body: &Body) -> std::io::Result<()> {
    body.0.iter().flat_map(|piece| piece.chunks(WRITE_BYTES_MAX)).try_for_each(|bytes| file.write_all(bytes))
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(sync_directory);
    synced.map_err(|error| failed("sync the directory", folder, error))
}

/// Makes a folder and those above it, each synced into the one above. Refuses what has the name of one and is none.
fn make_folders(folder: &Path) -> Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    let make = || DirBuilder::new().mode(0o700).create(folder);
    let made = match (make(), above) {
        (Err(error), Some(above)) if error.kind() == std::io::ErrorKind::NotFound => {
            make_folders(above)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => above.map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_folder("use the directory", folder),
        Err(error) => Err(failed("create the directory", folder, error)),
    }
}

fn check_object(doing: &str, path: &Path, meta: &std::fs::Metadata) -> Result<()> {
    match meta.is_file() {
        true => Ok(()),
        false => Err(Error::new(Kind::NotFound, doing, path.display()).because("it is not a file")),
    }
}

fn number_of(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn version_of(meta: &std::fs::Metadata) -> Version {
    Version(format!("{}-{}-{}-{}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

impl Storage for Local {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn identity(&self) -> String {
        std::fs::canonicalize(&self.root).map_or_else(|_| self.describe(), |root| root.display().to_string())
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn abilities(&self) -> Abilities {
        Abilities { put_new: true, swap: false, rename: true, local: true }
    }

    fn put(&self, name: &str, body: Body) -> Result<Version> {
        let path = self.path(name)?;
        let unfinished = self.write_unfinished(&body)?;
        self.finish(&unfinished, &path, true)?;
        self.stat(name).map(|stat| stat.version)
    }

    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        let path = self.path(name)?;
        let unfinished = self.write_unfinished(&body)?;
        self.finish(&unfinished, &path, false)?;
        self.stat(name).map(|stat| stat.version)
    }

    fn swap(&self, name: &str, _expected: &Version, _body: Body) -> Result<Version> {
        Err(Error::new(Kind::Unsupported, "replace conditionally", name).because("directories do not support that"))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        if let Some(owner) = self.owner {
            let moved = beneath::rename(&self.root, self.below(&from), self.below(&to), false, owner);
            return moved.map_err(|error| self.cannot_rename(&from, &to, error));
        }
        let folder = to.parent().expect("an object lies below the root");
        let mut moved = rename_new(CWD, &from, CWD, &to);
        if moved.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) && !folder.exists() {
            self.make_folder(folder)?;
            moved = rename_new(CWD, &from, CWD, &to);
        }
        moved.map_err(|error| self.cannot_rename(&from, &to, error))?;
        sync_folder(folder)?;
        sync_folder(from.parent().expect("an object lies below the root"))
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        self.read_whole(name, bytes_max, false)
    }

    fn get_uncached(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        self.read_whole(name, bytes_max, true)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let path = self.path(name)?;
        let (file, size) = self.open_for_ranges(name, &path)?;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let why = format!("{length} bytes at offset {offset} were requested, and it has {size}");
            return Err(Error::corrupt("read", path.display(), why));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).map_err(|error| cannot_read(&path, error))?;
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        // With a slash at its end a link would be what it leads to.
        let top = self.root.join(prefix.trim_end_matches('/'));
        // Further down an object may stand, and below one is nothing.
        if !prefix.trim_end_matches('/').contains('/') {
            check_folder("list", &top)?;
        }
        let (mut listed, mut folders) = (Vec::new(), vec![top]);
        let mut has_absent = false;
        while let Some(folder) = folders.pop() {
            let names = match names_behind_links(&folder) {
                Ok(names) => names,
                // Removed by somebody between the listing of the folder above and now, or no such folder yet.
                Err(error) if is_absent(&error) => {
                    self.check_root()?;
                    continue;
                }
                Err(error) => return Err(failed("list", &folder, error)),
            };
            for (name, kind) in names.into_iter().filter(|(name, _)| !name.as_bytes().starts_with(b".")) {
                let path = folder.join(name);
                if kind == FileType::Directory {
                    folders.push(path);
                    continue;
                }
                if !matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Unknown) {
                    continue;
                }
                // A directory of the repository may be on another disk: its objects are found when they are read. Further
                // down, a link could lead round in circles, and root through all of the machine.
                let is_followed = self.below(&path).components().count() <= if self.owner.is_some() { 1 } else { 2 };
                let meta = path.symlink_metadata().and_then(|meta| match meta.is_symlink() && is_followed {
                    true => path.metadata(),
                    false => Ok(meta),
                });
                let meta = match meta {
                    Ok(meta) => meta,
                    Err(error) if is_absent(&error) => {
                        has_absent = true;
                        continue;
                    }
                    // An object that is left out of a listing would count as lost.
                    Err(error) => return Err(failed("list", &path, error)),
                };
                if meta.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = self.below(&path).to_str().filter(|name| check_name(name).is_ok());
                if let Some(name) = name.filter(|_| meta.is_file()) {
                    listed.push(Listed { name: name.to_owned(), size: meta.len() });
                }
            }
        }
        if has_absent {
            // Of a disk that was unmounted meanwhile, names can still be here.
            self.check_root()?;
        }
        listed.sort();
        Ok(listed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let removed = match self.owner {
            Some(_) => beneath::remove(&self.root, self.below(&path)),
            None => std::fs::remove_file(&path),
        };
        match removed {
            Ok(()) if self.owner.is_some() => Ok(()),
            Ok(()) => sync_folder(path.parent().expect("an object is below the root")),
            Err(error) if is_absent(&error) || error.kind() == std::io::ErrorKind::IsADirectory => Ok(()),
            Err(error) => Err(failed("remove", &path, error)),
        }
    }

    fn stat(&self, name: &str) -> Result<Stat> {
        let path = self.path(name)?;
        let meta = self.object_meta("look at", &path)?;
        Ok(Stat {
            size: meta.len(),
            version: version_of(&meta),
            written: format!("{}-{}", meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below a bind mount that went away, the device is the same: packs were written into the empty directory.
    #[test]
    fn nothing_is_written_into_another_directory_at_the_same_path() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("repository");
        let local = Local::create(&root).expect("made");
        std::fs::rename(&root, place.path().join("elsewhere")).expect("moved");
        std::fs::create_dir(&root).expect("made");
        let error = local.put("packs/one", b"pack".as_slice().into()).map(drop).expect_err("it is gone");
        assert!(error.is(Kind::Gone), "{error:?}");
        assert_eq!(std::fs::read_dir(&root).expect("listed").count(), 0);
    }

    /// A file that looks as if it was written this many days ago.
    fn leave(path: PathBuf, days: u32) -> PathBuf {
        let file = File::create(&path).expect("made");
        let now = file.metadata().and_then(|meta| meta.modified()).expect("a time");
        file.set_modified(now - days * ABANDONED).expect("set");
        path
    }

    /// Each command removed what the clock of its machine took for old, also from the writers of other hosts.
    #[test]
    fn only_a_writer_removes_what_others_left_long_ago() {
        let place = tempfile::tempdir().expect("a directory");
        drop(Local::create(place.path()).expect("made").put("config", b"c".as_slice().into()).expect("written"));
        let names = [("12-0-9af", 2), ("12-1-9af", 0), ("document", 2), ("12-0-9af.txt", 2)];
        let left = names.map(|(name, days)| leave(place.path().join(UNFINISHED).join(name), days));
        let local = Local::open(place.path()).expect("opened");
        local.get("config", 9).expect("read");
        assert!(left.iter().all(|path| path.exists()), "a reader removes nothing");
        local.put("config", b"d".as_slice().into()).expect("written");
        assert_eq!(left.map(|path| path.exists()), [false, true, true, true]);
    }

    /// Somebody who may write into a repository could let its owner's backup delete the files of any directory.
    #[test]
    fn nothing_is_removed_behind_a_link() {
        let place = tempfile::tempdir().expect("a directory");
        let local = Local::create(&place.path().join("repository")).expect("made");
        std::fs::create_dir(place.path().join("elsewhere")).expect("made");
        let file = leave(place.path().join("elsewhere/12-0-9af"), 2);
        std::os::unix::fs::symlink("../elsewhere", place.path().join("repository").join(UNFINISHED)).expect("made");
        local.put("config", b"d".as_slice().into()).expect("written");
        assert!(file.exists());
    }

    /// Readers did not try other copies of what a pack held when links that lead round in circles were in its place.
    #[test]
    fn what_is_no_file_is_no_object() {
        let place = tempfile::tempdir().expect("a directory");
        let local = Local::create(&place.path().join("repository")).expect("made");
        let at = |name: &str| place.path().join("repository").join(name);
        std::fs::create_dir_all(at("packs/folder")).expect("made");
        std::os::unix::fs::symlink("loop", at("packs/loop")).expect("made");
        std::fs::write(at("packs/file"), "x").expect("written");
        let _socket = std::os::unix::net::UnixListener::bind(at("packs/socket")).expect("made");
        for name in ["packs/folder", "packs/loop", "packs/loop/x", "packs/file/x", "packs/socket"] {
            let whole = local.get(name, 9).map(drop);
            let uncached = local.get_uncached(name, 9).map(drop);
            let range = local.get_range(name, 0, 1).map(drop);
            for read in [whole, uncached, range, local.stat(name).map(drop)] {
                assert_eq!(read.map_err(|error| error.kind()), Err(Kind::NotFound), "{name}");
            }
        }
        assert_eq!(local.list("packs/").expect("listed").len(), 1);
        // A broken folder of the repository is an error, not a missing object.
        std::os::unix::fs::symlink("index", at("index")).expect("made");
        local.list("index/").map(drop).expect_err("it is a broken link");
        assert!(local.get("index/x", 9).is_err_and(|error| !error.is_damage()));
    }

    /// A network file system whose server was restarted ended a backup; a broken disk must end one.
    #[test]
    fn only_what_may_pass_is_temporary() {
        let kind = |errno: Errno| failed("read", Path::new("/tmp/x"), errno.into()).kind();
        for errno in [Errno::STALE, Errno::AGAIN, Errno::INTR, Errno::TIMEDOUT, Errno::HOSTDOWN] {
            assert_eq!(kind(errno), Kind::Temporary, "{errno}");
        }
        // /tmp is on a disk of this machine, or in its memory.
        for errno in [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::ROFS, Errno::NOENT, Errno::MFILE] {
            assert_ne!(kind(errno), Kind::Temporary, "{errno}");
        }
        // What a broken disk cannot read is lost, and is stored again like all that is.
        for (errno, expected) in
            [(Errno::IO, Kind::Corrupt), (Errno::UCLEAN, Kind::Corrupt), (Errno::NOMEM, Kind::Full)]
        {
            assert_eq!(cannot_read(Path::new("/tmp/x"), errno.into()).kind(), expected, "{errno}");
        }
    }
}
