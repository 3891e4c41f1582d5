//! The right of a writer to commit: shown by an object under `pending/`, kept fresh, used once, or ended by somebody else.

mod heartbeat;
pub mod pending;

pub(crate) use heartbeat::Heartbeat;
