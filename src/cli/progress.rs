//! Show how far the work is: a bar for people, events for programs.

use super::output::Console;
use super::text::show_path;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use serde::Serialize;
use siltstone::entry::PathText;
use siltstone::watch::{Progress, Watch};
use siltstone::when::{format_bytes, format_counted, format_duration};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BAR_COLUMNS: usize = 10;
/// What stands for the beginning of a path that is too long.
const CUT: &str = "...";
/// Other words make room for so much of the current path.
const CURRENT_COLUMNS_MIN: usize = 16;
/// How many figures a line can do without.
const PARTS_DROPPED_MAX: usize = 4;
/// Of a terminal that does not say how wide it is.
const COLUMNS_DEFAULT: usize = 80;
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const EVENT_INTERVAL: Duration = Duration::from_millis(250);

/// Shows progress until it is dropped.
pub(super) struct Display {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    pub(super) fn start(console: &Console, watch: &Watch) -> Display {
        let nothing = Display { stop: None, thread: None };
        let (stop, stopped) = channel();
        let (console, progress) = (console.clone(), watch.progress.clone());
        let begun = Instant::now();
        let work: Box<dyn FnOnce() + Send> = if console.with_bar() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            console.set_bar(bar.clone());
            Box::new(move || {
                while stopped.recv_timeout(BAR_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    draw(&bar, &console, &progress, begun);
                }
                bar.finish_and_clear();
            })
        } else if console.with_progress_events() {
            Box::new(move || {
                while stopped.recv_timeout(EVENT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    tell(&console, &progress, begun);
                }
            })
        } else {
            return nothing;
        };
        // Without a thread there is no progress to see; the work itself goes on.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(work).ok();
        Display { stop: Some(stop), thread }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn draw(bar: &ProgressBar, console: &Console, progress: &Arc<Progress>, begun: Instant) {
    if is_in_background() {
        return;
    }
    let (done, expected) = (get(&progress.bytes_done), get(&progress.bytes_expected));
    let current = progress.current();
    let shown = ProgressLine {
        files: get(&progress.files_done),
        bytes: done,
        // How much there is was counted last time; more than that must not show as more than all.
        bytes_expected: Some(expected).filter(|expected| *expected > done && done > 0),
        elapsed: begun.elapsed(),
        current: if current.is_empty() { console.stage() } else { show_path(&current) },
    };
    bar.set_message(shown.line(columns()));
}

/// In the background: the user types something else at the terminal now.
fn is_in_background() -> bool {
    tcgetpgrp(std::io::stderr()).is_ok_and(|group| group != getpgrp())
}

fn columns() -> usize {
    match tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => COLUMNS_DEFAULT,
    }
}

/// What one line says.
struct ProgressLine {
    files: u64,
    bytes: u64,
    bytes_expected: Option<u64>,
    elapsed: Duration,
    /// What is being worked on, without control characters.
    current: String,
}

impl ProgressLine {
    /// The whole line; the narrower the terminal, the less it says.
    fn line(&self, columns: usize) -> String {
        // The last column stays free: some terminals wrap when it is written.
        let columns = columns.saturating_sub(1);
        let room = |words: &str| columns.saturating_sub(words.len());
        let is_roomy = |dropped: &usize| room(&self.figures(*dropped)) >= CURRENT_COLUMNS_MIN;
        let mut line = self.figures((0..PARTS_DROPPED_MAX).find(is_roomy).unwrap_or(PARTS_DROPPED_MAX));
        // Figures are ASCII, and a path is added only where there is room.
        line.truncate(columns);
        line.push_str(&shorten(&self.current, room(&line)));
        line.truncate(line.trim_end().len());
        line
    }

