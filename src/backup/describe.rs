//! Describe entries: metadata, owners by name, extended attributes, flags, targets of links.

use crate::backup::detect;
use crate::backup::folder::SourceFolder;
use crate::disk::acl::without_hidden;
use crate::disk::device::{FileSystemKind, FileSystems};
use crate::disk::mounts::IdmappedMounts;
use crate::disk::xattr::FoundXattrs;
use crate::disk::{Directory, Owners, Stat, flags, open, rights};
use crate::entry::{Entry, EntryKind, Metadata, PATH_BYTES_MAX, Xattr};
use crate::error::{Error, Kind, Result};
use crate::watch::Ledger;
use rustix::fd::OwnedFd;
use std::cell::Cell;
use std::ffi::CStr;

/// Extended attributes of one entry may take this many bytes.
const XATTR_BYTES_MAX: usize = 1 << 20;

/// Reports what goes wrong with one entry, and remembers whether anything did: the next backup then examines the entry again,
/// so that the next snapshot does not repeat the gap without a warning.
pub(super) struct EntryWarnings<'c> {
    ledger: &'c Ledger<'c>,
    path: &'c dyn Fn() -> Vec<u8>,
    has_warned: Cell<bool>,
    must_repeat: Cell<bool>,
}

impl<'c> EntryWarnings<'c> {
    pub(crate) fn new(ledger: &'c Ledger<'c>, path: &'c dyn Fn() -> Vec<u8>) -> Self {
        EntryWarnings { ledger, path, has_warned: Cell::new(false), must_repeat: Cell::new(false) }
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        (self.path)()
    }

    pub(crate) fn warn(&self, what: impl Into<String>) {
        self.has_warned.set(true);
        self.ledger.warn(&self.path(), what);
    }

    /// As [`Ledger::source_error`].
    pub(crate) fn source_error(&self, before: &str, error: Error) {
        self.has_warned.set(true);
        self.ledger.source_error(&self.path(), before, error);
    }

    pub(crate) fn has_warned(&self) -> bool {
        self.has_warned.get()
    }

    pub(crate) fn must_repeat(&self) -> bool {
        self.must_repeat.get()
    }
}

pub(super) struct Describer<'a> {
    owners: Owners,
    mounts: &'a FileSystems,
    idmapped: IdmappedMounts,
    ledger: &'a Ledger<'a>,
}

impl<'a> Describer<'a> {
    pub(crate) fn new(mounts: &'a FileSystems, ledger: &'a Ledger<'a>) -> Result<Self> {
        Ok(Describer { owners: Owners::load()?, mounts, idmapped: IdmappedMounts::default(), ledger })
    }

