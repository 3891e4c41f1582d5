//! Objects in a bucket of an S3 server.

use crate::error::{Error, Kind, Result};
use crate::storage::object_errors::{Service, ServiceAnswer, failed};
use crate::storage::objects::{Objects, STALL_TIMEOUT};
use crate::storage::{Capabilities, tls};
use crate::watch::Cancel;
use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use std::path::Path;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REGION: &str = "us-east-1";

static SERVICE: Service = Service {
    name: "S3",
    capabilities: Capabilities { put_new: true, compare_and_swap: true, rename: false },
    read_answer,
    denied_hint: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what this key may do with the bucket",
};

/// Where a bucket is, as its location says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Location {
    /// None: that of the defaults, or else Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub bucket: String,
    /// Without slashes around it; may be empty.
    pub prefix: String,
}

impl S3Location {
    /// Understands `s3://BUCKET/PREFIX?endpoint=URL&region=NAME` and `s3+https://HOST:PORT/BUCKET/PREFIX?region=NAME`
    /// (or `s3+http`).
    pub(crate) fn parse(location: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid("understand the location of the bucket", "", why.to_owned()).hint(
                "write s3://BUCKET/PREFIX?endpoint=URL&region=NAME or s3+https://HOST:PORT/BUCKET/PREFIX?region=NAME",
            )
        };
        let (scheme, rest) = location.split_once("://").ok_or_else(|| bad("it has no ://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut endpoint = None;
        let path = match scheme {
            "s3" => path,
            "s3+http" | "s3+https" => {
                let (host, path) = path.split_once('/').ok_or_else(|| bad("it names no bucket"))?;
                if host.is_empty() {
                    return Err(bad("it names no host"));
                }
                endpoint = Some(format!("{}://{host}", &scheme["s3+".len()..]));
                path
            }
            _ => return Err(bad("it does not start with s3://, s3+https:// or s3+http://")),
        };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let prefix = prefix.trim_matches('/');
        let mut region = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", url)) if scheme == "s3" && url.contains("://") => endpoint = Some(url.to_owned()),
                Some(("endpoint", _)) => return Err(bad("its endpoint is not a URL, or there are two")),
                Some(("region", name)) if !name.is_empty() => region = Some(name.to_owned()),
                _ => return Err(bad("after the ? only endpoint=URL and region=NAME are allowed")),
            }
        }
        let endpoint = endpoint.map(|url| url.trim_end_matches('/').to_owned());
        if endpoint.as_ref().is_some_and(|url| url.contains('@')) || bucket.contains('@') {
            return Err(bad("it must not contain keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        // The slashes of a URL without a host were trimmed with the others.
        if endpoint.as_ref().is_some_and(|url| !url.contains("://")) {
            return Err(bad("it names no host"));
        }
        if bucket.is_empty() {
            return Err(bad("it names no bucket"));
        }
        if !prefix.is_empty() && prefix.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(bad("its prefix has a part that is empty, \".\" or \"..\""));
        }
        Ok(S3Location { endpoint, region, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// What the location of a bucket leaves open.
#[derive(Clone, Default)]
pub struct S3Defaults {
    /// The URL of the server.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// None: the client library looks for them, as the tools of AWS do.
    pub keys: Option<S3Keys>,
}

/// What requests are signed with.
#[derive(Clone)]
pub struct S3Keys {
    /// The name of the key.
    pub access_key: String,
    /// The secret of the key.
    pub secret_key: String,
    /// What belongs to a key that expires.
    pub session_token: Option<String>,
}

impl S3Defaults {
    /// Reads the variables that the tools of AWS read: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
    /// `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let keys = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        S3Defaults {
            endpoint: variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")),
            region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")),
            keys: keys.map(|(access_key, secret_key)| S3Keys {
                access_key,
                secret_key,
                session_token: variable("AWS_SESSION_TOKEN"),
            }),
        }
    }
}

/// Opens a bucket. Region and endpoint are those of `defaults` as far as the location does not name them. An https server is trusted if an
/// authority of the system issued its certificate, or one in `ca_file` if that is given. Sends no request yet. A cancel ends its requests.
pub(crate) fn open(
    location: &S3Location,
    defaults: &S3Defaults,
    ca_file: Option<&Path>,
    cancel: &Cancel,
) -> Result<Objects> {
    let endpoint = location.endpoint.as_ref().or(defaults.endpoint.as_ref()).cloned();
    let region = location.region.as_ref().or(defaults.region.as_ref()).map_or(REGION, String::as_str);

    let place = |prefix: &str| {
        if prefix.is_empty() { location.bucket.clone() } else { format!("{}/{prefix}", location.bucket) }
    };
    let name = match &location.endpoint {
        Some(endpoint) => format!("s3+{endpoint}/{}", place(&location.prefix)),
        None => format!("s3://{}", place(&location.prefix)),
    };
    let mut builder =
        opendal::services::S3::default().bucket(&location.bucket).root(&format!("/{}", location.prefix)).region(region);
    // The server refuses what arrives changed.
    builder = builder.checksum_algorithm("md5");
    if let Some(endpoint) = &endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(keys) = &defaults.keys {
        builder = builder.access_key_id(&keys.access_key).secret_access_key(&keys.secret_key);
        if let Some(token) = &keys.session_token {
            builder = builder.session_token(token);
        }
    }
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(STALL_TIMEOUT)
        .tcp_keepalive(STALL_TIMEOUT / 4);
    let client = tls::build(client, &name, endpoint.as_deref(), ca_file)?;
    let transport = HttpTransporter::new(ReqwestTransport::new(client));
    let operator = Operator::new(builder).map_err(|error| failed(&SERVICE, "open", &name, &error))?;
    let operator = operator.with_context(OperationContext::new().with_http_transport(transport));
    Ok(Objects::new(operator, &SERVICE, name, cancel))
}

/// What an S3 server says when it refuses a request, and what its codes mean (Amazon S3 API Reference, "Error responses").
fn read_answer(error: &opendal::Error) -> ServiceAnswer {
    let code = field(error.message(), "code").unwrap_or_default();
    let said = field(error.message(), "message").filter(|said| !said.is_empty());
    let said = said.unwrap_or_else(|| error.message().trim());
    let why = [code, said].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(": ");
    let kind = match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AccessDenied"
        | "ExpiredToken"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AllAccessDisabled" => Some(Kind::Denied),
        // Not as a missing object: the hint to create a repository would be wrong.
        "NoSuchBucket" | "PermanentRedirect" | "AuthorizationHeaderMalformed" => Some(Kind::Failed),
        "RequestTimeout" | "SlowDown" | "ServiceUnavailable" | "InternalError" | "ServerBusy" | "Throttling"
        | "BadDigest" => Some(Kind::Temporary),
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => Some(Kind::Full),
        "NotImplemented" => Some(Kind::Unsupported),
        _ => None,
    };
    let hint = match code {
        "RequestTimeTooSkewed" => Some("correct the clock of this machine"),
        "NoSuchBucket" => Some("create the bucket first, or check its name and the endpoint"),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            Some("name the bucket's region: ?region=NAME in the location, or AWS_REGION")
        }
        _ => None,
    };
    ServiceAnswer { why: Some(why).filter(|why| !why.is_empty()), kind, hint }
}

/// A field of the store's error document, as the client library prints it.
fn field<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    let inner = message.strip_prefix("S3Error {")?;
    let start = inner.find(&format!(" {key}: \""))? + key.len() + 4;
    let rest = &inner[start..];
    rest.find("\",").or_else(|| rest.find("\" }")).map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_bucket_prefix_and_store() {
        let whole = S3Location::parse("s3://b/p/q/?endpoint=https://h:1/&region=r").unwrap();
        assert_eq!((whole.bucket.as_str(), whole.prefix.as_str()), ("b", "p/q"));
        assert_eq!((whole.endpoint.as_deref(), whole.region.as_deref()), (Some("https://h:1"), Some("r")));
        let short = S3Location::parse("s3+http://127.0.0.1:9/b").unwrap();
        assert_eq!((short.endpoint.as_deref(), short.prefix.as_str()), (Some("http://127.0.0.1:9"), ""));
    }

    #[test]
    fn locations_that_say_too_little_or_too_much_are_refused() {
        for location in ["s3://", "s3+http://h", "s3://b?x=1", "s3://b/../c", "s3+https://k:s@h/b", "s3+http:///b"] {
            let error = S3Location::parse(location).unwrap_err();
            assert!(error.is(Kind::Invalid) && error.advice().is_some(), "{location}");
        }
    }

    #[test]
    fn the_stores_words_are_found_in_its_answer() {
        let message = r#"S3Error { code: "AccessDenied", message: "no, \"never\"", resource: "", request_id: "" }"#;
        assert_eq!(field(message, "code"), Some("AccessDenied"));
        assert_eq!(field(message, "request_id"), Some(""));
    }
}
