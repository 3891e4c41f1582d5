//! What many snapshots cost: looking into the newest one, listing all, and a backup, over storage of 50 ms a request.
//!
//! SILT_BENCH_SNAPSHOTS is how many there are (10,000); medians of five.

use siltstone::backup::BackupOptions;
use siltstone::browse::{Filter, list};
use siltstone::chunk::ChunkTable;
use siltstone::id::SnapshotId;
use siltstone::repo::{Credentials, InitOptions, Repository};
use siltstone::seal::{PasswordCost, Recipients, Secret, seal_object};
use siltstone::storage::{Delayed, Memory, Storage, probe};
use siltstone::watch::Watch;
use siltstone::when::Selector;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(50);
const HOSTS: usize = 50;

fn main() {
    let count = std::env::var("SILT_BENCH_SNAPSHOTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let work = tempfile::tempdir().expect("a folder to work in");
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).expect("the tree is made");
    std::fs::write(tree.join("file"), "content").expect("a file is written");
    println!("{:40} {:>12} {:>12}", "", "1 snapshot", format!("{count} snapshots"));
    let figures = [1, count].map(|count| measure(count, work.path(), &tree));
    for ((what, one), (_, many)) in figures[0].iter().zip(&figures[1]) {
        println!("{what:40} {:>10.3} s {:>10.3} s", one, many);
    }
}

/// Seconds that each thing takes.
fn measure(count: usize, work: &Path, tree: &Path) -> Vec<(&'static str, f64)> {
    let storage = Memory::new();
    let credentials = Credentials::key_file(Secret([1; 32]));
    let made = InitOptions {
        credentials: credentials.clone(),
        cost: PasswordCost::DEFAULT,
        chunks: ChunkTable::default(),
        single_writer: false,
        capabilities: probe(&storage).expect("it is probed"),
    };
    Repository::init(&storage, &made).expect("the repository is made");
    let caches = work.join(format!("caches-{count}"));
    fill(&storage, &credentials, count, tree, &caches.join("filling"));
    let remote: Arc<dyn Storage> = Arc::new(Delayed::new(Arc::new(storage), DELAY));
    let open = |cache: &str| {
        Repository::open(remote.clone(), &credentials, &caches.join(cache), &Watch::silent()).expect("it opens")
    };
    let latest = |repo: &Repository, filter: &Filter| {
        let watch = Watch::silent();
        let snapshot = repo.select(&Selector::Latest { back: 0 }, filter, &watch).expect("there is one");
        let mut entries = 0;
        list(&repo.reader(), &snapshot, b"/", false, &mut |_, _| {
            entries += 1;
            Ok(())
        })
        .expect("it is listed");
        assert!(entries > 0);
    };
    let host = Filter { host: Some("host0".to_owned()), ..Filter::default() };
    let backup = |cache: &str, host: &str| {
        let options = BackupOptions::new(vec![tree.to_owned()], host);
        open(cache).backup(options, &Watch::silent()).expect("it is backed up");
    };
    let mut figures = vec![("ls latest:/, empty cache", once(|| latest(&open("ls"), &Filter::default())))];
    figures.push(("ls latest:/, warm cache", median(|| latest(&open("ls"), &Filter::default()))));
    figures.push(("ls latest:/ --host, warm cache", median(|| latest(&open("ls"), &host))));
    figures.push(("all snapshots, empty cache", once(|| assert!(open("all").snapshots(&Watch::silent()).is_ok()))));
    figures.push(("all snapshots, warm cache", median(|| assert!(open("all").snapshots(&Watch::silent()).is_ok()))));
    figures.push(("first backup of a host", once(|| backup("new", "another"))));
    figures.push(("unchanged backup", median(|| backup("new", "another"))));
    figures
}

/// Adds snapshots of several hosts, all of one backup.
fn fill(storage: &Memory, credentials: &Credentials, count: usize, tree: &Path, cache: &Path) {
    let watch = Watch::silent();
    let repo = Repository::open(Arc::new(storage.clone()), credentials, cache, &watch).expect("it opens");
    let report = repo.backup(BackupOptions::new(vec![tree.to_owned()], "host0"), &watch).expect("it is backed up");
    let first = report.snapshot.expect("a snapshot was made");
    for number in 1..count {
        let mut snapshot = first.clone();
        snapshot.id = SnapshotId(blake3::hash(&number.to_le_bytes()).as_bytes()[..16].try_into().expect("16 bytes"));
        // One each half an hour, the newest a day ago.
        let back = 86_400 + 1800 * number as i64;
        snapshot.started.seconds -= back;
        snapshot.ended.seconds -= back;
        snapshot.host = format!("host{}", number % HOSTS);
        let name = format!("snapshots/{}-{}", snapshot.started.compact().expect("a time of today"), snapshot.id);
        let body = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", &snapshot.encode());
        storage.put(&name, body.expect("it is sealed").into()).expect("it is put");
    }
}

fn once(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64()
}

fn median(act: impl Fn()) -> f64 {
    let mut seconds: Vec<f64> = (0..5).map(|_| once(&act)).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[2]
}
