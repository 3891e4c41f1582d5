//! Measures of style, read from the sources: sizes, parameters, circles between files, global state.
//!
//! What still exceeds a measure is listed here by name. The lists may only shrink: an entry that is not needed any more fails the
//! test.

use crate::source_code::{read, root, shipped, short, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 350;
const FILE_LINES_MEDIAN_MAX: usize = 200;
const FUNCTION_LINES_MAX: usize = 80;
const FUNCTION_LINES_OF_99_PERCENT_MAX: usize = 50;
const PARAMETERS_MAX: usize = 6;
/// A struct with more fields is plain data: all of them are public.
const PRIVATE_FIELDS_MAX: usize = 12;
const PUBLIC_ITEMS_MAX: usize = 450;

const LONG_FILES: &[&str] = &[];
const TUPLE_PARAMETERS: &[&str] = &[];
const MANY_PARAMETERS: &[&str] = &[];
/// Plain data: counters, and the arguments of a command.
const LARGE_STRUCTS: &[&str] = &["src/backup/counts.rs: BackupCounts"];
/// Files that import one another, by the first of them.
const CIRCLES: &[&str] = &[];

/// Static items that change: what a library or the kernel keeps for the whole process or thread, and numbers that make names unique.
const GLOBAL_STATE: &[&str] = &[
    "src/cli/signals.rs: BEGUN",
    "src/cli/signals.rs: WITH_JSON",
    "src/disk/umask.rs: TAKEN_AWAY",
    "src/disk/unfinished.rs: NEXT",
    "src/disk/unfinished.rs: THIS",
    "src/disk/whole.rs: NEXT",
    "src/vault/kept_files.rs: NEXT",
];

struct Function {
    name: String,
    lines: usize,
    parameters: Vec<String>,
}

/// The functions in code that rustfmt has formatted: the end of one is the next `}` at the depth of its beginning.
fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut signature = String::new();
        let body = lines[at..].iter().position(|line| {
            signature.push_str(line);
            signature.push(' ');
            line.contains('{') || line.trim_end().ends_with(';')
        });
        let Some(body) = body.filter(|_| signature.contains('{')) else { continue };
        let closing = format!("{}}}", " ".repeat(indent));
        let is_one_line = lines[at + body].trim_end().ends_with('}');
        let end = if is_one_line { body } else { lines[at..].iter().position(|line| *line == closing).unwrap_or(body) };
        found.push(Function { parameters: parameters(&signature, &name), name, lines: end + 1 });
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| ["pub", "const", "unsafe", "async"].contains(word) || word.starts_with("pub("));
    let rest = words.next().filter(|word| *word == "fn").and_then(|_| words.next())?;
    Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

/// The parameters in a signature, but `self`.
fn parameters(signature: &str, name: &str) -> Vec<String> {
    let beginning = format!("fn {name}");
    let mut rest = &signature[signature.find(&beginning).map_or(0, |at| at + beginning.len())..];
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.char_indices().find(|(at, c)| {
            depth += match c {
                '<' => 1,
                '>' if !rest[..*at].ends_with('-') => -1,
                _ => 0,
            };
            depth == 0
        });
        rest = &rest[end.map_or(0, |(at, _)| at + 1)..];
    }
    let (mut depth, mut found, mut current) = (0, Vec::new(), String::new());
    for c in rest.chars().skip(1) {
        match c {
            ')' if depth == 0 => break,
            '(' | '[' | '<' | '{' => depth += 1,
            // Not that of an arrow.
            '>' if current.ends_with('-') => {}
            ')' | ']' | '>' | '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 { found.push(std::mem::take(&mut current)) } else { current.push(c) }
    }
    found.push(current);
    let is_self = |text: &str| text.rsplit([' ', '&']).next() == Some("self");
    found.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && !is_self(text)).collect()
}

/// Compares what exceeds a measure with the list of what may.
#[track_caller]
fn assert_only(found: &BTreeSet<String>, allowed: &[&str], what: &str) {
    let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(found).collect();
    assert!(
        new.is_empty(),
        "{what}:\n{}",
        new.iter().map(|name| format!("    \"{name}\",")).collect::<Vec<_>>().join("\n")
    );
    assert!(gone.is_empty(), "{what}: take these off the list: {gone:?}");
}

