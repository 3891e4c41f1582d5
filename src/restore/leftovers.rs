//! What killed restores left in a directory. Unfinished files and empty directories are removed; the rest of a replaced
//! directory is deleted only with `--delete`, when the plan names it.

use crate::disk::{Directory, ListBuffer, NameList, Stat, TargetDirectory, unfinished};
use crate::entry::EntryKind;
use crate::error::{Kind, Result};
use crate::lock::locked;
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::paths::{child_path, shown};
use crate::restore::run::{RestoreRun, RunMode};
use crate::watch::NoticeKind;

impl RestoreRun<'_> {
    /// Removes what killed restores left in a directory and notes what must stay for now. A plan removes nothing.
    pub(crate) fn remove_leftovers(&self, folder: &TargetFolder, target: &TargetDirectory) -> Result<()> {
        if !self.compares() {
            return Ok(());
        }
        let listed = match list(target.directory()) {
            // A directory of another user in which nothing can be removed.
            Err(error) if error.is(Kind::Denied) => return Ok(()),
            listed => listed?,
        };
        for (name, _) in listed.iter().filter(|(name, _)| unfinished::is_leftover(name.to_bytes())) {
            let Ok(stat) = target.directory().stat(name) else { continue };
            if !is_removable(&stat) {
                continue;
            }
            let name = name.to_bytes();
            // What cannot be removed now does no harm.
            if !stat.is(EntryKind::Directory) {
                if self.is_restore() { drop(target.remove_name(name)) } else { self.forget_link(&stat) }
            } else if is_filled(target.directory(), name) {
                locked(&folder.names.leftovers).push(name.to_vec());
            } else {
                let _best_effort = self.is_restore().then(|| target.remove_directory(name));
            }
        }
        Ok(())
    }

    /// Says what is left of directories that had to make way, once it is known what is deleted in their directory.
    pub(crate) fn tell_leftovers(&self, folder: &TargetFolder, here: &OpenFolder) {
        let Some(target) = &here.target else { return };
        let leftovers = std::mem::take(&mut *locked(&folder.names.leftovers));
        for name in leftovers {
            let path = child_path(&folder.path, &name);
            let stays = match &self.mode {
                RunMode::Plan(planning) => !locked(&planning.deletions).contains(&path),
                RunMode::Restore { .. } => target.directory().stat(name.as_slice()).is_ok(),
            };
            if stays {
                let advice = if folder.inside {
                    "restore with --delete, and without --include and --exclude, to delete it"
                } else {
                    "it is outside all sources, so no restore deletes it: delete it by hand"
                };
                self.watch.notice(
                    NoticeKind::Target,
                    format!(
                        "{} is the rest of a directory that an interrupted restore was replacing: {advice}",
                        shown(&path)
                    ),
                );
            }
        }
    }
}

/// Whether a restore may remove this where it has the name of a leftover.
pub(super) fn is_removable(stat: &Stat) -> bool {
    stat.is_own() || rustix::process::geteuid().is_root()
}

/// Whether a restore removes this as a leftover when it enters the directory.
pub(super) fn is_tidied(here: &OpenFolder, name: &[u8], stat: &Stat) -> bool {
    let may_be = here.facts.refuses.is_none() && !here.facts.append_only && !stat.is_fixed;
    unfinished::is_leftover(name) && may_be && !stat.is(EntryKind::Directory) && is_removable(stat)
}

/// Whether a name stands for the rest of a directory that had to make way. The restore itself removes all else that has such
/// a name.
pub(super) fn is_rest_of_a_directory(directory: &Directory, name: &[u8]) -> bool {
    unfinished::is_leftover(name) && is_filled(directory, name)
}

fn is_filled(directory: &Directory, name: &[u8]) -> bool {
    directory.open_child(name).and_then(|below| below.is_empty()).is_ok_and(|is_empty| !is_empty)
}

pub(super) fn list(directory: &Directory) -> Result<NameList> {
    let mut names = NameList::default();
    // A descriptor lists once: another one is opened for each listing.
    directory.open_child(c".")?.names(&mut names, &mut ListBuffer::default())?;
    Ok(names)
}
