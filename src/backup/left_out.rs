//! What a backup leaves out: what rules exclude, pseudo file systems, its own repository and cache, and what is too deep.

use crate::backup::Run;
use crate::backup::nested::Place;
use crate::backup::walk::{Folder, add};
use crate::disk::device::Mounts;
use crate::disk::open::{open_file_checked, read_full};
use crate::disk::read_dir::Hint;
use crate::disk::{Directory, Names, Stat};
use crate::entry::{DEEP_PATH_BYTES_MAX, EntryKind, LEVELS_MAX};
use crate::error::{Kind, Result};
use crate::repo::OwnFolders;
use crate::source::rules::Marker;
use crate::watch::Watch;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files of a pseudo file system are saved up to this size, whatever size they say they have: some never end.
pub(super) const UNSIZED_BYTES_MAX: u64 = 64 << 20;
/// Notices about what is left out; after these one more says that there are others.
const NOTICES_MAX: u64 = 50;

/// What is left out whatever the rules say, and how much of it was told.
pub(super) struct LeftOut {
    pub own: OwnFolders,
    pub mounts: Mounts,
    told: AtomicU64,
}

impl LeftOut {
    pub fn new(own: OwnFolders) -> Self {
        LeftOut { own, mounts: Mounts::default(), told: AtomicU64::new(0) }
    }

    /// A notice of a sort that there may be thousands of.
    pub fn tell(&self, watch: &Watch, text: String) {
        match self.told.fetch_add(1, Ordering::Relaxed) {
            told if told < NOTICES_MAX => watch.notice(text),
            NOTICES_MAX => watch.notice("more notices of this kind are not shown"),
            _ => {}
        }
    }
}

/// Why a directory is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is on another file system, and the rules say to stay on one.
    OtherFileSystem,
    /// A rule says so, and only sources that were named lead on from there.
    Rule,
    Pseudo,
    Own(&'static str),
    TooDeep,
}

impl Run<'_> {
    /// How a directory below is entered, if at all.
    pub(super) fn place_below(&self, above: Place, path: &[u8], stat: &Stat) -> Result<Place, Reason> {
        let level = above.level + 1;
        if level >= LEVELS_MAX || path.len() > DEEP_PATH_BYTES_MAX {
            return Err(Reason::TooDeep);
        }
        if let Some(what) = self.left_out.own.name_of(stat) {
            return Err(Reason::Own(what));
        }
        let here = stat.device;
        let crosses = here != above.here;
        let is_pseudo = if crosses { self.left_out.mounts.is_pseudo(path, here) } else { above.is_pseudo };
        let reason = match above {
            _ if above.is_passage || self.options.rules.leaves_out_device(above.device, here) => {
                Reason::OtherFileSystem
            }
            _ if crosses && is_pseudo => Reason::Pseudo,
            // Entered at all only as a source, or as the way to one.
            _ if self.has_source_below && self.options.rules.leaves_out(path, true) => Reason::Rule,
            _ => return Ok(Place { here, level, is_pseudo, ..above }),
        };
        // All the same where a source that was named is there or further down.
        let Some(first) = self.source_at_or_below(path) else { return Err(reason) };
        Ok(Place { device: here, here, level, is_pseudo, is_passage: first != path })
    }

    /// Says that a directory is not entered, where nobody has asked for that.
    pub(super) fn tell_left_out(&self, path: &[u8], reason: Reason) {
        let shown = String::from_utf8_lossy(path);
        match reason {
            Reason::OtherFileSystem | Reason::Rule => {}
            Reason::TooDeep => {
                let what = format!(
                    "its contents are not saved: it is more than {LEVELS_MAX} directories deep, or its path is longer than {DEEP_PATH_BYTES_MAX} bytes"
                );
                self.warn(path, what);
            }
            Reason::Pseudo => self.tell_some(format!(
                "skipped: {shown} is a virtual file system of the kernel; name it as a source to save it anyway"
            )),
            Reason::Own(what) => self.tell_some(format!("skipped: {shown} is {what}")),
        }
    }

    /// A notice of a sort that there may be thousands of.
    pub(super) fn tell_some(&self, text: String) {
        self.left_out.tell(self.watch, text);
    }

    /// Whether a name that is not a directory is saved. Directories are decided on when they are entered.
    pub(super) fn is_saved(&self, folder: &Folder, name: &CStr, stat: &Stat) -> bool {
        if stat.kind.is_none() {
            add(&self.counts.sockets, 1);
            return false;
        }
        if !stat.is(EntryKind::File) {
            return true;
        }
        if self.options.rules.leaves_out_file(stat.size) {
            let path = folder.child_path(name.to_bytes());
            if self.is_source(&path) {
                let shown = String::from_utf8_lossy(&path).into_owned();
                self.tell_some(format!("excluded: the source {shown} is larger than --exclude-larger-than allows"));
            }
            return false;
        }
        let path = || folder.child_path(name.to_bytes());
        let place = folder.place;
        if stat.device != place.here && !place.is_pseudo && self.left_out.mounts.is_pseudo(&path(), stat.device) {
            self.tell_left_out(&path(), Reason::Pseudo);
            return false;
        }
        if place.is_pseudo && stat.size > UNSIZED_BYTES_MAX {
            let shown = String::from_utf8_lossy(&path()).into_owned();
            self.tell_some(format!("skipped: {shown} is a virtual file of the kernel with an implausible size"));
            return false;
        }
        true
    }

    /// Which names are walked, by the rules or as the way to a source; none stands for all. A folder with a marker becomes
    /// a passage to the sources below it.
    pub(super) fn kept_names(
        &self,
        place: &mut Place,
        path: &[u8],
        handle: &Directory,
        names: &Names,
        tell: bool,
    ) -> Option<Vec<u32>> {
        if place.is_passage {
            let leads = |at: &u32| self.leads_to_source(path, names.get(*at as usize));
            return Some((0..names.len() as u32).filter(leads).collect());
        }
        let rules = &self.options.rules;
        if rules.is_empty() {
            return None;
        }
        let leads = |name: &CStr| self.has_source_below && self.leads_to_source(path, name);
        let marked = rules.markers().iter().find(|marker| self.has_marker(path, handle, names, marker, tell));
        if let Some(marker) = marked {
            let is_passage = (0..names.len()).any(|index| leads(names.get(index)));
            if tell && self.is_source(path) {
                let but = if is_passage { ", except for the sources below it" } else { "" };
                let name = String::from_utf8_lossy(marker.name()).into_owned();
                let source = String::from_utf8_lossy(path);
                self.watch.notice(format!("excluded: the contents of the source {source}, as it contains {name}{but}"));
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
                Hint::Directory => true,
                Hint::Unknown => handle.stat(name).is_ok_and(|stat| stat.is(EntryKind::Directory)),
                _ => false,
            };
            !rules.leaves_out(&child, is_directory) || leads(name)
        };
        Some((0..names.len() as u32).filter(&mut keep).collect())
    }

    /// Whether a marker is in a directory. A bare name is one whatever it names; with a header it is a file that begins
    /// so. One that cannot be read decides nothing: the directory is saved, and that is told.
    fn has_marker(&self, path: &[u8], handle: &Directory, names: &Names, marker: &Marker, tell: bool) -> bool {
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
            Err(_) if !tell => false,
            Err(error) => {
                let path = [path, b"/", marker.name()].concat();
                self.source_error(&path, "this marker cannot be read, so its directory is saved: ", error);
                false
            }
        }
    }
}
