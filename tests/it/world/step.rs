//! The steps of a sequence: plain data that means something in every state, so that any of them can be left out.

use crate::world::random::Random;
use crate::world::tree::{CHANGES, Edit};
use crate::world::wire::Fault;
use siltstone::restore::Overwrite;

/// Which job backs up what, where to and with which cache; numbers count what the world has, round and round.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    pub repository: usize,
    /// Of the source; after the last one come both together.
    pub source: usize,
    pub cache: usize,
    pub job: usize,
    pub host: usize,
    pub how: How,
}

/// What is not as usual about a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Usual,
    Force,
    SkipIfUnchanged,
    /// With the change times of files, too, which here are always young.
    ChangeTimes,
    Stream,
    FailingStream,
    DryRun,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Pack,
    Index,
    Snapshot,
    Pending,
    Key,
    Config,
    Settings,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Deleted,
    Cut,
    Flipped,
    /// It becomes what an older copy of the repository has in its place, or another object of its kind.
    Replaced,
}

/// Where a restore goes and how.
#[derive(Clone, Copy, Debug)]
pub struct Restoring {
    pub repository: usize,
    pub cache: usize,
    pub snapshot: usize,
    pub target: usize,
    pub overwrite: Overwrite,
    pub delete: bool,
    pub verify: bool,
    /// The whole snapshot below the target, instead of one source right into it.
    pub whole: bool,
    /// Leaves out this name.
    pub exclude: Option<usize>,
    pub include: Option<usize>,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Of a source, or after the sources of a target.
    Edit(usize, Edit),
    Backup(Actor, Fault),
    /// A backup that stops at a call; others go on beside it.
    Begin(usize, Actor, u64),
    /// It goes on for some calls.
    GoOn(usize, u64),
    Finish(usize),
    /// All running writers are taken for dead; the packs that no index object names are deleted.
    Expire {
        repository: usize,
        sweep: bool,
    },
    /// The same, and what no snapshot needs is deleted.
    Collect(usize),
    KeepRepository(usize),
    RollBack {
        repository: usize,
        copy: usize,
    },
    /// The second repository becomes a copy of the first, which has the same id.
    CopyRepository,
    Harm {
        repository: usize,
        object: Object,
        pick: usize,
        harm: Harm,
    },
    KeepCache(usize),
    /// A cache becomes what it once was.
    AgeCache(usize),
    WipeCache(usize),
    CopyCache {
        from: usize,
        to: usize,
    },
    /// A target becomes a copy of a source.
    CopyToTarget {
        source: usize,
        target: usize,
    },
    Restore(Restoring),
}

pub const SOURCES: usize = 2;
pub const TARGETS: usize = 2;
pub const CACHES: usize = 3;
pub const SLOTS: usize = 2;

fn actor(random: &mut Random) -> Actor {
    let hows =
        [How::Usual, How::Force, How::SkipIfUnchanged, How::ChangeTimes, How::Stream, How::FailingStream, How::DryRun];
    Actor {
        repository: usize::from(random.one_in(3)),
        source: random.weighted(&[5, 2, 1]),
        cache: random.weighted(&[5, 2, 1]),
        job: usize::from(random.one_in(5)),
        host: usize::from(random.one_in(6)),
        how: hows[random.weighted(&[16, 1, 1, 2, 1, 2, 1])],
    }
}

fn fault(random: &mut Random) -> Fault {
    match random.below(12) {
        0 | 1 => Fault::Killed { call: random.below(9) as u64, after: random.one_in(2) },
        2 => Fault::Broken { call: 3 + random.below(22) as u64 },
        3 => Fault::Once { call: random.below(9) as u64, after: random.one_in(2) },
        _ => Fault::None,
    }
}

fn restoring(random: &mut Random) -> Restoring {
    let overwrites = [Overwrite::IfChanged, Overwrite::Always, Overwrite::IfNewer, Overwrite::Never];
    let name = random.below(12);
    let rule = random.below(6);
    Restoring {
        repository: usize::from(random.one_in(3)),
        cache: random.below(CACHES),
        snapshot: random.below(8),
        target: random.below(TARGETS),
        overwrite: overwrites[random.weighted(&[5, 3, 2, 2])],
        delete: random.one_in(3),
        verify: random.one_in(4),
        whole: random.one_in(5),
        exclude: (rule == 0).then_some(name),
        include: (rule == 1).then_some(name),
        fault: if random.one_in(8) { Fault::Broken { call: 4 + random.below(30) as u64 } } else { Fault::None },
    }
}

fn harm(random: &mut Random) -> Step {
    let objects =
        [Object::Pack, Object::Index, Object::Snapshot, Object::Pending, Object::Key, Object::Config, Object::Settings];
    let harms = [Harm::Deleted, Harm::Cut, Harm::Flipped, Harm::Replaced];
    Step::Harm {
        repository: usize::from(random.one_in(3)),
        object: objects[random.weighted(&[8, 6, 2, 2, 1, 1])],
        pick: random.below(64),
        harm: harms[random.weighted(&[5, 2, 2, 2])],
    }
}

/// A step at random.
pub fn step(random: &mut Random) -> Step {
    match random.weighted(&[26, 26, 6, 4, 5, 4, 2, 5, 5, 3, 9, 3, 3, 2, 2, 3, 12]) {
        0 => {
            let edit = Edit { change: CHANGES[random.below(CHANGES.len())], seed: random.next() };
            Step::Edit(random.weighted(&[6, 3, 2, 1]), edit)
        }
        1 => Step::Backup(actor(random), fault(random)),
        2 => Step::Begin(random.below(SLOTS), actor(random), random.below(26) as u64),
        3 => Step::GoOn(random.below(SLOTS), 1 + random.below(6) as u64),
        4 => Step::Finish(random.below(SLOTS)),
        5 => Step::Expire { repository: usize::from(random.one_in(3)), sweep: !random.one_in(4) },
        6 => Step::Collect(usize::from(random.one_in(3))),
        7 => Step::KeepRepository(usize::from(random.one_in(3))),
        8 => Step::RollBack { repository: usize::from(random.one_in(3)), copy: random.below(4) },
        9 => Step::CopyRepository,
        10 => harm(random),
        11 => Step::KeepCache(random.below(CACHES)),
        12 => Step::AgeCache(random.below(CACHES)),
        13 => Step::WipeCache(random.below(CACHES)),
        14 => Step::CopyCache { from: random.below(CACHES), to: random.below(CACHES) },
        15 => Step::CopyToTarget { source: random.below(SOURCES), target: random.below(TARGETS) },
        _ => Step::Restore(restoring(random)),
    }
}

/// The sequence of a seed.
pub fn sequence(seed: u64) -> Vec<Step> {
    let random = &mut Random::new(seed);
    let length = 10 + random.below(16);
    (0..length).map(|_| step(random)).collect()
}
