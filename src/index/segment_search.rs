//! Find an id among the entries of a segment, with as few waits for memory as its order allows.

use super::segment::Segment;
use super::segment_layout::*;
use crate::error::Result;
use crate::id::ChunkId;
use std::ops::Range;

impl Segment {
    #[inline(never)]
    pub(super) fn find(&self, id: &ChunkId) -> Result<Option<usize>> {
        let key = sort_key(id.as_bytes());
        self.search(id, key, self.shard_entries(key))
    }

    /// The entries of the shard in which an id of this key would be.
    fn shard_entries(&self, key: u64) -> Range<usize> {
        let number = shard_of(key, self.header.shard_bits);
        let end = self.shards.get(number + 1).map_or(self.entries(), |next| next.start as usize);
        self.shards[number].start as usize..end
    }

    /// Begins to load what the filter will need for an id whose lookup comes later.
    #[inline]
    pub(super) fn fetch_filter(&self, id: &ChunkId) {
        let shard = &self.shards[shard_of(sort_key(id.as_bytes()), self.header.shard_bits)];
        // What is not copied is small, and mostly at hand.
        if let Some(tables) = self.tables.as_deref().filter(|_| shard.filter_length > 0) {
            let start = self.at.filters.start - self.at.fences.start + shard.filter_start as usize;
            for place in shard.filter_places(filter_key(self.header.salt, id.as_bytes())) {
                tables.get(start + place).map(prefetch);
            }
            let key = sort_key(id.as_bytes());
            let entries = self.shard_entries(key);
            if !entries.is_empty() {
                let block = self.first_guess(key, &entries) / BLOCK_ENTRIES;
                prefetch(&tables[block * FENCE_BYTES]);
                prefetch(&self.verified[block / 64]);
            }
        }
    }

    /// Begins to read the entries that will be searched, once the filter is at hand.
    #[inline]
    pub(super) fn fetch_entries(&self, id: &ChunkId) {
        if self.tables.is_some() && self.may_contain(id) {
            let key = sort_key(id.as_bytes());
            let entries = self.shard_entries(key);
            if !entries.is_empty() {
                let (first, end) = self.candidates(key, &entries);
                if first < end {
                    self.fetch_around(self.guess(first, key, &entries));
                }
            }
        }
    }

    /// Searches among the entries of one shard: the fences give the block, the block the entry.
    fn search(&self, id: &ChunkId, key: u64, entries: Range<usize>) -> Result<Option<usize>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let (mut first, mut end) = self.candidates(key, &entries);
        while end.saturating_sub(first) > 1 {
            let middle = first + (end - first) / 2;
            self.verify(middle)?;
            if self.entry_bytes(middle * BLOCK_ENTRIES)[..ChunkId::BYTES] <= id.as_bytes()[..] {
                first = middle
            } else {
                end = middle
            }
        }
        if first >= end {
            return Ok(None);
        }
        let start = (first * BLOCK_ENTRIES).max(entries.start);
        let range = start..((first + 1) * BLOCK_ENTRIES).min(entries.end);
        let guess = self.guess(first, key, &entries);
        self.fetch_around(guess);
        self.verify(first)?;
        let found = lower_bound(range.clone(), guess, |position| self.key(position) < key);
        let same = (found..range.end).take_while(|&position| self.key(position) == key);
        Ok(same.into_iter().find(|&position| self.entry_bytes(position)[..ChunkId::BYTES] == id.as_bytes()[..]))
    }

    /// The blocks, from the first to before the end, that may hold an id of this key: nearly always one.
    fn candidates(&self, key: u64, entries: &Range<usize>) -> (usize, usize) {
        let guess = self.first_guess(key, entries);
        // It is on that page or the next, and address translation can begin while the fences are read.
        prefetch(&self.entry_bytes(guess)[0]);
        let blocks = entries.start / BLOCK_ENTRIES..(entries.end - 1) / BLOCK_ENTRIES + 1;
        // The id is after the last fence below its key, or after one that equals it.
        let low = lower_bound(blocks.clone(), guess / BLOCK_ENTRIES, |block| self.fence(block) < key);
        let high = lower_bound(low..blocks.end, low, |block| self.fence(block) <= key);
        (low.saturating_sub(1).max(blocks.start), high)
    }

    /// About where in its shard an id of this key would be, if ids are evenly spread.
    fn first_guess(&self, key: u64, entries: &Range<usize>) -> usize {
        let within_shard = if self.header.shard_bits == 0 { key } else { key << self.header.shard_bits };
        entries.start + ((u128::from(within_shard) * entries.len() as u128) >> 64) as usize
    }

    /// About where in its block an id of this key would be, if ids are evenly spread.
    fn guess(&self, block: usize, key: u64, entries: &Range<usize>) -> usize {
        let fence = self.fence(block);
        let next = if (block + 1) * BLOCK_ENTRIES < entries.end { self.fence(block + 1) } else { key };
        let share = key.saturating_sub(fence) as f64 / next.saturating_sub(fence).max(1) as f64;
        block * BLOCK_ENTRIES + (share * BLOCK_ENTRIES as f64) as usize
    }

    fn key(&self, position: usize) -> u64 {
        sort_key(self.entry_bytes(position))
    }

    /// Has the processor read the entries around a guess all at once, where the search would wait for each in turn.
    fn fetch_around(&self, position: usize) {
        let middle = self.at.entries.start + position * ENTRY_BYTES;
        for at in (middle.saturating_sub(192)..middle + 256).step_by(64).filter(|&at| at < self.data.len()) {
            prefetch(&self.data[at]);
        }
    }

    fn fence(&self, block: usize) -> u64 {
        u64_at(self.table(&self.at.fences), block * FENCE_BYTES)
    }
}

fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and every x86-64 processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The first number of the range that is not below what is sought, looked for in growing steps around a guess.
fn lower_bound(range: Range<usize>, guess: usize, is_below: impl Fn(usize) -> bool) -> usize {
    if range.is_empty() {
        return range.start;
    }
    let guess = guess.clamp(range.start, range.end - 1);
    let (mut low, mut high, mut step) = (range.start, range.end, 1);
    // Everything before `low` is below, nothing from `high` on is.
    if is_below(guess) {
        low = guess + 1;
        while low + step - 1 < high {
            if is_below(low + step - 1) {
                low += step
            } else {
                high = low + step - 1
            }
            step *= 2;
        }
    } else {
        high = guess;
        while high >= low + step {
            if is_below(high - step) {
                low = high - step + 1
            } else {
                high -= step
            }
            step *= 2;
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if is_below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_bound_is_found_from_every_guess() {
        for length in 0..40 {
            for bound in 0..=length {
                for guess in 0..length + 3 {
                    assert_eq!(lower_bound(5..5 + length, 5 + guess, |at| at < 5 + bound), 5 + bound);
                }
            }
        }
    }
}
