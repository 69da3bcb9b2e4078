//! Promises: blobs that a client was told to take, which stay until it has had the time to. Knows digests and the clock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use zcache_proto::Digest;

/// How long a client has to take what a reply promised.
const HOLDS: Duration = Duration::from_secs(60);
/// Those that are over are dropped when there are twice as many as were left the last time, and at least this many.
const PRUNE_MIN: usize = 4096;

/// Promised blobs, each with the end of its promise.
#[derive(Debug)]
pub struct Promises {
    until: HashMap<Digest, Instant>,
    prune_at: usize,
}

impl Default for Promises {
    fn default() -> Self {
        Self { until: HashMap::new(), prune_at: PRUNE_MIN }
    }
}

impl Promises {
    /// Promises `blobs` at the time `now`.
    pub fn make(&mut self, blobs: impl Iterator<Item = Digest>, now: Instant) {
        self.until.extend(blobs.map(|digest| (digest, now + HOLDS)));
        if self.until.len() >= self.prune_at {
            self.until.retain(|_, until| *until > now);
            self.prune_at = PRUNE_MIN.max(self.until.len() * 2);
        }
    }

    /// What is promised at the time `now`.
    pub fn kept(&self, now: Instant) -> HashSet<Digest> {
        self.until.iter().filter(|(_, until)| **until > now).map(|(digest, _)| *digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_its_time_and_the_old_are_dropped() {
        let (mut promises, now) = (Promises::default(), Instant::now());
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        promises.make((1..PRUNE_MIN - 1).map(digest), now);
        promises.make([digest(0)].into_iter(), now + HOLDS / 2);
        assert_eq!(promises.kept(now).len(), PRUNE_MIN - 1);
        assert_eq!(promises.kept(now + HOLDS), [digest(0)].into());
        promises.make([digest(PRUNE_MIN)].into_iter(), now + HOLDS);
        assert_eq!((promises.until.len(), promises.kept(now + HOLDS).len()), (2, 2));
    }
}
