//! Enter directories: make what is missing, open what is there, follow links above sources, refuse what must stay.

use crate::disk::stat::fstat;
use crate::disk::{Stat, TargetDirectory, unfinished};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::restore::counts::{EntryFate, add};
use crate::restore::find_directory::FoundDirectory;
use crate::restore::folder::{FolderFacts, FolderState, OpenFolder, TargetFolder};
use crate::restore::location::DirectoryLocation;
use crate::restore::overlap::RestoredBefore;
use crate::restore::paths::{child_path, shown};
use crate::restore::reached::ReachedDirectory;
use crate::restore::reasons::SAME_NAME;
use crate::restore::run::RestoreRun;
use crate::restore::scope::is_repository_in_use;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a directory is entered for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EnterPurpose {
    /// Something is restored in it.
    Restore,
    /// Entries in it are deleted, if it is there.
    Delete,
}

impl RestoreRun<'_> {
    /// Creates or opens the directory and all above it. Returns None if something that stays has its name; that was
    /// reported.
    pub(crate) fn enter(&self, folder: &Arc<TargetFolder>) -> Result<Option<OpenFolder>> {
        self.enter_for(folder, EnterPurpose::Restore)
    }

    /// Enters a directory in which nothing is restored, without creating it. Returns None, silently, if it is missing or
    /// restores must not touch it.
    pub(crate) fn enter_existing(&self, folder: &Arc<TargetFolder>) -> Result<Option<OpenFolder>> {
        self.enter_for(folder, EnterPurpose::Delete)
    }

    fn enter_for(&self, folder: &Arc<TargetFolder>, purpose: EnterPurpose) -> Result<Option<OpenFolder>> {
        // Something may still be restored in a directory that was entered only to delete.
        let refuse = |chain: &[Arc<TargetFolder>]| {
            if purpose == EnterPurpose::Restore {
                chain.iter().for_each(|folder| folder.refuse());
            }
        };
        // A loop down the chain: depth must not cost stack.
        let mut chain = vec![folder.clone()];
        let mut here = loop {
            let last = chain.last().expect("it is never empty").clone();
            match last.state() {
                FolderState::Ready(here) => {
                    chain.pop();
                    break here;
                }
                FolderState::Refused => {
                    refuse(&chain);
                    return Ok(None);
                }
                FolderState::Unmade | FolderState::Closed(_) => {
                    chain.push(last.above.clone().expect("the top of the target is always ready"));
                }
            }
        };
        while let Some(next) = chain.pop() {
            let entered = self.enter_below(&here, &next, purpose);
            // On a long way down, all of it would be open at once.
            next.above.iter().for_each(|above| self.close_if_many(above));
            match entered? {
                Some(entered) => here = entered,
                None => {
                    refuse(&chain);
                    return Ok(None);
                }
            }
        }
        Ok(Some(here))
    }

    fn enter_below(
        &self,
        above: &OpenFolder,
        folder: &TargetFolder,
        purpose: EnterPurpose,
    ) -> Result<Option<OpenFolder>> {
        // One thread at a time: the second one finds it made.
        let _making = folder.making();
        match folder.state() {
            FolderState::Ready(here) => return Ok(Some(here)),
            FolderState::Refused => return Ok(None),
            FolderState::Closed(facts) => return self.open_again(above, folder, facts).map(Some),
            FolderState::Unmade => {}
        }
        let entry = folder.entry.as_ref().expect("only the top of the target may have none");
        let parent = folder.above.as_ref().expect("it is below another one");
        if purpose == EnterPurpose::Restore
            && let RestoredBefore::Other(other) = self.restored_before(parent, above, entry)?
        {
            self.met(folder.path.clone(), &other);
            folder.refuse();
            return Ok(None);
        }
        let found = match &above.target {
            Some(target) if above.facts.taken => self.find(above, target, folder, entry)?,
            _ => above.facts.refuses.map_or(FoundDirectory::Missing, FoundDirectory::Refused),
        };
        if purpose == EnterPurpose::Delete && !self.may_be_entered(&found)? {
            return Ok(None);
        }
        let made = match &above.target {
            None => self.plan_to_make(above, folder, entry)?,
            Some(target) => self.make_or_open(above, target, folder, entry, found)?,
        };
        let Some(here) = made else {
            folder.refuse();
            return Ok(None);
        };
        add(&self.counts.directories, 1);
        if !here.facts.taken {
            // An unmade one in a plan, or one that was just made.
            let fate = if here.facts.replaces { EntryFate::Replaced } else { EntryFate::Created };
            self.fate(fate, || folder.path.clone());
        }
        self.rehearse_directory(folder, &here)?;
        folder.set(here.clone(), &self.open_folders);
        Ok(Some(here))
    }

    /// Whether a directory is there that a restore works in.
    fn may_be_entered(&self, found: &FoundDirectory) -> Result<bool> {
        match found {
            FoundDirectory::Closed(_) => Ok(true),
            FoundDirectory::Opened(found, _) | FoundDirectory::Followed(found) => {
                Ok(!self.scope.is_own(&fstat(found)?) && !is_repository_in_use(self.repo, found))
            }
            FoundDirectory::Missing | FoundDirectory::Refused(_) | FoundDirectory::InTheWay => Ok(false),
        }
    }

    fn make_or_open(
        &self,
        above: &OpenFolder,
        target: &Arc<TargetDirectory>,
        folder: &TargetFolder,
        entry: &Entry,
        found: FoundDirectory,
    ) -> Result<Option<OpenFolder>> {
        let refuse = |why: &str| {
            self.blocked_at(folder.path.clone(), why);
            Ok(None)
        };
        let parent = folder.above.as_ref().expect("it is below another one");
        if matches!(found, FoundDirectory::Missing | FoundDirectory::InTheWay) {
            parent.changed.store(true, Ordering::Relaxed);
        }
        match found {
            FoundDirectory::Opened(directory, opened_up) => self.take(above, folder, entry, directory, opened_up),
            FoundDirectory::Followed(directory) => self.take_followed(above, folder, entry, directory),
            FoundDirectory::Refused(why) => refuse(why),
            FoundDirectory::Closed(stat) if !self.is_first(self.met_closed(above, folder, entry, &stat)?, folder) => {
                Ok(None)
            }
            FoundDirectory::Closed(stat) => {
                if folder.inside && folder.wanted {
                    let applies = self.applies(&stat, entry, self.changes_directory(&stat, entry));
                    self.count_directory(&folder.path, entry, &stat, None, applies);
                }
                Ok(Some(self.closed(above, folder, &stat)))
            }
            FoundDirectory::Missing if !self.is_restore() => self.plan_to_make(above, folder, entry),
            FoundDirectory::Missing => {
                match self.in_folder(parent, target, |target| target.create_directory(&entry.name, &entry.meta)) {
                    Ok((made, current)) => {
                        self.note_made(&made, folder, entry)?;
                        Ok(Some(self.made(above, Some((made, current)))))
                    }
                    // On a file system that takes two names for one, it is what another entry became.
                    Err(error) if error.is(Kind::AlreadyExists) => refuse(SAME_NAME),
                    Err(error) => Err(error),
                }
            }
            FoundDirectory::InTheWay => {
                let made = if self.is_restore() {
                    Some(self.in_folder(parent, target, |target| replace_by_directory(target, entry))?)
                } else {
                    None
                };
                let mut here = match made {
                    None => match self.plan_to_make(above, folder, entry)? {
                        Some(here) => here,
                        None => return Ok(None),
                    },
                    Some(made) => {
                        self.note_made(&made.0, folder, entry)?;
                        self.made(above, Some(made))
                    }
                };
                here.facts.replaces = true;
                Ok(Some(here))
            }
        }
    }

    /// Records a directory that this run made, where another way may lead to it.
    fn note_made(&self, made: &TargetDirectory, folder: &TargetFolder, entry: &Entry) -> Result<()> {
        if self.overlap().is_some() {
            let identity = fstat(made.directory())?.identity();
            self.met_before(
                &ReachedDirectory::made(identity),
                || DirectoryLocation::of(made.directory()),
                folder,
                entry,
            )?;
        }
        Ok(())
    }

    /// In a plan, a directory that the restore will make. None if another way leads to it, too, and was first.
    fn plan_to_make(&self, above: &OpenFolder, folder: &TargetFolder, entry: &Entry) -> Result<Option<OpenFolder>> {
        let mut here = self.made(above, None);
        let Some(imagined) = self.imagined(above, entry)? else { return Ok(Some(here)) };
        here.facts.imagined = Some(imagined.identity);
        here.facts.taken = !imagined.is_first;
        let location = || Err(Error::new(Kind::NotFound, "find", shown(&folder.path)));
        let before = self.met_before(&ReachedDirectory::made(imagined.identity), location, folder, entry)?;
        Ok(self.is_first(before, folder).then_some(here))
    }

    /// In a plan, whether a directory that the restore will open up was restored before.
    fn met_closed(
        &self,
        above: &OpenFolder,
        folder: &TargetFolder,
        entry: &Entry,
        stat: &Stat,
    ) -> Result<RestoredBefore> {
        let (Some(overlap), Some(target)) = (self.overlap(), &above.target) else { return Ok(RestoredBefore::No) };
        let reached = ReachedDirectory::of(target.directory(), stat, overlap.mounts.as_ref());
        let location = || {
            let above = DirectoryLocation::of(target.directory())?;
            Ok(DirectoryLocation::at(child_path(&above.path, &entry.name), stat))
        };
        self.met_before(&reached, location, folder, entry)
    }

    /// Whether nothing was restored into a directory through another way; if something was, that is reported.
    pub(super) fn is_first(&self, before: RestoredBefore, folder: &TargetFolder) -> bool {
        match before {
            RestoredBefore::No => return true,
            RestoredBefore::Same => self.fate(EntryFate::Kept, || folder.path.clone()),
            RestoredBefore::SameBut { other, places } => {
                self.overlap().iter().for_each(|overlap| overlap.blocks());
                self.blocked_at(folder.path.clone(), &same_but(&other, places.as_deref()));
            }
            RestoredBefore::Other(other) => self.met(folder.path.clone(), &other),
        }
        false
    }

    /// Facts of a directory that this run makes; in a plan there is none yet.
    fn made(&self, above: &OpenFolder, made: Option<(TargetDirectory, crate::disk::CurrentMetadata)>) -> OpenFolder {
        let (target, current) = made.map(|(target, current)| (Arc::new(target), current)).unzip();
        let facts = FolderFacts {
            is_new: true,
            current,
            apply: true,
            group: above.facts.group,
            mounted: above.facts.mounted,
            keeps_extra: above.facts.keeps_extra,
            deletes_on: above.facts.deletes_on,
            ..FolderFacts::default()
        };
        OpenFolder { target, facts }
    }
}

fn replace_by_directory(
    target: &TargetDirectory,
    entry: &Entry,
) -> Result<(TargetDirectory, crate::disk::CurrentMetadata)> {
    let name = unfinished::next_name();
    let made = target.create_directory(&name, &entry.meta)?;
    if let Err(error) = target.exchange(&name, &entry.name, false) {
        let _best_effort = target.remove_directory(&name);
        return Err(error);
    }
    Ok(made)
}

/// Why a directory was not restored a second time, and what that leaves out.
fn same_but(other: &[u8], places: Option<&[Vec<u8>]>) -> String {
    let other = shown(other);
    match places {
        None => format!(
            "it is the same directory as {other} and was restored there; what is mounted below the two cannot be told: restore it by \
             itself"
        ),
        Some(places) => {
            let places: Vec<String> = places.iter().map(|place| shown(place)).collect();
            format!(
                "it is the same directory as {other} and was restored there; but what is mounted below the two differs, so these are \
                 left: restore each by itself: {}",
                places.join(", ")
            )
        }
    }
}
