//! Find out what has the name of a directory in the target, and whether it may be entered.

use crate::disk::create::is_half_done;
use crate::disk::follow::{FollowWithin, follow_trusted_links, open_followed, open_within};
use crate::disk::opened_up::OpenedUp;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Stat, TargetDirectory};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::restore::folder::{FolderFacts, FolderState, OpenFolder, TargetFolder, group_of_new, mounted};
use crate::restore::meeting::leads_nowhere;
use crate::restore::options::Overwrite;
use crate::restore::paths::shown;
use crate::restore::reasons::{FOLLOWED, MOVED_SOURCE, OTHER_SOURCE};
use crate::restore::run::RestoreRun;
use crate::watch::NoticeKind;

pub(super) const LINK_OF_OTHERS: &str =
    "the symbolic link in its place above a source leads through a link of another user, and was not followed";

pub(super) const LEADS_NOWHERE: &str =
    "a symbolic link is in its place above a source, and does not lead to a directory in the target";

/// What has the name of a directory in the target.
pub(super) enum FoundDirectory {
    /// And how it was opened up for that, if it was.
    Opened(Directory, Option<OpenedUp>),
    /// A link above a source leads to it.
    Followed(Directory),
    Missing,
    /// In a plan: a directory that the restore opens up; until then its contents are unknown.
    Closed(Stat),
    /// Why it stays.
    Refused(&'static str),
    /// It may make way.
    InTheWay,
}

pub(super) fn moved(entry: &Entry) -> Error {
    Error::new(Kind::Conflict, "continue in the directory", shown(&entry.name))
        .because("it was replaced by something else during the restore")
}

impl RestoreRun<'_> {
    /// Looks at the name of a directory. Only "it is not a directory" and "it is a link" mean that something else is there;
    /// any other refusal is an error.
    pub(super) fn find(
        &self,
        above: &OpenFolder,
        target: &TargetDirectory,
        folder: &TargetFolder,
        entry: &Entry,
    ) -> Result<FoundDirectory> {
        let name = entry.name.as_slice();
        match target.directory().open_child(name) {
            Ok(directory) => return Ok(FoundDirectory::Opened(directory, None)),
            Err(error) if error.is(Kind::NotFound) => {
                return Ok(above.facts.refuses.map_or(FoundDirectory::Missing, FoundDirectory::Refused));
            }
            Err(error) if error.is(Kind::Denied) => return self.open_unreadable(target, folder, name)?.ok_or(error),
            Err(error) if error.is(Kind::Conflict) => {}
            Err(error) => return Err(error),
        }
        let stat = target.directory().stat(name)?;
        if !folder.inside {
            return self.follow(target, folder, name, &stat);
        }
        let parent = &folder.path[..folder.path.len() - name.len() - 1];
        Ok(match (stat.kind, self.options.overwrite) {
            (Some(EntryKind::Directory), _) => {
                FoundDirectory::Refused("it was changed by another process at the same moment, and was kept")
            }
            (None, _) => FoundDirectory::Refused("a socket is in its place, and was kept"),
            _ if folder.is_source && self.was_followed(&stat) => FoundDirectory::Refused(FOLLOWED),
            _ if is_half_done(&stat, entry) => self.in_the_way(above, &stat),
            _ if let Some(why) = self.keeps_other_kinds() => FoundDirectory::Refused(why),
            (Some(EntryKind::Symlink), _) if folder.is_source && self.keeps_links_of_sources() => {
                FoundDirectory::Refused(MOVED_SOURCE)
            }
            (_, Overwrite::Never | Overwrite::IfNewer) => {
                FoundDirectory::Refused("something other than a directory is in its place, and was kept")
            }
            _ if !folder.wanted => FoundDirectory::Refused(
                "something other than a directory is in its place, and was kept, as --include does not match it",
            ),
            _ if self.is_name_of_other(parent, target.directory(), entry)? => FoundDirectory::Refused(OTHER_SOURCE),
            _ if self.was_followed(&stat) => FoundDirectory::Refused(FOLLOWED),
            _ => self.in_the_way(above, &stat),
        })
    }

    pub(super) fn in_the_way(&self, above: &OpenFolder, stat: &Stat) -> FoundDirectory {
        self.links_before(stat);
        self.stays(above, stat).map_or(FoundDirectory::InTheWay, FoundDirectory::Refused)
    }

