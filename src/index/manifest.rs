//! The list of a folder's index segments: which index objects each covers and which of their packs it leaves out, as
//! checked text.

use crate::disk::own_files::{is_not_a_file, open_regular, read_regular};
use crate::error::{Error, Kind, Result};
use crate::id::{IndexId, PackId};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// More than any list that this program writes: two million index objects have 160 MB.
const BYTES_MAX: u64 = 256 << 20;
const FIRST_LINE: &str = "siltstone index segments 3";
pub(super) const SUFFIX: &str = ".segment";

/// One segment and the index objects whose chunks it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManifestRow {
    pub(super) name: String,
    /// Of the segment that was written under this name: a file that took its place covers something else.
    pub(super) hash: [u8; 32],
    /// With their sizes in bytes: one that is listed with another size is damaged.
    pub(super) covers: Vec<(IndexId, u64)>,
    /// Packs that those index objects name and that were missing or of another size when the segment was made, with the
    /// size that they should have.
    pub(super) left_out: Vec<(PackId, u64)>,
}

/// Reads the manifest; none when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<ManifestRow>>> {
    let mut bytes = Vec::new();
    match read_regular(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > BYTES_MAX => {
            let why = format!("it has more than {BYTES_MAX} bytes");
            Err(Error::corrupt("use the list of index segments", path.display(), why))
        }
        Ok(_) => match decode(&bytes) {
            Some(rows) => Ok(Some(rows)),
            None => Err(Error::corrupt("use the list of index segments", path.display(), "it is damaged")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if is_not_a_file(&error) => {
            Err(Error::corrupt("use the list of index segments", path.display(), error))
        }
        Err(error) => Err(Error::io("read the list of index segments", path.display(), error)),
    }
}

/// Replaces the manifest, whole or not at all. The caller holds the folder's lock.
pub(super) fn replace(path: &Path, rows: &[ManifestRow]) -> Result<()> {
    let new = path.with_extension("new");
    let text = encode(rows);
    if text.len() as u64 > BYTES_MAX {
        // It could not be read again, and would be made anew by every run.
        let why = format!("it would have more than {BYTES_MAX} bytes");
        return Err(Error::new(Kind::Failed, "replace the list of index segments", path.display())
            .because(why)
            .hint("run this command with --no-cache"));
    }
    let write = || {
        let mut file = open_regular(OpenOptions::new().write(true).create(true).truncate(true), &new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|error| Error::io("replace the list of index segments", path.display(), error))
}

fn encode(rows: &[ManifestRow]) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for row in rows {
        writeln!(text, "segment {} {}", row.name, blake3::Hash::from_bytes(row.hash))
            .expect("writing to memory does not fail");
        for (index, bytes) in &row.covers {
            writeln!(text, "index {index} {bytes}").expect("writing to memory does not fail");
        }
        for (pack, bytes) in &row.left_out {
            writeln!(text, "without {pack} {bytes}").expect("writing to memory does not fail");
        }
    }
    let check = blake3::hash(text.as_bytes());
    writeln!(text, "checksum {check}").expect("writing to memory does not fail");
    text
}

fn decode(bytes: &[u8]) -> Option<Vec<ManifestRow>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let body = &text[..text.strip_suffix('\n')?.rfind('\n')? + 1];
    if text[body.len()..] != format!("checksum {}\n", blake3::hash(body.as_bytes())) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut rows: Vec<ManifestRow> = Vec::new();
    for line in lines {
        match line.split_once(' ')? {
            ("segment", named) => {
                let (name, hash) = named.split_once(' ').filter(|(name, _)| is_name(name))?;
                let hash = *blake3::Hash::from_hex(hash).ok()?.as_bytes();
                rows.push(ManifestRow { name: name.to_owned(), hash, covers: Vec::new(), left_out: Vec::new() });
            }
            ("index", index) => {
                let (index, bytes) = index.split_once(' ')?;
                rows.last_mut()?.covers.push((IndexId::from_hex(index).ok()?, bytes.parse().ok()?));
            }
            ("without", pack) => {
                let (pack, bytes) = pack.split_once(' ')?;
                rows.last_mut()?.left_out.push((PackId::from_hex(pack).ok()?, bytes.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(rows)
}

/// Names lead to files being removed: nothing but our own must ever pass for one.
fn is_name(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damaged_byte_of_a_manifest_is_noticed() {
        let name = |digit: &str| format!("{}{SUFFIX}", digit.repeat(32));
        let rows = vec![
            ManifestRow {
                name: name("a"),
                hash: [4; 32],
                covers: vec![(IndexId([1; 32]), 7), (IndexId([2; 32]), 1 << 33)],
                left_out: Vec::new(),
            },
            ManifestRow {
                name: name("b"),
                hash: [5; 32],
                covers: Vec::new(),
                left_out: vec![(PackId([3; 32]), 1 << 40)],
            },
        ];
        let good = encode(&rows).into_bytes();
        assert_eq!(decode(&good), Some(rows));
        for at in 0..good.len() {
            assert_eq!(decode(&good[..at]), None);
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode(&bad), None, "byte {at}");
            }
        }
    }

    #[test]
    fn a_list_that_could_not_be_read_again_is_not_written() {
        let left_out = vec![(PackId([3; 32]), 1); BYTES_MAX as usize / 70];
        let rows =
            [ManifestRow { name: format!("{}{SUFFIX}", "a".repeat(32)), hash: [4; 32], covers: Vec::new(), left_out }];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest");
        assert!(replace(&path, &rows).unwrap_err().is(Kind::Failed));
        assert!(read(&path).unwrap().is_none());
    }

    #[test]
    fn a_manifest_names_only_segments_of_its_own_folder() {
        for name in ["../../etc/passwd", "manifest", ".segment", "/0123456789abcdef0123456789abcde.segment"] {
            let rows = [ManifestRow { name: name.to_owned(), hash: [0; 32], covers: Vec::new(), left_out: Vec::new() }];
            assert_eq!(decode(encode(&rows).as_bytes()), None);
        }
    }
}
