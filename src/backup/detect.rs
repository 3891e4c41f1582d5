//! Decide what changed: fingerprints of stats, and git's rule for what is too fresh to trust.

use crate::disk::Stat;
use crate::entry::Time;
use crate::id::ChunkId;
use std::hash::Hasher;

/// What counts as a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
}

/// A time this close before the look at it can still gain another change with the same time: file systems tell time in
/// steps of the kernel's clock tick.
const TICK: Time = Time { seconds: 0, nanoseconds: 20_000_000 };
/// Where times have no fraction at all, their step may be up to two seconds (FAT).
const COARSE: Time = Time { seconds: 2, nanoseconds: 0 };

impl Comparison {
    /// The bytes of a stat that make a difference.
    fn bytes(&self, stat: &Stat) -> [u8; 64] {
        let mut bytes = [0; 64];
        let is_directory = stat.is(crate::entry::EntryKind::Directory);
        bytes[0..4].copy_from_slice(&stat.mode.to_le_bytes());
        bytes[4..8].copy_from_slice(&stat.uid.to_le_bytes());
        bytes[8..12].copy_from_slice(&stat.gid.to_le_bytes());
        bytes[12..16].copy_from_slice(&stat.modified.nanoseconds.to_le_bytes());
        bytes[16..24].copy_from_slice(&stat.modified.seconds.to_le_bytes());
        if !is_directory {
            bytes[24..32].copy_from_slice(&stat.size.to_le_bytes());
        }
        if !self.ignore_ctime {
            bytes[32..40].copy_from_slice(&stat.changed.seconds.to_le_bytes());
            bytes[40..44].copy_from_slice(&stat.changed.nanoseconds.to_le_bytes());
        }
        if !self.ignore_inode {
            bytes[44..52].copy_from_slice(&stat.inode.to_le_bytes());
        }
        bytes[52..56].copy_from_slice(&stat.special.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&stat.special.1.to_le_bytes());
        bytes
    }

    /// One entry's number in the local state; never 0, which stands for "look again".
    pub fn stat_number(&self, stat: &Stat) -> u64 {
        let hash = blake3::hash(&self.bytes(stat));
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes")).max(1)
    }

    /// Over the names and stats of a page.
    pub fn fingerprint<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a Stat)>,
        buffer: &mut Vec<u8>,
    ) -> [u8; 16] {
        buffer.clear();
        buffer.push(u8::from(self.ignore_ctime) | u8::from(self.ignore_inode) << 1);
        for (name, stat) in entries {
            buffer.extend_from_slice(&(name.len() as u16).to_le_bytes());
            buffer.extend_from_slice(name);
            buffer.extend_from_slice(&self.bytes(stat));
        }
        short_hash(buffer)
    }

    /// Whether an entry was changed so shortly before `seen` that another change could look the same.
    pub fn is_racy(&self, stat: &Stat, seen: Time) -> bool {
        let step = if stat.changed.nanoseconds == 0 && stat.modified.nanoseconds == 0 { COARSE } else { TICK };
        let newest = match self.ignore_ctime {
            true => stat.modified,
            false => stat.modified.max(stat.changed),
        };
        plus(newest, step) >= seen
    }
}

fn plus(time: Time, step: Time) -> Time {
    let nanoseconds = time.nanoseconds + step.nanoseconds;
    Time {
        seconds: time.seconds.saturating_add(step.seconds + i64::from(nanoseconds / 1_000_000_000)),
        nanoseconds: nanoseconds % 1_000_000_000,
    }
}

/// Over the ids of the directories below a page.
pub fn below(ids: impl Iterator<Item = ChunkId>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let mut any = false;
    for id in ids {
        any = true;
        hasher.update(id.as_bytes());
    }
    match any {
        true => hasher.finalize().as_bytes()[..16].try_into().expect("a hash is longer"),
        false => [0; 16],
    }
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    blake3::hash(bytes).as_bytes()[..16].try_into().expect("a hash is longer")
}

/// Numbers the names of one inode: the same for all of them, whatever order they are met in; never 0.
pub fn link_group(stat: &Stat) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stat.device.to_le_bytes());
    hasher.update(&stat.inode.to_le_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes")).max(1)
}

/// A plain hasher for maps of file numbers, which are no secret and no attack.
#[derive(Default)]
pub struct InodeHasher(u64);

impl Hasher for InodeHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_fresh_is_never_trusted() {
        let at = |seconds, nanoseconds| Time { seconds, nanoseconds };
        let stat = |changed| Stat { modified: at(100, 5), changed, ..Stat::default() };
        let compare = Comparison::default();
        assert!(compare.is_racy(&stat(at(200, 10)), at(200, 10)));
        assert!(compare.is_racy(&stat(at(200, 10)), at(200, 19_000_000)));
        assert!(compare.is_racy(&stat(at(300, 0)), at(200, 0)), "from the future");
        assert!(!compare.is_racy(&stat(at(200, 10)), at(200, 30_000_000)));
        let coarse = Stat { modified: at(200, 0), changed: at(200, 0), ..Stat::default() };
        assert!(compare.is_racy(&coarse, at(202, 0)) && !compare.is_racy(&coarse, at(203, 0)));
    }

    #[test]
    fn each_field_makes_a_difference_unless_it_is_ignored() {
        let stat = Stat { mode: 0o100644, size: 5, inode: 7, ..Stat::default() };
        let compare = Comparison::default();
        let number = compare.stat_number(&stat);
        assert_ne!(number, compare.stat_number(&Stat { size: 6, ..stat }));
        assert_ne!(number, compare.stat_number(&Stat { inode: 8, ..stat }));
        assert_ne!(number, compare.stat_number(&Stat { changed: Time { seconds: 1, nanoseconds: 0 }, ..stat }));
        let lax = Comparison { ignore_ctime: true, ignore_inode: true };
        let other = Stat { inode: 8, changed: Time { seconds: 1, nanoseconds: 0 }, ..stat };
        assert_eq!(lax.stat_number(&stat), lax.stat_number(&other));
    }
}
