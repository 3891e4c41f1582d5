//! Every verb ends with the codes that docs/OPERATIONS.md lists.

use crate::person::Person;

/// Each verb with words that make sense.
const VERBS: [&[&str]; 9] = [
    &["backup", "source"],
    &["restore", "latest", "--target", "out"],
    &["snapshots"],
    &["ls", "latest"],
    &["find", "*"],
    &["diff", "latest", "source"],
    &["cat", "latest:/x"],
    &["export", "latest", "-o", "x.tar"],
    &["stats"],
];

fn person_with_repository() -> Person {
    let person = Person::new();
    person.make_source();
    person.write("password", "right\n");
    person.silt(&["init", "-r", "repository", "--password-file", "password"]).ends_with(0);
    person.silt(&["backup", "source", "-r", "repository", "--password-file", "password"]).ends_with(0);
    person
}

#[test]
fn words_that_make_no_sense_end_with_2_and_begin_nothing() {
    let person = Person::new();
    for words in VERBS {
        for more in [
            &["--no-such-option"][..],
            &["--repo", ""],
            &["--retry-for", "soon"],
            &["--limit-upload", "0"],
            &["--limit-download", "x"],
            &["--memory", "1"],
        ] {
            person.silt(&[words, more].concat()).ends_with(2);
        }
        let empty = person.silt_with(&[("SILT_REPOSITORY", "")], words).ends_with(2);
        assert!(empty.err.contains("SILT_REPOSITORY"), "{}", empty.err);
    }
    person.silt(&["init", "--repo", ""]).ends_with(2);
    assert!(!person.path("data").exists(), "no default repository took the place of an empty name");
}

#[test]
fn where_no_repository_is_every_verb_ends_with_1() {
    let person = Person::new();
    person.make_source();
    std::fs::create_dir(person.path("empty")).unwrap();
    for words in VERBS {
        for place in ["empty", "no/such/place"] {
            let none = person.silt_with(&[("SILT_REPOSITORY", place), ("SILT_PASSWORD", "x")], words).ends_with(1);
            assert!(none.err.contains(place) && none.err.contains("silt init"), "{words:?}: {}", none.err);
        }
    }
    assert_eq!(std::fs::read_dir(person.path("empty")).unwrap().count(), 0);
}

#[test]
fn a_wrong_or_missing_secret_ends_every_verb_with_5() {
    let person = person_with_repository();
    let there = ("SILT_REPOSITORY", "repository");
    for words in VERBS {
        let wrong = person.silt_with(&[there, ("SILT_PASSWORD", "wrong")], words).ends_with(5);
        assert!(wrong.err.contains("\nhint: "), "{words:?}: {}", wrong.err);
        person.silt_with(&[there], words).ends_with(5);
        let recovery = "AAAAA";
        person.silt_with(&[there, ("SILT_RECOVERY_KEY", recovery)], words).ends_with(5);
    }
    assert!(!person.path("out").exists() && !person.path("x.tar").exists());
}

#[test]
fn stored_data_that_are_damaged_end_every_verb_with_6() {
    let person = person_with_repository();
    person.write("repository/config", "no configuration");
    for words in VERBS {
        let there = [("SILT_REPOSITORY", "repository"), ("SILT_PASSWORD", "right")];
        person.silt_with(&there, words).ends_with(6);
    }
}
