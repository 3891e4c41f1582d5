//! Decide which entries are left out.

use super::classes;
use crate::entry::{PATH_BYTES_MAX, is_valid_name};
use crate::error::{Error, Kind, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a cache directory's tag begins (the Cache Directory Tagging Specification).
pub(crate) const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// How many patterns one backup takes: far above any real list, low enough that compiling them cannot eat the machine.
const PATTERNS_MAX: usize = 100_000;

/// A file whose presence in a directory leaves out the rest of that directory; the directory itself is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    name: Vec<u8>,
    header: Vec<u8>,
    keeps_itself: bool,
}

impl Marker {
    /// Parses `NAME` or `NAME:HEADER`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let (name, header) = match text.iter().position(|&byte| byte == b':') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &b""[..]),
        };
        if !is_valid_name(name) {
            let why = "it must be the name of a file without slashes: NAME or NAME:HEADER";
            return Err(Error::invalid("read the marker", shown(text), why));
        }
        Ok(Marker { name: name.to_vec(), header: header.to_vec(), keeps_itself: false })
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many bytes of the file must be read to decide; with 0 its presence is enough. With more the file must be a
    /// regular one, and one that cannot be read does not match.
    pub(crate) fn header_bytes(&self) -> usize {
        self.header.len()
    }

    /// Whether the file named so is a marker, given the bytes it begins with.
    pub(crate) fn matches(&self, first_bytes: &[u8]) -> bool {
        first_bytes.starts_with(&self.header)
    }

    /// Whether the marker itself is saved although the rest of its directory is not: a restored cache directory is then
    /// still known as one.
    pub(crate) fn keeps_itself(&self) -> bool {
        self.keeps_itself
    }
}

/// A pattern as it was given.
#[derive(Clone, Debug)]
struct PatternWord {
    text: String,
    ignores_case: bool,
}

/// Which entries are left out. A walker asks top-down and does not enter what is left out: what is below an excluded
/// directory cannot be taken back by a later `!pattern`.
#[derive(Clone, Debug)]
pub struct Rules {
    patterns: Gitignore,
    words: Vec<PatternWord>,
    markers: Vec<Marker>,
    larger_than: Option<u64>,
    one_file_system: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let patterns = Gitignore::empty();
        Rules { patterns, words: Vec::new(), markers: Vec::new(), larger_than: None, one_file_system: false }
    }
}

impl Rules {
    /// Whether nothing is ever left out, so that no path need be put together to ask.
    pub fn is_empty(&self) -> bool {
        !self.has_patterns() && self.markers.is_empty() && self.larger_than.is_none() && !self.one_file_system
    }

    /// Whether [`Rules::leaves_out`] can ever say yes.
    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a pattern leaves out the entry at this absolute path.
    pub fn leaves_out(&self, path: &[u8], is_dir: bool) -> bool {
        self.has_patterns() && self.patterns.matched(Path::new(OsStr::from_bytes(path)), is_dir).is_ignore()
    }

    /// The patterns as they were given, in their order.
    pub(crate) fn patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.words.iter().map(|word| word.text.as_str())
    }

    /// Rules with at most `patterns_max` of the patterns each, without those patterns that take back what others match, unless there are
    /// only such.
    pub(crate) fn split(&self, patterns_max: usize) -> Result<Vec<Rules>> {
        let takes_back = |word: &PatternWord| word.text.starts_with('!');
        let take_all = self.words.iter().all(takes_back);
        let words: Vec<&PatternWord> = self.words.iter().filter(|word| take_all || !takes_back(word)).collect();
        let part = |words: &[&PatternWord]| {
            let mut builder = RulesBuilder::new();
            for word in words {
                let text = word.text.as_bytes();
                builder.add(text, word.ignores_case).map_err(|why| refused(text, why))?;
            }
            builder.build()
        };
        words.chunks(patterns_max.max(1)).map(part).collect()
    }

    /// Whether a file of this size is left out.
    pub(crate) fn leaves_out_file(&self, size: u64) -> bool {
        self.larger_than.is_some_and(|limit| size > limit)
    }

    /// Whether a directory on `device` below a source that begins on `source_device` is not entered.
    pub(crate) fn leaves_out_device(&self, source_device: u64, device: u64) -> bool {
        self.one_file_system && source_device != device
    }

    pub(crate) fn one_file_system(&self) -> bool {
        self.one_file_system
    }

    /// The files to look for in every directory.
    pub(crate) fn markers(&self) -> &[Marker] {
        &self.markers
    }
}

