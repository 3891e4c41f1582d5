//! Restores into targets that hold something already: what must be there afterwards, and what must not have changed.

use crate::fixture;
use crate::world::capture::{Capture, Node, capture};
use crate::world::model::{Broken, Engine, World};
use crate::world::step::{Restoring, SOURCES};
use crate::world::tree;
use crate::world::wire::{Control, Fault, Wire};
use siltstone::entry::EntryKind;
use siltstone::restore::{Overwrite, RestoreOptions};
use siltstone::source::{Rules, RulesBuilder};
use siltstone::watch::Watch;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// One restore with all that decides what must be there after it.
pub struct Scene<'a> {
    pub before: &'a Capture,
    pub after: &'a Capture,
    /// What the snapshot holds, by paths in the target.
    pub wanted: &'a Capture,
    /// Paths in the target that are on the way to a source.
    pub above: Vec<PathBuf>,
    pub options: &'a Restoring,
    pub target_existed: bool,
    /// It said that all went well.
    pub is_clean: bool,
    /// It was killed and could not clean up.
    pub may_leave: bool,
}

fn rules(pattern: &str) -> Rules {
    let mut rules = RulesBuilder::new();
    rules.exclude(pattern.as_bytes()).expect("a plain name is a pattern");
    rules.build().expect("a plain name is a pattern")
}

fn name(number: usize) -> String {
    format!("n{number}")
}

impl World {
    /// A target becomes a copy of a source.
    pub fn copy_to_target(&mut self, source: usize, target: usize) {
        let (from, to) = (self.tree(source % SOURCES), self.target(target));
        fs::remove_dir_all(&to).expect("a target is removed");
        let done = Command::new("cp").arg("-a").arg("-T").arg(from).arg(to).status();
        assert!(done.expect("cp runs").success());
    }

    pub fn restore(&mut self, restoring: &Restoring) -> Result<(), Broken> {
        let place = self.place_number(restoring.repository);
        let known: Vec<usize> = self.places[place].facts.known.keys().copied().collect();
        let Some(number) = (!known.is_empty()).then(|| known[restoring.snapshot % known.len()]) else { return Ok(()) };
        let is_sound = self.places[place].facts.known[&number];
        let area = self.target(restoring.target).parent().expect("an area").to_owned();
        let target = self.target(restoring.target);
        let surroundings = |area: &Path| {
            let mut around = capture(area);
            around.retain(|path, _| path.as_os_str().is_empty() || !path.starts_with("tree"));
            around
        };
        let (before, around) = (capture(&target), surroundings(&area));
        let (wanted, above, source) = self.wanted(number, restoring);
        let (is_clean, error, may_leave) = match self.engine {
            Engine::InProcess => self.restore_in_process(place, number, &source, &target, restoring),
            Engine::Command => {
                let Some(named) = self.named(place, number, &source, restoring) else { return Ok(()) };
                let said = self.restore_by_command(place, &named, &target, restoring)?;
                let error = (!said.is_clean()).then(|| said.in_words());
                (said.is_clean(), error, said.is_killed())
            }
        };
        self.say(format!("restore of run {number}: {error:?}"));
        let after = capture(&target);
        if !target.exists() {
            fs::create_dir(&target).expect("made");
        }
        let scene = Scene {
            before: &before,
            after: &after,
            wanted: &wanted,
            above,
            options: restoring,
            target_existed: !before.is_empty(),
            is_clean,
            may_leave,
        };
        let mut broken = scene.broken_laws();
        let changed = unchanged(&around, &surroundings(&area));
        broken.extend(changed.into_iter().map(|what| format!("outside of the target: {what}")));
        let facts = &self.places[place].facts;
        let is_damaged = facts.may_not_open || facts.has_bad_snapshots || facts.has_cut_packs;
        let may_fail = !is_sound || restoring.fault != Fault::None || is_damaged || self.has_rival(restoring.cache);
        // What is in the way may be a reason for a warning.
        let may_warn = scene.wanted.keys().any(|path| scene.may_be_blocked(path) || scene.is_of_another_kind(path));
        let is_nothing_meant = restoring.include.is_some() && !scene.wanted.keys().any(|path| scene.is_taken(path));
        if let (false, Some(error)) = (may_fail || may_warn || is_nothing_meant, &error) {
            broken.push(format!("it failed without need: {error}"));
        }
        scene.leftovers().into_iter().for_each(|path| tree::remove(&target.join(path)));
        if broken.is_empty() { Ok(()) } else { Err(format!("restore of run {number} with {restoring:?}: {broken:?}")) }
    }

