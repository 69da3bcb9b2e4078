//! Index: what the store knows beside the blobs' bytes, in sled. The only file that names sled. Disposable: one that
//! does not open is moved aside and begun anew, and what does not decode is as good as absent.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use zcache_proto::Digest;

use crate::manifest::Manifest;
use crate::packed::{pack, unpack};

/// Memory that sled may use for its pages, bytes.
const PAGES: u64 = 16 << 20;
/// Most remembered file digests; beyond it all are forgotten and learnt again.
const MEMO_MAX: usize = 500_000;

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

/// The index of one store.
#[derive(Debug, Clone)]
pub struct Index {
    db: sled::Db,
    manifests: sled::Tree,
    blobs: sled::Tree,
    memo: sled::Tree,
    meta: sled::Tree,
    /// Lengths of `manifests` and `blobs`, which sled would count one by one each time.
    counts: Arc<[AtomicU64; 2]>,
}

impl Index {
    /// Opens the index at `dir`, or fails: another daemon may hold it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(PAGES).flush_every_ms(Some(1000));
        let db = config.open().map_err(io::Error::other)?;
        let tree = |name: &str| db.open_tree(name).map_err(io::Error::other);
        let (manifests, blobs, memo, meta) = (tree("manifests")?, tree("blobs")?, tree("memo")?, tree("meta")?);
        if memo.len() > MEMO_MAX {
            memo.clear().map_err(io::Error::other)?;
        }
        let counts = Arc::new([&manifests, &blobs].map(|tree| AtomicU64::new(tree.len() as u64)));
        Ok(Self { db, manifests, blobs, memo, meta, counts })
    }

    /// Opens the index at `dir`; one that does not open goes to `aside`, and an empty one takes its place.
    /// Says whether it was new.
    pub fn open_or_renew(dir: &Path, aside: &Path) -> io::Result<(Self, bool)> {
        let fresh = !dir.exists();
        // sled panics on some damage where it should answer with an error.
        let opened = std::panic::catch_unwind(|| Self::open(dir));
        match opened {
            Ok(Ok(index)) => Ok((index, fresh)),
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
        unpack(&self.manifests.get(action.0).ok()??)
    }

    /// Replaces what is known of an action.
    pub fn put_manifest(&self, action: &Digest, manifest: &Manifest) -> io::Result<()> {
        if manifest.entries.is_empty() {
            return remove(&self.manifests, &self.counts[0], &action.0);
        }
        let packed = pack(manifest).ok_or_else(|| io::Error::other("it is too long"))?;
        put(&self.manifests, &self.counts[0], &action.0, packed)
    }

    /// Every action that is known.
    pub fn actions(&self) -> impl Iterator<Item = Digest> + use<> {
        self.manifests.iter().keys().flatten().filter_map(|key| Some(Digest(key.as_ref().try_into().ok()?)))
    }

    /// What is known of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<BlobRecord> {
        postcard::from_bytes(&self.blobs.get(digest.0).ok()??).ok()
    }

    /// Replaces what is known of a blob.
    pub fn put_blob(&self, digest: &Digest, record: &BlobRecord) -> io::Result<()> {
        let record = postcard::to_stdvec(record).map_err(io::Error::other)?;
        put(&self.blobs, &self.counts[1], &digest.0, record)
    }

    /// Forgets a blob.
    pub fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        remove(&self.blobs, &self.counts[1], &digest.0)
    }

    /// Every blob that is known.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, BlobRecord)> + use<> {
        self.blobs.iter().flatten().filter_map(|(key, value)| {
            Some((Digest(key.as_ref().try_into().ok()?), postcard::from_bytes(&value).ok()?))
        })
    }

    /// Number of blobs.
    pub fn blob_count(&self) -> u64 {
        self.counts[1].load(Ordering::Relaxed)
    }

    /// Number of actions with a result.
    pub fn action_count(&self) -> u64 {
        self.counts[0].load(Ordering::Relaxed)
    }

    /// The digest of a file with this identity.
    pub fn memo(&self, key: &[u8; 40]) -> Option<Digest> {
        let value = self.memo.get(key).ok()??;
        Some(Digest(value.as_ref().try_into().ok()?))
    }

    /// Remembers the digest of a file with this identity; a failure costs a reading later.
    pub fn remember(&self, key: &[u8; 40], digest: Digest) {
        let _ = self.memo.insert(key, digest.0.as_slice());
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
        self.manifests.clear().and_then(|()| self.blobs.clear()).map_err(io::Error::other)?;
        let trees = [&self.manifests, &self.blobs];
        self.counts.iter().zip(trees).for_each(|(count, tree)| count.store(tree.len() as u64, Ordering::Relaxed));
        Ok(())
    }

    /// Writes all to disk.
    pub fn flush(&self) -> io::Result<()> {
        self.db.flush().map(drop).map_err(io::Error::other)
    }
}

fn put(tree: &sled::Tree, count: &AtomicU64, key: &[u8], value: Vec<u8>) -> io::Result<()> {
    let before = tree.insert(key, value).map_err(io::Error::other)?;
    count.fetch_add(u64::from(before.is_none()), Ordering::Relaxed);
    Ok(())
}

fn remove(tree: &sled::Tree, count: &AtomicU64, key: &[u8]) -> io::Result<()> {
    let before = tree.remove(key).map_err(io::Error::other)?;
    count.fetch_sub(u64::from(before.is_some()), Ordering::Relaxed);
    Ok(())
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
        index.put_manifest(&action, &manifest).unwrap();
        index.put_blob(&blob, &record).unwrap();
        index.flush().unwrap();
        drop(index);
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.manifest(&action), Some(manifest));
        assert_eq!(index.blobs().collect::<Vec<_>>(), [(blob, record)]);
        index.put_manifest(&action, &Manifest::default()).unwrap();
        assert_eq!(index.actions().count(), 0);
    }

    #[test]
    fn an_index_that_does_not_open_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (at, aside) = (dir.path().join("index"), dir.path().join("aside"));
        fs::create_dir_all(at.join("db")).unwrap();
        let (index, fresh) = Index::open_or_renew(&at, &aside).unwrap();
        assert!(fresh && aside.exists());
        assert_eq!(index.actions().count(), 0);
    }

    #[test]
    fn a_damaged_index_opens_with_less_or_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (at, aside) = (dir.path().join("index"), dir.path().join("aside"));
        let action = Digest::of(b"a");
        let manifest = Manifest { entries: vec![Entry { expectations: vec![], result: ActionResult::default() }] };
        for file in ["conf", "db"] {
            let index = Index::open_or_renew(&at, &aside).unwrap().0;
            index.put_manifest(&action, &manifest).unwrap();
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