#[test]
fn signatures_are_read_right() {
    let code = "pub(super) fn f<'a, F: Fn(u8) -> u8>(&'a mut self, (a, b): (u8, u8), g: impl Fn(u8, u8) -> u8) -> u8 {\n    1\n}\n";
    let found = functions(code);
    assert_eq!((found[0].name.as_str(), found[0].lines), ("f", 3));
    assert_eq!(found[0].parameters, ["(a, b): (u8, u8)", "g: impl Fn(u8, u8) -> u8"]);
}

#[test]
fn files_and_functions_are_short() {
    let (mut long_files, mut long_functions) = (BTreeSet::new(), Vec::new());
    let (mut file_lines, mut function_lines) = (Vec::new(), Vec::new());
    for path in sources("src") {
        let code = shipped(&path);
        let lines = code.trim_end().lines().count();
        file_lines.push(lines);
        if lines > FILE_LINES_MAX {
            long_files.insert(short(&path));
        }
        for function in functions(&code) {
            function_lines.push(function.lines);
            if function.lines > FUNCTION_LINES_MAX {
                long_functions.push(format!("{}: {} has {} lines", short(&path), function.name, function.lines));
            }
        }
    }
    file_lines.sort_unstable();
    function_lines.sort_unstable();
    assert!(file_lines[file_lines.len() / 2] <= FILE_LINES_MEDIAN_MAX);
    assert!(function_lines[function_lines.len() * 99 / 100] <= FUNCTION_LINES_OF_99_PERCENT_MAX);
    assert_eq!(long_functions, Vec::<String>::new());
    assert_only(&long_files, LONG_FILES, "files with more than 350 lines");
}

#[test]
fn functions_have_few_parameters_and_no_tuples() {
    let (mut tuples, mut many) = (BTreeSet::new(), BTreeSet::new());
    for path in sources("src") {
        for function in functions(&shipped(&path)) {
            let name = format!("{}: {}", short(&path), function.name);
            if function.parameters.iter().any(|parameter| parameter.starts_with('(')) {
                tuples.insert(name.clone());
            }
            if function.parameters.len() > PARAMETERS_MAX {
                many.insert(name);
            }
        }
    }
    assert_only(&tuples, TUPLE_PARAMETERS, "functions with a tuple as parameter");
    assert_only(&many, MANY_PARAMETERS, "functions with more than six parameters");
}

#[test]
fn large_structs_are_plain_data() {
    let mut large = BTreeSet::new();
    for path in sources("src") {
        let code = shipped(&path);
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((before, rest)) = line.split_once("struct ").filter(|_| line.trim_end().ends_with('{')) else {
                continue;
            };
            let indent = before.len() - before.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let fields: Vec<&str> = lines[at + 1..]
                .iter()
                .take_while(|line| **line != closing)
                .filter(|line| line.len() - line.trim_start().len() == indent + 4 && line.contains(": "))
                .map(|line| line.trim())
                .collect();
            if fields.len() > PRIVATE_FIELDS_MAX && fields.iter().any(|field| !field.starts_with("pub")) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                large.insert(format!("{}: {name}", short(&path)));
            }
        }
    }
    assert_only(&large, LARGE_STRUCTS, "structs with more than twelve fields that are not all public");
}

#[test]
fn only_the_process_and_unique_names_have_global_state() {
    let mut found = BTreeSet::new();
    for path in sources("src") {
        for line in shipped(&path).lines().filter_map(|line| line.trim().split_once("static ")) {
            let (before, rest) = line;
            let (name, kind) = rest.trim_start_matches("mut ").split_once(':').unwrap_or((rest, ""));
            // What is read once and never changes is not state.
            let is_constant = !["Cell", "Atomic", "Mutex", "OnceLock"].iter().any(|word| kind.contains(word));
            if (before.is_empty() || before.starts_with("pub")) && !is_constant {
                found.insert(format!("{}: {name}", short(&path)));
            }
        }
    }
    assert_only(&found, GLOBAL_STATE, "global state");
}

