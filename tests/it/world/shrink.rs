//! Makes a failing sequence short: leaves out steps while it still fails.

use crate::world::step::Step;

/// Sequences that are tried at most.
const TRIES_MAX: usize = 300;

/// The shortest sequence that was found to fail, and how it fails.
pub fn shrink(steps: &[Step], why: String, mut fails: impl FnMut(&[Step]) -> Option<String>) -> (Vec<Step>, String) {
    let (mut steps, mut why) = (steps.to_vec(), why);
    let mut tries = 0;
    let mut length = steps.len().div_ceil(2);
    while length > 0 && tries < TRIES_MAX {
        let mut at = 0;
        let mut is_shorter = false;
        while at < steps.len() && tries < TRIES_MAX {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + length).min(steps.len()));
            tries += 1;
            match fails(&fewer) {
                Some(still) => {
                    (steps, why, is_shorter) = (fewer, still, true);
                }
                None => at += length,
            }
        }
        if !is_shorter || length > 1 {
            length /= 2;
        }
    }
    (steps, why)
}
