//! Pending objects: how a running backup shows itself, and how its commit and its expiry exclude each other.
//!
//! Whoever expires a writer and the writer that commits take the same atomic step on the same object, so exactly one
//! wins, and no clocks of two machines are compared:
//! - `Swap` storage: `pending/W` holds a state; commit replaces `running` by `committed` (which carries the snapshot),
//!   expiry replaces it by `expired`, both conditionally on the version they saw.
//! - `Rename` storage: `pending/W.<beat>` is a token; commit renames it to `pending/W.committed` (after the snapshot was
//!   written to `pending/W.draft.<its name>`), expiry renames it to `expired/W`.
//!
//! From that step on the snapshot exists; moving it to its place under `snapshots/` can be done by anybody.

use crate::error::{Error, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::format::{SNAPSHOTS_PREFIX, is_snapshot_name, pending_name};
use crate::id::WriterId;
use crate::seal::{Audience, KeySet, open_object, seal_object};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

const PURPOSE: &str = "pending";
/// A commit carries a snapshot, sealed and then in base64.
pub(super) const PENDING_BYTES_MAX: u64 = SNAPSHOT_BYTES_MAX * 3 / 2;
/// What is read of all pending objects together, as plain bytes.
pub(super) const PENDING_BYTES_IN_ALL_MAX: u64 = 256 << 20;
/// Plain bytes that any object may open to, beyond twice its stored ones: a sealed body does not compress, but what base64
/// adds to it. A few bytes must not unfold into many.
pub(super) const PENDING_BYTES_FREE: u64 = 64 << 10;

/// What a pending object says; readable by every writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Pending {
    Running {
        host: String,
        started: String,
        beat: u64,
    },
    /// `snapshot` is the name of the object to be, `body` its sealed bytes in base64.
    Committed {
        snapshot: String,
        body: String,
    },
    Expired,
}

pub(super) fn seal(keys: &KeySet, pending: &Pending) -> Result<Vec<u8>> {
    let plain = serde_json::to_vec(pending).expect("plain data serialises");
    seal_object(keys, Audience::Writers, PURPOSE, &plain)
}

pub(super) fn plain_bytes_max(stored_bytes: u64) -> u64 {
    stored_bytes.saturating_mul(2).saturating_add(PENDING_BYTES_FREE).min(PENDING_BYTES_MAX)
}

pub(super) fn open(keys: &KeySet, bytes: &[u8]) -> Result<Pending> {
    parse(&open_plain(keys, bytes)?)
}

pub(super) fn open_plain(keys: &KeySet, bytes: &[u8]) -> Result<Vec<u8>> {
    open_object(keys, PURPOSE, bytes, plain_bytes_max(bytes.len() as u64))
}

pub(super) fn parse(plain: &[u8]) -> Result<Pending> {
    serde_json::from_slice(plain).map_err(|error| Error::corrupt("read the pending object", "", error))
}

/// The sealed snapshot of a commit, if it can be one.
pub(super) fn decode_body(snapshot: &str, body: &str) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::corrupt("read the commit of", snapshot, why);
    if !is_snapshot_name(snapshot) {
        return Err(bad("this is not the name of a snapshot"));
    }
    let body = BASE64.decode(body.as_bytes()).map_err(|_| bad("its body is damaged"))?;
    if body.len() as u64 <= SEALED_SNAPSHOT_BYTES_MAX { Ok(body) } else { Err(bad("its body is too large")) }
}

pub(super) fn token_name(writer: &WriterId, beat: u64) -> String {
    format!("{}.{beat:08}", pending_name(writer))
}

/// Carries the name of the snapshot to be, `snapshots/` left out.
pub(super) fn draft_name(writer: &WriterId, snapshot: &str) -> String {
    let place = snapshot.strip_prefix(SNAPSHOTS_PREFIX).unwrap_or(snapshot);
    format!("{}.draft.{place}", pending_name(writer))
}

pub(super) fn committed_name(writer: &WriterId) -> String {
    format!("{}.committed", pending_name(writer))
}
