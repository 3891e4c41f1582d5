//! Why a restore with `--delete` deletes nothing.

/// The first reason that was found; one that is a failure goes before one that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeepReason {
    pub why: String,
    /// A call failed or data are damaged, so that what was asked for is not done: a warning, not a notice.
    pub is_failure: bool,
}

impl KeepReason {
    /// What is there is the reason.
    pub(crate) fn state(why: String) -> Self {
        KeepReason { why, is_failure: false }
    }

    pub(crate) fn failure(why: String) -> Self {
        KeepReason { why, is_failure: true }
    }

    /// Takes this reason if there is none, or if it is the first failure.
    pub(crate) fn note(self, reason: &mut Option<KeepReason>) {
        if reason.as_ref().is_none_or(|known| self.is_failure && !known.is_failure) {
            *reason = Some(self);
        }
    }
}
