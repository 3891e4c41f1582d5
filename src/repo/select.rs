//! Find the snapshot that is meant among those that there are.

use crate::entry::Time;
use crate::error::{Error, Kind, Result};
use crate::repo::{Repository, Snapshot, SnapshotSource};
use crate::watch::Watch;
use crate::when::{Selector, format_time};

/// Which snapshots count; the empty filter lets all pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub host: Option<String>,
    pub job: Option<String>,
    /// All of these.
    pub tags: Vec<String>,
    /// Absolute and clean: a source is this path, or is above it or below it.
    pub path: Option<Vec<u8>>,
    /// Begun at this time or after.
    pub after: Option<Time>,
    /// Begun at this time or before.
    pub before: Option<Time>,
}

impl Filter {
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let started = snapshot.started.time();
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.job.as_ref().is_none_or(|job| *job == snapshot.job)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.path.as_ref().is_none_or(|path| covers(snapshot, path))
            && self.after.is_none_or(|after| started >= after)
            && self.before.is_none_or(|before| started <= before)
    }

    /// The snapshot that is meant, out of all of them from oldest to newest. An id means its snapshot whatever the
    /// filter says.
    pub fn pick<'a>(&self, snapshots: &'a [Snapshot], selector: &Selector) -> Result<&'a Snapshot> {
        let doing = "find the snapshot";
        let none = |thing: String, why: &str| {
            Err(Error::new(Kind::NotFound, doing, thing)
                .because(why.to_owned())
                .hint("silt snapshots lists those that there are"))
        };
        let mut newest_first = snapshots.iter().rev().filter(|snapshot| self.matches(snapshot));
        match selector {
            Selector::Latest { back } => match newest_first.nth(*back as usize) {
                Some(found) => Ok(found),
                None if *back == 0 => none("latest".to_owned(), "there is none that matches"),
                None => none(format!("latest~{back}"), "there are not that many that match"),
            },
            Selector::At(time) => match newest_first.find(|snapshot| snapshot.started.time() <= *time) {
                Some(found) => Ok(found),
                None => none(format!("of {}", format_time(*time, &jiff::tz::TimeZone::system())), "all are newer"),
            },
            Selector::Prefix(prefix) => {
                let mut found = snapshots.iter().filter(|snapshot| snapshot.id.to_hex().starts_with(prefix));
                match (found.next(), found.next()) {
                    (Some(found), None) => Ok(found),
                    (None, _) => none(prefix.clone(), "no id begins so"),
                    (Some(_), Some(_)) => Err(Error::invalid(doing, prefix, "the ids of several snapshots begin so")
                        .hint("give more digits of the id")),
                }
            }
        }
    }
}

fn covers(snapshot: &Snapshot, path: &[u8]) -> bool {
    fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }
    snapshot.sources.iter().any(|source| {
        let (SnapshotSource::Tree { path: at } | SnapshotSource::Stream { name: at, .. }) = source;
        // One is above the other when they agree as far as the shorter one goes.
        parts(&at.0).zip(parts(path)).all(|(a, b)| a == b)
    })
}

impl Repository {
    /// The snapshot that is meant.
    pub fn select(&self, selector: &Selector, filter: &Filter, watch: &Watch) -> Result<Snapshot> {
        filter.pick(&self.snapshots(watch)?, selector).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, SnapshotId};
    use crate::repo::{PathText, Stamp, Totals};

    fn snapshot(number: u8, host: &str, path: &str) -> Snapshot {
        let stamp = Stamp { seconds: i64::from(number) * 100, nanoseconds: 0, offset: 0 };
        Snapshot {
            version: 1,
            id: SnapshotId([number; 16]),
            started: stamp,
            ended: stamp,
            host: host.to_owned(),
            user: String::new(),
            job: String::new(),
            tags: vec![format!("tag{number}")],
            program: String::new(),
            sources: vec![SnapshotSource::Tree { path: PathText(path.into()) }],
            root: ChunkId::from_slice(&[0; ChunkId::BYTES]).unwrap(),
            totals: Totals::default(),
            troubles: Vec::new(),
            troubles_count: 0,
        }
    }

    #[test]
    fn the_one_that_is_meant_is_found() {
        let all = [snapshot(1, "a", "/home"), snapshot(2, "b", "/"), snapshot(0x12, "a", "/etc")];
        let any = Filter::default();
        let on_a = Filter { host: Some("a".to_owned()), ..Default::default() };
        let of_path = Filter { path: Some(b"/home/x".to_vec()), ..Default::default() };
        let pick = |filter: &Filter, selector| filter.pick(&all, &selector).ok().map(|found| found.id.0[0]);
        assert_eq!(pick(&any, Selector::Latest { back: 0 }), Some(0x12));
        assert_eq!(pick(&on_a, Selector::Latest { back: 1 }), Some(1));
        assert_eq!(pick(&on_a, Selector::Latest { back: 2 }), None);
        assert_eq!(pick(&of_path, Selector::Latest { back: 0 }), Some(2));
        assert_eq!(pick(&of_path, Selector::Latest { back: 1 }), Some(1));
        assert_eq!(pick(&any, Selector::At(Time { seconds: 250, nanoseconds: 0 })), Some(2));
        assert_eq!(pick(&any, Selector::At(Time { seconds: 99, nanoseconds: 0 })), None);
        assert_eq!(pick(&any, Selector::Prefix("0202".to_owned())), Some(2));
        assert_eq!(pick(&any, Selector::Prefix("0303".to_owned())), None);
        assert!(any.pick(&[all[0].clone(), all[0].clone()], &Selector::Prefix("0101".to_owned())).is_err());
    }

    #[test]
    fn a_path_is_covered_by_itself_and_by_what_is_above_or_below() {
        let of = |path: &str| snapshot(1, "", path);
        assert!(covers(&of("/home"), b"/home") && covers(&of("/home"), b"/home/x") && covers(&of("/"), b"/x"));
        assert!(covers(&of("/home/x"), b"/home") && !covers(&of("/home"), b"/homes"));
        assert!(covers(&of("dump.sql"), b"/dump.sql"));
    }
}
