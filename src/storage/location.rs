//! Stand-in: a folder as storage, until the storages land.

use super::{Abilities, Body, Listed, Stat, Storage, Version, check_name};
use crate::error::{Error, Kind, Result};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Folder(PathBuf);

pub fn open(location: &str, create: bool) -> Result<Arc<dyn Storage>> {
    let path = PathBuf::from(location.strip_prefix("file:").unwrap_or(location));
    if create {
        std::fs::create_dir_all(&path).map_err(|e| Error::io("make", path.display(), e))?;
    }
    Ok(Arc::new(Folder(path)))
}

pub fn probe(storage: &dyn Storage) -> Result<Abilities> {
    Ok(storage.abilities())
}

impl Folder {
    fn at(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.0.join(name))
    }

    fn write(&self, name: &str, body: Body, is_new: bool) -> Result<Version> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.at(name)?;
        let failed = |e| Error::io("write", path.display(), e);
        std::fs::create_dir_all(path.parent().expect("below the folder")).map_err(failed)?;
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.0.join(format!(".unfinished-{}-{next}", std::process::id()));
        let mut file = std::fs::File::create(&unfinished).map_err(failed)?;
        body.0.iter().try_for_each(|piece| file.write_all(piece)).map_err(failed)?;
        if is_new {
            let linked = std::fs::hard_link(&unfinished, &path);
            std::fs::remove_file(&unfinished).map_err(failed)?;
            linked.map_err(failed)?;
        } else {
            std::fs::rename(&unfinished, &path).map_err(failed)?;
        }
        Ok(Version(String::new()))
    }
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<Listed>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{name}/"), found);
        } else if let Ok(meta) = entry.metadata()
            && check_name(&name).is_ok()
        {
            found.push(Listed { name, size: meta.len() });
        }
    }
}

impl Storage for Folder {
    fn describe(&self) -> String {
        self.0.display().to_string()
    }
    fn abilities(&self) -> Abilities {
        Abilities { put_new: true, swap: false, rename: true, local: true }
    }
    fn put(&self, name: &str, body: Body) -> Result<Version> {
        self.write(name, body, false)
    }
    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        self.write(name, body, true)
    }
    fn swap(&self, name: &str, _: &Version, _: Body) -> Result<Version> {
        Err(Error::new(Kind::Unsupported, "swap", name))
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        std::fs::rename(self.at(from)?, self.at(to)?).map_err(|e| Error::io("rename", from, e))
    }
    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        let bytes = crate::disk::whole::read_bounded(&self.at(name)?, bytes_max)?;
        Ok((bytes, Version(String::new())))
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let failed = |e| Error::io("read", name, e);
        let mut file = std::fs::File::open(self.at(name)?).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).map_err(|e| Error::corrupt("read", name, e))?;
        Ok(bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        walk(&self.0.join(prefix), prefix, &mut found);
        found.sort();
        Ok(found)
    }
    fn remove(&self, name: &str) -> Result<()> {
        let _ = std::fs::remove_file(self.at(name)?);
        Ok(())
    }
    fn stat(&self, name: &str) -> Result<Stat> {
        let meta = std::fs::metadata(self.at(name)?).map_err(|e| Error::io("look at", name, e))?;
        Ok(Stat { size: meta.len(), version: Version(String::new()) })
    }
}
