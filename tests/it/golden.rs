//! The golden repository of format 1: made once, readable for ever, and today's writer still names and cuts alike.
//!
//! Remake it (only while format 1 is not released) with `cargo test --test it make_golden -- --ignored`.

use crate::folder::Folder;
use siltstone::chunk::{ChunkTable, ContentKind};
use siltstone::entry::{CHUNKS_DIRECT_MAX, Content, Entry, EntryKind, Hole, Metadata, PathText, Time, Xattr};
use siltstone::format::{FORMAT_VERSION, ListItem, ListWriter, page_lengths, store_page, store_root};
use siltstone::id::{ChunkId, ChunkKind, SnapshotId};
use siltstone::repo::{Credentials, InitOptions, Repository, SinkOptions, Snapshot, SnapshotSource, Stamp, Totals};
use siltstone::seal::{PasswordCost, Secret};
use siltstone::storage::Storage;
use siltstone::watch::Watch;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Deterministic bytes without any pattern.
pub fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

/// An entry of the golden tree: described, and its bytes without holes, or what is below it.
pub struct Thing {
    pub entry: Entry,
    pub bytes: Vec<u8>,
    pub below: Vec<Thing>,
}

fn thing(name: &[u8], kind: EntryKind, mode: u32) -> Thing {
    let mut entry = Entry::new(name, kind);
    entry.meta = Metadata {
        mode,
        uid: 1000,
        gid: 100,
        user: "ada".to_owned(),
        group: "users".to_owned(),
        modified: Time { seconds: 1_700_000_000 + name.len() as i64, nanoseconds: 123_456_789 },
        ..Metadata::default()
    };
    Thing { entry, bytes: Vec::new(), below: Vec::new() }
}

fn file(name: &[u8], bytes: &[u8]) -> Thing {
    let mut made = thing(name, EntryKind::File, 0o644);
    made.entry.size = bytes.len() as u64;
    made.bytes = bytes.to_vec();
    made
}

fn with(mut thing: Thing, change: impl FnOnce(&mut Entry)) -> Thing {
    change(&mut thing.entry);
    thing
}

fn directory(name: &[u8], below: Vec<Thing>) -> Thing {
    Thing { below, ..thing(name, EntryKind::Directory, 0o755) }
}

fn dump() -> Vec<u8> {
    (0..3000u32).flat_map(|n| format!("INSERT INTO t VALUES ({n}, 'row {}');\n", n % 7).into_bytes()).collect()
}

/// One of everything that the format knows; sorted by name.
pub fn things() -> Vec<Thing> {
    let many = (0..200).map(|n| file(format!("f{n:03}").as_bytes(), format!("{n}\n").as_bytes())).collect();
    // More than a page's worth of attributes: split pages.
    let fat = |n: u8| {
        let value = vec![b'a' + n; 60_000];
        with(file(&[b'a' + n], b""), |entry| entry.meta.xattrs = vec![Xattr { name: b"user.fat".to_vec(), value }])
    };
    let attributes = |entry: &mut Entry| {
        entry.meta.xattrs = ["user.a", "user.b"]
            .map(|name| Xattr { name: name.as_bytes().to_vec(), value: b"\0\xff".to_vec() })
            .to_vec();
        entry.meta.flags = 0x40;
    };
    let mut things = vec![
        directory(
            b"database",
            vec![Thing {
                bytes: dump(),
                ..with(thing(b"dump.sql", EntryKind::Stream, 0o600), |entry| entry.size = dump().len() as u64)
            }],
        ),
        directory(b"empty-directory", vec![]),
        directory(b"fat", (0..20).map(fat).collect()),
        directory(b"many", many),
        file(b"attributes", b"with attributes and a flag, longer than an inline file"),
        file(b"caf\xe9", b"a name that is no UTF-8"),
        file(b"empty", b""),
        with(file(b"link-a", &noise(500, 2)), |entry| entry.link_group = 77),
        with(file(b"link-b", &noise(500, 2)), |entry| entry.link_group = 77),
        file(b"noise", &noise(100_000, 1)),
        with(file(b"old", b"before 1970"), |entry| entry.meta.modified = Time { seconds: -5, nanoseconds: 1 }),
        file(b"repeated", &b"the same words again and again. ".repeat(1000)),
        with(file(b"setuid", b"x"), |entry| entry.meta.mode = 0o4755),
        with(file(b"sparse", &noise(9000, 3)), |entry| {
            entry.holes = vec![Hole { offset: 0, length: 65536 }, Hole { offset: 70_000, length: 1 << 33 }];
            entry.size += 65536 + (1 << 33);
        }),
        with(thing(b"device", EntryKind::CharDevice, 0o666), |entry| entry.device = (1, 3)),
        thing(b"fifo", EntryKind::Fifo, 0o600),
        with(thing(b"symlink", EntryKind::Symlink, 0o777), |entry| entry.target = b"../caf\xe9".to_vec()),
    ];
    attributes(&mut things.iter_mut().find(|thing| thing.entry.name == b"attributes").unwrap().entry);
    things.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    things
}

