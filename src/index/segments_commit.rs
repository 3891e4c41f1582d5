//! Change the set of segments: write a new manifest under a lock, keep the segments few.

use super::folder_lock::{lock, sweep, try_lock};
use super::manifest::{self, ManifestRow};
use super::segment::Segment;
use super::segment_merge::merge_into;
use super::segment_place::SegmentPlace;
use super::view::IndexView;
use crate::error::{Error, Result};
use crate::id::IndexId;
use crate::index::listed_segment::{ListedSegment, new_name};
use crate::index::segments::{SEGMENTS_MAX, Segments};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Which segments to merge, by their sizes: the smallest, and with them each next one that is less than twice as large as
/// those before it together. Ten thousand runs then write each chunk less than ten times; to merge whatever is of similar
/// size wrote it 25 to 130 times, for the middle sizes were written again and again.
pub(super) fn choose(sizes: &[u64]) -> Option<Vec<usize>> {
    if sizes.len() <= SEGMENTS_MAX {
        return None;
    }
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&at| sizes[at]);
    let mut sum = sizes[by_size[0]] + sizes[by_size[1]];
    let mut count = 2;
    while let Some(size) = by_size.get(count).map(|&at| sizes[at]).filter(|&size| size < sum.saturating_mul(2)) {
        sum += size;
        count += 1;
    }
    by_size.truncate(count);
    Some(by_size)
}

impl Segments {
    pub(super) fn place_of(&self, name: &str) -> SegmentPlace {
        match &self.folder {
            Some(folder) => SegmentPlace::File(folder.join(name)),
            None => SegmentPlace::Memory,
        }
    }

