//! Snapshots: one dated state of one job's sources, as a small sealed object of JSON.

use crate::entry::{Content, Entry, Time, Warning};
use crate::error::{Error, Result};
use crate::format::features::{check_features, too_old};
use crate::format::snapshot_source::{AllSources, SOURCES_BYTES_MAX, SnapshotSource, encoded_length, tree_path};
use crate::format::stamp::Stamp;
use crate::format::tree::{TreePage, decode_page, encode_entries};
use crate::id::{ChunkId, SnapshotId};
use crate::seal::{KeySet, sealed_object_bytes_max};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) const SNAPSHOT_PURPOSE: &str = "snapshot";
/// The largest plain form that is read.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 16 << 20;
/// The largest sealed one.
pub(crate) const SEALED_SNAPSHOT_BYTES_MAX: u64 = sealed_object_bytes_max(SNAPSHOT_BYTES_MAX);

/// The same for its warnings: ten thousand long paths would make an unreadable snapshot.
pub(crate) const WARNINGS_BYTES_MAX: usize = 4 << 20;

/// What host, user, job and tags of a snapshot may take together: they are kept of each one in a list.
pub(crate) const LABELS_BYTES_MAX: usize = 8 << 10;

/// What the sources of a snapshot may take that is cut for a list.
const SHORT_BYTES_MAX: usize = 4 << 10;

/// One dated state of one job's sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of the format.
    pub version: u32,
    /// Its name, drawn at random.
    #[serde(with = "hex_id")]
    pub id: SnapshotId,
    /// When the backup began and ended, on the clock of the host.
    pub started: Stamp,
    /// See `started`.
    pub ended: Stamp,
    /// The host that was backed up.
    pub host: String,
    /// The user that ran the backup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The job that it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// Words to select it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The program that made it, with its version.
    pub program: String,
    /// As many as 1 MiB takes; a list of paths may name more.
    pub sources: Vec<SnapshotSource>,
    /// Of more sources than those: how many there are in all, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_sources: Option<AllSources>,
    /// The root page of the tree that holds all sources at their absolute paths and all streams at their names.
    #[serde(with = "hex_chunk")]
    pub root: ChunkId,
    /// The metadata of `/` itself, where it was a source: a page of one entry, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_directory: Option<String>,
    /// Shows to holders of a full key on which machine, from which directories and with a full key it was made: 64 hex digits. Absent if
    /// it was made with less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The process was not shown extended attributes of the namespace `trusted`. A restore must not conclude from their absence that the
    /// source did not have them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_trusted: bool,
    /// Counts and sizes.
    pub totals: Totals,
    /// What could not be saved as it was, at most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// How many warnings there were in all.
    pub warnings_count: u64,
}

/// What a backup dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Those in the snapshot: new, changed and unchanged ones together.
    pub files: u64,
    /// Directories in the snapshot.
    pub directories: u64,
    /// Links, devices, FIFOs.
    pub others: u64,
    /// Streams in the snapshot.
    pub streams: u64,
    /// Sizes of all files and streams, holes included.
    pub bytes: u64,
    /// Files that the parent snapshot does not have.
    pub files_new: u64,
    /// Files that the parent snapshot has, but not like this.
    pub files_changed: u64,
    /// Files that are as in the parent snapshot.
    pub files_unchanged: u64,
    /// Files of the parent snapshot that are no longer there.
    pub files_removed: u64,
    /// Met, but not in the snapshot, as nothing of them could be read.
    pub files_unread: u64,
    /// Bytes read from the sources.
    pub bytes_read: u64,
    /// Content that was not known before.
    pub bytes_new: u64,
    /// What was sent to storage for it, trees included.
    pub bytes_stored: u64,
}

/// Two clocks that differ by less than this are not worth a word.
pub(crate) const CLOCKS_DIFFER_SECONDS: i64 = 3600;

/// The name in the page that holds the metadata of `/`, which has none.
const ROOT_NAME: &[u8] = b"root";

