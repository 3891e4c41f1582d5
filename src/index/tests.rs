//! The local chunk index: never a wrong place, whatever happens to its files and whichever processes share them.

#![cfg(test)]

use super::segment_builder::SegmentBuilder;
use super::segment_merge::merge_into;
use super::segment_place::SegmentPlace;
use super::{Claim, Claims, Segment, Segments};
use crate::error::{Kind, Result};
use crate::id::{ChunkId, ChunkKind, IndexId, PackId};
use crate::place::{FrameContents, IndexContents, Located, PackContents};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn write_segment(path: &Path, packs: &[PackContents]) -> Result<()> {
    let mut builder = SegmentBuilder::at(SegmentPlace::File(path.to_owned()));
    packs.iter().try_for_each(|pack| builder.push(pack))?;
    builder.finish().map(|_| ())
}

fn merge(segments: &[Arc<Segment>], out: &Path) -> Result<()> {
    merge_into(segments, SegmentPlace::File(out.to_owned())).map(|_| ())
}

fn hash(what: &str, number: u64) -> [u8; 32] {
    *blake3::hash(format!("{what} {number}").as_bytes()).as_bytes()
}

fn id(number: u64) -> ChunkId {
    ChunkId::from_slice(&hash("chunk", number)[..24]).expect("24 bytes make an id")
}

fn indexed(number: u64, packs: Vec<PackContents>) -> IndexContents {
    IndexContents { index: index(number), bytes: 7, packs }
}

fn index(number: u64) -> IndexId {
    IndexId(hash("index", number))
}

/// A pack of frames of three chunks each.
fn pack_of(number: u64, ids: &[ChunkId]) -> PackContents {
    let frame = |ids: &[ChunkId]| {
        let chunks: Vec<_> = ids.iter().map(|id| (*id, 100 + u32::from(id.0[5]))).collect();
        FrameContents { stored: 200, raw: chunks.iter().map(|chunk| chunk.1).sum(), chunks }
    };
    let frames: Vec<_> = ids.chunks(3).map(frame).collect();
    let stored_bytes = 40 + 200 * frames.len() as u64 + 100;
    PackContents {
        pack: PackId(hash("pack", number)),
        kind: ChunkKind::from_flag(number as u8),
        stored_bytes,
        data_offset: 40,
        frames,
    }
}

fn pack(number: u64, chunks: std::ops::Range<u64>) -> PackContents {
    pack_of(number, &chunks.map(id).collect::<Vec<_>>())
}

#[test]
fn the_frames_around_a_chunk_are_those_of_its_pack() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut set, _) = Segments::open(folder.path())?;
    let packs: Vec<_> = (0..5).map(|n| pack(n, n * 100..n * 100 + 30)).collect();
    set.add(&[indexed(1, packs[..3].to_vec())])?;
    set.add(&[indexed(2, packs[3..].to_vec())])?;
    let view = set.view();
    for n in [0, 101, 229, 315, 400] {
        let found = view.frames_within(&id(n), &(240..1040))?;
        let numbers: Vec<_> = found.iter().map(|frame| (frame.number, frame.offset, frame.stored)).collect();
        assert_eq!(numbers, [(1, 240, 200), (2, 440, 200), (3, 640, 200), (4, 840, 200)]);
        assert_eq!(view.frames_within(&id(n), &(0..u64::MAX))?.len(), 10);
    }
    assert!(view.frames_within(&id(99), &(0..u64::MAX))?.is_empty(), "nobody has stored it");
    Ok(())
}

/// Every place that the packs give each chunk, worked out without any index.
fn places(packs: &[PackContents]) -> HashMap<ChunkId, Vec<Located>> {
    let mut places: HashMap<ChunkId, Vec<Located>> = HashMap::new();
    for contents in packs {
        let mut frame_offset = contents.data_offset;
        for (number, frame) in contents.frames.iter().enumerate() {
            let mut offset = 0;
            for (id, length) in &frame.chunks {
                places.entry(*id).or_default().push(Located {
                    pack: contents.pack,
                    frame_offset,
                    frame_stored: frame.stored,
                    frame_raw: frame.raw,
                    frame_number: number as u32,
                    offset,
                    length: *length,
                    kind: contents.kind,
                });
                offset += length;
            }
            frame_offset += frame.stored;
        }
    }
    places
}

