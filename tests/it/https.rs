//! S3 over https: whom silt trusts, and what it says about a store that it does not trust.

use crate::person::{Person, Said, contents};
use crate::skip::skipped;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A store over https, and a user of it.
struct Store {
    person: Person,
    location: String,
    certificates: PathBuf,
}

impl Store {
    /// None where `tests/servers/s3` started none.
    fn find(purpose: &str) -> Option<Store> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(location), Some(certificates)) =
            (variable("SILT_TEST_S3_HTTPS"), variable("SILT_TEST_S3_CERTIFICATES"))
        else {
            skipped("S3 over https", "SILT_TEST_S3_HTTPS is not set");
            return None;
        };
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let location = format!("{location}/{purpose}-{now:x}");
        Some(Store { person: Person::new(), location, certificates: certificates.into() })
    }

    fn certificate(&self, name: &str) -> String {
        self.certificates.join(name).to_str().unwrap().to_owned()
    }

    fn silt(&self, environment: &[(&str, &str)], words: &[&str]) -> Said {
        let environment =
            [&[("SILT_REPOSITORY", self.location.as_str()), ("SILT_PASSWORD", "x")], environment].concat();
        self.person.silt_with(&environment, words)
    }
}

#[test]
fn a_repository_over_https_whose_authority_is_named() {
    let Some(store) = Store::find("repository") else { return };
    let authority = store.certificate("authority.pem");
    let named = &[("SILT_CACERT", authority.as_str())][..];
    store.person.make_source();
    store.silt(&[], &["init", "--cacert", &authority]).ends_with(0);
    store.silt(named, &["backup", "source"]).ends_with(0);
    let source = store.person.path("source");
    let path = format!("latest:{}", source.display());
    store.silt(named, &["restore", &path, "--target", "out"]).ends_with(0);
    assert_eq!(contents(&store.person.path("out")), contents(&source));
    // As one of the system's authorities.
    store.silt(&[("SSL_CERT_FILE", &authority)], &["snapshots"]).ends_with(0);
    // Other words count more than the variable, and an empty one counts as unset.
    store.silt(&[("SILT_CACERT", "/no/such")], &["snapshots", "--cacert", &authority]).ends_with(0);
    store.silt(&[("SILT_CACERT", ""), ("SSL_CERT_FILE", &authority)], &["snapshots"]).ends_with(0);
}

#[test]
fn a_store_that_nobody_vouches_for_is_not_talked_to() {
    let Some(store) = Store::find("untrusted") else { return };
    let (authority, server) = (store.certificate("authority.pem"), store.certificate("server.pem"));
    let begun = Instant::now();
    // Neither the system nor another certificate vouches for it.
    for words in [&["init"][..], &["init", "--cacert", &server]] {
        let said = store.silt(&[], words).ends_with(1);
        assert!(
            said.err.contains("its certificate was issued by an untrusted authority (CA)\nhint: name a file"),
            "{}",
            said.err
        );
        assert!(said.err.contains("--cacert or SILT_CACERT"), "{}", said.err);
    }
    // The certificate is for an address, not for this name of it.
    let other = store.location.replace("127.0.0.1", "localhost");
    let said = store.silt(&[("SILT_CACERT", &authority), ("SILT_REPOSITORY", &other)], &["init"]).ends_with(1);
    assert!(
        said.err.contains("not valid for name") && said.err.contains("hint: use a host name that the certificate"),
        "{}",
        said.err
    );
    // None of these failures passes, so nothing was tried again and again.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let person = Person::new();
    person.write("empty", "");
    person.write("words", "no certificate\n");
    person.write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for file in ["empty", "words", "broken"] {
        let said = person.silt(&["snapshots", "--repo", "s3+https://127.0.0.1:1/b", "--cacert", file]).ends_with(1);
        assert!(said.err.starts_with(&format!("silt: cannot read the certificates in {file}: ")), "{}", said.err);
        assert!(said.err.contains("-----BEGIN CERTIFICATE-----"), "{}", said.err);
    }
    let said = person.silt(&["snapshots", "--repo", "s3+https://127.0.0.1:1/b", "--cacert", "gone"]).ends_with(1);
    assert!(said.err.contains("gone: No such file"), "{}", said.err);
}

#[test]
fn a_store_that_speaks_no_https_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let person = Person::new();
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("SILT_PASSWORD", "x")];
    let said =
        person.silt_with(&keys, &["snapshots", "--repo", &format!("s3+https://127.0.0.1:{port}/b")]).ends_with(1);
    assert!(said.err.contains("hint: check whether the server speaks https"), "{}", said.err);
}
