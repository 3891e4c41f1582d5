//! The whole line in one process: first backup, unchanged, restored; a made tree of 20,000 files, medians of five.
//!
//! `silt bench tree` measures the same as processes, beside other tools.

use siltstone::backup::BackupOptions;
use siltstone::bench::{TreeShape, make_tree};
use siltstone::chunk::ChunkTable;
use siltstone::repo::{Credentials, InitOptions, Repository};
use siltstone::restore::RestoreOptions;
use siltstone::seal::{PasswordCost, Secret};
use siltstone::storage::{Local, Storage};
use siltstone::watch::Watch;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..5 {
        let work = tempfile::tempdir().expect("a folder to work in");
        let tree = work.path().join("tree");
        make_tree(&TreeShape { files: 20_000, ..TreeShape::default() }, &tree, 0).expect("the tree is made");
        let storage = Local::create(&work.path().join("repository")).expect("the repository's folder is made");
        let credentials = Credentials::key_file(Secret([1; 32]));
        let options = InitOptions {
            credentials: credentials.clone(),
            cost: PasswordCost::DEFAULT,
            chunks: ChunkTable::default(),
            single_writer: false,
            capabilities: storage.capabilities(),
        };
        Repository::init(&storage, &options).expect("the repository is made");
        let (storage, watch) = (Arc::new(storage), Watch::silent());
        let cache = work.path().join("cache");
        for figure in &mut figures[..2] {
            let begun = Instant::now();
            let repo = Repository::open(storage.clone(), &credentials, &cache, &watch).expect("it opens");
            repo.backup(BackupOptions::new(vec![tree.clone()], "bench"), &watch).expect("it is backed up");
            figure.push(begun.elapsed().as_secs_f64());
        }
        let begun = Instant::now();
        let repo = Repository::open(storage, &credentials, &cache, &watch).expect("it opens");
        let snapshot = repo.snapshots(&watch).expect("they are listed").pop().expect("there are two");
        let plan = repo.plan_restore(&snapshot, RestoreOptions::new(work.path().join("out")), &watch);
        plan.expect("it is planned").run(&watch).expect("it is restored");
        figures[2].push(begun.elapsed().as_secs_f64());
    }
    for (step, mut seconds) in ["first", "unchanged", "restore"].into_iter().zip(figures) {
        seconds.sort_by(f64::total_cmp);
        println!("{step:10} {:.3} s", seconds[seconds.len() / 2]);
    }
}
