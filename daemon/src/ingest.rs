//! Ingest: the threads that store results while the build goes on. They give way to compilers, and a daemon that
//! stops lets them finish.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::inputs::lock;

/// How much less than a compiler these threads get of a busy processor.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A queue and the threads that empty it.
#[derive(Debug)]
pub struct Ingest {
    queue: Sender<Job>,
    open: Arc<(Mutex<usize>, Condvar)>,
    threads: usize,
}

impl Ingest {
    /// With `threads` threads.
    pub fn new(threads: usize) -> Self {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let open = Arc::new((Mutex::new(0), Condvar::new()));
        let mut started = 0;
        for _ in 0..threads {
            let (jobs, open) = (Arc::clone(&jobs), Arc::clone(&open));
            let work = move || {
                yield_to_compilers();
                loop {
                    let next = lock(&jobs).recv();
                    let Ok(job) = next else { break };
                    let done = Done(&open);
                    run(job);
                    drop(done);
                }
            };
            match thread::Builder::new().name("ingest".into()).spawn(work) {
                Ok(_) => started += 1,
                Err(error) => tracing::error!(%error, "no thread to store results"),
            }
        }
        Self { queue, open, threads: started }
    }

    /// Queues a job. Where the system gave us no thread for it, whoever comes with it does it.
    pub fn push(&self, job: impl FnOnce() + Send + 'static) {
        if self.threads == 0 {
            return run(Box::new(job));
        }
        *lock(&self.open.0) += 1;
        if self.queue.send(Box::new(job)).is_err() {
            *lock(&self.open.0) -= 1;
        }
    }

    /// Waits until every queued job is done.
    pub fn drain(&self) {
        let mut open = lock(&self.open.0);
        while *open > 0 {
            open = self.open.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Counts a job as done, however it ended: who drains waits for it.
struct Done<'a>(&'a (Mutex<usize>, Condvar));

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *lock(&self.0.0) -= 1;
        self.0.1.notify_all();
    }
}

fn run(job: Job) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
        tracing::error!("storing a result panicked: it is not stored");
    }
}

fn yield_to_compilers() {
    // SAFETY: no memory is involved; on Linux, niceness is the calling thread's own.
    let failed = unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICENESS) } != 0;
    if failed {
        tracing::debug!("ingest threads run at normal priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn draining_waits_for_all_and_a_panic_stops_nothing() {
        let ingest = Ingest::new(2);
        let done = Arc::new(AtomicUsize::new(0));
        for i in 0..20 {
            let done = Arc::clone(&done);
            ingest.push(move || {
                assert_ne!(i, 3, "one of them panics");
                thread::yield_now();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        ingest.drain();
        assert_eq!(done.load(Ordering::SeqCst), 19);
    }
}
