//! A storage for tests: objects are files of a folder, with nothing around it.

use siltstone::error::{Error, Kind, Result};
use siltstone::storage::{Capabilities, ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage, StorageProfile};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub struct Folder(pub PathBuf);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn version(&self, name: &str) -> Result<ObjectVersion> {
        let bytes = fs::read(self.path(name)).map_err(|error| Error::io("read", name, error))?;
        Ok(ObjectVersion(blake3::hash(&bytes).to_hex()[..16].to_owned()))
    }

    fn collect(&self, folder: &Path, found: &mut Vec<ListedObject>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                self.collect(&entry.path(), found)
            } else {
                let name = entry.path().strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned();
                found.push(ListedObject { name, size: entry.metadata().unwrap().len(), fingerprint: 0 });
            }
        }
    }
}

impl Storage for Folder {
    fn describe(&self) -> String {
        "a folder".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { put_new: true, compare_and_swap: false, rename: true }
    }

    fn profile(&self) -> StorageProfile {
        StorageProfile::LOCAL
    }

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).map_err(|error| Error::io("create", name, error))?;
        fs::write(&path, body.to_vec()).map_err(|error| Error::io("write", name, error))
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        if self.path(name).exists() {
            Err(Error::new(Kind::AlreadyExists, "write", name))
        } else {
            self.put(name, body)?;
            self.version(name)
        }
    }

    fn compare_and_swap(&self, name: &str, _: &ObjectVersion, _: ObjectBody) -> Result<ObjectVersion> {
        Err(Error::new(Kind::Unsupported, "swap", name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let to = self.path(to);
        fs::create_dir_all(to.parent().unwrap()).map_err(|error| Error::io("create", from, error))?;
        fs::rename(self.path(from), to).map_err(|error| Error::io("rename", from, error))
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        let bytes = fs::read(self.path(name)).map_err(|error| Error::io("read", name, error))?;
        if bytes.len() as u64 <= bytes_max {
            Ok((bytes, self.version(name)?))
        } else {
            Err(Error::corrupt("read", name, "it is too large"))
        }
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        let file = fs::File::open(self.path(name)).map_err(|error| Error::io("open", name, error))?;
        file.read_exact_at(&mut bytes, offset).map_err(|error| Error::corrupt("read", name, error))?;
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let mut found = Vec::new();
        self.collect(&self.path(prefix), &mut found);
        found.sort();
        Ok(found)
    }

    fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", name, error)),
            _ => Ok(()),
        }
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        let found = fs::metadata(self.path(name)).map_err(|error| Error::io("stat", name, error))?;
        Ok(ObjectStat { size: found.len(), version: self.version(name)?, written: String::new() })
    }
}
