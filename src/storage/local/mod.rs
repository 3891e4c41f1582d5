//! A directory of this machine, or one that is mounted on it.

mod beneath;
mod errors;
mod folder;
mod listing;
mod open_files;
mod strangers;

pub use strangers::stranger_in;

use crate::disk::WRITE_BYTES_MAX;
use crate::disk::device::{Medium, medium_of};
use crate::disk::own_files::open_at_once;
use crate::error::{Error, Kind, Result};
use crate::storage::files::{FileTree, Files, TreeEntry};
use crate::storage::{ObjectBody, ObjectStat, ObjectVersion, StorageProfile};
use beneath::FolderOwner;
use errors::{cannot_read, check_object, failed, is_absent};
use folder::{check_folder, make_folders, remove_unfinished, rename_new, sync_folder};
use open_files::{FileNumber, OpenFiles};
use rustix::fs::{Advice, CWD, fadvise};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a network file system may answer from its cache of attributes (`acdirmax` of NFS).
const ATTRIBUTES_CACHED: Duration = Duration::from_secs(60);

/// Objects in a directory of this machine.
pub type Local = Files<LocalTree>;

/// A directory of this machine, as a tree of files.
pub struct LocalTree {
    root: PathBuf,
    /// Of the root when it was opened: something else is mounted, or uncovered, where it differs.
    number: FileNumber,
    /// User and group that files are given to: those of the directory, where root writes into that of another user.
    owner: Option<FolderOwner>,
    open: OpenFiles,
}

impl Local {
    /// Opens a directory that is there.
    pub fn open(root: &Path) -> Result<Self> {
        let meta = std::fs::metadata(root).map_err(|error| {
            Error::io("open the repository", root.display(), error)
                .hint("check the path, or create a repository with `silt init`")
        })?;
        if !meta.is_dir() {
            return Err(Error::invalid("open the repository", root.display(), "it is not a directory"));
        }
        let is_others = rustix::process::geteuid().is_root() && meta.uid() != 0;
        let owner = is_others.then(|| FolderOwner { user: meta.uid(), group: meta.gid() });
        let (root, number) = (root.to_owned(), FileNumber::of(&meta));
        Ok(Files::new(LocalTree { root, number, owner, open: OpenFiles::default() }))
    }

    /// Opens a directory, and creates it for its owner alone if it is not there.
    pub fn create(root: &Path) -> Result<Self> {
        make_folders(root)?;
        Local::open(root)
    }
}

impl LocalTree {
    /// Distinguishes an empty directory from one that is gone: what was mounted there may not be any more.
    fn check_root(&self) -> Result<()> {
        let doing = "open the directory";
        let error = match std::fs::metadata(&self.root) {
            Ok(meta) if FileNumber::of(&meta) == self.number => return Ok(()),
            Ok(_) => Error::new(Kind::Gone, doing, self.root.display()).because("it is another directory now"),
            Err(error) if is_absent(&error) => Error::io(doing, self.root.display(), error).with_kind(Kind::Gone),
            Err(error) => return Err(Error::io(doing, self.root.display(), error)),
        };
        Err(error.hint("it existed a moment ago: check whether its disk is still mounted"))
    }

    /// Creates a directory below the root, and those between. Never the root itself: where it is gone, its disk may not be
    /// mounted, and what is below it now is not the repository.
    fn make_folder(&self, folder: &Path) -> Result<()> {
        self.check_root()?;
        match self.owner {
            // Created with the file in it.
            Some(_) => Ok(()),
            None => make_folders(folder),
        }
    }

    /// A path below the root, without it.
    fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The error of an operation on an object, unless something else is in the place of its directory: then that is the error.
    fn failed(&self, doing: &str, path: &Path, error: io::Error) -> Error {
        match self.check_above(path, &error) {
            Ok(()) if is_absent(&error) && path.is_symlink() => {
                Error::corrupt(doing, path.display(), "it is a symbolic link that leads nowhere")
                    .hint("check whether the disk that it leads to is mounted")
            }
            Ok(()) => failed(doing, path, error),
            Err(why) => why,
        }
    }

    fn check_above(&self, path: &Path, error: &io::Error) -> Result<()> {
        let folder = self.below(path).parent().and_then(|folder| folder.components().next());
        let Some(folder) = folder.filter(|_| is_absent(error)).map(|folder| self.root.join(folder)) else {
            return Ok(());
        };
        if self.owner.is_some() && error.kind() == io::ErrorKind::NotADirectory && folder.is_symlink() {
            return Err(Error::new(Kind::Failed, "write below", folder.display())
                .because("it is a symbolic link, which root does not follow in the repository of another user")
                .hint("run silt as the owner of the repository"));
        }
        check_folder("list", &folder)
    }

    /// Metadata of the object at a path; a directory is none.
    fn object_meta(&self, doing: &str, path: &Path) -> Result<Metadata> {
        let meta = std::fs::metadata(path).map_err(|error| self.failed(doing, path, error))?;
        self.check_object(doing, path, &meta)?;
        Ok(meta)
    }

