//! What a folder holds, or what a snapshot says that it held: everything that a restore must bring back.

use crate::attributes::attributes_of;
use siltstone::browse::resolve;
use siltstone::entry::{Content, Entry, EntryKind};
use siltstone::error::{Error, Result};
use siltstone::repo::{Reader, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Attributes by name.
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// One entry with all that a restore brings back.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: EntryKind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub time: (i64, u32),
    pub xattrs: Xattrs,
    /// Content of a file, target of a link.
    pub bytes: Vec<u8>,
    /// The first name of its inode among those that were captured; None when it has one name only.
    pub first_name: Option<PathBuf>,
    /// Only of what was captured from a file system.
    pub inode: u64,
    pub is_sparse: bool,
}

/// Entries by their paths below the root, which has the empty path.
pub type Capture = BTreeMap<PathBuf, Node>;

impl Node {
    /// How another node differs, in words; empty when it is the same.
    pub fn differences(&self, other: &Node) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |what: &str, one: &dyn std::fmt::Debug, two: &dyn std::fmt::Debug, same: bool| {
            if !same {
                found.push(format!("{what} is {two:?} instead of {one:?}"));
            }
        };
        note("kind", &self.kind, &other.kind, self.kind == other.kind);
        if self.kind != EntryKind::Symlink {
            note("mode", &self.mode, &other.mode, self.mode == other.mode);
        }
        note("owner", &self.owner, &other.owner, self.owner == other.owner);
        note("time", &self.time, &other.time, self.time == other.time);
        note("attributes", &self.xattrs, &other.xattrs, self.xattrs == other.xattrs);
        let brief = |node: &Node| (node.bytes.len(), blake3::hash(&node.bytes).to_hex()[..8].to_owned());
        note("content", &brief(self), &brief(other), self.bytes == other.bytes);
        found
    }

    pub fn is_same(&self, other: &Node) -> bool {
        self.differences(other).is_empty()
    }

    pub fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }
}

fn kind_of(metadata: &Metadata) -> EntryKind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else {
        EntryKind::File
    }
}

fn node_of(path: &Path, metadata: &Metadata) -> Node {
    let kind = kind_of(metadata);
    let bytes = match kind {
        EntryKind::File => fs::read(path).expect("a file is read"),
        EntryKind::Symlink => fs::read_link(path).expect("a link is read").into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    let xattrs = match kind {
        EntryKind::File | EntryKind::Directory => attributes_of(path).into_iter().collect(),
        _ => Xattrs::new(),
    };
    Node {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        time: (metadata.mtime(), metadata.mtime_nsec() as u32),
        xattrs,
        is_sparse: kind == EntryKind::File && metadata.blocks() * 512 < metadata.len(),
        bytes,
        first_name: None,
        inode: if metadata.nlink() > 1 && kind != EntryKind::Directory { metadata.ino() } else { 0 },
    }
}

fn walk(root: &Path, below: &Path, found: &mut Capture) {
    let path = root.join(below);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return };
    let node = node_of(&path, &metadata);
    let is_directory = node.is_directory();
    found.insert(below.to_owned(), node);
    if is_directory {
        for entry in fs::read_dir(&path).expect("a folder is listed") {
            walk(root, &below.join(entry.expect("an entry is read").file_name()), found);
        }
    }
}

/// Gives each node of an inode with several names the first of them; `group` says which inode a node has, 0 for alone.
fn name_groups(capture: &mut Capture, group: impl Fn(&Path, &Node) -> u64) {
    let mut groups: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    for (path, node) in capture.iter() {
        let number = group(path, node);
        if number != 0 {
            groups.entry(number).or_default().push(path.clone());
        }
    }
    for names in groups.into_values().filter(|names| names.len() > 1) {
        for name in &names {
            capture.get_mut(name).expect("it was listed").first_name = Some(names[0].clone());
        }
    }
}

/// Everything at and below a path; empty when there is nothing.
pub fn capture(root: &Path) -> Capture {
    let mut found = Capture::new();
    walk(root, Path::new(""), &mut found);
    name_groups(&mut found, |_, node| node.inode);
    found
}

/// What of a snapshot cannot be read.
#[derive(Clone, Debug)]
pub enum Missing {
    /// The way to the source, or a directory's entries.
    Directory(PathBuf),
    Content(PathBuf),
}

