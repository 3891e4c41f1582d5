//! Sources of the snapshot that are in the way of a deletion: data may have been moved, linked or mounted into another source since
//! they were saved. Whatever a restore deletes, it never deletes what another source is now.

use crate::disk::stat::stat_path;
use crate::disk::{Identity, Stat};
use crate::error::Kind;
use crate::restore::plan::shown;
use crate::restore::run::Run;
use crate::restore::scope::Scope;
use std::collections::HashSet;

pub(super) struct OtherSources {
    /// Their inodes on this machine: those of their names and, where these are links, those that they lead to.
    known: HashSet<Identity>,
    /// Why some may be missing here. Then nothing is deleted.
    pub unknown: Option<String>,
}

impl OtherSources {
    /// Looks at all sources on this machine but those that the restored path is in.
    pub fn look(scope: &Scope, base: &[u8]) -> Self {
        let mut others = OtherSources { known: HashSet::new(), unknown: None };
        if scope.sources_cut && !base.is_empty() {
            others.unknown = Some("the snapshot has too many sources to name them all".to_owned());
        }
        for source in scope.sources_besides(base) {
            let path: &[u8] = if source.is_empty() { b"/" } else { source };
            for follows in [false, true] {
                match stat_path(path, follows) {
                    Ok(stat) => drop(others.known.insert(stat.identity())),
                    // Nothing is there; a loop of links leads nowhere.
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {}
                    Err(error) => {
                        let why = || format!("it cannot be seen where the source {} is: {error}", shown(source));
                        others.unknown.get_or_insert_with(why);
                    }
                }
            }
        }
        others
    }
}

impl Run<'_> {
    /// Whether this is another source than the one that has this path in the snapshot.
    pub fn is_other_source(&self, path: &[u8], stat: &Stat) -> bool {
        let is_known = self.other_sources.get().is_some_and(|others| others.known.contains(&stat.identity()));
        is_known && !self.scope.is_named(path)
    }

    /// Says that another source was kept, where it would have been deleted.
    pub fn keeps_other_source(&self, path: &[u8], stat: &Stat) -> bool {
        let keeps = self.is_other_source(path, stat);
        if keeps && self.compares() {
            self.watch.notice(format!("{} is another source of the snapshot now, and was kept", shown(path)));
        }
        keeps
    }
}
