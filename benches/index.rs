//! Measure the chunk index: building, lookups and memory. SILT_BENCH_CHUNKS sets how many chunks (2,000,000),
//! SILT_BENCH_DIR a directory to keep and use again.

use siltstone::error::Result;
use siltstone::id::{ChunkId, IndexId, PackId};
use siltstone::index::{Claims, IndexView, Segments};
use siltstone::place::{FrameContents, IndexContents, PackContents};
use std::path::PathBuf;
use std::time::Instant;

const CHUNKS_PER_FRAME: u64 = 128;
const FRAMES_PER_PACK: u64 = 64;
const LOOKUPS: u64 = 10_000_000;

/// Ids that cost less to make than to look up.
fn id(number: u64) -> ChunkId {
    let mut bytes = [0; 24];
    for (turn, slot) in bytes.chunks_exact_mut(8).enumerate() {
        slot.copy_from_slice(&mix(number.wrapping_mul(3).wrapping_add(turn as u64)).to_le_bytes());
    }
    ChunkId(bytes)
}

fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pack(number: u64, chunks: u64) -> PackContents {
    let first = number * CHUNKS_PER_FRAME * FRAMES_PER_PACK;
    let frame = |frame: u64| {
        let start = first + frame * CHUNKS_PER_FRAME;
        let ids = start..(start + CHUNKS_PER_FRAME).min(chunks);
        FrameContents { stored: 400_000, raw: 1 << 20, chunks: ids.map(|number| (id(number), 8192)).collect() }
    };
    let frames = (0..FRAMES_PER_PACK).map(frame).filter(|frame| !frame.chunks.is_empty()).collect();
    PackContents {
        pack: PackId(*blake3_like(number)),
        kind: siltstone::id::ChunkKind::Content,
        stored_bytes: 1 << 26,
        data_offset: 64,
        frames,
    }
}

fn blake3_like(number: u64) -> Box<[u8; 32]> {
    let mut bytes = Box::new([0; 32]);
    for (turn, slot) in bytes.chunks_exact_mut(8).enumerate() {
        slot.copy_from_slice(&mix(!number.wrapping_mul(4).wrapping_add(turn as u64)).to_le_bytes());
    }
    bytes
}

fn status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(": ?");
    line.trim_start_matches(':').trim().to_owned()
}

/// Time on the wall, and of this thread on a processor: machines are shared.
struct Clock(Instant, f64);

impl Clock {
    fn now() -> Self {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanoseconds = times.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
        Clock(Instant::now(), nanoseconds / 1e9)
    }
}

fn large_pages() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = maps.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn rate(what: &str, count: u64, start: Clock) {
    let (wall, cpu) = (start.0.elapsed().as_secs_f64(), Clock::now().1 - start.1);
    let rate = |seconds: f64| count as f64 / seconds / 1e6;
    println!(
        "{what}: {:.2} M/s, {:.2} M/s a core ({count} in {wall:.2} s, {cpu:.2} s of a core)",
        rate(wall),
        rate(cpu)
    );
}

fn measure(view: &IndexView, chunks: u64) -> Result<()> {
    let absent = |from: u64| (from..from + LOOKUPS).map(move |number| id(chunks + number));
    let known = |seed: u64| (seed..seed + LOOKUPS).map(move |number| id(mix(number) % chunks));
    let start = Clock::now();
    let found = absent(0).filter(|id| view.contains(id).is_ok_and(|known| known)).count();
    rate("absent, first pass (blocks behind false positives are verified)", LOOKUPS, start);
    println!("  found {found}; RssAnon {}", status("RssAnon"));
    for pass in 0..2 {
        let start = Clock::now();
        let found = known(pass * LOOKUPS).filter(|id| view.contains(id).is_ok_and(|known| known)).count();
        rate(["known, blocks verified on the way", "known, warm"][pass as usize], LOOKUPS, start);
        println!("  found {found}");
    }
    let start = Clock::now();
    let found = known(LOOKUPS).filter(|id| view.locate(id).is_ok_and(|place| place.is_some())).count();
    rate("located, warm", LOOKUPS, start);
    println!("  found {found}");
    let start = Clock::now();
    let found = absent(LOOKUPS).filter(|id| view.contains(id).is_ok_and(|known| known)).count();
    rate("absent, warm", LOOKUPS, start);
    println!("  found {found}");
    for (what, ids) in [("absent", absent(0).collect::<Vec<_>>()), ("known", known(LOOKUPS).collect())] {
        let start = Clock::now();
        let mut found = 0;
        for ids in ids.chunks(256) {
            found += view.contains_each(ids)?.into_iter().filter(|known| *known).count();
        }
        rate(&format!("{what}, 256 at a time, warm"), LOOKUPS, start);
        println!("  found {found}");
    }
    let start = Clock::now();
    let sum = absent(0).fold(0, |sum, id| sum ^ id.0[7]);
    rate("making ids alone, which the others do too", LOOKUPS, start);
    println!("  sum {sum}");
    Ok(())
}

