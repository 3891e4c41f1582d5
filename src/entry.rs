//! What a saved thing is, as plain data.

mod warning;

pub(crate) use warning::WARNINGS_MAX;
pub use warning::{PathText, Warning};

use crate::id::ChunkId;
use serde::Serialize;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The longest path that is saved, in bytes (Linux' PATH_MAX).
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// How many directories are saved below each other, and how long a path can then be, in bytes: what is deeper is left
/// out. Paths longer than [`PATH_BYTES_MAX`] are reached one directory after the other.
pub(crate) const LEVELS_MAX: usize = 4096;
pub(crate) const DEEP_PATH_BYTES_MAX: usize = 64 << 10;
/// The longest name of one entry, in bytes (streams may be longer than file names; file systems allow 255).
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// What kind of thing an entry is. The numbers are the format's (docs/FORMAT.md) and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A block device.
    BlockDevice = 4,
    /// A character device.
    CharDevice = 5,
    /// A named pipe.
    Fifo = 6,
    /// The output of a command or the standard input.
    Stream = 7,
}

impl EntryKind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => EntryKind::File,
            2 => EntryKind::Directory,
            3 => EntryKind::Symlink,
            4 => EntryKind::BlockDevice,
            5 => EntryKind::CharDevice,
            6 => EntryKind::Fifo,
            7 => EntryKind::Stream,
            _ => return None,
        })
    }

    /// Whether entries of this kind carry bytes.
    pub(crate) fn has_content(self) -> bool {
        matches!(self, EntryKind::File | EntryKind::Stream)
    }
}

/// A point in time: seconds since 1970-01-01T00:00:00Z (may be negative) and nanoseconds within that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds since 1970 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds of the second, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// An extended attribute as the kernel returns it; POSIX ACLs are `system.posix_acl_access` and `…_default`,
/// file capabilities `security.capability`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// With its namespace: `user.note`.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// What belongs to an entry beside its content. Volatile fields (atime, ctime, inode, device) are not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: `st_mode & 0o7777`.
    pub mode: u32,
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// The owner's name on the source's machine; empty where it has none.
    pub user: String,
    /// The name of the group; empty for a group without name.
    pub group: String,
    /// When the content was last changed.
    pub modified: Time,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The source may have had attributes that are not here, or have had more in its ACLs. A restore must not conclude from an
    /// attribute's absence that the source did not have it.
    pub lacks_xattrs: bool,
    /// Inode flags as `FS_IOC_GETFLAGS` returns them, cut to those that a user can set (`chattr`).
    pub flags: u32,
}

/// A hole of a sparse file: bytes that read as zero and take no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes of the hole.
    pub length: u64,
}

/// Where an entry's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub enum Content {
    /// No bytes; also every kind that has none.
    #[default]
    Empty,
    /// The bytes themselves. Writers use it for at most 32 bytes: an id and its place in the index take more.
    Inline(Vec<u8>),
    /// The chunks in order; at most [`CHUNKS_DIRECT_MAX`].
    Chunks(Vec<ChunkId>),
    /// A tree of chunk lists.
    List {
        /// Levels of lists above the chunks of content.
        depth: u8,
        /// The list at the top.
        root: ChunkId,
    },
    /// The root page of a directory.
    Tree(ChunkId),
}

/// How many chunk ids an entry carries itself; with more of them they go to lists of their own, so that a change of a
/// neighbour does not write them again.
pub const CHUNKS_DIRECT_MAX: usize = 3;

/// One saved thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes but `/` and NUL; never empty, `.` or `..`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Its mode, owner, times and attributes.
    pub meta: Metadata,
    /// Length in bytes, holes included; 0 for what has no content.
    pub size: u64,
    /// Where its bytes are.
    pub content: Content,
    /// Holes in order, not touching; their bytes are not part of the content.
    pub holes: Vec<Hole>,
    /// What a symbolic link points to.
    pub target: Vec<u8>,
    /// Device number of a device entry: major and minor.
    pub device: (u32, u32),
    /// Entries of one snapshot with the same number are names of one inode; 0 stands alone.
    pub link_group: u64,
    /// Of a directory: its source held more than what was saved of it (not entered, not readable, filtered). A restore
    /// must not conclude from a name's absence that the source did not have it.
    pub is_partial: bool,
    /// Of a file: its content may be one that it never had, as it changed while it was read, or only its beginning, as it has no end.
    /// A backup never takes it for unchanged.
    pub is_doubtful: bool,
    /// Of a file or directory: it was on another mount than the directory that it is in. Without local state, a backup never takes
    /// what is there now for what was there then.
    pub is_mounted: bool,
}

impl Entry {
    /// Numbers the names of one inode like [`link_group`](Self::link_group), but only those that agree in all that an inode has
    /// once: names that differ were saved at different times, and to link them would give one the content of another. 0 stands alone.
    pub(crate) fn agreed_links(&self) -> u64 {
        if self.link_group == 0 || self.is_directory() {
            return 0;
        }
        // Attributes and names of owners may have been read at different times. One that lacks attributes stands in for no other.
        let Metadata { mode, uid, gid, modified, lacks_xattrs, .. } = &self.meta;
        let mut hasher = DefaultHasher::new();
        (self.link_group, self.kind, mode, uid, gid, modified, self.size, self.device, lacks_xattrs).hash(&mut hasher);
        (&self.content, &self.holes, &self.target).hash(&mut hasher);
        hasher.finish().max(1)
    }

    /// The kind of the inode that stands for it in a file system: a stream is a file there.
    pub(crate) fn kind_of_inode(&self) -> EntryKind {
        if self.kind.has_content() { EntryKind::File } else { self.kind }
    }

    /// An entry of that name and kind with nothing else set.
    pub fn new(name: impl Into<Vec<u8>>, kind: EntryKind) -> Self {
        Entry {
            name: name.into(),
            kind,
            meta: Metadata::default(),
            size: 0,
            content: Content::Empty,
            holes: Vec::new(),
            target: Vec::new(),
            device: (0, 0),
            link_group: 0,
            is_partial: false,
            is_doubtful: false,
            is_mounted: false,
        }
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// How many bytes of content are stored for it: its size without its holes.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.size.saturating_sub(self.holes.iter().map(|hole| hole.length).sum())
    }
}

/// Whether these bytes can be the name of an entry: what restore relies on to stay inside its target.
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_a_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; NAME_BYTES_MAX + 1]] {
            assert!(!is_valid_name(bad), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".hidden", b"\xff\xfe", b" ", b"a\nb"] {
            assert!(is_valid_name(good), "{good:?}");
        }
    }
}
