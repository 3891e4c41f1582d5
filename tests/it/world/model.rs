//! What there is in a world, and what must come back from it.

use crate::fixture::{self, NEITHER, RENAMES, SWAPS};
use crate::world::capture::{Capture, capture};
use crate::world::random::Random;
use crate::world::run::Parked;
use crate::world::step::{CACHES, SLOTS, SOURCES, TARGETS};
use crate::world::tree::{self, CHANGES, Edit};
use siltstone::storage::{Capabilities, Local, Memory, Storage};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A law that was broken, in words.
pub type Broken = String;

/// One backup that was begun, and what its sources held.
pub struct Run {
    pub sources: Vec<(PathBuf, Arc<Capture>)>,
    pub stream: Option<Vec<u8>>,
    pub repository: usize,
    /// The event at which it began.
    pub begun: u64,
    /// Something that it relied on was taken away while it ran, after which no program can know it.
    pub is_tainted: bool,
    /// And it looked at the repository once more after that.
    pub has_looked: bool,
}

/// The model of a repository.
pub struct Place {
    pub storage: Arc<dyn Storage>,
    pub location: String,
    pub facts: Facts,
    pub copies: Vec<Copy>,
    pub is_changed: bool,
}

/// What is known about a repository in one state.
#[derive(Clone, Default)]
pub struct Facts {
    /// Snapshots by the number of their run, and whether they must come back whole.
    pub known: BTreeMap<usize, bool>,
    /// Damage was done that may keep every key from opening it.
    pub may_not_open: bool,
    /// Damage was done that may refuse every backup, and no reader.
    pub may_not_write: bool,
    /// Objects have their size and other bytes, which shows only when they are read.
    pub has_hidden_damage: bool,
    /// Packs were cut, what is left of which may be read or not.
    pub has_cut_packs: bool,
    /// Objects of snapshots were damaged, of which every listing warns.
    pub has_bad_snapshots: bool,
}

/// An older state of a repository.
#[derive(Clone)]
pub struct Copy {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub facts: Facts,
    pub taken: u64,
}

/// What carries out backups and restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// This process, over storage in memory.
    InProcess,
    /// The command, over folders.
    Command,
}

pub struct World {
    pub engine: Engine,
    pub folder: tempfile::TempDir,
    pub places: Vec<Place>,
    pub slots: Vec<Option<Parked>>,
    pub runs: Vec<Run>,
    /// Counts what happens.
    pub event: u64,
    pub clock: i64,
    pub random: Random,
    captures: Vec<Option<Arc<Capture>>>,
    scratch: u64,
    /// What happened, for the reader of a failing sequence.
    pub log: Vec<String>,
    pub is_loud: bool,
}

/// In memory where the system has such a place: thousands of trees are made and thrown away.
pub fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder is made")
}

impl World {
    /// A world in which nothing has been backed up; the seed decides what storage it has and what the sources hold.
    pub fn new(seed: u64, engine: Engine) -> World {
        let mut random = Random::new(seed ^ 0x0077_0a1d);
        let is_remote = random.one_in(4);
        let capabilities = [SWAPS, RENAMES, NEITHER][random.weighted(&[4, 4, 1])];
        let mut world = World {
            engine,
            folder: fast_folder(),
            places: Vec::new(),
            slots: (0..SLOTS).map(|_| None).collect(),
            runs: Vec::new(),
            event: 0,
            clock: 0,
            random,
            captures: vec![None; SOURCES + TARGETS],
            scratch: 0,
            log: Vec::new(),
            is_loud: false,
        };
        let storage = world.new_storage(capabilities, is_remote);
        fixture::init_small_chunks(storage.as_ref()).expect("an empty storage takes a repository");
        world.add_place(storage);
        world.plant();
        world
    }

    /// Storage for the next repository.
    pub fn new_storage(&self, capabilities: Capabilities, is_remote: bool) -> Arc<dyn Storage> {
        match self.engine {
            Engine::InProcess if is_remote => Arc::new(Memory::with_capabilities(capabilities).remote()),
            Engine::InProcess => Arc::new(Memory::with_capabilities(capabilities)),
            Engine::Command => {
                let folder = self.repository_folder(self.places.len());
                Arc::new(Local::create(&folder).expect("a folder is made"))
            }
        }
    }

