//! Index: what the store knows beside the blobs' bytes, in sled, and what is long in files. The only file that names sled.
//! Disposable: one that does not open is moved aside and begun anew, and what does not decode is as good as absent.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zcache_proto::Digest;

use crate::manifest::Manifest;
use crate::manifests::Manifests;
use crate::packed::pack;

/// Memory that sled may use for its pages, bytes.
const PAGES: u64 = 4 << 20;
/// Most remembered file digests; beyond it all are forgotten and learnt again.
const MEMO_MAX: u64 = 500_000;

/// The record of the totals, which would take seconds to add up in a large store.
const TOTALS: &str = "totals";

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Length in bytes.
    pub size: u64,
    /// Modification times at which its bytes are known to be right: when it was last looked at, and the one that a
    /// client was told to give it.
    pub mtimes_ns: [i64; 2],
    /// Last use, seconds since 1970.
    pub used_s: u64,
}

/// What is known of a result's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// Length in the index, bytes.
    pub size: u64,
    /// Last use, seconds since 1970.
    pub used_s: u64,
}

/// The index of one store.
#[derive(Debug, Clone)]
pub struct Index {
    db: sled::Db,
    manifests: Arc<Manifests>,
    results: sled::Tree,
    blobs: sled::Tree,
    memo: sled::Tree,
    meta: sled::Tree,
    totals: Arc<Totals>,
}

/// What adding up one by one would take seconds for.
#[derive(Debug, Default)]
struct Totals {
    results: AtomicU64,
    blobs: AtomicU64,
    /// Of both.
    bytes: AtomicU64,
    /// Remembered file digests.
    memo: AtomicU64,
}

impl Totals {
    /// Something of `size` bytes has come, in place of something of `before` bytes or of nothing.
    fn put(count: &AtomicU64, bytes: &AtomicU64, size: u64, before: Option<u64>) {
        if before.is_none() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        bytes.fetch_add(size, Ordering::Relaxed);
        less(bytes, before.unwrap_or(0));
    }

    /// Something of `size` bytes has gone.
    fn removed(count: &AtomicU64, bytes: &AtomicU64, size: u64) {
        less(count, 1);
        less(bytes, size);
    }

    fn set(&self, (results, blobs, bytes): (u64, u64, u64)) {
        self.results.store(results, Ordering::Relaxed);
        self.blobs.store(blobs, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

// Totals that were saved a little too early must not run below nothing.
fn less(total: &AtomicU64, by: u64) {
    let _ = total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(by)));
}

impl Index {
    /// Opens the index at `dir`, or fails: another daemon may hold it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_as(dir, sled::Config::new())
    }

    /// Opens the index at `dir`, which is removed when it is closed.
    pub fn scratch(dir: &Path) -> io::Result<Self> {
        // sled panics on some damage where it should answer with an error.
        let opened = std::panic::catch_unwind(|| Self::open_as(dir, sled::Config::new().temporary(true)));
        opened.unwrap_or_else(|_| Err(io::Error::other("the index is damaged")))
    }

    fn open_as(dir: &Path, config: sled::Config) -> io::Result<Self> {
        let db = config.path(dir).cache_capacity(PAGES).flush_every_ms(Some(1000)).open().map_err(failed)?;
        let tree = |name: &str| db.open_tree(name).map_err(failed);
        let (results, blobs) = (tree("results")?, tree("blobs")?);
        let (memo, meta) = (tree("memo")?, tree("meta")?);
        let manifests = Arc::new(Manifests::open(dir.join("manifests")));
        let totals = Totals { memo: AtomicU64::new(memo.len() as u64), ..Totals::default() };
        let index = Self { db, manifests, results, blobs, memo, meta, totals: Arc::new(totals) };
        let saved = index.meta(TOTALS).and_then(|bytes| postcard::from_bytes(&bytes).ok());
        index.totals.set(saved.unwrap_or_else(|| index.add_up()));
        Ok(index)
    }

