//! The right of a writer to commit: shown by an object under `pending/`, kept fresh, used once, or ended by somebody else.

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
