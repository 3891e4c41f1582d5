//! Where walks begin: sources that are directories, files of one directory together, and `/` as all that is in it.

use crate::backup::left_out::LeftOutReason;
use crate::backup::nested::{WalkPlace, tops};
use crate::backup::selection::Selection;
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, ListBuffer, NameList, Stat};
use crate::entry::EntryKind;
use crate::error::Result;
use crate::watch::NoticeKind;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

/// A directory that a walk begins with.
pub(super) struct WalkTop {
    pub path: Vec<u8>,
    pub stat: Stat,
    pub place: WalkPlace,
    /// Directly in `/`, which is a source, and on another mount.
    pub is_mounted: bool,
}

/// Sources by how they are walked.
#[derive(Default)]
pub(super) struct WalkTops {
    pub directories: Vec<WalkTop>,
    /// Sources that are not directories, or not there: names by the directory that they are in.
    pub listed: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Directories that are not entered.
    pub closed: Vec<(Vec<u8>, Stat)>,
    /// `/` itself, where it is a source.
    pub root: Option<RootTop>,
}

pub(super) struct RootTop {
    pub stat: Stat,
    pub is_partial: bool,
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').expect("paths of sources are absolute");
    (&path[..slash.max(1)], &path[slash + 1..])
}

/// What to say of a source that is saved without the content that it leads to.
fn saved_as_such(path: &[u8], stat: &Stat) -> Option<String> {
    let shown = String::from_utf8_lossy(path);
    let what = match stat.kind {
        None => return Some(format!("{shown} is a socket, which cannot be saved")),
        Some(EntryKind::Symlink) => {
            // It is not followed for this: it may lead to a file system that does not answer.
            let how = format!("to save the directory that it points to, write {shown}/");
            return Some(format!("{shown} is a symbolic link and is saved as such; {how}"));
        }
        Some(EntryKind::BlockDevice) => "block device",
        Some(EntryKind::CharDevice) => "character device",
        Some(EntryKind::Fifo) => "FIFO",
        Some(EntryKind::File | EntryKind::Directory | EntryKind::Stream) => return None,
    };
    Some(format!("{shown} is a {what} and is saved as such; to save what is read from it, use --stdin or --stream"))
}

impl Selection<'_> {
    /// Finds out where walks begin. `is_quiet` suppresses notices and warnings.
    pub(crate) fn tops(&self, is_quiet: bool) -> Result<WalkTops> {
        let mut found = WalkTops::default();
        for path in tops(&self.sources.paths) {
            let path = path.as_os_str().as_bytes();
            if path == b"/" {
                self.add_root(&mut found, is_quiet)?;
                continue;
            }
            match stat_path(path, false) {
                Ok(stat) if stat.is(EntryKind::Directory) => {
                    let place = self.place_of_source(path, &stat);
                    found.directories.push(WalkTop { path: path.to_vec(), stat, place, is_mounted: false });
                }
                stat => {
                    if let Some(text) = stat.ok().filter(|_| !is_quiet).and_then(|stat| saved_as_such(path, &stat)) {
                        self.notice(NoticeKind::Source, text);
                    }
                    let (folder, name) = split(path);
                    found.listed.entry(folder.to_vec()).or_default().push(name.to_vec());
                }
            }
        }
        Ok(found)
    }

    /// `/` stands for everything in it, so that streams can stand beside.
    fn add_root(&self, tops: &mut WalkTops, is_quiet: bool) -> Result<()> {
        let directory = Directory::open_path(b"/")?;
        let stat = fstat(&directory)?;
        let mut names = NameList::default();
        directory.names(&mut names, &mut ListBuffer::default())?;
        if !is_quiet {
            self.expected.met(b"/", &names);
        }
        let mut place = self.place_of_source(b"/", &stat);
        let kept = self.kept_names(&mut place, b"/", &directory, &names, is_quiet);
        let is_partial = kept.as_ref().is_some_and(|kept| kept.len() < names.len());
        tops.root = Some(RootTop { stat, is_partial });
        let kept = kept.unwrap_or_else(|| (0..names.len() as u32).collect());
        for name in kept.into_iter().map(|index| names.get(index as usize)) {
            let path = [b"/", name.to_bytes()].concat();
            match self.stat_in(place, &directory, name, &|| path.clone()) {
                Ok(stat) if stat.is(EntryKind::Directory) => match self.place_below(place, &path, &stat) {
                    Ok(below) => {
                        let is_mounted = place.is_left_by(&stat);
                        tops.directories.push(WalkTop { path, stat, place: below, is_mounted });
                    }
                    Err(reason) => {
                        self.report_closed(&path, reason, is_quiet);
                        tops.closed.push((path, stat));
                    }
                },
                _ => tops.listed.entry(b"/".to_vec()).or_default().push(name.to_bytes().to_vec()),
            }
        }
        Ok(())
    }

    fn report_closed(&self, path: &[u8], reason: LeftOutReason, is_quiet: bool) {
        if !is_quiet {
            self.report_left_out(path, reason);
        }
    }
}
