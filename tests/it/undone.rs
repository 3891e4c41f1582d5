//! Commands that change the machine for a test, undone when the test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command on a path when it is dropped.
pub struct Undone {
    path: PathBuf,
    by: &'static [&'static str],
}

impl Drop for Undone {
    fn drop(&mut self) {
        let _ended_either_way = Command::new(self.by[0]).args(&self.by[1..]).arg(&self.path).status();
    }
}

/// Runs a command on a path; `by` undoes it. None if it is refused.
pub fn changed(words: &[&str], path: &Path, by: &'static [&'static str]) -> Option<Undone> {
    let done = Command::new(words[0]).args(&words[1..]).arg(path).output();
    done.is_ok_and(|output| output.status.success()).then(|| Undone { path: path.to_owned(), by })
}

/// Mounts something at a path, which is made.
pub fn mounted(words: &[&str], at: &Path) -> Option<Undone> {
    fs::create_dir_all(at).expect("made");
    changed(&[&["mount"], words].concat(), at, &["umount"])
}
