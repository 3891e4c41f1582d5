//! What a key object seals: the keys that its holder has, each with a tag and the generation of secrets that it belongs to.

use crate::error::{Error, Kind, Result};
use crate::seal::key_pair::KeyPair;
use crate::seal::key_set::{KEY_GENERATION, KeyParts, WriterKeys};
use crate::seal::signature::VerifyingKey;
use crate::seal::{KeyAccess, KeySet, SECRET_BYTES, Secret};
use zeroize::Zeroizing;

/// Before each value: its tag, its generation (`u32`) and its length (`u16`), both little-endian.
const HEAD_BYTES: usize = 1 + 4 + 2;
/// The maximum size of a bundle.
const BUNDLE_BYTES_MAX: usize = 8 << 10;

/// The values of format 1. Others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BundleTag {
    Master = 1,
    ContentId = 2,
    TreeId = 3,
    Gear = 4,
    Writers = 5,
    SnapshotsPublic = 6,
    TreesPublic = 7,
    ContentsPublic = 8,
    Verifying = 9,
    SnapshotsPrivate = 10,
}

impl KeySet {
    /// The bytes that a key object seals: everything that this access needs. None if this set has less itself.
    pub fn to_bundle(&self, access: KeyAccess) -> Option<Zeroizing<Vec<u8>>> {
        let keys = self.keys();
        let mut bundle = BundleWriter::default();
        if access == KeyAccess::Full {
            bundle.put(BundleTag::Master, &keys.master.as_ref()?.0);
            return Some(bundle.0);
        }
        bundle.put(BundleTag::ContentId, &keys.shared.content_id.0);
        bundle.put(BundleTag::TreeId, &keys.shared.tree_id.0);
        bundle.put(BundleTag::Gear, &keys.shared.gear.0);
        bundle.put(BundleTag::Writers, &keys.shared.writers.0);
        bundle.put(BundleTag::SnapshotsPublic, &keys.snapshots.public_bytes());
        bundle.put(BundleTag::TreesPublic, &keys.trees.public_bytes());
        bundle.put(BundleTag::ContentsPublic, &keys.contents.public_bytes());
        bundle.put(BundleTag::Verifying, &keys.verifying.0);
        if access == KeyAccess::List {
            bundle.put(BundleTag::SnapshotsPrivate, &keys.snapshots.private_bytes()?);
        }
        Some(bundle.0)
    }

    /// Reads what [`to_bundle`](Self::to_bundle) wrote, or a newer program with more values.
    pub fn from_bundle(bytes: &[u8]) -> Result<Self> {
        let values = BundleValues::read(bytes)?;
        if let Some(master) = values.secret(BundleTag::Master) {
            return Ok(KeySet::from_master(master));
        }
        let need = |tag| values.secret(tag).ok_or_else(|| values.lacks());
        let public = |tag| values.get(tag).and_then(KeyPair::from_public).ok_or_else(|| values.lacks());
        let shared = WriterKeys {
            content_id: need(BundleTag::ContentId)?,
            tree_id: need(BundleTag::TreeId)?,
            gear: need(BundleTag::Gear)?,
            writers: need(BundleTag::Writers)?,
        };
        let snapshots = match values.get(BundleTag::SnapshotsPrivate) {
            Some(private) => KeyPair::from_private(private).ok_or_else(|| values.lacks())?,
            None => public(BundleTag::SnapshotsPublic)?,
        };
        let (trees, contents) = (public(BundleTag::TreesPublic)?, public(BundleTag::ContentsPublic)?);
        let verifying = VerifyingKey(need(BundleTag::Verifying)?.0);
        Ok(KeySet::new(KeyParts { master: None, shared, snapshots, trees, contents, verifying }))
    }
}

/// A bundle that is being written.
#[derive(Default)]
struct BundleWriter(Zeroizing<Vec<u8>>);

impl BundleWriter {
    fn put(&mut self, tag: BundleTag, value: &[u8]) {
        self.0.push(tag as u8);
        self.0.extend_from_slice(&KEY_GENERATION.to_le_bytes());
        self.0.extend_from_slice(&u16::try_from(value.len()).expect("a key is short").to_le_bytes());
        self.0.extend_from_slice(value);
    }
}

/// The values of a bundle.
struct BundleValues<'a>(Vec<(u8, u32, &'a [u8])>);

