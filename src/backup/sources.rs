//! Walk all sources, one after the other.

use crate::backup::counts::add;
use crate::backup::folder::{AboveFolder, FoundFolder, WalkedNames};
use crate::backup::nested::tops;
use crate::backup::page_row::FolderKey;
use crate::backup::tops::WalkTop;
use crate::backup::walk::SourceWalk;
use crate::disk::encrypted::unlocked;
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, NameList, rights};
use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::watch::NoticeKind;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the walk of all sources found.
#[derive(Default)]
pub(super) struct SavedSources {
    /// Each source with its entry; of `/` everything in it.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// `/` itself, where it is a source.
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

impl SourceWalk<'_> {
    /// Walks every path. With `has_streams` it is not an error if none of them is there.
    pub(crate) fn save_paths(&self, has_streams: bool) -> Result<SavedSources> {
        let sources = self.selection.sources;
        for missing in &sources.missing {
            self.ledger.warn(&missing.path.0, missing.what.as_str());
        }
        if let Some(what) = rights::hidden_without_proc().filter(|_| !sources.paths.is_empty()) {
            self.ledger.watch().notice(NoticeKind::Source, what);
        }
        // Before the tops: to find those below `/`, `/` is listed, and never again.
        self.expect_sources_below();
        let tops = self.selection.tops(false)?;
        let mut saved = SavedSources::default();
        if let Some(root) = tops.root {
            let described = self.entries.describer.source(b"/", &root.stat);
            saved.root = Some(Entry { is_partial: root.is_partial, ..described });
        }
        for (path, stat) in tops.closed {
            let entry = Entry { is_partial: true, ..self.entries.describer.path(&path, &stat) };
            add(&self.counts.directories, 1);
            saved.entries.push((path, entry));
        }
        for top in tops.directories {
            let entry = self.save_directory(&top)?;
            saved.entries.push((top.path, entry));
        }
        for (folder, names) in tops.listed {
            saved.entries.extend(self.save_list(folder, &names)?);
        }
        for path in self.selection.expected.take() {
            let what = "it was not found during the backup: it, or a directory above it, was moved or replaced";
            self.ledger.warn(&path, what);
        }
        let missing = sources.missing.first().map(|missing| &missing.path.0[..]);
        let first = sources.paths.first().map(|path| path.as_os_str().as_bytes()).or(missing);
        match first {
            Some(path) if saved.entries.is_empty() && saved.root.is_none() && !has_streams => {
                Err(nothing_to_save(path))
            }
            _ => Ok(saved),
        }
    }

    /// Expects that a walk meets each source below another one. Warns of those that are not there or cannot be reached: no
    /// walk meets them.
    fn expect_sources_below(&self) {
        let paths = &self.selection.sources.paths;
        let tops: HashSet<&PathBuf> = tops(paths).collect();
        for path in paths.iter().filter(|path| !tops.contains(path)) {
            let path = path.as_os_str().as_bytes();
            match stat_path(path, false) {
                Ok(_) => self.selection.expected.add(std::iter::once(Path::new(OsStr::from_bytes(path)))),
                Err(error) if error.is(Kind::NotFound) => self.ledger.warn(path, "it does not exist"),
                Err(error) => self.ledger.source_error(path, "", error),
            }
        }
    }

    fn save_directory(&self, top: &WalkTop) -> Result<Entry> {
        let WalkTop { path, stat, place, is_mounted } = top;
        let slot = Arc::new(Mutex::new(None));
        let above = AboveFolder::Source(slot.clone());
        let handle = Directory::open_path(path).and_then(|directory| unlocked(directory, stat));
        let may_be_other = self.baseline.may_be_other_top(top, &handle, self.selection);
        let (baseline, key) = (self.baseline.of_source(path, may_be_other), FolderKey::of(path));
        let found = FoundFolder { above, path: path.clone(), key, place: *place, baseline, is_new: false };
        self.readers.pool.scope(|scope| self.visit(scope, found, handle));
        if let Some(error) = self.ledger.take_failure() {
            return Err(error);
        }
        let saved = locked(&slot).take();
        let mut entry = self.entries.describer.source(path, stat);
        entry.content = saved.map_or(Content::Empty, |saved| Content::Tree(saved.tree));
        entry.is_partial = saved.is_none_or(|saved| saved.is_partial);
        entry.is_mounted = *is_mounted;
        add(&self.counts.directories, 1);
        Ok(entry)
    }

    /// Saves sources in one directory that are not directories: however many they are, the directory is opened once and never
    /// listed.
    fn save_list(&self, folder: Vec<u8>, names: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Entry)>> {
        let opened = Directory::open_path(&folder).and_then(|directory| Ok((fstat(&directory)?, directory)));
        let (stat, directory) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                names.iter().for_each(|name| self.ledger.source_error(&child(&folder, name), "", error.clone()));
                return self.ledger.take_failure().map_or(Ok(Vec::new()), Err);
            }
        };
        let key = FolderKey::of(&[folder.as_slice(), b"/\0sources in it"].concat());
        let may_be_other = self.baseline.note_if_exchanged(&folder, Ok(stat));
        let baseline = self.baseline.of_list(&folder, key, names, may_be_other);
        let list = Arc::new(Mutex::new(Vec::new()));
        let (above, place) = (AboveFolder::List(list.clone()), self.selection.place_of_source(&folder, &stat));
        let found = FoundFolder { above, path: folder.clone(), key, place, baseline, is_new: false };
        let names = WalkedNames::new(NameList::of(names.iter().map(Vec::as_slice))?, None);
        self.readers.pool.scope(|scope| self.walk_names(scope, found, directory, names));
        if let Some(error) = self.ledger.take_failure() {
            return Err(error);
        }
        let entries = std::mem::take(&mut *locked(&list));
        Ok(entries.into_iter().map(|entry| (child(&folder, &entry.name), entry)).collect())
    }
}

fn nothing_to_save(path: &[u8]) -> Error {
    match stat_path(path, false) {
        Err(error) => missing_source(error),
        Ok(stat) if stat.kind.is_none() => {
            Error::invalid("save", String::from_utf8_lossy(path), "it is a socket, and there is nothing else to save")
        }
        Ok(_) => {
            let why = "the rules exclude it, and there is nothing else to save";
            Error::invalid("save", String::from_utf8_lossy(path), why)
                .hint("raise the size of --exclude-larger-than, or name another source")
        }
    }
}

fn child(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder.strip_suffix(b"/").unwrap_or(folder), b"/", name].concat()
}
