//! Name stored things: fixed-size identifiers, one type each.

use crate::error::{Error, Result};
use data_encoding::HEXLOWER;
use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// From exactly [`Self::BYTES`] bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some($name(bytes.try_into().ok()?))
            }

            /// The bytes themselves.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Lower case hexadecimal digits, two for each byte.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }

            /// From lower case hexadecimal digits.
            pub fn from_hex(text: &str) -> Result<Self> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or_else(|| {
                        let expected = concat!("it is not ", $bytes, " bytes in hexadecimal");
                        Error::invalid(concat!("read the ", stringify!($name)), text.escape_debug(), expected)
                    })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

identifier!(
    /// Names a chunk (of content or of a tree) by its keyed BLAKE3 hash, cut to 192 bits
    /// (docs/decisions/0002-chunk-ids-of-192-bits.md).
    ChunkId, 24
);
identifier!(
    /// Names a pack by the BLAKE3 hash of its stored bytes, so that storage can be verified without a key.
    PackId, 32
);
identifier!(
    /// Names an index object by the BLAKE3 hash of its stored bytes.
    IndexId, 32
);
identifier!(
    /// Names a repository: random, made once.
    RepositoryId, 16
);
identifier!(
    /// Names a snapshot: random; its object's name is its time and this.
    SnapshotId, 16
);
identifier!(
    /// Names a running backup.
    WriterId, 16
);

impl SnapshotId {
    /// How many hexadecimal digits people are shown.
    pub(crate) const SHORT_DIGITS: usize = 8;

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_hex()[..Self::SHORT_DIGITS].to_owned()
    }
}

/// What a chunk is part of. Chunks of the two kinds have ids of their own, and packs of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// Bytes of files and streams.
    #[default]
    Content,
    /// Pages of directories, and lists of chunks.
    Tree,
}

impl ChunkKind {
    /// The flag that index objects and packs store: 1 for trees. A reader ignores other bits.
    pub(crate) fn to_flag(self) -> u8 {
        match self {
            ChunkKind::Content => 0,
            ChunkKind::Tree => 1,
        }
    }

    /// The kind that a flag states.
    pub(crate) fn from_flag(flag: u8) -> Self {
        if flag & 1 == 0 { ChunkKind::Content } else { ChunkKind::Tree }
    }
}
