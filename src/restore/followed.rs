//! Links above sources that a restore follows: what they lead through stays, and at the end they lead where they did.

use crate::disk::follow::{FollowWithin, FollowedPath, follow_trusted_links, open_within};
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Identity, Stat};
use crate::error::{Kind, Result};
use crate::lock::locked;
use crate::restore::folder::{FolderState, OpenFolder, TargetFolder};
use crate::restore::location::real_path;
use crate::restore::reached::FollowedLink;
use crate::restore::run::RestoreRun;
use std::collections::HashSet;

const LEADS_ELSEWHERE: &str = "the symbolic link in its place led to another directory while it was restored there: look for it where the \
                               link led, or restore again";

impl RestoreRun<'_> {
    /// Whether the way to a source led through this link or directory: nothing replaces or deletes it.
    pub(crate) fn was_followed(&self, stat: &Stat) -> bool {
        locked(&self.target.followed).passed.contains(&stat.identity())
    }

    /// Finds out what the links above all sources below `top` lead through, before anything is replaced.
    pub(super) fn look_at_links(&self, top: &TargetFolder, root: &Directory) {
        let within = match self.target.in_place.get() {
            Some(true) => FollowWithin::Machine,
            _ => FollowWithin::Start,
        };
        let mut known = HashSet::new();
        for source in self.scope.sources_below(&top.path) {
            let below = source[top.path.len()..].strip_prefix(b"/").unwrap_or_default();
            let ends = (0..below.len()).filter(|at| below[*at] == b'/');
            // Inside a source no link is followed.
            let is_above = |way: &&[u8]| !self.scope.is_inside(&[&top.path[..], b"/", way].concat());
            for way in ends.map(|end| &below[..end]).take_while(is_above).filter(|way| known.insert(*way)) {
                // What cannot be followed now is reported when the restore comes to it.
                let Ok(Some(FollowedPath { passed, .. })) = follow_trusted_links(root, way, within) else { break };
                self.keep_passed(passed);
            }
        }
    }

    /// Records what a link above a source leads through.
    pub(super) fn keep_passed(&self, passed: Vec<Identity>) {
        locked(&self.target.followed).passed.extend(passed);
    }

    /// Records that the link of this name, in the place of `folder`, was followed to `end`. `below` is its path below the target.
    pub(super) fn note_followed(
        &self,
        folder: &TargetFolder,
        above: &Directory,
        below: &[u8],
        end: &Directory,
    ) -> Result<()> {
        if !self.is_restore() {
            return Ok(());
        }
        let name = below.rsplit(|byte| *byte == b'/').next().unwrap_or(below);
        let link = match self.target.in_place.get() {
            Some(true) => [&real_path(above)?, &b"/"[..], name].concat(),
            _ => below.strip_prefix(b"/").unwrap_or(below).to_vec(),
        };
        let link = FollowedLink { path: folder.path.clone(), link, end: fstat(end)?.identity() };
        locked(&self.target.followed).links.push(link);
        Ok(())
    }

    /// Warns of what was restored through a link that leads elsewhere by now.
    pub(super) fn check_followed(&self, top: &TargetFolder) {
        let links = std::mem::take(&mut locked(&self.target.followed).links);
        let FolderState::Ready(OpenFolder { target: Some(root), .. }) = top.state() else { return };
        for FollowedLink { path, link, end } in links {
            let found = match self.target.in_place.get() {
                Some(true) => stat_path(&link, true),
                _ => open_within(root.directory(), &link).and_then(|opened| fstat(&opened)),
            };
            match found {
                Ok(found) if found.identity() == end => {}
                // By the modes that were restored, this user may not look any more.
                Err(error) if error.is(Kind::Denied) => {}
                _ => self.warn(&path, LEADS_ELSEWHERE),
            }
        }
    }
}
