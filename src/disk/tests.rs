//! The local file system as a backup and a restore see it: what goes in comes out, whatever its name or mode.

#![cfg(test)]

use crate::disk::apply::{ApplyOptions, Subject, apply_flags, apply_metadata};
use crate::disk::stat::fstat;
use crate::disk::{Directory, ListBuffer, NameList, Owners, TargetDirectory, flags, open, umask, write, xattr};
use crate::entry::{EntryKind, Hole, Metadata, Time, Xattr};
use crate::error::Kind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn directory(path: &Path) -> Directory {
    Directory::open_path(path.as_os_str().as_bytes()).unwrap()
}

fn target(path: &Path) -> TargetDirectory {
    TargetDirectory::new(directory(path)).unwrap()
}

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn is_root() -> bool {
    me().0 == 0
}

fn meta(mode: u32) -> Metadata {
    let (uid, gid) = me();
    let modified = Time { seconds: 1_500_000_000, nanoseconds: 123_456_789 };
    Metadata { mode, uid, gid, modified, ..Metadata::default() }
}

fn options(owners: &Owners) -> ApplyOptions<'_> {
    ApplyOptions { owner: true, numeric_ids: false, lacks_trusted: false, owners }
}

/// Creates a file with content and metadata; what was lost.
fn restore_file(target: &TargetDirectory, name: &[u8], meta: &Metadata) -> Vec<String> {
    let (fd, current) = target.create_file(name, meta).unwrap();
    write::write_all_at(&fd, b"content", 0).unwrap();
    let owners = Owners::default();
    let subject = Subject::Open(fd.as_fd());
    let mut losses = apply_metadata(subject, Some(current), meta, EntryKind::File, &options(&owners));
    losses.extend(apply_flags(subject, meta, EntryKind::File));
    losses.into_iter().map(|loss| format!("{}: {}", loss.what, loss.error)).collect()
}

#[test]
fn modes_come_back_whatever_the_umask() {
    for zero in [false, true] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if zero {
                    umask::take_zero_umask();
                }
                let folder = tempfile::tempdir().unwrap();
                let target = target(folder.path());
                for mode in [0o644, 0o444, 0o000, 0o777, 0o666, 0o4755, 0o2755, 0o6711, 0o1777, 0o4000] {
                    let name = format!("{mode:o}");
                    assert_eq!(restore_file(&target, name.as_bytes(), &meta(mode)), Vec::<String>::new());
                    let stat = target.directory().stat(name.as_bytes()).unwrap();
                    assert_eq!(stat.permissions(), mode, "{mode:o}, own umask {zero}");
                    assert_eq!(stat.modified, meta(mode).modified);
                }
            });
        });
    }
}

#[test]
fn a_setuid_bit_does_not_go_to_another_owner() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let mut foreign = meta(0o4755);
    foreign.uid += 12345;
    let owners = Owners::default();
    let (fd, current) = target.create_file(b"f", &foreign).unwrap();
    let kept = ApplyOptions { owner: false, ..options(&owners) };
    let losses = apply_metadata(Subject::Open(fd.as_fd()), Some(current), &foreign, EntryKind::File, &kept);
    assert_eq!(losses.len(), 1);
    assert_eq!(losses[0].what, "setuid bit");
    assert_eq!(target.directory().stat(c"f").unwrap().permissions(), 0o755);
}

#[test]
fn owners_come_back_with_their_setuid_bits() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let owners = Owners::parse(b"ann:x:54321:1::/:\n", b"crew:x:54322:\n");
    let mut wanted = meta(0o6755);
    (wanted.uid, wanted.gid) = (1111, 2222);
    (wanted.user, wanted.group) = ("ann".into(), "unknown".into());
    for (numeric_ids, name, uid) in [(false, b"by name", 54321), (true, b"numbers", 1111)] {
        let options = ApplyOptions { numeric_ids, ..options(&owners) };
        let (fd, current) = target.create_file(name, &wanted).unwrap();
        assert!(
            apply_metadata(Subject::Open(fd.as_fd()), Some(current), &wanted, EntryKind::File, &options).is_empty()
        );
        let stat = fstat(&fd).unwrap();
        assert_eq!((stat.uid, stat.gid, stat.permissions()), (uid, 2222, 0o6755));
    }
}

