//! Features: names of what newer programs write, which an older one must know before it reads or writes.

use crate::error::{Error, Kind, Result};

/// What this program knows beyond the format as it was frozen: nothing yet.
const KNOWN: [&str; 0] = [];
/// Of a name that somebody else wrote, this many characters are shown.
const SHOWN_CHARS: usize = 80;

/// The first of these features that this program does not know, in printable form.
pub(super) fn first_unknown(features: &[String]) -> Option<String> {
    let unknown = features.iter().find(|feature| !KNOWN.contains(&feature.as_str()))?;
    Some(unknown.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect())
}

/// This program is too old for it.
pub(super) fn too_old(doing: &str, thing: &str, why: String) -> Error {
    Error::new(Kind::Unsupported, doing, thing)
        .because(format!("{why}, which this version of silt does not know"))
        .hint("use a newer version of silt")
}

/// Refuses what needs a feature that this program does not know.
pub(super) fn check_features(doing: &str, thing: &str, features: &[String]) -> Result<()> {
    first_unknown(features).map_or(Ok(()), |unknown| Err(too_old(doing, thing, format!("it uses `{unknown}`"))))
}
