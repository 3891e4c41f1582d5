//! Privileges of this process beyond those of owners: capabilities, which mostly root has, and the user namespace, in which they reach
//! only what belongs to users and groups that it knows.

use super::acl::acl_names_only;
use super::xattr::has_proc;
use crate::entry::Xattr;
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

static EFFECTIVE: LazyLock<CapabilitySet> = LazyLock::new(|| match capabilities(None) {
    Ok(sets) => sets.effective,
    // Where a sandbox forbids to ask, root is taken for root.
    Err(_) if geteuid().is_root() => CapabilitySet::all(),
    Err(_) => CapabilitySet::empty(),
});

static USERS: LazyLock<MappedIds> = LazyLock::new(|| MappedIds::read("/proc/self/uid_map"));
static GROUPS: LazyLock<MappedIds> = LazyLock::new(|| MappedIds::read("/proc/self/gid_map"));
static OVERFLOW_USER: LazyLock<u32> = LazyLock::new(|| overflow_number("/proc/sys/kernel/overflowuid"));
static OVERFLOW_GROUP: LazyLock<u32> = LazyLock::new(|| overflow_number("/proc/sys/kernel/overflowgid"));
static OWN_GROUPS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let others = getgroups().unwrap_or_default();
    others.into_iter().chain([getegid()]).map(|group| group.as_raw()).collect()
});

/// The number of the outermost user namespace (`PROC_USER_INIT_INO` in the kernel's include/linux/proc_ns.h).
const OUTERMOST_NAMESPACE: u64 = 0xefff_fffd;
/// What the kernel shows for owners without a number, unless it is told another one.
const OVERFLOW_NUMBER: u32 = 65534;

/// The number that the kernel shows for all owners without a number. Containers may see no /proc/sys.
fn overflow_number(path: &str) -> u32 {
    let told = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    told.unwrap_or(OVERFLOW_NUMBER)
}

/// The numbers of users or groups that this user namespace knows. The kernel shows all others as one and the same number.
struct MappedIds(Vec<IdRange>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdRange {
    first: u32,
    /// The first one in the namespace around this one.
    outside: u32,
    count: u32,
}

impl MappedIds {
    /// All numbers, if the kernel does not show the map.
    fn read(path: &str) -> Self {
        let all = IdRange { first: 0, outside: 0, count: u32::MAX };
        std::fs::read_to_string(path).map_or(MappedIds(vec![all]), |text| MappedIds::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut fields = line.split_ascii_whitespace().map(|field| field.parse().ok());
            Some(IdRange { first: fields.next()??, outside: fields.next()??, count: fields.next()?? })
        };
        MappedIds(text.lines().filter_map(range).collect())
    }

    fn has(&self, number: u32) -> bool {
        self.0.iter().any(|range| number.checked_sub(range.first).is_some_and(|at| at < range.count))
    }

    /// Whether a number stands for all owners that the namespace does not know, and for nobody else: `overflow` is what the kernel
    /// shows for them.
    fn hides(&self, number: u32, overflow: u32) -> bool {
        number == overflow && !self.is_whole() && !self.has(number)
    }

    fn is_whole(&self) -> bool {
        self.0.iter().any(|range| range.first == 0 && range.count == u32::MAX)
    }

    fn may_be_root(&self, number: u32) -> bool {
        number == 0 || !(self.has(number) || self.0.iter().any(|range| range.outside == 0))
    }
}

/// Says which part of the owner of a file the kernel hides from this process, as its user namespace has no number for it, or may hide as
/// the mount has none. `is_idmapped`: whether the file is on an idmapped mount.
pub(crate) fn unseen_owner(uid: u32, gid: u32, is_idmapped: impl FnOnce() -> bool) -> Option<String> {
    let saved = |user: bool, group: bool| match (user, group) {
        (true, true) => Some(format!("its user and group are saved as {uid} and {gid}")),
        (true, false) => Some(format!("its user is saved as {uid}")),
        (false, true) => Some(format!("its group is saved as {gid}")),
        (false, false) => None,
    };
    if let Some(saved) = saved(USERS.hides(uid, *OVERFLOW_USER), GROUPS.hides(gid, *OVERFLOW_GROUP)) {
        return Some(format!("{saved}: this user namespace has no number for the owner that it has"));
    }
    let saved = saved(uid == *OVERFLOW_USER, gid == *OVERFLOW_GROUP)?;
    is_idmapped()
        .then(|| format!("{saved}: on an idmapped mount this can stand for any owner that the mount has no number for"))
}

/// Names what of the metadata of files the kernel shows to this process. What was saved under another view may lack
/// attributes, or name other owners, though the files have not changed.
pub(crate) fn view() -> String {
    let ranges = |ids: &MappedIds| {
        let range = |range: &IdRange| format!("{}:{}:{}", range.first, range.outside, range.count);
        ids.0.iter().map(range).collect::<Vec<_>>().join(",")
    };
    let sees_trusted = sees_trusted();
    if !has_proc() {
        // Nor is it known then which user namespace this is.
        return format!("without /proc {sees_trusted}");
    }
    format!("{} {} {sees_trusted}", ranges(&USERS), ranges(&GROUPS))
}

/// Whether this process sees attributes of the namespace `trusted`: they are shown only to processes with `CAP_SYS_ADMIN` outside of all user
/// namespaces (xattr(7)).
pub(crate) fn sees_trusted() -> bool {
    EFFECTIVE.contains(CapabilitySet::SYS_ADMIN) && is_outermost()
}

/// Says what no process sees where /proc is not mounted.
pub(crate) fn hidden_without_proc() -> Option<&'static str> {
    (!has_proc()).then_some(
        "/proc is not mounted: extended attributes and ACLs of symbolic links, FIFOs and devices are not saved, nor is it noticed \
         if this user namespace has no number for an owner",
    )
}

