//! Which extended attributes of what is there a restore keeps: those that the backup may not have saved, and the label of the policy.

use super::acl::is_acl;
use super::xattr::TRUSTED;
use crate::entry::{Metadata, Xattr};

/// The label of SELinux comes from the policy of this machine: it stays where the entry has none.
const LABEL: &[u8] = b"security.selinux";

/// Whether a restore leaves an attribute of an existing inode as it is, although the entry was saved without it, or with a shorter ACL.
pub(super) fn stays(old: &Xattr, meta: &Metadata, lacks_trusted: bool) -> bool {
    let may_be_unsaved = meta.lacks_xattrs || lacks_trusted && old.name.starts_with(TRUSTED);
    let is_saved = meta.xattrs.iter().any(|one| one.name == old.name);
    if is_saved { meta.lacks_xattrs && is_acl(&old.name) } else { may_be_unsaved || old.name == LABEL }
}

/// Whether these are the attributes that an entry was saved with; what stays all the same does not count. `lacks_trusted`: the backup
/// did not see attributes of the namespace `trusted`.
pub(crate) fn has_saved_attributes(found: &[Xattr], meta: &Metadata, lacks_trusted: bool) -> bool {
    let stays = |old: &Xattr| stays(old, meta, lacks_trusted);
    let is_wanted = |one: &&Xattr| !found.iter().any(|old| old.name == one.name && stays(old));
    found.iter().filter(|old| !stays(old)).eq(meta.xattrs.iter().filter(is_wanted))
}

/// Returns the attributes of an entry, together with those of the inode that it replaces which its backup may not have saved. The label is not
/// among them, as it comes from the policy.
pub(crate) fn with_unsaved_attributes(there: &[Xattr], meta: &Metadata, lacks_trusted: bool) -> Vec<Xattr> {
    let is_unsaved = |old: &&Xattr| old.name != LABEL && stays(old, meta, lacks_trusted);
    let mut all: Vec<Xattr> = there.iter().filter(is_unsaved).cloned().collect();
    let is_replaced = |one: &&Xattr| !all.iter().any(|old| old.name == one.name);
    let saved: Vec<Xattr> = meta.xattrs.iter().filter(is_replaced).cloned().collect();
    all.extend(saved);
    all.sort_unstable();
    all
}
