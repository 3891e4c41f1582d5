//! Backups of a world: whole, failing, killed, and those that wait in their middle while other things happen.

use crate::fixture::{self, copy_files};
use crate::world::command::Process;
use crate::world::model::{Broken, Engine, Run, World};
use crate::world::step::{Actor, How, SOURCES};
use crate::world::wire::{Control, Fault, Wire};
use siltstone::backup::{BackupOptions, BackupReport};
use siltstone::error::Result as Done;
use siltstone::repo::Repository;
use siltstone::source::{Source, Stream};
use siltstone::watch::Watch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How a run ended.
pub enum Ended {
    Panicked,
    Failed(String),
    Well { is_saved: bool, warnings: Vec<String> },
}

/// A run that waits in the middle.
pub struct Parked {
    pub run: usize,
    pub actor: Actor,
    waits: Waits,
}

enum Waits {
    Thread(Arc<Control>, JoinHandle<Ended>),
    Process(Process),
}

impl Parked {
    /// What the run has listed so far says nothing of what was taken away now.
    pub fn forget_listings(&self) {
        if let Waits::Thread(control, _) = &self.waits {
            control.forget_listings();
        }
    }

    /// Whether the run may have looked at the repository for the last time; a process does not say how far it is.
    pub fn may_be_past_its_last_look(&self) -> bool {
        match &self.waits {
            Waits::Thread(control, _) => control.has_committed(),
            Waits::Process(_) => true,
        }
    }
}

/// What a stream brings.
pub const STREAM: &[u8] = b"what the command says, longer than what stands in the tree itself";

/// What a run needs, apart from the world, so that it can go on while the world changes.
pub struct Plan {
    wire: Arc<Wire>,
    cache: PathBuf,
    options: BackupOptions,
}

pub fn carry_out(plan: Plan, watch: &Watch) -> Ended {
    let Plan { wire, cache, options } = plan;
    let control = wire.control.clone();
    let run = || {
        let repo = Repository::open(wire, &fixture::credentials(), &cache, watch)?;
        repo.backup(options, watch).inspect(|report| report.confirm_shown(&repo))
    };
    let ended = catch_unwind(AssertUnwindSafe(run)).map_or(Ended::Panicked, ended);
    control.end();
    ended
}

fn ended(done: Done<BackupReport>) -> Ended {
    match done {
        Err(error) => Ended::Failed(error.to_string()),
        Ok(report) => Ended::Well {
            is_saved: report.snapshot.is_some(),
            warnings: report.warnings.into_iter().map(|warning| warning.what).collect(),
        },
    }
}

/// Which sources a run saves.
fn sources_of(actor: &Actor) -> Vec<usize> {
    match actor.source % (SOURCES + 1) {
        SOURCES => (0..SOURCES).collect(),
        one => vec![one],
    }
}

/// The command whose output is saved, if one is.
pub fn stream_of(actor: &Actor) -> Option<String> {
    match actor.how {
        How::Stream => Some(format!("printf %s '{}'", String::from_utf8_lossy(STREAM))),
        How::FailingStream => Some("echo half; exit 1".to_owned()),
        _ => None,
    }
}

/// Replaces a cache by what it was when its run was killed.
fn put_back(frozen: &Path, cache: &Path) {
    let _not_there = std::fs::remove_dir_all(cache);
    if frozen.exists() {
        std::fs::rename(frozen, cache).expect("a cache is put back");
    }
}

impl World {
    /// Notes what a run is about to save; its number.
    pub fn register(&mut self, actor: &Actor) -> usize {
        let repository = self.place_number(actor.repository);
        let sources =
            sources_of(actor).into_iter().map(|number| (self.tree(number), self.capture_source(number))).collect();
        let stream = (actor.how == How::Stream).then(|| STREAM.to_vec());
        self.runs.push(Run { sources, stream, repository, begun: self.event, is_tainted: false, has_looked: false });
        self.runs.len() - 1
    }

    pub fn plan(&mut self, number: usize, actor: &Actor, fault: Fault, permits: Option<u64>, frozen: PathBuf) -> Plan {
        let run = &self.runs[number];
        let mut options = fixture::options(&run.sources[0].0);
        options.sources = fixture::trees(run.sources.iter().map(|(path, _)| path));
        options.memory_bytes = 32 << 20;
        options.job = format!("job{}", actor.job);
        options.host = format!("host{}", actor.host);
        options.tags = vec![format!("run-{number}")];
        options.comparison.ignore_ctime = actor.how != How::ChangeTimes;
        options.force = actor.how == How::Force;
        options.skip_if_unchanged = actor.how == How::SkipIfUnchanged;
        options.dry_run = actor.how == How::DryRun;
        let stream = stream_of(actor).map(|command| Source::stream(Stream::new("dump", command)));
        options.sources.extend(stream);
        let cache = self.cache(actor.cache);
        let at_death = {
            let cache = cache.clone();
            Box::new(move || copy_files(&cache, &frozen))
        };
        let control = Control::new(fault, permits, at_death);
        let place = &self.places[run.repository];
        let wire = Wire { inner: place.storage.clone(), location: place.location.clone(), control };
        Plan { wire: Arc::new(wire), cache, options }
    }

