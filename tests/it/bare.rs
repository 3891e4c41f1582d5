//! A root file system with nothing in it but the program: no /dev, no /proc, no /etc.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Copies the program and the libraries that it is linked to.
fn furnish(root: &Path, program: &Path) {
    std::fs::create_dir_all(root.join("source/below")).unwrap();
    std::fs::write(root.join("source/below/file"), "content").unwrap();
    std::fs::copy(program, root.join("silt")).unwrap();
    let linked = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&linked.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(library, copy).unwrap();
    }
}

/// The static binary panicked without /dev/urandom, and no binary knew the host's name without /proc. `SILT_TEST_BINARY`
/// names another one to try, such as the static one.
#[test]
fn a_bare_root_is_enough_to_back_up_and_restore() {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has("chroot") || !has("ldd") {
        println!("SKIPPED: a bare root: needs root, chroot and ldd");
        return;
    }
    let program = std::env::var_os("SILT_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_silt").into());
    let root = tempfile::tempdir().unwrap();
    furnish(root.path(), Path::new(&program));
    for words in [
        &["init"][..],
        &["backup", "/source"],
        &["snapshots"],
        &["ls", "-R", "latest"],
        &["restore", "latest", "--target", "/out"],
        &["diff", "latest", "/source"],
        &["export", "latest", "-o", "/x.tar"],
        &["stats"],
        &["init", "-r", "/other", "--key-file", "/key"],
        // A directory in the root that is a source of its own.
        &["backup", "/", "/source", "--exclude", "/*"],
    ] {
        let mut command = Command::new("chroot");
        command.arg(root.path()).arg("/silt").args(words).current_dir("/");
        command.env("SILT_REPOSITORY", "/repository").env("SILT_PASSWORD", "p").env("SILT_CACHE_DIR", "/cache");
        let said = command.output().unwrap();
        let err = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{words:?}: {err}");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let out = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(words != ["snapshots"] || out.contains(&host), "{out}");
    }
    assert_eq!(std::fs::read(root.path().join("out/source/below/file")).unwrap(), b"content");
    // A change of the root directory itself was none.
    let backup = || {
        let mut command = Command::new("chroot");
        command.arg(root.path()).args(["/silt", "backup", "/", "--skip-if-unchanged"]).current_dir("/");
        command.env("SILT_REPOSITORY", "/repository").env("SILT_PASSWORD", "p").env("SILT_CACHE_DIR", "/cache");
        let said = command.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).contains("Nothing has changed")
    };
    assert_eq!([backup(), backup()], [false, true]);
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!([backup(), backup()], [false, true]);
    assert!(!root.path().join("proc").exists() && !root.path().join("dev").exists());
}
