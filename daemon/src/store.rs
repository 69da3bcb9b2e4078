//! Store: the cas and the index as one thing on disk, with its format, its lock, its size limit and its checks.
//! Knows digests and records, not what they are for.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use zcache_proto::Digest;

use crate::cas::{Cas, Held, Scanned};
use crate::evict::{self, Candidate};
use crate::index::{BlobRecord, Index};
use crate::inputs::{Stamp, lock};
use crate::premises::{self, Premises, Room};
use crate::records::Records;
use crate::refusal::Refusal;

/// Version of the layout on disk, written to `FORMAT`.
pub const FORMAT: u32 = 1;
/// How file systems say that they have no locks.
const NO_LOCKS: [i32; 4] = [Errno::ENOLCK as i32, Errno::EOPNOTSUPP as i32, Errno::ENOSYS as i32, Errno::EINVAL as i32];
/// How long a client has to take what a reply promised.
const PROMISE: Duration = Duration::from_secs(60);

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store {0} is in use by another daemon; stop it, or set ZCACHE_DIR to another directory")]
    InUse(PathBuf),
    /// Nothing keeps a second daemon out.
    #[error(
        "the store {dir} is on a file system without locks ({error}); set ZCACHE_DIR to a directory on another one"
    )]
    NoLocks {
        /// The store.
        dir: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// It was written by a newer zcache.
    #[error(
        "the store {dir} has format {found}, this zcache knows {FORMAT}; upgrade, or set ZCACHE_DIR to another directory"
    )]
    Newer {
        /// The store.
        dir: PathBuf,
        /// What it says.
        found: String,
    },
    /// The disk says no.
    #[error("the store {dir} cannot be opened: {error}")]
    Io {
        /// The store.
        dir: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    /// Where it is.
    pub dir: PathBuf,
    /// Limit of the blobs' total size.
    pub max_bytes: u64,
    /// Blobs.
    pub cas: Cas,
    /// Where all of it is.
    pub premises: Premises,
    /// Records.
    pub records: Records,
    bytes: AtomicU64,
    evicted_bytes: AtomicU64,
    quarantined: AtomicU64,
    verified: Mutex<HashSet<Digest>>,
    promised: Mutex<HashMap<Digest, Instant>>,
}

