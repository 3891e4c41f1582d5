//! How each verb begins: a console for its words, a watch for the library, and signals that stop it.

use super::options::GlobalOptions;
use super::output::Console;
use super::signals::stop_on_signals;
use siltstone::error::Result;
use siltstone::watch::Watch;

/// Begins a run. `lines` is whether the verb prints JSON lines as things happen, not one object at the end.
pub(super) fn begin(options: &GlobalOptions, lines: bool) -> Result<(Console, Watch)> {
    let console = Console::new(options, lines);
    let watch = console.watch();
    stop_on_signals(&watch)?;
    Ok((console, watch))
}