    /// Changes the list of segments and takes over what it lists then. In a folder that is the manifest as it is now, which
    /// others may have changed since it was read here. `added` is open already.
    pub(super) fn commit(
        &mut self,
        added: Option<ListedSegment>,
        change: impl FnOnce(&mut Vec<ManifestRow>),
    ) -> Result<Vec<String>> {
        let Some(folder) = self.folder.clone() else {
            let mut rows = self.listed.iter().map(|listed| listed.row.clone()).collect();
            change(&mut rows);
            let known: Vec<ListedSegment> = self.listed.drain(..).chain(added).collect();
            let find = |row: &ManifestRow| known.iter().find(|known| known.row.name == row.name).cloned();
            self.listed = rows.iter().filter_map(find).collect();
            self.choose_used();
            return Ok(Vec::new());
        };
        let _locked = lock(&folder.join("manifest.lock"))?;
        let path = folder.join("manifest");
        let mut notices = Vec::new();
        let before = match manifest::read(&path) {
            Ok(rows) => rows,
            Err(error) if error.is_damage() => {
                notices.push(format!("{error}; the local index is rebuilt"));
                None
            }
            Err(error) => return Err(error),
        };
        let existed = before.is_some();
        let before = before.unwrap_or_default();
        let mut rows = before.clone();
        change(&mut rows);
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            match self.take_or_open(&folder, &row, added.as_ref()) {
                Ok(segment) => listed.push(ListedSegment { row, segment }),
                Err(error) if error.is_damage() => {
                    notices.push(format!("{error}; this part of the local index is rebuilt"));
                    self.dropped.extend(row.covers.iter().map(|(index, _)| *index));
                }
                Err(error) => return Err(error),
            }
        }
        let rows: Vec<ManifestRow> = listed.iter().map(|listed| listed.row.clone()).collect();
        if !existed || rows != before {
            manifest::replace(&path, &rows)?;
        }
        for gone in before.iter().filter(|old| rows.iter().all(|row| row.name != old.name)) {
            // It may be missing already; and if it stays, it is swept away later.
            let _ = std::fs::remove_file(folder.join(&gone.name));
        }
        sweep(&folder, &rows);
        self.listed = listed;
        self.choose_used();
        Ok(notices)
    }

    pub(super) fn take_or_open(
        &self,
        folder: &Path,
        row: &ManifestRow,
        added: Option<&ListedSegment>,
    ) -> Result<Arc<Segment>> {
        if let Some(listed) = self.listed.iter().chain(added).find(|listed| listed.row.name == row.name) {
            return Ok(listed.segment.clone());
        }
        let path = folder.join(&row.name);
        let segment = Segment::open(&path)?;
        if segment.hash() == row.hash {
            Ok(Arc::new(segment))
        } else {
            Err(Error::corrupt("use the index segment", path.display(), "it is another one under this name"))
        }
    }

    /// Takes into use what is listed and may be used. What was in use and is not listed any more stays, unless what is
    /// listed covers the same: others may have merged it with what may not be used here.
    pub(super) fn choose_used(&mut self) {
        let usable: Vec<ListedSegment> = self.listed.iter().filter(|listed| self.may_use(listed)).cloned().collect();
        let covered = |listed: &[ListedSegment]| -> HashSet<IndexId> {
            listed.iter().flat_map(|listed| &listed.row.covers).map(|(index, _)| *index).collect()
        };
        let again = covered(&usable);
        let kept = std::mem::take(&mut self.used);
        let kept = kept.into_iter().filter(|used| !used.row.covers.iter().all(|(index, _)| again.contains(index)));
        self.used = kept.chain(usable).collect();
        self.covered = covered(&self.used);
        self.view = IndexView::of(self.used.iter().rev().map(|used| used.segment.clone()).collect());
    }

    /// Merges segments of similar size until there are few.
    pub(super) fn compact(&mut self) -> Result<()> {
        while let Some(chosen) =
            choose(&self.listed.iter().map(|listed| listed.segment.chunks_count()).collect::<Vec<_>>())
        {
            // Merging can take minutes: others go on meanwhile, but do not do the same work.
            let merging = self.folder.as_ref().map(|folder| try_lock(&folder.join("merging.lock"))).transpose()?;
            if let Some(None) = merging {
                return Ok(());
            }
            let inputs: Vec<_> = chosen.iter().map(|&at| self.listed[at].segment.clone()).collect();
            let names: HashSet<String> = chosen.iter().map(|&at| self.listed[at].row.name.clone()).collect();
            let mut merged = ManifestRow { name: new_name(), hash: [0; 32], covers: Vec::new(), left_out: Vec::new() };
            let segment = Arc::new(merge_into(&inputs, self.place_of(&merged.name))?);
            merged.hash = segment.hash();
            for row in chosen.iter().map(|&at| &self.listed[at].row) {
                merged.covers.extend(&row.covers);
                merged.left_out.extend(&row.left_out);
            }
            let mut used = false;
            self.commit(Some(ListedSegment { row: merged.clone(), segment }), |rows| {
                let (old, mut kept): (Vec<_>, Vec<_>) = rows.drain(..).partition(|row| names.contains(&row.name));
                used = old.len() == names.len();
                if used {
                    kept.insert(0, merged.clone());
                } else {
                    // Somebody dropped one of them meanwhile, and with reason.
                    kept.splice(0..0, old);
                }
                *rows = kept;
            })?;
            if !used {
                if let Some(folder) = &self.folder {
                    let _ = std::fs::remove_file(folder.join(&merged.name));
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_segments_are_merged_and_large_ones_left_alone() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[100_000_000, 10, 20, 30, 40, 50, 60, 70]), None);
        assert_eq!(choose(&[100_000_000, 9, 0, 30, 5, 500, 5000, 6000, 70_000]), Some(vec![2, 4, 1]));
        assert_eq!(choose(&[0; 9]).map(|chosen| chosen.len()), Some(2));
    }

    #[test]
    fn years_of_small_runs_leave_few_segments_and_write_each_chunk_few_times() {
        let (mut sizes, mut written) = (vec![100_000_000], 0);
        for _ in 0..10_000 {
            sizes.push(5_000);
            while let Some(chosen) = choose(&sizes) {
                let merged = chosen.iter().map(|&at| sizes[at]).sum();
                written += merged;
                let mut at = 0;
                sizes.retain(|_| (at += 1, !chosen.contains(&(at - 1))).1);
                sizes.insert(0, merged);
            }
            assert!(sizes.len() <= SEGMENTS_MAX, "{sizes:?}");
        }
        assert!(written < 10 * 50_000_000, "{written}");
    }
}