/// As many from the front as fit.
fn cut_to<T: Serialize>(list: &mut Vec<T>, bytes_max: usize) {
    let mut left = bytes_max;
    let mut fits = |value: &T| {
        let length = encoded_length(value);
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    let count = list.iter().take_while(|value| fits(value)).count();
    list.truncate(count);
}

impl Snapshot {
    /// Names no more sources and warnings than a snapshot can hold.
    pub(crate) fn bounded(mut self) -> Self {
        self.all_sources = AllSources::of(&self.sources);
        cut_to(&mut self.sources, SOURCES_BYTES_MAX);
        cut_to(&mut self.warnings, WARNINGS_BYTES_MAX);
        self
    }

    /// What names it, for a list of very many: few of its sources, and none of its warnings; both say that there were more.
    /// None if even that is large, as no writer's is.
    pub(crate) fn cut_short(mut self) -> Option<Self> {
        self.warnings_count = self.warnings_count.max(self.warnings.len() as u64);
        self.warnings = Vec::new();
        if self.all_sources.is_none() && self.sources.iter().map(encoded_length).sum::<usize>() > SHORT_BYTES_MAX {
            let trees = AllSources::hash_of(self.sources.iter().filter_map(tree_path));
            self.all_sources = Some(AllSources { count: self.sources.len() as u64, trees });
        }
        cut_to(&mut self.sources, SHORT_BYTES_MAX);
        self.sources.shrink_to_fit();
        (encoded_length(&self) <= 4 * SHORT_BYTES_MAX).then_some(self)
    }

    /// Whether it may have been cut for a list: whole ones name more.
    pub(crate) fn may_be_cut_short(&self) -> bool {
        let has_few = || self.sources.iter().map(encoded_length).sum::<usize>() <= SHORT_BYTES_MAX;
        (self.warnings.is_empty() && self.warnings_count > 0) || (self.all_sources.is_some() && has_few())
    }

    /// Whether these paths are the trees among its sources, in this order.
    pub(crate) fn has_trees<'a>(&self, paths: impl Iterator<Item = &'a [u8]>) -> bool {
        match &self.all_sources {
            Some(all) => all.trees == AllSources::hash_of(paths),
            None => self.sources.iter().filter_map(tree_path).eq(paths),
        }
    }

    /// Whether these are its sources.
    pub(crate) fn is_of_sources(&self, sources: &[SnapshotSource]) -> bool {
        self.all_sources == AllSources::of(sources)
            && sources.starts_with(&self.sources)
            && (self.all_sources.is_some() || self.sources.len() == sources.len())
    }

    /// Whether it was begun later than a clock can be said to agree with `now`: it will be the latest for a while.
    pub(crate) fn is_from_the_future(&self, now: Time) -> bool {
        self.started.seconds > now.seconds.saturating_add(CLOCKS_DIFFER_SECONDS)
    }

    /// Its origin, for a program that tells machines and sources apart by these bytes.
    pub(crate) fn origin_with(&self, keys: &KeySet, identity: &[u8]) -> Option<blake3::Hash> {
        let mut statement = [self.id.as_bytes().as_slice(), self.root.as_bytes()].concat();
        for time in [self.started.time(), self.ended.time()] {
            statement.extend_from_slice(&time.seconds.to_le_bytes());
            statement.extend_from_slice(&time.nanoseconds.to_le_bytes());
        }
        statement.extend_from_slice(identity);
        keys.origin(&statement)
    }

    /// Whether it was made with a full key, of sources of this identity.
    pub(crate) fn is_from(&self, keys: &KeySet, identity: &[u8]) -> bool {
        let stated = self.origin.as_ref().and_then(|origin| blake3::Hash::from_hex(origin).ok());
        stated.is_some() && stated == self.origin_with(keys, identity)
    }

    /// Sorts by time: of those that began at the same one, the one that ended last is the latest.
    pub(crate) fn order(&self) -> (Time, Time, SnapshotId) {
        (self.started.time(), self.ended.time(), self.id)
    }

    /// How many sources it has, named or not.
    pub fn sources_count(&self) -> u64 {
        self.all_sources.as_ref().map_or(self.sources.len() as u64, |all| all.count)
    }

    /// `/` itself with all that was saved below it; none where it was no source.
    pub(crate) fn root_entry(&self) -> Option<Entry> {
        let page = BASE64.decode(self.root_directory.as_ref()?.as_bytes()).ok()?;
        let Ok(TreePage::Entries(mut entries)) = decode_page(&page) else { return None };
        let mut root = entries.pop().filter(|entry| entry.is_directory())?;
        root.content = Content::Tree(self.root);
        Some(root)
    }

    /// What [`Snapshot::root_entry`] reads.
    pub(crate) fn root_directory_of(root: &Entry) -> String {
        let entry = Entry { name: ROOT_NAME.to_vec(), content: Content::Empty, ..root.clone() };
        BASE64.encode(&encode_entries(&[entry]))
    }

    /// Encodes it as JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data serialises")
    }

    /// Decodes JSON; an error if it is not a snapshot of a version that this program reads.
    pub fn decode(plain: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::corrupt("read the snapshot", "", why);
        let needs: SnapshotNeeds = serde_json::from_slice(plain).map_err(|error| bad(error.to_string()))?;
        needs.check()?;
        let snapshot: Snapshot = serde_json::from_slice(plain).map_err(|error| bad(error.to_string()))?;
        let is_malformed = |source: &SnapshotSource| matches!(source, SnapshotSource::Unknown(unknown) if matches!(unknown.kind.as_str(), "tree" | "stream"));
        if snapshot.sources.iter().any(is_malformed) {
            Err(bad("a source lacks its path".to_owned()))
        } else if !snapshot.started.is_valid() || !snapshot.ended.is_valid() {
            Err(bad("no clock shows the time that it states".to_owned()))
        } else {
            Ok(snapshot)
        }
    }
}

