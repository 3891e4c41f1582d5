//! The sequence of steps of a restore or a plan: open the target, find what must be kept, visit everything, make hard links.

use crate::disk::stat::fstat;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::lock::locked;
use crate::restore::counts::get;
use crate::restore::folder::{FolderState, OpenFolder};
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::DirectoryLocation;
use crate::restore::other_sources::OtherSources;
use crate::restore::paths::named_in_full;
use crate::restore::reached::ReachedDirectory;
use crate::restore::run::RestoreRun;
use crate::restore::visit::DirectoryContents;
use crate::watch::NoticeKind;
use crate::when::format_counted;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;

impl RestoreRun<'_> {
    /// The whole walk: everything below the root into the target, hard links last.
    pub(crate) fn go(&self, root: &Entry, base: &[u8]) -> Result<()> {
        let mut pool = self.pool(self.writers())?;
        let top = self.open_target(&pool, root, base).map_err(|error| {
            let whole = std::path::absolute(&self.options.target).unwrap_or_else(|_| self.options.target.clone());
            let whole = whole.to_string_lossy();
            // Calls on an open directory know no name.
            let is_of_open =
                error.thing().is_empty() && ["list a directory", "stat an open file"].contains(&error.doing());
            let error = if is_of_open { error.renamed("", &whole) } else { error };
            named_in_full(error, &whole)
        })?;
        if let FolderState::Ready(OpenFolder { target: Some(target), .. }) = top.state() {
            if self.target.is_fresh.get() != Some(&true) {
                self.look_at_links(&top, target.directory());
                let mut others = self.look_at_others(&top.path)?;
                if self.options.delete
                    && let Some(KeepReason { why, is_failure }) =
                        self.why_nothing_is_deleted(&others, &top.path, target.directory(), top.entry.as_ref())?
                {
                    let why = format!("{}: {why}", self.options.target.display());
                    others.note(KeepReason { why, is_failure });
                }
                if self.rehearsal().is_none() {
                    let overlap = match self.find_overlap(target.directory(), &top.path) {
                        Some(guess) => self.rehearse(guess, root, base, &mut others)?,
                        None => None,
                    };
                    self.target.overlap.get_or_init(|| overlap);
                }
                self.target.other_sources.get_or_init(|| others);
            }
            if let Some(overlap) = self.overlap() {
                pool = self.pool(1)?;
                if let Some(entry) = &top.entry {
                    let stat = fstat(target.directory())?;
                    let reached = ReachedDirectory::of(target.directory(), &stat, overlap.mounts.as_ref());
                    self.met_before(&reached, || DirectoryLocation::of(target.directory()), &top, entry)?;
                }
            }
        }
        if let FolderState::Ready(here) = top.state() {
            self.rehearse_directory(&top, &here)?;
        }
        let start = top.clone();
        pool.scope(|tasks| {
            if root.is_directory() {
                self.visit(tasks, top, DirectoryContents::of(root))
            } else {
                // Of its directory no other name is known.
                top.names.are_incomplete.store(true, Ordering::Relaxed);
                self.restore_entry(tasks, &top, &mut None, root.clone());
                self.one_less(top);
            }
        });
        pool.install(|| self.make_links());
        self.check_followed(&start);
        self.tell_what_differs();
        self.tell_what_is_kept();
        Ok(())
    }

    /// Where other sources are; and the way to the target, which must not be lost either.
    pub(super) fn look_at_others(&self, base: &[u8]) -> Result<OtherSources> {
        let target = &self.options.target;
        let target = std::path::absolute(target).map_err(|error| Error::io("find", target.display(), error))?;
        let mut ways = vec![target.as_os_str().as_bytes()];
        ways.extend((self.target.in_place.get() == Some(&true)).then_some(base));
        Ok(OtherSources::look(self.scope, &self.reader, base, &ways))
    }

    /// Says that names of one inode were saved in different states.
    fn tell_what_differs(&self) {
        let count = locked(&self.links).differing.len() as u64;
        if count > 0 {
            let files = format_counted(count, "file", "files");
            let what = format!(
                "{files} with several names changed while the backup saved these: names that were saved in different states are \
                 restored as files of their own"
            );
            self.tell(false, what);
        }
    }

    /// Says why extra entries stay, and why directories of the snapshot were not restored.
    pub(super) fn tell_what_is_kept(&self) {
        let spared = get(&self.counts.spared_directories);
        let unknown = self.target.other_sources.get().and_then(|others| others.unknown.as_ref());
        if let Some(overlap) = self.overlap().filter(|overlap| self.options.delete || overlap.has_blocked()) {
            let advice = if overlap.is_of_many { ". Restore one source at a time, as SNAPSHOT:PATH" } else { "" };
            let what = format!(
                "directories of this snapshot are, or may be, the same directory in the target: {}. Nothing is deleted, and nothing is \
                 replaced by an entry of another kind{advice}",
                overlap.reason.why
            );
            self.tell(overlap.reason.is_failure, what);
        } else if let (Some(reason), true) = (unknown, self.options.delete) {
            self.tell(reason.is_failure, format!("nothing is deleted: {}", reason.why));
        } else if spared > 0 {
            let what = format!(
                "nothing is deleted in {}: the backup saved only a part of what was there, another file system is mounted there, \
                 another source is there, or the system refuses it",
                format_counted(spared, "directory", "directories"),
            );
            self.tell(false, what);
        }
    }

    /// Tells something of the whole target, as a warning or as a notice.
    fn tell(&self, is_failure: bool, what: String) {
        if is_failure {
            self.warn(self.options.target.as_os_str().as_bytes(), what);
        } else if self.compares() {
            self.watch.notice(NoticeKind::Deletion, what);
        }
    }
}
