//! Flights: compiles under way, so that two builds that need the same one run it once. Who waits, and for how long,
//! is decided here; a nested invocation never waits, so no circle of waiting can close.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use zcache_proto::Digest;

use crate::inputs::lock;
use crate::process::Process;

/// How often is looked whether a leader still moves, by one of all who wait for it.
const LOOK: Duration = Duration::from_millis(100);

/// All compiles under way.
#[derive(Debug, Default, Clone)]
pub struct Flights(Arc<Air>);

#[derive(Debug, Default)]
struct Air {
    flights: Mutex<HashMap<Digest, Flight>>,
    landed: AtomicU64,
}

/// A compile that is under way.
#[derive(Debug, Clone)]
struct Flight {
    leader: Arc<Leader>,
    done: watch::Receiver<()>,
}

/// Whose compile it is.
#[derive(Debug)]
struct Leader {
    process: Process,
    /// When somebody looked last, and whether it was stopped then.
    seen: Mutex<(Instant, bool)>,
}

impl Leader {
    fn is_stopped(&self) -> bool {
        let mut seen = lock(&self.seen);
        if seen.0.elapsed() >= LOOK / 2 {
            let now = Process::get(self.process.pid);
            let same = now.filter(|now| now.started == self.process.started);
            *seen = (Instant::now(), same.is_some_and(|now| matches!(now.state, 'T' | 't')));
        }
        seen.1
    }
}

/// A compile that others may wait for, until this is dropped.
#[derive(Debug)]
pub struct Lead {
    flights: Flights,
    action: Digest,
    _done: watch::Sender<()>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Flights(air) = &self.flights;
        air.landed.fetch_add(1, Ordering::Relaxed);
        lock(&air.flights).remove(&self.action);
    }
}

/// What to do about an action that is not in the store.
#[derive(Debug)]
pub enum Turn {
    /// Compile; others wait.
    Lead(Lead),
    /// Compile beside another.
    Alone,
    /// Wait, then look again.
    Wait(Waiting),
}

/// Another's compile.
#[derive(Debug)]
pub struct Waiting(Flight);

impl Flights {
    /// How many have ended. Where that has changed since somebody looked in vain, another's result may have come.
    pub fn landed(&self) -> u64 {
        self.0.landed.load(Ordering::Relaxed)
    }

    /// The turn of `client`. `may_wait` is false for a nested invocation.
    pub fn enter(&self, action: Digest, client: &Process, may_wait: bool) -> Turn {
        let mut flights = lock(&self.0.flights);
        match flights.get(&action) {
            Some(flight) if may_wait => Turn::Wait(Waiting(flight.clone())),
            Some(_) => Turn::Alone,
            None => {
                let (sender, done) = watch::channel(());
                let leader = Leader { process: client.clone(), seen: Mutex::new((Instant::now(), false)) };
                flights.insert(action, Flight { leader: Arc::new(leader), done });
                Turn::Lead(Lead { flights: self.clone(), action, _done: sender })
            }
        }
    }
}

impl Waiting {
    /// Waits until the compile is over: true. False where its leader does not move any more: it was stopped, or it
    /// has gone and only its result is still being stored, which is waited for.
    pub async fn over(mut self) -> bool {
        loop {
            tokio::select! {
                _ = self.0.done.changed() => return true,
                () = tokio::time::sleep(LOOK) => {}
            }
            if self.0.leader.is_stopped() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_the_nested_for_nobody() {
        let flights = Flights::default();
        let this = Process::get(std::process::id()).unwrap();
        let action = Digest::of(b"a");
        let Turn::Lead(lead) = flights.enter(action, &this, true) else { panic!("the first leads") };
        assert!(matches!(flights.enter(action, &this, false), Turn::Alone));
        let Turn::Wait(waiting) = flights.enter(action, &this, true) else { panic!("the second waits") };
        let waiting = tokio::spawn(waiting.over());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let before = flights.landed();
        drop(lead);
        assert_eq!(flights.landed(), before + 1);
        assert!(waiting.await.unwrap());
        assert!(matches!(flights.enter(action, &this, true), Turn::Lead(_)));
    }
}
