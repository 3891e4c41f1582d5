//! Count what there is to save, where no earlier run knows it and progress is shown: only then can be said how much
//! is left. One thread, beside the readers; it looks at every stat and opens no file.

use crate::backup::nested::WalkPlace;
use crate::backup::selection::Selection;
use crate::disk::stat::stat_path;
use crate::disk::{Directory, ListBuffer, NameList, Stat};
use crate::entry::EntryKind;
use crate::source::Rules;
use crate::watch::Watch;
use crossbeam_channel::{Receiver, TryRecvError};
use std::sync::atomic::Ordering;

#[derive(Default)]
struct CountedSources {
    files: u64,
    bytes: u64,
}

/// A directory whose directories below are still to be counted.
struct ScanLevel {
    path: Vec<u8>,
    place: WalkPlace,
    names: NameList,
    /// Index of the name, stat.
    below: Vec<(usize, Stat)>,
}

impl Selection<'_> {
    /// Sets what is expected, unless the run ends first. What cannot be looked at is passed over: the walk tells of it.
    pub(crate) fn count_ahead(&self, is_done: &Receiver<()>, watch: &Watch) {
        let mut counted = CountedSources::default();
        let mut buffer = ListBuffer::default();
        let mut levels = Vec::new();
        let Ok(tops) = self.tops(true) else { return };
        for (folder, names) in &tops.listed {
            for name in names {
                let path = [folder.as_slice(), b"/", name].concat();
                stat_path(&path, false).iter().for_each(|stat| counted.add(stat, &self.options.rules));
            }
        }
        for top in tops.directories {
            levels.extend(self.count_level(top.path, top.place, &mut buffer, &mut counted));
            while let Some(level) = levels.last_mut() {
                if is_done.try_recv() == Err(TryRecvError::Disconnected) || watch.cancel.is_cancelled() {
                    return;
                }
                let Some((index, stat)) = level.below.pop() else {
                    levels.pop();
                    continue;
                };
                let path = [level.path.as_slice(), b"/", level.names.get(index).to_bytes()].concat();
                let place = self.place_below(level.place, &path, &stat).ok();
                levels.extend(place.and_then(|place| self.count_level(path, place, &mut buffer, &mut counted)));
            }
        }
        let progress = &watch.progress;
        progress.files_expected.store(counted.files, Ordering::Relaxed);
        progress.bytes_expected.store(counted.bytes, Ordering::Relaxed);
    }

    fn count_level(
        &self,
        path: Vec<u8>,
        mut place: WalkPlace,
        buffer: &mut ListBuffer,
        counted: &mut CountedSources,
    ) -> Option<ScanLevel> {
        let handle = Directory::open_path(&path).ok()?;
        let mut names = NameList::default();
        handle.names(&mut names, buffer).ok()?;
        let kept = self.kept_names(&mut place, &path, &handle, &names, true);
        let mut below = Vec::new();
        let kept = kept.unwrap_or_else(|| (0..names.len() as u32).collect());
        for index in kept.into_iter().map(|index| index as usize) {
            let name = names.get(index);
            let child = || [path.as_slice(), b"/", name.to_bytes()].concat();
            match self.stat_in(place, &handle, name, &child) {
                Ok(stat) if stat.is(EntryKind::Directory) => below.push((index, stat)),
                Ok(stat) => counted.add(&stat, &self.options.rules),
                Err(_) => {}
            }
        }
        Some(ScanLevel { path, place, names, below })
    }
}

impl CountedSources {
    /// Counts a file, unless the rules leave it out; nothing else has a size.
    fn add(&mut self, stat: &Stat, rules: &Rules) {
        if stat.is(EntryKind::File) && !rules.leaves_out_file(stat.size) {
            self.files += 1;
            self.bytes += stat.size;
        }
    }
}
