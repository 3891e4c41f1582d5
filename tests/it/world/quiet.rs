//! The law of quiet: a backup that is repeated, while nothing else happens, soon has nothing left to say or to save.

use crate::world::model::{Broken, Engine, World};
use crate::world::run::{Ended, carry_out};
use crate::world::step::{Actor, How};
use crate::world::wire::Fault;
use siltstone::watch::{Event, Notice, Watch};
use std::sync::{Arc, Mutex};

/// Each repetition may find more of the damage that only shows when something is read.
const REPETITIONS_MAX: usize = 8;
/// What notices of damage and losses have in common.
const OF_DAMAGE: [&str; 4] = ["lost", "missing", "damaged", "starts over"];

impl World {
    /// Damage is reported once, and what cannot be healed keeps no run from skipping.
    pub fn check_quiet(&mut self, actor: &Actor) -> Result<(), Broken> {
        let place = self.place_number(actor.repository);
        let facts = &self.places[place].facts;
        if self.engine != Engine::InProcess || facts.may_not_open || facts.may_not_write || facts.has_bad_snapshots {
            return Ok(());
        }
        let actor = Actor { how: How::SkipIfUnchanged, ..*actor };
        let mut said = Vec::new();
        for _ in 0..REPETITIONS_MAX {
            let (ended, notices) = self.repeat(&actor);
            let is_saved = match ended {
                Ended::Well { is_saved, .. } => is_saved,
                Ended::Failed(why) => return Err(format!("a repeated backup failed: {why}; before that {said:?}")),
                Ended::Panicked => return Err("a repeated backup panicked".to_owned()),
            };
            let of_damage = |notice: &String| OF_DAMAGE.iter().any(|word| notice.contains(word));
            let notices: Vec<String> = notices.into_iter().filter(of_damage).collect();
            if notices.is_empty() && !is_saved {
                return Ok(());
            }
            said.push((is_saved, notices));
        }
        Err(format!("a repeated backup is never quiet: {said:?}"))
    }

    fn repeat(&mut self, actor: &Actor) -> (Ended, Vec<String>) {
        let number = self.register(actor);
        let nowhere = self.scratch();
        let plan = self.plan(number, actor, Fault::None, None, nowhere);
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = notices.clone();
        let watch = Watch::new(Arc::new(move |event| {
            if let Event::Notice(Notice { text, .. }) = event {
                heard.lock().expect("whole").push(text);
            }
        }));
        let ended = carry_out(plan, &watch);
        let notices = notices.lock().expect("whole").clone();
        (ended, notices)
    }
}
