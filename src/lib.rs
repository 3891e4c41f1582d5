//! Siltstone: a content-addressed, deduplicating, encrypted, incremental backup engine.
//!
//! A [`Repository`](repo::Repository) in a [`Storage`](storage::Storage) holds snapshots. Each command of `silt` is a method of the
//! repository or a function in the room that it belongs to, takes a [`Watch`](watch::Watch) for events and cancel, and returns a report
//! that serialises. Nothing here prints or ends the process.
//!
//! ```
//! use siltstone::backup::BackupOptions;
//! use siltstone::browse::{Filter, list};
//! use siltstone::chunk::ChunkTable;
//! use siltstone::repo::{Credentials, InitOptions, Repository};
//! use siltstone::restore::RestoreOptions;
//! use siltstone::seal::PasswordCost;
//! use siltstone::storage::{Local, probe};
//! use siltstone::watch::Watch;
//! use siltstone::when::Selector;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let place = tempfile::tempdir()?;
//! # let (home, cache, target) = (place.path().join("home"), place.path().join("cache"), place.path().join("target"));
//! # std::fs::create_dir(&home)?;
//! # std::fs::write(home.join("letter"), "Dear reader")?;
//! # let backups = place.path().join("backups");
//! let storage = Local::create(&backups)?;
//! let options = InitOptions {
//!     credentials: Credentials::password("correct horse"),
//!     cost: PasswordCost::DEFAULT,
//!     chunks: ChunkTable::default(),
//!     single_writer: false,
//!     capabilities: probe(&storage)?,
//! };
//! let recovery_key = Repository::init(&storage, &options)?;
//! println!("write this down: {}", recovery_key.to_text().as_str());
//!
//! let watch = Watch::silent();
//! let repo = Repository::open(Arc::new(storage), &Credentials::password("correct horse"), &cache, &watch)?;
//! let report = repo.backup(BackupOptions::new(vec![home.clone()], "this host"), &watch)?;
//! assert_eq!((report.totals.files, report.warnings_count), (1, 0));
//!
//! let snapshot = repo.select(&Selector::Latest { back: 0 }, &Filter::default(), &watch)?;
//! list(&repo.reader(), &snapshot, b"/", true, &mut |path, entry| {
//!     println!("{} {}", entry.size, String::from_utf8_lossy(path));
//!     Ok(())
//! })?;
//!
//! let mut wanted = RestoreOptions::new(target.clone());
//! wanted.path = Some(home.as_os_str().as_encoded_bytes().to_vec());
//! repo.plan_restore(&snapshot, wanted, &watch)?.run(&watch)?;
//! assert_eq!(std::fs::read_to_string(target.join("letter"))?, "Dear reader");
//! # Ok(())
//! # }
//! ```
//!
//! docs/ARCHITECTURE.md shows the rooms of this crate in the order in which the bytes travel, and which of them may use which.

#![warn(unnameable_types, unreachable_pub)]

pub mod backup;
pub mod bench;
pub mod browse;
pub mod chunk;
pub mod entry;
pub mod error;
pub mod id;
pub mod repo;
pub mod restore;
pub mod seal;
pub mod source;
pub mod storage;
pub mod watch;
pub mod when;

// What is public in these is for the command, the tests, the benches and the fuzz targets of this package, and may change.
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod index;
#[doc(hidden)]
pub mod lease;
#[doc(hidden)]
pub mod place;

mod fetch;
mod ingest;
mod lock;
mod runtime;
mod vault;
