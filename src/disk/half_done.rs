//! How a file shows that a restore began it under its own name and did not finish.

use super::acl::ACL_ACCESS;
use super::stat::Stat;
use crate::entry::{Entry, EntryKind, Metadata};

/// The mode of a file whose content or metadata are not complete: the sticky bit, which means nothing on a file, and no
/// right but the one to write. A finished file has it only if it was saved so, and such a file is never created under its own
/// name.
pub(super) const HALF_DONE_MODE: u32 = 0o1200;

/// Whether [`HALF_DONE_MODE`] can stand for the mode of a file until it is finished: an ACL changes the mode before that.
pub(super) fn is_markable(meta: &Metadata) -> bool {
    meta.mode & 0o7000 == 0 && !has_acl(meta)
}

fn has_acl(meta: &Metadata) -> bool {
    meta.xattrs.iter().any(|attribute| attribute.name == ACL_ACCESS.to_bytes())
}

/// Whether what has the name of an entry is a file that a restore began under its own name and did not finish.
pub(crate) fn is_half_done(found: &Stat, entry: &Entry) -> bool {
    let was_saved_so = entry.kind.has_content() && entry.meta.mode & 0o7777 == HALF_DONE_MODE;
    found.is(EntryKind::File) && found.permissions() == HALF_DONE_MODE && !was_saved_so
}
