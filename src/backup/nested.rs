//! Sources below other sources: saved with the upper one, or on their own where its walk does not meet them.

use crate::disk::Stat;
use crate::disk::device::{FileSystemKind, FileSystems};
use crate::disk::stat::stat_path;
use crate::entry::EntryKind;
use crate::source::Rules;
use crate::source::is_same_place;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalkPlace {
    /// The file system of the source.
    pub device: u64,
    /// The file system of the directory itself.
    pub here: u64,
    /// The mount that it is on; 0 before Linux 5.8.
    pub mount: u64,
    /// How many directories are above it.
    pub level: usize,
    /// Only on the way to sources further down: nothing else here is saved.
    pub is_passage: bool,
    /// What kind of file system the directory is on.
    pub file_system: FileSystemKind,
}

impl WalkPlace {
    /// On a file system that the kernel makes up.
    pub(crate) fn is_pseudo(&self) -> bool {
        self.file_system == FileSystemKind::Pseudo
    }

    /// Whether something with this stat in the directory is mounted there.
    pub(crate) fn is_left_by(&self, stat: &Stat) -> bool {
        stat.device != self.here || stat.mount != self.mount
    }
}

/// How often real paths are looked at again: a real path may be below a source with a link of its own on the way.
const ROUNDS_MAX: usize = 40;

/// The folder of some sources, and where it really is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MovedFolder {
    pub folder: PathBuf,
    pub real: PathBuf,
}

/// Replaces the folder part of each path by its real path where a symbolic link is on the way from a source above: the
/// walk of that source follows no link, so it does not meet the path. Sorts the paths; returns the folders replaced.
pub(super) fn follow_links(paths: &mut Vec<PathBuf>) -> Vec<MovedFolder> {
    let mut moved = Vec::new();
    for _ in 0..ROUNDS_MAX {
        paths.sort();
        paths.dedup();
        let before = moved.len();
        follow_links_once(paths, &mut moved);
        if moved.len() == before {
            break;
        }
    }
    moved
}

fn follow_links_once(paths: &mut [PathBuf], moved: &mut Vec<MovedFolder>) {
    let mut top: Option<PathBuf> = None;
    // Lists name thousands of files of one folder.
    let mut last: Option<(PathBuf, Option<PathBuf>)> = None;
    for path in paths {
        let Some(top) = top.as_ref().filter(|top| path.starts_with(top)) else {
            top = Some(path.clone());
            continue;
        };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        if last.as_ref().is_none_or(|(known, _)| known != folder) {
            // A link that leads nowhere stays: the path is missed by the name that was given.
            let real = passes_link(top, folder).then(|| folder.canonicalize().ok()).flatten();
            let real = real.filter(|real| real != folder && is_same_place(folder, real));
            moved.extend(real.iter().map(|real| MovedFolder { folder: folder.to_owned(), real: real.clone() }));
            last = Some((folder.to_owned(), real));
        }
        if let Some((_, Some(real))) = &last {
            *path = real.join(name);
        }
    }
}

/// Whether a link is at `top` or on the way from it down to `folder`, both included.
fn passes_link(top: &Path, folder: &Path) -> bool {
    let is_link =
        |path: &Path| stat_path(path.as_os_str().as_bytes(), false).is_ok_and(|stat| stat.is(EntryKind::Symlink));
    folder.ancestors().take_while(|step| step.starts_with(top)).any(is_link)
}

/// Drops each path that the walk of a path above meets anyway: all below it, but what the rules leave out on the way, and
/// what is on a file system that the walk does not enter. Sorts them; returns those that are kept, and those dropped.
pub(super) fn fold(mut paths: Vec<PathBuf>, rules: &Rules, mounts: &FileSystems) -> (Vec<PathBuf>, Vec<PathBuf>) {
    paths.sort();
    let mut dropped = Vec::new();
    let mut kept: Vec<PathBuf> = Vec::with_capacity(paths.len());
    // The kept paths above the current one, the nearest last.
    let mut above: Vec<PathBuf> = Vec::new();
    // Lists name thousands of files of one folder.
    let mut last: Option<(PathBuf, bool)> = None;
    for path in paths {
        while above.last().is_some_and(|above| !path.starts_with(above)) {
            above.pop();
        }
        let is_met = above.last().is_some_and(|above| {
            let folder = path.parent().unwrap_or(&path);
            let known = last.as_ref().filter(|(known, _)| known == folder).map(|(_, is_open)| *is_open);
            let is_open = known.unwrap_or_else(|| is_open(above, folder, rules));
            last = Some((folder.to_owned(), is_open));
            is_open && is_met(above, &path, rules, mounts)
        });
        if !is_met {
            above.push(path.clone());
            kept.push(path);
        } else {
            dropped.push(path);
        }
    }
    (kept, dropped)
}

