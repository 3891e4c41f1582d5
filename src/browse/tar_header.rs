//! Headers of tar members as GNU tar and bsdtar read them: long names as GNU does, since those are any bytes, and all
//! else that the old fields do not hold as PAX records.

use super::content::write;
use super::tar_acl::acl_text;
use crate::disk::acl::{ACL_ACCESS, ACL_DEFAULT};
use crate::entry::{Entry, EntryKind, Time};
use crate::error::Result;
use std::io::Write;
use tar::{EntryType, Header};

pub(super) const BLOCK_BYTES: usize = 512;
/// The largest time of eleven octal digits.
const TIME_SECONDS_MAX: i64 = 0o77777777777;
/// Bytes of the fields of owners' names, the NUL included.
const OWNER_BYTES: usize = 32;

/// One member to be.
pub(super) struct TarMember<'a> {
    pub path: &'a [u8],
    pub entry: &'a Entry,
    /// The member that this one is another name of.
    pub link: Option<&'a [u8]>,
    /// Bytes that follow the header.
    pub size: u64,
    /// It begins with a map of its data (GNU's sparse format 1.0), and its real size is the entry's.
    pub sparse: bool,
}

impl TarMember<'_> {
    /// Writes all headers.
    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<()> {
        let entry = self.entry;
        let mut path = self.path.to_vec();
        if entry.is_directory() {
            path.push(b'/');
        }
        let link = match (self.link, entry.kind) {
            (Some(link), _) => link,
            (None, EntryKind::Symlink) => &entry.target,
            _ => &[],
        };
        let mut header = header(self.kind(), self.size);
        let records = self.records();
        if !records.is_empty() {
            long(out, EntryType::XHeader, &records)?;
        }
        if link.len() > header.as_old().linkname.len() {
            long(out, EntryType::GNULongLink, &[link, &[0]].concat())?;
        }
        if path.len() > header.as_old().name.len() {
            long(out, EntryType::GNULongName, &[&path[..], &[0]].concat())?;
        }
        let old = header.as_old_mut();
        fill(&mut old.name, &path);
        fill(&mut old.linkname, link);
        let meta = &entry.meta;
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(meta.modified.seconds.clamp(0, TIME_SECONDS_MAX) as u64);
        if let Some(ustar) = header.as_ustar_mut() {
            fill(&mut ustar.uname[..OWNER_BYTES - 1], meta.user.as_bytes());
            fill(&mut ustar.gname[..OWNER_BYTES - 1], meta.group.as_bytes());
            if matches!(entry.kind, EntryKind::BlockDevice | EntryKind::CharDevice) {
                ustar.set_device_major(entry.device.0);
                ustar.set_device_minor(entry.device.1);
            }
        }
        header.set_cksum();
        write(out, header.as_bytes())
    }

    fn kind(&self) -> EntryType {
        match self.entry.kind {
            _ if self.link.is_some() => EntryType::Link,
            EntryKind::File | EntryKind::Stream => EntryType::Regular,
            EntryKind::Directory => EntryType::Directory,
            EntryKind::Symlink => EntryType::Symlink,
            EntryKind::BlockDevice => EntryType::Block,
            EntryKind::CharDevice => EntryType::Char,
            EntryKind::Fifo => EntryType::Fifo,
        }
    }

    fn records(&self) -> Vec<u8> {
        let meta = &self.entry.meta;
        let mut records = Vec::new();
        let time = meta.modified;
        if time.nanoseconds != 0 || !(0..=TIME_SECONDS_MAX).contains(&time.seconds) {
            record(&mut records, b"mtime", decimal(time).as_bytes());
        }
        for (key, name) in [(&b"uname"[..], &meta.user), (b"gname", &meta.group)] {
            if name.len() >= OWNER_BYTES {
                record(&mut records, key, name.as_bytes());
            }
        }
        if self.sparse {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.path);
            record(&mut records, b"GNU.sparse.realsize", self.entry.size.to_string().as_bytes());
        }
        if self.link.is_some() {
            return records;
        }
        for xattr in &meta.xattrs {
            let acl = match xattr.name.as_slice() {
                name if name == ACL_ACCESS.to_bytes() => Some(&b"SCHILY.acl.access"[..]),
                name if name == ACL_DEFAULT.to_bytes() => Some(&b"SCHILY.acl.default"[..]),
                _ => None,
            };
            match acl.zip(acl_text(&xattr.value)) {
                Some((key, text)) => record(&mut records, key, text.as_bytes()),
                None => record(&mut records, &xattr_key(&xattr.name), &xattr.value),
            }
        }
        records
    }
}

/// A key ends at the first `=`, so GNU tar writes that (and its own escape) otherwise.
fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            other => key.push(*other),
        }
    }
    key
}

/// Decimal with a sign before all of it: -0.25 is a quarter of a second before 1970.
fn decimal(time: Time) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, size) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    match size % 1_000_000_000 {
        0 => format!("{sign}{}", size / 1_000_000_000),
        nanoseconds => format!("{sign}{}.{nanoseconds:09}", size / 1_000_000_000),
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// With the magic of POSIX: after its own magic, GNU tar does not look for a sparse map of PAX.
fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

/// A member that says something about the next one.
fn long(out: &mut dyn Write, kind: EntryType, bytes: &[u8]) -> Result<()> {
    let mut header = header(kind, bytes.len() as u64);
    fill(&mut header.as_old_mut().name, if kind == EntryType::XHeader { b"././@PaxHeader" } else { b"././@LongLink" });
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    write(out, header.as_bytes())?;
    write(out, bytes)?;
    pad(out, bytes.len() as u64)
}

/// Fills the block that this many bytes end in.
pub(super) fn pad(out: &mut dyn Write, bytes: u64) -> Result<()> {
    let over = (bytes % BLOCK_BYTES as u64) as usize;
    if over == 0 { Ok(()) } else { write(out, &[0; BLOCK_BYTES][over..]) }
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    let count = bytes.len().min(field.len());
    field[..count].copy_from_slice(&bytes[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        let mut records = Vec::new();
        record(&mut records, b"k", &[b'v'; 94]);
        assert!(records.starts_with(b"101 k=") && records.len() == 101);
        records.clear();
        record(&mut records, b"mtime", b"1.5");
        assert_eq!(records, b"13 mtime=1.5\n");
    }

    #[test]
    fn times_before_1970() {
        let time = |seconds, nanoseconds| decimal(Time { seconds, nanoseconds });
        assert_eq!(time(-1, 750_000_000), "-0.250000000");
        assert_eq!(time(-2, 0), "-2");
        assert_eq!(time(5, 1), "5.000000001");
    }
}