/// Collects rules in the order in which they were given: of the patterns that match, the last one decides.
#[derive(Debug)]
pub struct RulesBuilder {
    patterns: GitignoreBuilder,
    words: Vec<PatternWord>,
    markers: Vec<Marker>,
    larger_than: Option<u64>,
    one_file_system: bool,
}

impl Default for RulesBuilder {
    fn default() -> Self {
        let patterns = GitignoreBuilder::new("/");
        RulesBuilder { patterns, words: Vec::new(), markers: Vec::new(), larger_than: None, one_file_system: false }
    }
}

impl RulesBuilder {
    /// Leaves nothing out.
    pub fn new() -> Self {
        RulesBuilder::default()
    }

    /// Adds a pattern in gitignore syntax; a leading `/` anchors it at the root of the file system, anything else
    /// matches at any depth (also `a/b`, which in a `.gitignore` would be anchored: users do not mean `/a/b` by it).
    pub fn exclude(&mut self, pattern: &[u8]) -> Result<&mut Self> {
        self.add(&unescaped_word(pattern), false).map_err(|why| refused(pattern, why))?;
        Ok(self)
    }

    /// The same, with ASCII letters matching in either case.
    pub fn exclude_ignoring_case(&mut self, pattern: &[u8]) -> Result<&mut Self> {
        self.add(&unescaped_word(pattern), true).map_err(|why| refused(pattern, why))?;
        Ok(self)
    }

