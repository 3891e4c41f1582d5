//! How two trees differ: names, kinds, contents, modes, times, links, holes, attributes; empty means restored exactly.

use crate::attributes::attributes_of;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Metadata>) {
    let entries = fs::read_dir(root.join(below)).expect("a folder is listed");
    for entry in entries {
        let path = below.join(entry.expect("an entry is read").file_name());
        let metadata = fs::symlink_metadata(root.join(&path)).expect("an entry is looked at");
        let is_folder = metadata.is_dir();
        found.insert(path.clone(), metadata);
        if is_folder {
            walk(root, &path, found);
        }
    }
}

/// Everything that can differ, as text.
fn describe(root: &Path, path: &Path, metadata: &Metadata) -> Vec<(&'static str, String)> {
    let kind = metadata.file_type();
    let whole = root.join(path);
    let mut facts = vec![
        ("kind", format!("{kind:?}")),
        ("owner", format!("{}:{}", metadata.uid(), metadata.gid())),
        ("time", format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec())),
        ("attributes", format!("{:?}", attributes_of(&whole))),
    ];
    if !kind.is_symlink() {
        facts.push(("mode", format!("{:o}", metadata.mode())));
    }
    if kind.is_file() {
        facts.push(("size", metadata.len().to_string()));
        facts.push(("content", blake3::hash(&fs::read(&whole).expect("a file is read")).to_hex().to_string()));
    }
    if kind.is_symlink() {
        facts.push(("target", format!("{:?}", fs::read_link(&whole).expect("a link is read"))));
    }
    if kind.is_block_device() || kind.is_char_device() {
        facts.push(("device", metadata.rdev().to_string()));
    }
    facts
}

/// The names of each inode that has more than one.
fn link_groups(found: &BTreeMap<PathBuf, Metadata>) -> Vec<Vec<&PathBuf>> {
    let mut groups: BTreeMap<(u64, u64), Vec<&PathBuf>> = BTreeMap::new();
    for (path, metadata) in found.iter().filter(|(_, metadata)| !metadata.is_dir()) {
        groups.entry((metadata.dev(), metadata.ino())).or_default().push(path);
    }
    let mut groups: Vec<_> = groups.into_values().filter(|paths| paths.len() > 1).collect();
    groups.sort();
    groups
}

/// In words, how the contents of two folders differ. Of the roots themselves mode and time count, too.
pub fn differences(expected: &Path, found: &Path) -> Vec<String> {
    let mut trees = [BTreeMap::new(), BTreeMap::new()];
    for (root, tree) in [expected, found].into_iter().zip(&mut trees) {
        walk(root, Path::new(""), tree);
    }
    let mut differences = Vec::new();
    for path in trees[0].keys().chain(trees[1].keys().filter(|path| !trees[0].contains_key(*path))) {
        let (Some(one), Some(other)) = (trees[0].get(path), trees[1].get(path)) else {
            let which = if trees[0].contains_key(path) { "is missing" } else { "should not be there" };
            differences.push(format!("{path:?} {which}"));
            continue;
        };
        let pairs = describe(expected, path, one).into_iter().zip(describe(found, path, other));
        for ((what, one), (_, other)) in pairs.filter(|(one, other)| one != other) {
            differences.push(format!("{path:?}: {what} is {other}, not {one}"));
        }
        // Holes may move by a block, but a file that was mostly hole must not fill the disk.
        if one.blocks() * 512 + (1 << 20) < one.len() && other.blocks() > one.blocks() * 2 + 256 {
            differences.push(format!("{path:?}: {} blocks instead of {}", other.blocks(), one.blocks()));
        }
    }
    if link_groups(&trees[0]) != link_groups(&trees[1]) {
        differences.push(format!("hard links are {:?}, not {:?}", link_groups(&trees[1]), link_groups(&trees[0])));
    }
    differences
}