    /// Whether all went well, what did not, and whether something half done may be left.
    fn restore_in_process(
        &mut self,
        place: usize,
        number: usize,
        source: &Path,
        target: &Path,
        restoring: &Restoring,
    ) -> (bool, Option<String>, bool) {
        let control = Control::new(restoring.fault, None, Box::new(|| ()));
        let wire =
            Wire { inner: self.places[place].storage.clone(), location: self.places[place].location.clone(), control };
        let options = RestoreOptions {
            path: (!restoring.whole).then(|| source.as_os_str().as_bytes().to_vec()),
            overwrite: restoring.overwrite,
            delete: restoring.delete,
            verify: restoring.verify,
            exclude: restoring.exclude.map_or_else(Rules::default, |number| rules(&name(number))),
            include: restoring.include.map(|number| rules(&name(number))),
            writers: 1,
            ..RestoreOptions::new(target.to_owned())
        };
        let cache = self.cache(restoring.cache);
        let run = || {
            let repo = fixture::open(Arc::new(wire), &cache)?;
            let listed = World::list(&repo)?;
            let Some(snapshot) = listed.get(&number) else { return Ok(None) };
            repo.plan_restore(snapshot, options, &Watch::silent())?.run(&Watch::silent()).map(Some)
        };
        match run() {
            Ok(Some(report)) if report.warnings_count == 0 => (true, None, false),
            Ok(Some(report)) => (false, Some(format!("{:?}", report.warnings)), false),
            Ok(None) => (false, Some("the snapshot is not listed".to_owned()), false),
            Err(error) => (false, Some(error.to_string()), false),
        }
    }

    /// The words for what is restored: the snapshot's id, and the path in it.
    fn named(&mut self, place: usize, number: usize, source: &Path, restoring: &Restoring) -> Option<String> {
        let (repo, _) = self.open_afresh(place).ok()?;
        let id = World::list(&repo).ok()?.get(&number)?.id.to_hex();
        Some(if restoring.whole { id } else { format!("{id}:{}", source.display()) })
    }

    /// What a snapshot holds by paths in the target, the paths above its sources there, and the source that is meant.
    fn wanted(&self, number: usize, restoring: &Restoring) -> (Capture, Vec<PathBuf>, PathBuf) {
        let run = &self.runs[number];
        let (source, held) = &run.sources[restoring.snapshot % run.sources.len()];
        if !restoring.whole {
            return ((**held).clone(), Vec::new(), source.clone());
        }
        let mut wanted = Capture::new();
        let mut above = Vec::new();
        for (source, held) in &run.sources {
            let inside = source.strip_prefix("/").expect("sources are absolute");
            above.extend(inside.ancestors().skip(1).map(Path::to_owned));
            for (path, node) in held.iter() {
                let mut node = node.clone();
                node.first_name = node.first_name.map(|first| inside.join(first));
                wanted.insert(if path.as_os_str().is_empty() { inside.to_owned() } else { inside.join(path) }, node);
            }
        }
        if let Some(bytes) = &run.stream {
            // Its time is that of the run, which is not known beforehand.
            above.push(PathBuf::from("dump"));
            let _whole = bytes;
        }
        (wanted, above, source.clone())
    }
}

/// In words, what of `before` is not as it was.
fn unchanged(before: &Capture, after: &Capture) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in before {
        match after.get(path) {
            None => found.push(format!("{path:?} is gone")),
            Some(other) => found.extend(node.differences(other).iter().map(|what| format!("{path:?}: {what}"))),
        }
    }
    let new = after.keys().filter(|path| !before.contains_key(*path));
    found.extend(new.map(|path| format!("{path:?} is new")));
    found
}

