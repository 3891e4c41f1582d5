//! Objects in memory: for tests, whole repositories of which can be copied and damaged.

use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::storage::{
    Capabilities, ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage, StorageProfile, check_name,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

type Objects = BTreeMap<String, (Vec<u8>, u64)>;

/// Objects in memory; clones share them.
#[derive(Clone)]
pub struct Memory {
    objects: Arc<Mutex<(Objects, u64)>>,
    capabilities: Capabilities,
    profile: StorageProfile,
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl Memory {
    /// Swaps and renames.
    pub fn new() -> Self {
        Memory::with_capabilities(Capabilities { put_new: true, compare_and_swap: true, rename: true })
    }

    /// An empty storage that claims to do only this.
    pub fn with_capabilities(capabilities: Capabilities) -> Self {
        Memory { objects: Arc::default(), capabilities, profile: StorageProfile::LOCAL }
    }

    /// As if it were over a network.
    pub fn remote(self) -> Self {
        Memory { profile: StorageProfile::REMOTE, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, (Objects, u64)> {
        locked(&self.objects)
    }

    /// All objects by name, as they are now.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.lock().0.iter().map(|(name, (bytes, _))| (name.clone(), bytes.clone())).collect()
    }

    /// A storage of its own with these objects, that swaps and renames.
    pub fn from_objects(objects: &BTreeMap<String, Vec<u8>>) -> Self {
        let memory = Memory::new();
        memory.lock().0 = objects.iter().map(|(name, bytes)| (name.clone(), (bytes.clone(), 0))).collect();
        memory
    }

    /// A storage of its own with the same objects and capabilities.
    pub fn fork(&self) -> Self {
        let copy = self.lock().clone();
        Memory { objects: Arc::new(Mutex::new(copy)), ..self.clone() }
    }

    /// Changes an object as a faulty storage would: its version stays.
    pub fn corrupt(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some((bytes, _)) = self.lock().0.get_mut(name) {
            change(bytes);
        }
    }

    fn write(
        &self,
        name: &str,
        body: &ObjectBody,
        check: impl FnOnce(Option<u64>) -> Result<()>,
    ) -> Result<ObjectVersion> {
        check_name(name)?;
        let (objects, serial) = &mut *self.lock();
        check(objects.get(name).map(|(_, version)| *version))?;
        *serial += 1;
        objects.insert(name.to_owned(), (body.to_vec(), *serial));
        Ok(ObjectVersion(serial.to_string()))
    }

    fn read<T>(&self, name: &str, take: impl FnOnce(&[u8], u64) -> Result<T>) -> Result<T> {
        check_name(name)?;
        match self.lock().0.get(name) {
            Some((bytes, version)) => take(bytes, *version),
            None => Err(Error::new(Kind::NotFound, "read", name).because("there is no such object")),
        }
    }
}

impl Storage for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn profile(&self) -> StorageProfile {
        self.profile
    }

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.write(name, &body, |_| Ok(())).map(drop)
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        let honest = self.capabilities.put_new;
        self.write(name, &body, |known| match known.filter(|_| honest) {
            Some(_) => Err(Error::new(Kind::AlreadyExists, "write", name)),
            None => Ok(()),
        })
    }

    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        if !self.capabilities.compare_and_swap {
            return Err(Error::new(Kind::Unsupported, "conditionally replace", name));
        }
        self.write(name, &body, |known| match known {
            Some(version) if version.to_string() == expected.0 => Ok(()),
            Some(_) => Err(Error::new(Kind::Conflict, "replace", name).because("it was changed meanwhile")),
            None => Err(Error::new(Kind::NotFound, "replace", name)),
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        if !self.capabilities.rename {
            return Err(Error::new(Kind::Unsupported, "rename", from));
        }
        check_name(from)?;
        check_name(to)?;
        let (objects, _) = &mut *self.lock();
        if objects.contains_key(to) {
            return Err(Error::new(Kind::AlreadyExists, "rename to", to));
        }
        let moved = objects.remove(from).ok_or_else(|| Error::new(Kind::NotFound, "rename", from))?;
        objects.insert(to.to_owned(), moved);
        Ok(())
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.read(name, |bytes, version| {
            if bytes.len() as u64 > bytes_max {
                Err(Error::corrupt("read", name, format!("it has more than {bytes_max} bytes")))
            } else {
                Ok((bytes.to_vec(), ObjectVersion(version.to_string())))
            }
        })
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.read(name, |bytes, _| {
            let end = offset.checked_add(length).filter(|end| *end <= bytes.len() as u64);
            let end = end.ok_or_else(|| Error::corrupt("read", name, "it is shorter than the requested range"))?;
            Ok(bytes[offset as usize..end as usize].to_vec())
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let objects = &self.lock().0;
        let below = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let listed = |(name, (bytes, version)): (&String, &(Vec<u8>, u64))| ListedObject {
            name: name.clone(),
            size: bytes.len() as u64,
            fingerprint: version + 1,
        };
        Ok(below.map(listed).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.lock().0.remove(name);
        Ok(())
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.read(name, |bytes, version| {
            Ok(ObjectStat {
                size: bytes.len() as u64,
                version: ObjectVersion(version.to_string()),
                written: String::new(),
            })
        })
    }
}
