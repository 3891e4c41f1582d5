//! Objects that no writer of ours made: they neither change what a command does nor hide what is there.

use crate::person::Person;
use std::fs;

#[test]
fn what_cannot_be_a_snapshot_by_name_is_a_notice() {
    // Any such object made every restore end with 3, and a backup say that `latest` meant it.
    let person = Person::new();
    person.write("source/x", "x");
    person.silt(&["backup", "source"]).ends_with(0);
    for name in ["zzz", "20990101t000000z-junk", "readme.txt"] {
        person.write(&format!("data/siltstone/repository/snapshots/{name}"), "junk");
    }
    let next = person.silt(&["backup", "source"]).ends_with(0);
    assert!(!next.err.contains("future"), "{}", next.err);
    let id =
        next.out.split("Snapshot ").nth(1).expect("it names its snapshot").split_whitespace().next().expect("an id");
    let said = person.silt(&["restore", id, "--target", "named"]).ends_with(0);
    assert!(said.err.contains("ignored 3 objects"), "{}", said.err);
    person.silt(&["restore", "latest", "--target", "latest"]).ends_with(0);
    person.silt(&["snapshots"]).ends_with(0);
    // One that has the name of a snapshot and is not one, dated in the future, prevents no restore of another one, and is reported.
    person.write(&format!("data/siltstone/repository/snapshots/20990101t000000z-{}", "7".repeat(32)), "junk");
    let next = person.silt(&["backup", "source"]).ends_with(0);
    assert!(!next.err.contains("future"), "{}", next.err);
    person.silt(&["restore", id, "--target", "again"]).ends_with(0);
    person.silt(&["restore", "latest", "--target", "latest"]).ends_with(0);
    person.silt(&["snapshots"]).ends_with(6);
}

#[test]
fn that_no_snapshot_can_be_read_is_not_that_there_is_none() {
    let person = Person::new();
    person.write("source/x", "x");
    person.silt(&["backup", "source"]).ends_with(0);
    for file in fs::read_dir(person.path("data/siltstone/repository/snapshots")).expect("listed") {
        fs::write(file.expect("a file").path(), "rubbish").expect("written");
    }
    let said = person.silt(&["ls", "latest"]).ends_with(6);
    assert!(said.err.contains("no other snapshot in the repository can be read"), "{}", said.err);
}

#[test]
fn init_refuses_a_repository_that_has_lost_its_config() {
    // A second repository was made among the packs and snapshots of the first.
    for kept in ["snapshots", "index", "packs"] {
        let person = Person::new();
        person.write("source/x", "x");
        person.silt(&["backup", "source"]).ends_with(0);
        fs::rename(person.path("data/siltstone/repository/config"), person.path("lost")).expect("moved");
        for prefix in ["snapshots", "index", "packs"].into_iter().filter(|prefix| *prefix != kept) {
            fs::remove_dir_all(person.path(&format!("data/siltstone/repository/{prefix}"))).expect("removed");
        }
        let location = "data/siltstone/repository";
        let init = person.silt_with(&[("SILT_PASSWORD", "p")], &["-r", location, "init"]).ends_with(1);
        assert!(init.err.contains("has lost its `config`"), "{}", init.err);
        person.silt(&["backup", "source"]).ends_with(1);
        assert!(!person.path("data/siltstone/repository/config").exists());
    }
}
