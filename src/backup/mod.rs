//! Sources → snapshot. [`Repository::backup`] begins here; this page shows the whole line.
//!
//! For each directory, a reader lists its names and compares their stats with the baseline (`walk`, `page`). For each file that
//! may have changed, it reads the content, cuts it into chunks and has each new chunk stored (`files`, `content`). The sink claims
//! a chunk, so that it is stored once, and packs it. Checkpoints make the packs findable through index objects. The commit creates
//! the snapshot.

mod attempts;
mod baseline;
mod begin;
mod bytes;
mod checkpoints;
mod choose;
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
mod nested;
mod old_entries;
mod options;
mod page;
mod per_reader;
mod readers;
mod removed;
mod report;
mod root_tree;
mod save;
mod scan;
mod selection;
mod sources;
mod state;
mod store;
mod stored;
mod stored_lists;
mod stream_saver;
mod streams;
mod tops;
mod walk;
mod zeros;

pub use detect::Comparison;
pub use heal::Healing;
pub use options::{BackupOptions, Input};
pub use report::BackupReport;
pub use sources::missing_source;
pub use state::State;

use crate::error::Result;
use crate::repo::Repository;
use crate::watch::{Ledger, Watch};
use attempts::Carried;
use std::time::Instant;

impl Repository {
    /// One attempt to save the sources; `Stale` when what it relied on turned out to be damaged or gone.
    fn attempt(
        &self,
        mut options: BackupOptions,
        carried: &mut Carried,
        begun: Instant,
        watch: &Watch,
    ) -> Result<BackupReport> {
        let started = options.started()?;
        let settled = selection::settle_sources(self, &mut options, watch)?;
        let options = &options;
        let state = choose::open_state(self, options, watch);
        let readers = readers::Readers::start(options)?;
        let (damage, writer) = begin::begin(self, options, &readers, carried, watch)?;
        let choice = choose::choose(self, state, &damage, options, watch)?;

        let (ledger, counts) = (Ledger::new(watch, "finish the backup"), counts::Counts::default());
        let store = store::ChunkStore::new(self, writer, readers.most, watch);
        let selection = selection::Selection::new(options, settled, &ledger, &counts);
        let baseline = baseline::Baseline::new(self, choice, options, &store, &damage, &ledger);
        let describer = describe::Describer::new(&selection.left_out.mounts, &ledger)?;
        let links = links::Links::default();
        let chunks = chunks::ChunkSaver::new(self.chunker(), &store);
        let intake = intake::Intake::new(chunks, watch, &counts);
        let content = content::ContentSaver::new(intake, readers.least, options.memory_bytes);
        let content = (!store.is_dry_run()).then_some(&content);
        let entries = entries::EntryBuilder {
            comparison: options.comparison,
            baseline: &baseline,
            describer: &describer,
            files: content.map(|content| files::FileSaver::new(content, &describer, &ledger, &links, readers.lanes())),
            links: &links,
            counts: &counts,
            ledger: &ledger,
        };
        let checkpoints = checkpoints::Checkpoints::new(baseline.state(), &store, &ledger);
        let walk = walk::Walk::new(walk::WalkParts {
            selection: &selection,
            entries: &entries,
            store: &store,
            checkpoints: &checkpoints,
            readers: &readers,
        });
        let streams = stream_saver::StreamSaver {
            options,
            saver: content,
            baseline: &baseline,
            readers: &readers,
            counts: &counts,
            ledger: &ledger,
        };
        let saved = save::save(&walk, &streams, &mut carried.streams);

        let rows = checkpoints.take();
        let conclusion = conclude::Conclusion {
            repo: self,
            options,
            choice: baseline.choice,
            damage: &damage,
            before: &carried.before,
            sources: options.sources(carried.streams.input_name.as_ref()),
            counts: &counts,
            ledger: &ledger,
            started,
            begun,
        };
        conclusion.conclude(saved, store.into_writer(), rows)
    }
}
