//! Ask for a password at the terminal, without showing it.

use super::text::show_path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use siltstone::error::{Error, Kind, Result};
use siltstone::watch::Cancel;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use zeroize::Zeroizing;

pub(super) const TERMINAL: &str = "/dev/tty";
const DOING: &str = "read the password from";
const OTHER_WAYS: &str = "type it, or give it with --password-file, --password-command or SILT_PASSWORD";
/// The longest line that a terminal returns.
const LINE_BYTES_MAX: usize = 4096;
/// How often it is looked whether a signal came, which another thread may have caught.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Asks for a password; None if standard input is not a terminal. A signal, which must be among those that `cancel`
/// hears of, ends the question.
pub(super) fn ask_password(prompt: &str, cancel: &Cancel) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let failed = |error| Error::io(DOING, TERMINAL, error).hint(OTHER_WAYS);
    let terminal = File::options().read(true).write(true).open(TERMINAL).map_err(failed)?;
    // First, so that nothing shows of what is typed as soon as the prompt is seen.
    let hidden = HiddenInput::begin(&terminal).map_err(failed)?;
    (&terminal).write_all(show_path(prompt.as_bytes()).as_bytes()).map_err(failed)?;
    let line = read_line(&terminal, cancel);
    drop(hidden);
    let line = line.inspect_err(|_| end_line(&terminal))?;
    let Some(password) = line.strip_suffix(b"\n") else {
        end_line(&terminal);
        return Err(none_typed());
    };
    if password.is_empty() { Err(none_typed()) } else { Ok(Some(Zeroizing::new(password.to_vec()))) }
}

fn none_typed() -> Error {
    Error::new(Kind::WrongKey, DOING, TERMINAL).because("no password was typed").hint(OTHER_WAYS)
}

/// What was typed up to Enter, which shows as the end of the line; without it, the terminal was closed (Ctrl-D).
fn read_line(mut terminal: &File, cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>> {
    // Never grown: that would leave a copy in memory.
    let mut line = Zeroizing::new(vec![0; LINE_BYTES_MAX]);
    let mut filled = 0;
    while filled < line.len() {
        cancel.check().map_err(|_| Error::new(Kind::Cancelled, DOING, TERMINAL).because("it was interrupted"))?;
        match poll(&mut [PollFd::new(&terminal, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(Error::io(DOING, TERMINAL, error.into())),
        }
        match terminal.read(&mut line[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(DOING, TERMINAL, error)),
        }
        if line[..filled].ends_with(b"\n") {
            break;
        }
    }
    line.truncate(filled);
    Ok(line)
}

/// The terminal showed no end of the line, as none was typed.
fn end_line(mut terminal: &File) {
    // What comes next would follow on the line of the prompt.
    let _best_effort = terminal.write_all(b"\n");
}

/// A terminal that does not show what is typed, until this is dropped.
struct HiddenInput<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> HiddenInput<'a> {
    fn begin(terminal: &'a File) -> std::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        modes.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHONL);
        // To stop or to dump here would leave the terminal like this to the shell.
        for key in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            modes.special_codes[key] = 0;
        }
        tcsetattr(terminal, OptionalActions::Now, &modes)?;
        Ok(HiddenInput { terminal, before })
    }
}

impl Drop for HiddenInput<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _best_effort = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
