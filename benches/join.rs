//! A new host joins a large repository: how long the index takes to arrive, and the memory that this needs at most.
//!
//! SILT_BENCH_CHUNKS is how many chunks the repository has (10,000,000). Its index is made in SILT_BENCH_DIR (a temporary directory): 25
//! bytes a chunk, and the local index as much again and half.

use siltstone::chunk::ChunkTable;
use siltstone::format::encode_index;
use siltstone::id::{ChunkId, ChunkKind, PackId};
use siltstone::place::{FrameContents, PackContents};
use siltstone::repo::{Credentials, InitOptions, Repository};
use siltstone::seal::{KeySet, PACK_HEADER_BYTES, PasswordCost, Recipients, Secret, seal_object};
use siltstone::storage::{Local, Storage};
use siltstone::watch::Watch;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHUNKS_IN_FRAME: usize = 256;
const FRAMES_IN_PACK: usize = 16;

/// As many as one index object describes.
const CHUNKS_AT_ONCE: usize = 256 * 1024;

fn main() {
    if let Some(folder) = std::env::var_os("SILT_BENCH_JOIN") {
        return join(Path::new(&folder));
    }
    let chunks = std::env::var("SILT_BENCH_CHUNKS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let place = match std::env::var_os("SILT_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let place = place.expect("a folder to work in");
    make(place.path(), chunks);
    // A process of its own, whose memory is that of joining alone.
    let program = std::env::current_exe().expect("this program has a path");
    let status = std::process::Command::new(program).env("SILT_BENCH_JOIN", place.path()).status();
    assert!(status.expect("it starts").success());
}

fn credentials() -> Credentials {
    Credentials::key_file(Secret([1; 32]))
}

fn make(folder: &Path, chunks: usize) {
    let storage = Local::create(&folder.join("repository")).expect("the repository's folder is made");
    let made = InitOptions {
        credentials: credentials(),
        cost: PasswordCost::DEFAULT,
        chunks: ChunkTable::default(),
        single_writer: false,
        capabilities: storage.capabilities(),
    };
    let master = Repository::init(&storage, &made).expect("the repository is made");
    let keys = KeySet::from_master(master);
    let mut names = blake3::Hasher::new().finalize_xof();
    let per_pack = CHUNKS_IN_FRAME * FRAMES_IN_PACK;
    let begun = Instant::now();
    for first in (0..chunks).step_by(CHUNKS_AT_ONCE) {
        let count = CHUNKS_AT_ONCE.min(chunks - first);
        let packs: Vec<PackContents> = (0..count.div_ceil(per_pack)).map(|_| pack(&mut names)).collect();
        let body = seal_object(&keys, Recipients::Writers, "index", &encode_index(&packs)).expect("it is sealed");
        let name = format!("index/{}", blake3::hash(&body));
        storage.put(&name, body.into()).expect("it is put");
    }
    println!("{chunks} chunks in packs/ described in {:.0} s", begun.elapsed().as_secs_f64());
}

/// A pack as an index object describes it; nothing of it is stored.
fn pack(names: &mut blake3::OutputReader) -> PackContents {
    let mut id = [0; 32];
    names.fill(&mut id);
    let mut chunk = || {
        let mut bytes = [0; ChunkId::BYTES];
        names.fill(&mut bytes);
        (ChunkId(bytes), 8192)
    };
    let frames: Vec<FrameContents> = (0..FRAMES_IN_PACK)
        .map(|_| {
            let chunks: Vec<(ChunkId, u32)> = (0..CHUNKS_IN_FRAME).map(|_| chunk()).collect();
            FrameContents { stored: 1 << 20, raw: 8192 * CHUNKS_IN_FRAME as u32, chunks }
        })
        .collect();
    PackContents {
        pack: PackId(id),
        kind: ChunkKind::Content,
        stored_bytes: PACK_HEADER_BYTES as u64 + (FRAMES_IN_PACK << 20) as u64 + 4096,
        data_offset: PACK_HEADER_BYTES as u32,
        frames,
    }
}

fn join(folder: &Path) {
    let storage = Arc::new(Local::open(&folder.join("repository")).expect("the repository's folder is there"));
    for what in ["first", "again"] {
        let (begun, is_done) = (Instant::now(), AtomicBool::new(false));
        let peak = std::thread::scope(|scope| {
            let sampled = scope.spawn(|| {
                let mut peak = 0;
                while !is_done.load(Ordering::Relaxed) {
                    peak = peak.max(anonymous_mebibytes());
                    std::thread::sleep(Duration::from_millis(5));
                }
                peak
            });
            let repo = Repository::open(storage.clone(), &credentials(), &folder.join("cache"), &Watch::silent());
            drop(repo.expect("it opens"));
            is_done.store(true, Ordering::Relaxed);
            sampled.join().expect("it samples")
        });
        println!("opened {what} in {:.1} s; {peak} MiB of anonymous memory at most", begun.elapsed().as_secs_f64());
    }
}

/// What mapped files take is the page cache's, and free when another program needs it.
fn anonymous_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system says it");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
}
