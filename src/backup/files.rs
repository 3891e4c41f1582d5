//! Save files: open, read, describe as they were when they were read.

use crate::backup::bytes::{PlainFile, SparseFile, holes_before_end, large_holes};
use crate::backup::chunks::{ExpectedContent, SaveError};
use crate::backup::content::{ContentSaver, SavedContent};
use crate::backup::describe::{Describer, EntryWarnings};
use crate::backup::folder::SourceFolder;
use crate::backup::left_out::UNSIZED_BYTES_MAX;
use crate::backup::links::SourceLinks;
use crate::backup::per_reader::PerReader;
use crate::disk::stat::fstat;
use crate::disk::{PageBuffer, Stat, open};
use crate::entry::{Entry, EntryKind, Hole};
use crate::error::{Kind, Result};
use crate::format::tree::HOLES_MAX;
use crate::watch::{Ledger, now};
use rayon::Scope;
use rustix::fd::OwnedFd;
use std::ffi::CStr;

/// Files of this size are named while they are read, smaller ones by their folder.
const SHOWN_BYTES_MIN: u64 = 16 << 20;

pub(super) struct FileSaver<'a> {
    saver: &'a ContentSaver<'a>,
    describer: &'a Describer<'a>,
    ledger: &'a Ledger<'a>,
    pub links: SourceLinks,
    /// Reused from file to file: a small file costs open, read, stat, close.
    buffers: PerReader<PageBuffer>,
}

/// A file to be saved.
pub(super) struct FileToSave<'f> {
    pub folder: &'f SourceFolder,
    pub name: &'f CStr,
    pub warnings: &'f EntryWarnings<'f>,
}

impl<'a> FileSaver<'a> {
    pub(crate) fn new(
        saver: &'a ContentSaver<'a>,
        describer: &'a Describer<'a>,
        ledger: &'a Ledger<'a>,
        lanes: usize,
    ) -> Self {
        FileSaver { saver, describer, ledger, links: SourceLinks::default(), buffers: PerReader::new(lanes) }
    }

    /// Saves a file. `None` if it cannot be read, with a warning. `stat` becomes what the file was when it was read.
    pub(crate) fn save<'s>(&'s self, scope: &Scope<'s>, file: &FileToSave, stat: &mut Stat) -> Option<Entry> {
        if let Some(known) = (stat.links > 1).then(|| self.links.find(stat)).flatten() {
            self.saver.intake.done(stat.size);
            return Some(Entry { name: file.name.to_bytes().to_vec(), ..known });
        }
        match self.open_and_read(scope, file, stat) {
            Ok(Some(entry)) => {
                // What is wrong with it is said for each name: each is described itself.
                if stat.links > 1 && !file.warnings.has_warned() {
                    self.links.remember(stat, &entry);
                }
                Some(entry)
            }
            Ok(None) => None,
            Err(SaveError::Store(error)) => {
                self.ledger.fail(error);
                None
            }
            Err(SaveError::Source(error)) => {
                match error.kind() {
                    Kind::NotFound => file.warnings.warn("it disappeared before it was read"),
                    _ => file.warnings.source_error("", error),
                }
                None
            }
        }
    }

    fn open_and_read<'s>(
        &'s self,
        scope: &Scope<'s>,
        file: &FileToSave,
        stat: &mut Stat,
    ) -> Result<Option<Entry>, SaveError> {
        let opened = file.folder.directory().and_then(|directory| open::open_file(&directory, file.name));
        let fd = opened.map_err(SaveError::Source)?;
        if stat.size >= SHOWN_BYTES_MIN {
            self.ledger.watch().progress.set_current(&file.warnings.path());
        }
        let mut entry = Entry::new(file.name.to_bytes(), EntryKind::File);
        let lane = self.saver.intake.chunks.lane();
        entry.size = self.buffers.with(lane, |buffer| self.read(scope, &fd, stat, &mut entry, buffer))?;
        let after = fstat(&fd).map_err(SaveError::Source)?;
        let is_pseudo = file.folder.place.is_pseudo();
        match file_as_read(&after, stat, entry.size, is_pseudo) {
            FileAsRead::Whole => {}
            FileAsRead::Doubtful(why) => {
                file.warnings.warn(why);
                entry.is_doubtful = true;
            }
            FileAsRead::Replaced => {
                file.warnings.warn("it was replaced by something other than a file during the backup");
                return Ok(None);
            }
        }
        if !after.same_content(stat) || entry.size != after.size {
            // Not trusted next time: a time that nothing has.
            stat.changed = now();
        }
        self.describer.open_file(&mut entry, &fd, &after, file.warnings);
        Ok(Some(entry))
    }

    /// Reads a file into the content and the holes of its entry. Returns its length in bytes, holes included.
    fn read<'s>(
        &'s self,
        scope: &Scope<'s>,
        fd: &OwnedFd,
        stat: &Stat,
        entry: &mut Entry,
        buffer: &mut PageBuffer,
    ) -> Result<u64, SaveError> {
        let expected = ExpectedContent { kind: self.saver.intake.chunks.kind_of_file(stat.size), bytes: stat.size };
        // The file may have been truncated since it was listed. The range after its end is not a hole.
        let size = if stat.may_be_sparse() { fstat(fd).map_err(SaveError::Source)?.size.min(stat.size) } else { 0 };
        let holes = if size > 0 { self.find_holes(fd, size)? } else { Vec::new() };
        if holes.is_empty() {
            open::advise_sequential(fd, stat.size);
            let saved = self.saver.save(scope, PlainFile::new(fd, stat.size), expected, buffer)?;
            entry.content = saved.content;
            return Ok(saved.bytes);
        }
        let has_more_holes = holes.len() > HOLES_MAX;
        entry.holes = large_holes(holes);
        let data = SparseFile::new(fd, &entry.holes, size, has_more_holes);
        let SavedContent { content, bytes } = self.saver.save(scope, data, expected, buffer)?;
        entry.content = content;
        entry.holes.truncate(holes_before_end(&entry.holes, bytes));
        let in_holes = entry.holes.iter().map(|hole| hole.length).sum::<u64>();
        self.saver.intake.done(in_holes);
        Ok(bytes + in_holes)
    }

    fn find_holes(&self, fd: &OwnedFd, size: u64) -> Result<Vec<Hole>, SaveError> {
        let cancel = &self.ledger.watch().cancel;
        open::holes(fd, size, &|| cancel.check())
            .map_err(|error| if error.is(Kind::Cancelled) { SaveError::Store(error) } else { SaveError::Source(error) })
    }
}

