//! Classes in brackets as gitignore has them, in the words of the library that matches: there a class matches slashes and
//! knows neither `[:alpha:]` nor backslashes.

use std::iter::Peekable;
use std::str::Chars;

/// The classes of POSIX by name, of ASCII alone.
const NAMED: [(&str, &[(char, char)]); 12] = [
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\x01', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", &[('0', '9')]),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];
/// What means something at some place of a class of the library.
const MARKS: [char; 4] = [']', '-', '!', '^'];

/// Characters that a class names, from the first to the last.
#[derive(Clone, Copy)]
struct ClassRange {
    first: char,
    last: char,
}

impl ClassRange {
    fn of(character: char) -> ClassRange {
        ClassRange { first: character, last: character }
    }

    fn has(self, character: char) -> bool {
        (self.first..=self.last).contains(&character)
    }

    /// What remains of it without this character, which is of ASCII.
    fn without(self, character: char) -> impl Iterator<Item = ClassRange> {
        let is_in = self.has(character);
        let next_to = |step: i32| char::from_u32((character as u32).wrapping_add_signed(step)).filter(|_| is_in);
        let before = next_to(-1).map(|last| ClassRange { last, ..self });
        let after = next_to(1).map(|first| ClassRange { first, ..self });
        let parts = [(!is_in).then_some(self), before, after];
        parts.into_iter().flatten().filter(|part| part.first <= part.last)
    }
}

/// The same pattern with classes and braces as the library reads them; the reason as text if a class can match nothing.
/// Braces stand for themselves in gitignore syntax, and the library takes them for alternatives. A bracket that is not
/// closed stands for itself.
pub(super) fn for_library(text: &str) -> Result<String, String> {
    let mut translated = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                translated.push('\\');
                translated.extend(rest.next());
            }
            '{' | '}' => translated.extend(['\\', character]),
            '[' => {
                let mut class = rest.clone();
                match parse(&mut class)? {
                    Some((is_negated, ranges)) => {
                        rest = class;
                        translated.push_str(&written(is_negated, &ranges)?);
                    }
                    None => translated.push_str("\\["),
                }
            }
            other => translated.push(other),
        }
    }
    Ok(translated)
}

/// Parses a class from the character after its bracket on: whether it is negated, and what it names. None if it does not end.
fn parse(rest: &mut Peekable<Chars<'_>>) -> Result<Option<(bool, Vec<ClassRange>)>, String> {
    let is_negated = rest.next_if(|next| matches!(next, '!' | '^')).is_some();
    let mut ranges = Vec::new();
    // What a range can begin with: a character that stands for itself and ended no range.
    let mut before: Option<char> = None;
    let mut is_first = true;
    loop {
        let Some(character) = rest.next() else { return Ok(None) };
        let ends_range = character == '-' && rest.peek().is_some_and(|next| *next != ']');
        match (character, before) {
            (']', _) if !is_first => return Ok(Some((is_negated, ranges))),
            ('-', Some(first)) if ends_range => {
                let Some(last) = unescaped(rest) else { return Ok(None) };
                if last < first {
                    return Err(format!("its range {first}-{last} is backwards"));
                }
                ranges.push(ClassRange { first, last });
                before = None;
            }
            ('[', _) if let Some(name) = class_name(rest) => {
                let Some((_, named)) = NAMED.iter().find(|(known, _)| *known == name) else {
                    let names = NAMED.map(|(known, _)| known).join(", ");
                    return Err(format!("there is no class [:{name}:], only {names}"));
                };
                ranges.extend(named.iter().map(|(first, last)| ClassRange { first: *first, last: *last }));
                before = None;
            }
            _ => {
                let Some(character) = (if character == '\\' { rest.next() } else { Some(character) }) else {
                    return Ok(None);
                };
                ranges.push(ClassRange::of(character));
                before = Some(character);
            }
        }
        is_first = false;
    }
}

/// The next character of a class, or the one after a backslash.
fn unescaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next() {
        Some('\\') => rest.next(),
        other => other,
    }
}

/// The name in `[:name:]`, if that is what follows the bracket; nothing is taken otherwise.
fn class_name(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut ahead = rest.clone();
    ahead.next_if_eq(&':')?;
    let text: String = ahead.by_ref().take_while(|next| *next != ']').collect();
    let name = text.strip_suffix(':').map(str::to_owned)?;
    *rest = ahead;
    Some(name)
}

/// A class in the words of the library: no slash is in it, and what means something there has a place where it stands for
/// itself.
fn written(is_negated: bool, ranges: &[ClassRange]) -> Result<String, String> {
    let has = |character| ranges.iter().any(|range| range.has(character));
    let marks = MARKS.map(has);
    let slash_free = ranges.iter().flat_map(|range| range.without('/'));
    let plain: Vec<ClassRange> = MARKS.into_iter().fold(slash_free.collect(), |ranges: Vec<ClassRange>, mark| {
        ranges.into_iter().flat_map(|range| range.without(mark)).collect()
    });
    let [closes, ranges_on, ..] = marks;
    let mut class = String::from(if is_negated { "[!" } else { "[" });
    class.extend(closes.then_some(']'));
    for range in &plain {
        class.extend([range.first, '-', range.last]);
    }
    class.extend(is_negated.then_some('/'));
    let negates = MARKS.into_iter().zip(marks).filter(|(mark, is_in)| *is_in && matches!(mark, '!' | '^'));
    let negates: String = negates.map(|(mark, _)| mark).collect();
    if class == "[" && !negates.is_empty() {
        // Nothing else can come first, where these would negate.
        let alternatives: Vec<String> = negates.chars().map(|mark| format!("\\{mark}")).collect();
        let more = if ranges_on { ",-" } else { "" };
        return Ok(format!("{{{}{more}}}", alternatives.join(",")));
    }
    class.push_str(&negates);
    class.extend(ranges_on.then_some('-'));
    if class == "[" {
        return Err("it matches nothing: a class in brackets never matches a slash".to_owned());
    }
    class.push(']');
    Ok(class)
}

