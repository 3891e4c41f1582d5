//! Foresee, in a plan, which metadata will be refused.

use crate::disk::foresee::{foresee, foresee_new};
use crate::disk::{Loss, Stat, Subject};
use crate::entry::Entry;
use crate::restore::folder::OpenFolder;
use crate::restore::run::RestoreRun;

impl RestoreRun<'_> {
    /// What of the metadata of something that is there a plan knows to be refused.
    pub(crate) fn foresee(&self, subject: Subject<'_>, stat: &Stat, entry: &Entry) -> Vec<Loss> {
        if self.compares() {
            foresee(subject, stat, &entry.meta, entry.kind_of_inode(), &self.apply_options())
        } else {
            Vec::new()
        }
    }

    /// Tells it of an entry that will be made; `here` is its directory.
    pub(crate) fn tell_foreseen(&self, here: &OpenFolder, entry: &Entry, path: &[u8]) {
        if self.compares() {
            let losses = foresee_new(&entry.meta, entry.kind_of_inode(), here.facts.group, &self.apply_options());
            self.report_losses(path, losses);
        }
    }
}
