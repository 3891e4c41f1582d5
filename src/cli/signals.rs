//! Signals: the first one asks to stop, the second one, or too long a wait, ends at once; others must not kill.

use super::exit::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};
use siltstone::error::{Error, Result};
use siltstone::watch::Watch;
use siltstone::when::{format_bytes, format_counted, format_duration};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a run may take to end by itself after it was asked to: storage lets go of its requests well before, but a
/// system call on a file system that hangs never returns.
const END: Duration = Duration::from_millis(1700);
const LOOK: Duration = Duration::from_millis(20);
const INTERRUPTED: &str = "silt: cannot finish the run: it was interrupted\n";
const INTERRUPTED_JSON: &str = "{\"error\":{\"kind\":\"cancelled\",\"side\":null,\"message\":\"cannot finish the run: it was interrupted\",\"hint\":null}}\n";
const ABORTED: &str = "silt: cannot finish the run: the system refused memory, or a thread ran out of stack\n\
                       hint: raise the limits (ulimit -v, ulimit -s), or lower --memory\n";

static WITH_JSON: AtomicBool = AtomicBool::new(false);

/// Signals that would kill the process, and need not: at the very beginning.
pub(super) fn tame() -> Result<()> {
    let failed = |error| Error::io("watch for signals", "", error);
    // A handler and not "ignored", which commands that we start would inherit. That a file would grow beyond what is
    // allowed (`ulimit -f`) is then an error of that write.
    for signal in [SIGXFSZ, SIGUSR1, SIGUSR2] {
        // SAFETY: the handler does nothing.
        unsafe { low_level::register(signal, || ()) }.map_err(failed)?;
    }
    let aborted = || {
        write_now(ABORTED);
        low_level::exit(Exit::Failed as i32);
    };
    // SAFETY: the handler makes two system calls (poll, write) and ends the process.
    unsafe { low_level::register(SIGABRT, aborted) }.map(|_| ()).map_err(failed)
}

/// How an interruption is reported when the process ends without its main thread.
pub(super) fn tell_in_json(json: bool) {
    WITH_JSON.store(json, Ordering::Relaxed);
}

/// From now on the signals that ask to stop cancel the work, and end the process if that takes too long.
pub(super) fn stop_on_signals(watch: &Watch) -> Result<()> {
    static BEGUN: OnceLock<()> = OnceLock::new();
    if BEGUN.set(()).is_err() {
        return Ok(());
    }
    let failed = |error| Error::io("watch for signals", "", error);
    let stopping: Vec<i32> = [SIGINT, SIGTERM].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP)).collect();
    let signals = Signals::new(stopping.iter().chain(&[SIGUSR1])).map_err(failed)?;
    let attended = watch.clone();
    let attendant = std::thread::Builder::new().name("signals".to_owned()).spawn(move || attend(signals, &attended));
    for signal in stopping {
        if attendant.is_err() {
            // In this order: a signal that finds the flag set already ends the process.
            flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, watch.cancel.flag())
                .map_err(failed)?;
        }
        flag::register(signal, watch.cancel.flag()).map_err(failed)?;
    }
    Ok(())
}

fn attend(mut signals: Signals, watch: &Watch) {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let came: Vec<i32> = match asked {
            None => signals.wait().collect(),
            Some(_) => signals.pending().collect(),
        };
        for signal in came {
            match (signal, asked) {
                (SIGUSR1, _) => write_now(&progress(watch, begun)),
                (_, None) => {
                    watch.cancel.cancel();
                    asked = Some(Instant::now());
                }
                (_, Some(_)) => end_now(watch),
            }
        }
        if asked.is_some_and(|asked| asked.elapsed() >= END) {
            end_now(watch);
        }
        if asked.is_some() {
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends the process whatever its other threads are doing. Storage is left as after `kill -9`, which harms nothing.
fn end_now(watch: &Watch) {
    watch.cancel.kill_children();
    if rustix::termios::isatty(rustix::stdio::stderr()) {
        // The line of progress goes.
        write_now("\r\x1b[K");
    }
    write_now(if WITH_JSON.load(Ordering::Relaxed) { INTERRUPTED_JSON } else { INTERRUPTED });
    low_level::exit(Exit::Interrupted as i32);
}

/// What was done so far, for SIGUSR1.
fn progress(watch: &Watch, begun: Instant) -> String {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let progress = &watch.progress;
    let current = super::text::show_path(&progress.current());
    format!(
        "silt: {}: {}, {} done, {} read, {} stored; {current}\n",
        format_duration(begun.elapsed()),
        format_counted(count(&progress.files_done), "file", "files"),
        format_bytes(count(&progress.bytes_done)),
        format_bytes(count(&progress.bytes_read)),
        format_bytes(count(&progress.bytes_stored)),
    )
}

/// Writes to standard error without a lock, and only if that does not block: its reader may be stuck, too.
fn write_now(text: &str) {
    let stderr = rustix::stdio::stderr();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if matches!(poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&at_once)), Ok(1)) {
        let _nobody_to_tell = rustix::io::write(stderr, text.as_bytes());
    }
}

/// `nohup` starts programs so that they outlive their terminal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null action changes nothing, and all bytes zero are a valid `sigaction` to be overwritten.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut present) == 0 && present.sa_sigaction == libc::SIG_IGN
    }
}
