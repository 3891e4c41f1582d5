//! Backups of a world: whole, failing, killed, and those that wait at a call while other things happen.

use crate::fixture;
use crate::world::model::{Broken, Run, World, copy_files};
use crate::world::step::{Actor, How, SOURCES};
use crate::world::wire::{Control, Fault, Wire};
use siltstone::backup::{BackupOptions, BackupReport};
use siltstone::error::Result;
use siltstone::source::stream::Stream;
use siltstone::watch::Watch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How a run ended: None when it panicked.
type Ended = Option<Result<BackupReport>>;

/// A run that waits in the middle.
pub struct Parked {
    pub run: usize,
    pub actor: Actor,
    control: Arc<Control>,
    thread: JoinHandle<Ended>,
}

/// What a stream brings.
const STREAM: &[u8] = b"what the command says, longer than what stands in the tree itself\n";

/// What a run needs, apart from the world, so that it can go on while the world changes.
struct Plan {
    wire: Arc<Wire>,
    cache: PathBuf,
    options: BackupOptions,
}

fn carry_out(plan: Plan) -> Ended {
    let Plan { wire, cache, options } = plan;
    let control = wire.control.clone();
    let run = || fixture::open(wire, &cache)?.backup(options, &Watch::silent());
    let ended = catch_unwind(AssertUnwindSafe(run)).ok();
    control.end();
    ended
}

fn sources_of(actor: &Actor) -> Vec<usize> {
    match actor.source % (SOURCES + 1) {
        SOURCES => (0..SOURCES).collect(),
        one => vec![one],
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
    fn plan(&mut self, actor: &Actor, fault: Fault, permits: Option<u64>, frozen: PathBuf) -> (usize, Plan) {
        let place = self.place_number(actor.repository);
        let sources: Vec<_> =
            sources_of(actor).into_iter().map(|number| (self.tree(number), self.capture_source(number))).collect();
        let number = self.runs.len();
        let mut options = fixture::options(&sources[0].0);
        options.paths = sources.iter().map(|(path, _)| path.clone()).collect();
        options.memory_bytes = 32 << 20;
        options.job = format!("job{}", actor.job);
        options.tags = vec![format!("run-{number}")];
        options.comparison.ignore_ctime = actor.how != How::ChangeTimes;
        options.force = actor.how == How::Force;
        options.skip_if_unchanged = actor.how == How::SkipIfUnchanged;
        options.dry_run = actor.how == How::DryRun;
        let command = match actor.how {
            How::Stream => Some(format!("printf %s '{}'", String::from_utf8_lossy(STREAM))),
            How::FailingStream => Some("echo half; exit 1".to_owned()),
            _ => None,
        };
        options.streams.extend(command.map(|command| Stream { name: b"dump".to_vec(), command: command.into() }));
        let stream = (actor.how == How::Stream).then(|| STREAM.to_vec());
        self.runs.push(Run { sources, stream, repository: place, begun: self.event, is_tainted: false });
        let cache = self.cache(actor.cache);
        let at_death = {
            let cache = cache.clone();
            Box::new(move || copy_files(&cache, &frozen))
        };
        let control = Control::new(fault, permits, at_death);
        let place = &self.places[place];
        let wire = Wire { inner: place.storage.clone(), location: place.location.clone(), control };
        (number, Plan { wire: Arc::new(wire), cache, options })
    }

    /// A backup from its beginning to its end.
    pub fn back_up(&mut self, actor: &Actor, fault: Fault) -> std::result::Result<(), Broken> {
        let frozen = self.scratch();
        let (number, plan) = self.plan(actor, fault, None, frozen.clone());
        let (control, cache) = (plan.wire.control.clone(), plan.cache.clone());
        let ended = carry_out(plan);
        if control.is_dead() {
            put_back(&frozen, &cache);
        }
        let may_fail = fault != Fault::None || self.has_rival(actor) || self.may_not_open(actor);
        self.conclude(number, actor, ended, control.is_dead(), may_fail)
    }

    /// Begins a backup that stops before a call.
    pub fn begin(&mut self, slot: usize, actor: &Actor, call: u64) -> std::result::Result<(), Broken> {
        let place = &self.places[self.place_number(actor.repository)];
        let abilities = place.storage.abilities();
        if self.slots[slot].is_some() || !(abilities.swap || abilities.rename) {
            return Ok(());
        }
        let frozen = self.scratch();
        let (run, plan) = self.plan(actor, Fault::None, Some(call), frozen);
        let control = plan.wire.control.clone();
        let thread = std::thread::spawn(move || carry_out(plan));
        let is_over = control.wait();
        self.places[self.runs[run].repository].is_changed = true;
        self.slots[slot] = Some(Parked { run, actor: *actor, control, thread });
        if is_over { self.finish(slot) } else { Ok(()) }
    }

    /// Lets a waiting backup make more calls, or go on to its end.
    pub fn go_on(&mut self, slot: usize, calls: Option<u64>) -> std::result::Result<(), Broken> {
        let Some(parked) = &self.slots[slot] else { return Ok(()) };
        self.places[self.runs[parked.run].repository].is_changed = true;
        match parked.control.go_on(calls) {
            true => self.finish(slot),
            false => Ok(()),
        }
    }

    fn finish(&mut self, slot: usize) -> std::result::Result<(), Broken> {
        let Some(parked) = self.slots[slot].take() else { return Ok(()) };
        let ended = parked.thread.join().unwrap_or_default();
        self.conclude(parked.run, &parked.actor, ended, false, true)
    }

    /// Whether another run that goes on has the same local state, or changes what this one relies on.
    fn has_rival(&self, actor: &Actor) -> bool {
        self.slots.iter().flatten().any(|parked| self.cache(parked.actor.cache) == self.cache(actor.cache))
    }

    fn may_not_open(&self, actor: &Actor) -> bool {
        self.places[self.place_number(actor.repository)].facts.may_not_open
    }

    fn conclude(
        &mut self,
        number: usize,
        actor: &Actor,
        ended: Ended,
        is_dead: bool,
        may_fail: bool,
    ) -> std::result::Result<(), Broken> {
        let place = self.runs[number].repository;
        self.places[place].is_changed = true;
        let Some(ended) = ended else { return Err(format!("run {number} panicked")) };
        match ended {
            Ok(report) if actor.how == How::FailingStream => {
                Err(format!("run {number} succeeded though its command failed: {:?}", report.troubles))
            }
            Ok(report) => {
                let troubles: Vec<_> = report.troubles.iter().map(|trouble| trouble.what.clone()).collect();
                let saved = report.snapshot.is_some();
                self.say(format!("run {number} ended well, snapshot: {saved}, {} warnings", report.troubles_count));
                if !troubles.is_empty() {
                    return Err(format!("run {number} of readable sources had warnings: {troubles:?}"));
                }
                if saved {
                    let is_sound = !self.runs[number].is_tainted && !self.places[place].facts.has_hidden_damage;
                    self.places[place].facts.known.insert(number, is_sound);
                    self.check_place(place)?;
                    if is_sound {
                        self.check_healed(place, number)?;
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.say(format!("run {number} failed{}: {error}", if is_dead { " (killed)" } else { "" }));
                let may_fail = may_fail || actor.how == How::FailingStream;
                match may_fail {
                    true => Ok(()),
                    false => Err(format!("run {number} failed without need: {error}")),
                }
            }
        }
    }
}