    /// Opens the index at `dir`; one that does not open goes to `aside`, and an empty one takes its place.
    /// Says whether it was new. Fails, and moves nothing, where the disk is at fault.
    pub fn open_or_renew(dir: &Path, aside: &Path) -> io::Result<(Self, bool)> {
        let fresh = !dir.exists();
        // sled panics on some damage where it should answer with an error.
        let opened = std::panic::catch_unwind(|| Self::open(dir));
        match opened {
            Ok(Ok(index)) => Ok((index, fresh)),
            Ok(Err(error)) if is_of_disk(&error) => Err(error),
            failed => {
                let why = failed.map_or("panic".to_owned(), |r| r.map_or_else(|e| e.to_string(), |_| String::new()));
                tracing::error!(%why, aside = %aside.display(), "the index does not open: moved aside, starting empty");
                let _ = fs::remove_dir_all(aside);
                fs::rename(dir, aside)?;
                Self::open(dir).map(|index| (index, true))
            }
        }
    }

    /// What is known of an action.
    pub fn manifest(&self, action: &Digest) -> Option<Manifest> {
        self.manifests.get(action)
    }

    /// Replaces what is known of an action.
    pub fn put_manifest(&self, action: &Digest, manifest: &Manifest, used_s: u64) -> io::Result<()> {
        if manifest.entries.is_empty() {
            return self.remove_manifest(action).map(drop);
        }
        let bytes = pack(manifest).ok_or_else(|| io::Error::other("it is too long"))?;
        let size = bytes.len() as u64;
        self.manifests.put(action, &bytes)?;
        self.put_result(action, &ManifestRecord { size, used_s })
    }

    /// Notes a use of an action's result.
    pub fn use_manifest(&self, action: &Digest, used_s: u64) -> io::Result<()> {
        let used = |known: Option<&[u8]>| {
            let record: Option<ManifestRecord> = postcard::from_bytes(known?).ok();
            let used = record.and_then(|record| postcard::to_stdvec(&ManifestRecord { used_s, ..record }).ok());
            used.or_else(|| known.map(<[u8]>::to_vec))
        };
        self.results.fetch_and_update(action.0, used).map(drop).map_err(io::Error::other)
    }

    fn put_result(&self, action: &Digest, record: &ManifestRecord) -> io::Result<()> {
        let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
        let before = self.results.insert(action.0, bytes).map_err(io::Error::other)?;
        let before = before.map(|bytes| decode(Some(bytes)).map_or(0, |before: ManifestRecord| before.size));
        Totals::put(&self.totals.results, &self.totals.bytes, record.size, before);
        Ok(())
    }

    /// Forgets an action.
    pub fn remove_manifest(&self, action: &Digest) -> io::Result<()> {
        self.manifests.remove(action)?;
        if let Some(bytes) = self.results.remove(action.0).map_err(io::Error::other)? {
            let size = decode(Some(bytes)).map_or(0, |record: ManifestRecord| record.size);
            Totals::removed(&self.totals.results, &self.totals.bytes, size);
        }
        Ok(())
    }

    /// Results, blobs and their bytes, counted one by one.
    fn add_up(&self) -> (u64, u64, u64) {
        let (mut results, mut blobs, mut bytes) = (0, 0, 0);
        self.results().for_each(|(_, record)| (results, bytes) = (results + 1, bytes + record.size));
        self.blobs().for_each(|(_, record)| (blobs, bytes) = (blobs + 1, bytes + record.size));
        (results, blobs, bytes)
    }

    /// Keeps the totals for the next daemon.
    pub fn save_totals(&self) -> io::Result<()> {
        let totals = (self.action_count(), self.blob_count(), self.bytes());
        self.put_meta(TOTALS, &postcard::to_stdvec(&totals).map_err(io::Error::other)?)
    }

    /// Counts anew, since a daemon that was killed may have saved its totals before its last changes.
    pub fn recount(&self) {
        self.totals.set(self.add_up());
    }

    /// Drops the manifests without a record: a daemon that was killed may not have come to write it.
    pub fn prune_manifests(&self) -> io::Result<()> {
        let mut lost = self.manifests.list().filter(|action| matches!(self.results.contains_key(action.0), Ok(false)));
        lost.try_for_each(|action| self.manifests.remove(&action))
    }

