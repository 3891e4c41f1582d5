//! What a walk saves: the sources that were named, without what rules, the kernel's own file systems and our own folders leave
//! out.

use crate::backup::counts::{BackupCounts, add};
use crate::backup::expected::ExpectedSources;
use crate::backup::left_out::{LeftOut, LeftOutReason, UNSIZED_BYTES_MAX};
use crate::backup::nested::{MovedFolder, WalkPlace, fold, follow_links, tops};
use crate::backup::options::BackupOptions;
use crate::backup::split_sources::SplitSources;
use crate::disk::device::FileSystemKind;
use crate::disk::open::{open_file_checked, read_full};
use crate::disk::read_dir::OpenHint;
use crate::disk::{Directory, NameList, Stat};
use crate::entry::{DEEP_PATH_BYTES_MAX, EntryKind, LEVELS_MAX};
use crate::error::{Kind, Result};
use crate::repo::{OwnFolders, Repository};
use crate::source::Rules;
use crate::source::rules::Marker;
use crate::watch::{Ledger, NoticeKind, Watch};
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) struct Selection<'a> {
    pub options: &'a BackupOptions,
    pub sources: &'a SplitSources,
    pub left_out: LeftOut,
    /// Sources that the walk of another source must meet.
    pub expected: ExpectedSources,
    /// All paths that were named, sorted: the sources, and the paths that were dropped because the walk of a source meets them.
    named: Vec<PathBuf>,
    /// A source has another one above it. Only then does a walk pass through what the rules leave out.
    has_source_below: bool,
    ledger: &'a Ledger<'a>,
    counts: &'a BackupCounts,
}

/// Sources of which none is met by the walk of another one.
pub(super) struct SettledSources {
    pub left_out: LeftOut,
    /// Named paths that are no sources of their own, because the walk of a source meets them.
    pub dropped: Vec<PathBuf>,
}

/// Follows links between the sources, and drops from `paths` those that the walk of another source meets, and our own
/// directories.
pub(super) fn settle_sources(
    repo: &Repository,
    paths: &mut Vec<PathBuf>,
    rules: &Rules,
    watch: &Watch,
) -> Result<SettledSources> {
    let left_out = LeftOut::new(OwnFolders::of(repo));
    for MovedFolder { folder, real } in follow_links(paths) {
        let (folder, real) = (folder.display(), real.display());
        let text = format!(
            "{folder} is reached through a symbolic link in another source, which is not followed: it is saved at its real path {real}"
        );
        left_out.notice(watch, NoticeKind::Source, text);
    }
    let (kept, mut dropped) = fold(std::mem::take(paths), rules, &left_out.mounts);
    *paths = kept;
    // The walk reports our own directories when it reaches them. It is not an error if nothing else remains here.
    let _ours = left_out.own.take_out(&mut dropped);
    for (path, what) in left_out.own.take_out(paths)? {
        watch.notice(NoticeKind::Skipped, format!("skipped: {} is {what}", path.display()));
    }
    Ok(SettledSources { left_out, dropped })
}

impl<'a> Selection<'a> {
    pub(crate) fn new(
        options: &'a BackupOptions,
        sources: &'a SplitSources,
        settled: SettledSources,
        ledger: &'a Ledger<'a>,
        counts: &'a BackupCounts,
    ) -> Self {
        let SettledSources { left_out, dropped } = settled;
        let expected = ExpectedSources::default();
        expected.add(dropped.iter().map(PathBuf::as_path));
        let mut named = [sources.paths.clone(), dropped].concat();
        named.sort();
        let has_source_below = tops(&named).count() < named.len();
        Selection { options, sources, left_out, expected, named, has_source_below, ledger, counts }
    }

    fn rules(&self) -> &Rules {
        &self.options.rules
    }

    /// Returns the first named path that is this one or below it. Dropped paths count as well: what is mounted, marked or as
    /// large as the rules leave out may have changed since they were dropped.
    fn source_at_or_below(&self, path: &[u8]) -> Option<&[u8]> {
        let path = Path::new(OsStr::from_bytes(path));
        // Sorted: a source itself comes before those below it, and all of these are together.
        let first = self.named.get(self.named.partition_point(|source| source.as_path() < path))?;
        first.starts_with(path).then(|| first.as_os_str().as_bytes())
    }

