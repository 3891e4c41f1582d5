//! Objects in a bucket of an S3 store.

use crate::error::{Error, Kind, Result, kind_of_io};
use crate::runtime::block_on;
use crate::storage::{Body, Capabilities, Listed, Profile, Stat, Storage, Version, check_name, tls};
use crate::watch::{Cancel, REQUEST_GRACE, TIDY_GRACE, interrupted};
use futures_util::TryStreamExt;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::{Buffer, ErrorKind, HttpTransporter, Metadata, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use std::error::Error as Cause;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer that takes longer will not come.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A pack that is sent more slowly counts as stalled; eight of them share a line.
const BYTES_A_SECOND_MIN: u64 = 8 << 10;
const REGION: &str = "us-east-1";

/// Where a bucket is, as its location says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
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
    pub fn parse(location: &str) -> Result<Self> {
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
    /// The URL of the store.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// None: the client library looks for them, as the tools of AWS do.
    pub keys: Option<S3Keys>,
}

#[derive(Clone)]
pub struct S3Keys {
    pub access_key: String,
    pub secret_key: String,
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

/// A bucket, or what is below a prefix of it.
pub struct S3 {
    operator: Operator,
    name: String,
    cancel: Cancel,
    /// It has answered once, so its address is right.
    has_answered: AtomicBool,
}

/// How long one request may take.
struct Allowed {
    until: Instant,
    /// And how long after a cancel.
    grace: Duration,
}

impl Allowed {
    /// `STALL_TIMEOUT` and the time for `bytes` on a very slow line.
    fn for_bytes(bytes: u64) -> Self {
        Allowed { until: Instant::now() + limit(bytes), grace: REQUEST_GRACE }
    }

    /// For a request by which a run that ends tidies up.
    fn to_tidy_up(bytes: u64) -> Self {
        Allowed { grace: TIDY_GRACE, ..Allowed::for_bytes(bytes) }
    }
}

fn limit(bytes: u64) -> Duration {
    STALL_TIMEOUT + Duration::from_secs(bytes / BYTES_A_SECOND_MIN)
}

impl S3 {
    /// Region and endpoint are those of `defaults` as far as the location does not name them. An https store is trusted when an
    /// authority of the system vouches for it, or one in `ca_file` if that is given. Asks the store nothing yet. A cancel ends its
    /// requests.
    pub fn open(location: &S3Location, defaults: &S3Defaults, ca_file: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        let endpoint = location.endpoint.as_ref().or(defaults.endpoint.as_ref()).cloned();
        let region = location.region.as_ref().or(defaults.region.as_ref()).map_or(REGION, String::as_str);

        let place = |prefix: &str| {
            if prefix.is_empty() { location.bucket.clone() } else { format!("{}/{prefix}", location.bucket) }
        };
        let name = match &location.endpoint {
            Some(endpoint) => format!("s3+{endpoint}/{}", place(&location.prefix)),
            None => format!("s3://{}", place(&location.prefix)),
        };
        let mut builder = opendal::services::S3::default()
            .bucket(&location.bucket)
            .root(&format!("/{}", location.prefix))
            .region(region);
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
        let operator = Operator::new(builder).map_err(|error| failed("open", &name, &error))?;
        let operator = operator.with_context(OperationContext::new().with_http_transport(transport));
        Ok(S3 { operator, name, cancel: cancel.clone(), has_answered: AtomicBool::new(false) })
    }

    /// Runs one request, or a part of one, that ends with the answer of the store.
    fn request<T>(
        &self,
        doing: &str,
        name: &str,
        allowed: &Allowed,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T> {
        let answered = self.run(doing, name, allowed, request)?;
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(answered)
    }

    fn run<T>(
        &self,
        doing: &str,
        name: &str,
        allowed: &Allowed,
        request: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let is_over = || Instant::now() >= allowed.until || self.cancel.is_over(allowed.grace);
        match block_on(request, is_over)? {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) => Err(self.failed(doing, &self.of(name), &error)),
            None if self.cancel.is_cancelled() => Err(interrupted(doing, &self.of(name))),
            None => Err(stalled(doing, &self.of(name), began.elapsed())),
        }
    }

    fn failed(&self, doing: &str, name: &str, error: &opendal::Error) -> Error {
        let told = failed(doing, name, error);
        // A name that nobody knows is waited for only where it was known before.
        if told.is_temporary() && !self.has_answered.load(Ordering::Relaxed) && is_unknown_name(error) {
            return told.with_kind(Kind::Failed).hint("check the name of the host in the location");
        }
        if error.source().is_none() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        told
    }

    fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// Writes the whole object. Returns its version if the store says it.
    fn write(&self, doing: &str, name: &str, body: Body, options: WriteOptions) -> Result<Option<Version>> {
        check_name(name)?;
        let bytes = body.len();
        // A commit replaces an object: it may be what ends a run.
        let allowed = match options.if_match {
            Some(_) => Allowed::to_tidy_up(bytes),
            None => Allowed::for_bytes(bytes),
        };
        // Without a chunk size one write is one PUT, never an upload of parts.
        let written = self.operator.write_options(name, Buffer::from(body.0), options);
        let meta = self.request(doing, name, &allowed, written)?;
        Ok(version_of(&meta))
    }

    fn version_or_ask(&self, name: &str, version: Option<Version>) -> Result<Version> {
        version.map_or_else(|| self.stat(name).map(|stat| stat.version), Ok)
    }
}

fn version_of(meta: &Metadata) -> Option<Version> {
    meta.etag().filter(|etag| !etag.is_empty()).map(|etag| Version(etag.to_owned()))
}

fn stalled(doing: &str, name: &str, waited: Duration) -> Error {
    Error::new(Kind::Temporary, doing, name).because(format!("no answer within {} s", waited.as_secs()))
}

/// The system's name servers say that there is no host of that name.
fn is_unknown_name(error: &opendal::Error) -> bool {
    let why = error.source().map(innermost).unwrap_or_default();
    why.contains("Name or service not known") || why.contains("No address associated with hostname")
}

/// What the store's answer or the network says, without headers and addresses.
fn failed(doing: &str, name: &str, error: &opendal::Error) -> Error {
    let code = field(error.message(), "code").unwrap_or_default();
    let (why, io) = match error.source() {
        Some(source) => (innermost(source), io_kind(source)),
        None => {
            let said = field(error.message(), "message").filter(|said| !said.is_empty());
            let said = said.unwrap_or_else(|| error.message().trim());
            let why = [code, said].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(": ");
            (if why.is_empty() { error.kind().to_string() } else { why }, None)
        }
    };
    if error.source().is_some()
        && let (why, Some(advice)) = tls::explain(&why)
    {
        // Trying again changes no certificate.
        return Error::new(Kind::Failed, doing, name).because(why).hint(advice);
    }
    let kind = kind_of(error, code, io, &why);
    let error = Error::new(kind, doing, name).because(why);
    match (kind, code) {
        (Kind::Denied, "RequestTimeTooSkewed") => error.hint("correct the clock of this machine"),
        (Kind::Denied, _) => {
            error.hint("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what this key may do with the bucket")
        }
        (_, "NoSuchBucket") => error.hint("create the bucket first, or check its name and the endpoint"),
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            error.hint("name the bucket's region: ?region=NAME in the location, or AWS_REGION")
        }
        (Kind::Full, _) => error.hint("free space in the bucket or raise its quota; what is stored already stays good"),
        (Kind::Temporary, _) => error.hint("check the network, and whether the S3 server at this address is running"),
        _ => error,
    }
}

fn kind_of(error: &opendal::Error, code: &str, io: Option<Kind>, why: &str) -> Kind {
    match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AccessDenied"
        | "ExpiredToken"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AllAccessDisabled" => return Kind::Denied,
        // Not as an object that is not there: nobody should be told to make a repository in it.
        "NoSuchBucket" | "PermanentRedirect" | "AuthorizationHeaderMalformed" => return Kind::Failed,
        "RequestTimeout" | "SlowDown" | "ServiceUnavailable" | "InternalError" | "ServerBusy" | "Throttling" => {
            return Kind::Temporary;
        }
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => return Kind::Full,
        "NotImplemented" => return Kind::Unsupported,
        _ => {}
    }
    match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::PermissionDenied => Kind::Denied,
        ErrorKind::AlreadyExists => Kind::AlreadyExists,
        ErrorKind::ConditionNotMatch => Kind::Conflict,
        // Two conditional writes met; neither has won yet.
        ErrorKind::Conflict | ErrorKind::RateLimited => Kind::Temporary,
        ErrorKind::RangeNotSatisfied => Kind::Corrupt,
        ErrorKind::Unsupported => Kind::Unsupported,
        ErrorKind::ConfigInvalid => Kind::Invalid,
        _ if why.contains("credential") => Kind::Denied,
        _ if error.is_temporary() => Kind::Temporary,
        _ => io.unwrap_or(Kind::Failed),
    }
}

