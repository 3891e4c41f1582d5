//! Read the output of a command as one entry, complete or not at all.
//!
//! The status of a pipeline is that of its last command: `dump | gzip` hides a failing `dump` (silt compresses by
//! itself, so plain output is better anyway; `bash -o pipefail -c '…'` is for where there must be a pipeline).

use super::stream::{Stream, shown};
use crate::error::{Error, Kind, Result};
use crate::watch::{ChildGuard, NoticeKind, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of what a command says on its standard error is kept: the end of it.
pub(crate) const STDERR_BYTES_MAX: usize = 64 << 10;
/// How much of that the error itself shows.
const STDERR_BYTES_IN_ERROR: usize = 1024;
/// How long a blocked read waits between checks for a cancel.
pub(super) const CANCEL_LATENCY: Duration = Duration::from_millis(100);
/// How long a command may take to end after SIGTERM before it gets SIGKILL.
/// An interrupted run has less than two seconds for all that it has to end.
const GRACE: Duration = Duration::from_millis(700);
/// A larger pipe means fewer switches between the producer and us; the most that an unprivileged process may ask for.
const PIPE_BYTES: usize = 1 << 20;

/// Variables with what opens the repository and its storage: no business of a command that makes a dump, nor of what it
/// starts, logs or leaves.
pub const SECRETS: [&str; 7] = [
    "SILT_PASSWORD",
    "SILT_RECOVERY_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// Of what a successful command says, this many lines are told: the last ones.
const LINES_TOLD: usize = 20;

impl Stream {
    /// Starts the command, without those of [`SECRETS`] in its environment that are not allowed.
    pub(crate) fn start(&self, watch: &Watch) -> Result<StreamSource> {
        watch.cancel.check()?;
        let mut command = Command::new("/bin/sh");
        for secret in SECRETS.iter().filter(|secret| !self.allowed_secrets.iter().any(|name| name == *secret)) {
            command.env_remove(secret);
        }
        command.arg("-c").arg(OsStr::from_bytes(&self.command));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that all of a pipeline can be stopped.
        let started = command.process_group(0).spawn();
        let mut child = started.map_err(|e| Error::io("start the command of stream", shown(&self.name), e))?;
        let guard = watch.cancel.guard_group(child.id());
        let stdout: OwnedFd = child.stdout.take().expect("stdout is piped above").into();
        let stderr: OwnedFd = child.stderr.take().expect("stderr is piped above").into();
        // Only our ends become non-blocking: the command's are open file descriptions of their own.
        let quiet = |fd: &OwnedFd| rustix::io::ioctl_fionbio(fd, true);
        let ready = quiet(&stdout).and_then(|()| quiet(&stderr));
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES); // Slower without, not wrong.
        let source = StreamSource {
            name: self.name.clone(),
            child,
            stdout: Some(stdout),
            stderr: Some(stderr),
            said: Vec::new(),
            state: CommandState::Running,
            guard: Some(guard),
            watch: watch.clone(),
        };
        match ready {
            Ok(()) => Ok(source),
            Err(e) => Err(Error::io("read the pipes of stream", shown(&self.name), e.into())),
        }
    }
}

#[derive(Debug)]
enum CommandState {
    Running,
    Done,
    /// Every further read says the same again.
    Failed(Kind, String),
}

/// A running command; reads its output. The read that would be the last one fails when the command has failed.
pub(crate) struct StreamSource {
    name: Vec<u8>,
    child: Child,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    said: Vec<u8>,
    state: CommandState,
    /// While it runs, it is killed with this process.
    guard: Option<ChildGuard>,
    watch: Watch,
}

impl StreamSource {
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while let Some(stdout) = &self.stdout {
            self.watch.cancel.check()?;
            match rustix::io::read(stdout, &mut *buffer) {
                Ok(0) => self.stdout = None,
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => self.wait_for_output()?,
                Err(e) => return Err(Error::io("read stream", shown(&self.name), e.into()).with_kind(Kind::Failed)),
            }
        }
        self.finish().map(|()| 0)
    }

    /// Sleeps until either pipe has something or a cancel is due to be seen.
    fn wait_for_output(&mut self) -> Result<()> {
        let pipes = [&self.stdout, &self.stderr];
        let fds = pipes.iter().filter_map(|fd| fd.as_ref().map(AsFd::as_fd));
        wait(fds, CANCEL_LATENCY).map_err(|e| Error::io("wait for stream", shown(&self.name), e))?;
        self.listen();
        Ok(())
    }

    /// Takes in what there is on the standard error, without waiting, so that the command never blocks on it.
    fn listen(&mut self) {
        let mut buffer = [0; 8192];
        while let Some(stderr) = &self.stderr {
            match rustix::io::read(stderr, &mut buffer) {
                Ok(count) if count > 0 => {
                    self.said.extend_from_slice(&buffer[..count]);
                    let surplus = self.said.len().saturating_sub(STDERR_BYTES_MAX);
                    self.said.drain(..surplus);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                // Its end, or an error that only the messages suffer from.
                _ => self.stderr = None,
            }
        }
    }

    /// After the end of the output: waits for the command itself, whose status decides.
    fn finish(&mut self) -> Result<()> {
        let name = shown(&self.name);
        let failed = |e: io::Error| Error::io("wait for the command of stream", &name, e);
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(failed)? {
                self.guard = None;
                break status;
            }
            self.watch.cancel.check()?;
            wait(self.stderr.iter().map(AsFd::as_fd), pause).map_err(failed)?;
            pause = (pause * 2).min(CANCEL_LATENCY / 2);
            self.listen();
        };
        self.listen();
        if !status.success() {
            return Err(self.failure(status));
        }
        self.tell(&self.said);
        Ok(())
    }

    /// Tells what the command said, each line on its own.
    fn tell(&self, said: &[u8]) {
        let text = readable(said);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let left_out = lines.len().saturating_sub(LINES_TOLD);
        let name = shown(&self.name);
        if left_out > 0 {
            self.watch.notice(NoticeKind::Stream, format!("stream {name}: {left_out} earlier lines not shown"));
        }
        for line in &lines[left_out..] {
            let line: String = line.chars().take(STDERR_BYTES_IN_ERROR).collect();
            self.watch.notice(NoticeKind::Stream, format!("stream {name}: {line}"));
        }
    }

    fn failure(&self, status: ExitStatus) -> Error {
        let mut why = match (status.code(), status.signal()) {
            (Some(127), _) => "its command was not found (exit code 127)".to_owned(),
            (Some(code), _) => format!("its command ended with exit code {code}"),
            (None, Some(signal)) => format!("its command was killed by signal {signal}"),
            (None, None) => "its command ended for an unknown reason".to_owned(),
        };
        let (before, tail) = self.said.split_at(self.said.len().saturating_sub(STDERR_BYTES_IN_ERROR));
        // The error has the end of it; what does not fit is reported before.
        self.tell(before);
        let tail = readable(tail);
        if !tail.is_empty() {
            why = format!("{why}: {tail}");
        }
        Error::new(Kind::Failed, "read stream", shown(&self.name)).because(why)
    }

    /// Ends the whole group: asks first, then kills. The shell is left unreaped until then, because only that keeps the
    /// group's number from naming another group.
    fn stop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let _ = kill_process_group(group, Signal::TERM);
        // A stopped process (one that asked the terminal for a password, say) takes SIGTERM only once it goes on.
        let _ = kill_process_group(group, Signal::CONT);
        let deadline = Instant::now() + GRACE;
        let mut scrap = [0; 8192];
        while Instant::now() < deadline {
            let shell_ended = !matches!(waitid(WaitId::Pid(group), peek), Ok(None));
            // The end of the output says that the others of a pipeline have ended too.
            while let Some(stdout) = &self.stdout {
                match rustix::io::read(stdout, &mut scrap) {
                    Ok(0) => self.stdout = None,
                    Ok(_) if Instant::now() < deadline => {}
                    _ => break,
                }
            }
            if shell_ended && self.stdout.is_none() {
                break;
            }
            self.listen();
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Read for StreamSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.state {
            CommandState::Done => return Ok(0),
            CommandState::Failed(kind, why) => {
                let again = Error::new(*kind, "read stream", shown(&self.name)).because(why.clone());
                return Err(io::Error::other(again));
            }
            CommandState::Running if buffer.is_empty() => return Ok(0),
            CommandState::Running => {}
        }
        match self.read_some(buffer) {
            Ok(0) => {
                self.state = CommandState::Done;
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(error) => {
                // What has ended by itself was reaped; the group's number is no longer ours to signal.
                if !matches!(self.child.try_wait(), Ok(Some(_))) {
                    self.stop();
                }
                self.state = CommandState::Failed(error.kind(), error.to_string());
                Err(io::Error::other(error))
            }
        }
    }
}

impl Drop for StreamSource {
    fn drop(&mut self) {
        if matches!(self.state, CommandState::Running) {
            self.stop();
        }
    }
}

/// Whether any of these has something to read (its end is something too) within that time.
pub(super) fn wait<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>, at_most: Duration) -> io::Result<bool> {
    let mut polled: Vec<PollFd> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut polled, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// What a command says, fit for a terminal: control characters but line ends are escaped, and a tab is a space.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut readable = String::with_capacity(text.len());
    for character in text.trim().chars() {
        match character {
            '\t' => readable.push(' '),
            '\n' => readable.push('\n'),
            character if character.is_control() => readable.extend(character.escape_unicode()),
            character => readable.push(character),
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stream::read_error;
    use crate::watch::{Event, Notice};
    use std::sync::{Arc, Mutex};

    fn start(command: &str, watch: &Watch) -> StreamSource {
        Stream::new("s", command).start(watch).unwrap()
    }

    fn all(command: &str) -> (Vec<u8>, Result<()>) {
        let mut bytes = Vec::new();
        let end = start(command, &Watch::silent()).read_to_end(&mut bytes);
        (bytes, end.map(|_| ()).map_err(|e| read_error(b"s", e)))
    }

    #[test]
    fn a_producer_that_fails_makes_its_last_read_fail() {
        let (bytes, end) = all("printf data; echo warned >&2");
        assert_eq!((&bytes[..], end.is_ok()), (&b"data"[..], true));
        let table = [
            ("printf data; echo 'disk \u{1b}[31mfull' >&2; exit 3", "exit code 3: disk \\u{1b}[31mfull"),
            ("printf data; kill -9 $$", "killed by signal 9"),
            ("printf data; /no/such/command", "exit code 127"),
            ("printf data; exec >&-; sleep 0.1; exit 4", "exit code 4"),
        ];
        for (command, expected) in table {
            let (bytes, end) = all(command);
            let error = end.unwrap_err();
            assert_eq!(bytes, b"data", "{command}");
            assert!(error.is(Kind::Failed) && error.to_string().contains("stream \"s\""), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let mut source = start("exit 1", &Watch::silent());
        for _ in 0..3 {
            assert!(source.read(&mut [0; 8]).is_err(), "a failed stream never ends well");
        }
    }

    #[test]
    fn much_noise_blocks_nothing_and_its_end_is_kept() {
        let (watch, heard) = listening();
        let mut source =
            start("head -c 3000000 /dev/zero; head -c 300000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1", &watch);
        let mut bytes = Vec::new();
        let error = source.read_to_end(&mut bytes).unwrap_err();
        assert_eq!((bytes.len(), source.said.len()), (3_000_000, STDERR_BYTES_MAX));
        assert!(error.to_string().ends_with("end"), "{error}");
        let heard = heard.lock().unwrap();
        assert!(heard.len() == 1 && heard[0].len() < 2 * STDERR_BYTES_IN_ERROR, "{heard:?}");
    }

    fn listening() -> (Watch, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = heard.clone();
        let watch = Watch::new(Arc::new(move |event| {
            if let Event::Notice(Notice { text, .. }) = event {
                ear.lock().unwrap().push(text);
            }
        }));
        (watch, heard)
    }

    /// What a command said and then succeeded was thrown away; what a failing one said was told twice.
    #[test]
    fn what_a_command_says_is_told_once() {
        let (watch, heard) = listening();
        start("echo 'table t is empty' >&2; echo data", &watch).read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(*heard.lock().unwrap(), ["stream \"s\": table t is empty"]);
        heard.lock().unwrap().clear();
        start("seq 100 >&2; echo data", &watch).read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(heard.lock().unwrap().len(), LINES_TOLD + 1);
        heard.lock().unwrap().clear();
        let error = start("echo 'no such table' >&2; exit 1", &watch).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("no such table") && heard.lock().unwrap().is_empty());
    }

    #[test]
    fn a_cancel_ends_a_blocked_read_and_the_whole_group() {
        let watch = Watch::silent();
        // The ignored SIGTERM shows that SIGKILL follows; the pipe's other end in a child shows that it is ended as well.
        let mut source = start("trap '' TERM; sleep 61 | sleep 62", &watch);
        let group = Pid::from_raw(source.child.id() as i32).unwrap();
        let cancel = watch.cancel.clone();
        let helper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            cancel.cancel();
        });
        let begun = Instant::now();
        let error = read_error(b"s", source.read(&mut [0; 8]).unwrap_err());
        helper.join().unwrap();
        assert!(error.is(Kind::Cancelled), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let gone = Instant::now() + Duration::from_secs(60);
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < gone, "the group lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn dropping_it_ends_the_command_at_once() {
        let begun = Instant::now();
        let mut source = start("echo x; exec yes", &Watch::silent());
        source.read_exact(&mut [0; 2]).unwrap();
        drop(source);
        assert!(begun.elapsed() < GRACE);
    }
}
