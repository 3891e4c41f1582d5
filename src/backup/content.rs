//! Read files and streams into chunks, and describe what is no file.

use crate::backup::bytes::{Bytes, Plain, Sparse, Streamed, holes_before_end, large_holes};
use crate::backup::large::HELPED_BYTES_MIN;
use crate::backup::left_out::UNSIZED_BYTES_MAX;
use crate::backup::walk::{Folder, add};
use crate::backup::zeros::ZeroChunk;
use crate::backup::{Run, detect};
use crate::chunk::ContentKind;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Identity, PageBuffer, Stat, flags, open, xattr};
use crate::entry::{CHUNKS_DIRECT_MAX, Content, Entry, EntryKind, Hole, PATH_BYTES_MAX, Xattr};
use crate::error::{Error, Kind, Result};
use crate::repo::list::ListWriter;
use crate::repo::tree::HOLES_MAX;
use rayon::Scope;
use rustix::fd::OwnedFd;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::BuildHasherDefault;
use std::io::Read;
use std::sync::Mutex;

/// Content of at most this many bytes is kept in the tree: an id and its place in the index take more.
pub(super) const INLINE_BYTES_MAX: usize = 32;
/// One read of a large file. The chunker may leave up to a chunk of it for the next round.
const READ_BYTES: usize = 1 << 20;
/// Files of this size are named while they are read, smaller ones by their folder.
const SHOWN_BYTES_MIN: u64 = 16 << 20;
/// Extended attributes of one entry may take this many bytes.
const XATTR_BYTES_MAX: usize = 1 << 20;
/// Inodes with several names whose content is remembered, so that it is read once.
const LINKS_MAX: usize = 1 << 20;

/// Content of inodes with several names.
#[derive(Default)]
pub(super) struct Links(Mutex<HashMap<Identity, Linked, BuildHasherDefault<detect::InodeHasher>>>);

#[derive(Clone)]
struct Linked {
    stat: Stat,
    entry: Entry,
}

thread_local! {
    /// Reused from file to file: a small file costs open, read, stat, close.
    static BUFFER: RefCell<PageBuffer> = RefCell::default();
}