fn agrees(segment: &Segment, packs: &[PackContents]) -> Result<()> {
    let places = places(packs);
    assert_eq!(segment.chunks_count(), places.len() as u64);
    for (id, places) in &places {
        assert_eq!(segment.locate(id)?.as_ref(), places.first(), "of several places the earliest is kept");
        assert!(segment.contains(id)?);
    }
    for number in 0..1000 {
        assert_eq!(segment.locate(&id(1 << 40 | number))?, None);
    }
    Ok(())
}

#[test]
fn what_was_written_is_found_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    for (turn, count) in [0, 1, 2, 3, 255, 256, 257, 5000, 70_000, 200_000].into_iter().enumerate() {
        let path = folder.path().join(turn.to_string());
        let packs: Vec<_> =
            (0..3).map(|number| pack(number, number * count / 4..number * count / 4 + count / 2)).collect();
        write_segment(&path, &packs)?;
        agrees(&Segment::open(&path)?, &packs)?;
    }
    Ok(())
}

#[test]
fn ids_that_somebody_chose_are_found_too() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    // All alike in the bytes that sort keys, shards and filters are made of; and the extremes.
    let alike = |byte: u8| {
        (0..2000u64).map(move |number| {
            let mut bytes = [byte; 24];
            bytes[16..].copy_from_slice(&number.to_be_bytes());
            ChunkId(bytes)
        })
    };
    let ids: Vec<_> = [0, 7, 255].into_iter().flat_map(alike).chain((0..3000).map(id)).collect();
    let packs = [pack_of(0, &ids), pack_of(1, &[ChunkId([0; 24]), ChunkId([255; 24])])];
    write_segment(&path, &packs)?;
    let segment = Segment::open(&path)?;
    agrees(&segment, &packs)?;
    for byte in [0, 7, 255, 8] {
        let mut bytes = [byte; 24];
        bytes[16] = 1;
        assert!(!segment.contains(&ChunkId(bytes))?);
    }
    Ok(())
}

#[test]
fn packs_that_contradict_themselves_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let breakages: [fn(&mut PackContents); 4] = [
        |pack| pack.frames[0].raw = 10,
        |pack| pack.frames[0].chunks[1].1 = u32::MAX,
        |pack| pack.frames[1].stored = u32::MAX,
        |pack| pack.stored_bytes = 50,
    ];
    for breakage in breakages {
        let mut bad = pack(0, 0..10);
        breakage(&mut bad);
        let error = write_segment(&path, &[bad]).expect_err("it must be refused");
        assert!(error.is(Kind::Corrupt));
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left behind");
    }
}

#[test]
fn a_merge_knows_what_its_inputs_knew() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    // The second input describes pack 1 again, the third contradicts it, the fourth repeats chunks in another pack.
    let inputs = [
        vec![pack(0, 0..2000), pack(1, 2000..2500)],
        vec![pack(2, 2500..2600), pack(1, 2000..2500)],
        vec![pack(1, 2400..2700)],
        vec![pack(3, 0..50)],
        vec![],
    ];
    let mut segments = Vec::new();
    for (number, packs) in inputs.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        write_segment(&path, packs)?;
        segments.push(Arc::new(Segment::open(&path)?));
    }
    let out = folder.path().join("out");
    merge(&segments, &out)?;
    agrees(&Segment::open(&out)?, &inputs.concat())?;
    merge(&[], &out)?;
    assert_eq!(Segment::open(&out)?.chunks_count(), 0);
    Ok(())
}

#[test]
fn every_damaged_byte_of_a_segment_is_noticed_or_harmless() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let packs = [pack(0, 0..200), pack(1, 200..330)];
    write_segment(&path, &packs)?;
    let good = fs::read(&path).expect("the segment");
    let places = places(&packs);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let error = match Segment::from_bytes(bad) {
            Err(error) => error,
            // Then it is in a block of entries: lookups that touch that block say so, the others are right.
            Ok(segment) => {
                let mut errors = Vec::new();
                for (id, places) in &places {
                    match segment.locate(id) {
                        Ok(found) => assert_eq!(found.as_ref(), places.first()),
                        Err(error) => errors.push(error),
                    }
                }
                errors.pop().unwrap_or_else(|| panic!("byte {at} went unnoticed"))
            }
        };
        assert!(error.is(Kind::Corrupt), "{error:?}");
    }
    for length in 0..good.len() {
        assert!(Segment::from_bytes(good[..length].to_vec()).is_err_and(|error| error.is(Kind::Corrupt)));
    }
    fs::write(&path, &good[..50]).expect("write");
    assert!(Segment::open(&path).is_err_and(|error| error.is(Kind::Corrupt)));
    Ok(())
}

