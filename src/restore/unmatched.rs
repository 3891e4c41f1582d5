//! Patterns of `--include` that have matched nothing so far. Each must match something, as a typo must not pass for a restore of nothing.

use crate::error::Result;
use crate::source::Rules;

/// Patterns that were given together; asked first, so that a long list costs each entry about twice the square root of its length.
struct PatternGroup {
    all: Rules,
    /// Each with one pattern.
    unmatched: Vec<Rules>,
}

#[derive(Default)]
pub(super) struct UnmatchedPatterns(Vec<PatternGroup>);

impl UnmatchedPatterns {
    pub(crate) fn of(include: &Rules) -> Result<UnmatchedPatterns> {
        let group = |all: Rules| Ok(PatternGroup { unmatched: all.split(1)?, all });
        let groups = include.split(include.patterns().len().isqrt())?;
        groups.into_iter().map(group).collect::<Result<_>>().map(UnmatchedPatterns)
    }

    /// Drops the patterns that match the entry at this absolute path.
    pub(crate) fn note(&mut self, path: &[u8], is_directory: bool) {
        self.0.retain_mut(|group| {
            if group.all.leaves_out(path, is_directory) {
                group.unmatched.retain(|pattern| !pattern.leaves_out(path, is_directory));
            }
            !group.unmatched.is_empty()
        });
    }

    /// In the order in which they were given.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|group| &group.unmatched).flat_map(Rules::patterns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RulesBuilder;

    #[test]
    fn what_matched_is_dropped_and_the_rest_stays_in_order() {
        let mut rules = RulesBuilder::new();
        for pattern in ["/a/*.txt", "x*", "!xy", "/b/", "*.TXT", "/c", "/d"] {
            rules.exclude(pattern.as_bytes()).unwrap();
        }
        let mut unmatched = UnmatchedPatterns::of(&rules.build().unwrap()).unwrap();
        unmatched.note(b"/a/x.txt", false);
        // A pattern with a slash at its end names a directory.
        unmatched.note(b"/b", false);
        unmatched.note(b"/c", true);
        assert_eq!(unmatched.patterns().collect::<Vec<_>>(), ["/b/", "*.TXT", "/d"]);
        unmatched.note(b"/b", true);
        unmatched.note(b"/z/y.TXT", false);
        unmatched.note(b"/d", false);
        assert_eq!(unmatched.patterns().count(), 0);
    }
}
