//! Scrub: reads blobs again, since a disk may change what nobody has written. All at once when asked, and a little at a
//! time while nothing else is to be done.

use std::io;

use zcache_proto::Digest;

use crate::store::{Store, now_s};

/// Blobs taken from the index at a time.
const BATCH: usize = 256;
/// What one step of a patrol reads, bytes: some hundredths of a second.
const STEP: u64 = 32 << 20;
/// A store that has been read to its end is left alone for a week, seconds.
const REST_S: u64 = 7 * 24 * 3600;
/// The index's record of when that was.
const LAST: &str = "scrubbed";

/// What reading blobs found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that are not what their names say.
    pub damaged: u64,
    /// Blobs that the index knows and that are not there.
    pub missing: u64,
}

/// A reading of the whole store in steps, repairing.
#[derive(Debug)]
pub struct Patrol {
    next: Digest,
    found: Scrubbed,
    /// When the next reading is due, seconds since 1970.
    due_s: u64,
}

impl Patrol {
    /// Due when the last one, by whatever daemon, is long enough ago.
    pub fn of(store: &Store) -> Self {
        let last = store.index().meta(LAST).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        // A time that is still to come is a clock's mistake.
        let last = last.filter(|&last| last <= now_s());
        Self { next: Digest([0; 32]), found: Scrubbed::default(), due_s: last.map_or(0, |last| last + REST_S) }
    }

    /// Reads a little, if it is due.
    pub fn step(&mut self, store: &Store) {
        if now_s() < self.due_s || store.may_collect().is_err() {
            return;
        }
        match store.scrub(&self.next, STEP, true, &mut self.found) {
            Ok(Some(next)) => self.next = next,
            Ok(None) => {
                tracing::info!(found = ?self.found, "the whole store has been read");
                let collected = store.collect();
                let kept = store.index().put_meta(LAST, &now_s().to_le_bytes());
                if let Err(error) = collected.map(drop).and(kept) {
                    tracing::warn!(%error, "after reading the store");
                }
                *self = Self { next: Digest([0; 32]), found: Scrubbed::default(), due_s: now_s() + REST_S };
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read now");
                self.due_s = now_s() + REST_S;
            }
        }
    }
}

impl Store {
    /// Reads every blob. With `repair`, a damaged one is moved aside, one that is missing forgotten, and the results
    /// that need them dropped.
    pub fn verify(&self, repair: bool) -> io::Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let mut next = Some(Digest([0; 32]));
        while let Some(from) = next {
            next = self.scrub(&from, u64::MAX, repair, &mut scrubbed)?;
        }
        if repair && scrubbed.damaged + scrubbed.missing > 0 {
            self.collect()?;
        }
        Ok(scrubbed)
    }

    /// Reads the blobs after `from`, until `budget` bytes have been read. Returns where to go on; none at the end.
    pub fn scrub(
        &self,
        from: &Digest,
        budget: u64,
        repair: bool,
        scrubbed: &mut Scrubbed,
    ) -> io::Result<Option<Digest>> {
        let enough = scrubbed.bytes.saturating_add(budget);
        let mut last = None;
        for (digest, record) in self.index().blobs_after(from, BATCH) {
            last = Some(digest);
            match self.cas.verify(&digest) {
                Ok(true) => scrubbed.bytes += record.size,
                // Evicted meanwhile.
                _ if self.index().blob(&digest).is_none() => continue,
                Ok(false) => {
                    scrubbed.damaged += 1;
                    if repair {
                        self.quarantine(&digest);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    scrubbed.missing += 1;
                    if repair {
                        self.forget(&digest);
                    }
                }
                Err(error) => return Err(error),
            }
            scrubbed.blobs += 1;
            if scrubbed.bytes >= enough {
                break;
            }
        }
        Ok(last)
    }
}
