//! The laws: what comes back, what is reported, what is healed.

use crate::fixture;
use crate::world::capture::{self, Capture, Missing, Saved, compare, saved};
use crate::world::model::{Broken, World};
use crate::world::step::Object;
use siltstone::error::Error;
use siltstone::repo::{Reader, Repository, Snapshot};
use siltstone::restore::RestoreOptions;
use siltstone::watch::Watch;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of the run that made a snapshot.
fn run_of(snapshot: &Snapshot) -> Option<usize> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix("run-")?.parse().ok())
}

/// What a check finds of one snapshot.
enum Found {
    Whole,
    /// It cannot be read whole, and says so.
    Told(Vec<(PathBuf, Missing, Error)>),
    Wrong(Vec<String>),
}

impl World {
    /// Opens a repository with a new cache of its own.
    pub fn open_afresh(&mut self, place: usize) -> Result<(Repository, PathBuf), Error> {
        let cache = self.scratch();
        fixture::open(self.places[place].storage.clone(), &cache).map(|repo| (repo, cache))
    }

    /// The snapshots by the numbers of their runs.
    pub fn list(repo: &Repository) -> Result<BTreeMap<usize, Snapshot>, Error> {
        let snapshots = repo.snapshots(&Watch::silent())?;
        Ok(snapshots.into_iter().filter_map(|snapshot| Some((run_of(&snapshot)?, snapshot))).collect())
    }

    /// Every snapshot that must come back comes back; the others do or say that they do not.
    pub fn check_place(&mut self, place: usize) -> Result<(), Broken> {
        self.look(place, None)
    }

    /// After damage: what was hit is known from now on, and it tells it.
    pub fn check_damaged(&mut self, place: usize, object: Object) -> Result<(), Broken> {
        self.look(place, Some(object))
    }

    fn look(&mut self, place: usize, harmed: Option<Object>) -> Result<(), Broken> {
        self.places[place].is_changed = false;
        let (repo, cache) = match self.open_afresh(place) {
            Ok(opened) => opened,
            Err(_) if self.places[place].facts.may_not_open => return Ok(()),
            Err(error) => return Err(format!("repository {place} cannot be opened: {error}")),
        };
        let looked = self.look_at(place, &repo, harmed);
        drop(repo);
        let _gone = fs::remove_dir_all(cache);
        looked
    }

    fn look_at(&mut self, place: usize, repo: &Repository, harmed: Option<Object>) -> Result<(), Broken> {
        let listed = match World::list(repo) {
            Ok(listed) => listed,
            Err(_) if self.places[place].facts.may_not_open => return Ok(()),
            Err(error) => return Err(format!("snapshots of repository {place} are not listed: {error}")),
        };
        // A run that dies or fails after the commit step has made a snapshot, which is as good as any.
        for number in listed.keys() {
            let is_hidden = self.places[place].facts.has_hidden_damage;
            let is_sound = harmed.is_none() && !self.runs[*number].is_tainted && !is_hidden;
            self.places[place].facts.known.entry(*number).or_insert(is_sound);
        }
        let may_vanish = matches!(harmed, Some(Object::Snapshot | Object::Pending | Object::Key | Object::Config));
        let known = self.places[place].facts.known.clone();
        let reader = repo.reader();
        for (number, is_sound) in known {
            let Some(snapshot) = listed.get(&number) else {
                if is_sound && !may_vanish {
                    return Err(format!("the snapshot of run {number} is gone from repository {place}"));
                }
                self.places[place].facts.known.remove(&number);
                continue;
            };
            let whole = match self.look_at_snapshot(&reader, number, snapshot) {
                Found::Wrong(how) => {
                    return Err(format!("the snapshot of run {number} in repository {place} is wrong: {how:?}"));
                }
                Found::Told(missing) if is_sound && harmed.is_none() => {
                    let missing: Vec<_> = missing.iter().map(|(_, what, error)| format!("{what:?}: {error}")).collect();
                    return Err(format!("the snapshot of run {number} in repository {place} lacks {missing:?}"));
                }
                Found::Told(_) => false,
                Found::Whole => true,
            };
            let facts = &mut self.places[place].facts;
            // Of two copies of a chunk one may be damaged, and which of them is read is chance. What is stored since cut
            // packs were there does not rest on them.
            let by_chance = facts.has_hidden_damage || facts.has_cut_packs && (harmed.is_some() || !is_sound);
            facts.known.insert(number, whole && !by_chance);
            if whole && !self.places[place].facts.has_cut_packs && self.random.one_in(12) {
                self.restore_afresh(repo, number, snapshot)?;
            }
        }
        Ok(())
    }

