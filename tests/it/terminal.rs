//! What a person at a terminal sees: the prompt for a password, the progress line, Ctrl-C.

use crate::person::Person;
use crate::skip::skipped;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const CTRL_C: &[u8] = b"\x03";
const CTRL_D: &[u8] = b"\x04";
/// Leaves time for some progress lines.
const SLOW: (&str, &str) = ("SILT_DELAY_MS", "100");

/// `silt` at a terminal of its own.
struct Terminal {
    keyboard: File,
    /// Kept open, so that what was shown is not lost when the command ends.
    screen: File,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Runs the command that `prepare` has completed. None where there is no `setsid` to give it a terminal.
    fn run(person: &Person, columns: u16, words: &[&str], prepare: impl FnOnce(&mut Command)) -> Option<Terminal> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let screen =
            File::options().read(true).write(true).open(Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())));
        let (keyboard, screen) = (File::from(keyboard), screen.unwrap());
        tcsetwinsize(&screen, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let words = [&["--ctty", env!("CARGO_BIN_EXE_silt")], words].concat();
        let mut command = person.command(&words);
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.map(|v| v.to_owned()))).collect();
        command = Command::new("setsid");
        command.args(&words).current_dir(person.home.path()).env("TERM", "xterm");
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let side = || Stdio::from(screen.try_clone().unwrap());
        command.stdin(side()).stdout(side()).stderr(side());
        prepare(&mut command);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skipped("what a terminal shows", format!("setsid: {error}"));
                return None;
            }
        };
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keyboard.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Some(Terminal { keyboard, screen, shown, child })
    }

    fn shown(&self) -> String {
        String::from_utf8(self.shown.lock().unwrap().clone()).expect("silt shows text")
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        let begun = Instant::now();
        while !self.shown().contains(words) {
            assert!(begun.elapsed() < PATIENCE, "no {words:?} in {:?}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Whether the terminal shows what is typed and makes lines of it, as a shell leaves it to a command.
    fn is_sane(&self) -> bool {
        tcgetattr(&self.screen).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the end; returns the exit code and all that was shown.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                None => {
                    self.child.kill().unwrap();
                    panic!("it goes on and on: {:?}", self.shown());
                }
            }
        };
        assert!(self.is_sane(), "the terminal stays as the command had it: {:?}", self.shown());
        // The last of it is shown: what is typed then comes after it.
        self.type_in(b"the end\n");
        self.wait_for("the end\r\n");
        let shown = self.shown();
        assert!(!shown.contains("\x1b[?25l"), "the cursor is hidden: {shown:?}");
        (status.code(), shown.strip_suffix("the end\r\n").unwrap_or(&shown).to_owned())
    }
}

/// Answers each prompt; returns the exit code and all that was shown.
#[track_caller]
fn converse(person: &Person, words: &[&str], answers: &[(&str, &[u8])]) -> Option<(Option<i32>, String)> {
    let mut terminal = Terminal::run(person, 80, &[&["--repo", "r"], words].concat(), |_| ())?;
    for (prompt, answer) in answers {
        terminal.wait_for(prompt);
        assert!(!tcgetattr(&terminal.screen).unwrap().local_modes.contains(LocalModes::ECHO), "{prompt}");
        terminal.type_in(answer);
    }
    let (code, shown) = terminal.end();
    assert!(!shown.contains("horse"), "the password shows: {shown:?}");
    Some((code, shown))
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let person = Person::new();
    let (new, again) = ("New password for ", "Repeat the password: ");
    let Some((code, shown)) = converse(&person, &["init"], &[(new, b"horse\n"), (again, b"horses\n")]) else { return };
    assert!(code == Some(1) && shown.contains("the two passwords differ"), "{shown}");
    let (code, shown) = converse(&person, &["init"], &[(new, b"horse\n"), (again, b"horse\n")]).unwrap();
    assert!(code == Some(0) && shown.contains("Recovery key: "), "{shown}");
    let asked = "Password for ";
    // Typed wrong, and put right before Enter.
    let (code, shown) = converse(&person, &["snapshots"], &[(asked, b"x\x15horsd\x7fe\n")]).unwrap();
    assert!(code == Some(0) && shown.ends_with("r: \r\nNo snapshots.\r\n"), "{shown}");
    let (code, shown) = converse(&person, &["snapshots"], &[(asked, b"horsefly\n")]).unwrap();
    assert!(code == Some(5) && shown.contains("the password is wrong\r\nhint: "), "{shown}");
    for nothing in [b"\n", CTRL_D] {
        let (code, shown) = converse(&person, &["snapshots"], &[(asked, nothing)]).unwrap();
        assert!(code == Some(5) && shown.contains("r: \r\nsilt: cannot read the password"), "{shown}");
    }
}

#[test]
fn ctrl_c_at_the_prompt_leaves_a_terminal_that_shows_what_is_typed() {
    let person = Person::new();
    person.make_source();
    let cancelled = [("New password for ", CTRL_C)];
    let Some((code, shown)) = converse(&person, &["init"], &cancelled) else { return };
    assert!(code == Some(130) && shown.ends_with("it was interrupted\r\n"), "{shown}");
    assert!(!person.path("r/config").exists());
    person.silt_with(&[("SILT_PASSWORD", "horse")], &["init", "--repo", "r"]).ends_with(0);
    // Verbs that stop softly, in the middle of the line too, and by a signal of another process.
    for words in [&["snapshots"][..], &["backup", "source"]] {
        let (code, shown) = converse(&person, words, &[("Password for ", b"ho\x03")]).unwrap();
        assert!(code == Some(130) && shown.ends_with("it was interrupted\r\n"), "{words:?} {shown}");
    }
    let terminal = Terminal::run(&person, 80, &["--repo", "r", "snapshots"], |_| ()).unwrap();
    terminal.wait_for("Password for ");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.end().0, Some(130));
}

