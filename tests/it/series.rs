//! Verbs that look at many snapshots, one of which is damaged: they are right about the others.

use crate::person::Person;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn packs(person: &Person) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![person.path("repository/packs")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

/// Three snapshots: before the second, `gone` is deleted and `changed` is written anew; before the third, `new` comes. Then the snapshot of
/// this number loses all that it brought.
fn damaged(number: usize) -> Person {
    let person = Person::new();
    person.silt(&["init", "--key-file", "key", "-r", "repository"]).ends_with(0);
    let mut lost = BTreeSet::new();
    for round in 0..3 {
        match round {
            0 => ["same", "gone", "changed"].iter().for_each(|name| person.write(&format!("source/{name}"), "first")),
            1 => {
                fs::remove_file(person.path("source/gone")).expect("removed");
                person.write("source/changed", "second, and longer than an entry holds");
            }
            _ => person.write("source/new", "third"),
        }
        let before = packs(&person);
        person.silt(&["backup", "--key-file", "key", "-r", "repository", "source"]).ends_with(0);
        if round == number {
            lost = packs(&person).difference(&before).cloned().collect();
        }
    }
    lost.iter().for_each(|pack| fs::remove_file(pack).expect("removed"));
    person
}

/// A comparison of a snapshot with a damaged one hid what the damaged one lacks: `find` found nothing in snapshots that were whole,
/// or what another snapshot had, and `stats` counted nothing.
#[test]
fn what_one_snapshot_lacks_is_found_in_the_others() {
    // Of each name: in which snapshots it is, if one of them is damaged.
    let of_names: [(&str, [&[usize]; 3]); 3] =
        [("same", [&[1, 2], &[0, 2], &[0, 1]]), ("gone", [&[], &[0], &[0]]), ("new", [&[2], &[2], &[]])];
    let repository = ["--key-file", "key", "-r", "repository"];
    for number in 0..3 {
        let person = damaged(number);
        let snapshots = person.snapshots(&repository);
        let ids: Vec<&str> = snapshots.iter().map(|snapshot| snapshot["id"].as_str().expect("text")).collect();
        let is_named = |said: &str| assert!(said.contains(&format!("snapshot {}", &ids[number][..8])), "{said}");
        for (name, expected) in of_names {
            let said = person.silt(&[&["find", name, "--json"][..], &repository].concat()).ends_with(6);
            is_named(&said.err);
            let line = (!said.out.is_empty()).then(|| said.json());
            let versions = line.map(|line| line["versions"].as_array().expect("a list").clone()).unwrap_or_default();
            let at = |seen: &Value| ids.iter().position(|known| seen["id"] == **known).expect("it is listed");
            let mut found = Vec::new();
            for version in &versions {
                found.extend(at(&version["first"])..=at(&version["last"]));
            }
            assert_eq!(found, expected[number], "{number} {name}: {}", said.out);
        }
        let said = person.silt(&[&["stats", "--json"][..], &repository].concat()).ends_with(6);
        is_named(&said.err);
        // Three files in the first one, two in the second, three in the third.
        assert_eq!(said.json()["files"], [5, 6, 5][number], "{number}: {}", said.out);
    }
}
