//! What a new administrator meets: places that are not what they seem, secrets that were lost, stores that refuse.

use crate::person::Person;
use crate::server::{Server, answer, refuse};
use siltstone::storage::{S3Defaults, S3Keys, StorageAccess, open_location};
use std::sync::{Arc, Mutex};

const AWS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];

/// `init` made a repository among the files of other programs.
#[test]
fn a_repository_is_made_in_no_folder_with_other_files() {
    let person = Person::new();
    person.write("letters/to anna", "x");
    person.write("half/keys/0123456789abcdef", "of an init that was interrupted");
    let init = |place: &str| person.silt_with(&[("SILT_PASSWORD", "p")], &["init", "-r", place]);
    let refused = init("letters").ends_with(1);
    assert!(refused.err.contains("to anna") && refused.err.contains("\nhint: "), "{}", refused.err);
    assert_eq!(std::fs::read_dir(person.path("letters")).unwrap().count(), 1);
    std::fs::create_dir_all(person.path("disk/lost+found")).unwrap();
    for place in ["half", "disk", "new/below/it"] {
        init(place).ends_with(0);
    }
}

/// After the loss of the key file, the hint asked for a password and did not name the recovery key.
#[test]
fn a_lost_key_file_leads_to_the_recovery_key() {
    let person = Person::new();
    person.make_source();
    let first = person.silt(&["backup", "source"]).ends_with(0);
    let recovery = first.out.lines().find_map(|line| line.strip_prefix("Recovery key: ")).unwrap().to_owned();
    std::fs::remove_file(person.path("config/siltstone/key")).unwrap();
    for words in [&["snapshots"][..], &["backup", "source"], &["snapshots", "--key-file", "config/siltstone/key"]] {
        let lost = person.silt(words);
        assert!(lost.code != 0 && lost.err.contains("siltstone/key"), "{}", lost.err);
        assert!(lost.err.contains("SILT_RECOVERY_KEY") && lost.err.contains("--recovery-key-file"), "{}", lost.err);
        person.silt_with(&[("SILT_RECOVERY_KEY", &recovery)], words).ends_with(0);
    }
}

/// A password file that was written on Windows held another password than the one that was typed.
#[test]
fn a_password_file_of_another_system_holds_the_same_password() {
    let person = Person::new();
    let there = ("SILT_REPOSITORY", "repository");
    person.silt_with(&[there, ("SILT_PASSWORD", "geheim")], &["init", "--key-file", "key"]).ends_with(0);
    person.write("dos", "\u{feff}geheim\r\nsecond line\r\n");
    let key = std::fs::read_to_string(person.path("key")).unwrap();
    person.write("dos key", format!("\u{feff}{}\r\n", key.trim()));
    let words = ["snapshots", "--password-file", "dos", "--key-file", "dos key"];
    person.silt_with(&[there], &words).ends_with(0);
    person.write("wide", b"\xff\xfeg\0e\0");
    let wide = person.silt_with(&[there], &["snapshots", "--password-file", "wide"]).ends_with(5);
    assert!(wide.err.contains("UTF-8"), "{}", wide.err);
}

/// The disk of the repository was not mounted, and the next backup made a second repository below the mount point.
#[test]
fn a_default_repository_that_is_gone_is_not_made_anew_in_silence() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let (place, away) = (person.path("data/siltstone/repository"), person.path("away"));
    std::fs::rename(&place, &away).unwrap();
    std::fs::create_dir(&place).unwrap();
    let refused = person.silt(&["backup", "source"]).ends_with(1);
    assert!(refused.err.contains("was there at the last run") && refused.err.contains("mount"), "{}", refused.err);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    assert!(person.silt(&["snapshots"]).ends_with(1).err.contains("mounted"));
    std::fs::remove_dir(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    person.silt(&["backup", "source"]).ends_with(0);
    assert_eq!(person.snapshots(&[]).len(), 2);
}

/// Another repository was where the usual one had been, and no message said so.
#[test]
fn another_repository_at_a_known_place_is_told_once() {
    let person = Person::new();
    person.make_source();
    let silt = |words: &[&str]| person.silt_with(&[("SILT_PASSWORD", "p")], words).ends_with(0);
    silt(&["init", "-r", "one"]);
    silt(&["init", "-r", "two"]);
    assert!(!silt(&["backup", "-r", "one", "source"]).err.contains("another repository"));
    std::fs::rename(person.path("one"), person.path("three")).unwrap();
    std::fs::rename(person.path("two"), person.path("one")).unwrap();
    let told = silt(&["backup", "-r", "one", "source"]);
    assert!(told.err.contains("another repository") && told.err.contains("mounted"), "{}", told.err);
    assert!(!silt(&["snapshots", "-r", "one"]).err.contains("another repository"));
    // The same name elsewhere is another place.
    std::fs::create_dir_all(person.path("elsewhere")).unwrap();
    std::fs::rename(person.path("three"), person.path("elsewhere/one")).unwrap();
    let mut command = person.command(&["snapshots", "-r", "one"]);
    command.current_dir(person.path("elsewhere")).env("SILT_PASSWORD", "p");
    assert!(!crate::person::said(command.output().unwrap()).ends_with(0).err.contains("another repository"));
}

