//! Find out what a storage really does: some servers accept a condition and then overwrite.

use crate::error::{Error, Kind, Result};
use crate::storage::{Capabilities, ObjectBody, ObjectVersion, Storage};
use std::hash::{BuildHasher, RandomState};

const FIRST: &[u8] = b"first";
const SECOND: &[u8] = b"second";
const BYTES_MAX: u64 = 64;

/// Tries, on scratch names, each ability that the storage claims; what does not hold is left out. The scratch objects are removed.
pub fn probe(storage: &dyn Storage) -> Result<Capabilities> {
    let claimed = storage.capabilities();
    let scratch = format!("probe/{:016x}", RandomState::new().hash_one(std::process::id()));
    let names = ["a", "b", "missing"].map(|name| format!("{scratch}-{name}"));
    let found = try_all(storage, claimed, &names);
    for name in &names {
        let removed = storage.remove(name);
        // The first failure is the one that tells something.
        if found.is_ok() {
            removed?;
        }
    }
    found
}

fn try_all(storage: &dyn Storage, claimed: Capabilities, [a, b, missing]: &[String; 3]) -> Result<Capabilities> {
    // Right to write and to read at all, with errors that speak for themselves.
    storage.put(a, FIRST.into())?;
    if storage.get(a, BYTES_MAX)?.0 != FIRST {
        return Err(Error::corrupt(
            "use",
            storage.describe(),
            "an object that was just written reads back with other bytes",
        )
        .hint("check the server, and any proxy or cache in front of it"));
    }
    Ok(Capabilities {
        put_new: claimed.put_new && holds_new(storage, b)?,
        compare_and_swap: claimed.compare_and_swap && holds_swap(storage, a, missing)?,
        rename: claimed.rename && holds_rename(storage, a, b, missing)?,
    })
}

fn holds_new(storage: &dyn Storage, name: &str) -> Result<bool> {
    let first = storage.put_new(name, FIRST.into()).map(|_| ());
    if !held(first, None)? {
        return Ok(false);
    }
    let second = storage.put_new(name, SECOND.into()).map(|_| ());
    Ok(held(second, Some(Kind::AlreadyExists))? && storage.get(name, BYTES_MAX)?.0 == FIRST)
}

fn holds_swap(storage: &dyn Storage, name: &str, missing: &str) -> Result<bool> {
    let swap = |name: &str, expected: &ObjectVersion, bytes: &[u8]| {
        storage.compare_and_swap(name, expected, ObjectBody::from(bytes)).map(|_| ())
    };
    storage.put(name, FIRST.into())?;
    let old = storage.stat(name)?.version;
    if !held(swap(name, &old, SECOND), None)? || storage.get(name, BYTES_MAX)?.0 != SECOND {
        return Ok(false);
    }
    let is_old_refused = held(swap(name, &old, FIRST), Some(Kind::Conflict))?;
    let is_missing_refused = held(swap(missing, &old, FIRST), Some(Kind::NotFound))?;
    Ok(is_old_refused && is_missing_refused && storage.get(name, BYTES_MAX)?.0 == SECOND)
}

fn holds_rename(storage: &dyn Storage, from: &str, to: &str, missing: &str) -> Result<bool> {
    storage.put(from, FIRST.into())?;
    storage.put(to, SECOND.into())?;
    let is_onto_refused = held(storage.rename(from, to), Some(Kind::AlreadyExists))?;
    if !is_onto_refused || storage.get(to, BYTES_MAX)?.0 != SECOND {
        return Ok(false);
    }
    storage.remove(to)?;
    if !held(storage.rename(from, to), None)? || storage.get(to, BYTES_MAX)?.0 != FIRST {
        return Ok(false);
    }
    held(storage.rename(from, missing), Some(Kind::NotFound))
}

/// Whether the storage answered as it should: with success or with one kind of refusal. What says nothing about an
/// ability (no access, no network) stays an error.
fn held(answer: Result<()>, wanted: Option<Kind>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(wanted.is_none()),
        Err(error) if Some(error.kind()) == wanted => Ok(true),
        Err(error) if matches!(error.kind(), Kind::Temporary | Kind::Denied | Kind::Full | Kind::Cancelled) => {
            Err(error)
        }
        Err(_) => Ok(false),
    }
}
