//! What the system lets this process do beyond what owners may: mostly root may, but capabilities can be given and taken.

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};
use std::sync::LazyLock;

static EFFECTIVE: LazyLock<CapabilitySet> = LazyLock::new(|| match capabilities(None) {
    Ok(sets) => sets.effective,
    // Where a sandbox forbids to ask, root is taken for root.
    Err(_) if geteuid().is_root() => CapabilitySet::all(),
    Err(_) => CapabilitySet::empty(),
});

/// Whether this process may do to what belongs to others whatever their owners may (`CAP_FOWNER`): change modes and times,
/// and delete in sticky directories.
pub fn owns_everything() -> bool {
    EFFECTIVE.contains(CapabilitySet::FOWNER)
}

/// Whether this process may make files immutable and append-only, and change them back (`CAP_LINUX_IMMUTABLE`).
pub fn may_lock_files() -> bool {
    EFFECTIVE.contains(CapabilitySet::LINUX_IMMUTABLE)
}
