//! The world test: random sequences of edits, backups, faults and restores, and the laws that hold after every step.
//!
//! tests/README.md says how to run it for long and how to run one sequence again.

mod capture;
mod check;
mod command;
mod harm;
mod model;
mod quiet;
mod random;
mod restoring;
mod run;
mod shrink;
mod step;
mod tree;
mod wire;

use model::{Broken, Engine, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use step::Step;

/// Sequences in every test run.
const SEQUENCES: u64 = 250;
/// Sequences with the command, each step of which is a process.
const COMMAND_SEQUENCES: u64 = 15;
/// Sequences at a time: runs wait more than they work.
const THREADS: u64 = 4;

impl World {
    fn take(&mut self, step: &Step) -> Result<(), Broken> {
        self.event += 1;
        match step {
            Step::Edit(place, edit) => self.edit(*place, edit),
            Step::Backup(actor, fault) => self.back_up(actor, *fault)?,
            Step::Begin(slot, actor, call) => self.begin(*slot, actor, *call)?,
            Step::GoOn(slot, calls) => self.go_on(*slot, Some(*calls))?,
            Step::Finish(slot) => self.go_on(*slot, None)?,
            Step::Expire { repository, sweep } => self.expire(self.place_number(*repository), *sweep),
            Step::Collect(repository) => self.collect(self.place_number(*repository)),
            Step::KeepRepository(repository) => self.keep_repository(self.place_number(*repository)),
            Step::RollBack { repository, copy } => self.roll_back(self.place_number(*repository), *copy),
            Step::CopyRepository => self.copy_repository(),
            Step::Harm { repository, object, pick, harm } => {
                self.harm(self.place_number(*repository), *object, *pick, *harm)?;
            }
            Step::KeepCache(cache) => self.keep_cache(*cache),
            Step::AgeCache(cache) => self.age_cache(*cache),
            Step::WipeCache(cache) => drop(std::fs::remove_dir_all(self.cache(*cache))),
            Step::CopyCache { from, to } => self.copy_cache(*from, *to),
            Step::CopyToTarget { source, target } => self.copy_to_target(*source, *target),
            Step::Restore(restoring) => self.restore(restoring)?,
        }
        for place in 0..self.places.len() {
            if self.places[place].is_changed {
                self.check_place(place)?;
            }
        }
        Ok(())
    }

    /// Lets every run end that still waits.
    fn end(&mut self) -> Result<(), Broken> {
        (0..step::SLOTS).try_for_each(|slot| self.take(&Step::Finish(slot)))
    }
}

/// Plays a sequence in a new world; the law that was broken, if one was.
fn play(seed: u64, engine: Engine, steps: &[Step], is_loud: bool) -> Option<Broken> {
    let mut world = World::new(seed, engine);
    world.is_loud = is_loud;
    let mut broken = None;
    for (number, step) in steps.iter().enumerate() {
        if is_loud {
            println!("{number}: {step:?}");
        }
        let taken = catch_unwind(AssertUnwindSafe(|| world.take(step))).unwrap_or_else(|_| Err("a panic".to_owned()));
        if let Err(why) = taken {
            broken = Some(why);
            break;
        }
    }
    // Also after a broken law: no thread may wait for ever.
    let ended = world.end();
    let last = steps.iter().rev().find_map(|step| match step {
        Step::Backup(actor, _) | Step::Begin(_, actor, _) => Some(actor),
        _ => None,
    });
    match (broken.or(ended.err()), last) {
        (None, Some(actor)) => catch_unwind(AssertUnwindSafe(|| world.check_quiet(actor)))
            .unwrap_or_else(|_| Err("a panic".to_owned()))
            .err(),
        (broken, _) => broken,
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("it is a number"))
}

/// Plays the sequence of a seed; what it came to, shrunk and in words, if it broke a law.
fn judge(seed: u64, engine: Engine) -> Option<String> {
    let steps = step::sequence(seed);
    let why = play(seed, engine, &steps, false)?;
    let (steps, why) = shrink::shrink(&steps, why, |fewer| play(seed, engine, fewer, false));
    let steps: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
    Some(format!("SILT_WORLD_SEED={seed}: {why}\nafter only\n{}", steps.join("\n")))
}

/// Plays many sequences, or the one that the environment names.
fn play_all(engine: Engine, sequences: u64) {
    if let Some(seed) = number("SILT_WORLD_SEED") {
        if let Some(why) = play(seed, engine, &step::sequence(seed), true) {
            panic!("{why}");
        }
        return;
    }
    let count = number("SILT_WORLD_SEQUENCES").unwrap_or(sequences);
    let first = number("SILT_WORLD_FIRST").unwrap_or(1);
    let goes_on = number("SILT_WORLD_GO_ON").is_some();
    let next = AtomicU64::new(first);
    let failures = AtomicU64::new(0);
    let threads = number("SILT_WORLD_THREADS").unwrap_or(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || !goes_on && failures.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    if let Some(failure) = judge(seed, engine) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("{failure}\n");
                    }
                }
            });
        }
    });
    assert_eq!(failures.into_inner(), 0, "sequences broke a law; they are printed above");
    println!("{count} sequences from seed {first} on broke no law");
}

/// Every snapshot of a run that ended well comes back whole, damage is reported and healed, and a restore changes nothing
/// outside its scope: after any sequence of edits, backups, faults, damage and restores.
#[test]
fn whatever_happens_what_was_saved_comes_back() {
    play_all(Engine::InProcess, SEQUENCES);
}

/// The same with the real command, real folders and real signals.
#[test]
fn whatever_happens_to_the_command_what_was_saved_comes_back() {
    play_all(Engine::Command, COMMAND_SEQUENCES);
}
