//! Close directories when many are open.

use crate::restore::folder::TargetFolder;
use crate::restore::run::RestoreRun;

impl RestoreRun<'_> {
    /// Closes the descriptor of a directory if too many are open.
    pub(crate) fn close_if_many(&self, folder: &TargetFolder) {
        if folder.above.is_some() && self.open_folders.are_too_many() {
            // One that cannot be asked for its identity stays open.
            let _open_as_well = folder.close();
        }
    }
}