#[test]
fn times_far_away_come_back_or_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    // 1901-12-13, 1969, 2400, and beyond every file system.
    for seconds in [-2_147_483_648, -1, 0, 13_569_465_600, 1 << 60] {
        let mut wanted = meta(0o644);
        wanted.modified.seconds = seconds;
        let name = seconds.to_string();
        let losses = restore_file(&target, name.as_bytes(), &wanted);
        let found = target.directory().stat(name.as_bytes()).unwrap().modified;
        if losses.is_empty() {
            assert_eq!(found, wanted.modified)
        } else {
            assert!(losses[0].starts_with("modification time"), "{losses:?}");
            assert!(seconds == i64::from(i32::MIN) || seconds > i64::from(i32::MAX), "{losses:?}");
        }
    }
    let mut bad = meta(0o644);
    bad.modified.nanoseconds = (1 << 30) - 1;
    assert_eq!(restore_file(&target, b"now", &bad).len(), 1);
}

#[test]
fn names_of_any_bytes_and_of_255() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let long = [b'n'; 255];
    for name in [&b"\xff\xfe"[..], b" ", b"a\nb", b"-rf", "\u{1f980}".as_bytes(), &long] {
        assert!(restore_file(&target, name, &meta(0o644)).is_empty());
        let (fd, stat) = open::open_file_checked(target.directory(), name).unwrap();
        assert_eq!(stat.size, 7);
        assert_eq!(open::read_full(&fd, &mut [0; 9]).unwrap(), 7);
        assert_eq!(target.create_file(name, &meta(0o644)).unwrap_err().kind(), Kind::AlreadyExists);
    }
    assert_eq!(target.create_file(&[b'n'; 256], &meta(0o644)).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn attributes_and_acls_come_back_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    // Version 2; user::rw- user:1000:r-- group::r-- mask::r-- other::---
    let mut acl = vec![2, 0, 0, 0];
    for (tag, bits, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes().into_iter().chain(bits.to_le_bytes()).chain(id.to_le_bytes()));
    }
    let mut wanted = meta(0o440);
    wanted.xattrs.push(Xattr { name: b"user.big".to_vec(), value: vec![7; 2000] });
    wanted.xattrs.push(Xattr { name: b"user.empty".to_vec(), value: Vec::new() });
    let losses = restore_file(&target, b"f", &wanted);
    if losses.iter().any(|loss| loss.contains("user.empty")) {
        return; // A file system without attributes.
    }
    let (fd, stat) = open::open_file_checked(target.directory(), c"f").unwrap();
    assert_eq!(stat.permissions(), 0o440);
    assert_eq!(xattr::read_xattrs(&fd).unwrap(), wanted.xattrs);
    assert_eq!(xattr::read_xattrs_at(target.directory(), c"f").unwrap(), wanted.xattrs);

    let mut guarded = meta(0o640);
    guarded.xattrs.push(Xattr { name: b"system.posix_acl_access".to_vec(), value: acl });
    if !restore_file(&target, b"g", &guarded).is_empty() {
        return; // Mounted without ACLs.
    }
    assert_eq!(xattr::read_xattrs_at(target.directory(), c"g").unwrap(), guarded.xattrs);
    assert_eq!(target.directory().stat(c"g").unwrap().permissions(), 0o640);

    // An older file in the way loses what the entry does not have.
    let owners = Owners::default();
    let plain = meta(0o600);
    let (fd, _) = open::open_file_checked(target.directory(), c"g").unwrap();
    assert!(apply_metadata(Subject::Open(fd.as_fd()), None, &plain, EntryKind::File, &options(&owners)).is_empty());
    assert!(xattr::read_xattrs(&fd).unwrap().is_empty());
    assert_eq!(target.directory().stat(c"g").unwrap().permissions(), 0o600);

    // A directory that hands an ACL down does not give it to what is restored below.
    let default = Xattr { name: b"system.posix_acl_default".to_vec(), value: guarded.xattrs[0].value.clone() };
    xattr::set_xattr(target.directory(), &default).unwrap();
    let target = TargetDirectory::new(directory(folder.path())).unwrap();
    assert!(restore_file(&target, b"h", &meta(0o664)).is_empty());
    assert!(xattr::read_xattrs_at(target.directory(), c"h").unwrap().is_empty());
    assert_eq!(target.directory().stat(c"h").unwrap().permissions(), 0o664);
    let (below, current) = target.create_directory(b"d", &meta(0o2775)).unwrap();
    let subject = Subject::Open(below.directory().as_fd());
    let losses = apply_metadata(subject, Some(current), &meta(0o2775), EntryKind::Directory, &options(&owners));
    assert!(losses.is_empty(), "{losses:?}");
    assert!(xattr::read_xattrs(below.directory()).unwrap().is_empty());
    assert_eq!(fstat(below.directory()).unwrap().permissions(), 0o2775);
}

