//! Choose snapshots: by host, job, tags, path and time, and one of them by the words of a person.

use crate::entry::Time;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::CLOCKS_DIFFER_SECONDS;
use crate::format::{snapshot_id, snapshot_name};
use crate::repo::{Repository, Snapshot, SnapshotSource, Stamp, UnreadableSnapshot, parts_of};
use crate::watch::{NoticeKind, Watch, now};
use crate::when::{Selector, format_time};

/// How many candidates an error names.
const CANDIDATES_MAX: usize = 8;

/// Which snapshots are of interest; the empty filter lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this host.
    pub host: Option<String>,
    /// Of this job.
    pub job: Option<String>,
    /// All of these.
    pub tags: Vec<String>,
    /// A source is this path, is above it or below it; a stream has this name.
    pub path: Option<Vec<u8>>,
    /// Began at this time or later.
    pub after: Option<Time>,
    /// Began at this time or earlier.
    pub before: Option<Time>,
}

impl Filter {
    /// Whether it lets all snapshots pass.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether it lets this snapshot pass.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let started = snapshot.started.time();
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.job.as_ref().is_none_or(|job| *job == snapshot.job)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.path.as_ref().is_none_or(|path| is_covered(snapshot, path))
            && self.after.is_none_or(|after| started >= after)
            && self.before.is_none_or(|before| started <= before)
    }
}

/// Of a snapshot that names only some of its sources it is not known: it passes.
fn is_covered(snapshot: &Snapshot, path: &[u8]) -> bool {
    snapshot.all_sources.is_some() || snapshot.sources.iter().any(|source| covers(source, path))
}

fn covers(source: &SnapshotSource, path: &[u8]) -> bool {
    let wanted = || path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let saved = match source {
        SnapshotSource::Tree { path } => path,
        SnapshotSource::Stream { name, .. } => name,
        // It may hold anything.
        SnapshotSource::Unknown(_) => return true,
    };
    // One is above the other when they agree as far as the shorter one goes.
    saved.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).zip(wanted()).all(|(a, b)| a == b)
}

impl Repository {
    /// The snapshots that the filter lets pass, oldest first.
    pub fn snapshots_matching(&self, filter: &Filter, watch: &Watch) -> Result<Vec<Snapshot>> {
        let mut snapshots = self.snapshots(watch)?;
        snapshots.retain(|snapshot| filter.matches(snapshot));
        Ok(snapshots)
    }

    /// The one snapshot that is meant, among those that the filter lets pass. If another one that cannot be read may be
    /// the one that is meant, this is a warning.
    pub fn select(&self, selector: &Selector, filter: &Filter, watch: &Watch) -> Result<Snapshot> {
        // A damaged snapshot is not worth a warning when another one was selected by its id.
        let looking = match selector {
            Selector::Prefix(_) => &watch.aside(),
            Selector::Latest { .. } | Selector::At(_) => watch,
        };
        let (chosen, unreadable) = self.select_among(selector, filter, looking, watch)?;
        if matches!(selector, Selector::Prefix(_)) {
            self.doubt_about(&chosen, &unreadable).into_iter().for_each(|doubt| doubt.report(watch));
        }
        Ok(chosen)
    }

    /// The same for callers that would destroy something with the wrong one: then it is an error.
    pub fn select_certain(&self, selector: &Selector, filter: &Filter, watch: &Watch) -> Result<Snapshot> {
        let (chosen, mut unreadable) = self.select_among(selector, filter, &watch.aside(), watch)?;
        // They change nothing, as the object in their place opens.
        unreadable.retain(|other| !other.is_passed_over);
        if let Some(doubt) = self.doubt_about(&chosen, &unreadable) {
            let instead =
                "compare it with what the host of the snapshot reported, and remove the wrong object from the storage";
            return Err(may_be_unreadable(doubt, selector, instead));
        }
        let until = match selector {
            Selector::Latest { .. } => Time { seconds: now().seconds.saturating_add(CLOCKS_DIFFER_SECONDS), ..now() },
            Selector::At(time) => *time,
            Selector::Prefix(_) => return Ok(chosen),
        };
        let from = chosen.started.compact()?;
        // Beyond the years that names can have, all are before it.
        let until = Stamp::new(until.max(chosen.started.time()), 0).compact().ok();
        let may_be_meant = |other: &&UnreadableSnapshot| {
            other.may_be_since(&from) && until.as_ref().is_none_or(|until| other.may_be_until(until))
        };
        match unreadable.iter().find(may_be_meant) {
            None => Ok(chosen),
            Some(other) => {
                let before = format!("to use the snapshot before it, name its id: {}", described(&chosen));
                Err(may_be_unreadable(other, selector, &before))
            }
        }
    }

