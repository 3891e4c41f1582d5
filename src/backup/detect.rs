//! Decide what changed: fingerprints of stats, and git's rule for what is too fresh to trust.

use crate::backup::folder::SavedTree;
use crate::disk::{Owners, Stat};
use crate::entry::{EntryKind, Time};
use std::hash::Hasher;
use std::time::Duration;

/// What counts as a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// A file whose change time alone differs counts as unchanged.
    pub ignore_ctime: bool,
    /// A file whose inode number alone differs counts as unchanged.
    pub ignore_inode: bool,
    /// A file that was written to so short a time before it is read may be written to again without another time: through
    /// a memory map, whose pages the kernel writes back after half a minute or so. The next backup reads it again.
    pub mapped: Duration,
}

impl Default for Comparison {
    fn default() -> Self {
        Comparison { ignore_ctime: false, ignore_inode: false, mapped: Duration::from_secs(60) }
    }
}

/// A time this close before the look at it can still gain another change with the same time: file systems tell time in
/// steps of the kernel's clock tick.
const TICK: Duration = Duration::from_millis(20);
/// Where times have no fraction at all, their step may be up to two seconds (FAT).
const COARSE: Duration = Duration::from_secs(2);
/// The next change cannot have a time further in the future than this, whatever clock it comes from.
const SKEW: Duration = Duration::from_secs(3600);

impl Comparison {
    /// The bytes of a stat that make a difference.
    fn bytes(&self, stat: &Stat) -> [u8; 64] {
        let mut bytes = [0; 64];
        let is_directory = stat.is(EntryKind::Directory);
        bytes[0..4].copy_from_slice(&stat.mode.to_le_bytes());
        bytes[4..8].copy_from_slice(&stat.uid.to_le_bytes());
        bytes[8..12].copy_from_slice(&stat.gid.to_le_bytes());
        bytes[12..16].copy_from_slice(&stat.modified.nanoseconds.to_le_bytes());
        bytes[16..24].copy_from_slice(&stat.modified.seconds.to_le_bytes());
        if !is_directory {
            bytes[24..32].copy_from_slice(&stat.size.to_le_bytes());
            // A further name changes nothing else but the time that may be ignored.
            bytes[60..64].copy_from_slice(&stat.links.to_le_bytes());
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
    /// On an idmapped mount it is another one than elsewhere.
    pub(crate) fn stat_number(&self, stat: &Stat, is_idmapped: bool) -> u64 {
        let hash = blake3::hash(&self.bytes(stat));
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
        (if is_idmapped { !number } else { number }).max(1)
    }

    /// Hashes the names and stats of a page, and the names of its owners.
    pub(crate) fn fingerprint<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a Stat)>,
        owners: &Owners,
        buffer: &mut Vec<u8>,
    ) -> [u8; 16] {
        buffer.clear();
        let mut named = None;
        buffer.push(u8::from(self.ignore_ctime) | u8::from(self.ignore_inode) << 1);
        for (name, stat) in entries {
            buffer.extend_from_slice(&(name.len() as u16).to_le_bytes());
            buffer.extend_from_slice(name);
            buffer.extend_from_slice(&self.bytes(stat));
            // Its entry states which other names are of the same inode: that is known only of inodes that are there now.
            if stat.links > 1 && !stat.is(EntryKind::Directory) {
                buffer.extend_from_slice(&link_group(stat).to_le_bytes());
            }
            // And what its owner is called.
            if named != Some((stat.uid, stat.gid)) {
                named = Some((stat.uid, stat.gid));
                for name in [owners.user_name(stat.uid), owners.group_name(stat.gid)] {
                    buffer.extend_from_slice(&(name.len() as u32).to_le_bytes());
                    buffer.extend_from_slice(name.as_bytes());
                }
            }
        }
        short_hash(buffer)
    }

    /// Whether an entry was changed so shortly before `seen` that another change could look the same.
    pub(crate) fn is_racy(&self, stat: &Stat, seen: Time) -> bool {
        let step = if stat.changed.nanoseconds == 0 && stat.modified.nanoseconds == 0 { COARSE } else { TICK };
        let changed = if self.ignore_ctime { stat.modified } else { stat.changed };
        // Every write to the content sets both times, through a map too.
        let is_written = self.is_young(stat.modified, seen) && self.is_young(changed, seen);
        is_written || (plus(changed, step) >= seen && changed <= plus(seen, SKEW))
    }

    /// Whether a file that was last written to at this time may have been written to again without another time after it
    /// was saved, by a backup that began and ended then.
    pub(crate) fn may_have_changed_after(&self, written: Time, backup: (Time, Time)) -> bool {
        plus(written, self.mapped.max(COARSE)) >= backup.0 && written <= plus(backup.1, SKEW)
    }

    fn is_young(&self, written: Time, seen: Time) -> bool {
        plus(written, self.mapped) >= seen && written <= plus(seen, SKEW)
    }
}

fn plus(time: Time, step: Duration) -> Time {
    let nanoseconds = time.nanoseconds + step.subsec_nanos();
    let seconds =
        i64::try_from(step.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(nanoseconds / 1_000_000_000));
    Time { seconds: time.seconds.saturating_add(seconds), nanoseconds: nanoseconds % 1_000_000_000 }
}