#[test]
fn a_set_is_the_same_after_opening_again() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut set, notices) = Segments::open(folder.path())?;
    assert!(notices.is_empty() && set.covered().is_empty());
    let packs: Vec<_> = (0..40).map(|number| pack(number, number * 90..number * 90 + 100)).collect();
    for (number, pack) in packs.iter().enumerate() {
        set.add(&[indexed(number as u64, vec![pack.clone()])])?;
        assert!(set.view().segments().len() <= 10);
    }
    let (again, notices) = Segments::open(folder.path())?;
    assert!(notices.is_empty());
    for set in [&set, &again] {
        assert_eq!(set.covered().len(), 40);
        for (id, places) in &places(&packs) {
            assert!(places.contains(&set.view().locate(id)?.expect("it was added")));
        }
        assert!(!set.view().contains(&id(1 << 40))?);
        let ids: Vec<_> = (3000..4000).map(id).collect();
        for count in [0, 1, 7, 8, 15, 16, 17, 1000] {
            let one_by_one: Result<Vec<_>> = ids[..count].iter().map(|id| set.view().contains(id)).collect();
            assert_eq!(set.view().contains_each(&ids[..count])?, one_by_one?);
        }
    }
    let files = fs::read_dir(folder.path()).expect("the folder").count();
    assert!(files <= 10 + 3, "merged segments must be removed: {files} files");
    set.clear()?;
    assert!(!set.view().contains(&id(1))? && set.covered().is_empty());
    assert!(again.view().contains(&id(1))?, "who has them mapped keeps them");
    assert!(Segments::open(folder.path())?.0.covered().is_empty());
    Ok(())
}

#[test]
fn what_covers_an_index_object_of_another_size_is_dropped() -> Result<()> {
    let mut set = Segments::in_memory();
    set.add(&[indexed(0, vec![pack(0, 0..10)])])?;
    let before = set.basis();
    set.use_only(HashMap::from([(index(0), 6)]), None)?;
    assert!(!set.basis().includes(&before) && set.covered().is_empty());
    Ok(())
}

#[test]
fn what_covers_an_index_object_that_is_gone_is_dropped() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut set, _) = Segments::open(folder.path())?;
    set.add(&[indexed(0, vec![pack(0, 0..10)]), indexed(1, vec![pack(1, 10..20)])])?;
    set.add(&[indexed(2, vec![pack(2, 20..30)])])?;
    let before = set.basis();
    set.use_only(HashMap::from([(index(1), 7), (index(2), 7)]), None)?;
    assert!(!set.basis().includes(&before) && before.includes(&set.basis()));
    assert_eq!(set.to_be_added(), [index(1)]);
    assert_eq!(set.covered(), &HashSet::from([index(2)]));
    assert!(!set.view().contains(&id(5))? && set.view().contains(&id(25))?);
    Ok(())
}

fn the_segment_of(folder: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "segment")).expect("a segment")
}

/// Two sound files that took each other's place: what one covers was taken for known, although only the other one was left.
#[test]
fn segments_that_changed_places_leave_the_set() -> Result<()> {
    for is_copied in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut set, _) = Segments::open(folder.path())?;
        set.add(&[indexed(0, vec![pack(0, 0..10)])])?;
        let first = the_segment_of(folder.path());
        let aside = folder.path().join("aside");
        fs::rename(&first, &aside).expect("renamed");
        set.add(&[indexed(1, vec![pack(1, 20..30)])])?;
        let second = the_segment_of(folder.path());
        if is_copied {
            fs::copy(&second, &first).expect("copied");
        } else {
            fs::rename(&second, &first).expect("renamed");
            fs::rename(&aside, &second).expect("renamed");
        }
        let (set, notices) = Segments::open(folder.path())?;
        let expected = if is_copied { HashSet::from([index(1)]) } else { HashSet::new() };
        assert_eq!((notices.len(), set.covered()), (2 - usize::from(is_copied), &expected));
        assert_eq!((set.view().contains(&id(5))?, set.view().contains(&id(25))?), (false, is_copied));
    }
    Ok(())
}