/// Whether the rules let a walk from `above` pass through `folder`.
fn is_open(above: &Path, folder: &Path, rules: &Rules) -> bool {
    let mut steps = folder.ancestors().take_while(|step| step.starts_with(above));
    steps.all(|step| (step == above || !rules.leaves_out(bytes(step), true)) && !may_be_marked(step, rules))
}

/// Whether something that has the name of a marker is in a folder.
fn may_be_marked(folder: &Path, rules: &Rules) -> bool {
    let is_there = |name: &[u8]| stat_path(bytes(&folder.join(OsStr::from_bytes(name))), false).is_ok();
    rules.markers().iter().any(|marker| is_there(marker.name()))
}

/// Whether a walk from `above` that comes to the folder of `path` meets `path`. One that is not there is not met: so it
/// is missed by its name.
fn is_met(above: &Path, path: &Path, rules: &Rules, mounts: &FileSystems) -> bool {
    let stat = |path: &Path| stat_path(bytes(path), false);
    let (Ok(top), Ok(bottom)) = (stat(above), stat(path)) else { return false };
    let is_directory = bottom.is(EntryKind::Directory);
    if rules.leaves_out(bytes(path), is_directory)
        || is_directory && may_be_marked(path, rules)
        || bottom.is(EntryKind::File) && rules.leaves_out_file(bottom.size)
    {
        return false;
    }
    if !rules.one_file_system() {
        return bottom.device == top.device || !mounts.is_pseudo(bytes(path), bottom.device);
    }
    let mut steps = path.ancestors().take_while(|step| *step != above);
    steps.all(|step| stat(step).is_ok_and(|stat| stat.device == top.device))
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Of sorted paths, those below no other: where walks begin.
pub(super) fn tops(paths: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    let mut top: Option<&PathBuf> = None;
    paths.iter().filter(move |path| {
        let is_top = !top.is_some_and(|top| path.starts_with(top));
        if is_top {
            top = Some(path);
        }
        is_top
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RulesBuilder;

    #[test]
    fn what_is_met_anyway_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/b", "a/c/d", "a-b", "ab", "b"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let table: &[(&[&str], &[&str])] = &[
            (&["a/b", "a-b", "a"], &["a", "a-b"]),
            (&["ab", "a/c/d", "a/c"], &["a/c", "ab"]),
            (&["a", "b"], &["a", "b"]),
            // Missed by its own name, not in silence.
            (&["a", "a/gone"], &["a", "a/gone"]),
        ];
        for one_file_system in [false, true] {
            let rules = RulesBuilder::new().one_file_system(one_file_system).build().unwrap();
            for (paths, expected) in table {
                let (got, dropped) = fold(paths.iter().map(|name| at(name)).collect(), &rules, &FileSystems::default());
                assert_eq!(got.len() + dropped.len(), paths.len());
                assert_eq!(got, expected.iter().map(|name| at(name)).collect::<Vec<_>>(), "{paths:?}");
            }
        }
    }

    /// A source whose path leads through a link in another source was dropped, as if the walk of that source followed links.
    #[test]
    fn what_lies_behind_a_link_is_a_source_at_its_real_path() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let at = |name: &str| top.join(name);
        for name in ["home", "disk/docs/more", "disk/x"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for (link, to) in
            [("home/anna", "../disk"), ("link", "disk"), ("disk/x/back", "../../home"), ("home/gone", "no")]
        {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        let table: &[(&[&str], &[&str])] = &[
            (&["home", "home/anna/docs"], &["disk/docs", "home"]),
            (&["home", "home/anna/docs", "home/anna/docs/more"], &["disk/docs", "home"]),
            (&["link", "link/docs"], &["disk/docs", "link"]),
            (&["disk", "home", "home/anna/docs"], &["disk", "home"]),
            (&["home/anna/docs"], &["home/anna/docs"]),
            // The link itself is met.
            (&["home", "home/anna"], &["home"]),
            // From link to link.
            (&["home", "home/anna/x/back/anna/docs"], &["disk/docs", "home"]),
            (&["home", "home/gone/file"], &["home", "home/gone/file"]),
        ];
        for (paths, expected) in table {
            let mut paths: Vec<PathBuf> = paths.iter().map(|name| at(name)).collect();
            follow_links(&mut paths);
            let (got, _) = fold(paths, &Rules::default(), &FileSystems::default());
            assert_eq!(got, expected.iter().map(|name| at(name)).collect::<Vec<_>>());
        }
    }

    /// A pseudo file system that is named beside the root is a source of its own: else it would be left out.
    #[test]
    fn a_pseudo_file_system_that_is_named_stays_a_source() {
        let paths = || vec![PathBuf::from("/proc"), PathBuf::from("/")];
        if FileSystems::default().is_pseudo(b"/proc", stat_path(b"/proc", false).unwrap().device) {
            assert_eq!(fold(paths(), &Rules::default(), &FileSystems::default()).0.len(), 2);
        }
    }
}
