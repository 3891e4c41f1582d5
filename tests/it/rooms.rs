//! The map of rooms holds: which room imports which, and the few rules of style that keep a file readable.
//!
//! The table here and the one in docs/ARCHITECTURE.md are the same; a new import between rooms is a new word here and a
//! record in docs/decisions.

use crate::source_code::{code_of, literal_length, named_behind, read, root, shipped, short, sources};
use std::collections::BTreeSet;
use std::path::Path;

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
    ("source", &["error", "lock", "entry", "watch"]),
    ("index", &["error", "lock", "id", "place", "disk"]),
    ("vault", &["error", "lock", "id", "place", "watch", "chunk", "disk", "seal", "format", "storage", "index"]),
    ("lease", &["error", "lock", "id", "seal", "format", "storage", "vault"]),
    ("fetch", &["error", "lock", "id", "place", "entry", "seal", "format", "storage", "index", "vault"]),
    ("ingest", &["error", "lock", "id", "place", "watch", "seal", "format", "storage", "index", "vault", "lease"]),
    (
        "repo",
        &[
            "error", "lock", "id", "watch", "when", "chunk", "disk", "seal", "format", "storage", "vault", "lease",
            "fetch", "ingest",
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

/// Rooms that do not exist yet, each with all that it may import then.
const PLANNED: &[(&str, &[&str])] = &[
    ("care", &["error", "lock", "id", "watch", "when", "format", "repo"]),
    ("copy", &["error", "id", "watch", "when", "format", "repo"]),
    ("mount", &["error", "lock", "id", "entry", "watch", "when", "disk", "format", "repo", "browse"]),
    ("parity", &["error", "id"]),
    ("timeline", &["error", "lock", "id", "entry", "watch", "when", "format", "source", "repo"]),
    ("notify", &["error", "watch"]),
    (
        "job",
        &[
            "error", "lock", "id", "watch", "when", "source", "repo", "backup", "restore", "browse", "care", "copy",
            "timeline", "notify",
        ],
    ),
    ("config", &["error", "when", "source", "storage", "job"]),
    ("daemon", &["error", "lock", "watch", "when", "job", "config", "notify"]),
];

/// What the command may use of the library: everything but what only the verbs use.
const COMMAND: &[&str] = &[
    "error", "id", "entry", "watch", "when", "chunk", "disk", "seal", "storage", "source", "repo", "backup", "restore",
    "browse", "bench",
];

/// Rooms that may reach storage: nothing plain, and nothing out of order, gets there past them.
const BELOW_VERBS: &[&str] = &["vault", "lease", "fetch", "ingest", "repo", "bench"];

/// A macro of `storage`.
const MACRO: &str = "forward_storage";

const LINES_MAX: usize = 800;

/// The room that a file of the library belongs to; none for the crates' roots and the command.
fn room_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(root().join("src")).expect("it lies in src");
    let first = below.iter().next().expect("it has a name").to_str().expect("sources have plain names");
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "cli"].contains(&room)).then(|| room.to_owned())
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
fn planned_rooms_have_their_place_and_are_not_built_in_passing() {
    for (number, (room, imports)) in PLANNED.iter().enumerate() {
        assert!(ROOMS.iter().all(|(built, _)| built != room), "{room} is built: take it off the planned ones");
        assert!(!root().join("src").join(room).exists(), "{room} is not on the map");
        for import in *imports {
            let is_known = ROOMS.iter().chain(&PLANNED[..number]).any(|(name, _)| name == import);
            assert!(is_known, "{room} may import {import}, which does not come before it");
        }
        // A way around the chunk sink would be a second way in; only what configures jobs names locations.
        assert!(!imports.contains(&"storage") || *room == "config", "{room} may import storage");
    }
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
    for (room, imports) in ROOMS.iter().chain(PLANNED) {
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

/// Hints follow `hint: `: they begin small and end without a full stop.
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
