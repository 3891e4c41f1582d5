//! The same with the real command: processes on real folders, stopped, killed and interrupted by real signals when they
//! have changed what can be seen of their work so many times.

use crate::person::fingerprint;
use crate::world::model::{Broken, World};
use crate::world::run::{Ended, stream_of};
use crate::world::step::{Actor, How, Restoring};
use crate::world::wire::Fault;
use rustix::process::{Pid, Signal, kill_process};
use siltstone::restore::Overwrite;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A run of the command whose work is watched.
pub struct Process {
    child: Child,
    /// Its standard output and error, each a file with this name and an ending.
    said: PathBuf,
    watched: PathBuf,
    seen: u64,
    /// Changes that were seen since it began.
    changes: u64,
    allowed: u64,
    patience: Duration,
}

/// What it said at its end.
pub struct Said {
    status: ExitStatus,
    out: String,
    err: String,
}

/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// One that may wait for a stopped one is not waited for as long.
const PATIENCE_WITH_RIVAL: Duration = Duration::from_secs(3);
/// How often it is looked at; nothing depends on it but how exactly a signal hits.
const LOOK: Duration = Duration::from_micros(100);

/// About as many changes are seen of a small backup.
const CHANGES: u64 = 12;

impl Process {
    fn start(mut command: Command, said: PathBuf, watched: PathBuf) -> Process {
        let file = |ending: &str| std::fs::File::create(said.with_extension(ending)).expect("a file is made");
        let seen = fingerprint(&watched);
        let child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().expect("it starts");
        Process { child, said, watched, seen, changes: 0, allowed: 0, patience: PATIENCE }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // It may be over.
        let _sent = kill_process(pid, signal);
    }

    /// Waits until this many changes were seen since it began, or all of them; true when it is over.
    fn wait_for(&mut self, changes: Option<u64>) -> Result<bool, Broken> {
        let begun = Instant::now();
        loop {
            if self.child.try_wait().expect("it is a child").is_some() {
                return Ok(true);
            }
            if changes.is_some_and(|changes| self.changes >= changes) {
                return Ok(false);
            }
            let now = fingerprint(&self.watched);
            self.changes += u64::from(now != self.seen);
            self.seen = now;
            if begun.elapsed() > self.patience {
                return Err("the command does not come to its end".to_owned());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Lets it go on until it has changed something this many times more, or to its end; true when it is over.
    pub fn go_on(&mut self, changes: Option<u64>) -> Result<bool, Broken> {
        self.signal(Signal::CONT);
        self.allowed += changes.unwrap_or_default() % CHANGES;
        let is_over = self.wait_for(changes.map(|_| self.allowed))?;
        if !is_over {
            self.signal(Signal::STOP);
        }
        Ok(is_over)
    }

    /// Lets it come to its end, or to that of a fault. A rival that was stopped may hold a lock that it waits for.
    pub fn end_with(mut self, fault: Fault, has_rival: bool) -> Result<Said, Broken> {
        self.patience = if has_rival { PATIENCE_WITH_RIVAL } else { PATIENCE };
        let (at, signal) = match fault {
            Fault::None => (None, Signal::KILL),
            Fault::Killed { call, .. } => (Some(call % CHANGES), Signal::KILL),
            Fault::Broken { call } => (Some(call % CHANGES), Signal::KILL),
            Fault::Once { call, .. } => (Some(call % CHANGES), Signal::INT),
        };
        match self.wait_for(at) {
            Ok(true) => {}
            Ok(false) => self.signal(signal),
            Err(_) if has_rival => self.signal(Signal::KILL),
            Err(why) => return Err(why),
        }
        match self.end() {
            Err(_) if has_rival => {
                self.signal(Signal::KILL);
                self.patience = PATIENCE;
                self.end()
            }
            other => other,
        }
    }

    pub fn end(&mut self) -> Result<Said, Broken> {
        self.wait_for(None)?;
        let status = self.child.wait().expect("it is a child");
        let read = |ending: &str| {
            let bytes = std::fs::read(self.said.with_extension(ending)).expect("it is read");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Said { status, out: read("out"), err: read("err") })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a broken law: nothing is left running.
        self.signal(Signal::KILL);
        let _over = self.child.wait();
    }
}

impl Said {
    pub fn ended(&self) -> Ended {
        let code = self.status.code();
        let last = self.out.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        match code {
            Some(101) => Ended::Panicked,
            Some(0 | 3) => Ended::Well {
                is_saved: last.as_ref().is_some_and(|event| event["snapshot"].is_object()),
                warnings: if code == Some(3) { vec![self.out.clone()] } else { Vec::new() },
            },
            _ => Ended::Failed(format!("{}: {} {}", self.status, self.out, self.err)),
        }
    }

    pub fn is_clean(&self) -> bool {
        self.status.code() == Some(0)
    }

    /// In words, how it ended.
    pub fn in_words(&self) -> String {
        format!("{}: {} {}", self.status, self.out, self.err)
    }

    /// A signal that cannot be caught ended it: it could clean nothing.
    pub fn is_killed(&self) -> bool {
        self.status.code().is_none()
    }
}

impl World {
    fn command(&self, place: usize, cache: usize, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silt"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SILT_")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).env("HOME", self.folder.path()).env("TZ", "UTC");
        command.env("SILT_PASSWORD", "trouble").arg(verb).arg("--json");
        command.arg("--repo").arg(self.repository_folder(place)).arg("--cache-dir").arg(self.cache(cache));
        command
    }

    pub fn repository_folder(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("repository{place}"))
    }

