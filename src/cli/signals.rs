//! Signals: the first one asks to stop, the second one ends at once.

use super::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use siltstone::error::{Error, Result};
use siltstone::watch::Watch;

pub fn stop_on_signals(watch: &Watch) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: a signal that finds the flag set already ends the process.
        flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, watch.cancel.flag())
            .and_then(|_| flag::register(signal, watch.cancel.flag()))
            .map_err(|error| Error::io("watch for signals", "", error))?;
    }
    Ok(())
}