const VERSION: u32 = 1;
/// What a program must know to read a snapshot; newer ones may write more.
#[derive(Deserialize)]
struct SnapshotNeeds {
    version: u32,
    #[serde(default)]
    features: Vec<String>,
}

impl SnapshotNeeds {
    fn check(&self) -> Result<()> {
        let (doing, thing) = ("read", "the snapshot");
        match self.version {
            VERSION => check_features(doing, thing, &self.features),
            version => Err(too_old(doing, thing, format!("it is of version {version}"))),
        }
    }
}

macro_rules! hex_module {
    ($module:ident, $type:ty) => {
        mod $module {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(id: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&HEXLOWER.encode(id.as_bytes()))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type>::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
hex_module!(hex_id, SnapshotId);
hex_module!(hex_chunk, ChunkId);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::PathText;
    use crate::entry::{EntryKind, WARNINGS_MAX};
    use crate::error::Kind;
    use crate::format::snapshot_source::UnknownSource;
    use crate::seal::Secret;

    fn snapshot(sources: Vec<SnapshotSource>) -> Snapshot {
        Snapshot {
            version: 1,
            id: SnapshotId([1; 16]),
            started: Stamp::default(),
            ended: Stamp::default(),
            host: String::new(),
            user: String::new(),
            job: String::new(),
            tags: Vec::new(),
            program: String::new(),
            sources,
            all_sources: None,
            root: ChunkId([2; 24]),
            root_directory: None,
            lacks_trusted: false,
            origin: None,
            totals: Totals::default(),
            warnings: Vec::new(),
            warnings_count: 0,
        }
    }

    fn trees(count: usize) -> Vec<SnapshotSource> {
        (0..count).map(|n| SnapshotSource::Tree { path: PathText(format!("/{n:0>4000}").into_bytes()) }).collect()
    }

    /// A list of 100,000 long paths, or of warnings with them, made a snapshot that could not be read back.
    #[test]
    fn no_list_makes_a_snapshot_that_is_too_large_to_be_read() {
        let mut long = snapshot(trees(10_000));
        let path = PathText(vec![0xff; 4096]);
        long.warnings = vec![Warning { path, what: "\u{1}".repeat(1000) }; WARNINGS_MAX];
        let bounded = long.clone().bounded();
        assert!((bounded.encode().len() as u64) < SNAPSHOT_BYTES_MAX);
        assert!(!bounded.sources.is_empty() && bounded.sources.len() < 10_000 && !bounded.warnings.is_empty());
        assert_eq!(bounded.sources_count(), 10_000);
        let read = Snapshot::decode(&bounded.encode()).unwrap();
        assert!(read.is_of_sources(&trees(10_000)) && !read.is_of_sources(&trees(10_001)));
        let short = snapshot(trees(3)).bounded();
        assert!(short.all_sources.is_none() && short.is_of_sources(&trees(3)) && !short.is_of_sources(&trees(2)));
    }

    /// A snapshot with a database among its sources was called corrupt.
    #[test]
    fn snapshots_of_newer_programs_are_read_as_far_as_they_can_be() {
        let mut plain: serde_json::Value = serde_json::from_slice(&snapshot(trees(1)).encode()).unwrap();
        plain["sources"].as_array_mut().unwrap().push(serde_json::json!({"kind": "postgres", "cluster": "main"}));
        plain["position"] = 7.into();
        let read = |plain: &serde_json::Value| Snapshot::decode(plain.to_string().as_bytes());
        let unknown = SnapshotSource::Unknown(UnknownSource { kind: "postgres".to_owned() });
        assert_eq!(read(&plain).unwrap().sources[1], unknown);
        plain["features"] = serde_json::json!(["entries-of-databases"]);
        let refused = read(&plain).unwrap_err();
        assert!(refused.is(Kind::Unsupported) && refused.to_string().contains("`entries-of-databases`"), "{refused}");
        plain["features"] = serde_json::json!([]);
        plain["sources"][0] = serde_json::json!({"kind": "tree", "pfad": "/"});
        assert!(read(&plain).unwrap_err().is(Kind::Corrupt));
        plain["version"] = 2.into();
        assert!(read(&plain).unwrap_err().is(Kind::Unsupported));
    }

    /// The bytes of docs/FORMAT.md, section 12.
    #[test]
    fn an_origin_is_made_of_what_the_format_says() {
        let (master, identity) = ([7; 32], b"here");
        let mut saved = snapshot(Vec::new());
        saved.started = Stamp { seconds: 5, nanoseconds: 6, offset: 3600 };
        saved.ended = Stamp { seconds: -7, nanoseconds: 8, offset: 0 };
        let numbers = [&5_i64.to_le_bytes()[..], &6_u32.to_le_bytes(), &(-7_i64).to_le_bytes(), &8_u32.to_le_bytes()];
        let statement = [&[1; 16][..], &[2; 24], &numbers.concat(), identity].concat();
        let key = blake3::derive_key("siltstone 2026 origin of a snapshot", &master);
        let origin = blake3::keyed_hash(&key, &statement);
        let keys = KeySet::from_master(Secret(master));
        assert_eq!(saved.origin_with(&keys, identity), Some(origin));
        assert!(!saved.is_from(&keys, identity));
        saved.origin = Some(origin.to_hex().to_string());
        assert!(saved.is_from(&keys, identity) && !saved.is_from(&keys, b"there"));
        assert!(!saved.is_from(&KeySet::from_master(Secret([8; 32])), identity));
    }

    /// The metadata of `/` were in no entry, and so lost.
    #[test]
    fn the_root_directory_comes_back_with_its_metadata() {
        let mut root = Entry::new(*b"/", EntryKind::Directory);
        (root.meta.mode, root.meta.gid, root.is_partial) = (0o751, 12, true);
        let mut saved = snapshot(Vec::new());
        assert!(saved.root_entry().is_none());
        saved.root_directory = Some(Snapshot::root_directory_of(&root));
        let read = Snapshot::decode(&saved.encode()).unwrap().root_entry().unwrap();
        assert_eq!((read.meta, read.is_partial, read.content), (root.meta, true, Content::Tree(saved.root)));
        saved.root_directory = Some("rubbish".to_owned());
        assert!(saved.root_entry().is_none());
    }
}
