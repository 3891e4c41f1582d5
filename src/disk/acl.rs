//! POSIX ACLs as the kernel keeps them in extended attributes (linux/posix_acl_xattr.h): a head, then entries of a tag, rights and a number.

use crate::entry::Xattr;
use std::ffi::CStr;

pub(crate) const ACL_ACCESS: &CStr = c"system.posix_acl_access";
pub(crate) const ACL_DEFAULT: &CStr = c"system.posix_acl_default";
/// Tags of the entries of an ACL: of a user and a group by number, and of the owning group.
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
const ACL_GROUP_OBJ: u16 = 0x04;
const ACL_HEAD_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;

/// Whether it is an ACL.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACL_ACCESS.to_bytes() || name == ACL_DEFAULT.to_bytes()
}

fn acl_tag(entry: &[u8]) -> u16 {
    u16::from_le_bytes([entry[0], entry[1]])
}

/// Whether these say yes to all users and all groups that an ACL names; other attributes name none.
pub(super) fn acl_names_only(one: &Xattr, is_user: impl Fn(u32) -> bool, is_group: impl Fn(u32) -> bool) -> bool {
    if !is_acl(&one.name) {
        return true;
    }
    let entries = one.value.get(ACL_HEAD_BYTES..).unwrap_or_default();
    entries.chunks_exact(ACL_ENTRY_BYTES).all(|entry| {
        let number = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        match acl_tag(entry) {
            ACL_USER => is_user(number),
            ACL_GROUP => is_group(number),
            _ => true,
        }
    })
}

/// The ACL without what it grants to users and groups that the kernel hides from this process; None if it hides none.
pub(crate) fn without_hidden(acl: &Xattr) -> Option<Xattr> {
    let is_known = |number: u32| number != u32::MAX;
    if acl_names_only(acl, is_known, is_known) {
        return None;
    }
    let (head, entries) = acl.value.split_at_checked(ACL_HEAD_BYTES)?;
    let is_kept = |entry: &&[u8]| !matches!(acl_tag(entry), ACL_USER | ACL_GROUP) || entry[4..] != [0xff; 4];
    let kept = entries.chunks_exact(ACL_ENTRY_BYTES).filter(is_kept);
    Some(Xattr { name: acl.name.clone(), value: head.iter().chain(kept.flatten()).copied().collect() })
}

/// What an access ACL grants to the owning group, as three bits; none for another attribute.
pub(crate) fn owning_group_rights(acl: &Xattr) -> Option<u32> {
    if acl.name != ACL_ACCESS.to_bytes() {
        return None;
    }
    let mut entries = acl.value.get(ACL_HEAD_BYTES..)?.chunks_exact(ACL_ENTRY_BYTES);
    entries.find(|entry| acl_tag(entry) == ACL_GROUP_OBJ).map(|entry| u32::from(entry[2]) & 0o7)
}

/// An access ACL that grants owner, group class and others what this mode does: to set it changes no mode, and to set its own
/// mode afterwards makes it whole.
pub(crate) fn with_mode(acl: &Xattr, mode: u32) -> Xattr {
    const USER_OBJ: u16 = 0x01;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let mut acl = acl.clone();
    let Some(entries) = acl.value.get_mut(ACL_HEAD_BYTES..) else { return acl };
    let has_mask = entries.chunks_exact(ACL_ENTRY_BYTES).any(|entry| acl_tag(entry) == MASK);
    for entry in entries.chunks_exact_mut(ACL_ENTRY_BYTES) {
        let rights = match acl_tag(entry) {
            USER_OBJ => mode >> 6,
            MASK => mode >> 3,
            ACL_GROUP_OBJ if !has_mask => mode >> 3,
            OTHER => mode,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&((rights & 0o7) as u16).to_le_bytes());
    }
    acl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_takes_the_rights_of_a_mode() {
        let acl = |entries: &[(u16, u16)]| {
            let mut value = vec![2, 0, 0, 0];
            for (tag, rights) in entries {
                value.extend_from_slice(&tag.to_le_bytes());
                value.extend_from_slice(&rights.to_le_bytes());
                value.extend_from_slice(&[0xff; 4]);
            }
            Xattr { name: ACL_ACCESS.to_bytes().to_vec(), value }
        };
        let saved = acl(&[(1, 7), (2, 6), (4, 4), (16, 7), (32, 5)]);
        assert_eq!(with_mode(&saved, 0o1750), acl(&[(1, 7), (2, 6), (4, 4), (16, 5), (32, 0)]));
        assert_eq!(with_mode(&acl(&[(1, 7), (4, 7), (32, 7)]), 0o640), acl(&[(1, 6), (4, 4), (32, 0)]));
        let cut = Xattr { name: Vec::new(), value: vec![2, 0, 0] };
        assert_eq!(with_mode(&cut, 0o700), cut);
    }
}