#[test]
fn links_fifos_and_devices() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let owners = Owners::default();
    let apply_named = |name: &[u8], current, meta: &Metadata, kind| {
        let subject = Subject::Named(target.directory(), name);
        let losses = apply_metadata(subject, Some(current), meta, kind, &options(&owners));
        assert!(losses.is_empty(), "{losses:?}");
        let stat = target.directory().stat(name).unwrap();
        assert_eq!((stat.kind, stat.modified), (Some(kind), meta.modified));
        stat
    };
    // What it points to must keep its mode and time.
    std::fs::write(folder.path().join("\u{e4}"), b"").unwrap();
    let before = target.directory().stat("\u{e4}".as_bytes()).unwrap();
    let current = target.create_symlink(b"link", "\u{e4}".as_bytes()).unwrap();
    apply_named(b"link", current, &meta(0o777), EntryKind::Symlink);
    assert_eq!(open::read_link(target.directory(), c"link").unwrap(), "\u{e4}".as_bytes());
    assert_eq!(target.directory().stat("\u{e4}".as_bytes()).unwrap(), before);

    let current = target.create_special(b"fifo", EntryKind::Fifo, (0, 0), &meta(0o622)).unwrap();
    assert_eq!(apply_named(b"fifo", current, &meta(0o622), EntryKind::Fifo).permissions(), 0o622);
    assert_eq!(xattr::read_xattrs_at(target.directory(), c"fifo").unwrap(), []);
    assert!(target.create_special(b"x", EntryKind::File, (0, 0), &meta(0)).is_err());

    assert!(restore_file(&target, b"one", &meta(0o644)).is_empty());
    target.create_hard_link(b"two", target.directory(), b"one").unwrap();
    let (one, two) = (target.directory().stat(c"one").unwrap(), target.directory().stat(c"two").unwrap());
    assert_eq!((one.inode, one.links), (two.inode, 2));

    if is_root() {
        for (kind, device) in [(EntryKind::CharDevice, (1, 3)), (EntryKind::BlockDevice, (7, 300))] {
            let name = format!("{kind:?}");
            // A container may forbid it.
            let Ok(current) = target.create_special(name.as_bytes(), kind, device, &meta(0o600)) else { continue };
            let stat = apply_named(name.as_bytes(), current, &meta(0o600), kind);
            assert_eq!((stat.special, stat.permissions()), (device, 0o600));
        }
    }
    let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    assert_eq!(target.directory().stat(c"socket").unwrap().kind, None);
    drop(socket);
}