#[test]
fn what_is_missing_or_damaged_leaves_the_set_with_a_notice() -> Result<()> {
    let breakages: [fn(&Path); 4] = [
        |folder| fs::remove_file(the_segment_of(folder)).expect("remove"),
        |folder| fs::write(the_segment_of(folder), "nonsense").expect("write"),
        |folder| fs::write(folder.join("manifest"), "nonsense").expect("write"),
        |folder| fs::write(folder.join("manifest"), "").expect("write"),
    ];
    for breakage in breakages {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut set, _) = Segments::open(folder.path())?;
        set.add(&[indexed(0, vec![pack(0, 0..10)])])?;
        breakage(folder.path());
        let (mut set, notices) = Segments::open(folder.path())?;
        assert_eq!(notices.len(), 1);
        assert!(set.covered().is_empty() && !set.view().contains(&id(1))?);
        set.add(&[indexed(0, vec![pack(0, 0..10)])])?;
        let (set, notices) = Segments::open(folder.path())?;
        assert!(notices.is_empty() && set.view().contains(&id(1))?);
    }
    Ok(())
}

#[test]
fn an_input_that_ends_in_an_error_adds_nothing() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut set, _) = Segments::open(folder.path())?;
    let failure = crate::error::Error::new(Kind::Temporary, "fetch", "an index");
    let error = set.add_all([Ok(indexed(0, vec![pack(0, 0..10)])), Err(failure)]).expect_err("it must fail");
    assert!(error.is(Kind::Temporary));
    assert!(set.covered().is_empty() && !set.view().contains(&id(1))?);
    Ok(())
}

#[test]
fn many_who_add_at_once_lose_nothing() -> Result<()> {
    const WORKERS: u64 = 4;
    const TURNS: u64 = 25;
    let folder = tempfile::tempdir().expect("a folder");
    // Each worker has a set of its own, with its own lock files open: as good as processes for flock.
    let work = |worker: u64| -> Result<()> {
        let (mut set, _) = Segments::open(folder.path())?;
        for turn in 0..TURNS {
            let number = worker * TURNS + turn;
            set.add(&[indexed(number, vec![pack(number, number * 50..number * 50 + 50)])])?;
            assert!(set.view().contains(&id(number * 50 + 49))?);
            let (other, notices) = Segments::open(folder.path())?;
            assert!(notices.is_empty(), "{notices:?}");
            assert!(other.view().contains(&id(number * 50))?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let (set, notices) = Segments::open(folder.path())?;
    assert!(notices.is_empty());
    assert_eq!(set.covered().len() as u64, WORKERS * TURNS);
    let packs: Vec<_> = (0..WORKERS * TURNS).map(|number| pack(number, number * 50..number * 50 + 50)).collect();
    for (id, places) in &places(&packs) {
        assert_eq!(set.view().locate(id)?.as_ref(), places.first());
    }
    Ok(())
}

#[test]
fn claims_leave_memory_when_segments_know_them() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut set, _) = Segments::open(folder.path())?;
    set.add(&[indexed(0, vec![pack(0, 0..10)])])?;
    let claims = Claims::new(set.view());
    assert_eq!(claims.claim(&id(5))?, Claim::Stored);
    let mine: Vec<_> = (10..20).map(id).collect();
    for id in &mine {
        assert_eq!(claims.claim(id)?, Claim::Mine);
    }
    let mut again = Vec::new();
    claims.ahead(&mine, |id| claims.claim(id).map(|claim| again.push(claim)))?;
    assert_eq!(again, [Claim::InFlight; 10]);
    set.add(&[indexed(1, vec![pack(1, 10..20)])])?;
    claims.refresh(&set.view());
    claims.settled(&mine);
    for id in &mine {
        assert_eq!(claims.claim(id)?, Claim::Stored);
    }
    Ok(())
}
