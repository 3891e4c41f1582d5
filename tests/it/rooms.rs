//! The map of rooms holds: who imports whom, and the few rules of style that keep a file readable.
//!
//! The table here and the one in docs/ARCHITECTURE.md are the same; a new import between rooms is a new word here and a
//! record in docs/decisions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms in the order in which the bytes travel, each with all that it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("lock", &[]),
    ("id", &["error"]),
    ("place", &["id"]),
    ("entry", &["id"]),
    ("watch", &["error", "lock", "entry"]),
    ("when", &["error", "id", "entry"]),
    ("chunk", &[]),
    ("disk", &["error", "lock", "entry"]),
    ("seal", &["error", "id"]),
    ("format", &["error", "id", "place", "entry", "chunk", "seal"]),
    ("runtime", &["error"]),
    ("storage", &["error", "lock", "watch", "disk", "runtime"]),
    ("source", &["error", "entry", "watch"]),
    ("index", &["error", "lock", "id", "place", "disk"]),
    ("vault", &["error", "lock", "id", "place", "watch", "chunk", "disk", "seal", "format", "storage", "index"]),
    ("lease", &["error", "lock", "id", "seal", "format", "storage", "vault"]),
    ("fetch", &["error", "lock", "id", "place", "entry", "disk", "seal", "format", "storage", "index", "vault"]),
    ("ingest", &["error", "lock", "id", "place", "watch", "seal", "format", "storage", "index", "vault", "lease"]),
    (
        "repo",
        &[
            "error", "id", "watch", "when", "chunk", "disk", "seal", "format", "storage", "vault", "lease", "fetch",
            "ingest",
        ],
    ),
    (
        "backup",
        &[
            "error", "lock", "id", "entry", "watch", "when", "chunk", "disk", "seal", "format", "source", "index",
            "vault", "repo",
        ],
    ),
    ("restore", &["error", "lock", "id", "entry", "watch", "when", "disk", "format", "source", "repo"]),
    ("browse", &["error", "id", "entry", "watch", "when", "disk", "format", "repo"]),
    ("bench", &["error", "lock", "id", "watch", "chunk", "seal", "format", "storage"]),
];

/// What the command may use of the library: everything but what lies behind the verbs.
const COMMAND: &[&str] = &[
    "error", "id", "entry", "watch", "when", "chunk", "disk", "seal", "storage", "source", "repo", "backup", "restore",
    "browse", "bench",
];

/// Rooms that may reach storage: nothing plain, and nothing out of order, gets there past them.
const BELOW_VERBS: &[&str] = &["vault", "lease", "fetch", "ingest", "repo", "bench"];

/// A macro of `storage`.
const MACRO: &str = "forward_storage";

const LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of Rust below a folder, sorted.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(root().join(folder))
        .into_iter()
        .map(|entry| entry.expect("the sources can be listed").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no sources");
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path for messages.
fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The room that a file of the library belongs to; none for the crates' roots and the command.
fn room_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(root().join("src")).expect("it lies in src");
    let first = below.iter().next().expect("it has a name").to_str().expect("sources have plain names");
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "cli"].contains(&room)).then(|| room.to_owned())
}

