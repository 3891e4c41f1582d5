//! Small trees of few contents, and every way to change them; the same numbers make the same change.

use crate::golden::noise;
use crate::world::random::Random;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, XattrFlags, renameat_with, utimensat};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What is done to a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Create,
    Overwrite,
    Append,
    Truncate,
    /// Other content of the same length.
    SameLength,
    Rename,
    /// Two entries take each other's place.
    Swap,
    /// A file becomes a folder, a link, a FIFO, or the other way around.
    OtherKind,
    HardLink,
    BreakLink,
    Sparse,
    Attribute,
    Mode,
    Folder,
    Deep,
    Wide,
    Touch,
    Remove,
}

pub const CHANGES: [Change; 18] = [
    Change::Create,
    Change::Overwrite,
    Change::Append,
    Change::Truncate,
    Change::SameLength,
    Change::Rename,
    Change::Swap,
    Change::OtherKind,
    Change::HardLink,
    Change::BreakLink,
    Change::Sparse,
    Change::Attribute,
    Change::Mode,
    Change::Folder,
    Change::Deep,
    Change::Wide,
    Change::Touch,
    Change::Remove,
];

/// A change of one place in a tree; the numbers choose among what is there when it happens.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    pub change: Change,
    pub seed: u64,
}

/// Names are few, so that things meet: what was a file in one snapshot is a folder in another.
const NAMES: usize = 12;
const ENTRIES_MAX: usize = 36;
/// Times that edits leave begin here, long ago, each different.
const OLD: i64 = 1_000_000_000;

/// Contents are made of few pieces, so that chunks are shared: inline, of one chunk, of several.
pub fn contents(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 | 2 => noise(1 + random.below(32), random.below(6) as u8),
        3 => noise(33 + random.below(200), random.below(6) as u8),
        _ => (0..1 + random.below(7)).flat_map(|_| noise(600, random.below(5) as u8)).collect(),
    }
}