/// The path of the module that a file is.
fn module_of(path: &Path) -> Vec<String> {
    let below = path.strip_prefix(root().join("src")).expect("it is in src").with_extension("");
    let mut parts: Vec<String> = below.iter().map(|part| part.to_str().expect("plain names").to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Paths that code names: `crate::a::b`, also in groups of `use`, as lists of their parts.
fn paths_named(code: &str, of: &[String]) -> BTreeSet<Vec<String>> {
    let mut named = BTreeSet::new();
    for prefix in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(prefix) {
            let is_part = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
            if !is_part {
                expand(&code[at..], &mut Vec::new(), of, &mut named);
            }
        }
    }
    named
}

/// Reads one path or group, and adds what it names.
fn expand(text: &str, before: &mut Vec<String>, of: &[String], named: &mut BTreeSet<Vec<String>>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    expand(&group[start..at], &mut before.clone(), of, named);
                    return;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&group[start..at], &mut before.clone(), of, named);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return;
    }
    before.push(word.clone());
    match text[word.len()..].strip_prefix("::") {
        Some(rest) => expand(rest, before, of, named),
        None => drop(named.insert(absolute(before, of))),
    }
}

fn absolute(path: &[String], of: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    match path[0].as_str() {
        "crate" => path[1..].to_vec(),
        "self" => [of, &path[1..]].concat(),
        _ => [&of[..of.len().saturating_sub(supers)], &path[supers..]].concat(),
    }
}

#[test]
fn no_file_imports_what_imports_it() {
    let modules: BTreeMap<Vec<String>, PathBuf> =
        sources("src").into_iter().map(|path| (module_of(&path), path)).collect();
    let mut imports: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (module, path) in &modules {
        let named = paths_named(&shipped(path), module);
        let files = named.iter().filter_map(|named| {
            (1..=named.len()).rev().find_map(|length| modules.get(&named[..length])).map(PathBuf::as_path)
        });
        imports.insert(path, files.filter(|file| *file != path.as_path()).collect());
    }
    // Two files are in one circle if each reaches the other.
    let reach = |from: &Path| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for import in &imports[file] {
                if seen.insert(*import) {
                    next.push(import);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = imports.keys().map(|file| (*file, reach(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, reached_from) in &reached {
        let circle: Vec<String> =
            reached_from.iter().filter(|other| reached[**other].contains(file)).map(|file| short(file)).collect();
        if let Some(first) = circle.first() {
            println!("{}: in a circle with {circle:?}", short(file));
            circles.insert(first.clone());
        }
    }
    assert_only(&circles, CIRCLES, "circles between files, by their first file");
}

/// A name that says what it is without its path: no two types have the same one, and few have one word.
#[test]
fn types_have_names_of_their_own() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources("src") {
        for line in shipped(&path).lines() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "unsafe");
            let Some("struct" | "enum" | "trait" | "union") = words.next() else { continue };
            let Some(rest) = words.next() else { continue };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            files.entry(name).or_default().push(short(&path));
        }
    }
    assert!(files.len() > 400, "{} types", files.len());
    let shared: Vec<_> = files.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(shared.is_empty(), "types of one name: {shared:?}");
    let has_one_word = |name: &&String| name.chars().filter(|c| c.is_uppercase()).count() < 2;
    let one_word = files.keys().filter(has_one_word).count();
    assert!(one_word * 4 < files.len(), "{one_word} of {} types have names of one word", files.len());
}

/// What another program can use is little, and every item of it says what it is. That all of it is needed, the compiler knows:
/// what only this crate uses is `pub(crate)`, and what nothing uses is a warning.
#[test]
fn the_public_face_is_small_and_documented() {
    let (mut count, mut wrong) = (0, Vec::new());
    for path in sources("src") {
        let code = shipped(&path);
        let mut above = "";
        for line in read(&path).lines() {
            let item = line.trim_start();
            if let Some(rest) = item.strip_prefix("pub ") {
                let mut words =
                    rest.split_whitespace().skip_while(|word| ["async", "unsafe"].contains(word)).peekable();
                let is_item = ["fn", "struct", "enum", "trait", "type", "const", "mod", "static", "union"];
                if words.peek().is_some_and(|word| is_item.contains(word)) && code.contains(line) {
                    count += 1;
                    // A room says its purpose in its own file.
                    if !above.starts_with("///") && !above.starts_with("$(#[") && !rest.starts_with("mod ") {
                        wrong.push(format!("{}: {item}", short(&path)));
                    }
                }
            }
            if !item.starts_with("#[") {
                above = item;
            }
        }
    }
    assert!(wrong.is_empty(), "public without a document:\n{}", wrong.join("\n"));
    assert!((200..=PUBLIC_ITEMS_MAX).contains(&count), "{count} public items; {PUBLIC_ITEMS_MAX} are the most");
    println!("{count} public items");
}
