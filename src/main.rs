use siltstone::backup::BackupOptions;
use siltstone::chunk::ChunkTable;
use siltstone::repo::{Credentials, InitOptions, Repository};
use siltstone::storage::{Storage, local::Local};
use std::path::Path;
use std::sync::Arc;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "-q" && a != "-r").collect();
    let watch = siltstone::watch::Watch::new(Arc::new(|e| eprintln!("{e:?}")));
    let cred = Credentials::password("x");
    let cache = std::env::var("SILT_CACHE_DIR").unwrap();
    let t = std::time::Instant::now();
    match args[1].as_str() {
        "init" => {
            let s = Local::create(Path::new(&args[0])).unwrap();
            Repository::init(&s, &InitOptions { credentials: cred, cost: siltstone::seal::PasswordCost::DEFAULT, chunks: ChunkTable::default(), single_writer: false, abilities: s.abilities() }).unwrap();
        }
        "backup" => {
            let s = Arc::new(Local::open(Path::new(&args[0])).unwrap());
            let repo = Repository::open(s, &cred, Path::new(&cache), &watch).unwrap();
            eprintln!("open {:?}", t.elapsed());
            let r = repo.backup(BackupOptions::new(vec![args[2].clone().into()], "h"), &watch).unwrap();
            eprintln!("{:?} {:?} {}", r.totals, r.duration, r.troubles_count);
        }
        "restore" => {
            let s = Arc::new(Local::open(Path::new(&args[0])).unwrap());
            let repo = Repository::open(s, &cred, Path::new(&cache), &watch).unwrap();
            let snap = repo.snapshots(&watch).unwrap().pop().unwrap();
            let plan = repo.plan_restore(&snap, siltstone::restore::RestoreOptions::new(args[4].clone().into()), &watch).unwrap();
            eprintln!("plan {:?} {:?}", t.elapsed(), plan.summary);
            let r = plan.run(&watch).unwrap();
            eprintln!("{:?}", r.duration);
        }
        _ => {}
    }
}
