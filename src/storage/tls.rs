//! Whom to trust at the other end of an encrypted connection: the system's authorities, or those in a file.

use crate::disk::whole::read_bounded;
use crate::error::{Error, Kind, Result};
use reqwest::{Certificate, Client, ClientBuilder};
use std::error::Error as Cause;
use std::path::Path;

const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;

/// A client for the server of this name that trusts the authorities in a PEM file and no others; without a file, those of
/// the system.
pub(super) fn build(
    client: ClientBuilder,
    name: &str,
    endpoint: Option<&str>,
    ca_file: Option<&Path>,
) -> Result<Client> {
    let client = match ca_file {
        Some(path) => client.tls_certs_only(certificates(path)?),
        // A connection in the clear needs none, and some machines have none.
        None if endpoint.is_some_and(|url| url.starts_with("http://")) => client.tls_certs_only([]),
        None => client,
    };
    client.build().map_err(|error| match ca_file {
        Some(path) => unusable(path, innermost(&error)),
        None => {
            let (why, advice) = explain(&innermost(&error));
            let error = Error::new(Kind::Failed, "prepare requests to", name).because(why);
            advice.into_iter().fold(error, Error::hint)
        }
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let bytes = read_bounded(path, CERTIFICATES_BYTES_MAX)?;
    let certificates = Certificate::from_pem_bundle(&bytes).map_err(|error| unusable(path, innermost(&error)))?;
    if certificates.is_empty() { Err(unusable(path, "it has none".to_owned())) } else { Ok(certificates) }
}

fn unusable(path: &Path, why: String) -> Error {
    Error::invalid("read the certificates in", path.display(), why)
        .hint("the file must have the certificate of the authority in PEM format, which begins with -----BEGIN CERTIFICATE-----")
}

/// The words of the library, why this is so, and what to do about it.
type HintRow = (&'static str, Option<&'static str>, &'static str);

const UNTRUSTED: Option<&str> = Some("its certificate was issued by an untrusted authority (CA)");
const TRUST: &str =
    "name a file with the certificate of that authority with --cacert or SILT_CACERT, or add it to those of the system";

const TABLE: [HintRow; 10] = [
    ("UnknownIssuer", UNTRUSTED, TRUST),
    // An authority of the same name, but with another key, is known.
    ("BadSignature", UNTRUSTED, TRUST),
    ("UnsupportedSignatureAlgorithmForPublicKey", UNTRUSTED, TRUST),
    (
        "CaUsedAsEndEntity",
        Some("its certificate is that of an authority, not of a server"),
        "give the server a certificate with CA:FALSE, signed by itself or by an authority",
    ),
    (
        "not valid for name",
        None,
        "use a host name that the certificate of the server is valid for, or give the server a certificate for this one",
    ),
    ("certificate expired", None, "renew the certificate of the server, or correct the clock of this machine"),
    ("certificate not valid yet", None, "correct the clock of this machine, or check the certificate of the server"),
    ("No CA certificates", None, "install the system's certificates (ca-certificates), or name some with --cacert"),
    (
        "InvalidContentType",
        None,
        "check whether the server speaks https at this address, or try s3+http:// or another port",
    ),
    ("invalid peer certificate", None, "check the certificate of the server"),
];

/// Why a connection failed and, where encryption was the reason, what to do about it.
pub(super) fn explain(why: &str) -> (String, Option<&'static str>) {
    match TABLE.into_iter().find(|(words, ..)| why.contains(words)) {
        Some((_, plain, advice)) => (plain.unwrap_or(why).to_owned(), Some(advice)),
        None => (why.to_owned(), None),
    }
}

/// The first cause of an error, in its own words.
pub(super) fn innermost(error: &(dyn Cause + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
