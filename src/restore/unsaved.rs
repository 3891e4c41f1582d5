//! Attributes that a backup may not have saved, of what a restore replaces: what takes its place gets them.

use crate::disk::xattr::read_xattrs_at;
use crate::disk::{TargetDirectory, with_unsaved_attributes};
use crate::entry::{Entry, Metadata};
use crate::error::Result;
use crate::restore::decision::PlacingWay;
use crate::restore::run::RestoreRun;
use std::borrow::Cow;

impl RestoreRun<'_> {
    /// The entry, with the attributes of what has its name that its backup may not have saved.
    pub(crate) fn with_unsaved<'e>(
        &self,
        target: &TargetDirectory,
        entry: &'e Entry,
        way: PlacingWay,
    ) -> Result<Cow<'e, Entry>> {
        let lacks_trusted = self.scope.lacks_trusted;
        let name = entry.name.as_slice();
        let is_lacking = entry.meta.lacks_xattrs || lacks_trusted;
        if way != PlacingWay::Over || !is_lacking || !target.directory().stat(name)?.is(entry.kind_of_inode()) {
            return Ok(Cow::Borrowed(entry));
        }
        let there = read_xattrs_at(target.directory(), name)?;
        let xattrs = with_unsaved_attributes(&there, &entry.meta, lacks_trusted);
        Ok(Cow::Owned(Entry { meta: Metadata { xattrs, ..entry.meta.clone() }, ..entry.clone() }))
    }
}
