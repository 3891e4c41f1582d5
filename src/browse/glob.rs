//! Match paths and names of any bytes with shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, `**`, `\` before any.

use crate::error::{Error, Result};

/// One step of a pattern.
#[derive(Clone, Debug)]
enum GlobStep {
    Byte(u8),
    /// Any byte but a slash.
    One,
    /// Any number of bytes but slashes.
    Many,
    /// Any number of bytes.
    Deep,
    /// `**/`: nothing, or what the next step, always [`GlobStep::InFolders`], matches.
    Folders,
    /// Anything that ends in a slash.
    InFolders,
    Class {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

/// A pattern. Without a slash it is matched with names; with one, with whole paths, at any depth unless it begins with
/// a slash.
#[derive(Clone, Debug)]
pub struct Glob {
    steps: Vec<GlobStep>,
    whole_path: bool,
    ignore_case: bool,
}

/// Longer patterns are mistakes.
const PATTERN_BYTES_MAX: usize = 4096;

impl Glob {
    /// Parses a pattern; an error says what is wrong with it.
    pub fn new(pattern: &[u8], ignore_case: bool) -> Result<Glob> {
        let bad = |why: &str| Err(Error::invalid("use the pattern", super::shown(pattern), why));
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
            return bad("it is empty or too long");
        }
        if pattern.split(|byte| *byte == b'/').any(|part| part == b"." || part == b"..") {
            return bad("no path of a snapshot has . or .. as a part");
        }
        let whole_path = pattern.contains(&b'/');
        let mut steps = Vec::new();
        if whole_path && pattern[0] != b'/' {
            steps.extend([GlobStep::Byte(b'/'), GlobStep::Folders, GlobStep::InFolders]);
        }
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            let step = match byte {
                b'?' => GlobStep::One,
                b'*' if pattern.get(at) == Some(&b'*') => {
                    let begins = at == 1 || pattern[at - 2] == b'/';
                    while pattern.get(at) == Some(&b'*') {
                        at += 1;
                    }
                    match pattern.get(at) {
                        Some(b'/') if begins => {
                            at += 1;
                            steps.push(GlobStep::Folders);
                            GlobStep::InFolders
                        }
                        _ => GlobStep::Deep,
                    }
                }
                b'*' => GlobStep::Many,
                b'\\' => match pattern.get(at) {
                    Some(&escaped) => {
                        at += 1;
                        GlobStep::Byte(fold(escaped, ignore_case))
                    }
                    None => return bad("nothing follows its last backslash: write two for the backslash itself"),
                },
                b'[' => match class(pattern, &mut at, ignore_case) {
                    Ok(class) => class,
                    Err(why) => return bad(why),
                },
                other => GlobStep::Byte(fold(other, ignore_case)),
            };
            steps.push(step);
        }
        // A slash at the end says only that a directory is meant.
        if steps.len() > 1 && matches!(steps.last(), Some(GlobStep::Byte(b'/'))) {
            steps.pop();
        }
        Ok(Glob { steps, whole_path, ignore_case })
    }

    /// Whether it matches an absolute path.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let text = if self.whole_path { path } else { path.rsplit(|byte| *byte == b'/').next().unwrap_or(path) };
        // All positions of the pattern that the text so far can have reached: no backtracking, so no pattern is slow.
        let mut now = vec![false; self.steps.len() + 1];
        now[0] = true;
        self.pass(&mut now);
        for &byte in text {
            let mut next = vec![false; now.len()];
            let byte = fold(byte, self.ignore_case);
            for (at, step) in self.steps.iter().enumerate().filter(|(at, _)| now[*at]) {
                match step {
                    GlobStep::Byte(wanted) if *wanted == byte => next[at + 1] = true,
                    GlobStep::One if byte != b'/' => next[at + 1] = true,
                    GlobStep::Class { ranges, negated } if byte != b'/' => {
                        let inside = ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte));
                        next[at + 1] |= inside != *negated;
                    }
                    GlobStep::Many if byte != b'/' => next[at] = true,
                    GlobStep::Deep => next[at] = true,
                    GlobStep::InFolders => {
                        next[at] = true;
                        next[at + 1] |= byte == b'/';
                    }
                    _ => (),
                }
            }
            now = next;
            self.pass(&mut now);
            if !now.contains(&true) {
                return false;
            }
        }
        now[self.steps.len()]
    }

    /// Goes on over steps that may match nothing.
    fn pass(&self, now: &mut [bool]) {
        for at in 0..self.steps.len() {
            match self.steps[at] {
                _ if !now[at] => (),
                GlobStep::Many | GlobStep::Deep => now[at + 1] = true,
                GlobStep::Folders => {
                    now[at + 1] = true;
                    now[at + 2] = true;
                }
                _ => (),
            }
        }
    }
}