    /// Adds the patterns of a file: one a line; blank lines and lines that begin with `#` are skipped.
    pub fn exclude_file(&mut self, path: &Path, ignoring_case: bool) -> Result<&mut Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::io("open the exclude file", path.display(), e))?;
        self.exclude_lines(file, &path.display().to_string(), ignoring_case)
    }

    /// The same from any reader; `origin` names it in errors.
    pub fn exclude_lines(&mut self, reader: impl Read, origin: &str, ignoring_case: bool) -> Result<&mut Self> {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        for number in 1_usize.. {
            line.clear();
            // A little more than a pattern may have, so that one too long is told from one that fits.
            let limit = PATH_BYTES_MAX as u64 + 16;
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line);
            if read.map_err(|e| Error::io("read the exclude file", origin, e))? == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let mut text = text.strip_suffix(b"\r").unwrap_or(text);
            if number == 1 {
                text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            }
            if text.starts_with(b"#") && text.len() <= PATH_BYTES_MAX || text.trim_ascii().is_empty() {
                continue;
            }
            self.add(text, ignoring_case)
                .map_err(|why| Error::invalid("read the exclude file", format_args!("{origin}, line {number}"), why))?;
        }
        Ok(self)
    }

    /// Leaves out what is in directories tagged as caches.
    pub fn exclude_caches(&mut self) -> &mut Self {
        self.markers.push(Marker { name: CACHE_TAG.to_vec(), header: CACHE_SIGNATURE.to_vec(), keeps_itself: true });
        self
    }

    /// Leaves out what is in directories that hold this file (`NAME` or `NAME:HEADER`).
    pub fn exclude_if_present(&mut self, marker: &[u8]) -> Result<&mut Self> {
        self.markers.push(Marker::parse(marker)?);
        Ok(self)
    }

    /// Leaves out files with more bytes than this; the smallest limit given holds.
    pub fn exclude_larger_than(&mut self, bytes: u64) -> &mut Self {
        self.larger_than = Some(self.larger_than.map_or(bytes, |limit| limit.min(bytes)));
        self
    }

    /// Stays on the file system that each source begins on.
    pub fn one_file_system(&mut self, yes: bool) -> &mut Self {
        self.one_file_system = yes;
        self
    }

    /// The rules; an error names a pattern that is none.
    pub fn build(&self) -> Result<Rules> {
        let patterns = self.patterns.build();
        Ok(Rules {
            patterns: patterns.map_err(|e| Error::new(Kind::Invalid, "use the patterns", "").because(e))?,
            words: self.words.clone(),
            markers: self.markers.clone(),
            larger_than: self.larger_than,
            one_file_system: self.one_file_system,
        })
    }

    /// The reason as text when the pattern cannot be used.
    fn add(&mut self, pattern: &[u8], ignoring_case: bool) -> std::result::Result<(), String> {
        if pattern.len() > PATH_BYTES_MAX {
            return Err(format!("it is longer than {PATH_BYTES_MAX} bytes"));
        }
        if self.words.len() == PATTERNS_MAX {
            return Err(format!("there are more than {PATTERNS_MAX} patterns"));
        }
        let text = std::str::from_utf8(pattern)
            .map_err(|_| "it is not UTF-8: write ? for each byte that is not".to_owned())?;
        if text.contains('\0') {
            return Err("it holds a NUL byte".to_owned());
        }
        if text.trim().trim_start_matches('!').trim_matches('/').is_empty() {
            return Err("it matches nothing".to_owned());
        }
        let word = PatternWord { text: text.to_owned(), ignores_case: ignoring_case };
        let text = &with_guarded_end(&classes::for_library(&one_slash_each(text))?);
        if text.trim_start_matches('!').split('/').any(|part| part == "." || part == "..") {
            return Err(
                "a pattern cannot have . or .. as a part: write NAME to match it at any depth, or an absolute path"
                    .to_owned(),
            );
        }
        let said = |e: ignore::Error| e.to_string();
        self.patterns.case_insensitive(ignoring_case).map_err(said)?;
        self.patterns.add_line(None, &floated(text)).map_err(said)?;
        self.words.push(word);
        Ok(())
    }
}

/// A pattern with a slash in its middle is anchored in gitignore syntax; `**/` before it lets it match at any depth.
fn floated(text: &str) -> String {
    let (not, rest) = match text.strip_prefix('!') {
        Some(rest) => ("!", rest),
        None => ("", text),
    };
    if rest.starts_with('/') || rest.starts_with("**/") || !rest.trim_end().trim_end_matches('/').contains('/') {
        text.to_owned()
    } else {
        format!("{not}**/{rest}")
    }
}

/// Two slashes are one, as in every path.
fn one_slash_each(text: &str) -> String {
    let mut one = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '/' || !one.ends_with('/') {
            one.push(character);
        }
    }
    one
}

/// Only spaces at the end of a pattern are not part of it; the library drops all that Unicode calls white space. An
/// alternative of one is what that character stands for, and does not end with it.
fn with_guarded_end(text: &str) -> String {
    let kept = text.trim_end_matches(' ');
    match kept.chars().next_back() {
        Some(last) if last != ' ' && last.is_whitespace() => {
            let before = &kept[..kept.len() - last.len_utf8()];
            let is_escaped = before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
            let before = if is_escaped { &before[..before.len() - 1] } else { before };
            format!("{before}{{{last}}}{}", &text[kept.len()..])
        }
        _ => text.to_owned(),
    }
}

/// A word of the command line has no comments, and no spaces that only an editor left: `#x#` and `x ` are the names that
/// they look like.
fn unescaped_word(pattern: &[u8]) -> Vec<u8> {
    let escape: &[u8] = if pattern.starts_with(b"#") { b"\\" } else { b"" };
    let length = pattern.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    let (name, spaces) = pattern.split_at(length);
    // One that is escaped already: its backslash ends the name.
    let is_escaped = name.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    let escaped = spaces.iter().enumerate().flat_map(|(at, space)| {
        let escape: &[u8] = if at == 0 && is_escaped { b"" } else { b"\\" };
        [escape, std::slice::from_ref(space)].concat()
    });
    [escape, name].concat().into_iter().chain(escaped).collect()
}

