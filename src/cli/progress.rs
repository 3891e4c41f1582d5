//! Show how far the work is: a bar for people, events for programs.

use super::output::{Console, show_path};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use siltstone::repo::PathText;
use siltstone::watch::{Progress, Watch};
use siltstone::when::{format_bytes, format_count, format_duration};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const EVENT_INTERVAL: Duration = Duration::from_millis(250);

/// Shows progress until it is dropped.
pub struct Display {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    pub fn start(console: &Console, watch: &Watch) -> Display {
        let nothing = Display { stop: None, thread: None };
        let (stop, stopped) = channel();
        let (console, progress) = (console.clone(), watch.progress.clone());
        let begun = Instant::now();
        let work: Box<dyn FnOnce() + Send> = if console.with_bar() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
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
    let (done, expected) = (get(&progress.bytes_done), get(&progress.bytes_expected));
    let elapsed = begun.elapsed();
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let mut words = format!(
        "{} files  {}  {}/s",
        format_count(get(&progress.files_done)),
        format_bytes(done),
        format_bytes(rate as u64)
    );
    // How much there is was counted last time; more than that is no reason to show more than all.
    let is_known = expected > done && done > 0;
    if is_known {
        let left = (expected - done) as f64 / rate.max(1.0);
        words.push_str(&format!("  {} left", format_duration(Duration::from_secs(left as u64))));
        bar.set_length(expected);
        bar.set_position(done);
    }
    let template =
        if is_known { "{elapsed:>4} {bar:20} {percent:>3}%  {wide_msg}" } else { "{elapsed:>4}  {wide_msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    let current = progress.current();
    let current = if current.is_empty() { console.stage() } else { show_path(&current) };
    bar.set_message(format!("{words}  {current}"));
    bar.tick();
}

fn tell(console: &Console, progress: &Arc<Progress>, begun: Instant) {
    console.event(json!({
        "event": "progress",
        "stage": console.stage(),
        "seconds": begun.elapsed().as_secs_f64(),
        "entries": get(&progress.entries),
        "files_done": get(&progress.files_done),
        "files_expected": get(&progress.files_expected),
        "bytes_done": get(&progress.bytes_done),
        "bytes_expected": get(&progress.bytes_expected),
        "bytes_read": get(&progress.bytes_read),
        "bytes_stored": get(&progress.bytes_stored),
        "current": PathText(progress.current()),
    }));
}