    /// Every action that is known.
    pub fn results(&self) -> impl Iterator<Item = (Digest, ManifestRecord)> + use<> {
        records(&self.results)
    }

    /// What is known of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<BlobRecord> {
        decode(self.blobs.get(digest.0).ok()?)
    }

    /// Replaces what is known of a blob. Says whether nothing was.
    pub fn put_blob(&self, digest: &Digest, record: &BlobRecord) -> io::Result<bool> {
        let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
        let before = self.blobs.insert(digest.0, bytes).map_err(io::Error::other)?;
        let before = before.map(|bytes| decode(Some(bytes)).map_or(0, |before: BlobRecord| before.size));
        Totals::put(&self.totals.blobs, &self.totals.bytes, record.size, before);
        Ok(before.is_none())
    }

    /// Forgets a blob.
    pub fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        if let Some(bytes) = self.blobs.remove(digest.0).map_err(io::Error::other)? {
            let size = decode(Some(bytes)).map_or(0, |record: BlobRecord| record.size);
            Totals::removed(&self.totals.blobs, &self.totals.bytes, size);
        }
        Ok(())
    }

    /// Every blob that is known.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, BlobRecord)> + use<> {
        records(&self.blobs)
    }

    /// The first blobs after `from` in the order of their digests, at most `count` of them.
    pub fn blobs_after(&self, from: &Digest, count: usize) -> Vec<(Digest, BlobRecord)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let rest = self.blobs.range::<&[u8], _>((Excluded(from.0.as_slice()), Unbounded));
        readable(rest).filter_map(record).take(count).collect()
    }

    /// Number of blobs.
    pub fn blob_count(&self) -> u64 {
        self.totals.blobs.load(Ordering::Relaxed)
    }

    /// Total size of blobs and manifests.
    pub fn bytes(&self) -> u64 {
        self.totals.bytes.load(Ordering::Relaxed)
    }

    /// Number of actions with a result.
    pub fn action_count(&self) -> u64 {
        self.totals.results.load(Ordering::Relaxed)
    }

    /// The digest of a file, if it was in this state when that was remembered.
    pub fn memo(&self, file: &[u8; 16], state: &[u8; 24]) -> Option<Digest> {
        let value = self.memo.get(file).ok()??;
        Some(Digest(value.strip_prefix(state)?.try_into().ok()?))
    }

    /// Remembers the digest of a file in this state, in place of an earlier one; a failure costs a reading later.
    pub fn remember(&self, file: &[u8; 16], state: &[u8; 24], digest: Digest) {
        if !matches!(self.memo.insert(file, [state.as_slice(), &digest.0].concat()), Ok(None)) {
            return;
        }
        if self.totals.memo.fetch_add(1, Ordering::Relaxed) >= MEMO_MAX && self.memo.clear().is_ok() {
            self.totals.memo.store(0, Ordering::Relaxed);
        }
    }

    /// A named record: statistics.
    pub fn meta(&self, name: &str) -> Option<Vec<u8>> {
        self.meta.get(name).ok()?.map(|value| value.to_vec())
    }

    /// Replaces a named record.
    pub fn put_meta(&self, name: &str, value: &[u8]) -> io::Result<()> {
        self.meta.insert(name, value).map(drop).map_err(io::Error::other)
    }

    /// Forgets all actions and blobs; the memo and the statistics stay.
    pub fn clear(&self) -> io::Result<()> {
        [&self.results, &self.blobs].into_iter().try_for_each(|tree| tree.clear()).map_err(io::Error::other)?;
        self.manifests.clear()?;
        self.totals.set((0, 0, 0));
        self.save_totals()
    }

    /// Writes all to disk.
    pub fn flush(&self) -> io::Result<()> {
        self.db.flush().map(drop).map_err(failed)
    }
}

/// What the disk says stays as it says it.
fn failed(error: sled::Error) -> io::Error {
    if let sled::Error::Io(error) = error { error } else { io::Error::other(error) }
}

