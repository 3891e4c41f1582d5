//! What people and programs read: tables, JSON, summaries, warnings.

use super::exit::Exit;
use super::options::GlobalOptions;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use siltstone::entry::{PathText, Time, Warning};
use siltstone::error::{Error, Result};
use siltstone::repo::{Snapshot, SnapshotSource, Stamp};
use siltstone::watch::{Event, Watch};
use siltstone::when::{format_count, format_counted, format_time, to_timestamp};
use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

/// Warnings that a summary names; of more it says how many.
const WARNINGS_SHOWN: usize = 10;

/// Of a longer path a summary shows the beginning.
const PATH_CHARACTERS_SHOWN: usize = 1000;

/// Where all words of one run go. Cheap to clone.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
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
    pub fn new(options: &GlobalOptions, lines: bool) -> Console {
        Console(Arc::new(Inner {
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
    pub fn watch(&self) -> Watch {
        let console = self.clone();
        Watch::new(Arc::new(move |event| console.on_event(event)))
    }

    pub fn json(&self) -> bool {
        self.0.json
    }

    pub fn quiet(&self) -> bool {
        self.0.quiet
    }

    /// Whether a progress bar suits the terminal and the options.
    pub fn with_bar(&self) -> bool {
        self.0.with_bar
    }

    /// Whether progress is told as JSON lines.
    pub fn with_progress_events(&self) -> bool {
        self.0.json && self.0.lines && self.0.verbose > 0
    }

    /// From now on other lines are written above this bar.
    pub fn set_bar(&self, bar: ProgressBar) {
        // There is one bar in a run; of a second one lines would only cross it.
        let _ = self.0.bar.set(bar);
    }

    pub fn stage(&self) -> String {
        lock(&self.0.stage).clone()
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Stage(name) => *lock(&self.0.stage) = name,
            Event::Notice(text) => self.note(&text),
            Event::StartsOver => {
                if self.0.json && self.0.lines {
                    self.event(json!({"event": "starts-over"}));
                }
                *lock(&self.0.warnings) = Default::default();
            }
            Event::Warning { path, what } => {
                let shown = Warning { path: PathText(path), what };
                if self.0.json && self.0.lines {
                    self.event(json!({"event": "warning", "path": shown.path, "what": shown.what}));
                } else if !self.0.json && self.0.verbose > 0 {
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
    pub fn note(&self, text: &str) {
        match (self.0.json, self.0.lines) {
            (true, true) => self.event(json!({"event": "notice", "text": text})),
            (true, false) => print_error_line(&json!({"event": "notice", "text": text}).to_string()),
            (false, _) if !self.0.quiet => self.say(&format!("note: {}", show_path(text.as_bytes()))),
            _ => {}
        }
    }

    /// What became of damaged snapshots, on standard error, even where nothing but warnings is to be printed.
    pub fn say_damage(&self, text: &str) -> Result<()> {
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
    pub fn event(&self, event: Value) {
        let _ = writeln!(std::io::stdout().lock(), "{event}");
    }

    /// Reports that the work is done although the summary could not be written; returns the exit code.
    pub fn summary_lost(&self, done: &str, error: &Error, otherwise: Exit) -> Exit {
        let text = format!("{done}, but its summary could not be written: {error}");
        if self.0.json {
            print_error_line(&json!({"event": "notice", "text": text}).to_string())
        } else {
            self.say(&format!("silt: {}", show_path(text.as_bytes())))
        }
        if otherwise == Exit::Done { Exit::Gaps } else { otherwise }
    }

    /// Names the warnings on standard error, unless they were told as they came; returns how many there were.
    pub fn conclude_warnings(&self) -> u64 {
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
    pub fn exit(&self) -> Exit {
        Exit::with_warnings(self.conclude_warnings())
    }

    /// The same for verbs that go on past damage in the repository.
    pub fn exit_after(&self, watch: &Watch) -> Exit {
        let exit = self.exit();
        let damaged = watch.progress.damaged.load(Ordering::Relaxed);
        if damaged > 0 { Exit::Corrupt } else { exit }
    }

    /// The first warnings, for a JSON object.
    pub fn warnings(&self) -> (Vec<Warning>, u64) {
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

/// A line on standard error. That it cannot be written does not change how a run ends.
pub fn print_error_line(line: &str) {
    let _exit_code_says_it = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints the result of a command on standard output. It is not an error if the reader stops early (`| head`).
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::io("write to", "standard output", error)),
    }
}

/// Prints what is shown only once: here, a closed standard output is an error as well.
pub fn print_once(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::io("write to", "standard output", error))
}

pub fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// Prints an object whose list is as long as there are snapshots: item by item, as all at once take many times the memory of
/// what they show. `rest` are the members behind the list. As with [`print`], the reader may stop early.
pub fn print_json_list(name: &str, items: impl Iterator<Item = Value>, rest: &Value) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    match write_json_list(&mut out, name, items, rest).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // What is left is for nobody.
            let _nobody_reads = out.into_parts();
            Ok(())
        }
        other => other.map_err(|error| Error::io("write to", "standard output", error)),
    }
}

fn write_json_list(
    out: &mut dyn Write,
    name: &str,
    items: impl Iterator<Item = Value>,
    rest: &Value,
) -> std::io::Result<()> {
    write!(out, "{{{}:[", json!(name))?;
    for (number, item) in items.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}{item}")?;
    }
    let rest = rest.to_string();
    let members = rest.strip_prefix('{').filter(|members| *members != "}");
    write!(out, "]{}{}", if members.is_some() { "," } else { "" }, members.unwrap_or("}"))?;
    writeln!(out)
}

/// Many lines (or bytes) on standard output, buffered. If the reader has gone (`| head`), the command is done: use this
/// only for commands that change nothing.
pub struct Lines(std::io::BufWriter<std::io::StdoutLock<'static>>);

impl Lines {
    pub fn new() -> Lines {
        Lines(std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    pub fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self, "{line}").map_err(|error| Error::io("write to", "standard output", error))
    }

    pub fn json(&mut self, value: &Value) -> Result<()> {
        self.line(&value.to_string())
    }

    pub fn end(mut self) -> Result<()> {
        self.flush().map_err(|error| Error::io("write to", "standard output", error))
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).inspect_err(done_when_nobody_reads)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().inspect_err(done_when_nobody_reads)
    }
}

fn done_when_nobody_reads(error: &std::io::Error) {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(Exit::Done as i32);
    }
}

/// A table without lines; columns named in `right` hold figures.
pub fn table(header: &[&str], right: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// A path (or message) on one line: control characters, those that turn the direction of text, and bytes that are not
/// text are escaped.
pub fn show_path(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || turns_text(character) {
                shown.extend(character.escape_default())
            } else {
                shown.push(character)
            }
        }
        shown.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    shown
}

/// Characters that reorder what stands around them, or begin a line: a name shown with them may be read as another one.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The time of a snapshot in the time zone of this machine.
pub fn show_stamp(stamp: &Stamp) -> String {
    format_time(stamp.time(), &jiff::tz::TimeZone::system())
}

/// RFC 3339 with the offset of the host's clock.
pub fn rfc3339(stamp: &Stamp) -> String {
    let offset = jiff::tz::Offset::from_seconds(stamp.offset).unwrap_or(jiff::tz::Offset::UTC);
    match to_timestamp(stamp.time()) {
        Some(timestamp) => timestamp.display_with_offset(offset).to_string(),
        None => format_time(Time { seconds: stamp.seconds, nanoseconds: 0 }, &jiff::tz::TimeZone::UTC),
    }
}

/// What a snapshot holds, as words.
pub fn show_source(source: &SnapshotSource) -> String {
    match source {
        SnapshotSource::Tree { path } => show_path(&path.0),
        SnapshotSource::Stream { name, .. } => format!("stream {}", show_path(&name.0)),
    }
}

pub fn snapshot_json(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id.to_hex(),
        "time": rfc3339(&snapshot.started),
        "ended": rfc3339(&snapshot.ended),
        "host": snapshot.host,
        "user": snapshot.user,
        "job": snapshot.job,
        "tags": snapshot.tags,
        "program": snapshot.program,
        "sources": snapshot.sources,
        "sources_count": snapshot.sources_count(),
        "totals": snapshot.totals,
        "warnings_count": snapshot.warnings_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_written_item_by_item_reads_as_one_object() {
        for count in 0..3 {
            let items = || (0..count).map(|number| json!({"id": number, "text": "a\"b"}));
            let mut out = Vec::new();
            write_json_list(&mut out, "snapshots", items(), &json!({"warnings": [], "warnings_count": 1})).unwrap();
            let whole = json!({"snapshots": items().collect::<Vec<_>>(), "warnings": [], "warnings_count": 1});
            assert_eq!(String::from_utf8(out).unwrap(), format!("{whole}\n"));
        }
    }
}
