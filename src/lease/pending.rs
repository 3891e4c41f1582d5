//! Pending objects: how a running backup shows itself, and how its commit and its expiry exclude each other.
//!
//! Commit and expiry of a writer are the same atomic step on the same object, so exactly one of them
//! wins, and no clocks of two machines are compared:
//! - compare-and-swap: `pending/KEY/W` holds a state; commit replaces `running` by `committed` (which carries the snapshot),
//!   expiry replaces it by `expired`, both conditionally on the version they saw.
//! - rename: `pending/KEY/W.<beat>` is a token; commit renames it to `pending/KEY/W.committed` (after the snapshot was
//!   written to `pending/KEY/W.draft.<its name>`), expiry renames it to `expired/W`.
//!
//! KEY is the name of the key object that the writer opened the repository with, so that the rights of a storage can keep hosts from
//! each other's objects.
//!
//! From that step on the snapshot exists; any process can move it to its place under `snapshots/`.

use crate::error::{Error, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::format::{PENDING_PREFIX, SNAPSHOTS_PREFIX, is_snapshot_name};
use crate::id::WriterId;
use crate::seal::{KeySet, Recipients, open_object, seal_object};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

const PURPOSE: &str = "pending";
/// A commit carries a snapshot, sealed and then in base64.
pub(super) const PENDING_BYTES_MAX: u64 = SNAPSHOT_BYTES_MAX * 3 / 2;
/// What is read of all pending objects together, as plain bytes.
pub(super) const PENDING_BYTES_IN_ALL_MAX: u64 = if cfg!(test) { 4 << 20 } else { 256 << 20 };
/// Plain bytes that any object may open to, beyond twice its stored ones: a sealed body does not compress, but what base64
/// adds to it. A few bytes must not unfold into many.
pub(super) const PENDING_BYTES_FREE: u64 = 64 << 10;

/// What a pending object says; readable by every writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(crate) enum PendingState {
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

pub(super) fn seal(keys: &KeySet, pending: &PendingState) -> Result<Vec<u8>> {
    let plain = serde_json::to_vec(pending).expect("plain data serialises");
    seal_object(keys, Recipients::Writers, PURPOSE, &plain)
}

pub(super) fn plain_bytes_max(stored_bytes: u64) -> u64 {
    stored_bytes.saturating_mul(2).saturating_add(PENDING_BYTES_FREE).min(PENDING_BYTES_MAX)
}

pub(super) fn open(keys: &KeySet, bytes: &[u8]) -> Result<PendingState> {
    parse(&open_plain(keys, bytes)?)
}

pub(super) fn open_plain(keys: &KeySet, bytes: &[u8]) -> Result<Vec<u8>> {
    open_object(keys, PURPOSE, bytes, plain_bytes_max(bytes.len() as u64))
}

pub(super) fn parse(plain: &[u8]) -> Result<PendingState> {
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

/// The names of a writer's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingName {
    pub writer: WriterId,
    /// What the names of all its objects begin with.
    base: String,
}

impl PendingName {
    /// `key` is the name of the writer's key object without its prefix.
    pub(crate) fn new(key: &str, writer: WriterId) -> Self {
        PendingName { writer, base: format!("{PENDING_PREFIX}{key}/{writer}") }
    }

    /// What of a listed name is the writer's, and the rest of it after the dot. None for what no writer makes.
    pub(crate) fn parse(listed: &str) -> Option<(Self, &str)> {
        let (key, own) = listed.strip_prefix(PENDING_PREFIX)?.split_once('/')?;
        let (hex, tail) = own.split_once('.').unwrap_or((own, ""));
        Some((PendingName::new(key, WriterId::from_hex(hex).ok()?), tail))
    }

    /// The object that holds the state.
    pub(crate) fn state(&self) -> String {
        self.base.clone()
    }

    pub(crate) fn token(&self, beat: u64) -> String {
        format!("{}.{beat:08}", self.base)
    }

    /// Carries the name of the snapshot to be, `snapshots/` left out.
    pub(crate) fn draft(&self, snapshot: &str) -> String {
        let place = snapshot.strip_prefix(SNAPSHOTS_PREFIX).unwrap_or(snapshot);
        format!("{}.draft.{place}", self.base)
    }

    pub(crate) fn committed(&self) -> String {
        format!("{}.committed", self.base)
    }
}
