//! The streams of a backup over all its attempts: each is read once, and what one attempt stored of it serves the next.

use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::source::ByteSource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Streams {
    /// Entries of streams that were read to their end, by name.
    saved: BTreeMap<Vec<u8>, Entry>,
    /// Streams that can be read only once and have been opened.
    spent: BTreeSet<Vec<u8>>,
}

impl Streams {
    /// What an earlier attempt stored of a stream.
    pub(crate) fn saved(&self, name: &[u8]) -> Option<&Entry> {
        self.saved.get(name)
    }

    pub(crate) fn add(&mut self, name: &[u8], entry: Entry) {
        self.saved.insert(name.to_vec(), entry);
    }

    /// Notes that a stream is opened.
    pub(crate) fn note_opened(&mut self, stream: &Arc<dyn ByteSource>) {
        if !stream.can_repeat() {
            self.spent.insert(stream.name().to_vec());
        }
    }

    /// Forgets the streams whose content is not stored any more. An error if one of them cannot be read again.
    pub(crate) fn retain_stored(&mut self, is_stored: impl Fn(&Entry) -> Result<bool>) -> Result<()> {
        for (name, entry) in std::mem::take(&mut self.saved) {
            if is_stored(&entry)? {
                self.saved.insert(name, entry);
            }
        }
        if self.has_lost() {
            Err(Error::new(Kind::Stale, "finish the backup", "")
                .because("the repository has lost what was stored of standard input, which cannot be read again")
                .hint("run the backup again: it stores again what the repository has lost"))
        } else {
            Ok(())
        }
    }

    /// Whether a stream that cannot be read again was opened, and not all of it is stored.
    pub(crate) fn has_lost(&self) -> bool {
        self.spent.iter().any(|name| !self.saved.contains_key(name))
    }
}