    /// Why it is not certain that the chosen snapshot is the one of its name. A pending object that cannot be read may be a commit of any
    /// snapshot that is not in its place.
    fn doubt_about<'u>(
        &self,
        chosen: &Snapshot,
        unreadable: &'u [UnreadableSnapshot],
    ) -> Option<&'u UnreadableSnapshot> {
        let mut doubts = unreadable.iter().filter(|other| !other.is_passed_over);
        let of_its_name = doubts.clone().find(|other| other.is_unread || snapshot_id(&other.name) == Some(chosen.id));
        of_its_name.or_else(|| {
            let pending = doubts.find(|other| snapshot_id(&other.name).is_none())?;
            (!self.is_in_place(chosen)).then_some(pending)
        })
    }

    fn is_in_place(&self, chosen: &Snapshot) -> bool {
        let name = chosen.started.compact().map(|stamp| snapshot_name(&stamp, &chosen.id));
        name.and_then(|name| self.snapshot_named(&name)).is_ok_and(|found| found == *chosen)
    }

    /// The snapshot, and those that were met and cannot be read, which are reported to `looking`.
    fn select_among(
        &self,
        selector: &Selector,
        filter: &Filter,
        looking: &Watch,
        watch: &Watch,
    ) -> Result<(Snapshot, Vec<UnreadableSnapshot>)> {
        let (chosen, unreadable) = match self.search(selector, filter, looking)? {
            (Some(chosen), unreadable) => (chosen, unreadable),
            // What the error says depends on all of them.
            (None, _) => self.select_among_all(selector, filter, looking)?,
        };
        let chosen = self.whole(chosen);
        if matches!(selector, Selector::Latest { .. }) && chosen.is_from_the_future(now()) {
            watch.notice(NoticeKind::Clock, format!(
                "the latest snapshot, {}, is dated in the future, as the clock of its host was wrong: to use another one, \
                 name its id or use --at",
                described(&chosen)
            ));
        }
        Ok((chosen, unreadable))
    }

    /// Looks for the snapshot from the newest to the oldest, and reads no more than it takes. None if there is none, or several are meant.
    fn search(
        &self,
        selector: &Selector,
        filter: &Filter,
        looking: &Watch,
    ) -> Result<(Option<Snapshot>, Vec<UnreadableSnapshot>)> {
        let mut search = self.search_snapshots(looking)?;
        let mut wanted = 0;
        match selector {
            Selector::Latest { back } => wanted = *back,
            Selector::At(time) => {
                let until = Stamp::new(*time, 0).compact().ok();
                search.retain(|name| until.as_ref().is_none_or(|until| parts_of(name).0 <= until.as_str()));
            }
            Selector::Prefix(prefix) => search.retain(|name| parts_of(name).1.starts_with(prefix.as_str())),
        }
        let mut found = None;
        while let Some(snapshot) = search.pop_newest()? {
            let is_meant = match selector {
                Selector::At(time) => snapshot.started.time() <= *time,
                Selector::Latest { .. } | Selector::Prefix(_) => true,
            };
            if !is_meant || !filter.matches(&snapshot) {
                continue;
            }
            match selector {
                _ if wanted > 0 => wanted -= 1,
                // All that begin with these digits are read, to know that it is the only one.
                Selector::Prefix(_) if found.is_some() => return Ok((None, Vec::new())),
                Selector::Prefix(_) => found = Some(snapshot),
                Selector::Latest { .. } | Selector::At(_) => return Ok((Some(snapshot), search.finish())),
            }
        }
        // If none was found, all are read again, and what cannot be read is reported then.
        Ok(if found.is_some() { (found, search.finish()) } else { (None, Vec::new()) })
    }

    fn select_among_all(
        &self,
        selector: &Selector,
        filter: &Filter,
        looking: &Watch,
    ) -> Result<(Snapshot, Vec<UnreadableSnapshot>)> {
        let (all, unreadable) = self.snapshots_and_unreadable(looking)?;
        if all.is_empty()
            && let Some(last) = unreadable.iter().rfind(|other| other.is_newer()).or(unreadable.last())
        {
            return Err(may_be_unreadable(last, selector, "no other snapshot in the repository can be read"));
        }
        let matching = all.into_iter().filter(|snapshot| filter.matches(snapshot)).collect();
        let chosen = choose(matching, selector, !filter.is_empty())
            .map_err(|error| because_of_unreadable(error, selector, &unreadable))?;
        Ok((chosen, unreadable))
    }
}

