//! What happens to repositories and caches without silt.

use crate::fixture::copy_files;
use crate::world::model::{Broken, Copy, World, objects, replace_objects};
use crate::world::run::Parked;
use crate::world::step::{Harm, Object};
use siltstone::error::Result;
use siltstone::format::{decode_index, index_name, pack_name};
use siltstone::id::{ChunkId, IndexId, PackId};
use siltstone::lease::{expire, survey};
use siltstone::repo::Repository;
use siltstone::seal::open_object;
use siltstone::storage::Storage;
use siltstone::watch::Watch;
use std::collections::{BTreeMap, HashSet};
use std::fs;

/// Older states that are kept of each repository.
const COPIES_MAX: usize = 4;

/// Packs with their chunks.
type Packs = Vec<(PackId, Vec<ChunkId>)>;

/// Every index object with the packs that it names and their chunks.
fn indexes(repo: &Repository, storage: &dyn Storage) -> Result<Vec<(IndexId, Packs)>> {
    let mut found = Vec::new();
    for listed in storage.list("index/")? {
        let id = IndexId::from_hex(&listed.name["index/".len()..])?;
        let plain = open_object(repo.keys(), "index", &storage.get(&listed.name, 1 << 30)?.0, 1 << 30)?;
        let packs = decode_index(&plain)?.into_iter().map(|pack| {
            let chunks = pack.frames.iter().flat_map(|frame| frame.chunks.iter().map(|(id, _)| *id)).collect();
            (pack.pack, chunks)
        });
        found.push((id, packs.collect()));
    }
    Ok(found)
}

impl World {
    /// Does what a collector does to writers that it takes for dead, and to packs that nothing names. Best effort: what
    /// cannot be read ends it, as it ends a collector.
    pub fn expire(&mut self, place: usize, sweep: bool) {
        let cache = self.scratch();
        let storage = self.places[place].storage.clone();
        let done = crate::fixture::open(storage.clone(), &cache).and_then(|repo| {
            let protocol = repo.settings()?.commit_protocol;
            for running in survey(storage.as_ref(), repo.keys())?.running {
                expire(storage.as_ref(), repo.keys(), protocol, &running)?;
            }
            let named: HashSet<String> = indexes(&repo, storage.as_ref())?
                .iter()
                .flat_map(|(_, packs)| packs)
                .map(|(pack, _)| pack_name(pack))
                .collect();
            for pack in storage.list("packs/")?.iter().filter(|pack| sweep && !named.contains(&pack.name)) {
                storage.remove(&pack.name)?;
            }
            Ok(())
        });
        self.places[place].is_changed = true;
        self.say(format!("writers of repository {place} expired: {:?}", done.map_err(|error| error.to_string())));
        let _gone = fs::remove_dir_all(cache);
    }