/// Whether what is wrong is not the index: no room, no permission, somebody else has it, too many files are open.
fn is_of_disk(error: &io::Error) -> bool {
    let damaged = [Errno::ENOENT, Errno::ENOTDIR, Errno::EISDIR, Errno::ELOOP, Errno::EINVAL, Errno::ENXIO];
    error.raw_os_error().is_some_and(|number| !damaged.contains(&Errno::from_raw(number)))
}

fn decode<T: DeserializeOwned>(bytes: Option<sled::IVec>) -> Option<T> {
    postcard::from_bytes(&bytes?).ok()
}

fn records<T: DeserializeOwned>(tree: &sled::Tree) -> impl Iterator<Item = (Digest, T)> + use<T> {
    readable(tree.iter()).filter_map(record)
}

/// What can be read, in order. After a failure sled answers with the same one for ever.
fn readable(entries: sled::Iter) -> impl Iterator<Item = (sled::IVec, sled::IVec)> {
    entries.map_while(Result::ok)
}

fn record<T: DeserializeOwned>((key, value): (sled::IVec, sled::IVec)) -> Option<(Digest, T)> {
    Some((Digest(key.as_ref().try_into().ok()?), postcard::from_bytes(&value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ActionResult, Entry};

    #[test]
    fn what_was_put_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let (action, blob) = (Digest::of(b"a"), Digest::of(b"b"));
        let manifest = Manifest { entries: vec![Entry { expectations: vec![], result: ActionResult::default() }] };
        let record = BlobRecord { size: 3, mtimes_ns: [1, 2], used_s: 4 };
        let index = Index::open(dir.path()).unwrap();
        index.put_manifest(&action, &manifest, 7).unwrap();
        index.put_blob(&blob, &record).unwrap();
        index.flush().unwrap();
        drop(index);
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.manifest(&action), Some(manifest));
        assert_eq!(index.blobs().collect::<Vec<_>>(), [(blob, record)]);
        assert_eq!(index.results().map(|(action, record)| (action, record.used_s)).collect::<Vec<_>>(), [(action, 7)]);
        index.put_manifest(&action, &Manifest::default(), 7).unwrap();
        assert_eq!((index.results().count(), index.action_count()), (0, 0));
    }

    #[test]
    fn of_a_file_that_changes_the_last_state_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let state = |n: u8| [n; 24];
        (0..9).for_each(|n| index.remember(&[7; 16], &state(n), Digest::of(&[n])));
        assert_eq!(index.memo(&[7; 16], &state(8)), Some(Digest::of(&[8])));
        assert_eq!((index.memo(&[7; 16], &state(7)), index.totals.memo.load(Ordering::Relaxed)), (None, 1));
    }

    #[test]
    fn an_index_that_does_not_open_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (at, aside) = (dir.path().join("index"), dir.path().join("aside"));
        fs::create_dir_all(at.join("db")).unwrap();
        let (index, fresh) = Index::open_or_renew(&at, &aside).unwrap();
        assert!(fresh && aside.exists());
        assert_eq!(index.results().count(), 0);
    }

    #[test]
    fn a_damaged_index_opens_with_less_or_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (at, aside) = (dir.path().join("index"), dir.path().join("aside"));
        let action = Digest::of(b"a");
        let manifest = Manifest { entries: vec![Entry { expectations: vec![], result: ActionResult::default() }] };
        for file in ["conf", "db"] {
            let index = Index::open_or_renew(&at, &aside).unwrap().0;
            index.put_manifest(&action, &manifest, 7).unwrap();
            index.flush().unwrap();
            drop(index);
            let mut bytes = fs::read(at.join(file)).unwrap();
            bytes.iter_mut().step_by(3).for_each(|byte| *byte ^= 0x5a);
            fs::write(at.join(file), bytes).unwrap();
            let index = Index::open_or_renew(&at, &aside).unwrap().0;
            assert!(index.manifest(&action).is_none_or(|found| found == manifest));
        }
    }
}