    /// What stands before the current path, all of it ASCII. The least wanted is dropped first.
    fn figures(&self, dropped: usize) -> String {
        let rate = self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001);
        let mut words = Vec::new();
        if dropped < 1 {
            words.push(format!("{:>4}", whole_seconds(self.elapsed.as_secs())));
        }
        if let Some(expected) = self.bytes_expected {
            let done = self.bytes as f64 / expected as f64;
            if dropped < 2 {
                words.push(format!("[{:<BAR_COLUMNS$}]", "=".repeat((done * BAR_COLUMNS as f64) as usize)));
            }
            words.push(format!("{:>2.0}%", (done * 100.0).floor()));
        }
        if dropped < 4 {
            words.push(format_counted(self.files, "file", "files"));
        }
        words.push(format_bytes(self.bytes));
        if dropped < 3 {
            words.push(format!("{}/s", format_bytes(rate as u64)));
        }
        if let Some(expected) = self.bytes_expected {
            let left = (expected - self.bytes) as f64 / rate.max(1.0);
            words.push(format!("{} left", whole_seconds(left.ceil() as u64)));
        }
        words.join("  ") + "  "
    }
}

fn whole_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => format_duration(Duration::from_secs(seconds)),
    }
}

/// The end of a path, which tells more than its beginning; at most this wide.
fn shorten(path: &str, columns: usize) -> String {
    // What is wide, as East Asian letters are, comes from there on; what is narrow and counted as wide does no harm.
    let width = |character: char| if character < '\u{1100}' { 1 } else { 2 };
    if path.chars().map(width).sum::<usize>() <= columns {
        return path.to_owned();
    }
    let Some(mut room) = columns.checked_sub(CUT.len()) else { return String::new() };
    let mut start = path.len();
    for (at, character) in path.char_indices().rev() {
        match room.checked_sub(width(character)) {
            Some(left) => (room, start) = (left, at),
            None => break,
        }
    }
    format!("{CUT}{}", &path[start..])
}

/// How far the work is, as JSON. Expected totals are 0 if they are not known.
#[derive(Serialize)]
struct ProgressEvent {
    event: &'static str,
    stage: String,
    seconds: f64,
    entries: u64,
    files_done: u64,
    files_expected: u64,
    bytes_done: u64,
    bytes_expected: u64,
    bytes_read: u64,
    bytes_stored: u64,
    current: PathText,
}

fn tell(console: &Console, progress: &Arc<Progress>, begun: Instant) {
    console.event(&ProgressEvent {
        event: "progress",
        stage: console.stage(),
        seconds: begun.elapsed().as_secs_f64(),
        entries: get(&progress.entries),
        files_done: get(&progress.files_done),
        files_expected: get(&progress.files_expected),
        bytes_done: get(&progress.bytes_done),
        bytes_expected: get(&progress.bytes_expected),
        bytes_read: get(&progress.bytes_read),
        bytes_stored: get(&progress.bytes_stored),
        current: PathText(progress.current()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_and_drops_what_is_least_wanted() {
        let current = "/srv/files/a/very/long/path/to/the/file".to_owned();
        let elapsed = Duration::from_secs(2);
        let mut shown = ProgressLine { files: 4321, bytes: 300 << 20, bytes_expected: None, elapsed, current };
        for expected in [None, Some(400 << 20)] {
            shown.bytes_expected = expected;
            for columns in 0..200 {
                let line = shown.line(columns);
                assert!(line.len() < columns.max(1), "{columns}: {line}");
                assert!(columns < 40 || line.ends_with("/the/file"), "{columns}: {line}");
            }
            assert!(!shown.line(40).contains("/s ") && shown.line(80).contains("4,321 files  300 MiB  150 MiB/s"));
            assert!(shown.line(120).ends_with(&format!("  {}", shown.current)));
        }
        assert_eq!(shown.line(80), "[=======   ]  75%  4,321 files  300 MiB  150 MiB/s  1 s left  ...th/to/the/file");
    }

    #[test]
    fn a_path_keeps_its_end() {
        assert_eq!(shorten("/a/b", 4), "/a/b");
        assert_eq!(shorten("/a/bcd", 5), "...cd");
        assert_eq!(shorten("/文字文字", 7), "...文字");
        assert_eq!(shorten("/文字文字", 8), "...文字");
        assert_eq!(shorten("/a/b", 2), "");
    }
}