impl<'a> Run<'a> {
    /// Reads a file into chunks. None when it cannot be read, which is then in the report. `stat` becomes what the
    /// file was when it was read.
    pub(super) fn read_file<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        name: &CStr,
        stat: &mut Stat,
    ) -> Option<Entry> {
        let path = || folder.child_path(name.to_bytes());
        if let Some(known) = (stat.links > 1).then(|| self.linked(stat)).flatten() {
            add(&self.watch.progress.bytes_done, stat.size);
            return Some(Entry { name: name.to_bytes().to_vec(), ..known });
        }
        let read = self.open_and_read(scope, folder, name, stat, &path);
        match read {
            Ok(Some(entry)) => {
                if stat.links > 1 {
                    self.remember_link(stat, &entry);
                }
                Some(entry)
            }
            Ok(None) => None,
            Err(ReadError::Store(error)) => {
                self.fail(error);
                None
            }
            Err(ReadError::Source(error)) => {
                match error.kind() {
                    Kind::NotFound => self.trouble(&path(), "it disappeared before it was read"),
                    _ => self.source_error(&path(), "", error),
                }
                None
            }
        }
    }

    fn open_and_read<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        name: &CStr,
        stat: &mut Stat,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<Option<Entry>, ReadError> {
        let opened = folder.directory().and_then(|directory| open::open_file(&directory, name));
        let fd = opened.map_err(ReadError::Source)?;
        BUFFER.with_borrow_mut(|buffer| self.read_open_file(scope, &fd, (folder, name, stat), buffer, path))
    }

    fn read_open_file<'s>(
        &'s self,
        scope: &Scope<'s>,
        fd: &OwnedFd,
        (folder, name, stat): (&Folder, &CStr, &mut Stat),
        buffer: &mut PageBuffer,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<Option<Entry>, ReadError> {
        if stat.size >= SHOWN_BYTES_MIN {
            self.watch.progress.set_current(&path());
        }
        let mut entry = Entry::new(name.to_bytes(), EntryKind::File);
        let kind = self.repo.chunker().kind_of_file(stat.size);
        let read = if stat.may_be_sparse() && stat.size > 0 {
            // The file may have been truncated since it was listed. The range after its end is not a hole.
            let size = fstat(fd).map_err(ReadError::Source)?.size.min(stat.size);
            let holes = self.find_holes(fd, size)?;
            let has_more_holes = holes.len() > HOLES_MAX;
            entry.holes = large_holes(holes);
            let data = Sparse::new(fd, &entry.holes, size, has_more_holes);
            let (content, read) = self.read_content(scope, data, kind, stat.size, buffer)?;
            entry.content = content;
            entry.holes.truncate(holes_before_end(&entry.holes, read));
            let holes = entry.holes.iter().map(|hole| hole.length).sum::<u64>();
            add(&self.watch.progress.bytes_done, holes);
            read + holes
        } else {
            open::advise_sequential(fd, stat.size);
            let (content, read) = self.read_content(scope, Plain::new(fd, stat.size), kind, stat.size, buffer)?;
            entry.content = content;
            read
        };
        let after = fstat(fd).map_err(ReadError::Source)?;
        if !after.is(EntryKind::File) {
            self.trouble(&path(), "it was replaced by something other than a file during the backup");
            return Ok(None);
        }
        // A file that says it is empty and is not: the kernel makes it up, or a FUSE file system does not know its size.
        let is_unsized = after.size == 0 && stat.size == 0 && read > 0;
        // The kernel makes up a size, too: in /sys that of a page.
        let is_unsized = is_unsized || (folder.place.is_pseudo && read < after.size);
        // And the times: of a file of /proc, those at which it was looked at.
        let has_changed = !after.same_content(stat) && !folder.place.is_pseudo;
        if is_unsized && read >= UNSIZED_BYTES_MAX {
            self.trouble(&path(), format!("it has no end: only its first {} MiB are saved", read >> 20));
        } else if has_changed || (read != after.size && !is_unsized) {
            self.trouble(&path(), "it changed while it was read: the saved content may be inconsistent");
        }
        if !after.same_content(stat) || read != after.size {
            // Not trusted next time: a time that nothing has.
            stat.changed = crate::watch::now();
        }
        entry.size = read;
        entry.meta = self.metadata(&after);
        entry.meta.xattrs = self.bounded(xattr::read_xattrs(fd), path);
        entry.meta.flags = flags::read_flags(fd);
        entry.link_group = detect::link_group(&after);
        Ok(Some(entry))
    }

    fn find_holes(&self, fd: &OwnedFd, size: u64) -> Result<Vec<Hole>, ReadError> {
        open::holes(fd, size, &|| self.watch.cancel.check()).map_err(|error| match error.is(Kind::Cancelled) {
            true => ReadError::Store(error),
            false => ReadError::Source(error),
        })
    }

    /// Metadata of a file whose content is known to be the old one.
    pub(super) fn describe_file(&self, folder: &Folder, name: &CStr, stat: &Stat, old: &Entry) -> Option<Entry> {
        let mut entry = Entry {
            content: old.content.clone(),
            holes: old.holes.clone(),
            size: old.size,
            ..Entry::new(name.to_bytes(), old.kind)
        };
        entry.meta = self.metadata(stat);
        let path = || folder.child_path(name.to_bytes());
        match folder.directory().and_then(|directory| open::open_file(&directory, name)) {
            Ok(fd) => {
                entry.meta.xattrs = self.bounded(xattr::read_xattrs(&fd), &path);
                entry.meta.flags = flags::read_flags(&fd);
            }
            Err(error) => self.source_error(&path(), "its extended attributes are missing: ", error),
        }
        entry.link_group = detect::link_group(stat);
        Some(entry)
    }

    /// Directories (without their tree), links, devices and FIFOs.
    pub(super) fn build_special(&self, folder: &Folder, name: &CStr, stat: &Stat) -> Option<Entry> {
        let kind = stat.kind?;
        let path = || folder.child_path(name.to_bytes());
        let directory = match folder.directory() {
            Ok(directory) => directory,
            Err(error) => {
                self.source_error(&path(), "", error);
                return None;
            }
        };
        let mut entry = Entry::new(name.to_bytes(), kind);
        entry.meta = self.metadata(stat);
        entry.meta.xattrs = self.bounded(xattr::read_xattrs_at(&directory, name), &path);
        match kind {
            EntryKind::Symlink => match open::read_link(&directory, name) {
                // FUSE may return a longer one where memory pages are large.
                Ok(target) if target.len() > PATH_BYTES_MAX => {
                    self.trouble(&path(), format!("its target is longer than {PATH_BYTES_MAX} bytes"));
                    return None;
                }
                Ok(target) => entry.target = target,
                Err(error) => {
                    self.source_error(&path(), "", error);
                    return None;
                }
            },
            EntryKind::BlockDevice | EntryKind::CharDevice => entry.device = stat.special,
            EntryKind::Directory => {
                // Opening one that is mounted when it is needed would mount it.
                let crosses = stat.device != folder.place.here;
                if !crosses || !self.left_out.mounts.is_pseudo(&path(), stat.device) {
                    match directory.open_child(name) {
                        Ok(handle) => entry.meta.flags = flags::read_flags(&handle),
                        Err(error) if error.is(Kind::Full) => self.fail_at(&path(), error),
                        // That it cannot be read is told when it is walked.
                        Err(_) => {}
                    }
                }
            }
            _ => {}
        }
        entry.link_group = detect::link_group(stat);
        Some(entry)
    }

    /// A source itself, by its path.
    pub(super) fn describe_path(&self, path: &[u8], stat: &Stat) -> Entry {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let kind = stat.kind.unwrap_or(EntryKind::Directory);
        let mut entry = Entry::new(name, kind);
        entry.meta = self.metadata(stat);
        match Directory::open_path(path) {
            Ok(handle) => {
                entry.meta.xattrs = self.bounded(xattr::read_xattrs(&handle), &|| path.to_vec());
                entry.meta.flags = flags::read_flags(&handle);
            }
            Err(error) if error.is(Kind::Full) => self.fail_at(path, error),
            // Folders above a source need not be readable; of a source itself the walk has told it.
            Err(_) => {}
        }
        entry
    }

    fn metadata(&self, stat: &Stat) -> crate::entry::Metadata {
        crate::entry::Metadata {
            user: self.owners.user_name(stat.uid).to_owned(),
            group: self.owners.group_name(stat.gid).to_owned(),
            ..stat.metadata()
        }
    }

    /// Extended attributes, or none and a trouble when they cannot be read or are too large for a page of a tree.
    fn bounded(&self, read: Result<Vec<Xattr>>, path: &dyn Fn() -> Vec<u8>) -> Vec<Xattr> {
        let why = match read {
            Ok(xattrs) => {
                let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
                if bytes <= XATTR_BYTES_MAX {
                    return xattrs;
                }
                format!("they have {bytes} bytes; at most {XATTR_BYTES_MAX} can be saved")
            }
            Err(error) if error.is(Kind::Full) => {
                self.fail_at(&path(), error);
                return Vec::new();
            }
            Err(error) => error.to_string(),
        };
        self.trouble(&path(), format!("its extended attributes are missing: {why}"));
        Vec::new()
    }

    pub(super) fn linked(&self, stat: &Stat) -> Option<Entry> {
        let links = self.links.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = links.get(&stat.identity())?;
        known.stat.same_content(stat).then(|| known.entry.clone())
    }

    pub(super) fn remember_link(&self, stat: &Stat, entry: &Entry) {
        let mut links = self.links.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if links.len() < LINKS_MAX {
            links.insert(stat.identity(), Linked { stat: *stat, entry: entry.clone() });
        }
    }

    /// A stream to its end, into `entry`; its producer's failure is an error.
    pub(super) fn read_stream(&self, name: &[u8], source: impl Read, entry: &mut Entry) -> Result<()> {
        let reading = Streamed { name, source, watch: self.watch, warned: false };
        let read = self.readers.pool.in_place_scope(|scope| {
            self.read_content(scope, reading, ContentKind::Dump, u64::MAX, &mut PageBuffer::default())
        });
        let (content, bytes) = read.map_err(ReadError::into_error)?;
        entry.content = content;
        entry.size = bytes;
        Ok(())
    }

    /// Cuts bytes into chunks and stores them; returns the content and how many bytes it was. `expected` is a hint. What
    /// turns out to be large is read on with the help of others, if nothing else has it.
    fn read_content<'s>(
        &'s self,
        scope: &Scope<'s>,
        mut from: impl Bytes,
        kind: ContentKind,
        expected: u64,
        buffer: &mut PageBuffer,
    ) -> Result<(Content, u64), ReadError> {
        let writer = self.writer.as_ref().expect("content is read only when it is stored");
        let (chunker, lane) = (self.repo.chunker(), self.lane());
        let max = chunker.sizes(kind).max;
        // One byte more than expected, so that one read tells whether the file has grown.
        let mut wanted =
            usize::try_from(expected).unwrap_or(usize::MAX).saturating_add(1).clamp(4096, READ_BYTES + max);
        if buffer.len() < wanted {
            *buffer = PageBuffer::new(wanted.max(READ_BYTES));
        }
        let mut list = ListWriter::default();
        let mut store_list = |bytes: Vec<u8>| writer.store_tree(lane, &bytes);
        let (mut filled, mut total, mut last) = (0, 0, false);
        let mut zero_chunk = ZeroChunk::default();
        loop {
            if let Some(passed) = self.pass_zeros(&mut from, kind, &buffer[..filled], &mut zero_chunk)? {
                list.push_run(passed.id, passed.run.count, &mut store_list).map_err(ReadError::Store)?;
                filled -= passed.run.of_begun;
                total += passed.run.bytes;
            }
            let space = &mut buffer[..wanted];
            last = last || self.fill(&mut from, space, &mut filled, (kind, expected)).map_err(ReadError::Source)?;
            if total == 0 && last && filled <= INLINE_BYTES_MAX {
                let content = if filled == 0 { Content::Empty } else { Content::Inline(buffer[..filled].to_vec()) };
                return Ok((content, filled as u64));
            }
            let (mut at, mut ends) = (0, Vec::new());
            while let Some(length) = chunker.cut(kind, &buffer[at..filled], last) {
                at += length;
                ends.push(at);
            }
            for id in writer.store_contents(lane, &buffer[..at], &ends).map_err(ReadError::Store)? {
                list.push(id, &mut store_list).map_err(ReadError::Store)?;
            }
            total += at as u64;
            if last {
                break;
            }
            self.watch.cancel.check().map_err(ReadError::Store)?;
            if expected.saturating_sub(total) >= HELPED_BYTES_MIN
                && self.helpers_max() > 0
                && let Some(hold) = self.crew.hold()
            {
                let begun = &buffer[at..filled];
                let mut push = |id, count| list.push_run(id, count, &mut store_list);
                total += self.read_helped((scope, &hold), &mut from, (kind, expected), begun, &mut push)?;
                break;
            }
            if wanted < READ_BYTES + max {
                // It has grown. A buffer for the size that it had may hold no whole chunk of what it is now.
                wanted = READ_BYTES + max;
                let mut larger = PageBuffer::new(wanted);
                larger[..filled].copy_from_slice(&buffer[..filled]);
                *buffer = larger;
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
        }
        let content = match list.direct() {
            Some(ids) if ids.len() <= CHUNKS_DIRECT_MAX => Content::Chunks(ids.to_vec()),
            _ => {
                let (depth, root) = list.finish(&mut store_list).map_err(ReadError::Store)?;
                Content::List { depth, root }
            }
        };
        Ok((content, total))
    }
}

/// Why reading a source ended, by the side that failed: a full repository must not be reported as an unreadable file.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The source's: it goes into the report.
    Source(Error),
    /// Ours, while storing what was read: it ends the run.
    Store(Error),
}

impl ReadError {
    pub fn into_error(self) -> Error {
        match self {
            ReadError::Source(error) | ReadError::Store(error) => error,
        }
    }
}
