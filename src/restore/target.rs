//! The directory that is restored into: opened or made, and refused where it is one of our own.

use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, TargetDirectory};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::folder::{FolderFacts, OpenFolder, TargetFolder, group_of_new, mounted};
use crate::restore::location::MountTable;
use crate::restore::paths::DEPTH_MAX;
use crate::restore::run::RestoreRun;
use crate::restore::scope::{OurFolders, is_repository_in_use, looks_like_ours};
use rayon::ThreadPool;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// The first of these directories that can be opened.
pub(super) fn first_open<'p>(mut paths: impl Iterator<Item = &'p Path>) -> Option<Directory> {
    paths.find_map(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Directory::open_path(path.as_os_str().as_bytes()).ok()
    })
}

/// The mode of a directory of this user that denies its owner access.
pub(super) fn closed_to_owner(path: &[u8]) -> Option<u32> {
    let stat = stat_path(path, true).ok().filter(|stat| stat.is(EntryKind::Directory))?;
    stat.is_closed_to_owner(0o500).then(|| stat.permissions())
}

/// Makes a directory and those above it that are missing, each with the mode that the umask leaves and all rights of its
/// owner: a restore goes on in them.
pub(super) fn make_usable(path: &Path) -> Result<()> {
    let failed = |error| Error::io("create the directory", path.display(), error);
    let is_there = |above: &&Path| above.as_os_str().is_empty() || above.symlink_metadata().is_ok();
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !is_there(above)).collect();
    for above in missing.into_iter().rev() {
        match std::fs::create_dir(above) {
            Err(_) if above.is_dir() => continue,
            made => made.map_err(failed)?,
        }
        let mode = above.symlink_metadata().map_err(failed)?.permissions().mode();
        if mode & 0o700 != 0o700 {
            std::fs::set_permissions(above, Permissions::from_mode(mode | 0o700)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Why a target cannot be used, where that is more than what the system said.
pub(super) fn target_refused(target: &Path, error: Error) -> Error {
    let why = match target.metadata() {
        Ok(meta) if meta.is_dir() => return error,
        Ok(_) => "it is not a directory",
        Err(_) if target.is_symlink() => "it is a broken symbolic link",
        Err(_) => return error,
    };
    Error::new(error.kind(), "restore into", target.display()).because(why).hint("name another directory with --target")
}

impl RestoreRun<'_> {
    /// Opens the folder that is restored into, or makes it. One of our own that does not let its owner look into it is
    /// opened up for that.
    pub(super) fn open_target(&self, pool: &ThreadPool, root: &Entry, base: &[u8]) -> Result<Arc<TargetFolder>> {
        let target = &self.options.target;
        let closed = closed_to_owner(target.as_os_str().as_bytes()).filter(|_| self.is_restore());
        let Some(mode) = closed else { return self.open_or_make_target(pool, root, base) };
        let change = |mode| {
            std::fs::set_permissions(target, Permissions::from_mode(mode))
                .map_err(|error| Error::io("change the mode of", target.display(), error))
        };
        change(mode | 0o700)?;
        match self.open_or_make_target(pool, root, base) {
            Ok(folder) => {
                *locked(&folder.opened_up) = Some(mode);
                Ok(folder)
            }
            Err(error) => change(mode).and(Err(error)),
        }
    }

    pub(super) fn open_or_make_target(
        &self,
        pool: &ThreadPool,
        root: &Entry,
        base: &[u8],
    ) -> Result<Arc<TargetFolder>> {
        let path = self.options.target.as_os_str().as_bytes();
        // A file is in a directory, which may be any.
        let end = if root.is_directory() { base.len() } else { base.len() - root.name.len() - 1 };
        let base = &base[..end];
        let inside = self.scope.is_inside(base);
        let wanted = self.options.include.is_none() || self.options.includes_with_parents(base, true);
        let entry = (root.is_directory() && !root.name.is_empty()).then(|| root.clone());
        let (target, facts) = match Directory::open_path(path) {
            _ if closed_to_owner(path).is_some() && !self.is_restore() => {
                // Nothing in it can be looked at, but what is above it can.
                if let Some(above) = self.nearest_above() {
                    self.check_above(&above)?;
                }
                self.tell_closed(self.options.target.display());
                self.target.is_fresh.get_or_init(|| false);
                (None, FolderFacts { taken: true, ..FolderFacts::default() })
            }
            Ok(directory) => {
                let (target, facts) = self.existing_target(directory, base, entry.as_ref(), inside && wanted)?;
                (Some(target), facts)
            }
            Err(error) if error.is(Kind::NotFound) => {
                let group = self.check_future_target()?;
                self.target.is_fresh.get_or_init(|| true);
                if self.is_restore() {
                    self.make_target(pool, entry.as_ref())
                        .map_err(|error| target_refused(&self.options.target, error))?
                } else {
                    (None, FolderFacts { is_new: true, apply: entry.is_some(), group, ..FolderFacts::default() })
                }
            }
            Err(error) if error.is(Kind::Conflict) && !root.is_directory() => {
                return Err(target_refused(&self.options.target, error)
                    .hint("the target is the directory that the file goes into: name that directory with --target"));
            }
            Err(error) => return Err(target_refused(&self.options.target, error)),
        };
        let here = OpenFolder { target: target.map(Arc::new), facts };
        let top = TargetFolder::top(base.to_vec(), entry, inside, wanted, here.clone());
        if let (Some(target), true) = (&here.target, facts.taken) {
            self.remove_leftovers(&top, target)?;
        }
        Ok(Arc::new(top))
    }

    /// The target that was there before. `is_wanted`: it is at or below a source, and no filter leaves it out.
    pub(super) fn existing_target(
        &self,
        directory: Directory,
        base: &[u8],
        entry: Option<&Entry>,
        is_wanted: bool,
    ) -> Result<(TargetDirectory, FolderFacts)> {
        let (target, stat) = TargetDirectory::with_stat(directory)?;
        let is_ours = self.check_above(target.directory())?;
        let origin = if base.is_empty() { b"/" } else { base };
        let is_named_alike =
            || std::path::absolute(&self.options.target).is_ok_and(|path| path.as_os_str().as_bytes() == origin);
        // The place may be on a file system that is broken or gone, which is why it is restored elsewhere.
        let may_be_away = || MountTable::list().is_ok_and(|mounts| mounts.is_on_another_remote(origin, stat.device));
        let is_in_place = || match stat_path(origin, true) {
            Ok(at) => Ok(at.identity() == stat.identity()),
            Err(error) if is_named_alike() => Err(error),
            Err(_) => Ok(false),
        };
        let in_place = (is_named_alike() || !may_be_away()) && is_in_place()?;
        self.target.in_place.get_or_init(|| in_place);
        let changes = in_place && is_wanted && entry.is_some_and(|entry| self.changes_directory(&stat, entry));
        let apply = entry.is_some_and(|entry| self.applies(&stat, entry, changes));
        if let Some(entry) = entry.filter(|_| in_place && is_wanted) {
            self.count_directory(origin, entry, &stat, Some(target.directory()), apply);
        }
        let facts = FolderFacts {
            taken: !target.directory().is_empty()?,
            apply,
            deletes_on: mounted(&stat),
            keeps_extra: is_ours,
            ..self.facts_of(self.options.target.as_os_str().as_bytes(), &target, &stat)
        };
        self.target.is_fresh.get_or_init(|| !facts.taken);
        Ok((target, facts))
    }

    /// Refuses a target that is in the repository in use or in the caches beside its own. Whether it is in another
    /// repository or cache, where nothing is deleted.
    pub(super) fn check_above(&self, target: &Directory) -> Result<bool> {
        match self.ours_above(target)? {
            OurFolders::InUse => {
                let target = self.options.target.display();
                let why = "it is inside the repository in use or a cache of silt";
                Err(Error::invalid("restore into", target, why).hint("name a directory outside of it with --target"))
            }
            OurFolders::Other => Ok(true),
            OurFolders::No => Ok(false),
        }
    }

    /// Which repositories and caches a directory is in.
    pub(crate) fn ours_above(&self, directory: &Directory) -> Result<OurFolders> {
        let mut found = OurFolders::No;
        let mut here = directory.open_child(c".")?;
        for _ in 0..DEPTH_MAX {
            let stat = fstat(&here)?;
            if self.scope.is_own(&stat) || is_repository_in_use(self.repo, &here) {
                return Ok(OurFolders::InUse);
            }
            if looks_like_ours(&here)? {
                found = OurFolders::Other;
            }
            let above = match here.open_child(c"..") {
                // A user without the right to open the directory above cannot use a repository there.
                Err(error) if error.is(Kind::Denied) => break,
                above => above?,
            };
            if fstat(&above)?.identity() == stat.identity() {
                break;
            }
            here = above;
        }
        Ok(found)
    }

    /// The same for a target that is still to be made: what counts is the folder that it will be made in. Returns the group that
    /// this one hands down.
    pub(super) fn check_future_target(&self) -> Result<Option<u32>> {
        let target = &self.options.target;
        if target.is_symlink() {
            return Err(target_refused(target, Error::new(Kind::NotFound, "restore into", target.display())));
        }
        let Some(above) = self.nearest_above() else { return Ok(None) };
        self.check_above(&above)?;
        // One that may be written and not be listed cannot be opened.
        let nearest = target.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.is_dir());
        let nearest = nearest.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let access = accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        access.map_err(|errno| Error::io("create the directory", target.display(), errno.into()))?;
        stat_path(nearest.as_os_str().as_bytes(), true).map(|stat| group_of_new(&stat))
    }

    /// The nearest directory above the target that can be opened.
    pub(super) fn nearest_above(&self) -> Option<Directory> {
        first_open(self.options.target.ancestors().skip(1))
    }

    pub(super) fn make_target(
        &self,
        pool: &ThreadPool,
        entry: Option<&Entry>,
    ) -> Result<(Option<TargetDirectory>, FolderFacts)> {
        let path: &Path = &self.options.target;
        let make = |facts| {
            make_usable(path)?;
            let target = TargetDirectory::new(Directory::open_path(path.as_os_str().as_bytes())?)?;
            Ok((Some(target), facts))
        };
        let (Some(entry), Some(name), Some(parent)) = (entry, path.file_name(), path.parent()) else {
            return make(FolderFacts::default());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        make_usable(parent)?;
        let parent = match Directory::open_path(parent.as_os_str().as_bytes()) {
            // One that may be written and not be listed.
            Err(error) if error.is(Kind::Denied) => return make(FolderFacts { apply: true, ..FolderFacts::default() }),
            opened => TargetDirectory::new(opened?)?,
        };
        // By a thread of the pool, whose umask takes nothing away.
        let (target, current) = pool.install(|| parent.create_directory(name.as_bytes(), &entry.meta))?;
        Ok((Some(target), FolderFacts { is_new: true, apply: true, current: Some(current), ..FolderFacts::default() }))
    }
}
