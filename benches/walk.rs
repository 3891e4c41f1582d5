//! How fast a tree is walked: every entry listed, sorted and stat'ed, beside `find -printf` in the same minutes.
//!
//! SILT_BENCH_TREE names a tree (else one of 100,000 files is made), SILT_BENCH_THREADS the threads (default 2),
//! SILT_BENCH_ROUNDS the rounds (default 7). Prints medians: seconds, entries a second, the ratio to find.

use siltstone::disk::{Directory, ListBuffer, NameList, OpenHint, raise_open_files};
use siltstone::entry::EntryKind;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// A directory of more names is shared out in parts of this many.
const PART_NAMES: usize = 4096;

enum Work {
    /// A directory by its name in another.
    Open(Arc<Directory>, CString),
    /// A part of a large directory.
    Part(Arc<(Arc<Directory>, NameList)>, std::ops::Range<usize>),
}

/// Work for idle threads, and how many threads have none.
#[derive(Default)]
struct Shared {
    state: Mutex<(Vec<Work>, usize)>,
    woken: Condvar,
    idle: AtomicUsize,
}

#[derive(Default)]
struct Sums {
    entries: u64,
    bytes: u64,
    /// So that the stats are used.
    mixed: u64,
}

fn walk(root: &Path, threads: usize) -> Sums {
    let root = Arc::new(Directory::open_path(root.as_os_str().as_bytes()).expect("the root opens"));
    let shared = Shared::default();
    shared.state.lock().expect("no thread has panicked").0.push(Work::Open(root, c".".to_owned()));
    let total = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let sums = work(&shared, threads);
                let mut total = total.lock().expect("no thread has panicked");
                total.entries += sums.entries;
                total.bytes += sums.bytes;
                total.mixed ^= sums.mixed;
            });
        }
    });
    total.into_inner().expect("no thread has panicked")
}

fn work(shared: &Shared, threads: usize) -> Sums {
    let mut sums = Sums::default();
    let (mut names, mut buffer, mut own) = (NameList::default(), ListBuffer::default(), Vec::new());
    while let Some(work) = own.pop().or_else(|| wait(shared, threads)) {
        match work {
            Work::Open(above, name) => {
                let Ok(directory) = above.open_child(name.as_c_str()) else { continue };
                directory.names(&mut names, &mut buffer).expect("an open directory lists");
                let directory = Arc::new(directory);
                if names.iter().count() > PART_NAMES {
                    let length = names.iter().count();
                    let large = Arc::new((directory, std::mem::take(&mut names)));
                    for from in (0..length).step_by(PART_NAMES) {
                        own.push(Work::Part(large.clone(), from..length.min(from + PART_NAMES)));
                    }
                } else {
                    part(&directory, &names, 0..names.iter().count(), &mut sums, &mut own);
                }
            }
            Work::Part(large, range) => part(&large.0, &large.1, range, &mut sums, &mut own),
        }
        // Half of it for the idle; from the bottom, where the largest subtrees are.
        if own.len() > 1 && shared.idle.load(Ordering::Relaxed) > 0 {
            let half = own.len() / 2;
            shared.state.lock().expect("no thread has panicked").0.extend(own.drain(..half));
            shared.woken.notify_all();
        }
    }
    sums
}

fn wait(shared: &Shared, threads: usize) -> Option<Work> {
    let mut state = shared.state.lock().expect("no thread has panicked");
    if let Some(work) = state.0.pop() {
        return Some(work);
    }
    state.1 += 1;
    shared.idle.store(state.1, Ordering::Relaxed);
    if state.1 == threads {
        shared.woken.notify_all();
    }
    loop {
        if let Some(work) = state.0.pop() {
            state.1 -= 1;
            shared.idle.store(state.1, Ordering::Relaxed);
            return Some(work);
        }
        if state.1 == threads {
            return None;
        }
        state = shared.woken.wait(state).expect("no thread has panicked");
    }
}

#[inline]
fn part(dir: &Arc<Directory>, names: &NameList, range: std::ops::Range<usize>, sums: &mut Sums, own: &mut Vec<Work>) {
    for index in range {
        let name = names.get(index);
        let Ok(stat) = dir.stat(name) else { continue };
        sums.entries += 1;
        sums.bytes += stat.size;
        sums.mixed ^= stat.inode ^ stat.modified.seconds as u64 ^ u64::from(stat.changed.nanoseconds);
        if names.hint(index) == OpenHint::Directory || stat.is(EntryKind::Directory) {
            own.push(Work::Open(dir.clone(), name.to_owned()));
        }
    }
}

fn find(root: &Path) {
    let mut find = Command::new("find");
    find.arg(root).args(["-printf", "%p %s %T@ %C@ %i\\n"]).stdout(Stdio::null());
    assert!(find.status().expect("find runs").success());
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    // `cargo test --benches` and the like ask for a list or a quick pass.
    let measured = std::env::args().any(|word| word == "--bench");
    let made = tempfile::tempdir().expect("a temporary folder");
    let root = match std::env::var_os("SILT_BENCH_TREE") {
        Some(root) => PathBuf::from(root),
        None => {
            for folder in 0..if measured { 1000 } else { 10 } {
                let folder = made.path().join(format!("folder-{folder}"));
                std::fs::create_dir(&folder).expect("a folder");
                (0..100).for_each(|file| std::fs::write(folder.join(format!("file-{file}")), b"x").expect("a file"));
            }
            made.path().to_owned()
        }
    };
    let (threads, rounds) =
        (number("SILT_BENCH_THREADS", 2), number("SILT_BENCH_ROUNDS", if measured { 7 } else { 1 }));
    raise_open_files();
    let (entries, bytes) = (walk(&root, threads).entries, walk(&root, 1).bytes);
    let (mut ours, mut single, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (threads, times) in [(threads, &mut ours), (1, &mut single)] {
            let start = Instant::now();
            assert_eq!(std::hint::black_box(walk(&root, threads)).entries, entries);
            times.push(start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        find(&root);
        theirs.push(start.elapsed().as_secs_f64());
    }
    let (ours, single, theirs) = (median(ours), median(single), median(theirs));
    println!("{entries} entries, {bytes} bytes");
    for (what, seconds) in [(format!("{threads} threads"), ours), ("1 thread".into(), single), ("find".into(), theirs)]
    {
        let per_second = entries as f64 / seconds;
        println!("{what:10} {seconds:7.3} s  {per_second:10.0} entries/s  {:5.2} x find", seconds / theirs);
    }
}
