//! Gc: what leaves the store: the least recently used over its limit, what nothing leads to, or all of it.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use zcache_proto::Digest;

use crate::evict::{self, Candidate, Item};
use crate::failpoint::{self, Point};
use crate::index::{BlobRecord, ManifestRecord};
use crate::inputs::lock;
use crate::manifest::Entry;
use crate::store::{Store, now_s};

/// A blob that no result needs may belong to one that is just being stored, seconds.
const YOUNG_S: u64 = 3600;

/// What a collection removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Results that need a blob that is gone.
    pub results: u64,
    /// Blobs that no result needs.
    pub blobs: u64,
    /// Bytes freed, of evicted blobs and results too.
    pub bytes: u64,
}

impl Store {
    /// Removes the least recently used blobs and results while the store is over its limit. A result that is left
    /// without its blobs goes when it is asked for, or with the next collection.
    pub fn evict(&self) {
        if self.bytes() <= self.max_bytes {
            return;
        }
        let Ok(_one) = self.evicting.try_lock() else { return };
        let began = Instant::now();
        let blob = |(digest, record): (Digest, BlobRecord)| Candidate {
            item: Item::Blob(digest),
            size: record.size,
            used_s: record.used_s,
        };
        let result = |(action, record): (Digest, ManifestRecord)| Candidate {
            item: Item::Manifest(action),
            size: record.size,
            used_s: record.used_s,
        };
        let all = self.index().blobs().map(blob).chain(self.index().results().map(result)).collect();
        let promised = lock(&self.promises).kept(Instant::now());
        let victims = evict::victims(all, self.bytes(), self.max_bytes, &promised);
        for victim in &victims {
            self.remove(victim);
        }
        tracing::info!(items = victims.len(), bytes = self.bytes(), took = ?began.elapsed(), "evicted");
    }

    fn remove(&self, victim: &Candidate) {
        let gone = match &victim.item {
            Item::Blob(digest) => self.cas.remove(digest).map(|()| {
                failpoint::reached(Point::Evicted);
                self.forget(digest);
            }),
            Item::Manifest(action) => self.index().remove_manifest(action),
        };
        if gone.is_ok() {
            self.evicted_bytes.fetch_add(victim.size, Ordering::Relaxed);
        }
    }

    /// Evicts, then removes results whose blobs are gone and blobs that nothing needs.
    pub fn collect(&self) -> io::Result<Collected> {
        self.may_collect()?;
        let before = self.bytes();
        self.evict();
        let mut collected = Collected::default();
        let needed = self.prune_results(&mut collected)?;
        let old = now_s().saturating_sub(YOUNG_S);
        for (digest, record) in self.index().blobs() {
            if !needed.contains(&digest) && record.used_s < old {
                self.cas.remove(&digest)?;
                self.forget(&digest);
                collected.blobs += 1;
            }
        }
        // A daemon that was killed leaves blobs that the index never heard of.
        for (digest, stamp) in self.cas.list()? {
            if self.index().blob(&digest).is_none() && stamp.ctime_ns / 1_000_000_000 < old.cast_signed() {
                self.cas.remove(&digest)?;
                collected.blobs += 1;
            }
        }
        self.index().prune_manifests()?;
        self.index().recount();
        collected.bytes = before.saturating_sub(self.bytes());
        self.index().flush()?;
        Ok(collected)
    }

    /// Drops the results that need a blob that is gone. Returns the blobs that the others need.
    fn prune_results(&self, collected: &mut Collected) -> io::Result<HashSet<Digest>> {
        let mut needed = HashSet::new();
        for (action, record) in self.index().results() {
            let manifest = self.index().manifest(&action).unwrap_or_default();
            let is_whole = |entry: &Entry| entry.result.blobs().all(|(digest, _)| self.index().blob(&digest).is_some());
            let (whole, gone): (Vec<_>, Vec<_>) = manifest.entries.into_iter().partition(is_whole);
            if !gone.is_empty() || whole.is_empty() {
                collected.results += gone.len() as u64;
                self.amend(&action, record.used_s, |known| gone.iter().for_each(|entry| known.remove(entry)))?;
            }
            needed.extend(whole.iter().flat_map(|entry| entry.result.blobs()).map(|(digest, _)| digest));
        }
        Ok(needed)
    }

    /// Removes all results and blobs; returns the bytes freed.
    pub fn clear(&self) -> io::Result<u64> {
        self.may_collect()?;
        let freed = self.bytes();
        self.index().clear()?;
        failpoint::reached(Point::IndexCleared);
        for (digest, _) in self.cas.list()? {
            self.cas.remove(&digest)?;
            failpoint::reached(Point::BlobsCleared);
        }
        lock(&self.verified).clear();
        self.index().flush()?;
        Ok(freed)
    }
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
