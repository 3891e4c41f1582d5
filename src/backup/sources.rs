//! Walk each source: folders one by one, files of one folder together, `/` as all that is in it.

use crate::backup::nested::Place;
use crate::backup::previous::Previous;
use crate::backup::state::FolderKey;
use crate::backup::walk::{Above, Found, LIST_BUFFER, add};
use crate::backup::{Run, previous};
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Names, Stat, levels_open, open};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::repo::Snapshot;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the walk of all sources found.
#[derive(Default)]
pub(super) struct Saved {
    /// Each source with its entry; of `/` everything in it.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// `/` itself, where it is a source.
    pub root: Option<Entry>,
}

/// Where a walk begins.
pub(super) struct Top {
    pub path: Vec<u8>,
    pub stat: Stat,
    pub place: Place,
}

/// Sources by how they are walked.
#[derive(Default)]
pub(super) struct Tops {
    pub directories: Vec<Top>,
    /// What is no directory, or not there: names by the folder that they are in.
    pub listed: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Directories that are not entered.
    pub closed: Vec<(Vec<u8>, Stat)>,
    pub root: Option<Entry>,
}

/// The error if nothing can be saved: of the first source, which is not there or cannot be reached.
pub fn missing_source(error: Error) -> Error {
    let hint = match error.kind() {
        _ if error.advice().is_some() => return error,
        Kind::NotFound => "check the path: none of the sources exists, so there is nothing to save",
        _ => "check the path: none of the sources can be reached, so there is nothing to save",
    };
    error.hint(hint)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').expect("paths of sources are absolute");
    (&path[..slash.max(1)], &path[slash + 1..])
}

