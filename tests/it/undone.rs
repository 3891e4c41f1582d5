//! Commands that change the machine for a test, undone when the test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command on a path when it is dropped, or the second one if it fails.
pub struct Undone {
    path: PathBuf,
    by: &'static [&'static str],
    or: &'static [&'static str],
}

impl Drop for Undone {
    fn drop(&mut self) {
        let is_undone = done(self.by, &self.path) || done(self.or, &self.path);
        assert!(is_undone || std::thread::panicking(), "{:?} {}", self.by, self.path.display());
    }
}

impl Undone {
    /// Undoes what has been done to a path already.
    pub fn by(path: &Path, by: &'static [&'static str]) -> Undone {
        Undone { path: path.to_owned(), by, or: by }
    }
}

/// Runs a command on a path; `by` undoes it. None if it is refused.
pub fn changed(words: &[&str], path: &Path, by: &'static [&'static str]) -> Option<Undone> {
    done(words, path).then(|| Undone { path: path.to_owned(), by, or: by })
}

/// Mounts something at a path, which is made.
pub fn mounted(words: &[&str], at: &Path) -> Option<Undone> {
    fs::create_dir_all(at).expect("made");
    let is_held = done(&[&["mount"], words].concat(), at);
    // The second one for what is still in use.
    is_held.then(|| Undone { path: at.to_owned(), by: &["umount"], or: &["umount", "-l"] })
}

fn done(words: &[&str], path: &Path) -> bool {
    let done = Command::new(words[0]).args(&words[1..]).arg(path).output();
    done.is_ok_and(|output| output.status.success())
}
