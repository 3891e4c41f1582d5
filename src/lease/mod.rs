//! The lease of a writer, its right to commit: an object under `pending/` that a heartbeat renews, that the commit uses up, and that another process can expire.

mod heartbeat;
mod pending;
mod publish;
mod survey;
mod token;

pub(crate) use heartbeat::Heartbeat;
pub use publish::UnpublishedCommit;
pub(crate) use survey::is_of_one_object;
pub use survey::{PendingSurvey, RunningWriter, expire, settle, survey};
pub use token::{LeaseHolder, WriterLease};