impl Store {
    /// Opens or creates the store at `dir` and holds it for life.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, OpenError> {
        let io = |error: io::Error| OpenError::Io { dir: dir.to_owned(), error };
        let premises = Premises::enter(dir).map_err(|error| match error.raw_os_error() {
            _ if premises::is_taken(&error) => OpenError::InUse(dir.to_owned()),
            Some(number) if NO_LOCKS.contains(&number) => OpenError::NoLocks { dir: dir.to_owned(), error },
            _ => io(error),
        })?;
        let has_room = premises.room() == Room::Free;
        check_format(dir).or_else(|error| match error {
            OpenError::Io { .. } if !has_room => Ok(()),
            error => Err(error),
        })?;
        let cas = Cas::open(dir).or_else(|error| if has_room { Err(io(error)) } else { Ok(Cas::at(dir)) })?;
        let (records, fresh) = match premises.read_only {
            true => (Records::copy(&dir.join("index")).map_err(io)?, false),
            false => Records::open(&dir.join("index"), &dir.join("quarantine/index")).map_err(io)?,
        };
        let index = records.get();
        if fresh {
            relearn(&cas, &index).map_err(io)?;
        }
        let bytes = index.blobs().map(|(_, record)| record.size).sum();
        Ok(Self {
            dir: dir.to_owned(),
            max_bytes,
            cas,
            premises,
            records,
            bytes: AtomicU64::new(bytes),
            evicted_bytes: AtomicU64::default(),
            quarantined: AtomicU64::default(),
            verified: Mutex::default(),
            promised: Mutex::default(),
        })
    }

    /// The index.
    pub fn index(&self) -> Index {
        self.records.get()
    }

    /// Whether results can be stored now.
    pub fn admits(&self) -> Result<(), Refusal> {
        match self.premises.room().refusal() {
            Some(refusal) => Err(refusal),
            None => self.records.failure().map_or(Ok(()), |why| Err(Refusal::Store(why))),
        }
    }

    /// Looks after what may have changed since: whether the store can be written, and an index that failed.
    pub fn tend(&self) {
        self.premises.look();
        if self.records.tend(self.premises.room() == Room::Free)
            && let Err(error) = relearn(&self.cas, &self.index())
        {
            tracing::warn!(%error, "blobs that the new index does not know are not used");
        }
    }

    /// Total size of the blobs.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What eviction has removed since the daemon started.
    pub fn evicted_bytes(&self) -> u64 {
        self.evicted_bytes.load(Ordering::Relaxed)
    }

    /// Blobs moved aside since the daemon started.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Makes a scanned output a blob, or counts one more use of the blob that is there.
    pub fn adopt(&self, held: Held, scanned: &Scanned) -> io::Result<()> {
        // What lies there unknown may be anything.
        if self.index().blob(&scanned.digest).is_none() {
            self.cas.clear_way(&scanned.digest);
        }
        let mtime_ns = self.cas.adopt(held, &scanned.digest)?;
        let known = self.index().blob(&scanned.digest);
        if known.is_none() {
            self.bytes.fetch_add(scanned.size, Ordering::Relaxed);
            lock(&self.verified).insert(scanned.digest);
        }
        let mtimes_ns = known.map_or([mtime_ns; 2], |record| record.mtimes_ns);
        self.index().put_blob(&scanned.digest, &BlobRecord { size: scanned.size, mtimes_ns, used_s: now_s() })
    }

    /// Promises blobs to a client that will link them with modification time `mtime_ns`: whether all are there and
    /// whole. One that is not is moved aside.
    pub fn promise(&self, blobs: &[(Digest, u64)], mtime_ns: i64) -> bool {
        let until = Instant::now() + PROMISE;
        {
            let mut promised = lock(&self.promised);
            promised.retain(|_, until| *until > Instant::now());
            promised.extend(blobs.iter().map(|(digest, _)| (*digest, until)));
        }
        blobs.iter().all(|(digest, size)| self.is_whole(digest, *size, mtime_ns))
    }

    fn is_whole(&self, digest: &Digest, size: u64, mtime_ns: i64) -> bool {
        let (Ok(stamp), Some(record)) = (self.cas.stamp(digest), self.index().blob(digest)) else {
            self.forget(digest);
            return false;
        };
        let known = stamp.size == size && record.mtimes_ns.contains(&stamp.mtime_ns);
        if !(known && lock(&self.verified).contains(digest)) {
            if !self.cas.verify(digest).unwrap_or(false) {
                self.quarantine(digest);
                return false;
            }
            lock(&self.verified).insert(*digest);
        }
        let record = BlobRecord { size, mtimes_ns: [stamp.mtime_ns, mtime_ns], used_s: now_s() };
        // Not to know that it was looked at costs another look.
        let _ = self.index().put_blob(digest, &record);
        true
    }

    fn quarantine(&self, digest: &Digest) {
        tracing::warn!(?digest, "a blob is damaged: moved aside");
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        if self.cas.quarantine(digest).is_err() {
            let _ = self.cas.remove(digest);
        }
        self.forget(digest);
    }

    fn forget(&self, digest: &Digest) {
        lock(&self.verified).remove(digest);
        if let Some(record) = self.index().blob(digest) {
            let _ = self.index().remove_blob(digest);
            self.bytes.fetch_sub(record.size.min(self.bytes()), Ordering::Relaxed);
        }
    }

    /// Removes the least recently used blobs while the store is over its limit, and the results that need them.
    pub fn evict(&self) {
        if self.bytes() <= self.max_bytes {
            return;
        }
        let candidate =
            |(digest, record): (Digest, BlobRecord)| Candidate { digest, size: record.size, used_s: record.used_s };
        let blobs = self.index().blobs().map(candidate).collect();
        let promised =
            lock(&self.promised).iter().filter(|(_, until)| **until > Instant::now()).map(|(d, _)| *d).collect();
        let mut gone = HashSet::new();
        for victim in evict::victims(blobs, self.bytes(), self.max_bytes, &promised) {
            if self.cas.remove(&victim.digest).is_ok() {
                self.forget(&victim.digest);
                self.evicted_bytes.fetch_add(victim.size, Ordering::Relaxed);
                gone.insert(victim.digest);
            }
        }
        tracing::info!(blobs = gone.len(), bytes = self.bytes(), "evicted");
        self.collect(&gone);
    }

    /// Drops the results that need a blob that is gone.
    fn collect(&self, gone: &HashSet<Digest>) {
        for action in self.index().actions() {
            let Some(mut manifest) = self.index().manifest(&action) else { continue };
            let before = manifest.entries.len();
            manifest.entries.retain(|entry| entry.result.blobs().all(|(digest, _)| !gone.contains(&digest)));
            if manifest.entries.len() != before {
                let _ = self.index().put_manifest(&action, &manifest);
            }
        }
    }

    /// Removes all results and blobs; returns the bytes freed.
    pub fn clear(&self) -> io::Result<u64> {
        let freed = self.bytes();
        self.index().clear()?;
        for (digest, _) in self.cas.list()? {
            self.cas.remove(&digest)?;
        }
        lock(&self.verified).clear();
        self.bytes.store(0, Ordering::Relaxed);
        self.index().flush()?;
        Ok(freed)
    }
}

