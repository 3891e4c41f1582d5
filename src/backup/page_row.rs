//! Rows of the local state: what each page of a directory looked like when it was last saved.

use crate::id::ChunkId;

/// Names a directory by its absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FolderKey(pub [u8; FOLDER_KEY_BYTES]);

pub(crate) const FOLDER_KEY_BYTES: usize = 16;

impl FolderKey {
    pub(crate) fn of(path: &[u8]) -> Self {
        FolderKey(blake3::hash(path).as_bytes()[..FOLDER_KEY_BYTES].try_into().expect("a hash is longer than a key"))
    }

    pub(crate) fn row(&self, first_name: &[u8]) -> Vec<u8> {
        [&self.0[..], first_name].concat()
    }
}

/// How an entry differs from the last snapshot's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileChange {
    #[default]
    Unchanged = 0,
    New = 1,
    Changed = 2,
}

impl FileChange {
    fn from_number(number: u8) -> Option<Self> {
        [FileChange::Unchanged, FileChange::New, FileChange::Changed].into_iter().find(|change| *change as u8 == number)
    }
}

/// One page of a directory as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRow {
    /// The first name that the page was cut at.
    pub first_name: Vec<u8>,
    /// Over names and stats of all entries; zero where one of them may have changed unseen.
    pub fingerprint: [u8; 16],
    /// Over the ids of the directories below.
    pub below: [u8; 16],
    pub page: ChunkId,
    /// The epoch of the state in which everything that the page names was known to be stored.
    pub epoch: u32,
    /// The run that wrote the row. Until a later or the same run commits, `changes` and `files_removed` are not in any
    /// snapshot's totals.
    pub run: u32,
    pub files_removed: u32,
    /// One for each entry of the page, in its order; 0 where the entry may have changed unseen.
    pub stats: Vec<u64>,
    /// How each entry differs from the last snapshot that was committed before the run.
    pub changes: Vec<FileChange>,
}

const FIXED_BYTES: usize = 16 + 16 + ChunkId::BYTES + 3 * 4;
/// A stat and a change.
const ENTRY_BYTES: usize = 8 + 1;

impl PageRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.stats.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&self.below);
        bytes.extend_from_slice(self.page.as_bytes());
        for number in [self.epoch, self.run, self.files_removed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.stats.iter().for_each(|stat| bytes.extend_from_slice(&stat.to_le_bytes()));
        bytes.extend(self.changes.iter().map(|change| *change as u8));
        bytes
    }

    pub(crate) fn decode(first_name: &[u8], bytes: &[u8]) -> Option<Self> {
        let (fixed, entries) = bytes.split_at_checked(FIXED_BYTES)?;
        let count = entries.len() / ENTRY_BYTES;
        if !entries.len().is_multiple_of(ENTRY_BYTES) {
            return None;
        }
        let (stats, changes) = entries.split_at(count * 8);
        let (page, numbers) = fixed[32..].split_at(ChunkId::BYTES);
        let number = |at: usize| u32::from_le_bytes(numbers[at * 4..][..4].try_into().expect("four bytes"));
        Some(PageRow {
            first_name: first_name.to_vec(),
            fingerprint: fixed[..16].try_into().ok()?,
            below: fixed[16..32].try_into().ok()?,
            page: ChunkId::from_slice(page)?,
            epoch: number(0),
            run: number(1),
            files_removed: number(2),
            stats: stats.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8"))).collect(),
            changes: changes.iter().map(|change| FileChange::from_number(*change)).collect::<Option<_>>()?,
        })
    }
}

/// Rows to be written and rows to be removed.
#[derive(Default)]
pub(crate) struct StateChanges {
    pub rows: Vec<(FolderKey, PageRow)>,
    pub removed: Vec<(FolderKey, Vec<u8>)>,
}

impl StateChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty()
    }
}