/// A field of the store's error document, as the client library prints it.
fn field<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    let inner = message.strip_prefix("S3Error {")?;
    let start = inner.find(&format!(" {key}: \""))? + key.len() + 4;
    let rest = &inner[start..];
    rest.find("\",").or_else(|| rest.find("\" }")).map(|end| &rest[..end])
}

pub(super) fn innermost(error: &(dyn Cause + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn io_kind(error: &(dyn Cause + 'static)) -> Option<Kind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(kind_of_io(io));
        }
        next = error.source();
    }
    None
}

impl Storage for S3 {
    fn describe(&self) -> String {
        self.name.clone()
    }

    /// What the protocol promises; stores that ignore conditions are found out by the probe.
    fn capabilities(&self) -> Capabilities {
        Capabilities { put_new: true, compare_and_swap: true, rename: false }
    }

    fn profile(&self) -> Profile {
        Profile::REMOTE
    }

    fn put(&self, name: &str, body: Body) -> Result<()> {
        self.write("write", name, body, WriteOptions::default()).map(drop)
    }

    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        let options = WriteOptions { if_not_exists: true, ..WriteOptions::default() };
        let written = self.write("write", name, body, options).map_err(|error| match error.kind() {
            Kind::Conflict => error.with_kind(Kind::AlreadyExists),
            _ => error,
        });
        self.version_or_ask(name, written?)
    }

    fn compare_and_swap(&self, name: &str, expected: &Version, body: Body) -> Result<Version> {
        let options = WriteOptions { if_match: Some(expected.0.clone()), ..WriteOptions::default() };
        let swapped = self.write("replace", name, body, options);
        match swapped.and_then(|version| self.version_or_ask(name, version)) {
            // The answer is the same whether it was changed or removed.
            Err(error) if error.is(Kind::Conflict) => match self.stat(name) {
                Err(gone) if gone.is(Kind::NotFound) => Err(error.with_kind(Kind::NotFound)),
                _ => Err(error),
            },
            other => other,
        }
    }

    fn rename(&self, from: &str, _to: &str) -> Result<()> {
        Err(Error::new(Kind::Unsupported, "rename", self.of(from)).because("S3 does not support that"))
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        check_name(name)?;
        let doing = "read";
        let too_large = || Error::corrupt(doing, self.of(name), format!("it has more than {bytes_max} bytes"));
        let opened = async {
            let mut stream = self.operator.reader(name).await?.into_stream(..).await?;
            let meta = stream.metadata().await?;
            Ok((stream, meta))
        };
        let (mut stream, meta) = self.request(doing, name, &Allowed::for_bytes(0), opened)?;
        if meta.content_length() > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(meta.content_length() as usize);
        // For all of them: pieces that trickle in must not take for ever.
        let allowed = Allowed::for_bytes(meta.content_length());
        while let Some(piece) = self.request(doing, name, &allowed, stream.try_next())? {
            if (bytes.len() + piece.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            piece.for_each(|piece| bytes.extend_from_slice(&piece));
        }
        match version_of(&meta) {
            Some(version) => Ok((bytes, version)),
            None => Ok((bytes, self.stat(name)?.version)),
        }
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        check_name(name)?;
        let Some(end) = offset.checked_add(length) else {
            return Err(Error::corrupt("read", self.of(name), "no object is as long as that"));
        };
        let short = |size: u64| {
            let why = format!("{length} bytes at offset {offset} were requested, and it has {size}");
            Error::corrupt("read", self.of(name), why)
        };
        // No request asks for nothing: the size alone answers.
        if length == 0 {
            let size = self.stat(name)?.size;
            return if end <= size { Ok(Vec::new()) } else { Err(short(size)) };
        }
        let options = ReadOptions { range: (offset..end).into(), ..ReadOptions::default() };
        let read = self.operator.read_options(name, options);
        match self.request("read", name, &Allowed::for_bytes(length), read) {
            Ok(buffer) if buffer.len() as u64 == length => Ok(buffer.to_vec()),
            Ok(_) => Err(short(self.stat(name)?.size)),
            // Some stores' clients see an answer that is too short before we do.
            Err(error) if !error.is_temporary() && !error.is(Kind::NotFound) && !error.is(Kind::Denied) => {
                match self.stat(name)?.size {
                    size if end > size => Err(short(size)),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let options = ListOptions { recursive: true, ..ListOptions::default() };
        // This asks for nothing yet.
        let lister = self.operator.lister_options(prefix, options);
        let mut lister = self.run("list", prefix, &Allowed::for_bytes(0), lister)?;
        let mut listed = Vec::new();
        while let Some(entry) = self.request("list", prefix, &Allowed::for_bytes(0), lister.try_next())? {
            if entry.metadata().is_file() && check_name(entry.path()).is_ok() {
                listed.push(Listed { name: entry.path().to_owned(), size: entry.metadata().content_length() });
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.request("remove", name, &Allowed::to_tidy_up(0), self.operator.delete(name)) {
            Err(error) if error.is(Kind::NotFound) => Ok(()),
            other => other,
        }
    }

    fn stat(&self, name: &str) -> Result<Stat> {
        check_name(name)?;
        let meta = self.request("look at", name, &Allowed::for_bytes(0), self.operator.stat(name))?;
        let version = version_of(&meta).ok_or_else(|| {
            Error::new(Kind::Unsupported, "use", self.of(name))
                .because("this S3 server returns no ETag for its objects")
        })?;
        let written = meta.last_modified().map(|time| time.to_string()).unwrap_or_default();
        Ok(Stat { size: meta.content_length(), version, written })
    }
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
