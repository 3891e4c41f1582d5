//! Passwords and keys from files and commands.

use super::prompt::TERMINAL;
use super::text::show_path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use siltstone::disk::read_bounded;
use siltstone::error::{Error, Kind, Result};
use siltstone::seal::Secret;
use siltstone::source::SECRETS;
use siltstone::watch::{Cancel, NoticeKind, Watch};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use zeroize::Zeroizing;

const PASSWORD_BYTES_MAX: u64 = 64 << 10;
const KEY_TEXT_BYTES_MAX: u64 = 4 << 10;
/// How often a command that says nothing is left to check for a cancel.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// What editors of Windows put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const OTHERS_MAY_READ: u32 = 0o044;

/// The first line of a file.
pub(super) fn password_of_file(path: &Path, watch: &Watch) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(read_secret("read the password file", path, PASSWORD_BYTES_MAX)?);
    warn_of_readers(path, watch);
    first_line(&bytes, &format!("from {}", path.display()))
}

pub(super) fn read_key_file(path: &Path, watch: &Watch) -> Result<Secret> {
    secret_of_file("read the key file", path, watch)
}

pub(super) fn read_recovery_key(path: &Path, watch: &Watch) -> Result<Secret> {
    secret_of_file("read the recovery key from", path, watch)
}

fn secret_of_file(doing: &str, path: &Path, watch: &Watch) -> Result<Secret> {
    let bytes = Zeroizing::new(read_secret(doing, path, KEY_TEXT_BYTES_MAX)?);
    warn_of_readers(path, watch);
    let bad = |why: String| Error::invalid(doing, path.display(), why);
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let text = std::str::from_utf8(text).map_err(|_| bad("it is not text".to_owned()))?;
    Secret::from_text(text.trim()).map_err(|error| bad(error.why()))
}

fn read_secret(doing: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    read_bounded(path, bytes_max).map_err(|error| {
        let named = Error::new(error.kind(), doing, path.display()).because(error.why());
        error.advice().into_iter().fold(named, Error::hint)
    })
}

/// A secret that others can read is none.
fn warn_of_readers(path: &Path, watch: &Watch) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    if meta.is_file() && meta.mode() & OTHERS_MAY_READ != 0 {
        let shown = show_path(path.as_os_str().as_encoded_bytes());
        watch.notice(
            NoticeKind::Security,
            format!("other users of this machine can read the secret in {shown}: run `chmod 600` on it"),
        );
    }
}

/// The first line that a command prints. It runs with the terminal, if there is one, so that it can ask for something.
pub(super) fn password_of_command(command: &OsStr, cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>> {
    let doing = "get the password";
    let from = "from the password command";
    let failed = |error| Error::io(doing, from, error);
    let mut shell = Command::new("/bin/sh");
    // What comes through a pipe or from a file is data: a command that reads it, as ssh does, would swallow what is to be saved.
    let input = if std::io::stdin().is_terminal() { Stdio::inherit() } else { Stdio::null() };
    shell.arg("-c").arg(command).stdout(Stdio::piped()).stderr(Stdio::inherit()).stdin(input);
    for name in SECRETS {
        shell.env_remove(name);
    }
    // With a terminal it stays in our group, which alone may read from it. Ctrl-C reaches the whole group there.
    let is_alone = File::open(TERMINAL).is_err();
    if is_alone {
        shell.process_group(0);
    }
    cancel.check()?;
    let mut child = shell.spawn().map_err(failed)?;
    let guard = if is_alone { cancel.guard_group(child.id()) } else { cancel.guard_process(child.id()) };
    let mut stdout = child.stdout.take().expect("it is piped above");
    let said = read_to_end(&mut stdout, cancel).and_then(|bytes| wait(&mut child, cancel).map(|()| bytes));
    if said.is_err() {
        cancel.kill_children();
    }
    drop(guard);
    let status = child.wait().map_err(failed)?;
    // The same Ctrl-C may have ended it first.
    cancel.check()?;
    let bytes = said.map_err(|error| Error::new(error.kind(), doing, from).because(error))?;
    if !status.success() {
        return Err(Error::new(Kind::Failed, doing, from).because(format!("the command ended with {status}")));
    }
    first_line(&bytes, from)
}

fn read_to_end(stdout: &mut ChildStdout, cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>> {
    // Never grown: that would leave copies in memory.
    let mut bytes = Zeroizing::new(vec![0; PASSWORD_BYTES_MAX as usize + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        cancel.check()?;
        match poll(&mut [PollFd::new(&stdout.as_fd(), PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(Error::io("read", "its output", error.into())),
        }
        match stdout.read(&mut bytes[filled..]) {
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", "its output", error)),
        }
    }
    Err(Error::invalid("read", "its output", format!("it has more than {PASSWORD_BYTES_MAX} bytes")))
}

/// Waits until the command has ended, and leaves it to the caller to ask how.
fn wait(child: &mut Child, cancel: &Cancel) -> Result<()> {
    while child.try_wait().map_err(|error| Error::io("wait for", "it", error))?.is_none() {
        cancel.pause(std::time::Duration::from_millis(5))?;
    }
    Ok(())
}

/// A password is one line: what an editor or `echo` puts around it does not belong to it.
fn first_line(bytes: &[u8], from: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bad = |why: &str| Err(Error::invalid("get the password", from, why.to_owned()));
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return bad("it is UTF-16: save it as UTF-8");
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return bad("its first line is empty");
    }
    Ok(Zeroizing::new(line.to_vec()))
}
