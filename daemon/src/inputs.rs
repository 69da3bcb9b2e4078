//! Inputs: digests of files on disk, remembered by the files' identity so that an unchanged file is read once.
//! Knows nothing of what the files are for.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use zcache_proto::Digest;

use crate::recent::Recent;
use crate::records::Records;

/// A file that changed this shortly before it was read may change again without its times showing it: two ticks of
/// the coarsest kernel clock.
const RACY: Duration = Duration::from_millis(20);

/// Most files whose digests are kept in memory: as many as the largest builds read. Two hash tables that are just full.
pub const FILES_MAX: usize = 2 * (7 << 12);
/// Most files that our own linking touched and that are kept in memory: what one build makes in a while.
const LINKED_MAX: usize = 2 * (7 << 10);

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970. Nobody can put it back.
    pub ctime_ns: i64,
}

impl Stamp {
    /// From what the kernel says.
    pub fn of(meta: &fs::Metadata) -> Self {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Which file it is a state of. Its earlier states never come again.
    pub fn file(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether they are the same but for the time of the last change, which a link moves as well.
    fn is_like(&self, other: &Self) -> bool {
        Self { ctime_ns: 0, ..*self } == Self { ctime_ns: 0, ..*other }
    }

    /// The file and its state, as keys for the index.
    pub fn keys(&self) -> ([u8; 16], [u8; 24]) {
        (joined([self.dev, self.ino]), joined([self.size, self.mtime_ns as u64, self.ctime_ns as u64]))
    }
}

fn joined<const PARTS: usize, const BYTES: usize>(parts: [u64; PARTS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes.chunks_exact_mut(8).zip(parts).for_each(|(slot, part)| slot.copy_from_slice(&part.to_be_bytes()));
    bytes
}

/// The clock that file systems stamp with, nanoseconds since 1970.
pub fn coarse_now_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Whether a change from now on would show in the times of what changed last at `changed_ns`.
pub fn has_settled(changed_ns: i64) -> bool {
    changed_ns < coarse_now_ns() - RACY.as_nanos() as i64
}

/// A path from its bytes.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Digests by file identity.
#[derive(Debug)]
pub struct Inputs {
    records: Records,
    recent: Mutex<Recent<(u64, u64), (Stamp, Digest)>>,
    /// Inodes whose change time our own linking moved: the stamp after, and the time at which the content was settled.
    linked: Mutex<Recent<(u64, u64), (Stamp, i64)>>,
}

impl Inputs {
    /// With what is on record.
    pub fn new(records: impl Into<Records>) -> Self {
        let (recent, linked) = (Mutex::new(Recent::new(FILES_MAX)), Mutex::new(Recent::new(LINKED_MAX)));
        Self { records: records.into(), recent, linked }
    }

    /// Digest of a regular file, and the state it was read in.
    pub fn digest(&self, at: &Path) -> io::Result<(Digest, Stamp)> {
        let meta = fs::metadata(at)?;
        let stamp = regular(&meta)?;
        if let Some(digest) = self.known(&stamp) {
            return Ok((digest, stamp));
        }
        let file = File::open(at)?;
        let before = regular(&file.metadata()?)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        let after = Stamp::of(&file.metadata()?);
        if before != after {
            return Err(io::Error::other("the file changed while it was read"));
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        self.remember(&after, digest);
        Ok((digest, after))
    }

    /// The digest of a file in this state, if it has been read.
    pub fn known(&self, stamp: &Stamp) -> Option<Digest> {
        if let Some((state, digest)) = lock(&self.recent).get(&stamp.file())
            && state == stamp
        {
            return Some(*digest);
        }
        let (file, state) = stamp.keys();
        let digest = self.records.get().memo(&file, &state)?;
        self.keep(stamp, digest);
        Some(digest)
    }

    /// Keeps a digest, unless the file changed too shortly before.
    pub fn remember(&self, stamp: &Stamp, digest: Digest) {
        if self.is_settled(stamp) {
            self.learn(stamp, digest);
        }
    }

    /// Keeps the digest of a file that a client has just restored, if it is as it was told to make it. Whoever wrote
    /// into it since has moved its time, which nobody else knows.
    pub fn vouch(&self, at: &Path, digest: Digest, size: u64, mtime_ns: i64) {
        let Ok(stamp) = fs::symlink_metadata(at).and_then(|meta| regular(&meta)) else { return };
        if (stamp.size, stamp.mtime_ns) == (size, mtime_ns) {
            self.learn(&stamp, digest);
        }
    }

    fn learn(&self, stamp: &Stamp, digest: Digest) {
        self.keep(stamp, digest);
        let (file, state) = stamp.keys();
        self.records.get().remember(&file, &state, digest);
    }

    fn keep(&self, stamp: &Stamp, digest: Digest) {
        lock(&self.recent).insert(stamp.file(), (*stamp, digest));
    }

    /// Whether a change from now on would show in the file's times.
    pub fn is_settled(&self, stamp: &Stamp) -> bool {
        has_settled(self.settled_ns(stamp))
    }

    /// The last time at which the content can have changed.
    pub fn settled_ns(&self, stamp: &Stamp) -> i64 {
        let mut linked = lock(&self.linked);
        let linked = linked.get(&stamp.file()).filter(|(state, _)| state == stamp);
        linked.map_or(stamp.mtime_ns.max(stamp.ctime_ns), |(_, settled)| *settled)
    }

    /// The digest of a file that was once in this state, and has not been changed since but by our own links: it may have
    /// been removed.
    pub fn recalled(&self, stamp: &Stamp) -> Option<Digest> {
        let (now, digest) = *lock(&self.recent).get(&stamp.file())?;
        // An earlier state tells nothing: an edit may have put back all but the time of the change.
        let is_later = now.is_like(stamp) && now.ctime_ns >= stamp.ctime_ns;
        (is_later && self.settled_ns(&now) <= self.settled_ns(stamp)).then_some(digest)
    }

    /// Notes that our own link to a file moved its change time and nothing else.
    pub fn note_link(&self, before: &Stamp, after: &Stamp) {
        if before == after || !before.is_like(after) {
            return;
        }
        let settled = self.settled_ns(before);
        lock(&self.linked).insert(after.file(), (*after, settled));
        if let Some(digest) = self.known(before) {
            self.remember(after, digest);
        }
    }
}

fn regular(meta: &fs::Metadata) -> io::Result<Stamp> {
    if meta.is_file() { Ok(Stamp::of(meta)) } else { Err(io::Error::other("not a regular file")) }
}

/// Locks, taking the data as it is where a thread died holding it: all of it is a cache.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;

    #[test]
    fn a_same_size_edit_with_the_time_put_back_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        std::thread::sleep(RACY * 3);
        let (first, stamp) = inputs.digest(&file).unwrap();
        assert_eq!(inputs.known(&stamp), Some(first));
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        assert_ne!(inputs.digest(&file).unwrap().0, first);
    }

    #[test]
    fn what_a_file_was_before_an_edit_with_the_time_put_back_is_not_recalled() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        std::thread::sleep(RACY * 3);
        let (first, before) = inputs.digest(&file).unwrap();
        fs::write(&file, "two").unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_nanos(before.mtime_ns as u64);
        File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        let after = Stamp::of(&fs::metadata(&file).unwrap());
        assert!(before.is_like(&after));
        assert_eq!((inputs.recalled(&before), inputs.recalled(&after)), (Some(first), None));
    }

    #[test]
    fn a_file_that_just_changed_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        let (_, stamp) = inputs.digest(&file).unwrap();
        assert_eq!(inputs.known(&stamp), None);
    }

    #[test]
    fn our_own_link_does_not_unsettle_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        let file = dir.path().join("f");
        fs::write(&file, "one").unwrap();
        let before = Stamp::of(&fs::metadata(&file).unwrap());
        std::thread::sleep(RACY);
        fs::hard_link(&file, dir.path().join("g")).unwrap();
        let after = Stamp::of(&fs::metadata(&file).unwrap());
        assert!(inputs.settled_ns(&after) > inputs.settled_ns(&before));
        inputs.note_link(&before, &after);
        assert_eq!(inputs.settled_ns(&after), inputs.settled_ns(&before));
    }

    #[test]
    fn only_regular_files_have_digests() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        assert!(inputs.digest(dir.path()).is_err());
        assert!(inputs.digest(Path::new("/dev/zero")).is_err());
    }
}
