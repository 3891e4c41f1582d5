//! Read the sources as code: without comments, literals and what is compiled for tests only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of Rust below a folder, sorted.
pub fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(root().join(folder))
        .into_iter()
        .map(|entry| entry.expect("the sources can be listed").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no sources");
    files
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path for messages.
pub fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The length of a string or character literal that begins here; 0 when none does.
pub fn literal_length(text: &[u8]) -> usize {
    let raw = text.iter().position(|byte| *byte != b'r' && *byte != b'b' && *byte != b'c').unwrap_or(0);
    let hashes = text[raw..].iter().take_while(|byte| **byte == b'#').count();
    if raw > 0 && raw <= 2 && text[..raw].contains(&b'r') && text.get(raw + hashes) == Some(&b'"') {
        let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        let start = raw + hashes + 1;
        return text[start..]
            .windows(end.len())
            .position(|window| window == end)
            .map_or(text.len(), |at| start + at + end.len());
    }
    match text {
        [b'"', ..] => {
            let mut at = 1;
            while at < text.len() && text[at] != b'"' {
                at += if text[at] == b'\\' { 2 } else { 1 };
            }
            (at + 1).min(text.len())
        }
        [b'\'', b'\\', rest @ ..] => rest.iter().skip(1).position(|byte| *byte == b'\'').map_or(1, |at| at + 4),
        // A lifetime has no quote after its first character, which may be of several bytes.
        [b'\'', rest @ ..] => match rest.iter().take(5).position(|byte| *byte == b'\'') {
            Some(at) if at > 0 && std::str::from_utf8(&rest[..at]).is_ok_and(|text| text.chars().count() == 1) => {
                at + 2
            }
            _ => 0,
        },
        _ => 0,
    }
}

/// The code alone: comments and literals become spaces, lines stay where they are.
pub fn code_of(text: &str) -> String {
    let text = text.as_bytes();
    let mut code = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let in_word = at > 0 && (text[at - 1].is_ascii_alphanumeric() || text[at - 1] == b'_');
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            rest.windows(2).position(|window| window == b"*/").map_or(rest.len(), |end| end + 2)
        } else if in_word && matches!(rest[0], b'r' | b'b' | b'c') {
            0
        } else {
            literal_length(rest)
        };
        match length {
            0 => code.push(text[at]),
            _ => code.extend(rest[..length].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' })),
        }
        at += length.max(1);
    }
    String::from_utf8(code).expect("only whole literals and comments were taken out")
}

/// Without what is compiled for tests only: from the attribute to the end of its block or statement.
pub fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let after = &rest[at..];
        let open = after.find('{').unwrap_or(after.len());
        let end = match after.find(';') {
            Some(semicolon) if semicolon < open => semicolon + 1,
            _ => {
                let mut depth = 0;
                let closed = after.bytes().position(|byte| {
                    depth += i32::from(byte == b'{') - i32::from(byte == b'}');
                    byte == b'}' && depth == 0
                });
                closed.map_or(after.len(), |closed| closed + 1)
            }
        };
        kept.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    kept + rest
}

/// The modules named after `prefix` (as `crate::`), in `use` trees and in the middle of code.
pub fn named_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_part = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = code[at + prefix.len()..].trim_start();
        if is_part && !code[..at].ends_with("::") {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ if begins && !c.is_whitespace() => {
                    names.insert(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// Code of a file as it is built for use.
pub fn shipped(path: &Path) -> String {
    let code = code_of(&read(path));
    if code.contains("#![cfg(test)]") { String::new() } else { without_tests(&code) }
}

#[test]
fn the_reading_of_sources_is_right() {
    let text = r##"
use crate::{id::ChunkId, repo::{self, Reader}, watch};
// crate::comment
/* crate::block */
const A: &str = "crate::text \" crate::more"; const B: &[u8] = br#"crate::raw"#; const C: char = '"'; const D: char = '\'';
fn f<'a>(x: &'a crate::entry::Entry) { let user = 1; let _ = '\u{1F600}'; crate::disk::open(user) }
#[cfg(test)]
use crate::gone;
#[cfg(test)]
mod tests { fn f() { crate::seal::f() } }
fn g() { crate::when::now() }
"##;
    let names = named_behind(&without_tests(&code_of(text)), "crate::");
    assert_eq!(Vec::from_iter(names), ["disk", "entry", "id", "repo", "watch", "when"]);
}