fn check_format(dir: &Path) -> Result<(), OpenError> {
    let at = dir.join("FORMAT");
    let io = |error: io::Error| OpenError::Io { dir: dir.to_owned(), error };
    match fs::read_to_string(&at) {
        Ok(text) if text.trim().parse::<u32>().is_ok_and(|found| found > FORMAT) => {
            Err(OpenError::Newer { dir: dir.to_owned(), found: text.trim().to_owned() })
        }
        Ok(text) if text.trim() == FORMAT.to_string() => Ok(()),
        // Absent or damaged: the blobs are named by their digests and the index says itself what it can read.
        _ => fs::write(&at, format!("{FORMAT}\n")).map_err(io),
    }
}

/// Takes up the blobs of a store whose index was lost: they serve again once their results are known anew.
fn relearn(cas: &Cas, index: &Index) -> io::Result<()> {
    for (digest, Stamp { size, mtime_ns, .. }) in cas.list()? {
        index.put_blob(&digest, &BlobRecord { size, mtimes_ns: [mtime_ns; 2], used_s: now_s() })?;
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(store: &Store, dir: &Path, bytes: &[u8]) -> Digest {
        let output = dir.join("output");
        let _ = fs::remove_file(&output);
        fs::write(&output, bytes).unwrap();
        let mut held = store.cas.hold(&output, false).unwrap();
        store.cas.separate(&mut held).unwrap();
        let scanned = store.cas.scan(&held, &[]).unwrap();
        store.adopt(held, &scanned).unwrap();
        scanned.digest
    }

    #[test]
    fn one_process_has_a_store_and_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1000).unwrap();
        assert!(matches!(Store::open(dir.path(), 1000), Err(OpenError::InUse(_))));
        drop(store);
        fs::write(dir.path().join("FORMAT"), "2\n").unwrap();
        assert!(matches!(Store::open(dir.path(), 1000), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn a_changed_blob_is_never_promised() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 1000).unwrap();
        let digest = stored(&store, dir.path(), b"whole");
        assert!(store.promise(&[(digest, 5)], 7));
        fs::write(store.cas.path(&digest), "wrong").unwrap();
        assert!(!store.promise(&[(digest, 5)], 7));
        assert_eq!((store.quarantined(), store.bytes()), (1, 0));
    }

    #[test]
    fn the_limit_holds_and_promises_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 100).unwrap();
        let kept = stored(&store, dir.path(), &[1; 60]);
        assert!(store.promise(&[(kept, 60)], 7));
        let other = stored(&store, dir.path(), &[2; 60]);
        store.evict();
        assert_eq!(store.bytes(), 60);
        assert!(store.cas.path(&kept).exists() && !store.cas.path(&other).exists());
    }

    #[test]
    fn blobs_outlive_a_lost_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 100).unwrap();
        let digest = stored(&store, dir.path(), &[1; 60]);
        drop(store);
        fs::remove_dir_all(dir.path().join("s/index")).unwrap();
        let store = Store::open(&dir.path().join("s"), 100).unwrap();
        assert_eq!(store.bytes(), 60);
        assert!(store.promise(&[(digest, 60)], 7));
    }
}