    fn check_object(&self, doing: &str, path: &Path, meta: &Metadata) -> Result<()> {
        check_object(doing, path, meta)?;
        if self.may_follow(path, meta) {
            return Ok(());
        }
        Err(Error::corrupt(
            doing,
            path.display(),
            "it is a symbolic link to a file of another user, which root does not follow",
        )
        .hint("run silt as the owner of the repository"))
    }

    /// Root follows links in the repository of another user only to files of that user: reading some others has effects (`/proc/kmsg`).
    fn may_follow(&self, path: &Path, meta: &Metadata) -> bool {
        self.owner.is_none_or(|owner| meta.uid() == owner.user || !path.is_symlink())
    }

    /// Calls `act`, and again after the directory was created if that was missing.
    fn in_folder<R>(&self, folder: &Path, act: impl Fn() -> io::Result<R>) -> Result<io::Result<R>> {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => {
                self.make_folder(folder)?;
                Ok(act())
            }
            done => Ok(done),
        }
    }
}

fn write_pieces(file: &mut File, body: &ObjectBody) -> io::Result<()> {
    body.0.iter().flat_map(|piece| piece.chunks(WRITE_BYTES_MAX)).try_for_each(|bytes| file.write_all(bytes))
}

fn version_of(meta: &Metadata) -> ObjectVersion {
    ObjectVersion(format!("{}-{}-{}-{}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("an object is below the root")
}

impl FileTree for LocalTree {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn identity(&self) -> String {
        std::fs::canonicalize(&self.root).map_or_else(|_| self.describe(), |root| root.display().to_string())
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.root)
    }

    /// A network file system that is mounted here shows what other hosts wrote after its cache of attributes has aged.
    fn profile(&self) -> StorageProfile {
        let is_shared = medium_of(self.root.as_os_str().as_bytes()).is_ok_and(|medium| medium == Medium::Network);
        StorageProfile {
            listing_delay: if is_shared { ATTRIBUTES_CACHED } else { Duration::ZERO },
            ..StorageProfile::LOCAL
        }
    }

    fn create(&self, path: &str, body: &ObjectBody) -> Result<()> {
        let path = self.root.join(path);
        let open = || match self.owner {
            Some(owner) => beneath::create(&self.root, self.below(&path), owner),
            None => OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path),
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder(parent(&path))?;
                open()
            }
            other => other,
        };
        let mut file = file.map_err(|error| failed("write", &path, error))?;
        let written = write_pieces(&mut file, body).and_then(|()| file.sync_data());
        written.map_err(|error| {
            // What stays is swept away later.
            let _best_effort = match self.owner {
                Some(_) => beneath::remove(&self.root, self.below(&path)),
                None => std::fs::remove_file(&path),
            };
            failed("write", &path, error)
        })
    }

    fn place(&self, unfinished: &str, to: &str, replace: bool) -> Result<()> {
        let (unfinished, path) = (self.root.join(unfinished), self.root.join(to));
        if let Some(owner) = self.owner {
            let moved = beneath::rename(&self.root, self.below(&unfinished), self.below(&path), replace, owner);
            return moved.map_err(|error| self.failed("write", &path, error));
        }
        let place = || {
            if replace { std::fs::rename(&unfinished, &path) } else { rename_new(CWD, &unfinished, CWD, &path) }
        };
        let folder = parent(&path);
        let mut placed = place();
        if placed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.make_folder(folder)?;
            placed = place();
        }
        placed.map_err(|error| self.failed("write", &path, error))?;
        sync_folder(folder)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.root.join(from), self.root.join(to));
        let cannot_rename = |error: io::Error| match self.check_above(&to, &error) {
            Ok(()) => self.failed("rename", &from, error),
            Err(why) => why,
        };
        if let Some(owner) = self.owner {
            let moved = beneath::rename(&self.root, self.below(&from), self.below(&to), false, owner);
            return moved.map_err(cannot_rename);
        }
        let folder = parent(&to);
        self.in_folder(folder, || rename_new(CWD, &from, CWD, &to))?.map_err(cannot_rename)?;
        sync_folder(folder)?;
        sync_folder(parent(&from))
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.root.join(path);
        let removed = match self.owner {
            Some(_) => beneath::remove(&self.root, self.below(&path)),
            None => std::fs::remove_file(&path),
        };
        match removed {
            Ok(()) if self.owner.is_some() => Ok(()),
            Ok(()) => sync_folder(parent(&path)),
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::IsADirectory => Ok(()),
            Err(error) => Err(failed("remove", &path, error)),
        }
    }

    fn read(&self, path: &str, bytes_max: u64, uncached: bool) -> Result<(Vec<u8>, ObjectVersion)> {
        let path = self.root.join(path);
        let read = |error: io::Error| {
            if is_absent(&error) { self.failed("read", &path, error) } else { cannot_read(&path, error) }
        };
        if self.owner.is_some() {
            // Before it is opened, which has effects where a link of that user leads to a device.
            self.object_meta("read", &path)?;
        }
        let file = open_at_once(OpenOptions::new().read(true), &path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        self.check_object("read", &path, &meta)?;
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
        if bytes.len() as u64 > bytes_max { Err(too_large()) } else { Ok((bytes, version_of(&meta))) }
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let path = self.root.join(path);
        let meta = self.object_meta("read", &path)?;
        let (file, size) = self.open.get(&path, &meta).map_err(|error| cannot_read(&path, error))?;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let why = format!("{length} bytes at offset {offset} were requested, and it has {size}");
            return Err(Error::corrupt("read", path.display(), why));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).map_err(|error| cannot_read(&path, error))?;
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> Result<Vec<TreeEntry>> {
        self.entries_of(folder)
    }

    fn stat(&self, path: &str) -> Result<ObjectStat> {
        let meta = self.object_meta("look at", &self.root.join(path))?;
        Ok(ObjectStat {
            size: meta.len(),
            version: version_of(&meta),
            written: format!("{}-{}", meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn remove_abandoned(&self, folder: &str, newest: &str, age: Duration) {
        // What is in the directory of another user is theirs to tidy.
        if self.owner.is_some() {
            return;
        }
        let Ok(now) = self.root.join(newest).metadata() else { return };
        let _best_effort = remove_unfinished(&self.root.join(folder), now.mtime() - age.as_secs() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::files::{ABANDONED, UNFINISHED};

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
        Local::create(place.path()).expect("made").put("config", b"c".as_slice().into()).expect("written");
        let names = [("12-0-9af", 2), ("12-1-9af", 0), ("document", 2), ("12-0-9af.txt", 2)];
        let left = names.map(|(name, days)| leave(place.path().join(UNFINISHED).join(name), days));
        let local = Local::open(place.path()).expect("opened");
        local.get("config", 9).expect("read");
        assert!(left.iter().all(|path| path.exists()), "a reader removes nothing");
        local.put("config", b"d".as_slice().into()).expect("written");
        assert_eq!(left.map(|path| path.exists()), [false, true, true, true]);
    }

    /// A user with the right to write into a repository could make its owner's backup delete the files of any directory.
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

    /// A snapshot that was moved to a disk that is not mounted, and replaced by a link, was missed in silence; root did not see it even
    /// while the disk was there, if the repository belonged to another user.
    #[test]
    fn an_object_behind_a_link_is_listed_and_one_that_leads_nowhere_is_damaged() {
        let place = tempfile::tempdir().expect("a directory");
        let mut local = Local::create(&place.path().join("repository")).expect("made");
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir_all(at("repository/packs/0a")).expect("made");
        std::fs::create_dir(at("disk")).expect("made");
        let names = ["snapshots/a", "packs/0a/b"];
        for name in names {
            local.put(name, b"content".as_slice().into()).expect("written");
            let moved = at("disk").join(&name[name.len() - 1..]);
            std::fs::rename(at("repository").join(name), &moved).expect("moved");
            std::os::unix::fs::symlink(moved, at("repository").join(name)).expect("made");
        }
        let sizes = |local: &Local| -> Vec<u64> {
            let listed = ["snapshots/", "packs/"].map(|folder| local.list(folder).expect("listed"));
            listed.iter().flatten().map(|object| object.size).collect()
        };
        let user = at("disk").metadata().expect("there").uid();
        for owner in [None, Some(FolderOwner { user, group: user })] {
            local.tree.owner = owner;
            assert_eq!(sizes(&local), [7, 7]);
            std::fs::rename(at("disk"), at("unmounted")).expect("moved");
            assert_eq!(sizes(&local), [0, 0]);
            for name in names {
                let whole = local.get(name, 9).map(drop);
                let range = local.get_range(name, 0, 1).map(drop);
                for read in [whole, range, local.stat(name).map(drop)] {
                    assert_eq!(read.map_err(|error| error.kind()), Err(Kind::Corrupt), "{name}");
                }
            }
            std::fs::rename(at("unmounted"), at("disk")).expect("moved");
        }
        // That of somebody else could be one that must not be read: the messages of the kernel, for instance.
        local.tree.owner = Some(FolderOwner { user: 4321, group: 4321 });
        assert_eq!(sizes(&local), [0, 0]);
        assert!(local.get("snapshots/a", 9).is_err_and(|error| error.is(Kind::Corrupt)));
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
        for name in ["packs/folder", "packs/loop/x", "packs/file/x", "packs/socket"] {
            let whole = local.get(name, 9).map(drop);
            let uncached = local.get_uncached(name, 9).map(drop);
            let range = local.get_range(name, 0, 1).map(drop);
            for read in [whole, uncached, range, local.stat(name).map(drop)] {
                assert_eq!(read.map_err(|error| error.kind()), Err(Kind::NotFound), "{name}");
            }
        }
        assert!(local.get("packs/loop", 9).is_err_and(|error| error.is(Kind::Corrupt)));
        assert_eq!(local.list("packs/").expect("listed").len(), 2);
        // A broken folder of the repository is an error, not a missing object.
        std::os::unix::fs::symlink("index", at("index")).expect("made");
        local.list("index/").map(drop).expect_err("it is a broken link");
        assert!(local.get("index/x", 9).is_err_and(|error| !error.is_damage()));
    }
}
