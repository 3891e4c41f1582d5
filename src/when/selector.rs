//! Say which snapshot is meant, and what in it.

use crate::entry::{PATH_BYTES_MAX, Time};
use crate::error::{Error, Result};
use crate::id::SnapshotId;

/// How few digits of an id may stand for it.
const PREFIX_DIGITS_MIN: usize = 4;

/// Which snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The newest one, or an earlier one.
    Latest {
        /// How many newer ones there are.
        back: u32,
    },
    /// The newest one that began at this time or before (`--at`, see [`super::parse_moment`]).
    At(Time),
    /// The one whose id begins with these lower case hexadecimal digits.
    Prefix(String),
}

/// Parses `SNAPSHOT[:PATH]`, where `SNAPSHOT` is `latest`, `latest~N` or the beginning of an id; the path is any bytes.
pub fn parse_target(text: &[u8]) -> Result<(Selector, Option<Vec<u8>>)> {
    let (name, path) = match text.iter().position(|&byte| byte == b':') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let selector = parse_selector(name)?;
    let refuse = |why: &str| Err(Error::invalid("use the path in the snapshot", shown(text), why));
    match path {
        None => Ok((selector, None)),
        // Not the whole snapshot: `latest:$DIR` with nothing in DIR is a slip.
        Some(b"") => refuse("nothing follows the colon"),
        Some(path) if path.contains(&0) => refuse("it holds a NUL byte"),
        Some(path) if path.len() > PATH_BYTES_MAX => refuse("it is longer than a saved path can be"),
        Some(path) => Ok((selector, Some(path.to_vec()))),
    }
}

fn parse_selector(name: &[u8]) -> Result<Selector> {
    let refuse = |why: &str| {
        Err(Error::invalid("find the snapshot", shown(name), why)
            .hint("write latest, latest~N or the first digits of an id; for a date, use --at"))
    };
    let Ok(text) = std::str::from_utf8(name) else { return refuse("it is not text") };
    if text == "latest" {
        return Ok(Selector::Latest { back: 0 });
    }
    if let Some(back) = text.strip_prefix("latest~") {
        let plain = back.bytes().all(|byte| byte.is_ascii_digit());
        return match back.parse() {
            Ok(back) if plain => Ok(Selector::Latest { back }),
            _ => refuse("a number must follow latest~"),
        };
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return refuse("it is neither latest nor an id");
    }
    match text.len() {
        ..PREFIX_DIGITS_MIN => refuse("write at least 4 digits of the id"),
        digits if digits > 2 * SnapshotId::BYTES => refuse("it is longer than an id"),
        _ => Ok(Selector::Prefix(text.to_ascii_lowercase())),
    }
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(200)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_snapshot_and_perhaps_a_path() {
        let prefix = |digits: &str| Some(Selector::Prefix(digits.to_owned()));
        let latest = |back| Some(Selector::Latest { back });
        let whole = "0123456789abcdef0123456789abcdef";
        type Row = (&'static [u8], Option<Selector>, Option<&'static [u8]>);
        let table: &[Row] = &[
            (b"latest", latest(0), None),
            (b"latest~2", latest(2), None),
            (b"latest:/etc/x", latest(0), Some(b"/etc/x")),
            (b"latest~1:/a:b\xff", latest(1), Some(b"/a:b\xff")),
            (b"ab12", prefix("ab12"), None),
            (b"AB12cd:/x", prefix("ab12cd"), Some(b"/x")),
            (whole.as_bytes(), prefix(whole), None),
            (b"0123456789abcdef0123456789abcdef0", None, None),
            (b"abc", None, None),
            (b"", None, None),
            (b":/x", None, None),
            (b"latest:", None, None),
            (b"latest~", None, None),
            (b"latest~-1", None, None),
            (b"latest~+1", None, None),
            (b"latest~99999999999", None, None),
            (b"Latest", None, None),
            (b"2026-11-19", None, None),
            (b"latest:a\0b", None, None),
            (b"\xff\xff\xff\xff", None, None),
        ];
        for (text, selector, path) in table {
            let expected = selector.clone().map(|selector| (selector, path.map(<[u8]>::to_vec)));
            assert_eq!(parse_target(text).ok(), expected, "{}", text.escape_ascii());
        }
        assert!(parse_target(b"2026-11-19").unwrap_err().advice().is_some_and(|hint| hint.contains("--at")));
    }
}
