//! The console: where all events and words of one run go.

use super::exit::Exit;
use super::options::GlobalOptions;
use super::print::{json_line, print_error_line};
use super::text::show_path;
use indicatif::ProgressBar;
use serde::Serialize;
use siltstone::entry::Warning;
use siltstone::error::{Error, Result};
use siltstone::watch::{Event, Notice, NoticeKind, Watch};
use siltstone::when::{format_count, format_counted};
use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

/// Warnings that a summary names; of more it says how many.
const WARNINGS_SHOWN: usize = 10;

/// Of a longer path a summary shows the beginning.
const PATH_CHARACTERS_SHOWN: usize = 1000;

/// Where all words of one run go. Cheap to clone.
#[derive(Clone)]
pub(super) struct Console(Arc<ConsoleInner>);

struct ConsoleInner {
    json: bool,
    quiet: bool,
    verbose: u8,
    with_bar: bool,
    /// The verb prints JSON lines as things happen, not one object at the end.
    lines: bool,
    bar: OnceLock<ProgressBar>,
    stage: Mutex<String>,
    warnings: Mutex<(Vec<Warning>, u64)>,
}

impl Console {
    pub(super) fn new(options: &GlobalOptions, lines: bool) -> Console {
        Console(Arc::new(ConsoleInner {
            json: options.json,
            quiet: options.quiet,
            verbose: options.verbose,
            with_bar: !options.json && !options.quiet && !options.no_progress && std::io::stderr().is_terminal(),
            lines,
            bar: OnceLock::new(),
            stage: Mutex::default(),
            warnings: Mutex::default(),
        }))
    }

    /// What a verb of the library is handed.
    pub(super) fn watch(&self) -> Watch {
        let console = self.clone();
        Watch::new(Arc::new(move |event| console.on_event(event)))
    }

    pub(super) fn json(&self) -> bool {
        self.0.json
    }

    pub(super) fn quiet(&self) -> bool {
        self.0.quiet
    }

    /// Whether a progress bar suits the terminal and the options.
    pub(super) fn with_bar(&self) -> bool {
        self.0.with_bar
    }

    /// Whether progress is printed as JSON lines.
    pub(super) fn with_progress_events(&self) -> bool {
        self.0.json && self.0.lines && self.0.verbose > 0
    }

    /// From now on other lines are written above this bar.
    pub(super) fn set_bar(&self, bar: ProgressBar) {
        // There is one bar in a run; of a second one lines would only cross it.
        let _ = self.0.bar.set(bar);
    }

    pub(super) fn stage(&self) -> String {
        lock(&self.0.stage).clone()
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Stage { stage } => *lock(&self.0.stage) = stage,
            Event::Notice(notice) => self.note(notice),
            Event::StartsOver => {
                if self.0.json && self.0.lines {
                    self.event(&event);
                }
                *lock(&self.0.warnings) = Default::default();
            }
            Event::Warning(shown) => {
                if self.0.json && self.0.lines {
                    self.event(&Event::Warning(shown.clone()));
                } else if self.0.json {
                    print_error_line(&json_line(&Event::Warning(shown.clone())));
                } else if self.0.verbose > 0 {
                    self.say(&format!("warning: {}", warning_line(&shown)));
                }
                let mut warnings = lock(&self.0.warnings);
                warnings.1 += 1;
                if warnings.0.len() < WARNINGS_SHOWN {
                    warnings.0.push(shown);
                }
            }
        }
    }

    /// Worth knowing; on standard error, or as an event.
    pub(super) fn note(&self, notice: Notice) {
        match (self.0.json, self.0.lines) {
            (true, true) => self.event(&Event::Notice(notice)),
            (true, false) => print_error_line(&json_line(&Event::Notice(notice))),
            (false, _) if !self.0.quiet => self.say(&format!("note: {}", show_path(notice.text.as_bytes()))),
            _ => {}
        }
    }

    /// What became of damaged snapshots, on standard error, even where nothing but warnings is to be printed.
    pub(super) fn say_damage(&self, text: &str) -> Result<()> {
        let written = self.above_bar(|| std::io::stderr().lock().write_all(text.as_bytes()));
        written.map_err(|error| Error::io("write to", "standard error", error))
    }

    /// One line on standard error.
    fn say(&self, line: &str) {
        self.above_bar(|| print_error_line(line));
    }

    fn above_bar<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.0.bar.get() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints one JSON line at once. A closed or full standard output does not end a backup.
    pub(super) fn event(&self, event: &impl Serialize) {
        let _ = writeln!(std::io::stdout().lock(), "{}", json_line(event));
    }

    /// Reports that the work is done although the summary could not be written; returns the exit code.
    pub(super) fn summary_lost(&self, done: &str, error: &Error, otherwise: Exit) -> Exit {
        let text = format!("{done}, but its summary could not be written: {error}");
        if self.0.json {
            print_error_line(&json_line(&Event::Notice(Notice { kind: NoticeKind::Output, text })))
        } else {
            self.say(&format!("silt: {}", show_path(text.as_bytes())))
        }
        if otherwise == Exit::Done { Exit::Warnings } else { otherwise }
    }

    /// Names the warnings on standard error, unless they were told as they came; returns how many there were.
    pub(super) fn conclude_warnings(&self) -> u64 {
        let warnings = lock(&self.0.warnings);
        let (first, count) = (&warnings.0, warnings.1);
        if count > 0 && !self.0.json && self.0.verbose == 0 {
            print_error_line(&format!("{}:", format_counted(count, "warning", "warnings")));
            first.iter().for_each(|warning| print_error_line(&format!("  {}", warning_line(warning))));
            if count > first.len() as u64 {
                print_error_line(&format!("  and {} more", format_count(count - first.len() as u64)));
            }
        }
        count
    }

    /// For verbs that only look: the exit code, warnings told.
    pub(super) fn exit(&self) -> Exit {
        Exit::with_warnings(self.conclude_warnings())
    }

    /// The same for verbs that go on past damage in the repository.
    pub(super) fn exit_after(&self, watch: &Watch) -> Exit {
        let exit = self.exit();
        let damaged = watch.progress.damaged.load(Ordering::Relaxed);
        if damaged > 0 { Exit::Corrupt } else { exit }
    }

    /// The first warnings, for a JSON object.
    pub(super) fn warnings(&self) -> (Vec<Warning>, u64) {
        lock(&self.0.warnings).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn warning_line(warning: &Warning) -> String {
    let path = if warning.path.0.is_empty() { "/".to_owned() } else { show_path(&warning.path.0) };
    let path = match path.char_indices().nth(PATH_CHARACTERS_SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &path[..end], warning.path.0.len()),
        None => path,
    };
    format!("{path}: {}", show_path(warning.what.as_bytes()))
}
