//! Find one thing in a snapshot by its path.

use super::shown;
use crate::entry::{Content, Entry, EntryKind, is_valid_name};
use crate::error::{Error, Kind, Result};
use crate::repo::{Reader, Snapshot};

/// The parts of a path as people write it: slashes too many and `.` mean nothing.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.iter().all(|part| is_valid_name(part)) {
        Ok(parts)
    } else {
        Err(Error::invalid("look up", shown(path), "no path in a snapshot looks like this")
            .hint("write the path without \"..\", as `silt ls` shows it"))
    }
}

/// The path as a snapshot shows it: `/` for the root, else every part after a slash.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len() + 1);
    for part in parts(path)? {
        clean.push(b'/');
        clean.extend_from_slice(part);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    Ok(clean)
}

/// The root of a snapshot as an entry: where it was no source, nothing was saved of it but what is below.
pub(super) fn root_entry(snapshot: &Snapshot) -> Entry {
    if let Some(root) = snapshot.root_entry() {
        return Entry { name: b"/".to_vec(), ..root };
    }
    let mut root = Entry::new(*b"/", EntryKind::Directory);
    root.meta.mode = 0o755;
    root.meta.modified = snapshot.started.time();
    root.content = Content::Tree(snapshot.root);
    root
}

/// The entry at a path from the snapshot's root: `/a/b` of a tree, `db.sql` of a stream, `/` for the root. Symbolic
/// links are not followed.
pub fn resolve(reader: &Reader, snapshot: &Snapshot, path: &[u8]) -> Result<Entry> {
    let mut entry = root_entry(snapshot);
    let mut found = Vec::new();
    for part in parts(path)? {
        let missing = |why: String| {
            Error::new(Kind::NotFound, "find", format!("{} in snapshot {}", shown(path), snapshot.id.short()))
                .because(why)
        };
        let deepest = || shown(if found.is_empty() { b"/" } else { &found });
        let Content::Tree(tree) = &entry.content else {
            return Err(match entry.kind {
                EntryKind::Symlink => {
                    let hint = format!("it points to {}: use the path of what it points to", shown(&entry.target));
                    missing(format!("{} is a symbolic link, which is not followed", deepest())).hint(hint)
                }
                EntryKind::Directory => missing(format!("{} is empty", deepest())),
                _ => missing(format!("{} is not a directory", deepest())),
            });
        };
        entry = match reader.lookup(tree, part)? {
            Some(entry) => entry,
            None => {
                let deepest = deepest();
                let hint = format!("list what the snapshot has with `silt ls {}:{deepest}`", snapshot.id.short());
                return Err(missing(format!("the snapshot has {deepest}, but no {} in it", shown(part))).hint(hint));
            }
        };
        found.push(b'/');
        found.extend_from_slice(part);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_people_write_them() {
        for (written, is) in [(&b"/a//b/./"[..], &b"/a/b"[..]), (b"", b"/"), (b"///", b"/"), (b"db.sql", b"/db.sql")] {
            assert_eq!(clean(written).unwrap(), is);
        }
        assert!(clean(b"/a/../b").unwrap_err().is(Kind::Invalid));
    }
}