type Store<'a> = &'a mut dyn FnMut(&[u8], ChunkKind) -> ChunkId;

/// Cuts, lists and pages as a backup does; returns the root and fills in the entries' content.
fn store(repo: &Repository, things: &mut [Thing], store_chunk: Store) -> ChunkId {
    for thing in things.iter_mut() {
        let kind = if thing.entry.kind == EntryKind::Stream { ContentKind::Dump } else { ContentKind::SmallFile };
        thing.entry.content = match thing.entry.kind {
            EntryKind::Directory => Content::Tree(store(repo, &mut thing.below, store_chunk)),
            _ if thing.bytes.is_empty() => Content::Empty,
            _ if thing.bytes.len() <= 32 => Content::Inline(thing.bytes.clone()),
            _ => {
                let mut list = ListWriter::default();
                let mut rest = thing.bytes.as_slice();
                while let Some(length) = repo.chunker().cut(kind, rest, true) {
                    let id = store_chunk(&rest[..length], ChunkKind::Content);
                    list.push(ListItem { id, bytes: length as u64 }, &mut |bytes| {
                        Ok(store_chunk(&bytes, ChunkKind::Tree))
                    })
                    .unwrap();
                    rest = &rest[length..];
                }
                match list.direct() {
                    Some(chunks) if chunks.len() <= CHUNKS_DIRECT_MAX => {
                        Content::Chunks(chunks.iter().map(|chunk| chunk.id).collect())
                    }
                    _ => {
                        let (depth, root) = list.finish(&mut |bytes| Ok(store_chunk(&bytes, ChunkKind::Tree))).unwrap();
                        Content::List { depth, root }
                    }
                }
            }
        };
    }
    let entries: Vec<Entry> = things.iter().map(|thing| thing.entry.clone()).collect();
    let mut pages = Vec::new();
    let mut rest = entries.as_slice();
    for length in page_lengths(0, entries.iter().map(|entry| entry.name.as_slice())) {
        let (page, after) = rest.split_at(length);
        pages.push((
            page[0].name.clone(),
            store_page(page, &mut |bytes| Ok(store_chunk(&bytes, ChunkKind::Tree))).unwrap(),
        ));
        rest = after;
    }
    store_root(pages, &mut |bytes| Ok(store_chunk(&bytes, ChunkKind::Tree))).unwrap()
}

/// What must never change: ids and cuts under the golden repository's keys.
fn vectors(repo: &Repository, root: &ChunkId, recovery: &str) -> BTreeMap<String, String> {
    let mut vectors = BTreeMap::new();
    let mut put = |name: &str, value: String| vectors.insert(name.to_owned(), value);
    put("format", FORMAT_VERSION.to_string());
    put("recovery", recovery.to_owned());
    put("root", root.to_hex());
    for (name, bytes) in [("nothing", vec![]), ("abc", b"abc".to_vec()), ("noise", noise(8192, 1))] {
        put(&format!("content-id-of-{name}"), repo.keys().chunk_id(ChunkKind::Content, &bytes).to_hex());
        put(&format!("tree-id-of-{name}"), repo.keys().chunk_id(ChunkKind::Tree, &bytes).to_hex());
    }
    let bytes = noise(200_000, 9);
    let kinds = [
        ("small-file", ContentKind::SmallFile),
        ("large-file", ContentKind::LargeFile),
        ("dump", ContentKind::Dump),
        ("pages", ContentKind::Pages),
    ];
    for (name, kind) in kinds {
        let (mut lengths, mut at) = (String::new(), 0);
        while let Some(length) = repo.chunker().cut(kind, &bytes[at..], true) {
            write!(lengths, "{length} ").unwrap();
            at += length;
        }
        put(&format!("cuts-of-{name}"), lengths.trim_end().to_owned());
    }
    vectors
}