/// Unfinished, a file is closed even to its owner.
fn open_up(folder: &Path, name: &str) {
    std::fs::set_permissions(folder.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn holes_are_found_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let (fd, _) = target.create_file(b"sparse", &meta(0o644)).unwrap();
    let (size, page) = (4 << 20, [1; 65536]);
    write::write_all_at(&fd, &page, 1 << 20).unwrap();
    write::set_size(&fd, size).unwrap();
    // Unfinished, it is closed even to its owner.
    std::fs::set_permissions(folder.path().join("sparse"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let (fd, stat) = open::open_file_checked(target.directory(), c"sparse").unwrap();
    if !stat.may_be_sparse() {
        return; // A file system without holes.
    }
    let holes = open::holes(&fd, stat.size, &|| Ok(())).unwrap();
    let end = (1 << 20) + 65536;
    assert_eq!(holes, [Hole { offset: 0, length: 1 << 20 }, Hole { offset: end, length: size - end }]);
    assert_eq!(open::holes(&fd, 512, &|| Ok(())).unwrap(), [Hole { offset: 0, length: 512 }]);
    assert_eq!(open::read_full(&fd, &mut [0; 10]).unwrap(), 10);

    let (dense, _) = target.create_file(b"dense", &meta(0o644)).unwrap();
    write::preallocate(&dense, 2 << 20).unwrap();
    write::write_all_at(&dense, &vec![1; 2 << 20], 0).unwrap();
    let how = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&dense, how, 65536, 1 << 20).unwrap();
    open_up(folder.path(), "dense");
    let (fd, stat) = open::open_file_checked(target.directory(), c"dense").unwrap();
    assert_eq!(stat.size, 2 << 20);
    let mut bytes = vec![9; 2 << 20];
    assert_eq!(open::read_full_at(&fd, &mut bytes, 0).unwrap(), 2 << 20);
    assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 1 << 20);
    assert_eq!(open::holes(&fd, 0, &|| Ok(())).unwrap(), []);
}

#[test]
fn flags_come_back_and_lock_last() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    // No dump, and for root immutable too: it must not hinder what comes before it.
    let mut wanted = meta(0o444);
    wanted.flags = if is_root() { 0x50 } else { 0x40 };
    let losses = restore_file(&target, b"f", &wanted);
    let (fd, stat) = open::open_file_checked(target.directory(), c"f").unwrap();
    if losses.is_empty() {
        assert_eq!(flags::read_flags(&fd).unwrap(), wanted.flags);
        assert_eq!((stat.permissions(), stat.modified), (0o444, wanted.modified));
    } else {
        assert!(losses.iter().all(|loss| loss.starts_with("flags")), "{losses:?}");
    }
    let _ = flags::unlock(&fd);
    target.remove_name(b"f").unwrap();
}

#[test]
fn a_hundred_thousand_entries_are_listed_sorted() {
    const COUNT: usize = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    target.create_symlink(b"x", b"y").unwrap();
    // Hard links would do too, but ext4 allows 65,000 of one inode.
    for number in 0..COUNT - 1 {
        rustix::fs::symlinkat(c"y", target.directory(), format!("{:x}", number * 7919)).unwrap();
    }
    let (mut names, mut buffer) = (NameList::default(), ListBuffer::default());
    directory(folder.path()).names(&mut names, &mut buffer).unwrap();
    assert_eq!(names.len(), COUNT);
    assert!((1..COUNT).all(|index| names.get(index - 1) < names.get(index)));
}

#[test]
fn paths_longer_than_the_kernel_takes_open() {
    let folder = tempfile::tempdir().unwrap();
    let mut path = folder.path().as_os_str().as_bytes().to_vec();
    let mut here = target(folder.path());
    while path.len() < 10_000 {
        let name = [b'd'; 199];
        here = here.create_directory(&name, &meta(0o755)).unwrap().0;
        path.push(b'/');
        path.extend_from_slice(&name);
        if (3900..4300).contains(&path.len()) {
            assert_eq!(
                fstat(Directory::open_path(&path).unwrap()).unwrap().inode,
                fstat(here.directory()).unwrap().inode
            );
        }
    }
    let slashes = path.iter().flat_map(|byte| if *byte == b'/' { &b"///"[..] } else { std::slice::from_ref(byte) });
    let doubled: Vec<u8> = slashes.copied().chain(*b"///").collect();
    for path in [path, doubled] {
        assert_eq!(fstat(Directory::open_path(&path).unwrap()).unwrap().inode, fstat(here.directory()).unwrap().inode);
    }
    assert!(Directory::open_path(&[b'x'; 5000]).is_err());
    assert!(Directory::open_path(b"").is_err());
}
