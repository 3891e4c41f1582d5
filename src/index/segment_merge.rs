//! Merge segments into one, reading and writing in order: memory holds only the tables.

use super::segment::Segment;
use super::segment_layout::*;
use super::segment_place::SegmentPlace;
use super::segment_write::{SegmentTables, SegmentWriter};
use crate::error::{Error, Result};
use crate::id::PackId;
use std::cmp::Ordering;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

pub(super) fn merge_into(inputs: &[Arc<Segment>], out: SegmentPlace) -> Result<Segment> {
    let (tables, moves) = join_tables(inputs)?;
    let mut cursors = Vec::with_capacity(inputs.len());
    let mut heap = BinaryHeap::with_capacity(inputs.len());
    for (order, (segment, moves)) in inputs.iter().zip(&moves).enumerate() {
        let mut cursor = MergeCursor { segment, moves, next: 0 };
        heap.extend(cursor.take()?.map(|entry| MergeHead { entry, order }));
        cursors.push(cursor);
    }
    let mut writer = SegmentWriter::begin(out, inputs.iter().map(|segment| segment.chunks_count()).sum(), true)?;
    while let Some(mut head) = heap.peek_mut() {
        writer.push(&head.entry)?;
        match cursors[head.order].take()? {
            Some(entry) => head.entry = entry,
            None => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
        }
    }
    writer.finish(&tables)
}

/// How far each frame's number moves, by the number of its pack in the input.
type FrameMoves = Vec<i64>;

/// One pack table and one frame table for all inputs; a pack that several describe alike is entered once.
fn join_tables(inputs: &[Arc<Segment>]) -> Result<(SegmentTables, Vec<FrameMoves>)> {
    let mut tables = SegmentTables::default();
    let mut known: HashMap<PackId, (usize, usize)> = HashMap::new();
    let mut moves = Vec::with_capacity(inputs.len());
    for segment in inputs {
        let mut of_segment = FrameMoves::new();
        for (number, row) in segment.packs().enumerate() {
            let (start, count) = (u32_at(row, 36) as usize, u32_at(row, 40) as usize);
            let frames = segment.frames(start..start + count);
            let sound = frames.filter(|rows| rows.chunks_exact(FRAME_BYTES).all(|row| u32_at(row, 0) == number as u32));
            let frames = sound.ok_or_else(|| segment.corrupt("its tables contradict each other"))?;
            let pack = PackId::from_slice(&row[..32]).expect("a row begins with 32 bytes of id");
            let new_start = match known.entry(pack) {
                Slot::Occupied(slot) if are_alike(&tables, slot.get().0, row, frames) => slot.get().1,
                slot => {
                    let place = (tables.pack_count(), tables.frame_count());
                    append(&mut tables, row, frames)?;
                    slot.insert_entry(place);
                    place.1
                }
            };
            of_segment.push(new_start as i64 - start as i64);
        }
        moves.push(of_segment);
    }
    Ok((tables, moves))
}

/// Whether a pack of the joined tables is described as in this row and these frames.
fn are_alike(tables: &SegmentTables, number: usize, row: &[u8], frames: &[u8]) -> bool {
    let mine = &tables.packs[number * PACK_BYTES..(number + 1) * PACK_BYTES];
    let start = u32_at(mine, 36) as usize * FRAME_BYTES;
    let Some(theirs) = tables.frames.get(start..start + frames.len()) else { return false };
    // The numbers that say where a row's partner stands differ from table to table.
    mine[..36] == row[..36]
        && mine[40..] == row[40..]
        && theirs.chunks_exact(FRAME_BYTES).zip(frames.chunks_exact(FRAME_BYTES)).all(|(a, b)| a[4..] == b[4..])
}

fn append(tables: &mut SegmentTables, row: &[u8], frames: &[u8]) -> Result<()> {
    let too_many = |_| Error::invalid("merge index segments", "", "they describe too many frames");
    let pack = u32::try_from(tables.pack_count()).map_err(too_many)?;
    let start = u32::try_from(tables.frame_count()).map_err(too_many)?;
    u32::try_from(tables.frame_count() + frames.len() / FRAME_BYTES).map_err(too_many)?;
    tables.packs.extend(&row[..36]);
    tables.packs.extend(start.to_le_bytes());
    tables.packs.extend(&row[40..]);
    for frame in frames.chunks_exact(FRAME_BYTES) {
        tables.frames.extend(pack.to_le_bytes());
        tables.frames.extend(&frame[4..]);
    }
    Ok(())
}

/// Reads one input from its first entry to its last.
struct MergeCursor<'a> {
    segment: &'a Segment,
    moves: &'a FrameMoves,
    next: usize,
}

impl MergeCursor<'_> {
    fn take(&mut self) -> Result<Option<SegmentEntry>> {
        if self.next == self.segment.entries() {
            return Ok(None);
        }
        if self.next.is_multiple_of(BLOCK_ENTRIES) {
            self.segment.verify(self.next / BLOCK_ENTRIES)?;
        }
        let mut entry = self.segment.entry(self.next);
        self.next += 1;
        let frame = entry.frame() as usize;
        let row = self.segment.frames(frame..frame + 1);
        let shift = row.and_then(|row| self.moves.get(u32_at(row, 0) as usize));
        let moved = shift.and_then(|shift| u32::try_from(frame as i64 + shift).ok());
        entry.set_frame(moved.ok_or_else(|| self.segment.corrupt("its tables contradict each other"))?);
        Ok(Some(entry))
    }
}

/// The next entry of one input; the greatest of the heap is the one that comes first.
struct MergeHead {
    entry: SegmentEntry,
    order: usize,
}

impl Ord for MergeHead {
    fn cmp(&self, other: &Self) -> Ordering {
        other.entry.order(&self.entry).then_with(|| other.order.cmp(&self.order))
    }
}

impl PartialOrd for MergeHead {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MergeHead {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MergeHead {}