fn snapshot(root: ChunkId) -> Snapshot {
    let stamp = |nanoseconds| Stamp { seconds: 1_700_000_000, nanoseconds, offset: 3600 };
    Snapshot {
        version: 1,
        id: SnapshotId(*b"golden snapshot\x01"),
        started: stamp(1),
        ended: stamp(999_999_999),
        host: "golden".to_owned(),
        user: "ada".to_owned(),
        job: "every night".to_owned(),
        tags: vec!["kept".to_owned()],
        program: "silt 0.1.0".to_owned(),
        sources: vec![
            SnapshotSource::Tree { path: PathText(b"/caf\xe9".to_vec()) },
            SnapshotSource::Stream { name: PathText(b"database/dump.sql".to_vec()), command: Some("dump".to_owned()) },
        ],
        root,
        root_directory: None,
        lacks_trusted: false,
        origin: None,
        all_sources: None,
        totals: Totals { files: 232, bytes: 1 << 33, ..Totals::default() },
        warnings: vec![],
        warnings_count: 0,
    }
}

fn open(storage: Arc<dyn Storage>, credentials: &Credentials) -> (Repository, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    (Repository::open(storage, credentials, cache.path(), &Watch::silent()).unwrap(), cache)
}

#[test]
#[ignore = "writes tests/golden/v1 anew"]
fn make_golden() {
    let place = folder().join("repository");
    let _older = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Folder(place));
    let options = InitOptions {
        credentials: Credentials::password("golden"),
        cost: PasswordCost { memory_kib: 1024, passes: 1, lanes: 1 },
        chunks: ChunkTable::default(),
        single_writer: false,
        capabilities: storage.capabilities(),
    };
    let recovery = Repository::init(storage.as_ref(), &options).unwrap();
    let (repo, _cache) = open(storage, &options.credentials);
    let options = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 64 << 20 };
    let writer = repo.writer("host", &options, &Watch::silent()).unwrap();
    let root = store(&repo, &mut things(), &mut |bytes, kind| match kind {
        ChunkKind::Content => writer.sink().store_content(0, bytes).unwrap(),
        ChunkKind::Tree => writer.sink().store_tree(0, bytes).unwrap(),
    });
    writer.commit(&snapshot(root)).unwrap();
    let text: String = vectors(&repo, &root, &recovery.to_text()).iter().map(|(k, v)| format!("{k}: {v}\n")).collect();
    fs::write(folder().join("vectors.txt"), text).unwrap();
}

fn compare(repo: &Repository, root: &ChunkId, expected: &[Thing]) {
    let reader = repo.reader();
    let found = reader.directory(root).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(*found, expected.entry);
        assert_eq!(reader.lookup(root, &found.name).unwrap().as_ref(), Some(found));
        match &found.content {
            Content::Tree(below) => compare(repo, below, &expected.below),
            Content::Inline(bytes) => assert_eq!(*bytes, expected.bytes),
            _ => {
                let mut bytes = Vec::new();
                let mut each = |id: &ChunkId| {
                    bytes.extend_from_slice(&reader.content(id)?);
                    Ok(())
                };
                reader.for_each_chunk(found, &mut each).unwrap();
                assert!(bytes == expected.bytes, "{found:?}");
            }
        }
    }
}

#[test]
fn the_golden_repository_is_read_whole_and_todays_writer_would_write_the_same() {
    let recorded: BTreeMap<String, String> = fs::read_to_string(folder().join("vectors.txt"))
        .unwrap()
        .lines()
        .map(|line| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
        .collect();
    assert_eq!(FORMAT_VERSION, 1, "a new format needs a golden repository of its own beside this one");
    let recovery = Secret::from_text(&recorded["recovery"]).unwrap();
    let by_paper = Credentials { recovery: Some(recovery), ..Credentials::default() };
    for credentials in [Credentials::password("golden"), by_paper] {
        let storage: Arc<dyn Storage> = Arc::new(Folder(folder().join("repository")));
        let (repo, _cache) = open(storage, &credentials);
        assert_eq!(repo.config().chunks, ChunkTable::default(), "default chunk sizes changed: remake or record it");
        let mut expected = things();
        let keys = repo.keys().clone();
        let root = store(&repo, &mut expected, &mut |bytes, kind| keys.chunk_id(kind, bytes));
        assert_eq!(vectors(&repo, &root, &recorded["recovery"]), recorded);
        let snapshots = repo.snapshots(&Watch::silent()).unwrap();
        assert_eq!(snapshots, [snapshot(root)]);
        compare(&repo, &root, &expected);
    }
}