/// The error where the snapshot that is meant may be one that cannot be read; `instead` is what to do without it.
fn may_be_unreadable(other: &UnreadableSnapshot, selector: &Selector, instead: &str) -> Error {
    let (doing, thing, name) = ("find the snapshot", named(selector), &other.name);
    if other.is_newer() {
        let why =
            format!("{name} may be the one that is meant, and was made by a newer version: {}", other.error.why());
        let hint = format!("use a newer version of silt; {instead}");
        Error::new(Kind::Unsupported, doing, thing).because(why).hint(hint)
    } else if other.is_contradicted {
        Error::corrupt(doing, thing, format!("it is not clear which one is meant by {name}: {}", other.error.why()))
            .hint(instead)
    } else {
        let why = other.error.why();
        Error::corrupt(doing, thing, format!("{name} is damaged, and may be the snapshot that is meant: {why}"))
            .hint(instead)
    }
}

/// The error if no readable snapshot is the one that is meant: one that cannot be read may be it, and filters cannot be applied to that.
fn because_of_unreadable(error: Error, selector: &Selector, unreadable: &[UnreadableSnapshot]) -> Error {
    if !error.is(Kind::NotFound) {
        return error;
    }
    let may_be_meant = |other: &&UnreadableSnapshot| match selector {
        Selector::Latest { .. } => true,
        Selector::At(time) => Stamp::new(*time, 0).compact().map_or(true, |until| other.may_be_until(&until)),
        Selector::Prefix(prefix) => parts_of(&other.name).1.starts_with(prefix.as_str()),
    };
    match unreadable.iter().find(may_be_meant) {
        None => error,
        Some(other) => may_be_unreadable(
            other,
            selector,
            "list those that can be read with `silt snapshots`, and name one by its id",
        ),
    }
}

/// The one that is meant among these, which are sorted by time.
fn choose(mut snapshots: Vec<Snapshot>, selector: &Selector, filtered: bool) -> Result<Snapshot> {
    let doing = "find the snapshot";
    let count = snapshots.len();
    let none = |thing: String, why: String| Error::new(Kind::NotFound, doing, thing).because(why);
    if count == 0 {
        let (why, hint) = if filtered {
            ("no snapshot matches the filters", "list the snapshots with `silt snapshots`")
        } else {
            ("there are no snapshots yet", "create one with `silt backup`")
        };
        return Err(none(named(selector), why.to_owned()).hint(hint));
    }
    match selector {
        Selector::Latest { back } => match count.checked_sub(1 + *back as usize) {
            Some(at) => Ok(snapshots.swap_remove(at)),
            None => {
                let why = match count {
                    1 => "there is only one".to_owned(),
                    _ => format!("there are only {count}"),
                };
                let oldest = Selector::Latest { back: count as u32 - 1 };
                Err(none(named(selector), why).hint(format!("the oldest one is {}", named(&oldest))))
            }
        },
        Selector::At(time) => match snapshots.partition_point(|snapshot| snapshot.started.time() <= *time) {
            0 => {
                let oldest = &snapshots[0];
                Err(none(named(selector), format!("the oldest one is {}", described(oldest)))
                    .hint(format!("to use it, name it: {}", oldest.id.short())))
            }
            after => Ok(snapshots.swap_remove(after - 1)),
        },
        Selector::Prefix(prefix) => {
            snapshots.retain(|snapshot| snapshot.id.to_hex().starts_with(prefix.as_str()));
            match snapshots.len() {
                0 => Err(none(named(selector), "no snapshot has an id that begins with this".to_owned())
                    .hint("list the snapshots with `silt snapshots`")),
                1 => Ok(snapshots.swap_remove(0)),
                several => {
                    let mut names: Vec<String> = snapshots.iter().take(CANDIDATES_MAX).map(described).collect();
                    let is_one_id = snapshots.iter().all(|snapshot| snapshot.id == snapshots[0].id);
                    if several > CANDIDATES_MAX {
                        names.push(format!("{} more", several - CANDIDATES_MAX));
                    }
                    Err(Error::invalid(doing, named(selector), format!("several match: {}", names.join(", "))).hint(
                        if is_one_id {
                            "they have the same id, which no backup makes twice: choose one with --at, --host or --job"
                        } else {
                            "write more digits of the id"
                        },
                    ))
                }
            }
        }
    }
}

