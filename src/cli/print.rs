//! Print on standard output and standard error.

use serde::Serialize;
use siltstone::error::{Error, Result};
use siltstone::repo::{Snapshot, SnapshotInfo};
use std::io::Write;

/// A line on standard error. That it cannot be written does not change how a run ends.
pub(super) fn print_error_line(line: &str) {
    let _exit_code_says_it = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints the result of a command on standard output. It is not an error if the reader stops early (`| head`).
pub(super) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

pub(super) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::io("write to", "standard output", error)),
    }
}

/// Prints what is shown only once: here, a closed standard output is an error as well.
pub(super) fn print_once(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::io("write to", "standard output", error))
}

/// One line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("reports and events have no keys but text")
}

pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(json_line(value) + "\n"))
}

/// A report as an event: with the field `event` before its own.
#[derive(Serialize)]
pub(super) struct TaggedReport<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

/// What a command did, as the last event of its run.
pub(super) fn summary<T>(report: &T) -> TaggedReport<'_, T> {
    TaggedReport { event: "summary", report }
}

/// The same of one snapshot.
#[derive(Serialize)]
pub(super) struct OfSnapshot<'a, T> {
    event: &'static str,
    snapshot: SnapshotInfo<'a>,
    #[serde(flatten)]
    report: &'a T,
}

pub(super) fn of_snapshot<'a, T>(event: &'static str, snapshot: &'a Snapshot, report: &'a T) -> OfSnapshot<'a, T> {
    OfSnapshot { event, snapshot: SnapshotInfo::from(snapshot), report }
}

/// Prints an object whose list is as long as there are snapshots: item by item, as all at once take many times the memory of
/// what they show. `rest` are the members after the list. As with [`print()`], the reader may stop early.
pub(super) fn print_json_list(
    name: &str,
    items: impl Iterator<Item = impl Serialize>,
    rest: &impl Serialize,
) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    match write_json_list(&mut out, name, items, rest).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // The reader is gone; the rest is dropped.
            let _nobody_reads = out.into_parts();
            Ok(())
        }
        other => other.map_err(|error| Error::io("write to", "standard output", error)),
    }
}

fn write_json_list(
    out: &mut dyn Write,
    name: &str,
    items: impl Iterator<Item = impl Serialize>,
    rest: &impl Serialize,
) -> std::io::Result<()> {
    write!(out, "{{\"{name}\":[")?;
    for (number, item) in items.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}{}", json_line(&item))?;
    }
    let rest = json_line(rest);
    let members = rest.strip_prefix('{').filter(|members| *members != "}");
    write!(out, "]{}{}", if members.is_some() { "," } else { "" }, members.unwrap_or("}"))?;
    writeln!(out)
}

/// Many lines (or bytes) on standard output, buffered. If the reader has gone (`| head`), the command is done: use this
/// only for commands that change nothing.
pub(super) struct Lines(std::io::BufWriter<std::io::StdoutLock<'static>>);

impl Lines {
    pub(super) fn new() -> Lines {
        Lines(std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock()))
    }

    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self, "{line}").map_err(|error| Error::io("write to", "standard output", error))
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        self.line(&json_line(value))
    }

    pub(super) fn end(mut self) -> Result<()> {
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
        // As a done command does: what was asked for was shown.
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