/// What became of a file while it was read.
#[derive(Debug, PartialEq, Eq)]
enum FileAsRead {
    Whole,
    /// The content may be one that the file never had; the reason.
    Doubtful(String),
    /// Something other than a file has its name now.
    Replaced,
}

/// Compares a file with its stat when it has been read: `read` bytes, and now `after`.
fn file_as_read(after: &Stat, stat: &Stat, read: u64, is_pseudo: bool) -> FileAsRead {
    if !after.is(EntryKind::File) {
        return FileAsRead::Replaced;
    }
    // A file that says it is empty and is not: the kernel makes it up, or a FUSE file system does not know its size.
    let is_unsized = after.size == 0 && stat.size == 0 && read > 0;
    // The kernel makes up a size, too: in /sys that of a page.
    let is_unsized = is_unsized || (is_pseudo && read < after.size);
    // And the times: of a file of /proc, those at which it was looked at.
    let has_changed = !after.same_content(stat) && !is_pseudo;
    if is_unsized && read >= UNSIZED_BYTES_MAX {
        FileAsRead::Doubtful(format!("it has no end: only its first {} MiB are saved", read >> 20))
    } else if has_changed || (read != after.size && !is_unsized) {
        FileAsRead::Doubtful("it changed while it was read: the saved content may be inconsistent".to_owned())
    } else {
        FileAsRead::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Time;

    /// An entry that a warning was about was trusted by the next backup, whose snapshot had the same gap without a warning.
    #[test]
    fn what_was_warned_of_is_remembered() {
        let stat = |size, seconds, kind| Stat {
            size,
            kind: Some(kind),
            changed: Time { seconds, nanoseconds: 0 },
            ..Stat::default()
        };
        let file = |size, seconds| stat(size, seconds, EntryKind::File);
        // What it was before and after it was read, how many bytes that were, whether of a pseudo file system; whether it is
        // saved, and whether with a doubt.
        let cases = [
            (file(5, 1), file(5, 1), 5, false, true, false),
            (file(5, 1), file(5, 2), 5, false, true, true),
            (file(5, 1), file(9, 1), 5, false, true, true),
            (file(5, 1), file(5, 2), 5, true, true, false),
            (file(0, 1), file(0, 1), 7, false, true, false),
            (file(0, 1), file(0, 1), UNSIZED_BYTES_MAX, false, true, true),
            (file(4096, 1), file(4096, 1), 7, true, true, false),
            (file(5, 1), stat(5, 1, EntryKind::Fifo), 5, false, false, false),
        ];
        for (number, (before, after, read, is_pseudo, is_saved, is_doubtful)) in cases.into_iter().enumerate() {
            let found = file_as_read(&after, &before, read, is_pseudo);
            assert_eq!(found != FileAsRead::Replaced, is_saved, "case {number}");
            assert_eq!(matches!(found, FileAsRead::Doubtful(_)), is_doubtful, "case {number}");
        }
    }
}
