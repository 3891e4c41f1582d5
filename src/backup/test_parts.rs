//! Parts of a run for unit tests, over a repository in memory.

#![cfg(test)]

use crate::backup::chunk_store::ChunkStore;
use crate::backup::counts::BackupCounts;
use crate::backup::options::BackupOptions;
use crate::backup::readers::Readers;
use crate::repo::{Credentials, InitOptions, Repository, SinkOptions};
use crate::seal::PasswordCost;
use crate::storage::Storage;
use crate::storage::memory::Memory;
use crate::watch::Watch;
use std::sync::Arc;

pub(super) struct TestParts {
    pub repo: Repository,
    pub options: BackupOptions,
    pub readers: Readers,
    pub counts: BackupCounts,
    pub watch: Watch,
}

impl TestParts {
    pub(crate) fn new(readers: usize) -> Self {
        let (storage, credentials, watch) = (Memory::new(), Credentials::password("right"), Watch::silent());
        let capabilities = storage.capabilities();
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let made = InitOptions { credentials, cost, chunks: Default::default(), single_writer: false, capabilities };
        Repository::init(&storage, &made).unwrap();
        let credentials = Credentials::password("right");
        let repo = Repository::open_uncached(Arc::new(storage), &credentials, &watch).unwrap();
        let mut options = BackupOptions::new(Vec::new(), "host");
        options.readers = Some(readers);
        let readers = Readers::start(&options, &[]).unwrap();
        TestParts { repo, options, readers, counts: BackupCounts::default(), watch }
    }

    /// A store that writes into the repository.
    pub(crate) fn store(&self) -> ChunkStore<'_> {
        let wanted = SinkOptions {
            lanes: self.readers.lanes(),
            compression: self.options.compression,
            memory_bytes: self.options.memory_bytes,
        };
        let writer = self.repo.writer("host", &wanted, &self.watch).unwrap();
        ChunkStore::new(&self.repo, Some(writer), self.readers.most, &self.watch)
    }
}
