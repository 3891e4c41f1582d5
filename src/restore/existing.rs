//! What is there already: kept where it is right, replaced where the options say so.

use crate::disk::open::open_file;
use crate::disk::{Current, Subject, apply_metadata};
use crate::entry::{Entry, EntryKind};
use crate::error::Result;
use crate::restore::folder::Folder;
use crate::restore::plan::child_path;
use crate::restore::{Overwrite, Run, add};
use rustix::fd::AsFd;

impl<'a> Run<'a> {
    /// A file whose name is taken. What is right stays, with its metadata mended; what differs is replaced by a new
    /// file, so that other names of the old one keep their content.
    pub(super) fn restore_existing(&self, folder: &Folder, entry: &Entry) -> Result<()> {
        let directory = folder.target.directory();
        let name = entry.name.as_slice();
        let stat = directory.stat(name)?;
        let options = self.options();
        let is_file = stat.is(EntryKind::File);
        let same_stat = is_file && stat.size == entry.size && stat.modified == entry.meta.modified;
        match options.overwrite {
            Overwrite::Never => {
                add(&self.counts.files_kept, 1);
                return Ok(());
            }
            Overwrite::IfNewer if stat.modified >= entry.meta.modified => {
                add(&self.counts.files_kept, 1);
                return Ok(());
            }
            _ => {}
        }
        let trusted = same_stat && options.overwrite != Overwrite::Always;
        if is_file && (trusted || stat.size == entry.size) {
            let fd = open_file(directory, name)?;
            if trusted || self.matches(&fd, entry)? {
                let current = Some(Current::from(&stat));
                let subject = Subject::Open(fd.as_fd());
                let losses = apply_metadata(subject, current, &entry.meta, EntryKind::File, &self.apply_options());
                self.report_losses(folder, entry, losses);
                add(&self.counts.files_kept, 1);
                add(&self.watch.progress.bytes_done, entry.size);
                return Ok(());
            }
        }
        folder.target.remove(name)?;
        self.restore_file(folder, entry)
    }

    /// Removes what has the name of an entry that is no regular file; false when it is to be kept.
    pub(super) fn make_way(&self, folder: &Folder, entry: &Entry) -> Result<bool> {
        let name = entry.name.as_slice();
        let stat = folder.target.directory().stat(name)?;
        let keep = match self.options().overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => stat.modified >= entry.meta.modified,
            Overwrite::Always | Overwrite::IfChanged => false,
        };
        if keep {
            if stat.kind != Some(entry.kind) {
                self.trouble(&child_path(&folder.path, name), "something of another kind is there and was kept");
            }
            return Ok(false);
        }
        folder.target.remove(name)?;
        Ok(true)
    }
}