    /// Directories above a source do not belong to the snapshot: a link there leads where this machine keeps the source.
    pub(super) fn follow(
        &self,
        target: &TargetDirectory,
        folder: &TargetFolder,
        name: &[u8],
        stat: &Stat,
    ) -> Result<FoundDirectory> {
        if !stat.is(EntryKind::Symlink) {
            return Ok(FoundDirectory::Refused(
                "something other than a directory is in its place above a source, and was kept",
            ));
        }
        if self.scope.sources_cut {
            return Ok(FoundDirectory::Refused(
                "a symbolic link that may be part of a source is in its place, and was not followed",
            ));
        }
        let is_trusted = stat.uid == 0 || stat.is_own();
        if !is_trusted {
            return Ok(FoundDirectory::Refused(
                "a symbolic link of another user is in its place above a source, and was not followed",
            ));
        }
        let mut top = folder;
        while let Some(above) = &top.above {
            top = above;
        }
        let FolderState::Ready(OpenFolder { target: Some(root), .. }) = top.state() else {
            return Ok(FoundDirectory::Refused("a symbolic link is in its place above a source, and was not followed"));
        };
        let path = &folder.path[top.path.len()..];
        if self.overlap().is_some_and(|overlap| overlap.is_dangling(&folder.path)) {
            return Ok(FoundDirectory::Refused(LEADS_NOWHERE));
        }
        match self.open_link(root.directory(), target.directory(), name, path) {
            Ok(directory) => {
                if let Some(why) =
                    self.why_not_followed(root.directory(), target.directory(), name, path, &directory)?
                {
                    return Ok(FoundDirectory::Refused(why));
                }
                self.rehearse_link(root.directory(), target.directory(), name, &directory);
                self.note_followed(folder, target.directory(), path, &directory)?;
                Ok(FoundDirectory::Followed(directory))
            }
            Err(error) if leads_nowhere(&error) => Ok(FoundDirectory::Refused(LEADS_NOWHERE)),
            Err(error) => Err(error),
        }
    }

    /// Why the directory that a link above a source leads to is not restored into. If it is, what the link leads through stays from now
    /// on.
    pub(super) fn why_not_followed(
        &self,
        root: &Directory,
        above: &Directory,
        name: &[u8],
        path: &[u8],
        opened: &Directory,
    ) -> Result<Option<&'static str>> {
        let way = match self.target.in_place.get() {
            Some(true) => follow_trusted_links(above, name, FollowWithin::Machine)?,
            _ => follow_trusted_links(root, path, FollowWithin::Start)?,
        };
        let opened = fstat(opened)?.identity();
        Ok(match way {
            None => Some(LINK_OF_OTHERS),
            Some(way) if way.end != opened => {
                Some("it was changed by another process at the same moment, and was kept")
            }
            Some(way) => {
                self.keep_passed(way.passed);
                None
            }
        })
    }

    /// Opens the directory that a link above a source leads to; `path` is that of the link below the target.
    pub(crate) fn open_link(&self, root: &Directory, above: &Directory, name: &[u8], path: &[u8]) -> Result<Directory> {
        match self.target.in_place.get() {
            Some(true) => open_followed(above, name),
            _ => open_within(root, path.strip_prefix(b"/").unwrap_or(path)),
        }
    }

    /// A directory that we may not list. Of one of our own, the owner's rights are added while we work in it; one above a
    /// source only has to be passed.
    pub(super) fn open_unreadable(
        &self,
        target: &TargetDirectory,
        folder: &TargetFolder,
        name: &[u8],
    ) -> Result<Option<FoundDirectory>> {
        let stat = target.directory().stat(name)?;
        if !stat.is(EntryKind::Directory) {
            return Ok(None);
        }
        if !stat.is_closed_to_owner(0o500) {
            let passed = target.directory().open_child_to_search(name).ok();
            return Ok(passed.filter(|_| !folder.inside).map(|directory| FoundDirectory::Opened(directory, None)));
        }
        if !self.is_restore() {
            return Ok(Some(FoundDirectory::Closed(stat)));
        }
        let opened_up = OpenedUp::named(target.directory(), name, &stat)?;
        target.directory().open_child(name).map(|directory| Some(FoundDirectory::Opened(directory, Some(opened_up))))
    }

    /// Says in a plan that the mode of a directory hides its contents.
    pub(crate) fn tell_closed(&self, directory: impl std::fmt::Display) {
        if self.compares() {
            self.watch.notice(
                NoticeKind::Target,
                format!(
                    "the mode of {directory} denies access: its contents are unknown until the restore changes the mode"
                ),
            );
        }
    }

    /// Facts of a directory that only the restore itself looks into.
    pub(super) fn closed(&self, above: &OpenFolder, folder: &TargetFolder, stat: &Stat) -> OpenFolder {
        self.tell_closed(shown(&folder.path));
        let why = || format!("the mode of {} denies access", shown(&folder.path));
        self.rehearsal().iter().for_each(|rehearsal| rehearsal.cannot_tell(why));
        let FolderFacts { keeps_extra, deletes_on, .. } = above.facts;
        let mounted = mounted(stat);
        let group = group_of_new(stat);
        let imagined = self.overlap().map(|_| stat.identity());
        let facts =
            FolderFacts { taken: true, group, mounted, keeps_extra, deletes_on, imagined, ..FolderFacts::default() };
        OpenFolder { target: None, facts }
    }
}
