//! Store: the cas and the index as one thing on disk, with its format, its lock, its size limit and its checks.
//! Knows digests and records, not what they are for.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use nix::errno::Errno;
use zcache_proto::Digest;

use crate::cas::{Cas, Held, Scanned};
use crate::failpoint::{self, Point};
use crate::index::{BlobRecord, Index};
use crate::inputs::{Stamp, lock};
use crate::lent::Lent;
use crate::manifest::Manifest;
use crate::premises::{self, Premises, Room};
use crate::promises::Promises;
use crate::recent::Recent;
use crate::records::Records;
use crate::refusal::Refusal;

/// Version of the layout on disk, written to `FORMAT`.
pub const FORMAT: u32 = 4;
/// Most blobs that are known to be whole; others are read again before they serve. Two hash tables that are just full.
const BLOBS_MAX: usize = 2 * (7 << 13);
/// How file systems say that they have no locks.
const NO_LOCKS: [i32; 4] = [Errno::ENOLCK as i32, Errno::EOPNOTSUPP as i32, Errno::ENOSYS as i32, Errno::EINVAL as i32];

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
    /// Another user could have put something into it.
    #[error("{0} does not belong to you; remove it, or set ZCACHE_DIR to another directory")]
    Foreign(PathBuf),
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
    /// Limit of the total size of blobs and results.
    pub max_bytes: u64,
    /// Blobs.
    pub cas: Cas,
    /// Where all of it is.
    pub premises: Premises,
    /// Records.
    pub records: Records,
    pub(crate) evicted_bytes: AtomicU64,
    pub(crate) evicting: Mutex<()>,
    amending: Mutex<()>,
    pub(crate) verified: Mutex<Recent<Digest, ()>>,
    /// Watches over blobs that outputs share.
    lent: Lent,
    pub(crate) promises: Mutex<Promises>,
    quarantined: AtomicU64,
}

impl Store {
    /// Opens or creates the store at `dir` and holds it for life.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, OpenError> {
        let io = |error: io::Error| OpenError::Io { dir: dir.to_owned(), error };
        if let Some(foreign) = premises::foreign(dir).map_err(io)? {
            return Err(OpenError::Foreign(foreign));
        }
        let premises = Premises::enter(dir).map_err(|error| match error.raw_os_error() {
            _ if premises::is_taken(&error) => OpenError::InUse(dir.to_owned()),
            Some(number) if NO_LOCKS.contains(&number) => OpenError::NoLocks { dir: dir.to_owned(), error },
            _ => io(error),
        })?;
        let has_room = premises.room() == Room::Free;
        let is_readable = check_format(dir, premises.room())?;
        let cas = Cas::open(dir).or_else(|error| if has_room { Err(io(error)) } else { Ok(Cas::at(dir)) })?;
        let (records, fresh) = match premises.read_only {
            true => (Records::copy(is_readable.then(|| dir.join("index")).as_deref()).map_err(io)?, false),
            false => Records::open(&dir.join("index"), &dir.join("quarantine/index")).map_err(io)?,
        };
        if fresh {
            relearn(&cas, &records.get()).map_err(io)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            max_bytes,
            cas,
            premises,
            records,
            evicted_bytes: AtomicU64::default(),
            evicting: Mutex::default(),
            amending: Mutex::default(),
            verified: Mutex::new(Recent::new(BLOBS_MAX)),
            lent: Lent::default(),
            promises: Mutex::default(),
            quarantined: AtomicU64::default(),
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
        let Some(is_new) = self.records.tend(self.premises.room() == Room::Free) else { return };
        if is_new && let Err(error) = relearn(&self.cas, &self.index()) {
            tracing::warn!(%error, "blobs that the new index does not know are not used");
        }
        self.index().recount();
    }