    fn look_at_snapshot(&self, reader: &Reader, number: usize, snapshot: &Snapshot) -> Found {
        let run = &self.runs[number];
        let mut wrong = Vec::new();
        let mut missing = Vec::new();
        for (source, expected) in &run.sources {
            let found = saved(reader, snapshot, source);
            wrong.extend(differences(expected, &found));
            missing.extend(found.missing.into_iter().map(|(what, error)| (source.clone(), what, error)));
        }
        if let Some(expected) = &run.stream {
            let found = saved(reader, snapshot, Path::new("dump"));
            let bytes = found.capture.get(Path::new("")).map(|node| &node.bytes);
            if found.missing.is_empty() && bytes != Some(expected) {
                wrong.push("its stream differs".to_owned());
            }
            missing.extend(found.missing.into_iter().map(|(what, error)| (PathBuf::from("dump"), what, error)));
        }
        let silent = missing.iter().filter(|(_, _, error)| !tells_damage(error));
        wrong.extend(
            silent.map(|(_, what, error)| format!("{what:?} is missing with the wrong kind of error: {error}")),
        );
        match (wrong.is_empty(), missing.is_empty()) {
            (false, _) => Found::Wrong(wrong),
            (true, true) => Found::Whole,
            (true, false) => Found::Told(missing),
        }
    }

    /// A restore into a new folder brings what the reader saw.
    fn restore_afresh(&mut self, repo: &Repository, number: usize, snapshot: &Snapshot) -> Result<(), Broken> {
        for (source, expected) in self.runs[number].sources.clone() {
            let target = self.scratch();
            let options = RestoreOptions {
                path: Some(source.as_os_str().as_bytes().to_vec()),
                writers: 1,
                ..RestoreOptions::new(target.clone())
            };
            let plan = repo.plan_restore(snapshot, options, &Watch::silent());
            let report = plan.and_then(|plan| plan.run(&Watch::silent()));
            let report = report.map_err(|error| format!("the snapshot of run {number} is not restored: {error}"))?;
            let mut found = compare(&expected, &capture::capture(&target), &[]);
            found.extend(report.warnings.iter().map(|warning| warning.what.clone()));
            if !found.is_empty() {
                return Err(format!("the snapshot of run {number} comes back different: {found:?}"));
            }
            let _gone = fs::remove_dir_all(target);
        }
        Ok(())
    }

    /// After a backup: what older snapshots lack, and the sources still have, is there again.
    pub fn check_healed(&mut self, place: usize, healer: usize) -> Result<(), Broken> {
        let facts = &self.places[place].facts;
        if facts.has_hidden_damage
            || facts.may_not_open
            || facts.may_not_write
            || facts.known.values().all(|is_sound| *is_sound)
        {
            return Ok(());
        }
        let unsound: Vec<usize> = facts.known.iter().filter(|(_, sound)| !**sound).map(|(run, _)| *run).collect();
        let (repo, cache) = self.open_afresh(place).map_err(|error| format!("it cannot be opened: {error}"))?;
        let listed = World::list(&repo).map_err(|error| format!("snapshots are not listed: {error}"))?;
        let reader = repo.reader();
        for (number, snapshot) in unsound.into_iter().filter_map(|number| Some((number, listed.get(&number)?))) {
            let Found::Told(missing) = self.look_at_snapshot(&reader, number, snapshot) else { continue };
            for (source, what, error) in missing {
                if self.still_has(healer, number, &source, &what) {
                    return Err(format!(
                        "run {healer} did not heal the snapshot of run {number}, whose {what:?} the source still has: {error}"
                    ));
                }
            }
        }
        drop((reader, repo));
        let _gone = fs::remove_dir_all(cache);
        Ok(())
    }

    /// Whether the sources of a run had what the snapshot of another lacks.
    fn still_has(&self, healer: usize, number: usize, source: &Path, what: &Missing) -> bool {
        let captures = |run: usize| self.runs[run].sources.iter();
        let Some((_, old)) = captures(number).find(|(path, _)| path == source) else { return false };
        match what {
            // The way to the source depends on times of folders that all tests use.
            Missing::Directory(path) if path.as_os_str().is_empty() => false,
            Missing::Directory(path) => {
                let now = captures(healer).find(|(path, _)| path == source);
                now.is_some_and(|(_, now)| is_same_below(old, now, path))
            }
            Missing::Content(path) => {
                let lost = &old[path];
                let has = |now: &Arc<Capture>| {
                    now.values().any(|node| node.kind == lost.kind && node.bytes == lost.bytes && !node.is_sparse)
                };
                !lost.is_sparse && captures(healer).any(|(_, now)| has(now))
            }
        }
    }
}

/// Whether nothing at or below a path has changed, inodes of hard links included.
fn is_same_below(old: &Capture, now: &Capture, path: &Path) -> bool {
    let below =
        |capture: &Capture| -> Vec<PathBuf> { capture.keys().filter(|key| key.starts_with(path)).cloned().collect() };
    let same = |path: &PathBuf| old[path].is_same(&now[path]) && old[path].inode == now[path].inode;
    below(old) == below(now) && below(old).iter().all(same)
}

fn differences(expected: &Capture, found: &Saved) -> Vec<String> {
    if found.is_out_of_reach { Vec::new() } else { compare(expected, &found.capture, &found.missing) }
}

/// Damage has errors of its own kinds: a caller must not take it for a failure of the machine.
pub fn tells_damage(error: &Error) -> bool {
    use siltstone::error::Kind;
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
}