#[cfg(test)]
mod tests {
    use crate::source::RulesBuilder;

    fn matches(pattern: &str, path: &[u8]) -> bool {
        let mut builder = RulesBuilder::new();
        builder.exclude(pattern.as_bytes()).expect("a good pattern");
        builder.build().expect("good patterns").leaves_out(path, false)
    }

    /// `data[!0-9]*` left out all that is in the directory `data`, without a word.
    #[test]
    fn a_class_matches_no_slash() {
        for pattern in ["data[!0-9]*", "data[^x]ledger", "data[--9]ledger", "data[+-9]*", "data[./]ledger"] {
            assert!(!matches(pattern, b"/s/data/ledger"), "{pattern}");
        }
        assert!(matches("data[!0-9]*", b"/s/data.old") && !matches("data[!0-9]*", b"/s/data1"));
        assert!(matches("a/[!b]/c", b"/s/a/x/c") && !matches("a/[!b]c", b"/s/a//c"));
        for bad in ["[/]", "a[/]b", "[[:alphabet:]]", "[[::]]", "[z-a]"] {
            assert!(RulesBuilder::new().exclude(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// `[[:alpha:]]*` matched nothing that begins with a letter.
    #[test]
    fn classes_have_the_names_and_backslashes_of_gitignore() {
        for (pattern, name, expected) in [
            ("[[:alpha:]]*", "old", true),
            ("[[:alpha:]]*", "1", false),
            ("[![:alpha:]_]*", "1", true),
            ("[![:alpha:]_]*", "_", false),
            ("x[[:digit:]a-c]", "xb", true),
            ("[[:punct:]]", "]", true),
            ("[[:punct:]]", "a", false),
            ("[\\]]", "]", true),
            ("[\\]]", "\\]", false),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "b", false),
            ("[a-c-e]", "d", false),
            ("[a-c-e]", "-", true),
            ("[\\!]", "!", true),
            ("[\\^!-]x", "-x", true),
            ("![!a]", "b", false),
            ("[]-a]", "^", true),
            ("[[=]", "[", true),
            ("[ab", "[ab", true),
            ("[{a", "[{a", true),
        ] {
            assert_eq!(matches(pattern, format!("/s/{name}").as_bytes()), expected, "{pattern} {name}");
        }
        let mut builder = RulesBuilder::new();
        builder.exclude_ignoring_case(b"[[:upper:]]1").expect("a good pattern");
        assert!(builder.build().expect("good patterns").leaves_out(b"/s/a1", false));
    }

    /// Whether a class matches a byte as git decides it (`wildmatch.c`), and where it ends. None if it does not end or has a
    /// range that is backwards.
    fn git_matches(class: &[u8], byte: u8) -> Option<(bool, usize)> {
        let mut at = 1;
        let is_negated = matches!(class.get(at)?, b'!' | b'^');
        at += usize::from(is_negated);
        let (mut before, mut is_in, mut is_first) = (0, false, true);
        while is_first || *class.get(at)? != b']' {
            is_first = false;
            let mut now = *class.get(at)?;
            if now == b'-' && before != 0 && *class.get(at + 1)? != b']' {
                at += 1;
                if class[at] == b'\\' {
                    at += 1;
                }
                let last = *class.get(at)?;
                if last < before {
                    return None;
                }
                is_in |= (before..=last).contains(&byte);
                now = 0;
            } else {
                if now == b'\\' {
                    at += 1;
                    now = *class.get(at)?;
                }
                is_in |= now == byte;
            }
            before = now;
            at += 1;
        }
        Some((is_in != is_negated && byte != b'/', at + 1))
    }

    #[test]
    fn any_class_matches_what_git_matches() {
        let alphabet = b"]-!^\\/[ab.0{},*?";
        let mut state = 7_u64;
        let mut tried = 0;
        for _ in 0..3_000 {
            let mut class = vec![b'['];
            while class.len() < 7 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                class.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            class.push(b']');
            let is_whole = git_matches(&class, b'a').is_some_and(|(_, end)| end == class.len());
            let mut builder = RulesBuilder::new();
            // Two slashes would be made one.
            if !is_whole || class.windows(2).any(|two| two == b"//") || builder.exclude(&class).is_err() {
                continue;
            }
            let rules = builder.build().expect("a good pattern");
            tried += 1;
            for byte in 1..=255 {
                if byte != b'/' {
                    let expected = git_matches(&class, byte).expect("it ends").0;
                    assert_eq!(rules.leaves_out(&[b'/', byte], false), expected, "{} {byte}", class.escape_ascii());
                }
            }
        }
        assert!(tried > 500, "{tried}");
    }
}
