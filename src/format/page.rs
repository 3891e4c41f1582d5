//! Pages of directories: what is in one, and the numbers of its form (docs/FORMAT.md, section 9).

use crate::entry::Entry;
use crate::id::ChunkId;

pub(super) const MAGIC: u8 = b'T';
pub(super) const VERSION: u8 = 1;

/// The highest level of an inner page; pages above it carry it as well and are cut by count alone.
pub(crate) const LEVELS_MAX: u8 = 8;
/// Holes that one entry can have; more are stored as zeros.
pub(crate) const HOLES_MAX: usize = 4096;

/// A page with the first name in it.
pub(crate) type NamedPage = (Vec<u8>, ChunkId);

/// One page, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreePage {
    /// Entries of the directory, sorted by name.
    Entries(Vec<Entry>),
    /// Pages below, each with the first name in it, sorted.
    Inner {
        /// Levels of pages below this one.
        level: u8,
        /// The pages, each with the first name in it.
        pages: Vec<NamedPage>,
    },
}

pub(super) const EXTRA_TARGET: u8 = 1;
pub(super) const EXTRA_DEVICE: u8 = 2;
pub(super) const EXTRA_LINKS: u8 = 4;
pub(super) const EXTRA_XATTRS: u8 = 8;
pub(super) const EXTRA_HOLES: u8 = 16;
pub(super) const EXTRA_FLAGS: u8 = 32;
/// A list of tagged values, of which a reader skips those that it does not know.
pub(super) const EXTRA_TAGS: u8 = 64;
pub(super) const EXTRAS_KNOWN: u8 = 127;

/// The entry is a directory of which not everything was saved; its value is empty.
pub(super) const TAG_PARTIAL: u64 = 1;
/// The entry is a file whose content may be one that it never had; its value is empty.
pub(super) const TAG_DOUBTFUL: u64 = 2;
/// The entry is a file or directory that was on another mount than its directory; its value is empty.
pub(super) const TAG_MOUNTED: u64 = 3;
pub(super) const TAG_LACKS_XATTRS: u64 = 5;

pub(super) const CONTENT_EMPTY: u8 = 0;
pub(super) const CONTENT_INLINE: u8 = 1;
pub(super) const CONTENT_CHUNKS: u8 = 2;
pub(super) const CONTENT_LIST: u8 = 3;
pub(super) const CONTENT_TREE: u8 = 4;