    /// Starts a backup.
    pub fn start_backup(&mut self, number: usize, actor: &Actor) -> Process {
        let place = self.runs[number].repository;
        let mut command = self.command(place, actor.cache, "backup");
        command.args(self.runs[number].sources.iter().map(|(path, _)| path));
        command.arg("--job").arg(format!("job{}", actor.job)).arg("--tag").arg(format!("run-{number}"));
        command.arg("--host").arg(format!("host{}", actor.host));
        let words: &[&str] = match actor.how {
            How::ChangeTimes => &[],
            How::Force => &["--ignore-ctime", "--force"],
            How::SkipIfUnchanged => &["--ignore-ctime", "--skip-if-unchanged"],
            How::DryRun => &["--ignore-ctime", "--dry-run"],
            How::Usual | How::Stream | How::FailingStream => &["--ignore-ctime"],
        };
        command.args(words);
        if let Some(stream) = stream_of(actor) {
            command.arg("--stream").arg(format!("dump={stream}"));
        }
        let said = self.scratch();
        Process::start(command, said, self.repository_folder(place))
    }

    /// A restore from its beginning to its end, or to the fault.
    pub fn restore_by_command(
        &mut self,
        place: usize,
        snapshot: &str,
        target: &Path,
        restoring: &Restoring,
    ) -> Result<Said, Broken> {
        let mut command = self.command(place, restoring.cache, "restore");
        let overwrite = match restoring.overwrite {
            Overwrite::Always => "always",
            Overwrite::IfChanged => "if-changed",
            Overwrite::IfNewer => "if-newer",
            Overwrite::Never => "never",
        };
        command.arg(snapshot).arg("--target").arg(target).arg("--overwrite").arg(overwrite);
        command.args(restoring.delete.then_some("--delete")).args(restoring.verify.then_some("--verify"));
        for (word, name) in [("--exclude", restoring.exclude), ("--include", restoring.include)] {
            if let Some(number) = name {
                command.arg(word).arg(format!("n{number}"));
            }
        }
        let said = self.scratch();
        let has_rival = self.has_rival(restoring.cache);
        Process::start(command, said, target.to_owned()).end_with(restoring.fault, has_rival)
    }
}