/// A bucket that is not there and a key that is wrong were both answered with "create a repository with `silt init`".
#[test]
fn a_wrong_bucket_a_wrong_key_and_a_wrong_region_are_told_apart() {
    let person = Person::new();
    person.make_source();
    let cases = [
        ("404 Not Found", "NoSuchBucket", "create the bucket"),
        ("403 Forbidden", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("403 Forbidden", "AccessDenied", "AWS_ACCESS_KEY_ID"),
        ("301 Moved Permanently", "PermanentRedirect", "region"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "region"),
        ("404 Not Found", "NoSuchKey", "silt init"),
    ];
    let verbs: [&[&str]; 6] = [
        &["snapshots"],
        &["backup", "source"],
        &["restore", "latest", "--target", "out"],
        &["ls", "latest"],
        &["export", "latest", "-o", "x.tar"],
        &["init"],
    ];
    for (status, code, hint) in cases {
        let server = Server::start(move |request, connection| refuse(connection, request, status, code));
        for words in verbs {
            if words == ["init"] && code == "NoSuchKey" {
                continue;
            }
            let mut command = person.command(words);
            command.env("SILT_REPOSITORY", server.bucket()).env("SILT_PASSWORD", "p").envs(AWS);
            let refused = crate::person::said(command.output().unwrap()).ends_with(1);
            assert!(refused.err.contains(hint), "{code}, {words:?}: {}", refused.err);
            assert!(hint == "silt init" || !refused.err.contains("silt init"), "{code}, {words:?}: {}", refused.err);
        }
    }
}

/// What changed on its way to the server was stored so, and the backup ended with 0.
#[test]
fn a_server_can_check_what_it_is_sent() {
    let person = Person::new();
    let checked: Arc<Mutex<Vec<bool>>> = Arc::default();
    let noted = checked.clone();
    let server = Server::start(move |request, connection| {
        if request.method == "PUT" {
            noted.lock().expect("whole").push(request.head.contains("\r\ncontent-md5: "));
            return answer(connection, request, "200 OK", "");
        }
        refuse(connection, request, "404 Not Found", "NoSuchKey");
    });
    let mut command = person.command(&["init"]);
    command.env("SILT_REPOSITORY", server.bucket()).env("SILT_PASSWORD", "p").envs(AWS);
    crate::person::said(command.output().expect("it runs"));
    let checked = checked.lock().expect("whole");
    assert!(!checked.is_empty() && checked.iter().all(|has_checksum| *has_checksum), "{checked:?}");
}

/// A server that knows no continuation tokens was asked the same for ever.
#[test]
fn a_list_that_does_not_go_on_is_an_error() {
    let server = Server::start(move |request, connection| {
        let object = "<Contents><Key>prefix/packs/a</Key><Size>1</Size><ETag>a</ETag>\
                      <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>";
        let list = format!("<ListBucketResult><IsTruncated>true</IsTruncated>{object}</ListBucketResult>");
        answer(connection, request, "200 OK", &list);
    });
    let keys = S3Keys { access_key: "a".to_owned(), secret_key: "b".to_owned(), session_token: None };
    let s3 = S3Defaults { keys: Some(keys), ..S3Defaults::default() };
    let access = StorageAccess { s3, ..StorageAccess::default() };
    let storage = open_location(&server.bucket(), true, &access).expect("nothing is asked yet");
    let error = storage.list("packs/").expect_err("it has no end");
    assert!(error.to_string().contains("began its list again"), "{error}");
}

/// A slip in the name of the host kept a person waiting as long as a store that is down.
#[test]
fn the_name_of_a_host_that_nobody_knows_is_not_waited_for() {
    let person = Person::new();
    // Whether there is a name server or not: this name has no address.
    let mut command =
        person.command(&["snapshots", "-r", "s3+http://no-such-host.invalid/bucket", "--retry-for", "3s"]);
    command.env("SILT_PASSWORD", "p").envs(AWS);
    let said = crate::person::said(command.output().unwrap()).ends_with(1);
    let is_known_to_be_none = said.err.contains("Name or service not known");
    assert_eq!(is_known_to_be_none, said.err.contains("check the name of the host"), "{}", said.err);
    assert!(!is_known_to_be_none || !said.err.contains("trying again"), "{}", said.err);
}

/// Other backup programs, and this one, saved the cache, as nothing said that it is one.
#[test]
fn the_cache_is_marked_as_one() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let tag = std::fs::read(person.path("cache/siltstone/CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with(b"Signature: 8a477f597d28d172789f06886806bc55"));
}

/// `--limit-upload` stood in the help and always failed; limits of a rate hold in every verb.
#[test]
fn limits_of_the_rate_are_options_of_every_verb() {
    let person = Person::new();
    person.make_source();
    let limits = ["--limit-upload", "1G", "--limit-download", "1G"];
    for words in [&["backup", "source"][..], &["snapshots"], &["restore", "latest", "--target", "out"], &["stats"]] {
        person.silt(&[words, &limits[..]].concat()).ends_with(0);
    }
}