    /// Removes the index objects, and then the packs, of which no snapshot needs a chunk.
    pub fn collect(&mut self, place: usize) {
        self.expire(place, true);
        let cache = self.scratch();
        let storage = self.places[place].storage.clone();
        let done = crate::fixture::open(storage.clone(), &cache).and_then(|repo| {
            let live = live_chunks(&repo)?;
            let indexes = indexes(&repo, storage.as_ref())?;
            let needed = |packs: &[(PackId, Vec<ChunkId>)]| {
                packs.iter().any(|(_, chunks)| chunks.iter().any(|chunk| live.contains(chunk)))
            };
            let (kept, gone): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|(_, packs)| needed(packs));
            let kept: HashSet<PackId> =
                kept.iter().flat_map(|(_, packs)| packs.iter().map(|(pack, _)| *pack)).collect();
            for (index, packs) in gone {
                storage.remove(&index_name(&index))?;
                for (pack, _) in packs.iter().filter(|(pack, _)| !kept.contains(pack)) {
                    storage.remove(&pack_name(pack))?;
                }
            }
            Ok(())
        });
        self.say(format!("repository {place} collected: {:?}", done.map_err(|error| error.to_string())));
        let _gone = fs::remove_dir_all(cache);
    }

    pub fn keep_repository(&mut self, place: usize) {
        let taken = self.event;
        let place = &mut self.places[place];
        let copy = Copy { objects: objects(place.storage.as_ref()), facts: place.facts.clone(), taken };
        if place.copies.len() == COPIES_MAX {
            place.copies.remove(1);
        }
        place.copies.push(copy);
    }

    pub fn roll_back(&mut self, place: usize, copy: usize) {
        let copies = &self.places[place].copies;
        let copy = copies[copy % copies.len()].clone();
        let committed: Vec<usize> = self.places[place].facts.known.keys().copied().collect();
        replace_objects(self.places[place].storage.as_ref(), &copy.objects);
        self.places[place].facts = copy.facts;
        self.places[place].is_changed = true;
        // A run whose object is in the older copy, too, cannot see that what came after it is gone.
        self.taint_runs(place, copy.taken);
        // Nor can one that has made its commit step; and another that saw that step may still put it in its place.
        let kept = &self.places[place].facts.known;
        let parked = self.slots.iter().flatten();
        let past =
            parked.filter(|parked| self.runs[parked.run].repository == place && parked.may_be_past_its_last_look());
        let past: Vec<usize> = past.map(|parked| parked.run).collect();
        for number in committed.into_iter().filter(|number| !kept.contains_key(number)).chain(past) {
            self.runs[number].is_tainted = true;
            self.slots.iter().flatten().filter(|parked| parked.run == number).for_each(Parked::forget_listings);
        }
        self.say(format!("repository {place} is as it was at event {}", copy.taken));
    }

    /// A second repository that is a copy of the first.
    pub fn copy_repository(&mut self) {
        let facts = self.places[0].facts.clone();
        if self.places.len() == 1 {
            let storage =
                self.new_storage(self.places[0].storage.capabilities(), self.places[0].storage.profile().is_remote);
            self.add_place(storage);
        }
        let first = objects(self.places[0].storage.as_ref());
        replace_objects(self.places[1].storage.as_ref(), &first);
        let second = &mut self.places[1];
        second.facts = facts;
        second.is_changed = true;
        second.copies.clear();
        self.keep_repository(1);
        self.taint_runs(1, u64::MAX);
    }

    pub fn harm(&mut self, place: usize, object: Object, pick: usize, harm: Harm) -> std::result::Result<(), Broken> {
        // Something that holds before the damage, so that the damage alone explains what is missing after it.
        if self.places[place].is_changed {
            self.check_place(place)?;
        }
        let storage = self.places[place].storage.clone();
        let all = objects(storage.as_ref());
        let prefix = match object {
            Object::Pack => "packs/",
            Object::Index => "index/",
            Object::Snapshot => "snapshots/",
            Object::Pending => "pending/",
            Object::Key => "keys/",
            Object::Config => "config",
            Object::Settings => "settings",
        };
        let mut names: Vec<&String> = all.keys().filter(|name| name.starts_with(prefix)).collect();
        // Names are random, sizes hardly: the same seed takes the same object again.
        names.sort_by_key(|name| (all[*name].len(), (*name).clone()));
        let Some(name) = (!names.is_empty()).then(|| names[pick % names.len()].clone()) else { return Ok(()) };
        let bytes = all[&name].clone();
        let harmed = harmed(&bytes, harm, pick, &name, &self.older(place, &name), &all);
        if harmed.as_ref() == Some(&bytes) {
            return Ok(());
        }
        let has_same_size = harmed.as_ref().is_some_and(|now| now.len() == bytes.len());
        let facts = &mut self.places[place].facts;
        facts.may_not_open |= matches!(object, Object::Key | Object::Config);
        facts.may_not_write |= object == Object::Settings;
        facts.has_bad_snapshots |= matches!(object, Object::Snapshot | Object::Pending);
        facts.has_cut_packs |= object == Object::Pack && harmed.is_some();
        facts.has_hidden_damage |= has_same_size && matches!(object, Object::Pack | Object::Index);
        match harmed {
            Some(now) => storage.put(&name, now.into()).expect("it writes"),
            None => storage.remove(&name).expect("it removes"),
        }
        self.say(format!("{name} of repository {place} was {harm:?}"));
        self.taint_runs(place, u64::MAX);
        self.check_damaged(place, object)
    }

    /// What an older copy of the repository has under a name.
    fn older(&self, place: usize, name: &str) -> Vec<Vec<u8>> {
        self.places[place].copies.iter().filter_map(|copy| copy.objects.get(name).cloned()).collect()
    }

    pub fn keep_cache(&mut self, cache: usize) {
        copy_files(&self.cache(cache), &self.kept_cache(cache));
    }

    pub fn copy_cache(&mut self, from: usize, to: usize) {
        if self.cache(from) != self.cache(to) {
            copy_files(&self.cache(from), &self.cache(to));
        }
    }

    /// A cache becomes what was kept of it, or nothing.
    pub fn age_cache(&mut self, cache: usize) {
        copy_files(&self.kept_cache(cache), &self.cache(cache));
    }
}

/// What becomes of an object; None when it is gone.
fn harmed(
    bytes: &[u8],
    harm: Harm,
    pick: usize,
    name: &str,
    older: &[Vec<u8>],
    all: &BTreeMap<String, Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let at = (pick * 7919) % bytes.len().max(1);
    match harm {
        Harm::Deleted => return None,
        Harm::Cut => bytes.truncate(at),
        Harm::Flipped => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (pick % 8);
            }
        }
        Harm::Replaced => {
            let folder = name.split('/').next().unwrap_or_default();
            let others = all.iter().filter(|(other, _)| other.starts_with(folder) && *other != name);
            let others: Vec<&Vec<u8>> = older.iter().chain(others.map(|(_, bytes)| bytes)).collect();
            if !others.is_empty() {
                bytes = others[pick % others.len()].clone();
            }
        }
    }
    Some(bytes)
}

/// Every chunk that a snapshot names.
fn live_chunks(repo: &Repository) -> Result<HashSet<ChunkId>> {
    let reader = repo.reader();
    let mut live = HashSet::new();
    let mut trees: Vec<ChunkId> = repo.snapshots(&Watch::silent())?.iter().map(|snapshot| snapshot.root).collect();
    while let Some(tree) = trees.pop() {
        if !live.insert(tree) {
            continue;
        }
        for entry in reader.directory(&tree)? {
            if let siltstone::entry::Content::List { root, .. } = &entry.content {
                live.insert(*root);
            }
            reader.for_each_chunk(&entry, &mut |id| {
                live.insert(*id);
                Ok(())
            })?;
            if let siltstone::entry::Content::Tree(below) = &entry.content {
                trees.push(*below);
            }
        }
        live.extend(reader.leaf_pages(&tree)?);
    }
    Ok(live)
}