fn indexed(index: IndexId, pack: PackContents) -> IndexContents {
    IndexContents { index, bytes: 1, packs: vec![pack] }
}

fn main() -> Result<()> {
    let chunks = std::env::var("SILT_BENCH_CHUNKS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000u64);
    if let Some(folder) = std::env::var_os("SILT_BENCH_FOLDER") {
        return run(chunks, folder.into());
    }
    let folder = std::env::temp_dir().join(format!("silt-bench-index-{}", std::process::id()));
    let outcome = run(chunks, folder.clone());
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

fn run(chunks: u64, folder: PathBuf) -> Result<()> {
    let packs = chunks.div_ceil(CHUNKS_PER_FRAME * FRAMES_PER_PACK);
    let (mut segments, _) = Segments::open(&folder)?;
    let start = Clock::now();
    // What an earlier run added to a folder that was kept.
    segments.use_only((0..packs).map(|number| (IndexId(*blake3_like(number)), 1)).collect(), None)?;
    let fresh = if segments.covered().is_empty() { packs } else { 0 };
    segments.add_all((0..fresh).map(|number| Ok(indexed(IndexId(*blake3_like(number)), pack(number, chunks)))))?;
    rate("built", fresh.min(1) * chunks, start);
    println!("  peak RSS {} (mapped files included), RssAnon {}", status("VmHWM"), status("RssAnon"));
    drop(segments);
    let start = Clock::now();
    let (mut segments, _) = Segments::open(&folder)?;
    println!("opened in {:.3} s", start.0.elapsed().as_secs_f64());
    for segment in segments.view().segments() {
        let bits = segment.filter_bytes() as f64 * 8.0 / segment.chunks_count().max(1) as f64;
        println!(
            "  {} chunks, filters {} kB ({bits:.2} bits a chunk)",
            segment.chunks_count(),
            segment.filter_bytes() / 1000
        );
        println!("  tables {} kB", segment.table_bytes() / 1000);
    }
    println!("  RssAnon {}, RssFile {}", status("RssAnon"), status("RssFile"));
    println!("  of it in large pages {} kB", large_pages());
    measure(&segments.view(), chunks)?;
    println!("with 4 small segments beside it:");
    for run in 1..=4 {
        let number = packs * 2 + run;
        segments.add(&[indexed(IndexId([run as u8; 32]), pack(number, u64::MAX))])?;
    }
    let start = Clock::now();
    let view = segments.view();
    let count = (0..LOOKUPS).filter(|number| view.contains(&id(chunks * 8 + number)).is_ok_and(|known| known)).count();
    rate("absent", LOOKUPS, start);
    println!("  found {count}");
    let ids: Vec<_> = (0..LOOKUPS).map(|number| id(chunks * 8 + number)).collect();
    let start = Clock::now();
    let mut count = 0;
    for ids in ids.chunks(256) {
        count += view.contains_each(ids)?.into_iter().filter(|known| *known).count();
    }
    rate("absent, 256 at a time", LOOKUPS, start);
    println!("  found {count}");
    let claims = Claims::new(view);
    let start = Clock::now();
    let count = (0..LOOKUPS / 10).filter(|number| claims.claim(&id(chunks * 8 + number)).is_ok()).count();
    rate("claims of absent chunks", count as u64, start);
    println!("  RssAnon {}, RssFile {}", status("RssAnon"), status("RssFile"));
    Ok(())
}
