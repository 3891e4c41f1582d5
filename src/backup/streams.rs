//! The streams of a backup over all its attempts: each is read once, and what one attempt stored of it serves the next.

use crate::backup::options::Input;
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Streams {
    /// What standard input is called in the snapshot, if it is a source.
    pub input_name: Option<Vec<u8>>,
    /// Standard input, until an attempt reads it.
    unread_input: Option<Input>,
    /// Entries of streams that were read to their end, by name.
    saved: BTreeMap<Vec<u8>, Entry>,
}

impl Streams {
    pub fn new(input: Option<(Vec<u8>, Input)>) -> Self {
        let (input_name, unread_input) = input.unzip();
        Streams { input_name, unread_input, saved: BTreeMap::new() }
    }

    /// Standard input, once.
    pub fn take_input(&mut self) -> Option<Input> {
        self.unread_input.take()
    }

    /// What an earlier attempt stored of a stream.
    pub fn saved(&self, name: &[u8]) -> Option<&Entry> {
        self.saved.get(name)
    }

    pub fn add(&mut self, name: &[u8], entry: Entry) {
        self.saved.insert(name.to_vec(), entry);
    }

    /// Forgets the streams whose content is not stored any more. An error if standard input is among them, as it cannot be
    /// read again.
    pub fn retain_stored(&mut self, is_stored: impl Fn(&Entry) -> Result<bool>) -> Result<()> {
        for (name, entry) in std::mem::take(&mut self.saved) {
            if is_stored(&entry)? {
                self.saved.insert(name, entry);
            }
        }
        if self.is_input_lost() {
            Err(Error::new(Kind::Stale, "finish the backup", "")
                .because("the repository has lost what was stored of standard input, which cannot be read again")
                .hint("run the backup again: it stores again what the repository has lost"))
        } else {
            Ok(())
        }
    }

    /// Whether standard input was read, and not all of it is stored.
    pub fn is_input_lost(&self) -> bool {
        self.unread_input.is_none() && self.input_name.as_ref().is_some_and(|name| !self.saved.contains_key(name))
    }
}
