//! Apply metadata to an entry with as few system calls as the kernel allows.

use super::acl::owning_group_rights;
use super::flags::{set_flags, still_handed_down};
pub(crate) use super::loss::Loss;
use super::loss::unsafe_special;
use super::opened_up::open_own_file;
use super::owner::Owners;
use super::read_dir::Directory;
use super::refused::refused;
use super::stat::Stat;
pub(crate) use super::subject::{CurrentMetadata, MODE_UNKNOWN, Subject};
use crate::disk::subject::OwnerIds;
use crate::entry::{EntryKind, Metadata, Time};
use crate::error::{Error, Result};
use rustix::fd::AsFd;

/// The loss of an access ACL.
const LOST_ACL: &str = "attribute system.posix_acl_access";

/// What of the metadata is to be brought back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApplyOptions<'a> {
    /// User and group; without privilege it is mostly refused.
    pub owner: bool,
    /// By number even if this machine knows the name.
    pub numeric_ids: bool,
    /// The backup did not see attributes of the namespace `trusted`: those of what is there stay.
    pub lacks_trusted: bool,
    pub owners: &'a Owners,
}

/// Applies metadata to an inode in the only order that works: owner (clears setuid and capabilities), attributes (an ACL
/// sets the mode of a file; `user.*` takes the right to write), times, mode (until then it may be the mark of what is
/// unfinished). Flags, which may forbid all further changes, are left to [`apply_flags`]. The access time stays. `current` comes from the call that created
/// the inode, or from a stat; with None, this function stats it. Returns what could not be restored; such a loss does not
/// stop the rest.
pub(crate) fn apply_metadata(
    subject: Subject<'_>,
    current: Option<CurrentMetadata>,
    meta: &Metadata,
    kind: EntryKind,
    options: &ApplyOptions<'_>,
) -> Vec<Loss> {
    let mut losses = Vec::new();
    let mut current = match current.map_or_else(|| subject.stat().map(|stat| CurrentMetadata::from(&stat)), Ok) {
        Ok(current) => current,
        Err(error) => {
            losses.push(Loss { what: "metadata".to_owned(), error });
            return losses;
        }
    };
    let mut lose = |what: &str, error: Error| losses.push(Loss { what: what.to_owned(), error });
    if current.inherited_flags != 0 {
        lose("flags", still_handed_down(current.inherited_flags));
    }
    let wanted = wanted_owner(meta, options);
    if options.owner {
        let (uid, gid) = wanted;
        subject.apply_owner(&mut current, OwnerIds { uid, gid }, kind, &mut lose);
    }
    let mut mode = meta.mode & 0o7777;
    let unsafe_bits = unsafe_bits((current.uid, current.gid), wanted, kind);
    if mode & unsafe_bits != 0 {
        let Loss { what, error } = unsafe_special(mode & unsafe_bits);
        mode &= !unsafe_bits;
        lose(&what, error);
    }
    if kind != EntryKind::Symlink {
        subject.open_to_attributes(&mut current, meta, kind, options.lacks_trusted);
    }
    let mut is_acl_lost = false;
    let mut lose_attribute = |what: &str, error: Error| {
        is_acl_lost |= what == LOST_ACL;
        lose(what, error);
    };
    if subject.apply_xattrs(&current, meta, kind, options.lacks_trusted, &mut lose_attribute) {
        current.mode = MODE_UNKNOWN;
    }
    if let Some(rights) = meta.xattrs.iter().find_map(owning_group_rights).filter(|_| is_acl_lost) {
        // Beside an ACL, these bits of the mode are what it grants at most; without it, they are the rights of the group.
        mode &= !0o070 | rights << 3;
    }
    subject.apply_time(current.modified, meta.modified, &mut lose);
    // It may be what marked the inode as unfinished: all else comes before.
    if kind != EntryKind::Symlink && current.mode != mode {
        subject.apply_mode(mode, &mut lose);
    }
    losses
}

