//! Objects as files of a tree: written whole under a temporary name, synced, then renamed.
//!
//! This is the family of storages that have directories and renames: directories of this machine, and servers that serve some. A
//! storage of the family implements [`FileTree`], and [`Files`] does the rest.

use crate::error::{Error, Kind, Result};
use crate::storage::{
    Capabilities, ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage, StorageProfile, check_name,
};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where unfinished writes are; never listed.
pub(super) const UNFINISHED: &str = ".tmp";
/// Unfinished writes of this age were left by a crash.
pub(super) const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A tree of files. Paths are relative to its root, with `/` between names. Errors are those of [`Storage`]: `NotFound` also if
/// something other than a file is at the path, or something other than a directory above it.
pub(super) trait FileTree: Send + Sync {
    /// The location for people, without secrets.
    fn describe(&self) -> String;

    /// As [`Storage::identity`].
    fn identity(&self) -> String {
        self.describe()
    }

    /// As [`Storage::local_path`].
    fn local_path(&self) -> Option<&Path> {
        None
    }

    fn profile(&self) -> StorageProfile;

    /// Creates a file, and the directory that it is in if that is missing. The file is whole and durable once this returns.
    fn create(&self, path: &str, body: &ObjectBody) -> Result<()>;

    /// Moves an unfinished file to its place in one step, and makes the directory that it goes to if that is missing. Without
    /// `replace`, `AlreadyExists` if something is there. The new name is durable once this returns.
    fn place(&self, unfinished: &str, to: &str, replace: bool) -> Result<()>;

    /// Moves a file in one step, and makes the directory that it goes to if that is missing. `NotFound` if there is none,
    /// `AlreadyExists` if something is at `to`. Both names are durable once this returns.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Removes a file. It is not an error if there is none.
    fn remove(&self, path: &str) -> Result<()>;

    /// Reads a whole file. Refuses (`Corrupt`) more than `bytes_max` bytes. `uncached` asks for what the medium holds, not a copy in
    /// memory.
    fn read(&self, path: &str, bytes_max: u64, uncached: bool) -> Result<(Vec<u8>, ObjectVersion)>;

    /// Reads exactly `length` bytes from `offset`; `Corrupt` if there are fewer.
    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Vec<u8>>;

    /// What is in a directory; empty if there is none. Names that begin with a dot may be left out.
    fn list(&self, folder: &str) -> Result<Vec<TreeEntry>>;

    fn stat(&self, path: &str) -> Result<ObjectStat>;

    /// Removes unfinished files in `folder` that are older than `age`, by the time of `newest`, which was written just now. Best
    /// effort: what cannot be removed now is tried next time.
    fn remove_abandoned(&self, folder: &str, newest: &str, age: Duration);
}

/// Something in a directory.
pub(super) struct TreeEntry {
    pub name: String,
    pub kind: TreeEntryKind,
}

pub(super) enum TreeEntryKind {
    /// Its size in bytes.
    File(u64),
    Directory,
}

/// A storage over a tree of files.
pub struct Files<T> {
    pub(super) tree: T,
    serial: AtomicU64,
    /// Whether what killed writers left was looked for.
    is_swept: AtomicBool,
}

impl<T> Files<T> {
    pub(super) fn new(tree: T) -> Self {
        Files { tree, serial: AtomicU64::new(0), is_swept: AtomicBool::new(false) }
    }
}

#[expect(private_bounds, reason = "the trees are those of this room")]
impl<T: FileTree> Files<T> {
    /// Writes a file under a temporary name, and moves it to its place.
    fn write(&self, name: &str, body: &ObjectBody, replace: bool) -> Result<()> {
        check_name(name)?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{UNFINISHED}/{}", unfinished_name(serial));
        self.tree.create(&unfinished, body)?;
        // Only a command that writes removes what others left, once, and by the clock of the tree: this machine's may be wrong.
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            self.tree.remove_abandoned(UNFINISHED, &unfinished, ABANDONED);
        }
        self.tree.place(&unfinished, name, replace).inspect_err(|_| {
            // What stays is swept away later.
            let _best_effort = self.tree.remove(&unfinished);
        })
    }
}

/// The name of an unfinished file, which no other process uses.
fn unfinished_name(serial: u64) -> String {
    let unique = RandomState::new().hash_one(0);
    format!("{}-{serial}-{unique:x}", std::process::id())
}

/// Whether a name is one that [`Files`] uses for unfinished files.
pub(super) fn is_unfinished_name(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'-');
    let mut has_next =
        |is_valid: fn(&u8) -> bool| parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(is_valid));
    let is_whole = has_next(u8::is_ascii_digit) && has_next(u8::is_ascii_digit) && has_next(u8::is_ascii_hexdigit);
    is_whole && parts.next().is_none()
}

impl<T: FileTree> Storage for Files<T> {
    fn describe(&self) -> String {
        self.tree.describe()
    }

    fn identity(&self) -> String {
        self.tree.identity()
    }

    fn local_path(&self) -> Option<&Path> {
        self.tree.local_path()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { put_new: true, compare_and_swap: false, rename: true }
    }

    fn profile(&self) -> StorageProfile {
        self.tree.profile()
    }

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.write(name, &body, true)
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.write(name, &body, false)?;
        self.stat(name).map(|stat| stat.version)
    }

    fn compare_and_swap(&self, name: &str, _expected: &ObjectVersion, _body: ObjectBody) -> Result<ObjectVersion> {
        Err(Error::new(Kind::Unsupported, "conditionally replace", name).because("directories do not support that"))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.tree.rename(from, to)
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        check_name(name)?;
        self.tree.read(name, bytes_max, false)
    }

    fn get_uncached(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        check_name(name)?;
        self.tree.read(name, bytes_max, true)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        check_name(name)?;
        self.tree.read_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let (mut listed, mut folders) = (Vec::new(), vec![prefix.trim_end_matches('/').to_owned()]);
        while let Some(folder) = folders.pop() {
            for TreeEntry { name, kind } in self.tree.list(&folder)? {
                // Leftovers of unfinished writes, and what other programs keep in a directory.
                if name.starts_with('.') {
                    continue;
                }
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                match kind {
                    TreeEntryKind::Directory => folders.push(path),
                    TreeEntryKind::File(size) if check_name(&path).is_ok() => {
                        listed.push(ListedObject { name: path, size, fingerprint: 0 })
                    }
                    TreeEntryKind::File(_) => {}
                }
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.tree.remove(name)
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        check_name(name)?;
        self.tree.stat(name)
    }
}