fn named(selector: &Selector) -> String {
    match selector {
        Selector::Latest { back: 0 } => "latest".to_owned(),
        Selector::Latest { back } => format!("latest~{back}"),
        Selector::At(time) => {
            let whole = Time { nanoseconds: 0, ..*time };
            format!("at or before {}", format_time(whole, &jiff::tz::TimeZone::system()))
        }
        Selector::Prefix(prefix) => prefix.clone(),
    }
}

fn described(snapshot: &Snapshot) -> String {
    let digits = &snapshot.id.to_hex()[..12];
    format!("{digits} ({})", format_time(snapshot.started.time(), &jiff::tz::TimeZone::system()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::PathText;
    use crate::id::{ChunkId, SnapshotId};
    use crate::repo::{Stamp, Totals};

    fn snapshot(number: u8, seconds: i64) -> Snapshot {
        let started = Stamp { seconds, ..Stamp::default() };
        let mut id = [0xab; 16];
        id[2] = number;
        Snapshot {
            version: 1,
            id: SnapshotId(id),
            started,
            ended: started,
            host: "h".into(),
            user: String::new(),
            job: String::new(),
            tags: vec!["a".into()],
            program: String::new(),
            sources: vec![SnapshotSource::Tree { path: PathText(b"/home/ann".to_vec()) }],
            root: ChunkId([0; 24]),
            root_directory: None,
            lacks_trusted: false,
            origin: None,
            all_sources: None,
            totals: Totals::default(),
            warnings: Vec::new(),
            warnings_count: 0,
        }
    }

    #[test]
    fn each_way_to_name_one_and_what_is_said_when_it_fails() {
        let all = || vec![snapshot(1, 100), snapshot(2, 200), snapshot(3, 300)];
        let choose = |selector| choose(all(), &selector, false);
        let at = |seconds| Selector::At(Time { seconds, nanoseconds: 0 });
        assert_eq!(choose(Selector::Latest { back: 0 }).unwrap().id.0[2], 3);
        assert_eq!(choose(Selector::Latest { back: 2 }).unwrap().id.0[2], 1);
        assert!(choose(Selector::Latest { back: 3 }).unwrap_err().advice().unwrap().contains("latest~2"));
        assert_eq!(choose(at(200)).unwrap().id.0[2], 2);
        assert_eq!(choose(at(299)).unwrap().id.0[2], 2);
        assert!(choose(at(99)).unwrap_err().to_string().contains("abab01"));
        assert_eq!(choose(Selector::Prefix("abab02".into())).unwrap().id.0[2], 2);
        let ambiguous = choose(Selector::Prefix("abab".into())).unwrap_err();
        assert!(ambiguous.is(Kind::Invalid) && ambiguous.to_string().contains("abab03"));
        assert!(choose(Selector::Prefix("ffff".into())).unwrap_err().is(Kind::NotFound));
        assert!(super::choose(Vec::new(), &at(5), true).unwrap_err().to_string().contains("filter"));
    }

    #[test]
    fn filters_let_pass_what_fits() {
        let one = snapshot(1, 100);
        let path = |path: &[u8]| Filter { path: Some(path.to_vec()), ..Filter::default() };
        for fits in [&b"/home/ann"[..], b"/home", b"/", b"/home/ann/x"] {
            assert!(path(fits).matches(&one), "{}", fits.escape_ascii());
        }
        assert!(!path(b"/home/an").matches(&one) && !path(b"/etc").matches(&one));
        assert!(Filter { tags: vec!["a".into()], ..Filter::default() }.matches(&one));
        assert!(!Filter { tags: vec!["a".into(), "b".into()], ..Filter::default() }.matches(&one));
        assert!(!Filter { host: Some("other".into()), ..Filter::default() }.matches(&one));
        let time = |seconds| Some(Time { seconds, nanoseconds: 0 });
        assert!(Filter { after: time(100), before: time(100), ..Filter::default() }.matches(&one));
        assert!(!Filter { after: time(101), ..Filter::default() }.matches(&one));
    }
}