    /// Fails where another index stands in for the store's own: what that does not know is not for the bin.
    pub(crate) fn may_collect(&self) -> io::Result<()> {
        let why = self.records.failure().or(self.premises.read_only.then(|| "the store is read-only".to_owned()));
        why.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Total size of blobs and results.
    pub fn bytes(&self) -> u64 {
        self.index().bytes()
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
        let index = self.index();
        let known = index.blob(&scanned.digest);
        let is_lent = held.lent;
        let mtime_ns = self.cas.adopt(held, &scanned.digest, known.is_some())?;
        let mtimes_ns = known.map_or([mtime_ns; 2], |record| record.mtimes_ns);
        let record = BlobRecord { size: scanned.size, mtimes_ns, used_s: now_s() };
        if index.put_blob(&scanned.digest, &record)? {
            if is_lent {
                self.lent.watch(&scanned.digest, &self.cas.path(&scanned.digest));
            }
            lock(&self.verified).insert(scanned.digest, ());
        }
        failpoint::reached(Point::AfterBlobRecord);
        Ok(())
    }

    /// Changes what is known of an action, last used at `used_s`. No two changes lose one another.
    pub fn amend(&self, action: &Digest, used_s: u64, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        let _alone = lock(&self.amending);
        let mut manifest = self.index().manifest(action).unwrap_or_default();
        change(&mut manifest);
        failpoint::reached(Point::BeforeManifest);
        self.index().put_manifest(action, &manifest, used_s)?;
        failpoint::reached(Point::AfterManifest);
        Ok(())
    }

    /// Promises blobs to a client that will link those that are `lent`, with modification time `mtime_ns`: whether all are
    /// there and whole. One that is not is moved aside.
    pub fn promise(&self, blobs: &[(Digest, u64)], lent: &[Digest], mtime_ns: i64) -> bool {
        lock(&self.promises).make(blobs.iter().map(|(digest, _)| *digest), Instant::now());
        failpoint::reached(Point::Promised);
        blobs.iter().all(|(digest, size)| self.is_whole(digest, *size, lent.contains(digest), mtime_ns))
    }

    fn is_whole(&self, digest: &Digest, size: u64, is_lent: bool, mtime_ns: i64) -> bool {
        let (Ok(stamp), Some(record)) = (self.cas.stamp(digest), self.index().blob(digest)) else {
            self.forget(digest);
            return false;
        };
        let is_untouched = !is_lent || self.lent.watch(digest, &self.cas.path(digest));
        let known = is_untouched && stamp.size == size && record.mtimes_ns.contains(&stamp.mtime_ns);
        if !(known && lock(&self.verified).get(digest).is_some()) {
            match self.cas.verify(digest) {
                Ok(true) => {}
                Ok(false) => {
                    self.quarantine(digest);
                    return false;
                }
                // It could not be read now, which does not make it wrong.
                Err(_) => return false,
            }
            lock(&self.verified).insert(*digest, ());
        }
        let record = BlobRecord { size, mtimes_ns: [stamp.mtime_ns, mtime_ns], used_s: now_s() };
        // Not to know that it was looked at costs another look.
        let _ = self.index().put_blob(digest, &record);
        true
    }

    pub(crate) fn quarantine(&self, digest: &Digest) {
        tracing::warn!(?digest, "a blob is damaged: moved aside");
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        if self.cas.quarantine(digest).is_err() {
            let _ = self.cas.remove(digest);
        }
        failpoint::reached(Point::Quarantined);
        self.forget(digest);
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        lock(&self.verified).remove(digest);
        let _ = self.index().remove_blob(digest);
    }
}

/// Refuses what a newer zcache wrote. The index of an older one is moved aside; its blobs are named by their digests.
/// Says whether the index that is there now can be read.
fn check_format(dir: &Path, room: Room) -> Result<bool, OpenError> {
    let at = dir.join("FORMAT");
    let io = |error: io::Error| OpenError::Io { dir: dir.to_owned(), error };
    let found = fs::read_to_string(&at).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match found {
        Some(newer) if newer > FORMAT => {
            return Err(OpenError::Newer { dir: dir.to_owned(), found: newer.to_string() });
        }
        Some(FORMAT) => return Ok(true),
        // What cannot be moved aside is not read.
        Some(_) if room == Room::ReadOnly => return Ok(false),
        Some(older) => set_aside(dir, older).map_err(io)?,
        // Absent or damaged: the index says itself what it can read.
        None => {}
    }
    failpoint::reached(Point::BeforeFormat);
    // Whole or not at all: half a number would be another's.
    let new = dir.join("FORMAT.new");
    let written = fs::write(&new, format!("{FORMAT}\n")).and_then(|()| fs::rename(&new, &at));
    failpoint::reached(Point::AfterFormat);
    // Without room the next daemon writes it.
    if room == Room::Free { written.map(|()| true).map_err(io) } else { Ok(true) }
}

fn set_aside(dir: &Path, format: u32) -> io::Result<()> {
    let (index, aside) = (dir.join("index"), dir.join("quarantine").join(format!("index-{format}")));
    tracing::info!(format, "the index of an older zcache is moved to quarantine");
    DirBuilder::new().recursive(true).mode(0o700).create(dir.join("quarantine"))?;
    let _ = fs::remove_dir_all(&aside);
    match fs::rename(index, aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes up the blobs of a store whose index was lost: they serve again once their results are known anew.
fn relearn(cas: &Cas, index: &Index) -> io::Result<()> {
    for (digest, Stamp { size, mtime_ns, .. }) in cas.list()? {
        let _ = index.put_blob(&digest, &BlobRecord { size, mtimes_ns: [mtime_ns; 2], used_s: now_s() })?;
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
pub(crate) mod tests {
    //! A store as a test fills it.
    use std::sync::Barrier;

    use crate::manifest::{ActionResult, Entry, Expectation};

    use super::*;

    /// Makes `bytes` a blob, by way of a file in `dir`.
    pub fn stored(store: &Store, dir: &Path, bytes: &[u8]) -> Digest {
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
        fs::write(dir.path().join("FORMAT"), format!("{}\n", FORMAT + 1)).unwrap();
        assert!(matches!(Store::open(dir.path(), 1000), Err(OpenError::Newer { .. })));
    }

    #[test]
    fn a_changed_blob_is_never_promised() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 1000).unwrap();
        let digest = stored(&store, dir.path(), b"whole");
        assert!(store.promise(&[(digest, 5)], &[], 7));
        fs::write(store.cas.path(&digest), "wrong").unwrap();
        assert!(!store.promise(&[(digest, 5)], &[], 7));
        assert_eq!((store.quarantined(), store.bytes()), (1, 0));
    }

    #[test]
    fn results_of_one_action_that_are_stored_at_once_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 1 << 20).unwrap();
        let action = Digest::of(b"action");
        let entry = |n: i32| Entry {
            expectations: vec![Expectation::Env(n.to_string().into(), None)],
            result: ActionResult::default(),
        };
        let start = Barrier::new(16);
        let put = &|n: i32| {
            start.wait();
            store.amend(&action, 7, |known| known.insert(entry(n))).unwrap();
        };
        std::thread::scope(|scope| (0..16).for_each(|n| drop(scope.spawn(move || put(n)))));
        assert_eq!(store.index().manifest(&action).unwrap().entries.len(), 16);
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
        assert!(store.promise(&[(digest, 60)], &[], 7));
    }

    #[test]
    fn the_index_of_an_older_format_is_set_aside_and_its_blobs_serve() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s"), 100).unwrap();
        let digest = stored(&store, dir.path(), &[1; 60]);
        drop(store);
        fs::write(dir.path().join("s/FORMAT"), "1\n").unwrap();
        let store = Store::open(&dir.path().join("s"), 100).unwrap();
        assert!(store.promise(&[(digest, 60)], &[], 7));
        assert!(dir.path().join("s/quarantine/index-1").is_dir());
        assert_eq!(fs::read_to_string(dir.path().join("s/FORMAT")).unwrap(), format!("{FORMAT}\n"));
    }
}
