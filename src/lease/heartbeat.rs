//! The heartbeat of a writer: renews its pending object, and registers the writer again after it was expired.

use crate::error::{Error, Kind, Result};
use crate::id::WriterId;
use crate::lease::writer_lease::{LeaseHolder, WriterLease};
use crate::lock::locked;
use crate::seal::random;
use crate::vault::Vault;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a writer shows that it is alive.
const BEAT: Duration = Duration::from_secs(60);

/// Dropped before it was stopped, it withdraws the writer.
pub(crate) struct Heartbeat {
    shared: Arc<HeartbeatShared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How a writer stands.
enum LeaseState {
    Shown(WriterLease),
    /// Its right was ended, and it could not be shown anew yet.
    Lost,
    /// It commits, or has withdrawn: no more beats.
    Ended,
}

struct HeartbeatShared {
    vault: Vault,
    host: String,
    standing: Mutex<LeaseState>,
}

impl HeartbeatShared {
    fn standing(&self) -> MutexGuard<'_, LeaseState> {
        locked(&self.standing)
    }

    /// One beat. A right that was ended is asked for anew at once, so that nothing more is removed; the commit looks
    /// whether anything was. Other failures may pass until the next beat.
    fn beat(&self) {
        let mut standing = self.standing();
        let is_lost = match &mut *standing {
            LeaseState::Shown(token) => {
                let renewed = token.renew(self.vault.storage(), self.vault.keys());
                renewed.is_err_and(|error| error.is(Kind::Locked))
            }
            LeaseState::Lost => true,
            LeaseState::Ended => false,
        };
        if is_lost {
            *standing = new_token(&self.vault, &self.host).map_or(LeaseState::Lost, LeaseState::Shown);
        }
    }
}

fn new_token(vault: &Vault, host: &str) -> Result<WriterLease> {
    let started = jiff::Timestamp::now().to_string();
    let shown = LeaseHolder { key: vault.key_name(), writer: WriterId(random()?), host, started };
    WriterLease::create(vault.storage(), vault.keys(), vault.settings()?.commit_protocol, shown)
}

impl Heartbeat {
    /// Shows the writer, and goes on doing so.
    pub(crate) fn start(vault: &Vault, host: &str) -> Result<Self> {
        let standing = Mutex::new(LeaseState::Shown(new_token(vault, host)?));
        let shared = Arc::new(HeartbeatShared { vault: vault.clone(), host: host.to_owned(), standing });
        let (stop, stopped) = bounded::<()>(0);
        let mut heart = Heartbeat { shared: shared.clone(), stop: Some(stop), thread: None };
        let beat = move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                shared.beat();
            }
        };
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat);
        heart.thread = Some(thread.map_err(Error::no_thread)?);
        Ok(heart)
    }

    /// Shows the writer under a new token, as its last one was taken away.
    pub(crate) fn register_again(&self) -> Result<()> {
        let mut standing = self.shared.standing();
        *standing = LeaseState::Shown(new_token(&self.shared.vault, &self.shared.host)?);
        Ok(())
    }

    /// Takes the token for the commit; there are no more beats. `Locked` when it could not be shown anew.
    pub(crate) fn stop(&self) -> Result<WriterLease> {
        let mut standing = self.shared.standing();
        match std::mem::replace(&mut *standing, LeaseState::Ended) {
            LeaseState::Shown(token) => Ok(token),
            LeaseState::Lost | LeaseState::Ended => Err(Error::new(Kind::Locked, "commit the snapshot", "")
                .because("another process expired this backup, and this backup could not register again")
                .hint("run the backup again: what it has stored already is not sent again")),
        }
    }

    /// Ends the right to commit.
    pub(crate) fn withdraw(&self) -> Result<()> {
        match self.stop() {
            Ok(token) => token.withdraw(self.shared.vault.storage()),
            // Nothing is shown.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        // A writer that ends without a word would seem to run until somebody expires it.
        let _best_effort = self.withdraw();
    }
}