/// Hashes the trees of the directories in a page, and which of them are partial.
pub(super) fn hash_of_subtrees(trees: impl Iterator<Item = SavedTree>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let (mut count, mut partial) = (0_u32, Vec::new());
    for SavedTree { tree, is_partial } in trees {
        hasher.update(tree.as_bytes());
        if is_partial {
            partial.extend_from_slice(&count.to_le_bytes());
        }
        count += 1;
    }
    hasher.update(&partial);
    match count {
        0 => [0; 16],
        _ => hasher.finalize().as_bytes()[..16].try_into().expect("a hash is longer"),
    }
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    blake3::hash(bytes).as_bytes()[..16].try_into().expect("a hash is longer")
}

/// Numbers the names of one inode: the same for all of them, whatever order they are met in; 0 for an inode with one name.
/// All names in a snapshot must be numbered by what one run sees: a file system gets another number when it is mounted again,
/// and an inode that is removed leaves its number to the next one.
pub(crate) fn link_group(stat: &Stat) -> u64 {
    if stat.links <= 1 || stat.is(EntryKind::Directory) {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stat.device.to_le_bytes());
    hasher.update(&stat.inode.to_le_bytes());
    // What tells it from an inode that had this number earlier in the run.
    let since = if stat.born == Time::default() { stat.changed } else { stat.born };
    hasher.update(&since.seconds.to_le_bytes()).update(&since.nanoseconds.to_le_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes")).max(1)
}

/// A plain hasher for maps of file numbers, which are no secret and no attack.
#[derive(Default)]
pub(crate) struct InodeHasher(u64);

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
        assert!(compare.is_racy(&stat(at(300, 0)), at(200, 0)), "from a clock that is a little ahead");
        assert!(!compare.is_racy(&stat(at(200, 10)), at(200, 30_000_000)));
        let coarse = Stat { modified: at(100, 0), changed: at(200, 0), ..Stat::default() };
        assert!(compare.is_racy(&coarse, at(202, 0)) && !compare.is_racy(&coarse, at(203, 0)));
    }

    /// A file written through a map keeps its times until its pages are written back.
    #[test]
    fn what_was_written_within_a_minute_is_looked_at_once_more() {
        let at = |seconds| Time { seconds, nanoseconds: 1 };
        let written = Stat { modified: at(1000), changed: at(1000), ..Stat::default() };
        let compare = Comparison::default();
        assert!(compare.is_racy(&written, at(1059)) && !compare.is_racy(&written, at(1061)));
        // Its content is older than that: unpacked, copied with its times, or of another owner now.
        let unpacked = Stat { modified: at(10), ..written };
        assert!(!compare.is_racy(&unpacked, at(1001)));
        let quick = Comparison { mapped: Duration::ZERO, ..compare };
        assert!(!quick.is_racy(&written, at(1001)));
    }

    /// Files with a modification time in the future were read whole by every backup, though their change time agreed.
    #[test]
    fn a_modification_time_in_the_future_alone_makes_nothing_fresh() {
        let at = |seconds| Time { seconds, nanoseconds: 1 };
        let photo = Stat { modified: at(2_000_000_000), changed: at(1000), ..Stat::default() };
        assert!(!Comparison::default().is_racy(&photo, at(1100)));
        // Nor does a change time of a clock that was years ahead once.
        let ahead = Stat { modified: at(2_000_000_000), changed: at(2_000_000_000), ..Stat::default() };
        assert!(!Comparison::default().is_racy(&ahead, at(1100)));
    }

    /// A page was kept with the groups that its file system's earlier number had made.
    #[test]
    fn a_page_is_built_again_when_names_of_one_inode_have_another_number() {
        let stat = Stat { kind: Some(EntryKind::File), inode: 7, device: 1, links: 2, ..Stat::default() };
        let lax = Comparison { ignore_ctime: true, ignore_inode: true, ..Comparison::default() };
        let owners = Owners::default();
        let page = |stat: &Stat| lax.fingerprint([(&b"f"[..], stat)].into_iter(), &owners, &mut Vec::new());
        let born = Time { seconds: 5, nanoseconds: 0 };
        let others = [Stat { device: 2, ..stat }, Stat { inode: 8, ..stat }, Stat { born, ..stat }];
        for other in &others {
            assert_ne!(link_group(&stat), link_group(other));
            assert_ne!(page(&stat), page(other));
            // Its content is that of before all the same.
            assert_eq!(lax.stat_number(&stat, false), lax.stat_number(other, false));
            let single = |stat: &Stat| Stat { links: 1, ..*stat };
            assert_eq!((link_group(&single(&stat)), page(&single(&stat))), (0, page(&single(other))));
        }
        // Where no time of birth is known, that of the last change has to do.
        let later = Stat { changed: born, ..stat };
        assert_ne!(link_group(&stat), link_group(&later));
        assert_eq!(link_group(&Stat { born, ..stat }), link_group(&Stat { born, ..later }));
    }

    #[test]
    fn each_field_makes_a_difference_unless_it_is_ignored() {
        let stat = Stat { mode: 0o100644, size: 5, inode: 7, ..Stat::default() };
        let compare = Comparison::default();
        let number = compare.stat_number(&stat, false);
        assert_ne!(number, compare.stat_number(&Stat { size: 6, ..stat }, false));
        assert_ne!(number, compare.stat_number(&Stat { inode: 8, ..stat }, false));
        assert_ne!(number, compare.stat_number(&Stat { changed: Time { seconds: 1, nanoseconds: 0 }, ..stat }, false));
        let lax = Comparison { ignore_ctime: true, ignore_inode: true, ..Comparison::default() };
        let other = Stat { inode: 8, changed: Time { seconds: 1, nanoseconds: 0 }, ..stat };
        assert_eq!(lax.stat_number(&stat, false), lax.stat_number(&other, false));
    }
}
