//! Saves sources as a snapshot. This file shows the steps of one attempt; [`Repository::backup`] (`attempts.rs`) makes the attempts.
//!
//! The line of one file, call by call:
//!
//! 1. walk: `SourceWalk::save_paths` (`sources.rs`) → `visit` (`walk.rs`) → `do_page` (`page.rs`);
//! 2. detect: `Comparison::fingerprint` for a page (`detect.rs`), `EntryBuilder::build_part` for its entries (`entries.rs`);
//! 3. read: `FileSaver::save` (`files.rs`) → `ContentSaver::save` (`content.rs`);
//! 4. cut: `ChunkSaver::cut` (`chunks.rs`);
//! 5. claim: `ChunkSaver::store` → `ChunkSink::store_contents` → `Claims::claim`, so that each chunk is stored once;
//! 6. pack: `OpenPacks::reserve` and `fill`, `Uploads::send`;
//! 7. index: `ChunkSink::checkpoint`, from `Checkpoints::keep` and before the commit, makes the packs findable;
//! 8. commit: `Conclusion::conclude` → `Writer::commit` → `WriterLease::commit` creates the snapshot.

mod attempts;
mod baseline;
mod begin;
mod bytes;
mod checkpoints;
mod choose;
mod chunk_store;
mod chunks;
mod completeness;
mod conclude;
mod content;
mod counts;
mod damage;
mod describe;
mod detect;
mod entries;
mod expected;
mod files;
mod folder;
mod heal;
mod helpers;
mod intake;
mod large;
mod left_out;
mod links;
mod mounted;
mod nested;
mod old_entries;
mod options;
mod origin;
mod page;
mod page_row;
mod per_reader;
mod readers;
mod removed;
mod report;
mod root_tree;
mod save;
mod scan;
mod selection;
mod sources;
mod split_sources;
mod state;
mod state_db;
mod stored;
mod stored_lists;
mod stream_saver;
mod streams;
mod test_parts;
mod tops;
mod walk;
mod zeros;

pub use detect::Comparison;
pub use heal::Healing;
pub use options::BackupOptions;
pub use report::BackupReport;
pub use sources::missing_source;
pub use state::LocalState;

use crate::error::Result;
use crate::repo::Repository;
use crate::watch::{Ledger, Watch};
use attempts::CarriedOver;
use baseline::Baseline;
use begin::begin;
use checkpoints::Checkpoints;
use choose::{WantedSources, choose, open_state};
use chunk_store::ChunkStore;
use conclude::Conclusion;
use content::ContentSaver;
use counts::BackupCounts;
use describe::Describer;
use entries::EntryBuilder;
use files::FileSaver;
use readers::Readers;
use save::save;
use selection::{Selection, settle_sources};
use split_sources::SplitSources;
use std::time::Instant;
use stream_saver::StreamSaver;
use walk::SourceWalk;

impl Repository {
    /// One attempt to save the sources; `Stale` when what it relied on turned out to be damaged or gone.
    fn attempt(
        &self,
        options: &BackupOptions,
        carried: &mut CarriedOver,
        begun: Instant,
        watch: &Watch,
    ) -> Result<BackupReport> {
        let started = options.started()?;
        let mut sources = SplitSources::of(&options.sources);
        let settled = settle_sources(self, &mut sources.paths, &options.rules, watch)?;
        let state = open_state(self, options, &sources, watch);
        let readers = Readers::start(options, &sources.paths)?;
        let (damage, writer) = begin(self, options, &readers, carried, watch)?;
        let choice = choose(self, state, &damage, WantedSources { options, paths: &sources.paths }, watch)?;

        let (ledger, counts) = (Ledger::new(watch, "finish the backup"), BackupCounts::default());
        let store = ChunkStore::new(self, writer, readers.most, watch);
        let selection = Selection::new(options, &sources, settled, &ledger, &counts);
        let baseline = Baseline::new(self, choice, options, &store, &damage, &ledger);
        let describer = Describer::new(&selection.left_out.mounts, &ledger)?;
        let content = ContentSaver::new(&store, &readers, options.memory_bytes, watch, &counts);
        let files = FileSaver::new(&content, &describer, &ledger, readers.lanes());
        let entries = EntryBuilder::new(options.comparison, &baseline, &describer, files, &counts);
        let checkpoints = Checkpoints::new(baseline.state(), &store, &ledger);
        let walk = SourceWalk::new(&selection, &entries, &checkpoints, &readers);
        let streams = StreamSaver {
            options,
            sources: &sources.streams,
            content: &content,
            baseline: &baseline,
            readers: &readers,
            counts: &counts,
            ledger: &ledger,
        };
        let saved = save(&walk, &streams, &mut carried.streams);

        let rows = checkpoints.take();
        let conclusion = Conclusion {
            repo: self,
            options,
            choice: baseline.choice,
            damage: &damage,
            before: &carried.before,
            sources: sources.in_snapshot(),
            counts: &counts,
            ledger: &ledger,
            started,
            begun,
        };
        conclusion.conclude(saved, store.into_writer(), rows)
    }
}