/// The length of a string or character literal that begins here; 0 when none does.
fn literal_length(text: &[u8]) -> usize {
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
        // A lifetime has no quote behind its first character, which may be of several bytes.
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
fn code_of(text: &str) -> String {
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
fn without_tests(code: &str) -> String {
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

/// The modules named behind `prefix` (as `crate::`), in `use` trees and in the middle of code.
fn named_behind(code: &str, prefix: &str) -> BTreeSet<String> {
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
fn shipped(path: &Path) -> String {
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

#[test]
fn every_room_is_on_the_map_and_the_map_has_no_circle() {
    for (number, (room, imports)) in ROOMS.iter().enumerate() {
        let before: Vec<&str> = ROOMS[..number].iter().map(|(name, _)| *name).collect();
        assert!(!before.contains(room), "{room} is on the map twice");
        for import in *imports {
            assert!(before.contains(import), "{room} may import {import}, which does not come before it");
        }
    }
    let lib = code_of(&read(&root().join("src/lib.rs")));
    for line in lib.lines().filter_map(|line| line.trim().strip_suffix(';')) {
        if let Some((_, room)) = line.split_once("mod ") {
            assert!(ROOMS.iter().any(|(name, _)| *name == room), "src/lib.rs: {room} is not on the map in rooms.rs");
        }
    }
}

#[test]
fn rooms_import_what_the_map_allows_and_nothing_else() {
    let mut wrong = Vec::new();
    let mut all_used = BTreeSet::new();
    for path in sources("src") {
        let code = shipped(&path);
        let (used, allowed, who) = match room_of(&path) {
            Some(room) => {
                let row = ROOMS.iter().find(|(name, _)| *name == room);
                let (_, allowed) = row.unwrap_or_else(|| panic!("{}: {room} is not on the map", short(&path)));
                let mut used = named_behind(&code, "crate::");
                used.remove(&room);
                // Macros are at the crate's root, whatever room they are of.
                used.remove(MACRO);
                // The door of a room and a room of one file reach their neighbours by `super::` too.
                let is_door = path.ends_with("mod.rs") || path.parent().is_some_and(|folder| folder.ends_with("src"));
                let way_out = if is_door { "super::" } else { "super::super::" };
                used.extend(named_behind(&code, way_out).into_iter().filter(|name| name != "super"));
                (used, *allowed, room)
            }
            None if path.ends_with("lib.rs") => continue,
            None => (named_behind(&code, "siltstone::"), COMMAND, "the command".to_owned()),
        };
        for import in used.iter().filter(|import| !allowed.contains(&import.as_str())) {
            wrong.push(format!("{}: {who} may not import {import}", short(&path)));
        }
        all_used.extend(used.into_iter().map(|import| (who.clone(), import)));
    }
    for (room, imports) in ROOMS {
        for import in imports.iter().filter(|import| !all_used.contains(&(room.to_string(), import.to_string()))) {
            wrong.push(format!("{room} does not use {import}: take it off the map"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_verb_reaches_storage() {
    for (room, imports) in ROOMS {
        assert!(!imports.contains(&"storage") || BELOW_VERBS.contains(room), "{room} may import storage");
        assert!(*room == "bench" || !imports.contains(&"bench"), "{room} may import bench");
    }
    let (_, source) = ROOMS.iter().find(|(room, _)| *room == "source").expect("it is on the map");
    for never in ["chunk", "seal", "storage", "index", "repo"] {
        assert!(!source.contains(&never), "a source knows {never}");
    }
}

#[test]
fn the_documented_map_is_this_one() {
    let text = read(&root().join("docs/ARCHITECTURE.md"));
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (room, imports) in ROOMS {
        let row = rows.iter().find(|row| row[0] == format!("`{room}`"));
        let row = row.unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no row for {room}"));
        let written = if imports.is_empty() { "–".to_owned() } else { imports.join(", ") };
        assert_eq!(row.get(2), Some(&written.as_str()), "docs/ARCHITECTURE.md: what {room} may import");
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let main = code_of(&read(&root().join("tests/it/main.rs")));
    for path in sources("tests/it") {
        let below = path.strip_prefix(root().join("tests/it")).expect("it lies there");
        let module = below.iter().next().expect("it has a name").to_str().expect("sources have plain names");
        let module = module.strip_suffix(".rs").unwrap_or(module);
        let named = main.lines().any(|line| line.trim() == format!("mod {module};"));
        assert!(module == "main" || named, "tests/it/main.rs does not name {}", short(&path));
    }
}

#[test]
fn the_library_neither_unwraps_nor_prints_nor_exits() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let in_library = room_of(&path).is_some();
        for (number, line) in shipped(&path).lines().enumerate() {
            let banned = ["println!", "eprint!", "print!", "dbg!", "process::exit", "todo!", "unimplemented!"];
            let found = line.contains(".unwrap()") || in_library && banned.iter().any(|word| line.contains(word));
            if found {
                wrong.push(format!("{}:{}: {}", short(&path), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    for path in ["src", "tests", "benches", "fuzz/fuzz_targets"].into_iter().flat_map(sources) {
        let text = read(&path);
        assert!(text.starts_with("//! "), "{}: its first line does not say its purpose", short(&path));
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines; {LINES_MAX} are the most", short(&path));
    }
}

/// Hints stand behind `hint: `: they begin small and end without a full stop.
#[test]
fn hints_are_of_one_style() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in sources("src") {
        let text = read(&path);
        for begin in [".hint(", "let hint = "] {
            for (at, _) in text.match_indices(begin) {
                let rest = text[at + begin.len()..].trim_start();
                let rest = rest.strip_prefix("format!(").unwrap_or(rest).trim_start();
                let length = literal_length(rest.as_bytes());
                let Some(words) = rest[..length].strip_prefix('"').and_then(|words| words.strip_suffix('"')) else {
                    continue;
                };
                seen += 1;
                if words.starts_with(char::is_uppercase) || words.ends_with(['.', '!']) {
                    wrong.push(format!("{}: {words}", short(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 30, "only {seen} hints were found: this test reads them no more");
}
