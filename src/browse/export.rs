//! Write a snapshot, or a part of it, as a tar archive that GNU tar and bsdtar read with all metadata.

use super::content::{copy, for_each_piece, write, wrong_size};
use super::path::{clean, resolve};
use super::tar_header::{BLOCK_BYTES, TarMember, pad};
use super::walk::SnapshotWalk;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::repo::{Reader, Repository, Snapshot};
use crate::watch::Watch;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::Ordering;

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Uncompressed.
    Tar,
    /// tar, compressed by zstd.
    TarZst {
        /// The level of zstd: from 1 (fast) to 22 (small).
        level: i32,
    },
}

impl Archive {
    /// The level of zstd unless another one is asked for.
    pub const LEVEL: i32 = 3;
}

/// Archives end in two blocks of zeros.
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Writes what is at `path` and below as an archive; returns the number of members. Their paths are those in the
/// snapshot without the leading slash; streams become files. Of a file with several names the first carries the
/// content. Inode flags (`chattr`) have no place in an archive that both programs read. Memory grows only with the
/// number of files that have several names.
pub fn export(
    repo: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    form: Archive,
    out: &mut dyn Write,
    watch: &Watch,
) -> Result<u64> {
    match form {
        Archive::Tar => archive(repo, snapshot, path, out, watch),
        Archive::TarZst { level } => {
            let failed = |error| Error::io("compress", "the archive", error);
            let mut encoder = zstd::stream::Encoder::new(out, level).map_err(failed)?;
            let count = archive(repo, snapshot, path, &mut encoder, watch)?;
            encoder.finish().map_err(failed)?.flush().map_err(|error| Error::io("write", "the archive", error))?;
            Ok(count)
        }
    }
}

fn archive(repo: &Repository, snapshot: &Snapshot, path: &[u8], out: &mut dyn Write, watch: &Watch) -> Result<u64> {
    let reader = repo.reader();
    let path = clean(path)?;
    let top = resolve(&reader, snapshot, &path)?;
    let mut archiver = Archiver { reader: &reader, out, watch, links: HashMap::new(), count: 0 };
    // The root's own metadata are made up.
    if path != b"/" {
        archiver.add(&path[1..], &top)?;
    }
    let mut walk = SnapshotWalk::new(&reader, &top, &path, watch);
    while let Some(entry) = walk.next()? {
        archiver.add(&walk.path()[1..], &entry)?;
        walk.enter(&entry);
    }
    let count = archiver.count;
    write(out, &END)?;
    out.flush().map_err(|error| Error::io("write", "the archive", error))?;
    Ok(count)
}

struct Archiver<'a> {
    reader: &'a Reader,
    out: &'a mut dyn Write,
    watch: &'a Watch,
    /// The first name of each inode that has several.
    links: HashMap<u64, Vec<u8>>,
    count: u64,
}

impl Archiver<'_> {
    fn add(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        self.watch.cancel.check()?;
        self.watch.progress.entries.fetch_add(1, Ordering::Relaxed);
        self.watch.progress.set_current(path);
        self.count += 1;
        let links = entry.agreed_links();
        if links != 0 {
            if let Some(first) = self.links.get(&links) {
                return TarMember { path, entry, link: Some(first), size: 0, sparse: false }.write(self.out);
            }
            self.links.insert(links, path.to_vec());
        }
        if !entry.kind.has_content() {
            return TarMember { path, entry, link: None, size: 0, sparse: false }.write(self.out);
        }
        if entry.holes.is_empty() {
            TarMember { path, entry, link: None, size: entry.size, sparse: false }.write(self.out)?;
            copy(self.reader, entry, self.out, self.watch)?;
            pad(self.out, entry.size)?;
        } else {
            self.add_sparse(path, entry)?
        }
        self.watch.progress.files_done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A map of where the data are, then only those.
    fn add_sparse(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let map = sparse_map(entry).ok_or_else(|| wrong_size(entry))?;
        let size = map.len() as u64 + entry.content_bytes();
        TarMember { path, entry, link: None, size, sparse: true }.write(self.out)?;
        write(self.out, &map)?;
        let (out, mut left) = (&mut *self.out, entry.content_bytes());
        for_each_piece(self.reader, entry, self.watch, &mut |bytes| {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| wrong_size(entry))?;
            write(out, bytes)
        })?;
        if left != 0 {
            return Err(wrong_size(entry));
        }
        pad(self.out, size)
    }
}

/// GNU's sparse format 1.0: decimal lines (number of parts, then offset and length of each), filled to whole blocks.
/// None when holes overlap or leave the file.
fn sparse_map(entry: &Entry) -> Option<Vec<u8>> {
    let mut parts: Vec<(u64, u64)> = Vec::with_capacity(entry.holes.len() + 1);
    let mut at = 0;
    for hole in &entry.holes {
        let length = hole.offset.checked_sub(at)?;
        if length > 0 {
            parts.push((at, length));
        }
        at = hole.offset.checked_add(hole.length)?;
    }
    let last = entry.size.checked_sub(at)?;
    // Also when empty: it says where the file ends.
    parts.push((at, last));
    let mut text = format!("{}\n", parts.len());
    for (offset, length) in parts {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK_BYTES), 0);
    Some(map)
}
