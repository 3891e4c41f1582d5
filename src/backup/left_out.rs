//! What a backup leaves out whatever the rules say, and the notices about it.

use crate::disk::device::FileSystems;
use crate::repo::OwnFolders;
use crate::watch::{NoticeKind, Watch};
use std::sync::atomic::{AtomicU64, Ordering};

/// Files of a pseudo file system are saved up to this size, whatever size they say they have: some never end.
pub(super) const UNSIZED_BYTES_MAX: u64 = 64 << 20;
/// Notices about what is left out; after these one more says that there are others.
const NOTICES_MAX: u64 = 50;

/// Our own folders, pseudo file systems, and how many notices there were about what is left out.
pub(super) struct LeftOut {
    pub own: OwnFolders,
    pub mounts: FileSystems,
    notices: AtomicU64,
}

impl LeftOut {
    pub(crate) fn new(own: OwnFolders) -> Self {
        LeftOut { own, mounts: FileSystems::default(), notices: AtomicU64::new(0) }
    }

    /// A notice of a sort that there may be thousands of.
    pub(crate) fn notice(&self, watch: &Watch, kind: NoticeKind, text: String) {
        match self.notices.fetch_add(1, Ordering::Relaxed) {
            before if before < NOTICES_MAX => watch.notice(kind, text),
            NOTICES_MAX => watch.notice(NoticeKind::Skipped, "more notices of this kind are not shown"),
            _ => {}
        }
    }
}

/// Why a directory is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOutReason {
    /// It is on another file system, and the rules say to stay on one.
    OtherFileSystem,
    /// A rule says so, and only sources that were named lead on from there.
    Rule,
    Pseudo,
    Own(&'static str),
    TooDeep,
}
