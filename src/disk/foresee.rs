//! Predict which metadata of an entry cannot be restored, as far as that is known in advance: a plan reports it.

use super::apply::{ApplyOptions, Loss, Subject, unsafe_bits, wanted_owner};
use super::loss::{setgid_dropped, unsafe_special};
use super::read_dir::Directory;
use super::stat::Stat;
use super::{flags, rights};
use crate::entry::{EntryKind, Metadata};
use crate::error::{Error, Kind};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid};
use std::sync::LazyLock;

/// Predicts the losses of an entry that is still to be created. `group` is the group that its directory hands down, if any.
pub(crate) fn foresee_new(
    meta: &Metadata,
    kind: EntryKind,
    group: Option<u32>,
    options: &ApplyOptions<'_>,
) -> Vec<Loss> {
    let mut foreseen = Foreseen::default();
    if rights::is_unlimited() && options.owner {
        return foreseen.0;
    }
    let owner = (geteuid().as_raw(), group.unwrap_or_else(|| getegid().as_raw()));
    let owner = foreseen.owner(owner, meta, options);
    foreseen.mode(owner, meta, kind, options);
    if !rights::owns(owner.0, owner.1) {
        foreseen.given_away(true, kind != EntryKind::Symlink);
    }
    foreseen.attributes(meta);
    foreseen.flags(meta, kind);
    foreseen.0
}

/// Predicts the losses of an existing entry that gets the metadata that it lacks.
pub(crate) fn foresee(
    subject: Subject<'_>,
    stat: &Stat,
    meta: &Metadata,
    kind: EntryKind,
    options: &ApplyOptions<'_>,
) -> Vec<Loss> {
    let mut foreseen = Foreseen::default();
    if rights::is_unlimited() && options.owner {
        return foreseen.0;
    }
    let before = (stat.uid, stat.gid);
    let owner = foreseen.owner(before, meta, options);
    let has_mode = stat.has_mode(meta.mode);
    // A file of another owner loses its special bits.
    if !has_mode || (kind == EntryKind::File && before != wanted_owner(meta, options)) {
        foreseen.mode(owner, meta, kind, options);
    }
    if owner != before && !rights::owns(owner.0, owner.1) {
        foreseen.given_away(stat.modified != meta.modified, !has_mode);
    }
    // The attributes are read only where they may be refused.
    let is_own = rights::owns(stat.uid, stat.gid);
    let may_lack = !is_own || meta.xattrs.iter().any(|one| !rights::may_set_attribute(one));
    if may_lack && !subject.has_attributes(meta, options.lacks_trusted) {
        match subject {
            Subject::Open(fd) if !is_own && !may_write(fd) => {
                foreseen.refused("attributes", "change the attributes", "it belongs to another user");
            }
            _ => foreseen.attributes(meta),
        }
    }
    if let Subject::Open(fd) = subject
        && flags::lacks(fd, meta.flags)
    {
        if is_own {
            foreseen.flags(meta, kind)
        } else {
            foreseen.refused("flags", "set the flags", "it belongs to another user")
        }
    }
    foreseen.0
}

/// Whether the system lets this user link no other name to a file of another user (`fs.protected_hardlinks`, see proc(5)): it
/// must be a regular file without a setuid or setgid bit that this user may read and write.
pub(crate) fn is_protected_from_links(directory: &Directory, name: &[u8], stat: &Stat) -> bool {
    static IS_ON: LazyLock<bool> = LazyLock::new(|| {
        std::fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|value| value.trim_ascii() == b"1")
    });
    if rights::owns(stat.uid, stat.gid) || !*IS_ON {
        return false;
    }
    let is_plain = stat.is(EntryKind::File) && stat.mode & 0o4000 == 0 && stat.mode & 0o2010 != 0o2010;
    !is_plain || accessat(directory, name, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).is_err()
}

fn may_write(fd: BorrowedFd<'_>) -> bool {
    accessat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

const GIVEN_AWAY: &str = "it then belongs to another user, and this user may not change entries of other users";

/// The losses predicted so far.
#[derive(Default)]
struct Foreseen(Vec<Loss>);

impl Foreseen {
    fn refused(&mut self, what: &str, doing: &str, why: &str) {
        self.0.push(Loss { what: what.to_owned(), error: Error::new(Kind::Denied, doing, "").because(why) });
    }

    /// Returns the owner that it will have.
    fn owner(&mut self, now: (u32, u32), meta: &Metadata, options: &ApplyOptions<'_>) -> (u32, u32) {
        let wanted = wanted_owner(meta, options);
        if !options.owner || now == wanted || rights::may_give(now, wanted) {
            return if options.owner { wanted } else { now };
        }
        self.refused(
            "owner",
            "change the owner",
            "this user may not do that, or this user namespace does not know the owner",
        );
        if rights::may_give(now, (now.0, wanted.1)) { (now.0, wanted.1) } else { now }
    }

    /// What is refused after the owner has changed, because the entry then belongs to another user.
    fn given_away(&mut self, has_time: bool, has_mode: bool) {
        if has_time {
            self.refused("modification time", "set the modification time", GIVEN_AWAY);
        }
        if has_mode {
            self.refused("mode", "change the mode", GIVEN_AWAY);
        }
    }

    fn mode(&mut self, owner: (u32, u32), meta: &Metadata, kind: EntryKind, options: &ApplyOptions<'_>) {
        let dropped = meta.mode & unsafe_bits(owner, wanted_owner(meta, options), kind);
        if dropped != 0 {
            self.0.push(unsafe_special(dropped));
        }
        let keeps_setgid = kind == EntryKind::Symlink || rights::keeps_setgid(owner.0, owner.1);
        if meta.mode & !dropped & 0o2000 != 0 && !keeps_setgid {
            self.0.push(setgid_dropped(b""));
        }
    }

    fn attributes(&mut self, meta: &Metadata) {
        for one in meta.xattrs.iter().filter(|one| !rights::may_set_attribute(one)) {
            let name = String::from_utf8_lossy(&one.name);
            self.refused(&format!("attribute {name}"), "set the attribute", "this user may not set such attributes");
        }
    }

    fn flags(&mut self, meta: &Metadata, kind: EntryKind) {
        let has_some = matches!(kind, EntryKind::File | EntryKind::Directory) && flags::has_locking(meta.flags);
        if has_some && !rights::may_lock_files() {
            self.refused("flags", "set the flags", "this user may not make anything immutable or append-only");
        }
    }
}
