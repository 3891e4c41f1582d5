//! The second step for hard links: links the further names to the one that was restored (`links.rs` collects them).

use crate::disk::apply::apply_flags;
use crate::disk::foresee::is_protected_from_links;
use crate::disk::open::open_file;
use crate::disk::{Identity, Stat, Subject, TargetDirectory, flags, rights, unfinished};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::counts::{EntryFate, add};
use crate::restore::decision::{EntryDecision, PlacingWay};
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::links::{LinkAnchor, Linkable, WaitingName};
use crate::restore::paths::child_path;
use crate::restore::reasons::SAME_NAME;
use crate::restore::rename_into_place::under_own_name;
use crate::restore::run::RestoreRun;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const NOT_LINKED: &str = "it could not be linked to its other name, and was restored as an entry of its own";

impl RestoreRun<'_> {
    /// Whether the content of an entry is that of another name that was asked about before.
    pub(crate) fn is_counted(&self, entry: &Entry) -> bool {
        entry.link_group != 0 && !locked(&self.links).counted.insert(entry.link_group)
    }

    /// Whether equal size and time are not enough for an existing name, because other names will be linked to it.
    pub(crate) fn must_compare(&self, entry: &Entry) -> bool {
        entry.link_group != 0 && locked(&self.links).to_compare.contains(&entry.link_group)
    }

    /// Restores a name of an inode with several, or puts it off until all are known.
    pub(crate) fn restore_linked(&self, folder: &Arc<TargetFolder>, here: &OpenFolder, entry: &Entry) -> Result<()> {
        // Nothing is linked there; and names elsewhere cannot be linked to what is on another mount.
        if here.facts.is_read_only {
            return self.restore_single(folder, here, entry).map(drop);
        }
        {
            let mut links = locked(&self.links);
            if !rights::opens_everything() {
                links.hold_with_parents(folder);
            }
            match links.anchors.entry(entry.link_group) {
                Slot::Vacant(slot) if self.target.is_fresh.get() == Some(&true) => {
                    slot.insert(None);
                }
                _ => {
                    links.hold(folder);
                    links.others.push((folder.clone(), entry.clone()));
                    return Ok(());
                }
            }
        }
        self.restore_anchor(folder, here, entry, false)
    }

    /// Restores a name by itself. Never links other names to a file of the user that was kept. `is_told`: it was
    /// reported that this one cannot be linked.
    fn restore_anchor(
        &self,
        folder: &Arc<TargetFolder>,
        here: &OpenFolder,
        entry: &Entry,
        is_told: bool,
    ) -> Result<()> {
        let how = self.restore_single(folder, here, entry)?;
        let mut links = locked(&self.links);
        match how {
            Linkable::No | Linkable::Late => return Ok(()),
            Linkable::Unmended => {
                links.unmended.insert(entry.link_group);
                return Ok(());
            }
            Linkable::Old | Linkable::New => {}
        }
        let anchor = LinkAnchor { folder: folder.clone(), name: entry.name.clone(), how };
        links.anchors.insert(entry.link_group, Some(anchor));
        if entry.meta.flags != 0 && entry.kind.has_content() {
            links.locks.push((folder.clone(), entry.clone()));
        }
        let is_apart = !is_told && how == Linkable::New && links.unmended.contains(&entry.link_group);
        drop(links);
        if is_apart {
            self.warn(&child_path(&folder.path, &entry.name), NOT_LINKED);
        }
        Ok(())
    }

    /// Makes the links that were put off, then sets flags and finishes the directories that waited for that.
    pub(crate) fn make_links(&self) {
        let (others, held) = {
            let mut links = locked(&self.links);
            (std::mem::take(&mut links.others), std::mem::take(&mut links.held))
        };
        let mut groups: BTreeMap<u64, Vec<WaitingName>> = BTreeMap::new();
        for (folder, entry) in others {
            groups.entry(entry.link_group).or_default().push((folder, entry));
        }
        groups.into_values().collect::<Vec<_>>().into_par_iter().for_each(|names| self.make_group(names));
        self.set_flags();
        self.restore_late();
        self.finish_held(held);
    }

    fn set_flags(&self) {
        // Not in the head of the loop, which would keep the lock: what enters a directory may need it.
        let locks = std::mem::take(&mut locked(&self.links).locks);
        for (folder, entry) in locks {
            let path = child_path(&folder.path, &entry.name);
            match self.enter(&folder) {
                Ok(Some(OpenFolder { target: Some(target), .. })) if self.is_restore() => {
                    let subject = Subject::Named(target.directory(), &entry.name);
                    self.report_losses(&path, apply_flags(subject, &entry.meta, EntryKind::File).into_iter().collect());
                }
                Ok(_) => {}
                Err(error) => self.failed_entry(&path, error),
            }
            self.close_if_many(&folder);
        }
    }

    /// For a plan: one of the names of an inode goes before anything is decided about the others.
    pub(crate) fn forget_link(&self, stat: &Stat) {
        if stat.links > 1 {
            self.target.has_linked.store(true, Ordering::Relaxed);
            let mut links = locked(&self.links);
            let before = links.before.entry(stat.identity()).or_insert(stat.links);
            *before = before.saturating_sub(1);
        }
    }

    /// How many names an inode in the target had before this run. To be asked before anything is done to one of them.
    pub(crate) fn links_before(&self, stat: &Stat) -> u32 {
        if stat.links > 1 {
            self.target.has_linked.store(true, Ordering::Relaxed);
        } else if !self.target.has_linked.load(Ordering::Relaxed) {
            return stat.links;
        }
        let mut links = locked(&self.links);
        if stat.links > 1 {
            *links.before.entry(stat.identity()).or_insert(stat.links)
        } else {
            links.before.get(&stat.identity()).copied().unwrap_or(stat.links)
        }
    }

    /// Makes the names of one inode, of which another may be there already.
    fn make_group(&self, mut names: Vec<WaitingName>) {
        names.sort_by_cached_key(|(folder, entry)| child_path(&folder.path, &entry.name));
        let has_anchor = locked(&self.links).anchors.get(&names[0].1.link_group).is_some_and(Option::is_some);
        let there: Vec<Option<Stat>> = names.iter().map(|(folder, entry)| self.found(folder, entry)).collect();
        let modified = names[0].1.meta.modified;
        let is_right = |stat: &Option<Stat>| stat.is_some_and(|stat| stat.modified == modified);
        if !has_anchor && let Some(at) = there.iter().position(is_right) {
            let right = there[at].map(|stat| stat.identity());
            if there.iter().any(|stat| stat.map(|stat| stat.identity()) != right) {
                locked(&self.links).to_compare.insert(names[0].1.link_group);
            }
            // Others are linked to it, so that it stays.
            names[..=at].rotate_right(1);
        }
        let mut of_inode: HashMap<Identity, u32> = HashMap::new();
        for stat in there.iter().flatten() {
            *of_inode.entry(stat.identity()).or_default() += 1;
        }
        if there.iter().flatten().any(|stat| self.links_before(stat) > of_inode[&stat.identity()]) {
            locked(&self.links).shared.insert(names[0].1.link_group);
        }
        let group = names[0].1.link_group;
        for (folder, entry) in names {
            if !self.should_stop()
                && let Err(error) = self.make_other(&folder, &entry)
            {
                self.failed_entry(&child_path(&folder.path, &entry.name), error);
            }
            self.close_if_many(&folder);
        }
        let anchor = locked(&self.links).anchors.get(&group).cloned().flatten();
        anchor.iter().for_each(|anchor| self.close_if_many(&anchor.folder));
    }

    /// A name that is in the target with the kind and size that it was saved with.
    fn found(&self, folder: &Arc<TargetFolder>, entry: &Entry) -> Option<Stat> {
        let Ok(Some(OpenFolder { target: Some(target), facts })) = self.enter(folder) else { return None };
        let kind = entry.kind_of_inode();
        let stat = target.directory().stat(entry.name.as_slice()).ok().filter(|stat| facts.taken && stat.is(kind))?;
        (kind != EntryKind::File || stat.size == entry.size).then_some(stat)
    }

    fn make_other(&self, folder: &Arc<TargetFolder>, entry: &Entry) -> Result<()> {
        let Some(here) = self.enter(folder)? else { return Ok(()) };
        let anchor = locked(&self.links).anchors.get(&entry.link_group).cloned().flatten();
        let Some(anchor) = anchor else { return self.restore_anchor(folder, &here, entry, false) };
        let Some(from) = self.enter(&anchor.folder)? else { return self.restore_anchor(folder, &here, entry, false) };
        let way = match self.decide_link(folder, &here, &from, &anchor, entry)? {
            Some(way) => way,
            None => return Ok(()),
        };
        if self.refuses_links(&from, &anchor, entry)? {
            self.warn(&child_path(&folder.path, &entry.name), NOT_LINKED);
            return self.restore_anchor(folder, &here, entry, true);
        }
        let count = if entry.kind.has_content() { &self.counts.files } else { &self.counts.others };
        let (Some(target), Some(source), true) = (&here.target, &from.target, self.is_restore()) else {
            if here.facts.mounted != from.facts.mounted {
                self.warn(&child_path(&folder.path, &entry.name), NOT_LINKED);
            }
            if self.plan_way(folder, &here, entry, way, || Ok(()))? {
                add(count, 1);
            }
            return Ok(());
        };
        // A link is whole as soon as it is there: where nothing has its name it needs no other one first.
        let name =
            if way == PlacingWay::New { Cow::Borrowed(&entry.name) } else { Cow::Owned(unfinished::next_name()) };
        match self.link(folder, target, &name, source, &anchor, entry) {
            Ok(()) => {}
            Err(error) if way == PlacingWay::New && error.is(Kind::AlreadyExists) => {
                self.blocked(folder, entry, SAME_NAME);
                return Ok(());
            }
            Err(error) if matches!(error.kind(), Kind::Full | Kind::Cancelled) => {
                return Err(under_own_name(error, &name, entry));
            }
            // The file system has no hard links, or not that many, or the other name is on another one.
            Err(_) => {
                self.warn(&child_path(&folder.path, &entry.name), NOT_LINKED);
                return self.restore_anchor(folder, &here, entry, true);
            }
        }
        if way == PlacingWay::New {
            self.fate(EntryFate::Created, || child_path(&folder.path, &entry.name));
        } else if !self.put_in_place(folder, &here, target, &name, entry, way)? {
            return Ok(());
        }
        add(count, 1);
        self.progress(1, entry.size);
        Ok(())
    }

    /// What has the name of a link: None when it stays, which was counted.
    fn decide_link(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        from: &OpenFolder,
        anchor: &LinkAnchor,
        entry: &Entry,
    ) -> Result<Option<PlacingWay>> {
        let (Some(target), true) = (&here.target, here.facts.taken) else { return Ok(Some(PlacingWay::New)) };
        // In a plan a new one is not there yet: what has another name is the inode that it will replace.
        if let Some(source) = from.target.as_ref().filter(|_| self.is_restore() || anchor.how == Linkable::Old)
            && is_linked(target, &entry.name, source, &anchor.name)?
        {
            self.fate(EntryFate::Kept, || child_path(&folder.path, &entry.name));
            self.progress(1, entry.size);
            return Ok(None);
        }
        match self.decide(folder, here, entry)? {
            EntryDecision::Make(way) => return Ok(Some(way)),
            // Links are made last in any case.
            EntryDecision::Late => return Ok(Some(PlacingWay::OverDirectory)),
            // Up to date by itself, but another inode than the one it is a name of.
            EntryDecision::UpToDate(existing) if existing.restores_metadata => match self.stays(here, &existing.stat) {
                None => return Ok(Some(PlacingWay::Over)),
                Some(why) => self.blocked(folder, entry, why),
            },
            EntryDecision::UpToDate(existing) => {
                self.kept_as_it_is(target, entry, &existing, || child_path(&folder.path, &entry.name));
            }
            EntryDecision::Left => self.left(folder, entry),
            EntryDecision::Blocked(why) => self.blocked(folder, entry, why),
        }
        Ok(None)
    }

    /// Whether an existing anchor cannot get further names: it is immutable or append-only, and was not saved so. One
    /// that was saved so is unlocked for the moment, and gets its flags back.
    fn refuses_links(&self, from: &OpenFolder, anchor: &LinkAnchor, entry: &Entry) -> Result<bool> {
        let (Some(source), Linkable::Old) = (&from.target, anchor.how) else { return Ok(false) };
        let is_unlocked = is_saved_locked(entry) && rights::may_lock_files();
        let stat = source.directory().stat(anchor.name.as_slice())?;
        Ok((!is_unlocked && stat.is_fixed) || is_protected_from_links(source.directory(), &anchor.name, &stat))
    }

    fn link(
        &self,
        folder: &TargetFolder,
        target: &TargetDirectory,
        name: &[u8],
        source: &TargetDirectory,
        anchor: &LinkAnchor,
        entry: &Entry,
    ) -> Result<()> {
        let link = |target: &TargetDirectory| target.create_hard_link(name, source.directory(), &anchor.name);
        match self.in_folder(folder, target, link) {
            // An immutable inode gets no more names until it is unlocked; its flags come back at the end.
            Err(error) if error.is(Kind::Denied) && is_saved_locked(entry) => {
                let fd = open_file(source.directory(), anchor.name.as_slice())?;
                let mut lock = renamed(entry, &anchor.name);
                lock.meta.flags |= flags::unlock(&fd)?;
                locked(&self.links).locks.push((anchor.folder.clone(), lock));
                link(target)
            }
            other => other,
        }
    }
}

fn is_saved_locked(entry: &Entry) -> bool {
    flags::has_locking(entry.meta.flags) && entry.kind.has_content()
}

fn renamed(entry: &Entry, name: &[u8]) -> Entry {
    Entry { name: name.to_vec(), ..entry.clone() }
}

fn is_linked(target: &TargetDirectory, name: &[u8], source: &TargetDirectory, anchor: &[u8]) -> Result<bool> {
    let found = |found: Result<Stat>| match found {
        Ok(stat) => Ok(Some(stat.identity())),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err::<_, Error>(error),
    };
    let there = found(target.directory().stat(name))?;
    Ok(there.is_some() && there == found(source.directory().stat(anchor))?)
}
