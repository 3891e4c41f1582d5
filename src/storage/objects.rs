//! Objects of a remote service, over an operator of opendal.
//!
//! This is the family of storages that keep whole objects under names: S3, and others for which opendal has a service. A storage of
//! the family builds its operator and says what the answers of its service mean ([`Service`](super::object_errors::Service)); [`Objects`] does the rest.

use crate::error::{Error, Kind, Result};
use crate::runtime::block_on;
use crate::storage::object_errors::{Service, failed, is_unknown_name, stalled};
use crate::storage::{
    Capabilities, ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage, StorageProfile, check_name,
};
use crate::watch::{Cancel, REQUEST_GRACE, TIDY_GRACE, interrupted};
use futures_util::TryStreamExt;
use opendal::options::{ListOptions, ReadOptions, WriteOptions};
use opendal::{Buffer, Metadata, Operator};
use std::error::Error as Cause;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An answer that takes longer will not come.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A pack that is sent more slowly counts as stalled; eight of them share a line.
const BYTES_A_SECOND_MIN: u64 = 8 << 10;

/// Objects of a service.
pub(crate) struct Objects {
    operator: Operator,
    service: &'static Service,
    /// The location for people.
    location: String,
    cancel: Cancel,
    /// It has answered once, so its address is right.
    has_answered: AtomicBool,
}

/// How long one request may take.
struct TimeAllowed {
    until: Instant,
    /// And how long after a cancel.
    grace: Duration,
}

impl TimeAllowed {
    /// `STALL_TIMEOUT` and the time for `bytes` on a very slow line.
    fn for_bytes(bytes: u64) -> Self {
        TimeAllowed { until: Instant::now() + limit(bytes), grace: REQUEST_GRACE }
    }

    /// For a request by which a run that ends tidies up.
    fn to_tidy_up(bytes: u64) -> Self {
        TimeAllowed { grace: TIDY_GRACE, ..TimeAllowed::for_bytes(bytes) }
    }
}

fn limit(bytes: u64) -> Duration {
    STALL_TIMEOUT + Duration::from_secs(bytes / BYTES_A_SECOND_MIN)
}

impl Objects {
    /// Asks the service nothing yet. A cancel ends its requests.
    pub(super) fn new(operator: Operator, service: &'static Service, location: String, cancel: &Cancel) -> Self {
        Objects { operator, service, location, cancel: cancel.clone(), has_answered: AtomicBool::new(false) }
    }

    fn failed(&self, doing: &str, name: &str, error: &opendal::Error) -> Error {
        let told = failed(self.service, doing, name, error);
        // An unknown host name is waited for only if it was known before.
        if told.is_temporary() && !self.has_answered.load(Ordering::Relaxed) && is_unknown_name(error) {
            return told.with_kind(Kind::Failed).hint("check the name of the host in the location");
        }
        if error.source().is_none() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        told
    }