    /// A backup from its beginning to its end.
    pub fn back_up(&mut self, actor: &Actor, fault: Fault) -> Result<(), Broken> {
        let number = self.register(actor);
        let has_rival = self.has_rival(actor.cache);
        let may_fail = fault != Fault::None || has_rival || self.may_be_refused(actor);
        let ended = match self.engine {
            Engine::InProcess => self.back_up_in_process(number, actor, fault),
            Engine::Command => self.start_backup(number, actor).end_with(fault, has_rival)?.ended(),
        };
        self.conclude(number, actor, ended, may_fail)
    }

    fn back_up_in_process(&mut self, number: usize, actor: &Actor, fault: Fault) -> Ended {
        let frozen = self.scratch();
        let plan = self.plan(number, actor, fault, None, frozen.clone());
        let (control, cache) = (plan.wire.control.clone(), plan.cache.clone());
        let ended = carry_out(plan, &Watch::silent());
        if control.is_dead() {
            put_back(&frozen, &cache);
        }
        ended
    }

    /// Begins a backup that stops before a call.
    pub fn begin(&mut self, slot: usize, actor: &Actor, call: u64) -> Result<(), Broken> {
        let capabilities = self.places[self.place_number(actor.repository)].storage.capabilities();
        if self.slots[slot].is_some() || !(capabilities.compare_and_swap || capabilities.rename) {
            return Ok(());
        }
        let run = self.register(actor);
        let waits = match self.engine {
            Engine::Command => Waits::Process(self.start_backup(run, actor)),
            Engine::InProcess => {
                let frozen = self.scratch();
                let plan = self.plan(run, actor, Fault::None, Some(0), frozen);
                Waits::Thread(plan.wire.control.clone(), std::thread::spawn(move || carry_out(plan, &Watch::silent())))
            }
        };
        self.slots[slot] = Some(Parked { run, actor: *actor, waits });
        self.go_on(slot, Some(call))
    }

    /// Lets a waiting backup make more calls, or go on to its end.
    pub fn go_on(&mut self, slot: usize, calls: Option<u64>) -> Result<(), Broken> {
        let Some(parked) = &mut self.slots[slot] else { return Ok(()) };
        self.places[self.runs[parked.run].repository].is_changed = true;
        let is_over = match &mut parked.waits {
            Waits::Thread(control, _) => control.go_on(calls),
            Waits::Process(process) => process.go_on(calls)?,
        };
        if is_over { self.finish(slot) } else { Ok(()) }
    }

    fn finish(&mut self, slot: usize) -> Result<(), Broken> {
        let Some(parked) = self.slots[slot].take() else { return Ok(()) };
        let ended = match parked.waits {
            Waits::Thread(control, thread) => {
                let ended = thread.join().unwrap_or(Ended::Panicked);
                self.runs[parked.run].has_looked = control.has_looked();
                ended
            }
            Waits::Process(mut process) => process.end()?.ended(),
        };
        self.conclude(parked.run, &parked.actor, ended, true)
    }

    /// Whether another run that goes on uses the same cache, so that one may find it locked.
    pub fn has_rival(&self, cache: usize) -> bool {
        self.slots.iter().flatten().any(|parked| self.cache(parked.actor.cache) == self.cache(cache))
    }

    /// Whether a backup may be refused because of what was damaged.
    fn may_be_refused(&self, actor: &Actor) -> bool {
        let facts = &self.places[self.place_number(actor.repository)].facts;
        facts.may_not_open || facts.may_not_write
    }

    fn conclude(&mut self, number: usize, actor: &Actor, ended: Ended, may_fail: bool) -> Result<(), Broken> {
        let place = self.runs[number].repository;
        self.places[place].is_changed = true;
        match ended {
            Ended::Panicked => Err(format!("run {number} panicked")),
            Ended::Well { .. } if actor.how == How::FailingStream => {
                Err(format!("run {number} succeeded though its command failed"))
            }
            Ended::Well { warnings, .. } if !warnings.is_empty() && !self.places[place].facts.has_bad_snapshots => {
                Err(format!("run {number} of readable sources had warnings: {warnings:?}"))
            }
            Ended::Well { is_saved: false, .. } => {
                self.say(format!("run {number} ended well and made no snapshot"));
                Ok(())
            }
            Ended::Well { is_saved: true, .. } => {
                self.say(format!("run {number} ended well"));
                let Run { is_tainted, has_looked, .. } = self.runs[number];
                let is_sound = (!is_tainted || has_looked) && !self.places[place].facts.has_hidden_damage;
                self.places[place].facts.known.insert(number, is_sound);
                self.check_place(place)?;
                if is_sound && !is_tainted { self.check_healed(place, number) } else { Ok(()) }
            }
            Ended::Failed(why) => {
                self.say(format!("run {number} failed: {why}"));
                if may_fail || actor.how == How::FailingStream {
                    Ok(())
                } else {
                    Err(format!("run {number} failed without need: {why}"))
                }
            }
        }
    }
}
