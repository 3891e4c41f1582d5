//! What tells this machine and its sources from others of the same name: without local state, a file counts as unchanged by its size
//! and modification time, which only means something if the last snapshot was made of these very directories.

use crate::disk::device::may_show_other_content;
use crate::disk::{Stat, stat_path};
use crate::entry::{EntryKind, Time};
use rustix::fs::statvfs;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where systemd, or else D-Bus, keeps a number that is drawn at random when a system is installed.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A hash over the machine and the directories that the sources are, or are in; none where a file system does not say when a directory
/// was made (the inode numbers of roots are the same on all disks, so any disk that is mounted there would pass), or where a directory
/// does not tell what is in it (overlays, FUSE).
pub(super) struct SourceIdentity {
    hash: Option<blake3::Hash>,
    /// The directories of the sources as they were then: one may be mounted over before the walk comes to it.
    directories: HashMap<PathBuf, Stat>,
    has_changed: AtomicBool,
}

impl SourceIdentity {
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let machine = MACHINE_IDS.into_iter().find_map(machine_id);
        SourceIdentity::on(machine.as_deref(), paths)
    }

    /// Many containers have no number. Those on one host then differ by the numbers of their file systems, which change more often.
    fn on(machine: Option<&str>, paths: &[PathBuf]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(machine.unwrap_or_default().as_bytes());
        let mut found = SourceIdentity { hash: None, directories: HashMap::new(), has_changed: AtomicBool::new(false) };
        let mut above = None;
        for path in paths {
            let Some(numbers) = numbers_of_source(path, machine.is_none(), &mut above) else { return found };
            for number in numbers.directory.into_iter().chain(numbers.file) {
                hasher.update(&number.to_le_bytes());
            }
            let directory = if numbers.is_file { path.parent().unwrap_or(path) } else { path };
            if !found.directories.contains_key(directory) {
                found.directories.insert(directory.to_owned(), numbers.stat);
            }
        }
        found.hash = Some(hasher.finalize());
        found
    }

    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        self.hash.as_ref().map(|hash| hash.as_bytes().as_slice())
    }

    /// Returns true if what was opened at the path of a source is another directory than the identity is of, and remembers that.
    pub(crate) fn note_if_exchanged(&self, path: &[u8], opened: &Stat) -> bool {
        let then = self.directories.get(Path::new(OsStr::from_bytes(path)));
        let is_exchanged = then.is_some_and(|then| !is_same(then, opened));
        if is_exchanged {
            self.has_changed.store(true, Ordering::Relaxed);
        }
        is_exchanged
    }

    /// The identity, unless a source became another directory during the backup.
    pub(crate) fn if_unchanged(&self) -> Option<&[u8]> {
        let is_there = |(path, then): (&PathBuf, &Stat)| stat_of_directory(path).is_some_and(|now| is_same(then, &now));
        let has_changed = self.has_changed.load(Ordering::Relaxed) || !self.directories.iter().all(is_there);
        self.as_bytes().filter(|_| !has_changed)
    }
}

fn is_same(then: &Stat, now: &Stat) -> bool {
    then.identity() == now.identity() && then.mount == now.mount && then.born == now.born
}

/// What tells an inode from others that are at its path in turn: device, file system (`f_fsid`), inode, and when it was made.
type InodeNumbers = [u64; 5];

/// The numbers of the directory that a source is. Of a file they are those of the directory that it is in, as programs replace files as a
/// whole, and its own if it is mounted there.
struct SourceNumbers {
    stat: Stat,
    directory: InodeNumbers,
    /// Of the mounted file; those of the directory if none is mounted.
    file: InodeNumbers,
    is_file: bool,
}

/// `above` is the last directory that a file is in, as many sources are in one.
fn numbers_of_source(
    path: &Path,
    with_device: bool,
    above: &mut Option<(PathBuf, Stat, InodeNumbers)>,
) -> Option<SourceNumbers> {
    let stat = stat_of(path);
    if let Some(stat) = stat.filter(|stat| stat.is(EntryKind::Directory)) {
        let directory = numbers_of(path, &stat, with_device)?;
        return Some(SourceNumbers { stat, directory, file: directory, is_file: false });
    }
    let directory = path.parent()?;
    if above.as_ref().is_none_or(|(known, ..)| known != directory) {
        let found = stat_of_directory(directory)?;
        *above = Some((directory.to_owned(), found, numbers_of(directory, &found, with_device)?));
    }
    let (_, found, numbers) = above.as_ref()?;
    let is_mounted = |stat: &Stat| stat.device != found.device || stat.mount != found.mount;
    let file = match stat.filter(is_mounted) {
        Some(stat) => numbers_of(path, &stat, with_device)?,
        None => *numbers,
    };
    Some(SourceNumbers { stat: *found, directory: *numbers, file, is_file: true })
}

fn stat_of(path: &Path) -> Option<Stat> {
    stat_path(path.as_os_str().as_encoded_bytes(), false).ok()
}

/// What is at the path of a directory that is walked: a link on the way to a source is followed.
fn stat_of_directory(path: &Path) -> Option<Stat> {
    let stat = stat_path(path.as_os_str().as_encoded_bytes(), true).ok()?;
    stat.is(EntryKind::Directory).then_some(stat)
}

/// None where the file system does not say when an inode was made, or the inode does not tell what is in it.
fn numbers_of(path: &Path, stat: &Stat, with_device: bool) -> Option<InodeNumbers> {
    if stat.born == Time::default() || may_show_other_content(path) {
        return None;
    }
    let file_system = statvfs(path).ok()?.f_fsid;
    let device = if with_device { stat.device } else { 0 };
    Some([device, file_system, stat.inode, stat.born.seconds.cast_unsigned(), stat.born.nanoseconds.into()])
}

/// None where a system was installed and not yet started, too.
fn machine_id(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn another_machine_or_directory_has_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        let identity = |machine, path: &Path| SourceIdentity::on(machine, &[path.to_owned()]).hash;
        let here = identity(Some("1"), &a);
        if here.is_none() {
            // This file system does not record when a directory was made, or is an overlay.
            return;
        }
        assert_ne!(here, identity(Some("2"), &a));
        assert_ne!(here, identity(None, &a));
        assert_ne!(here, identity(Some("1"), &b));
        fs::write(a.join("f"), "").unwrap();
        assert_eq!(here, identity(Some("1"), &a));
        // A list of files is of the directory that they are in, also when one is replaced or gone.
        assert_eq!(here, identity(Some("1"), &a.join("f")));
        assert_eq!(here, identity(Some("1"), &a.join("gone")));
        assert_eq!(None, identity(Some("1"), &a.join("no/where")));
        std::os::unix::fs::symlink(&a, folder.path().join("link")).unwrap();
        assert_eq!(here, identity(Some("1"), &folder.path().join("link/f")));
        // The directory is another one now.
        fs::rename(&a, folder.path().join("c")).unwrap();
        fs::rename(&b, &a).unwrap();
        assert_ne!(here, identity(Some("1"), &a));
    }
}