fn fold(byte: u8, ignore_case: bool) -> u8 {
    if ignore_case { byte.to_ascii_lowercase() } else { byte }
}

/// Parses a bracket expression, from the character after `[`; an error says what is wrong with it.
fn class(pattern: &[u8], at: &mut usize, ignore_case: bool) -> Result<GlobStep, &'static str> {
    let negated = matches!(pattern.get(*at), Some(b'!' | b'^'));
    *at += usize::from(negated);
    let (mut ranges, begin) = (Vec::new(), *at);
    loop {
        // A closing bracket that comes first is one of the class.
        if pattern.get(*at) == Some(&b']') && *at > begin {
            *at += 1;
            return Ok(GlobStep::Class { ranges, negated });
        }
        if pattern[*at..].starts_with(b"[:") && is_named(&pattern[*at + 2..]) {
            return Err("it has a class with a name, such as [:alpha:]: write its characters, such as [a-zA-Z]");
        }
        let first = class_byte(pattern, at)?;
        let last = match (pattern.get(*at), pattern.get(*at + 1)) {
            (Some(b'-'), Some(&last)) if last != b']' => {
                *at += 1;
                class_byte(pattern, at)?
            }
            _ => first,
        };
        ranges.push((first, last));
        if ignore_case {
            ranges.push((first.to_ascii_lowercase(), last.to_ascii_lowercase()));
        }
    }
}

/// The next byte of a bracket expression, or the one after a backslash.
fn class_byte(pattern: &[u8], at: &mut usize) -> Result<u8, &'static str> {
    *at += usize::from(pattern.get(*at) == Some(&b'\\'));
    let byte = pattern.get(*at).ok_or("a bracket is not closed: write \\[ for the bracket itself")?;
    *at += 1;
    Ok(*byte)
}

/// Whether what follows `[:` is the rest of a class with a name.
fn is_named(rest: &[u8]) -> bool {
    let name = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    rest[name..].starts_with(b":]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        let table: &[(&str, &[u8], bool)] = &[
            ("*.rs", b"/a/b.rs", true),
            ("*.rs", b"/a.rs/b", false),
            ("b?", b"/a/b\xff", true),
            ("/a/*", b"/a/b", true),
            ("/a/*", b"/a/b/c", false),
            ("/a/**", b"/a/b/c", true),
            ("/a/**/c", b"/a/c", true),
            ("/a/**/c", b"/a/x/y/c", true),
            ("/a/**/c", b"/a/xc", false),
            ("b/c", b"/a/b/c", true),
            ("b/c", b"/b/c", true),
            ("b/c", b"/ab/c", false),
            ("**/c", b"/c", true),
            ("dir/", b"/x/dir", true),
            ("[a-c]x", b"/bx", true),
            ("[!a-c]x", b"/bx", false),
            ("[]]", b"/]", true),
            ("[\\]]", b"/]", true),
            ("[\\]]", b"/\\]", false),
            ("[a\\-c]", b"/b", false),
            ("[[:]", b"/:", true),
            ("\\*", b"/*", true),
            ("\\*", b"/a", false),
            ("README", b"/readme", false),
        ];
        for (pattern, path, expected) in table {
            let glob = Glob::new(pattern.as_bytes(), false).unwrap();
            assert_eq!(glob.matches(path), *expected, "{pattern} {}", path.escape_ascii());
        }
        for never in ["./x", "../x", "a/./b", "."] {
            assert!(Glob::new(never.as_bytes(), false).is_err(), "{never}");
        }
        // It was a class of `[`, `:` and four letters, and matched other names in silence.
        assert!(Glob::new(b"[[:alpha:]]*", false).is_err());
        assert!(Glob::new(b"READ[L-M]E*", true).unwrap().matches(b"/x/readme.TXT"));
        assert!(
            Glob::new(b"[a", false).is_err() && Glob::new(b"", false).is_err() && Glob::new(b"a\\", false).is_err()
        );
        // Slow where a matcher goes back.
        assert!(!Glob::new(&b"*a".repeat(200), false).unwrap().matches(&[b'a'; 150]));
    }
}