fn level_of(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

impl<'a> Run<'a> {
    /// Walks every path.
    pub(super) fn walk_paths(&self, parent: Option<&Snapshot>) -> Result<Saved> {
        let tops = self.tops(true)?;
        for missing in &self.options.missing {
            self.warn(&missing.path.0, missing.what.as_str());
        }
        self.tell_missing_below();
        let mut saved = Saved { root: tops.root, ..Saved::default() };
        for (path, stat) in tops.closed {
            let entry = Entry { is_partial: true, ..self.describe_path(&path, &stat) };
            add(&self.counts.directories, 1);
            saved.entries.push((path, entry));
        }
        for top in tops.directories {
            let entry = self.walk_top(parent, &top)?;
            saved.entries.push((top.path, entry));
        }
        for (folder, names) in tops.listed {
            saved.entries.extend(self.walk_list(parent, folder, &names)?);
        }
        self.tell_missed();
        let missing = self.options.missing.first().map(|missing| &missing.path.0[..]);
        let first = self.options.paths.first().map(|path| path.as_os_str().as_bytes()).or(missing);
        if let Some(path) = first
            && saved.entries.is_empty()
            && saved.root.is_none()
            && !self.has_streams()
        {
            let shown = String::from_utf8_lossy(path);
            return Err(match stat_path(path, false) {
                Err(error) => missing_source(error),
                Ok(_) => Error::invalid("save", shown, "the rules exclude it, and there is nothing else to save")
                    .hint("raise the size of --exclude-larger-than, or name another source"),
            });
        }
        Ok(saved)
    }

    fn has_streams(&self) -> bool {
        !self.options.streams.is_empty() || self.input_name.is_some()
    }

    /// Tells of sources below others that are not there or cannot be reached: no walk meets them.
    fn tell_missing_below(&self) {
        let tops: HashSet<&PathBuf> = self.top_paths().collect();
        for path in self.options.paths.iter().filter(|path| !tops.contains(path)) {
            let path = path.as_os_str().as_bytes();
            match stat_path(path, false) {
                Ok(_) => self.expected.add(std::iter::once(Path::new(OsStr::from_bytes(path)))),
                Err(error) if error.is(Kind::NotFound) => self.warn(path, "it does not exist"),
                Err(error) => self.source_error(path, "", error),
            }
        }
    }

    /// Where the walks begin; `/` stands for everything in it, so that streams can stand beside.
    pub(super) fn tops(&self, tell: bool) -> Result<Tops> {
        let mut tops = Tops::default();
        for path in self.top_paths() {
            let path = path.as_os_str().as_bytes();
            if path == b"/" {
                self.add_root(&mut tops, tell)?;
                continue;
            }
            match stat_path(path, false) {
                Ok(stat) if stat.is(EntryKind::Directory) => {
                    let place = self.place_of_source(path, &stat);
                    tops.directories.push(Top { path: path.to_vec(), stat, place });
                }
                found => {
                    if tell && found.is_ok_and(|stat| stat.is(EntryKind::Symlink)) {
                        let shown = String::from_utf8_lossy(path);
                        self.tell_some(format!(
                            "{shown} is a symbolic link and is saved as such; to save what it points to, write {shown}/"
                        ));
                    }
                    let (folder, name) = split(path);
                    tops.listed.entry(folder.to_vec()).or_default().push(name.to_vec());
                }
            }
        }
        Ok(tops)
    }

    fn place_of_source(&self, path: &[u8], stat: &Stat) -> Place {
        let here = stat.device;
        let is_pseudo = self.left_out.mounts.is_pseudo(path, here);
        Place { device: here, here, level: level_of(path), is_passage: false, is_pseudo }
    }

    fn add_root(&self, tops: &mut Tops, tell: bool) -> Result<()> {
        let directory = Directory::open_path(b"/")?;
        let stat = fstat(&directory)?;
        let mut names = Names::default();
        LIST_BUFFER.with_borrow_mut(|buffer| directory.names(&mut names, buffer))?;
        self.expected.met(b"/", &names);
        let mut place = self.place_of_source(b"/", &stat);
        let kept = self.kept_names(&mut place, b"/", &directory, &names, tell);
        let mut root = self.describe_path(b"/", &stat);
        root.is_partial = kept.as_ref().is_some_and(|kept| kept.len() < names.len());
        let kept = kept.unwrap_or_else(|| (0..names.len() as u32).collect());
        for name in kept.into_iter().map(|index| names.get(index as usize)) {
            let path = [b"/", name.to_bytes()].concat();
            match directory.stat(name) {
                Ok(stat) if stat.is(EntryKind::Directory) => match self.place_below(place, &path, &stat) {
                    Ok(place) => tops.directories.push(Top { path, stat, place }),
                    Err(reason) => {
                        if tell {
                            self.tell_left_out(&path, reason);
                        }
                        tops.closed.push((path, stat));
                    }
                },
                _ => tops.listed.entry(b"/".to_vec()).or_default().push(name.to_bytes().to_vec()),
            }
        }
        tops.root = Some(root);
        Ok(())
    }

    fn walk_top(&self, parent: Option<&Snapshot>, top: &Top) -> Result<Entry> {
        let Top { path, stat, place } = top;
        let slot = Arc::new(Mutex::new(None));
        let above = Above::Source(slot.clone());
        let previous = self.previous_of_source(parent, path);
        let key = FolderKey::of(path);
        let found = Found { above, path: path.clone(), key, place: *place, previous, is_new: false };
        let handle = Directory::open_path(path);
        self.readers.pool.scope(|scope| self.visit(scope, found, handle));
        if let Some(error) = self.take_failure() {
            return Err(error);
        }
        let saved = locked(&slot).take();
        let mut entry = self.describe_path(path, stat);
        entry.content = saved.map_or(Content::Empty, |saved| Content::Tree(saved.tree));
        entry.is_partial = saved.is_none_or(|saved| saved.is_partial);
        add(&self.counts.directories, 1);
        Ok(entry)
    }

    /// Sources of one folder that are no directories: as many as they are, the folder is opened once and never listed.
    fn walk_list(
        &self,
        parent: Option<&Snapshot>,
        folder: Vec<u8>,
        names: &[Vec<u8>],
    ) -> Result<Vec<(Vec<u8>, Entry)>> {
        let opened = Directory::open_path(&folder).and_then(|directory| Ok((fstat(&directory)?, directory)));
        let (stat, directory) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                for name in names {
                    self.source_error(&child(&folder, name), "", error.clone());
                }
                return self.take_failure().map_or(Ok(Vec::new()), Err);
            }
        };
        let key = FolderKey::of(&[folder.as_slice(), b"/\0sources in it"].concat());
        let previous = match (self.compare_with_parent, parent) {
            _ if self.options.force => Previous::Nothing,
            (true, Some(parent)) => previous::of_path(self, parent, &folder).of_list(names),
            _ => self.previous_from_keyed_state(key),
        };
        let list = Arc::new(Mutex::new(Vec::new()));
        let (above, place) = (Above::List(list.clone()), self.place_of_source(&folder, &stat));
        let found = Found { above, path: folder.clone(), key, place, previous, is_new: false };
        let names = Names::of(names.iter().map(Vec::as_slice))?;
        self.readers.pool.scope(|scope| self.walk_names(scope, found, directory, names, None));
        if let Some(error) = self.take_failure() {
            return Err(error);
        }
        let entries = std::mem::take(&mut *locked(&list));
        Ok(entries.into_iter().map(|entry| (child(&folder, &entry.name), entry)).collect())
    }

    fn previous_of_source(&self, parent: Option<&Snapshot>, path: &[u8]) -> Previous {
        match (&self.state, parent) {
            _ if self.options.force => Previous::Nothing,
            (_, Some(parent)) if self.compare_with_parent => previous::of_path(self, parent, path),
            (Some(_), _) => self.previous_from_state(path),
            _ => Previous::Nothing,
        }
    }
}

fn child(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder.strip_suffix(b"/").unwrap_or(folder), b"/", name].concat()
}

/// How many levels of directories the readers may keep open.
pub(super) fn levels_open_by(readers: usize) -> usize {
    levels_open(open::raise_open_files(), readers)
}