fn refused(pattern: &[u8], why: String) -> Error {
    Error::invalid("use the pattern", shown(pattern), why)
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes[..bytes.len().min(200)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Rules {
        let mut builder = RulesBuilder::new();
        for pattern in patterns {
            builder.exclude(pattern.as_bytes()).expect("a good pattern");
        }
        builder.build().expect("good patterns")
    }

    #[test]
    fn patterns_match_absolute_paths() {
        #[rustfmt::skip]
        let table: &[(&[&str], &[u8], bool, bool)] = &[
            (&["*.o"], b"/a/b/x.o", false, true),
            (&["*.o"], b"/a/b/x.c", false, false),
            (&["/tmp"], b"/tmp", true, true),
            (&["/tmp"], b"/var/tmp", true, false),
            (&["cache/"], b"/home/a/cache", true, true),
            (&["cache/"], b"/home/a/cache", false, false),
            (&["a/b"], b"/x/a/b", false, true),
            (&["a/b/"], b"/x/a/b", false, false),
            (&["/a/b"], b"/x/a/b", false, false),
            (&["/home/*/.cache"], b"/home/u/.cache", true, true),
            (&["/home/*/.cache"], b"/home/u/v/.cache", true, false),
            (&["/home/**/x"], b"/home/u/v/x", true, true),
            (&["/home/u/**"], b"/home/u", true, false),
            (&["/home/u/**"], b"/home/u/x", false, true),
            (&["*.log", "!keep.log"], b"/a/keep.log", false, false),
            (&["*.log", "!keep.log"], b"/a/lose.log", false, true),
            (&["!keep.log", "*.log"], b"/a/keep.log", false, true),
            (&["logs/*", "!logs/keep"], b"/x/logs/keep", false, false),
            // Other files than those named were left out.
            (&["{p,q}"], b"/x/p", false, false),
            (&["{p,q}"], b"/x/{p,q}", false, true),
            (&["a}"], b"/x/a}", false, true),
            (&["\\{a"], b"/x/{a", false, true),
            (&["[{]a[!}]"], b"/x/{ab", false, true),
            (&["foo\u{a0}"], b"/x/foo", false, false),
            (&["foo\u{a0}"], "/x/foo\u{a0}".as_bytes(), false, true),
            (&["foo\t"], b"/x/foo\t", false, true),
            (&["foo\\\t"], b"/x/foo\t", false, true),
            (&["foo \t "], b"/x/foo \t ", false, true),
            (&["#x#"], b"/a/#x#", false, true),
            (&["\\#x#"], b"/a/#x#", false, true),
            (&["\\!x"], b"/a/!x", false, true),
            (&["\\!x/y"], b"/a/!x/y", false, true),
            (&["a?c"], b"/z/a\xffc", false, true),
            (&["*"], b"/z/\xff\n\xfe", false, true),
            (&["\u{e4}*"], b"/z/\xc3\xa4\xff", false, true),
            (&["*.O"], b"/a/b/x.o", false, false),
            // A space at the end was dropped, and another folder left out.
            (&["foo "], b"/a/foo", true, false),
            (&["foo "], b"/a/foo ", true, true),
            (&["foo  "], b"/a/foo  ", true, true),
            (&["foo\\ "], b"/a/foo ", true, true),
            (&["a/foo "], b"/x/a/foo ", true, true),
            // Two slashes matched nothing, in silence.
            (&["//tmp"], b"/tmp", true, true),
            (&["a//b"], b"/x/a/b", false, true),
        ];
        for (patterns, path, is_dir, expected) in table {
            assert_eq!(rules(patterns).leaves_out(path, *is_dir), *expected, "{patterns:?} {}", path.escape_ascii());
        }
    }

    /// `./cache` matched nothing, in silence.
    #[test]
    fn a_pattern_that_could_match_nothing_is_refused() {
        for pattern in [&b"./cache"[..], b"../x", b"a/./b", b"/a/../b", b"!./x", b"cache/.", b"/", b"//"] {
            let error = RulesBuilder::new().exclude(pattern).unwrap_err();
            assert!(error.is(Kind::Invalid), "{error}");
        }
    }

    #[test]
    fn case_is_ignored_only_where_asked() {
        let mut builder = RulesBuilder::new();
        builder.exclude_ignoring_case(b"*.ISO").unwrap().exclude(b"Thumbs.db").unwrap();
        let rules = builder.build().unwrap();
        assert!(rules.leaves_out(b"/a/x.iso", false) && rules.leaves_out(b"/a/Thumbs.db", false));
        assert!(!rules.leaves_out(b"/a/thumbs.db", false));
    }

    #[test]
    fn exclude_files_name_the_line_that_is_wrong() {
        let mut builder = RulesBuilder::new();
        builder.exclude_lines(&b"\xef\xbb\xbf# note\r\n\n*.o\r\n  \n/tmp/\n\\#b"[..], "list", false).unwrap();
        let rules = builder.build().unwrap();
        for (path, is_dir) in [(&b"/a/x.o"[..], false), (b"/tmp", true), (b"/#b", false)] {
            assert!(rules.leaves_out(path, is_dir), "{}", path.escape_ascii());
        }
        let long = [b"x".repeat(5000), b"\n".to_vec()].concat();
        for (text, line) in [(&b"a\n\n[z-a]\n"[..], 3), (b"ok\n\xff\n", 2), (b"/\n", 1), (&long, 1), (b"a\0b", 1)] {
            let error = RulesBuilder::new().exclude_lines(text, "list", false).unwrap_err();
            assert!(error.is(Kind::Invalid) && error.to_string().contains(&format!("list, line {line}")), "{error}");
        }
        let error = RulesBuilder::new().exclude_file(Path::new("/nowhere/list"), false).unwrap_err();
        assert!(error.is(Kind::NotFound));
    }

    #[test]
    fn markers_are_known_by_their_first_bytes() {
        let mut builder = RulesBuilder::new();
        builder.exclude_caches();
        builder.exclude_if_present(b".nobackup").unwrap().exclude_if_present(b"tag:yes").unwrap();
        let rules = builder.build().unwrap();
        assert!(!rules.is_empty() && !rules.has_patterns());
        let [cache, bare, headed] = rules.markers() else { panic!("three markers") };
        assert_eq!((cache.name(), cache.header_bytes(), cache.keeps_itself()), (&b"CACHEDIR.TAG"[..], 43, true));
        assert!(cache.matches(b"Signature: 8a477f597d28d172789f06886806bc55\n# x") && !cache.matches(b"Signature: 8a"));
        assert!(bare.matches(b"") && bare.header_bytes() == 0 && !bare.keeps_itself());
        assert!(headed.matches(b"yes!") && !headed.matches(b"no"));
        for bad in [&b""[..], b"a/b", b"..", b":x"] {
            assert!(Marker::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_and_devices_are_limits() {
        assert!(Rules::default().is_empty() && !Rules::default().leaves_out_file(u64::MAX));
        let mut builder = RulesBuilder::new();
        let rules = builder.exclude_larger_than(10).exclude_larger_than(20).one_file_system(true).build().unwrap();
        assert!(!rules.leaves_out_file(10) && rules.leaves_out_file(11));
        assert!(rules.leaves_out_device(1, 2) && !rules.leaves_out_device(1, 1));
        assert!(!Rules::default().leaves_out_device(1, 2));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let alphabet = b"/!#*?[]{},\\ab.^-\xff\xc3\n \0";
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut pattern = Vec::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                pattern.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let mut builder = RulesBuilder::new();
            if builder.exclude(&pattern).is_ok()
                && let Ok(rules) = builder.build()
            {
                let _ = rules.leaves_out(&[b"/", &pattern[..]].concat(), true);
                let _ = rules.leaves_out(&pattern, false);
            }
        }
    }
}
