//! Where the sources of a snapshot are in the target. Two that were apart when they were saved can be one directory now, or
//! one can be inside another: a link above a source leads there, or it is mounted there. No deletion in one source removes
//! another one, and nothing is restored into a directory that is two of the snapshot.

use crate::disk::follow::{open_followed, open_within};
use crate::disk::stat::fstat;
use crate::disk::{Directory, Identity, Stat};
use crate::entry::EntryKind;
use crate::error::Result;
use crate::restore::run::Run;
use std::collections::{HashMap, HashSet};

/// Places of several sources. Of a single one, none is needed.
#[derive(Default)]
pub(super) struct Places {
    /// What is at the places of the sources now, and the paths of the sources that are there.
    sources: HashMap<Identity, Vec<Vec<u8>>>,
    /// The directories on the ways to them.
    ways: HashSet<Identity>,
}

impl Places {
    /// A source that has this directory, other than the one at this path of the snapshot.
    pub fn other_source(&self, stat: &Stat, path: &[u8]) -> Option<&[u8]> {
        self.sources.get(&stat.identity())?.iter().map(Vec::as_slice).find(|source| *source != path)
    }

    /// Whether this is at the place of a source: then nothing else deletes it or anything in it.
    pub fn is_source(&self, stat: &Stat) -> bool {
        self.sources.contains_key(&stat.identity())
    }

    /// Whether the way to a source leads through this directory, which therefore stays.
    pub fn is_on_a_way(&self, stat: &Stat) -> bool {
        self.ways.contains(&stat.identity())
    }
}

/// An open directory on the way to a source, and where its path ends.
struct Step {
    directory: Directory,
    end: usize,
}

impl Run<'_> {
    /// Finds the places of the sources below `base`, the path that the target stands for.
    pub fn find_places(&self, root: &Directory, base: &[u8]) -> Result<Places> {
        let mut places = Places::default();
        let sources = self.scope.sources_below(base);
        if sources.len() < 2 {
            return Ok(places);
        }
        // In order: neighbours share most of their ways.
        let mut steps = vec![Step { directory: root.open_child(c".")?, end: base.len() }];
        let mut last: &[u8] = base;
        for source in sources {
            let shared = last.iter().zip(source).take_while(|(one, other)| one == other).count();
            steps.retain(|step| step.end == base.len() || (step.end <= shared && source.get(step.end) == Some(&b'/')));
            last = source;
            self.go_to(source, base, &mut steps, &mut places)?;
        }
        Ok(places)
    }

    /// Opens what is missing of the way to a source, as far as it is there, and notes what it leads to.
    fn go_to(&self, source: &[u8], base: &[u8], steps: &mut Vec<Step>, places: &mut Places) -> Result<()> {
        loop {
            let step = steps.last().expect("the first one stays");
            let rest = &source[step.end + 1..];
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
            let end = step.end + 1 + name.len();
            let Ok(stat) = step.directory.stat(name) else { return Ok(()) };
            if end == source.len() {
                if stat.is(EntryKind::Directory) || stat.is(EntryKind::File) {
                    places.sources.entry(stat.identity()).or_default().push(source.to_vec());
                }
                return Ok(());
            }
            let opened = match stat.kind {
                Some(EntryKind::Symlink) if self.follows_links_of(&stat) => {
                    self.open_link(root_of(steps), &step.directory, name, &source[base.len() + 1..end])
                }
                _ => step.directory.open_child(name),
            };
            let Ok(directory) = opened else { return Ok(()) };
            places.ways.insert(fstat(&directory)?.identity());
            steps.push(Step { directory, end });
        }
    }

    /// Whether a symbolic link above a source is followed.
    pub fn follows_links_of(&self, link: &Stat) -> bool {
        !self.scope.sources_cut && (link.uid == 0 || link.is_own())
    }

    /// Opens what a link above a source leads to: where it was saved, what every program finds there; in another target, what
    /// it would mean if that were `/`. `path` is below the target.
    pub fn open_link(&self, root: &Directory, directory: &Directory, name: &[u8], path: &[u8]) -> Result<Directory> {
        match self.in_place.get() {
            Some(true) => open_followed(directory, name),
            _ => open_within(root, path),
        }
    }
}

fn root_of(steps: &[Step]) -> &Directory {
    &steps.first().expect("the first one stays").directory
}
