//! Why something in the target was kept: sentences that several files say.

/// Reported for a source that has become a link since it was saved: a user that moved the data wants to keep the link.
pub(super) const MOVED_SOURCE: &str = "this source is now a symbolic link, which was kept: to restore into the directory \
                                       that it points to, use SNAPSHOT:PATH with --target; to replace the link, use --delete";

/// Said of what differs in an append-only directory.
pub(super) const APPEND_ONLY: &str = "it differs and was kept, as its directory is append-only";

/// Reported for what the system lets no user replace or delete.
pub(super) const FIXED: &str = "it is immutable or append-only, and was kept: run `chattr -i -a` on it first";

pub(super) const NOT_EMPTY: &str = "a directory that is not empty is in its place, and was kept";

pub(super) const KEPT_FOR_OTHERS: &str =
    "a directory is in its place, and was kept, because something could not be restored, and that may be in it";

/// Reported for links that were followed to reach a source, and what they lead through.
pub(super) const FOLLOWED: &str = "what is in its place leads to a source, and was kept";

/// Said of what only its owner can replace or delete.
pub(super) const STICKY: &str = "it belongs to another user and its directory is sticky, so it was kept";

pub(super) const IN_USE: &str = "it is part of the repository or the cache in use: nothing is restored into it";

/// Said of a name that is taken in a directory that was just made.
pub(super) const SAME_NAME: &str = "an entry with this name already exists: the file system treats both names as the same \
                                    (it may ignore case), or another program created it";

/// Reported for what is not replaced.
pub(super) const OTHER_SOURCE: &str = "it now is, leads to or holds the data of another source of the snapshot, and was kept: to have \
                                       the saved entry, restore it to another place with --target";