    /// Runs one request, or a part of one, that ends with the answer of the store.
    fn request<T>(
        &self,
        doing: &str,
        name: &str,
        allowed: &TimeAllowed,
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
        allowed: &TimeAllowed,
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

    fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    /// Writes the whole object. Returns its version if the service says it.
    fn write(&self, doing: &str, name: &str, body: ObjectBody, options: WriteOptions) -> Result<Option<ObjectVersion>> {
        check_name(name)?;
        let bytes = body.len();
        // A commit replaces an object: it may be what ends a run.
        let allowed = match options.if_match {
            Some(_) => TimeAllowed::to_tidy_up(bytes),
            None => TimeAllowed::for_bytes(bytes),
        };
        // Without a chunk size one write is one PUT, never an upload of parts.
        let written = self.operator.write_options(name, Buffer::from(body.0), options);
        let meta = self.request(doing, name, &allowed, written)?;
        Ok(version_of(&meta))
    }

    /// A service that can begin after a name lists names in their order, so that nothing comes after the last one that is wanted.
    fn list_part(&self, prefix: &str, after: Option<&str>, until: Option<&str>) -> Result<Vec<ListedObject>> {
        let is_ordered = self.operator.info().capability().list_with_start_after;
        let start_after = after.filter(|_| is_ordered).map(str::to_owned);
        let options = ListOptions { recursive: true, start_after, ..ListOptions::default() };
        // This asks for nothing yet.
        let lister = self.operator.lister_options(prefix, options);
        let mut lister = self.run("list", prefix, &TimeAllowed::for_bytes(0), lister)?;
        let (mut listed, mut first) = (Vec::new(), None::<String>);
        while let Some(entry) = self.request("list", prefix, &TimeAllowed::for_bytes(0), lister.try_next())? {
            if is_ordered && until.is_some_and(|until| entry.path() > until) {
                break;
            }
            if first.as_deref() == Some(entry.path()) {
                return Err(Error::new(Kind::Failed, "list", self.of(prefix))
                    .because(format!("the {} server began its list again instead of continuing it", self.service.name))
                    .hint("the server must support ListObjectsV2 with continuation tokens"));
            }
            first.get_or_insert_with(|| entry.path().to_owned());
            if entry.metadata().is_file() && check_name(entry.path()).is_ok() {
                let (name, meta) = (entry.path().to_owned(), entry.metadata());
                listed.push(ListedObject { name, size: meta.content_length(), fingerprint: fingerprint_of(meta) });
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn version_or_ask(&self, name: &str, version: Option<ObjectVersion>) -> Result<ObjectVersion> {
        version.map_or_else(|| self.stat(name).map(|stat| stat.version), Ok)
    }
}

fn version_of(meta: &Metadata) -> Option<ObjectVersion> {
    meta.etag().filter(|etag| !etag.is_empty()).map(|etag| ObjectVersion(etag.to_owned()))
}

/// A time alone tells little: services state it in whole seconds.
fn fingerprint_of(meta: &Metadata) -> u64 {
    let Some(version) = version_of(meta) else { return 0 };
    let mut hasher = blake3::Hasher::new();
    hasher.update(version.0.as_bytes());
    if let Some(time) = meta.last_modified() {
        hasher.update(time.to_string().as_bytes());
    }
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Storage for Objects {
    fn describe(&self) -> String {
        self.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.service.capabilities
    }

    fn profile(&self) -> StorageProfile {
        StorageProfile::REMOTE
    }

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.write("write", name, body, WriteOptions::default()).map(drop)
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        let options = WriteOptions { if_not_exists: true, ..WriteOptions::default() };
        let written = self.write("write", name, body, options).map_err(|error| match error.kind() {
            Kind::Conflict => error.with_kind(Kind::AlreadyExists),
            _ => error,
        });
        self.version_or_ask(name, written?)
    }

    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
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
        let why = format!("{} does not support that", self.service.name);
        Err(Error::new(Kind::Unsupported, "rename", self.of(from)).because(why))
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        check_name(name)?;
        let doing = "read";
        let too_large = || Error::corrupt(doing, self.of(name), format!("it has more than {bytes_max} bytes"));
        let opened = async {
            let mut stream = self.operator.reader(name).await?.into_stream(..).await?;
            let meta = stream.metadata().await?;
            Ok((stream, meta))
        };
        let (mut stream, meta) = self.request(doing, name, &TimeAllowed::for_bytes(0), opened)?;
        if meta.content_length() > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(meta.content_length() as usize);
        // For all of them: pieces that trickle in must not take for ever.
        let allowed = TimeAllowed::for_bytes(meta.content_length());
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
        match self.request("read", name, &TimeAllowed::for_bytes(length), read) {
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

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.list_part(prefix, None, None)
    }

    fn list_between(&self, prefix: &str, after: &str, until: Option<&str>) -> Result<Vec<ListedObject>> {
        let mut listed = self.list_part(prefix, Some(after), until)?;
        listed.retain(|object| object.name.as_str() > after && until.is_none_or(|until| object.name.as_str() <= until));
        Ok(listed)
    }

    fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.request("remove", name, &TimeAllowed::to_tidy_up(0), self.operator.delete(name)) {
            Err(error) if error.is(Kind::NotFound) => Ok(()),
            other => other,
        }
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        check_name(name)?;
        let meta = self.request("look at", name, &TimeAllowed::for_bytes(0), self.operator.stat(name))?;
        let version = version_of(&meta).ok_or_else(|| {
            Error::new(Kind::Unsupported, "use", self.of(name))
                .because(format!("this {} server returns no ETag for its objects", self.service.name))
        })?;
        let written = meta.last_modified().map(|time| time.to_string()).unwrap_or_default();
        Ok(ObjectStat { size: meta.content_length(), version, written })
    }
}
