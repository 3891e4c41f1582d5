//! Something else stands where a file or folder of ours is expected: a FIFO in the cache blocks no run, and a folder of the
//! repository that is none is named.

use crate::person::{Person, Said, said};
use crate::skip::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run that is ended after a while, so that one that hangs fails.
fn silt(person: &Person, words: &[&str]) -> Said {
    let mut command = person.command(words);
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = Command::new("timeout");
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(person.home.path()).args(["-k", "1", "60", env!("CARGO_BIN_EXE_silt")]).args(words);
    said(command.stdin(std::process::Stdio::null()).output().expect("timeout runs"))
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let found = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(|entry| entry.expect("listed"));
    found.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

fn make_fifo(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::RWXU, 0).expect("a FIFO is made");
}

#[test]
fn something_else_in_the_place_of_a_file_of_the_cache_holds_nobody() {
    // Opening a FIFO blocked until the run was interrupted.
    let person = Person::new();
    person.make_source();
    silt(&person, &["backup", "source"]).ends_with(0);
    let cache = person.path("cache/siltstone");
    let names = files_below(&cache);
    assert!(names.len() > 5, "{names:?}");
    crate::fixture::copy(&cache, &person.path("kept"));
    for name in &names {
        for put in [make_fifo as fn(&Path), |path| fs::create_dir(path).expect("made")] {
            fs::remove_dir_all(&cache).expect("removed");
            crate::fixture::copy(&person.path("kept"), &cache);
            fs::remove_file(name).expect("removed");
            put(name);
            person.write("source/text", name.as_os_str().as_encoded_bytes());
            let said = silt(&person, &["backup", "source"]);
            assert_eq!(said.code, 0, "{}: {}", name.display(), said.err);
            let said = silt(&person, &["restore", "latest", "--target", "out"]);
            assert_eq!(said.code, 0, "{}: {}", name.display(), said.err);
        }
    }
}

/// Making directories below such a link never ended, until the stack did.
#[test]
fn no_repository_is_made_below_a_link_that_leads_nowhere() {
    let person = Person::new();
    std::os::unix::fs::symlink("nowhere", person.path("link")).expect("linked");
    for place in ["link", "link/repository", "link/a/b/repository"] {
        let said = person.silt_with(&[("SILT_PASSWORD", "x")], &["init", "--repo", place]).ends_with(1);
        assert!(said.err.contains("link: it is a broken symbolic link\nhint: "), "{}", said.err);
    }
    assert!(!person.path("nowhere").exists());
}

#[test]
fn a_folder_of_the_repository_that_is_none_is_named() {
    // A link to a disk that is not mounted read as a folder with nothing in it.
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let repository = person.path("data/siltstone/repository");
    for name in ["snapshots", "index", "packs", "pending"] {
        let (folder, aside) = (repository.join(name), repository.join("aside"));
        fs::create_dir_all(&folder).expect("made");
        fs::rename(&folder, &aside).expect("moved");
        for is_link in [false, true] {
            let why = if is_link {
                std::os::unix::fs::symlink("nowhere", &folder).map(|()| "it is a broken symbolic link")
            } else {
                fs::write(&folder, "x").map(|()| "it is not a directory")
            };
            let why = why.expect("put there");
            let said = person.silt(&["backup", "source"]).ends_with(1);
            assert!(said.err.contains(&format!("/{name}: {why}")) && said.err.contains("hint: "), "{}", said.err);
            let said = match name {
                "packs" => person.silt(&["restore", "latest", "--target", "out", "--no-cache"]).ends_with(6),
                _ => person.silt(&["snapshots"]).ends_with(1),
            };
            assert!(said.err.contains(&format!("/{name}: {why}")), "{}", said.err);
            fs::remove_file(&folder).expect("removed");
        }
        fs::rename(&aside, &folder).expect("moved back");
    }
    // A link to a folder is as good as one.
    fs::rename(repository.join("packs"), person.path("packs")).expect("moved");
    std::os::unix::fs::symlink(person.path("packs"), repository.join("packs")).expect("linked");
    person.silt(&["backup", "source"]).ends_with(0);
    person.silt(&["restore", "latest", "--target", "out", "--no-cache"]).ends_with(0);
}

#[test]
fn closing_a_folder_may_fail() {
    // The standard library panics then: a run ended with 101 in the middle.
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let command = person.command(&[] as &[&str]);
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    let folders = |name: &str| {
        let found = walkdir::WalkDir::new(person.path(name)).into_iter().map(|entry| entry.expect("listed"));
        found.filter(|entry| entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect::<Vec<_>>()
    };
    for words in [&["snapshots"][..], &["backup", "source"]] {
        let mut command = Command::new("strace");
        for (name, value) in &environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(person.home.path()).args(["-f", "-qq", "-o", "/dev/null"]);
        command.args(["-e", "trace=close", "-e", "inject=close:error=EIO"]);
        for folder in folders("data").into_iter().chain(folders("cache")) {
            command.arg("-P").arg(folder);
        }
        command.arg(env!("CARGO_BIN_EXE_silt")).args(words);
        let Ok(output) = command.output() else { return skipped("closing a folder fails", "strace is not there") };
        let said = said(output);
        if said.err.contains("ptrace") {
            return skipped("closing a folder fails", "strace may not trace");
        }
        // In the database of the local state, which is made anew then, the panic is caught.
        assert!(words[0] == "backup" || !said.err.contains("closedir"), "{}", said.err);
        said.ends_with(0);
    }
}