/// What a snapshot says about one of its sources.
pub struct Saved {
    pub capture: Capture,
    pub missing: Vec<(Missing, Error)>,
    /// The way to the source cannot be read.
    pub is_out_of_reach: bool,
}

/// Reads the whole of a source in a snapshot, all chunks of it.
pub fn saved(reader: &Reader, snapshot: &Snapshot, source: &Path) -> Saved {
    let mut saved = Saved { capture: Capture::new(), missing: Vec::new(), is_out_of_reach: false };
    let entry = match resolve(reader, snapshot, source.as_os_str().as_bytes()) {
        Ok(entry) => entry,
        Err(error) => {
            saved.is_out_of_reach = true;
            saved.missing.push((Missing::Directory(PathBuf::new()), error));
            return saved;
        }
    };
    let mut groups = HashMap::new();
    read_entry(reader, &entry, PathBuf::new(), &mut saved, &mut groups);
    name_groups(&mut saved.capture, |path, _| groups.get(path).copied().unwrap_or_default());
    saved
}

fn read_entry(reader: &Reader, entry: &Entry, path: PathBuf, saved: &mut Saved, groups: &mut HashMap<PathBuf, u64>) {
    let bytes = match entry.kind {
        EntryKind::Symlink => Ok(entry.target.clone()),
        _ => content(reader, entry),
    };
    let bytes = bytes.unwrap_or_else(|error| {
        saved.missing.push((Missing::Content(path.clone()), error));
        Vec::new()
    });
    let meta = &entry.meta;
    let node = Node {
        kind: entry.kind,
        mode: meta.mode,
        owner: (meta.uid, meta.gid),
        time: (meta.modified.seconds, meta.modified.nanoseconds),
        xattrs: meta.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect(),
        bytes,
        first_name: None,
        inode: 0,
        is_sparse: false,
    };
    groups.insert(path.clone(), entry.link_group);
    saved.capture.insert(path.clone(), node);
    if let Content::Tree(tree) = &entry.content {
        match reader.directory(tree) {
            Ok(entries) => {
                for below in entries {
                    let name = std::ffi::OsStr::from_bytes(&below.name);
                    read_entry(reader, &below, path.join(name), saved, groups);
                }
            }
            Err(error) => saved.missing.push((Missing::Directory(path), error)),
        }
    }
}

/// The bytes of an entry, its holes filled with zeros.
fn content(reader: &Reader, entry: &Entry) -> Result<Vec<u8>> {
    let mut data = match &entry.content {
        Content::Inline(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    reader.for_each_chunk(entry, &mut |id| {
        data.extend_from_slice(&reader.content(id)?);
        Ok(())
    })?;
    for hole in &entry.holes {
        let at = (hole.offset as usize).min(data.len());
        data.splice(at..at, std::iter::repeat_n(0, hole.length as usize));
    }
    if matches!(entry.kind, EntryKind::File | EntryKind::Stream) {
        data.resize(data.len().max(entry.size as usize), 0);
    }
    Ok(data)
}

/// How `found` differs from what is expected, except for what is missing.
pub fn compare(expected: &Capture, found: &Capture, missing: &[(Missing, Error)]) -> Vec<String> {
    let lost = |path: &Path| missing.iter().any(|(what, _)| matches!(what, Missing::Content(lost) if lost == path));
    let out_of_reach = |path: &Path| {
        let below = |what: &Missing| matches!(what, Missing::Directory(lost) if path.starts_with(lost) && path != lost);
        missing.iter().any(|(what, _)| below(what))
    };
    let mut differences = Vec::new();
    for (path, node) in expected {
        match found.get(path) {
            None if out_of_reach(path) => {}
            None => differences.push(format!("{path:?} is missing")),
            Some(found) if lost(path) => {
                differences.extend((node.kind != found.kind).then(|| format!("{path:?} is of another kind")));
            }
            Some(other) => {
                differences.extend(node.differences(other).into_iter().map(|what| format!("{path:?}: {what}")));
                if missing.is_empty() && node.first_name != other.first_name {
                    let (one, two) = (&node.first_name, &other.first_name);
                    differences.push(format!("{path:?} is linked to {two:?} instead of {one:?}"));
                }
            }
        }
    }
    let extra = found.keys().filter(|path| !expected.contains_key(*path));
    differences.extend(extra.map(|path| format!("{path:?} should not be there")));
    differences
}
