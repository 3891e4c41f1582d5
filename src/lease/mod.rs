//! The lease of a writer: its right to commit.
//!
//! It is an object under `pending/`. A heartbeat renews it, the commit uses it up, and another process can expire it.

mod heartbeat;
mod pending;
mod publish;
mod survey;
mod writer_lease;

pub(crate) use heartbeat::Heartbeat;
pub use publish::UnpublishedCommit;
pub(crate) use survey::is_of_one_object;
pub use survey::{PendingSurvey, RunningWriter, expire, settle, survey};
pub use writer_lease::{LeaseHolder, WriterLease};