impl<'a> BundleValues<'a> {
    /// Tags and generations rise, so that each value is there once.
    fn read(mut bytes: &'a [u8]) -> Result<Self> {
        let bad = || Error::corrupt("read the keys of the repository", "", "they are damaged");
        let mut values: Vec<(u8, u32, &[u8])> = Vec::new();
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(bad());
        }
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(bad)?;
            let generation = u32::from_le_bytes(head[1..5].try_into().expect("four bytes"));
            let length = u16::from_le_bytes(head[5..].try_into().expect("two bytes"));
            let (value, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(bad)?;
            if values.last().is_some_and(|(tag, of, _)| (*tag, *of) >= (head[0], generation)) {
                return Err(bad());
            }
            values.push((head[0], generation, value));
            bytes = rest;
        }
        Ok(BundleValues(values))
    }

    fn get(&self, tag: BundleTag) -> Option<&'a [u8]> {
        let is_it = |(of, generation, _): &&(u8, u32, &[u8])| (*of, *generation) == (tag as u8, KEY_GENERATION);
        self.0.iter().find(is_it).map(|(_, _, value)| *value)
    }

    fn secret(&self, tag: BundleTag) -> Option<Secret> {
        self.get(tag).and_then(|value| <[u8; SECRET_BYTES]>::try_from(value).ok()).map(Secret)
    }

    /// A value that is needed is absent or invalid.
    fn lacks(&self) -> Error {
        Error::new(Kind::Unsupported, "read the keys of the repository", "")
            .because("this key object lacks keys that this program needs")
            .hint("use the version of silt that made it, or a key object made by this one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkKind;

    #[test]
    fn bundles_hold_what_their_access_needs_and_no_more() {
        let full = KeySet::from_master(Secret([1; 32]));
        for access in [KeyAccess::PutOnly, KeyAccess::List, KeyAccess::Full] {
            let bundle = full.to_bundle(access).unwrap();
            let keys = KeySet::from_bundle(&bundle).unwrap();
            assert_eq!(keys.access(), access);
            assert_eq!(full.chunk_id(ChunkKind::Content, b"x"), keys.chunk_id(ChunkKind::Content, b"x"));
            assert_eq!(keys.to_bundle(access).unwrap(), bundle);
            assert_eq!(keys.snapshots().can_open(), access >= KeyAccess::List);
            for kind in [ChunkKind::Content, ChunkKind::Tree] {
                assert_eq!(keys.packs(kind).can_open(), access == KeyAccess::Full);
            }
            assert_eq!(keys.signing().is_ok(), access == KeyAccess::Full);
            for more in [KeyAccess::List, KeyAccess::Full].into_iter().filter(|more| *more > access) {
                assert!(keys.to_bundle(more).is_none());
            }
            // Cut between two values, it may be a bundle with less access: the key object says whether it is whole.
            let cut = (1..bundle.len()).filter_map(|length| KeySet::from_bundle(&bundle[..length]).ok());
            assert!(cut.into_iter().all(|cut| cut.access() < access));
        }
        assert_ne!(full.chunk_id(ChunkKind::Content, b"x"), full.chunk_id(ChunkKind::Tree, b"x"));
    }

    #[test]
    fn values_of_newer_programs_are_skipped() {
        let keys = KeySet::from_master(Secret([1; 32]));
        let mut bundle = keys.to_bundle(KeyAccess::PutOnly).unwrap().to_vec();
        // The writers' secret of the next generation, after that of this one; and an unknown tag.
        let at = HEAD_BYTES + SECRET_BYTES;
        let next = [&[BundleTag::Writers as u8, 1, 0, 0, 0, 32, 0][..], &[9; 32]].concat();
        bundle.splice(4 * at..4 * at, next);
        bundle.extend([&[200, 0, 0, 0, 0, 3, 0][..], b"new"].concat());
        let read = KeySet::from_bundle(&bundle).unwrap();
        assert_eq!(read.to_bundle(KeyAccess::PutOnly), keys.to_bundle(KeyAccess::PutOnly));
        // Out of order, a value could be there twice.
        bundle.extend([&[200, 0, 0, 0, 0, 3, 0][..], b"two"].concat());
        assert!(KeySet::from_bundle(&bundle).is_err() && KeySet::from_bundle(&[]).is_err());
        let newer = [&[BundleTag::Master as u8, 7, 0, 0, 0, 32, 0][..], &[9; 32]].concat();
        assert_eq!(KeySet::from_bundle(&newer).err().unwrap().kind(), Kind::Unsupported);
    }
}
