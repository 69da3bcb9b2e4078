//! Unused: actions whose results nobody asks for again, because a variable is set anew each time: fakeroot's and
//! faketime's keys, a build's number, the time. After some results in a row that were never served and failed for the same
//! variable, no more are stored, except one now and then: the variable may have come to rest. Knows no disk, and begins
//! anew with each daemon.
//!
//! Only variables count. A file that changes again and again is being worked on: its last state is the one that the next
//! checkout asks for.

use std::sync::Mutex;

use zcache_proto::Digest;

use crate::inputs::lock;
use crate::manifest::Expectation;
use crate::recent::Recent;
use crate::refusal::Refusal;

/// So many results in a row may go unused.
const STORES: u32 = 4;
/// One result in so many is stored all the same from then on.
const AGAIN: u32 = 16;
/// Actions that are remembered.
const ACTIONS_MAX: usize = 1 << 14;

/// What was stored and not served since.
#[derive(Debug)]
pub struct Unused(Mutex<Recent<Digest, Streak>>);

/// Results of one action that failed alike.
#[derive(Debug, Clone)]
struct Streak {
    /// The variable for which the last one failed.
    variable: Vec<u8>,
    stored: u32,
    refused: u32,
}

impl Default for Unused {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(ACTIONS_MAX)))
    }
}

impl Unused {
    /// No known result of the action holds, the newest for this reason.
    pub fn missed(&self, action: &Digest, failed: Option<&Expectation>) {
        let mut streaks = lock(&self.0);
        let Some(variable) = failed.and_then(variable) else { return streaks.remove(action) };
        if streaks.get(action).is_none_or(|streak| streak.variable != variable) {
            // The one that failed was stored.
            streaks.insert(*action, Streak { variable: variable.to_vec(), stored: 1, refused: 0 });
        }
    }

    /// A result of the action was served.
    pub fn used(&self, action: &Digest) {
        lock(&self.0).remove(action);
    }

    /// Whether one more is worth storing.
    pub fn admits(&self, action: &Digest) -> Result<(), Refusal> {
        let mut streaks = lock(&self.0);
        let Some(mut streak) = streaks.get(action).cloned() else { return Ok(()) };
        let is_enough = streak.stored >= STORES;
        streak.refused += u32::from(is_enough);
        let is_refused = is_enough && !streak.refused.is_multiple_of(AGAIN);
        streak.stored = streak.stored.saturating_add(u32::from(!is_refused));
        let refusal = Refusal::Unused(streak.variable.clone());
        streaks.insert(*action, streak);
        if is_refused { Err(refusal) } else { Ok(()) }
    }
}

/// The variable of which an expectation is; all of them have no name.
fn variable(expectation: &Expectation) -> Option<&[u8]> {
    match expectation {
        Expectation::Env(name, _) | Expectation::EnvByRole(name, _) => Some(name),
        Expectation::Environment(_) => Some(b"environment"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::RolePath;

    fn key(name: &str) -> Expectation {
        Expectation::Env(name.into(), None)
    }

    /// Which of so many compiles are stored, each of which misses for `failed`.
    fn stored(unused: &Unused, failed: &Expectation, compiles: u32) -> Vec<u32> {
        let action = Digest::of(b"action");
        let store = |_: &u32| {
            unused.missed(&action, Some(failed));
            // The daemon may look more than once.
            unused.missed(&action, Some(failed));
            unused.admits(&action).is_ok()
        };
        (1..=compiles).filter(store).collect()
    }

    #[test]
    fn a_variable_that_is_never_twice_the_same_ends_storing_but_for_a_look_now_and_then() {
        assert_eq!(stored(&Unused::default(), &key("FAKEROOTKEY"), 40), [1, 2, 3, 19, 35]);
    }

    #[test]
    fn another_reason_or_a_use_begins_anew() {
        let (unused, action) = (Unused::default(), Digest::of(b"action"));
        assert_eq!(stored(&unused, &key("A"), 6), [1, 2, 3]);
        assert_eq!(stored(&unused, &key("B"), 6), [1, 2, 3]);
        unused.used(&action);
        assert!(unused.admits(&action).is_ok());
        assert_eq!(stored(&unused, &key("B"), 6), [1, 2, 3]);
        unused.missed(&action, None);
        assert_eq!(stored(&unused, &key("B"), 3), [1, 2, 3]);
    }

    #[test]
    fn a_file_that_changes_is_stored_each_time() {
        let path = RolePath { role: None, rest: b"/x.h".into() };
        let all: Vec<u32> = (1..=20).collect();
        assert_eq!(stored(&Unused::default(), &Expectation::Content(path, Digest::of(b"1")), 20), all);
    }
}
