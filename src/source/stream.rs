//! Streams, each saved as one entry, complete or not at all: how they are written on the command line, and their errors.

use crate::entry::{PATH_BYTES_MAX, is_valid_name};
use crate::error::{Error, Kind, Result};
use std::io;

/// File systems allow no longer names, so no longer one could be restored.
const FILE_NAME_BYTES_MAX: usize = 255;

/// A command whose output is saved under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// A relative path: valid entry names with slashes between.
    pub name: Vec<u8>,
    /// What `/bin/sh -c` runs. May hold secrets: never part of an error.
    pub command: Vec<u8>,
    /// Environment variables that the command sees although they may hold [`SECRETS`](super::SECRETS).
    pub allowed_secrets: Vec<String>,
}

impl Stream {
    /// Parses `NAME=COMMAND`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let doing = "use the stream";
        let Some(at) = text.iter().position(|&byte| byte == b'=') else {
            return Err(Error::invalid(doing, "", "it must have the form NAME=COMMAND"));
        };
        let (name, command) = (&text[..at], &text[at + 1..]);
        check_stream_name(name)?;
        if command.trim_ascii().is_empty() {
            return Err(Error::invalid(doing, shown(name), "there is no command after the ="));
        }
        if command.contains(&0) {
            return Err(Error::invalid(doing, shown(name), "its command holds a NUL byte"));
        }
        Ok(Stream::new(name, command))
    }

    /// The output of `command`, under this name. Neither is checked.
    pub fn new(name: impl Into<Vec<u8>>, command: impl Into<Vec<u8>>) -> Self {
        Stream { name: name.into(), command: command.into(), allowed_secrets: Vec::new() }
    }
}

/// Whether these bytes can name a stream; the error says why not.
pub fn check_stream_name(name: &[u8]) -> Result<()> {
    let why = match name {
        b"" => "its name is empty",
        [b'/', ..] => "its name must not begin with a slash",
        _ if name.len() > PATH_BYTES_MAX => "its name is too long",
        _ if !name.split(|&byte| byte == b'/').all(|part| is_valid_name(part) && part.len() <= FILE_NAME_BYTES_MAX) => {
            "its name has a part that is empty, longer than 255 bytes, \".\" or \"..\", or it has a NUL byte"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid("name the stream", shown(name), why))
}

/// The engine's error inside one that came through `std::io::Read`; any other becomes one about this stream.
pub(crate) fn read_error(name: &[u8], error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner,
        Err(error) => Error::io("read stream", shown(name), error).with_kind(Kind::Failed),
    }
}

/// Which compressed format these first bytes announce: such data neither deduplicates nor compresses.
pub(crate) fn looks_compressed(first: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"BZh", "bzip2"),
    ];
    let (magic, name) = MAGICS.iter().find(|(magic, _)| first.starts_with(magic))?;
    // Three letters are not enough of a sign: bzip2's fourth byte is its level.
    if *magic == b"BZh" && !first.get(3).is_some_and(|level| (b'1'..=b'9').contains(level)) { None } else { Some(name) }
}

pub(super) fn shown(name: &[u8]) -> String {
    format!("\"{}\"", name[..name.len().min(200)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_worded_name_and_command() {
        let good = Stream::parse(b"db/main.sql=psql -c 'a=b'").unwrap();
        assert_eq!((&good.name[..], &good.command[..]), (&b"db/main.sql"[..], &b"psql -c 'a=b'"[..]));
        let long = [&[b'x'; 2000][..], b"=c"].concat();
        for bad in [
            &b""[..],
            b"x",
            b"=c",
            b"x= ",
            b"/x=c",
            b"x/=c",
            b"a//b=c",
            b"../x=c",
            b"a/./b=c",
            b"x\0=c",
            b"x=\0",
            &long,
        ] {
            assert!(Stream::parse(bad).unwrap_err().is(Kind::Invalid), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn compressed_data_is_recognized() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"\x1f\x8b\x08", Some("gzip")),
            (b"\x28\xb5\x2f\xfd\0", Some("zstd")),
            (b"\xfd7zXZ\0\0", Some("xz")),
            (b"\x04\x22\x4d\x18", Some("lz4")),
            (b"BZh9", Some("bzip2")),
            (b"BZhello", None),
            (b"", None),
            (b"\x1f", None),
            (b"plain", None),
        ];
        for (bytes, expected) in table {
            assert_eq!(looks_compressed(bytes), *expected, "{bytes:?}");
        }
    }
}
