//! The storage in memory against a plain map: every answer and every refusal is the one of the map.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::error::Kind;
use siltstone::storage::{Memory, ObjectVersion, Storage};
use std::collections::HashMap;

/// Few names, so that operations meet; one that no storage may take.
const NAMES: [&str; 6] = ["a", "b", "packs/aa/x", "packs/ab", "index/0", "../etc"];

fuzz_target!(|operations: Vec<(u8, u8, u8, &[u8])>| {
    let storage = Memory::new();
    let mut model: HashMap<&str, (Vec<u8>, ObjectVersion)> = HashMap::new();
    let mut last = ObjectVersion("none".to_owned());
    for (operation, name, other, bytes) in operations {
        let name = NAMES[usize::from(name) % NAMES.len()];
        let to = NAMES[usize::from(other) % NAMES.len()];
        let is_valid = |name: &str| !name.starts_with('.');
        match operation % 9 {
            0 => match storage.put(name, bytes.into()) {
                Ok(()) => {
                    assert!(is_valid(name));
                    last = storage.stat(name).expect("it was put").version;
                    model.insert(name, (bytes.to_vec(), last.clone()));
                }
                Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
            },
            1 => match storage.put_new(name, bytes.into()) {
                Ok(version) => {
                    last = version.clone();
                    assert!(is_valid(name) && model.insert(name, (bytes.to_vec(), version)).is_none());
                }
                Err(error) if error.is(Kind::AlreadyExists) => assert!(model.contains_key(name)),
                Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
            },
            2 => match storage.compare_and_swap(name, &last, bytes.into()) {
                Ok(version) => {
                    let before = model.insert(name, (bytes.to_vec(), version.clone()));
                    assert_eq!(before.expect("it was there").1, last);
                    last = version;
                }
                Err(error) if error.is(Kind::Conflict) => assert_ne!(model[name].1, last),
                Err(error) if error.is(Kind::NotFound) => assert!(!model.contains_key(name)),
                Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
            },
            3 => match storage.rename(name, to) {
                Ok(()) => {
                    let moved = model.remove(name).expect("it was there");
                    assert!(model.insert(to, moved).is_none());
                }
                Err(error) if error.is(Kind::AlreadyExists) => assert!(model.contains_key(to)),
                Err(error) if error.is(Kind::NotFound) => assert!(!model.contains_key(name)),
                Err(error) => assert!(!(is_valid(name) && is_valid(to)) && error.is(Kind::Invalid)),
            },
            4 => {
                assert_eq!(storage.remove(name).is_ok(), is_valid(name));
                model.remove(name);
            }
            5 => match storage.get(name, other.into()) {
                Ok((got, version)) => {
                    assert!(got.len() <= other.into());
                    assert_eq!((got, version), model[name]);
                }
                Err(error) if error.is(Kind::NotFound) => assert!(!model.contains_key(name)),
                Err(error) if error.is(Kind::Corrupt) => assert!(model[name].0.len() > other.into()),
                Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
            },
            6 => {
                let (offset, length) = (u64::from(other % 16), u64::from(other / 16));
                match storage.get_range(name, offset, length) {
                    Ok(got) => assert_eq!(got, model[name].0[offset as usize..(offset + length) as usize]),
                    Err(error) if error.is(Kind::NotFound) => assert!(!model.contains_key(name)),
                    Err(error) if error.is(Kind::Corrupt) => {
                        assert!((model[name].0.len() as u64) < offset + length);
                    }
                    Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
                }
            }
            7 => match storage.stat(name) {
                Ok(stat) => assert_eq!((stat.size, &stat.version), (model[name].0.len() as u64, &model[name].1)),
                Err(error) if error.is(Kind::NotFound) => assert!(!model.contains_key(name)),
                Err(error) => assert!(!is_valid(name) && error.is(Kind::Invalid)),
            },
            _ => {
                let prefix = ["", "packs/", "index/", "none/"][usize::from(other % 4)];
                let listed = storage.list(prefix).expect("memory lists");
                let mut names: Vec<&str> = model.keys().copied().filter(|name| name.starts_with(prefix)).collect();
                names.sort_unstable();
                assert!(listed.iter().map(|listed| listed.name.as_str()).eq(names));
                assert!(listed.iter().all(|listed| listed.size == model[listed.name.as_str()].0.len() as u64));
            }
        }
    }
});