    /// Users and groups by name, as they are in this run.
    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether one of these is on a mount that shows other owners than its file system has. The local state does not know which ones it
    /// showed before.
    pub(crate) fn has_idmapped<'s>(&self, mut stats: impl Iterator<Item = &'s Stat>) -> bool {
        let mut last = 0;
        stats.any(|stat| std::mem::replace(&mut last, stat.mount) != stat.mount && self.idmapped.contains(stat.mount))
    }

    /// Warns about an owner that this process cannot see. Each backup warns again; what was saved of the content stays trusted.
    pub(crate) fn check_owner(&self, stat: &Stat, warnings: &EntryWarnings) {
        let is_idmapped = || self.idmapped.contains(stat.mount);
        if let Some(what) = rights::unseen_owner(stat.uid, stat.gid, is_idmapped) {
            warnings.must_repeat.set(true);
            self.ledger.warn(&warnings.path(), what);
        }
    }

    /// An entry of before whose inode has not changed. What is not a part of the inode is as it is now: what its owner is called,
    /// and which other names it has.
    pub(crate) fn kept(&self, old: &Entry, stat: &Stat) -> Entry {
        let mut entry = Entry { link_group: detect::link_group(stat), ..old.clone() };
        entry.meta.user = self.owners.user_name(stat.uid).to_owned();
        entry.meta.group = self.owners.group_name(stat.gid).to_owned();
        entry
    }

    fn metadata(&self, stat: &Stat) -> Metadata {
        Metadata {
            user: self.owners.user_name(stat.uid).to_owned(),
            group: self.owners.group_name(stat.gid).to_owned(),
            ..stat.metadata()
        }
    }

    /// Sets the metadata of a file that is open.
    pub(crate) fn open_file(&self, entry: &mut Entry, fd: &OwnedFd, stat: &Stat, warnings: &EntryWarnings) {
        entry.meta = self.metadata(stat);
        take_xattrs(&mut entry.meta, FoundXattrs::of(fd), warnings);
        entry.meta.flags = known_flags(flags::read_flags(fd), warnings);
        entry.link_group = detect::link_group(stat);
    }

    /// A file whose content is known to be that of `old`.
    pub(crate) fn unchanged_file(
        &self,
        folder: &SourceFolder,
        name: &CStr,
        stat: &Stat,
        old: &Entry,
        warnings: &EntryWarnings,
    ) -> Entry {
        let mut entry = Entry {
            content: old.content.clone(),
            holes: old.holes.clone(),
            size: old.size,
            ..Entry::new(name.to_bytes(), old.kind)
        };
        match folder.directory().and_then(|directory| open::open_file(&directory, name)) {
            Ok(fd) => self.open_file(&mut entry, &fd, stat, warnings),
            Err(error) => {
                entry.meta = self.metadata(stat);
                entry.link_group = detect::link_group(stat);
                entry.meta.lacks_xattrs = true;
                warnings.source_error("its extended attributes are missing: ", error);
            }
        }
        entry
    }

    /// Directories (without their tree), links, devices and FIFOs. `None` if the entry cannot be saved, with a warning.
    pub(crate) fn special(
        &self,
        folder: &SourceFolder,
        name: &CStr,
        stat: &Stat,
        warnings: &EntryWarnings,
    ) -> Option<Entry> {
        let kind = stat.kind?;
        let directory = match folder.directory() {
            Ok(directory) => directory,
            Err(error) => {
                warnings.source_error("", error);
                return None;
            }
        };
        let mut entry = Entry::new(name.to_bytes(), kind);
        entry.meta = self.metadata(stat);
        take_xattrs(&mut entry.meta, FoundXattrs::of_name(&directory, name), warnings);
        match kind {
            EntryKind::Symlink => match open::read_link(&directory, name) {
                // FUSE may return a longer one where memory pages are large.
                Ok(target) if target.len() > PATH_BYTES_MAX => {
                    warnings.warn(format!("its target is longer than {PATH_BYTES_MAX} bytes"));
                    return None;
                }
                Ok(target) => entry.target = target,
                Err(error) => {
                    warnings.source_error("", error);
                    return None;
                }
            },
            EntryKind::BlockDevice | EntryKind::CharDevice => entry.device = stat.special,
            EntryKind::Directory => {
                // Opening one that is mounted when it is needed would mount it.
                let crosses = stat.device != folder.place.here;
                let file_system =
                    if crosses { self.mounts.kind_of(&warnings.path(), stat.device) } else { folder.place.file_system };
                let is_pseudo = crosses && file_system == FileSystemKind::Pseudo;
                if !stat.is_automounted && !is_pseudo && file_system != FileSystemKind::Automounter {
                    match directory.open_child(name) {
                        Ok(handle) => entry.meta.flags = known_flags(flags::read_flags(&handle), warnings),
                        Err(error) if error.is(Kind::Full) => self.ledger.fail_at(&warnings.path(), error),
                        // The walk warns about a directory that cannot be read.
                        Err(_) => {}
                    }
                }
            }
            _ => {}
        }
        entry.link_group = detect::link_group(stat);
        Some(entry)
    }

    /// A source itself, by its path.
    pub(crate) fn source(&self, path: &[u8], stat: &Stat) -> Entry {
        self.check_owner(stat, &EntryWarnings::new(self.ledger, &|| path.to_vec()));
        self.path(path, stat)
    }

    /// A source itself, a directory above one, or one that is not entered, by its path. Its owner may be hidden: above what belongs to the
    /// user of a user namespace, it always is.
    pub(crate) fn path(&self, path: &[u8], stat: &Stat) -> Entry {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let kind = stat.kind.unwrap_or(EntryKind::Directory);
        let mut entry = Entry::new(name, kind);
        entry.meta = self.metadata(stat);
        match Directory::open_path(path) {
            Ok(handle) => {
                let owned = || path.to_vec();
                let warnings = EntryWarnings::new(self.ledger, &owned);
                take_xattrs(&mut entry.meta, FoundXattrs::of(&handle), &warnings);
                entry.meta.flags = known_flags(flags::read_flags(&handle), &warnings);
            }
            Err(error) if error.is(Kind::Full) => self.ledger.fail_at(path, error),
            // Directories above a source need not be readable. The walk warns about a source.
            Err(_) => {
                let owned = || path.to_vec();
                let found = FoundXattrs { failure: None, ..FoundXattrs::of_path(path) };
                take_xattrs(&mut entry.meta, found, &EntryWarnings::new(self.ledger, &owned));
            }
        }
        entry
    }
}

/// Flags. If they cannot be read: none, with a warning.
fn known_flags(read: Result<u32>, warnings: &EntryWarnings) -> u32 {
    read.unwrap_or_else(|error| {
        warnings.source_error("its flags (chattr) are missing: ", error);
        0
    })
}

/// Stores the extended attributes that were found in `meta`. Warns if some cannot be read, if they do not all fit into a page of a tree, or
/// if the kernel hides users or groups that an ACL names.
fn take_xattrs(meta: &mut Metadata, found: FoundXattrs, warnings: &EntryWarnings) {
    let FoundXattrs { mut xattrs, lacks_some, failure } = found;
    meta.lacks_xattrs = lacks_some;
    if let Some(error) = failure {
        let some = if xattrs.is_empty() { "" } else { "some of " };
        warnings.source_error(&format!("{some}its extended attributes are missing: "), error);
    }
    let bytes_of = |xattr: &Xattr| xattr.name.len() + xattr.value.len();
    let bytes: usize = xattrs.iter().map(bytes_of).sum();
    if bytes > XATTR_BYTES_MAX {
        meta.lacks_xattrs = true;
        // What decides about rights comes first.
        let mut left = XATTR_BYTES_MAX;
        for is_of_user in [false, true] {
            xattrs.retain(|xattr| {
                if xattr.name.starts_with(b"user.") != is_of_user {
                    return true;
                }
                let fits = bytes_of(xattr) <= left;
                left -= if fits { bytes_of(xattr) } else { 0 };
                fits
            });
        }
        let why = format!("they have {bytes} bytes; at most {XATTR_BYTES_MAX} can be saved");
        warnings.warn(format!("some of its extended attributes are missing: {why}"));
    }
    let mut hides_names = false;
    for xattr in &mut xattrs {
        if let Some(rest) = without_hidden(xattr) {
            *xattr = rest;
            hides_names = true;
        }
    }
    if hides_names {
        meta.lacks_xattrs = true;
        let why = "this user namespace, or the idmapped mount, has no number for them";
        warnings.warn(format!("its ACL is saved without some users or groups that it names: {why}"));
    }
    meta.xattrs = xattrs;
}
