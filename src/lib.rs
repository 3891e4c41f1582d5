//! Siltstone: a content-addressed, deduplicating, encrypted, incremental backup engine.
//!
//! Rooms in the order in which the bytes travel; a room imports only rooms above it (docs/ARCHITECTURE.md).

pub mod backup;
pub mod bench;
pub mod browse;
pub mod chunk;
pub mod disk;
pub mod entry;
pub mod error;
pub mod fetch;
pub mod format;
pub mod id;
pub mod index;
pub mod ingest;
pub mod lease;
mod lock;
pub mod place;
pub mod repo;
pub mod restore;
pub mod runtime;
pub mod seal;
pub mod source;
pub mod storage;
pub mod vault;
pub mod watch;
pub mod when;