    pub fn add_place(&mut self, storage: Arc<dyn Storage>) {
        let location = format!("memory {}", self.places.len());
        let mut place = Place { storage, location, facts: Facts::default(), copies: Vec::new(), is_changed: true };
        place.copies.push(Copy {
            objects: objects(place.storage.as_ref()),
            facts: Facts::default(),
            taken: self.event,
        });
        self.places.push(place);
    }

    fn plant(&mut self) {
        for place in 0..SOURCES + TARGETS {
            let root = self.tree(place);
            let area = root.parent().expect("it has a parent").to_owned();
            fs::create_dir_all(area.join("guard")).expect("made");
            fs::create_dir(&root).expect("made");
            for name in ["kept", "n1", "n2"] {
                fs::write(area.join("guard").join(name), name).expect("written");
            }
            let changes = if place < SOURCES { 4 + self.random.below(8) } else { 0 };
            for number in 0..changes {
                // Most of what is there at first is files.
                let change = match number % 3 {
                    0 => CHANGES[self.random.below(CHANGES.len())],
                    _ => tree::Change::Create,
                };
                let seed = self.random.next();
                tree::edit(&root, &Edit { change, seed }, &mut self.clock);
            }
        }
    }

    /// A source, or after the sources a target. Around each is an area that nothing may change.
    pub fn tree(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("area{number}")).join("tree")
    }

    pub fn target(&self, number: usize) -> PathBuf {
        self.tree(SOURCES + number % TARGETS)
    }

    pub fn cache(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("cache{}", number % CACHES))
    }

    pub fn kept_cache(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("kept-cache{}", number % CACHES))
    }

    /// A path at which nothing is.
    pub fn scratch(&mut self) -> PathBuf {
        self.scratch += 1;
        self.folder.path().join(format!("scratch{}", self.scratch))
    }

    pub fn place_number(&self, wanted: usize) -> usize {
        wanted % self.places.len()
    }

    pub fn is_in_use(&self, source: &Path) -> bool {
        self.slots.iter().flatten().any(|parked| self.runs[parked.run].sources.iter().any(|(path, _)| path == source))
    }

    pub fn edit(&mut self, number: usize, edit: &Edit) {
        let number = number % (SOURCES + TARGETS);
        let root = self.tree(number);
        if !self.is_in_use(&root) {
            tree::edit(&root, edit, &mut self.clock);
            self.captures[number] = None;
        }
    }

    /// What a source holds now.
    pub fn capture_source(&mut self, number: usize) -> Arc<Capture> {
        let root = self.tree(number);
        self.captures[number].get_or_insert_with(|| Arc::new(capture(&root))).clone()
    }

    /// Something was taken away from a repository that runs which go on may have relied on.
    pub fn taint_runs(&mut self, place: usize, begun_before: u64) {
        for parked in self.slots.iter().flatten() {
            let run = &mut self.runs[parked.run];
            if run.repository == place && run.begun <= begun_before {
                run.is_tainted = true;
                parked.forget_listings();
            }
        }
    }

    pub fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.is_loud {
            println!("    {what}");
        }
        self.log.push(what);
    }
}

/// All objects by name.
pub fn objects(storage: &dyn Storage) -> BTreeMap<String, Vec<u8>> {
    let listed = storage.list("").expect("it lists");
    let read = |name: &String| storage.get(name, 1 << 30).expect("it reads").0;
    listed.into_iter().map(|listed| (listed.name.clone(), read(&listed.name))).collect()
}

/// Makes a storage hold these objects and no other.
pub fn replace_objects(storage: &dyn Storage, wanted: &BTreeMap<String, Vec<u8>>) {
    let there = objects(storage);
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        storage.remove(name).expect("it removes");
    }
    for (name, bytes) in wanted.iter().filter(|(name, bytes)| there.get(*name) != Some(*bytes)) {
        storage.put(name, bytes.clone().into()).expect("it writes");
    }
}