#[test]
fn nobody_is_asked_for_the_password_of_what_is_not_there() {
    let person = Person::new();
    std::fs::create_dir(person.path("r")).unwrap();
    let Some((code, shown)) = converse(&person, &["snapshots"], &[]) else { return };
    assert!(code == Some(1) && shown.contains("there is no repository") && !shown.contains("Password"), "{shown}");
}

/// Names that would clear the screen, colour it, turn its text around or be no text at all; and a long way to them.
fn make_strange_source(person: &Person) -> &'static str {
    let name = b"source/a-long-name-of-a-folder/and-another-one/\x1b[2J\x1b[31mred\x07\n\xc2\x9b1m\xe2\x80\xae\xff\xfe";
    let folder = person.home.path().join(std::ffi::OsStr::from_bytes(name));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), vec![7; 100_000]).unwrap();
    r"\u{1b}[2J\u{1b}[31mred\u{7}\n\u{9b}1m\u{202e}\xff\xfe"
}

#[test]
fn progress_is_one_line_that_fits_and_goes() {
    let person = Person::new();
    let strange = make_strange_source(&person);
    person.silt(&["backup", "source"]).ends_with(0);
    for columns in [120, 80, 40, 12] {
        let set = |command: &mut Command| {
            command.envs([SLOW]);
        };
        let Some(terminal) = Terminal::run(&person, columns, &["backup", "--force", "source"], set) else { return };
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(0), "{shown}");
        let (progress, summary) = shown.rsplit_once("\x1b[2K").expect("progress is drawn and cleared");
        assert!(summary.starts_with("Snapshot ") && summary.contains("1 new"), "{shown:?}");
        let lines: Vec<&str> = progress.trim_end_matches('\r').split("\r\x1b[2K").collect();
        // Blanks fill the line; no letter wraps.
        assert!(lines.iter().all(|line| line.len() <= usize::from(columns)), "{columns}: {lines:?}");
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        // Nothing of the names went out raw.
        assert!(!lines.iter().any(|line| line.contains(|c: char| !c.is_ascii_graphic() && c != ' ')), "{lines:?}");
        let last = lines.iter().rev().find(|line| line.contains("97.7 KiB")).unwrap_or_else(|| panic!("{lines:?}"));
        match columns {
            120 => assert!(last.contains("1 file  97.7 KiB  ") && last.ends_with(strange), "{lines:?}"),
            80 => assert!(last.contains("/s  ...") && last.ends_with(r"\xff\xfe"), "{lines:?}"),
            40 => assert!(last.ends_with(r"\xff\xfe"), "{lines:?}"),
            _ => {}
        }
    }
}

#[test]
fn progress_is_for_terminals_alone() {
    let person = Person::new();
    make_strange_source(&person);
    person.silt(&["backup", "source"]).ends_with(0);
    let file = || File::create(person.path("said")).unwrap();
    let shown = |words: &[&str], prepare: &dyn Fn(&mut Command)| -> Option<String> {
        let words = [&["backup", "source"], words].concat();
        let run = Terminal::run(&person, 80, &words, |command| prepare(command.envs([SLOW])))?;
        let (code, shown) = run.end();
        assert_eq!(code, Some(0), "{shown}");
        Some(shown)
    };
    let Some(plain) = shown(&["--no-progress"], &|_| ()) else { return };
    assert!(plain.starts_with("Snapshot ") && !plain.contains('\x1b'), "{plain:?}");
    assert_eq!(shown(&["-q"], &|_| ()).unwrap(), "");
    let json = shown(&["--json"], &|_| ()).unwrap();
    assert!(json.starts_with('{') && !json.contains('\x1b'), "{json:?}");
    let dumb = shown(&[], &|command| {
        command.env("TERM", "dumb");
    })
    .unwrap();
    assert!(dumb.starts_with("Snapshot ") && !dumb.contains('\x1b'), "{dumb:?}");
    // Each stream by itself: what is in a file is plain text, and only there.
    let errors_in_file = shown(&[], &|command| {
        command.stderr(file());
    })
    .unwrap();
    assert!(errors_in_file.starts_with("Snapshot ") && !errors_in_file.contains('\x1b'), "{errors_in_file:?}");
    assert_eq!(std::fs::read_to_string(person.path("said")).unwrap(), "");
    let results_in_file = shown(&[], &|command| {
        command.stdout(file());
    })
    .unwrap();
    assert!(results_in_file.contains("1 file ") && results_in_file.ends_with("\x1b[2K"), "{results_in_file:?}");
    let said = std::fs::read_to_string(person.path("said")).unwrap();
    assert!(said.starts_with("Snapshot ") && !said.contains('\x1b'), "{said:?}");
}

#[test]
fn ctrl_c_ends_a_backup_and_clears_its_line() {
    let person = Person::new();
    person.make_source();
    let words = ["backup", "source", "--stream", "slow=sleep 50"];
    let Some(mut terminal) = Terminal::run(&person, 80, &words, |_| ()) else { return };
    terminal.wait_for("slow");
    terminal.type_in(CTRL_C);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(130), "{shown}");
    let (_, last) = shown.rsplit_once("\x1b[2K").unwrap();
    assert!(last.starts_with("silt: cannot ") && last.lines().count() == 1, "{shown:?}");
}