/// All entries below the root, sorted.
fn entries(root: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name();
    walk.into_iter().map(|entry| entry.expect("a folder is listed").into_path()).collect()
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn pick(paths: Vec<PathBuf>, random: &mut Random) -> Option<PathBuf> {
    let at = random.below(paths.len());
    paths.into_iter().nth(at)
}

fn any_file(root: &Path, random: &mut Random) -> Option<PathBuf> {
    pick(entries(root).into_iter().filter(|path| is_file(path)).collect(), random)
}

/// A path in some folder of the tree at which there may be something.
fn any_place(root: &Path, random: &mut Random) -> PathBuf {
    let mut folders: Vec<PathBuf> = entries(root).into_iter().filter(|path| is_folder(path)).collect();
    folders.push(root.to_owned());
    let folder = pick(folders, random).expect("the root is there");
    folder.join(format!("n{}", random.below(NAMES)))
}

pub fn remove(path: &Path) {
    let _may_be_missing = if is_folder(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Makes something new that is not a folder.
fn make(path: &Path, random: &mut Random) {
    match random.below(12) {
        0 => symlink(format!("n{}", random.below(NAMES)), path).expect("linked"),
        1 => symlink("../../guard/kept", path).expect("linked"),
        2 => rustix::fs::mkfifoat(CWD, path, 0o600.into()).expect("made"),
        _ => fs::write(path, contents(random)).expect("written"),
    }
}

/// Changes a tree; what cannot be done to it as it is leaves it as it was.
pub fn edit(root: &Path, edit: &Edit, clock: &mut i64) {
    let random = &mut Random::new(edit.seed);
    change(root, edit.change, random);
    settle(root, clock);
}

fn change(root: &Path, change: Change, random: &mut Random) {
    let is_full = entries(root).len() >= ENTRIES_MAX;
    match change {
        Change::Create if !is_full => {
            let place = any_place(root, random);
            remove(&place);
            make(&place, random);
        }
        Change::Folder if !is_full => {
            let place = any_place(root, random);
            if fs::symlink_metadata(&place).is_err() {
                fs::create_dir(place).expect("made");
            }
        }
        Change::Deep if !is_full => {
            let deep = (0..2 + random.below(5)).fold(any_place(root, random), |path, _| path.join("deep"));
            if fs::create_dir_all(&deep).is_ok() {
                let _may_be_there = fs::write(deep.join("end"), contents(random));
            }
        }
        Change::Wide if !is_full => {
            let wide = any_place(root, random);
            if fs::create_dir_all(&wide).is_ok() {
                let shared = contents(random);
                (0..12).for_each(|n| drop(fs::write(wide.join(format!("w{n}")), &shared)));
            }
        }
        Change::Rename => {
            let from = pick(entries(root), random);
            let to = any_place(root, random);
            if let Some(from) = from.filter(|from| !to.starts_with(from) && !from.starts_with(&to)) {
                remove(&to);
                fs::rename(from, to).expect("renamed");
            }
        }
        Change::Swap => {
            let (one, two) = (pick(entries(root), random), pick(entries(root), random));
            if let (Some(one), Some(two)) = (one, two) {
                let _above_or_below = renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE);
            }
        }
        Change::OtherKind => {
            let Some(path) = pick(entries(root), random) else { return };
            let was_folder = is_folder(&path);
            remove(&path);
            if was_folder || random.one_in(2) {
                make(&path, random)
            } else {
                fs::create_dir(&path).expect("made");
                make(&path.join("inside"), random);
            }
        }
        Change::Remove => {
            pick(entries(root), random).iter().for_each(|path| remove(path));
        }
        Change::HardLink if !is_full => {
            let place = any_place(root, random);
            if let Some(file) = any_file(root, random).filter(|file| *file != place && !file.starts_with(&place)) {
                remove(&place);
                fs::hard_link(file, &place).expect("linked");
                touch(&place);
            }
        }
        Change::Create | Change::Folder | Change::Deep | Change::Wide | Change::HardLink => {}
        Change::Mode | Change::Attribute => {
            let plain = |path: &PathBuf| is_file(path) || is_folder(path);
            if let Some(path) = pick(entries(root).into_iter().filter(plain).collect(), random) {
                dress(&path, change, random);
            }
        }
        _ => {
            if let Some(file) = any_file(root, random) {
                change_file(&file, change, random);
            }
        }
    }
}

fn change_file(path: &Path, change: Change, random: &mut Random) {
    let length = fs::metadata(path).expect("it is there").len();
    let file = || File::options().write(true).open(path).expect("a file is opened");
    match change {
        Change::Overwrite => fs::write(path, contents(random)).expect("written"),
        Change::Append => file().write_all_at(&contents(random), length).expect("written"),
        Change::Truncate => file().set_len(random.below(length as usize + 1) as u64).expect("truncated"),
        Change::SameLength => {
            file().write_all_at(&noise(length as usize, random.below(6) as u8), 0).expect("written");
        }
        Change::Sparse => {
            let file = file();
            file.set_len(0).expect("truncated");
            file.write_all_at(&noise(500, 1), 8192).expect("written");
            file.write_all_at(&contents(random), 24_576).expect("written");
            file.set_len(40_000).expect("lengthened");
        }
        Change::BreakLink => {
            let bytes = fs::read(path).expect("read");
            fs::remove_file(path).expect("removed");
            fs::write(path, bytes).expect("written");
        }
        _ => {
            let bytes = fs::read(path).expect("read");
            file().write_all_at(&bytes, 0).expect("written");
        }
    }
}

fn dress(path: &Path, change: Change, random: &mut Random) {
    if change == Change::Attribute {
        let value = noise(random.below(60), random.below(4) as u8);
        let name = format!("user.n{}", random.below(3));
        // Not every place for temporary files takes attributes.
        let _taken = rustix::fs::setxattr(path, name, &value, XattrFlags::empty());
    } else {
        // The user of the test must be able to read it.
        let mode = 0o700 | random.below(0o10000) as u32;
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode is set");
    }
    touch(path);
}

/// What a comparison by time alone cannot see is not asked of it.
fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time is set");
}

/// Gives all that was just changed a time long ago that nothing else has, so that no test waits for a change to be old
/// enough to be told from the next. From the bottom up: it changes no directory.
fn settle(root: &Path, clock: &mut i64) {
    let mut paths = entries(root);
    paths.push(root.to_owned());
    for path in paths.iter().rev() {
        let metadata = fs::symlink_metadata(path).expect("it is there");
        if metadata.mtime() > OLD + 400_000_000 {
            *clock += 1;
            let time = Timespec { tv_sec: OLD + *clock, tv_nsec: 123_456_789 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time is set");
        }
    }
}