/// The special bits that must not be set for this owner: a setuid file runs with the rights of its owner, so on another
/// user's file the bit would be a security hole.
pub(crate) fn unsafe_bits(owner: (u32, u32), wanted: (u32, u32), kind: EntryKind) -> u32 {
    match kind {
        EntryKind::File => (u32::from(owner.0 != wanted.0) * 0o4000) | (u32::from(owner.1 != wanted.1) * 0o2000),
        _ => 0,
    }
}

/// Sets the flags of an inode, which may forbid every further change: hard links and renames come before it.
pub(crate) fn apply_flags(subject: Subject<'_>, meta: &Metadata, kind: EntryKind) -> Option<Loss> {
    if meta.flags == 0 || !matches!(kind, EntryKind::File | EntryKind::Directory) {
        return None;
    }
    let set = match subject {
        Subject::Open(fd) => set_flags(fd, meta.flags),
        Subject::Named(directory, name) => open_own_file(directory, name).and_then(|fd| set_flags(&fd, meta.flags)),
    };
    set.err().map(|error| Loss { what: "flags".to_owned(), error })
}

/// Changes the mode of a name in a directory, never of what a link points to.
pub(crate) fn chmod_at(directory: &Directory, name: &[u8], mode: u32) -> Result<()> {
    Subject::Named(directory, name).chmod(mode).map_err(|errno| refused("change the mode", name, errno))
}

/// Sets the owner and the mode that a name had before, as far as the system allows.
pub(crate) fn restore_owner_and_mode(directory: &Directory, name: &[u8], before: &Stat) {
    let subject = Subject::Named(directory, name);
    let _as_far_as_possible = subject.chown(Some(before.uid), Some(before.gid));
    let _as_far_as_possible = subject.chmod(before.permissions());
}

/// Changes the mode of an open file or directory.
pub(crate) fn chmod_open(fd: impl AsFd, mode: u32) -> Result<()> {
    Subject::Open(fd.as_fd()).chmod(mode).map_err(|errno| refused("change the mode", b"", errno))
}

/// Sets the time of the last modification of an open file or directory.
pub(crate) fn set_time(fd: impl AsFd, time: Time) -> Result<()> {
    Subject::Open(fd.as_fd()).set_modified(time).map_err(|errno| refused("set the time", b"", errno))
}

/// Whether an inode has the metadata already, but for its flags.
pub(crate) fn is_as_saved(subject: Subject<'_>, stat: &Stat, meta: &Metadata, options: &ApplyOptions<'_>) -> bool {
    has_owner_and_mode(stat, meta, options)
        && stat.modified == meta.modified
        && subject.has_attributes(meta, options.lacks_trusted)
}

/// Whether an inode has the owner and the mode already, as far as its stat tells.
pub(crate) fn has_owner_and_mode(stat: &Stat, meta: &Metadata, options: &ApplyOptions<'_>) -> bool {
    let has_owner = !options.owner || (stat.uid, stat.gid) == wanted_owner(meta, options);
    has_owner && stat.has_mode(meta.mode)
}

/// The owner by name if this machine knows it, else by number.
#[inline]
pub(crate) fn wanted_owner(meta: &Metadata, options: &ApplyOptions<'_>) -> (u32, u32) {
    if options.numeric_ids || !options.owner {
        return (meta.uid, meta.gid);
    }
    // The same number on both sides needs no search: the usual case, a restore on the same machine.
    let uid = if options.owners.user_name(meta.uid) == meta.user || meta.user.is_empty() {
        meta.uid
    } else {
        options.owners.uid(&meta.user).unwrap_or(meta.uid)
    };
    let gid = if options.owners.group_name(meta.gid) == meta.group || meta.group.is_empty() {
        meta.gid
    } else {
        options.owners.gid(&meta.group).unwrap_or(meta.gid)
    };
    (uid, gid)
}