/// Whether this process may do to something of this owner what only its owner may (`CAP_FOWNER`): change its
/// mode and its time, and delete it in a sticky directory.
pub(crate) fn owns(uid: u32, gid: u32) -> bool {
    uid == geteuid().as_raw() || reaches(CapabilitySet::FOWNER, uid, gid)
}

/// Whether an owner of this number may be root. In a user namespace that does not know the root outside it, root has the number of all
/// that are not known.
pub(super) fn may_be_root(uid: u32) -> bool {
    USERS.may_be_root(uid)
}

/// Whether a mode closes nothing to this process (`CAP_DAC_OVERRIDE`).
pub(crate) fn opens_everything() -> bool {
    EFFECTIVE.contains(CapabilitySet::DAC_OVERRIDE)
}

/// Whether this process may make files immutable and append-only, and change them back (`CAP_LINUX_IMMUTABLE`).
pub(crate) fn may_lock_files() -> bool {
    EFFECTIVE.contains(CapabilitySet::LINUX_IMMUTABLE) && is_outermost()
}

/// Whether this process may create devices (`CAP_MKNOD`).
pub(crate) fn may_make_devices() -> bool {
    EFFECTIVE.contains(CapabilitySet::MKNOD) && is_outermost()
}

/// Whether this process may set an attribute on what is its own.
pub(super) fn may_set_attribute(one: &Xattr) -> bool {
    let name = one.name.as_slice();
    match name {
        b"security.capability" => EFFECTIVE.contains(CapabilitySet::SETFCAP),
        // Whether the label may be set only SELinux knows.
        b"security.selinux" => true,
        _ if name.starts_with(b"trusted.") || name.starts_with(b"security.") => {
            EFFECTIVE.contains(CapabilitySet::SYS_ADMIN) && is_outermost()
        }
        _ if name.starts_with(b"system.") => acl_names_only(one, |user| USERS.has(user), |group| GROUPS.has(group)),
        _ => true,
    }
}

/// Whether this process may give something of this owner (user and group) to another one.
pub(super) fn may_give(from: (u32, u32), to: (u32, u32)) -> bool {
    let is_known = USERS.has(to.0) && GROUPS.has(to.1);
    // An owner may give it to a group that the user is in.
    let is_own = from.0 == to.0 && from.0 == geteuid().as_raw() && OWN_GROUPS.contains(&to.1);
    is_known && (is_own || reaches(CapabilitySet::CHOWN, from.0, from.1))
}

/// Whether the setgid bit stays on something of this owner when this process sets it: the kernel drops it without a word
/// where the user is not in its group.
pub(super) fn keeps_setgid(uid: u32, gid: u32) -> bool {
    OWN_GROUPS.contains(&gid) || reaches(CapabilitySet::FSETID, uid, gid)
}

/// Whether nothing is refused to this process that capabilities give.
pub(super) fn is_unlimited() -> bool {
    let needed = CapabilitySet::CHOWN
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::LINUX_IMMUTABLE;
    EFFECTIVE.contains(needed) && is_outermost()
}

fn reaches(capability: CapabilitySet, uid: u32, gid: u32) -> bool {
    EFFECTIVE.contains(capability) && USERS.has(uid) && GROUPS.has(gid)
}

/// Whether this is the outermost user namespace: some things only its capabilities allow.
fn is_outermost() -> bool {
    // Others may know all users and groups, too. Without /proc, or in a kernel without user namespaces, nothing is known of any.
    static IS_OUTERMOST: LazyLock<bool> = LazyLock::new(|| match std::fs::metadata("/proc/self/ns/user") {
        Ok(namespace) => namespace.ino() == OUTERMOST_NAMESPACE,
        Err(_) => USERS.is_whole() && GROUPS.is_whole(),
    });
    *IS_OUTERMOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_say_which_numbers_are_known() {
        let whole = MappedIds::parse("         0          0 4294967295\n");
        assert!(whole.is_whole() && whole.has(0) && whole.has(65534));
        let some = MappedIds::parse("0 1000 1\n1 100000 65536\n");
        assert!(!some.is_whole() && some.has(0) && some.has(65536) && !some.has(65537));
        let one = MappedIds::parse("1000 1000 1\n");
        assert!(one.has(1000) && !one.has(999) && !one.has(1001));
        assert!(one.may_be_root(65534) && !one.may_be_root(1000));
        assert!(some.may_be_root(65537) && !some.may_be_root(1) && some.may_be_root(0));
        assert!(whole.may_be_root(0) && !whole.may_be_root(65534));
    }

    /// Where /proc/sys was not there, no owner counted as hidden.
    #[test]
    fn the_number_of_owners_without_one_is_known_without_proc_sys() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("overflowuid");
        std::fs::write(&told, "7\n").unwrap();
        let number = |path: &std::path::Path| overflow_number(path.to_str().unwrap());
        assert_eq!([number(&told), number(&folder.path().join("gone"))], [7, OVERFLOW_NUMBER]);
        let hides = |map: &str, number: u32, overflow: u32| MappedIds::parse(map).hides(number, overflow);
        for number in [7, OVERFLOW_NUMBER] {
            assert!(hides("0 1000 1\n", number, number) && !hides("0 1000 1\n", number, number + 1));
            assert!(!hides("0 0 4294967295\n", number, number) && !hides("0 100000 65536\n", number, number));
        }
    }
}