    pub(crate) fn is_source(&self, path: &[u8]) -> bool {
        self.source_at_or_below(path) == Some(path)
    }

    /// Whether a path is a source that the snapshot names, so that its origin covers it. Named paths that the walk of another source reaches
    /// are none (see [`SettledSources::dropped`]).
    pub(crate) fn is_snapshot_source(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.sources.paths.binary_search_by(|source| source.as_path().cmp(path)).is_ok()
    }

    /// Whether a name in a passage leads to a source.
    fn leads_to_source(&self, folder: &[u8], name: &CStr) -> bool {
        let path = [folder.strip_suffix(b"/").unwrap_or(folder), b"/", name.to_bytes()].concat();
        self.source_at_or_below(&path).is_some()
    }

    /// Where the walk of a source begins.
    pub(crate) fn place_of_source(&self, path: &[u8], stat: &Stat) -> WalkPlace {
        let here = stat.device;
        let file_system = self.left_out.mounts.kind_of(path, here);
        let level = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count();
        WalkPlace { device: here, here, mount: stat.mount, level, is_passage: false, file_system }
    }

    /// The stat of a name in a directory at `place`. What an automounter mounts there is mounted if the walk enters it.
    pub(crate) fn stat_in(
        &self,
        place: WalkPlace,
        directory: &Directory,
        name: &CStr,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<Stat> {
        let stat = directory.stat(name)?;
        if !stat.is(EntryKind::Directory) || place.is_pseudo() || self.rules().one_file_system() && !place.is_passage {
            return Ok(stat);
        }
        let is_automounter = || self.left_out.mounts.kind_of(&path(), stat.device) == FileSystemKind::Automounter;
        if may_be_mounted_over(place, &stat) || stat.device != place.here && is_automounter() {
            // If that is refused, so is entering the directory: the walk reports it.
            return Ok(directory.stat_mounted(name).unwrap_or(stat));
        }
        Ok(stat)
    }

    /// How the walk enters a directory below `above`, or why it does not.
    pub(crate) fn place_below(&self, above: WalkPlace, path: &[u8], stat: &Stat) -> Result<WalkPlace, LeftOutReason> {
        let level = above.level + 1;
        if level >= LEVELS_MAX || path.len() > DEEP_PATH_BYTES_MAX {
            return Err(LeftOutReason::TooDeep);
        }
        if let Some(what) = self.left_out.own.name_of(stat) {
            return Err(LeftOutReason::Own(what));
        }
        let here = stat.device;
        let crosses = here != above.here;
        let file_system = if crosses { self.left_out.mounts.kind_of(path, here) } else { above.file_system };
        // Over an automounter in a pseudo file system (binfmt_misc) there is another one.
        let is_pseudo =
            file_system == FileSystemKind::Pseudo || above.is_pseudo() && file_system == FileSystemKind::Automounter;
        let reason = match above {
            _ if above.is_passage || self.rules().leaves_out_device(above.device, here) => {
                LeftOutReason::OtherFileSystem
            }
            // To enter it is to mount another one.
            _ if self.rules().one_file_system() && may_be_mounted_over(above, stat) => LeftOutReason::OtherFileSystem,
            _ if crosses && is_pseudo => LeftOutReason::Pseudo,
            // Entered at all only as a source, or as the way to one.
            _ if self.has_source_below && self.rules().leaves_out(path, true) => LeftOutReason::Rule,
            _ => return Ok(WalkPlace { here, mount: stat.mount, level, file_system, ..above }),
        };
        // All the same where a source that was named is there or further down.
        let Some(first) = self.source_at_or_below(path) else { return Err(reason) };
        Ok(WalkPlace { device: here, here, mount: stat.mount, level, file_system, is_passage: first != path })
    }

    /// Reports that a directory is not entered, unless a rule says so.
    pub(crate) fn report_left_out(&self, path: &[u8], reason: LeftOutReason) {
        let shown = String::from_utf8_lossy(path);
        match reason {
            LeftOutReason::OtherFileSystem | LeftOutReason::Rule => {}
            LeftOutReason::TooDeep => {
                let what = format!(
                    "its contents are not saved: it is more than {LEVELS_MAX} directories deep, or its path is longer than {DEEP_PATH_BYTES_MAX} bytes"
                );
                self.ledger.warn(path, what);
            }
            LeftOutReason::Pseudo => self.notice(
                NoticeKind::Skipped,
                format!(
                    "skipped: {shown} is a virtual file system of the kernel; name it as a source to save it anyway"
                ),
            ),
            LeftOutReason::Own(what) => self.notice(NoticeKind::Skipped, format!("skipped: {shown} is {what}")),
        }
    }

    /// A notice of a sort that there may be thousands of.
    pub(crate) fn notice(&self, kind: NoticeKind, text: String) {
        self.left_out.notice(self.ledger.watch(), kind, text);
    }

    /// Whether something in a directory at `place` is saved. For directories, [`Selection::place_below`] decides.
    pub(crate) fn is_saved(&self, place: WalkPlace, stat: &Stat, path: &dyn Fn() -> Vec<u8>) -> bool {
        if stat.kind.is_none() {
            add(&self.counts.sockets, 1);
            return false;
        }
        if !stat.is(EntryKind::File) {
            return true;
        }
        let shown = || String::from_utf8_lossy(&path()).into_owned();
        if self.rules().leaves_out_file(stat.size) {
            if self.is_source(&path()) {
                self.notice(
                    NoticeKind::Skipped,
                    format!("excluded: the source {} is larger than --exclude-larger-than allows", shown()),
                );
            }
            return false;
        }
        if stat.device != place.here && !place.is_pseudo() && self.left_out.mounts.is_pseudo(&path(), stat.device) {
            self.report_left_out(&path(), LeftOutReason::Pseudo);
            return false;
        }
        if place.is_pseudo() && stat.size > UNSIZED_BYTES_MAX {
            self.notice(
                NoticeKind::Skipped,
                format!("skipped: {} is a virtual file of the kernel with an implausible size", shown()),
            );
            return false;
        }
        true
    }

    /// Returns which names of a directory are walked, by the rules or as the way to a source; `None` stands for all. A directory
    /// with a marker becomes a passage to the sources below it. `is_quiet` suppresses notices and warnings.
    pub(crate) fn kept_names(
        &self,
        place: &mut WalkPlace,
        path: &[u8],
        handle: &Directory,
        names: &NameList,
        is_quiet: bool,
    ) -> Option<Vec<u32>> {
        if place.is_passage {
            let leads = |at: &u32| self.leads_to_source(path, names.get(*at as usize));
            return Some((0..names.len() as u32).filter(leads).collect());
        }
        let rules = self.rules();
        if rules.is_empty() {
            return None;
        }
        let leads = |name: &CStr| self.has_source_below && self.leads_to_source(path, name);
        let marked = rules.markers().iter().find(|marker| self.has_marker(path, handle, names, marker, is_quiet));
        if let Some(marker) = marked {
            let is_passage = (0..names.len()).any(|index| leads(names.get(index)));
            if !is_quiet && self.is_source(path) {
                let but = if is_passage { ", except for the sources below it" } else { "" };
                let name = String::from_utf8_lossy(marker.name()).into_owned();
                let source = String::from_utf8_lossy(path);
                let text = format!("excluded: the contents of the source {source}, as it contains {name}{but}");
                self.ledger.watch().notice(NoticeKind::Skipped, text);
            }
            place.is_passage = is_passage;
            let keep = |index: &u32| {
                let name = names.get(*index as usize);
                marker.keeps_itself() && name.to_bytes() == marker.name() || leads(name)
            };
            return Some((0..names.len() as u32).filter(keep).collect());
        }
        if !rules.has_patterns() {
            return None;
        }
        let mut child = path.to_vec();
        if child.last() != Some(&b'/') {
            child.push(b'/');
        }
        let length = child.len();
        let mut keep = |index: &u32| {
            let name = names.get(*index as usize);
            child.truncate(length);
            child.extend_from_slice(name.to_bytes());
            let is_directory = match names.hint(*index as usize) {
                OpenHint::Directory => true,
                OpenHint::Unknown => handle.stat(name).is_ok_and(|stat| stat.is(EntryKind::Directory)),
                _ => false,
            };
            !rules.leaves_out(&child, is_directory) || leads(name)
        };
        Some((0..names.len() as u32).filter(&mut keep).collect())
    }

    /// Whether a marker is in a directory. A marker without a header is found by its name alone, with a header only in a file that
    /// begins with it. If the file cannot be read, the directory is saved, with a warning.
    fn has_marker(&self, path: &[u8], handle: &Directory, names: &NameList, marker: &Marker, is_quiet: bool) -> bool {
        let Some(name) = names.find(marker.name()) else { return false };
        if marker.header_bytes() == 0 {
            return true;
        }
        let mut first = vec![0; marker.header_bytes()];
        let read = open_file_checked(handle, name).and_then(|(fd, _)| read_full(&fd, &mut first));
        match read {
            Ok(length) => marker.matches(&first[..length]),
            // No file, or none any more.
            Err(error) if error.is(Kind::Conflict) || error.is(Kind::NotFound) => false,
            Err(_) if is_quiet => false,
            Err(error) => {
                let path = [path, b"/", marker.name()].concat();
                self.ledger.source_error(&path, "this marker cannot be read, so its directory is saved: ", error);
                false
            }
        }
    }
}

/// Whether another file system may be mounted over a directory, which is in one at `above`, when it is needed.
fn may_be_mounted_over(above: WalkPlace, stat: &Stat) -> bool {
    stat.is_automounted || above.file_system == FileSystemKind::Automounter && stat.device == above.here
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RulesBuilder;
    use crate::watch::Watch;

    /// Where a walk goes on, where it only passes to a source further down, and where it ends.
    #[test]
    fn rules_and_devices_end_a_walk_except_on_the_way_to_a_source() {
        let mut options =
            BackupOptions::new(["/s", "/s/tmp/kept", "/s/mnt/disk/data"].map(PathBuf::from).to_vec(), "h");
        let sources = SplitSources::of(&options.sources);
        options.rules = RulesBuilder::new().one_file_system(true).exclude(b"/s/tmp").unwrap().build().unwrap();
        let watch = Watch::silent();
        let (ledger, counts) = (Ledger::new(&watch, "test"), BackupCounts::default());
        let settled = SettledSources { left_out: LeftOut::new(OwnFolders::default()), dropped: Vec::new() };
        let selection = Selection::new(&options, &sources, settled, &ledger, &counts);
        let on = |device| Stat { device, ..Stat::default() };
        let top =
            WalkPlace { device: 1, here: 1, mount: 0, level: 1, is_passage: false, file_system: FileSystemKind::Data };
        let below = |path: &[u8], device| selection.place_below(top, path, &on(device));
        assert_eq!(below(b"/s/a", 1).map(|place| (place.level, place.is_passage)), Ok((2, false)));
        assert_eq!(below(b"/s/other", 2), Err(LeftOutReason::OtherFileSystem));
        assert_eq!(below(b"/s/tmp", 1).map(|place| place.is_passage), Ok(true));
        assert_eq!(below(b"/s/tmp/kept", 1).map(|place| place.is_passage), Ok(false));
        assert_eq!(below(b"/s/mnt/disk", 2).map(|place| (place.device, place.is_passage)), Ok((2, true)));
        let passage = WalkPlace { is_passage: true, ..top };
        assert_eq!(selection.place_below(passage, b"/s/tmp/x", &on(1)), Err(LeftOutReason::OtherFileSystem));
        let deep = WalkPlace { level: LEVELS_MAX, ..top };
        assert_eq!(selection.place_below(deep, b"/s/a", &on(1)), Err(LeftOutReason::TooDeep));
    }
}