impl Scene<'_> {
    fn is_named(path: &Path, number: usize) -> bool {
        path.components().any(|part| part.as_os_str() == name(number).as_str())
    }

    /// Whether the rules let the restore touch a path.
    fn is_taken(&self, path: &Path) -> bool {
        !self.options.exclude.is_some_and(|number| Scene::is_named(path, number))
            && self.options.include.is_none_or(|number| Scene::is_named(path, number))
    }

    fn is_above(&self, path: &Path) -> bool {
        self.above.iter().any(|above| above == path)
    }

    /// Whether what is in the way at or above a path may stay there, so that the path is not restored.
    fn may_be_blocked(&self, path: &Path) -> bool {
        path.ancestors().any(|step| {
            let (Some(there), Some(wanted)) = (self.before.get(step), self.wanted.get(step)) else {
                return self.is_above(step) && self.before.get(step).is_some_and(|there| !there.is_directory());
            };
            match (there.is_directory(), wanted.is_directory()) {
                (true, false) => true,
                (false, true) => matches!(self.options.overwrite, Overwrite::Never | Overwrite::IfNewer),
                _ => false,
            }
        })
    }

    /// Whether something of another kind than the saved one is there.
    fn is_of_another_kind(&self, path: &Path) -> bool {
        let there = self.before.get(path).map(|there| there.kind);
        there.is_some_and(|there| self.wanted.get(path).is_some_and(|wanted| wanted.kind != there))
    }

    /// Whether the restore may remove or replace what was at a path.
    fn may_lose(&self, path: &Path) -> bool {
        if !self.is_taken(path) && !self.has_taken_above(path) {
            return false;
        }
        // Something above it may give way to a file only with `delete`, itself only where the snapshot says so.
        let is_in_scope = path.ancestors().skip(1).any(|step| self.wanted.contains_key(step));
        self.options.delete && is_in_scope
    }

    fn has_taken_above(&self, path: &Path) -> bool {
        self.options.include.is_none()
            && path.ancestors().skip(1).any(|step| self.is_taken(step))
            && self.is_taken(path)
    }

    fn broken_laws(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (path, wanted) in self.wanted {
            if let Err(why) = self.judge_wanted(path, wanted) {
                broken.push(format!("{path:?}: {why}"));
            }
        }
        for (path, there) in self.before.iter().filter(|(path, _)| !self.wanted.contains_key(*path)) {
            if let Err(why) = self.judge_other(path, there) {
                broken.push(format!("{path:?}, which the snapshot does not have: {why}"));
            }
        }
        let leftovers = if self.may_leave { Vec::new() } else { self.leftovers() };
        broken.extend(leftovers.into_iter().map(|path| format!("{path:?} came from nowhere")));
        if self.is_clean && self.is_plain() {
            for (path, wanted) in self.wanted.iter().filter(|(path, _)| !self.may_be_blocked(path)) {
                let first = self.after.get(path).and_then(|node| node.first_name.clone());
                // Names that the snapshot does not have can come first.
                let is_linked = |first: &PathBuf| {
                    self.after.get(first).is_some_and(|node| node.first_name == self.after[path].first_name)
                };
                if let Some(wanted_first) = wanted.first_name.as_ref().filter(|first| !is_linked(first)) {
                    broken.push(format!("{path:?} is linked to {first:?} instead of {wanted_first:?}"));
                }
            }
        }
        broken
    }

    /// What is neither of the snapshot nor was there before.
    fn leftovers(&self) -> Vec<&PathBuf> {
        let is_known =
            |path: &PathBuf| self.before.contains_key(path) || self.wanted.contains_key(path) || self.is_above(path);
        self.after.keys().filter(|path| !is_known(path) && !path.as_os_str().is_empty()).collect()
    }

    /// Nothing is left out and nothing kept.
    fn is_plain(&self) -> bool {
        let all = self.options.include.is_none() && self.options.exclude.is_none();
        all && matches!(self.options.overwrite, Overwrite::Always | Overwrite::IfChanged)
    }

    fn judge_wanted(&self, path: &Path, wanted: &Node) -> Result<(), String> {
        let (before, after) = (self.before.get(path), self.after.get(path));
        if !self.is_taken(path) {
            return self.judge_left_out(path, before, after);
        }
        if path.as_os_str().is_empty() {
            // The target itself: it is the user's own where it was there before.
            let after = after.ok_or("the target is gone")?;
            let own = if self.target_existed { before } else { None };
            return if own.is_none_or(|own| own.mode == after.mode && own.xattrs == after.xattrs) {
                Ok(())
            } else {
                Err(format!("the target's own mode became {:o}", after.mode))
            };
        }
        let is_wanted = after.is_some_and(|after| self.agrees(path, wanted, after));
        let Some(before) = before else {
            let may_be_missing = !self.is_clean || self.may_be_blocked(path);
            return match after {
                None if may_be_missing => Ok(()),
                Some(_) if is_wanted => Ok(()),
                // A killed run leaves a new file half written, but not with the time by which it would pass for whole.
                Some(after) if self.may_leave && after.time != wanted.time => Ok(()),
                // Directories are dressed at the end.
                Some(after) if !self.is_clean && after.is_directory() && wanted.is_directory() => Ok(()),
                other => Err(format!("new, and not as saved: {:?}", other.map(|after| wanted.differences(after)))),
            };
        };
        let after = after.ok_or("it was there and is gone")?;
        let is_kept = self.is_kept(before, after);
        let must_keep = match self.options.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => before.time >= wanted.time && !before.is_directory(),
            _ => false,
        };
        let may_keep = must_keep || !self.is_clean || self.may_be_blocked(path);
        let both_directories = before.is_directory() && wanted.is_directory();
        let is_rightly_kept = is_kept && (may_keep || both_directories && self.options.overwrite == Overwrite::IfNewer);
        // Its metadata come last.
        let lacks_metadata = both_directories && after.is_directory()
            || after.bytes == wanted.bytes && before.bytes == wanted.bytes && after.kind == wanted.kind;
        if is_rightly_kept || is_wanted && !must_keep || !self.is_clean && lacks_metadata {
            return Ok(());
        }
        let (kept, saved) = (before.differences(after), wanted.differences(after));
        Err(format!("neither kept ({kept:?}) nor as saved ({saved:?})"))
    }

    fn judge_left_out(&self, path: &Path, before: Option<&Node>, after: Option<&Node>) -> Result<(), String> {
        match (before, after) {
            (None, None) => Ok(()),
            // On the way to what is taken.
            (None, Some(after)) if self.options.include.is_some() && after.is_directory() => Ok(()),
            (None, Some(_)) => Err("it is left out and was restored".to_owned()),
            (Some(_), None) => Err("it is left out and was removed".to_owned()),
            (Some(before), Some(after)) if self.is_kept(before, after) => Ok(()),
            // Another name of its inode is restored, and that is dressed.
            (Some(before), Some(after)) if before.first_name.is_some() && after.bytes == before.bytes => Ok(()),
            (Some(before), Some(after)) if !before.is_directory() && self.makes_way(path, after) => Ok(()),
            (Some(before), Some(after)) if path.as_os_str().is_empty() => {
                if before.mode == after.mode {
                    Ok(())
                } else {
                    Err("the target's own mode changed".to_owned())
                }
            }
            (Some(before), Some(after)) => {
                Err(format!("it is left out and was changed: {:?}", before.differences(after)))
            }
        }
    }

    /// Whether something was replaced by a directory on the way to what is taken.
    fn makes_way(&self, path: &Path, after: &Node) -> bool {
        let is_on_the_way = self.wanted.keys().any(|below| below.starts_with(path) && self.is_taken(below));
        let replaces = matches!(self.options.overwrite, Overwrite::Always | Overwrite::IfChanged);
        after.is_directory() && is_on_the_way && replaces
    }

    /// What is in the target and not in the snapshot.
    fn judge_other(&self, path: &Path, before: &Node) -> Result<(), String> {
        let is_protected = |path: &Path| self.options.exclude.is_some_and(|number| Scene::is_named(path, number));
        let holds_protected = self.before.keys().any(|other| other.starts_with(path) && is_protected(other));
        let is_on_the_way = self.is_above(path) || path.as_os_str().is_empty();
        match self.after.get(path) {
            Some(after) if is_on_the_way && after.is_directory() == before.is_directory() => Ok(()),
            Some(after) if self.is_kept(before, after) => {
                let must_go = self.is_clean
                    && self.may_lose(path)
                    && !holds_protected
                    && !self.may_be_blocked(path)
                    && self.options.include.is_none();
                if must_go { Err("it should have been deleted".to_owned()) } else { Ok(()) }
            }
            // A name of an inode that another name of was dressed.
            Some(after) if before.first_name.is_some() && after.bytes == before.bytes && after.kind == before.kind => {
                Ok(())
            }
            Some(after) => Err(format!("it was changed: {:?}", before.differences(after))),
            None if self.may_lose(path) && !holds_protected => Ok(()),
            None => Err("it was removed".to_owned()),
        }
    }

    /// Of a directory the time may move, as things below it do.
    fn is_kept(&self, before: &Node, after: &Node) -> bool {
        let both = before.is_directory() && after.is_directory();
        if both {
            before.mode == after.mode && before.xattrs == after.xattrs && before.owner == after.owner
        } else {
            before.is_same(after)
        }
    }

    /// Whether an entry is as the snapshot has it.
    fn agrees(&self, path: &Path, wanted: &Node, after: &Node) -> bool {
        let is_partial = self.options.include.is_some() || self.options.exclude.is_some();
        let may_hold_more = wanted.is_directory()
            && (is_partial || !self.is_clean || self.before.keys().any(|other| other.parent() == Some(path)));
        if wanted.kind == EntryKind::Directory && may_hold_more {
            wanted.mode == after.mode && wanted.xattrs == after.xattrs && after.is_directory()
        } else {
            wanted.is_same(after)
        }
    }
}
