//! Cas: blobs on disk, `cas/<2 hex>/<digest>`, entered by link or copy and rename, never edited. Knows their bytes
//! and nothing of what they mean. The directory is private to the user.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use zcache_proto::Digest;

use crate::failpoint::{self, Point};
use crate::inputs::Stamp;
use crate::opaque::{Look, look};
use crate::template::names_root;

/// An output no longer than this is copied while the client waits; a link to it would be made, copied and removed, bytes.
const SMALL: u64 = 128 << 10;

/// The blobs of one store.
#[derive(Debug)]
pub struct Cas {
    dir: PathBuf,
    next: AtomicU64,
    /// Whether the store's file system may share blocks between files: until it says that it cannot.
    clones: AtomicBool,
}

/// A file in the store's `tmp/`, removed when dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An output that is safe in the store's `tmp/`, not hashed yet.
#[derive(Debug)]
pub struct Held {
    at: Temporary,
    /// The output's state when it was taken.
    pub taken: Stamp,
    /// Whether `at` may become a blob as it is: a copy, or a link to what nobody writes into.
    is_own: bool,
    /// Whether an output may share the blob that comes of it.
    pub lent: bool,
    copied: Option<Temporary>,
}

impl Held {
    fn path(&self) -> &Path {
        &self.copied.as_ref().unwrap_or(&self.at).0
    }

    /// Fails where the output was written into since it was taken. cargo puts the times of what it asked for back to
    /// when it asked, so an earlier time is no change.
    fn check(&self) -> io::Result<()> {
        let now = Stamp::of(&fs::metadata(&self.at.0)?);
        let is_link = now.file() == self.taken.file();
        let unchanged = now.size == self.taken.size && (now.mtime_ns <= self.taken.mtime_ns || !is_link);
        if unchanged { Ok(()) } else { Err(io::Error::other("the output changed while it was stored")) }
    }
}

/// What reading a held output found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Its name in the CAS.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// For each needle, whether the bytes contain it.
    pub found: Vec<bool>,
}

impl Cas {
    /// Opens the blobs below `dir`, and removes what an earlier daemon left unfinished.
    pub fn open(dir: &Path) -> io::Result<Self> {
        for name in ["cas", "tmp", "quarantine"] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir.join(name))?;
        }
        for entry in fs::read_dir(dir.join("tmp"))?.flatten() {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
        Ok(Self::at(dir))
    }

    /// The blobs below `dir`, as they are.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), next: AtomicU64::new(0), clones: AtomicBool::new(true) }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join("cas").join(&hex[..2]).join(hex)
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join("tmp").join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes `output` safe from being replaced. `link`: whoever made it replaces it and never writes into it.
    pub fn hold(&self, output: &Path, link: bool) -> io::Result<Held> {
        let at = Temporary(self.temporary());
        let before = Stamp::of(&fs::symlink_metadata(output)?);
        let own = |at, taken| Held { at, taken, is_own: true, lent: link, copied: None };
        if !link && (self.clone(output, &at.0).is_ok() || before.size <= SMALL && self.copy(output, &at.0).is_ok()) {
            let same = Stamp::of(&fs::symlink_metadata(output)?) == before;
            return if same { Ok(own(at, before)) } else { Err(io::Error::other("changed meanwhile")) };
        }
        failpoint::reached(Point::BeforeHold);
        if fs::hard_link(output, &at.0).is_ok() {
            failpoint::reached(Point::AfterHold);
            let taken = Stamp::of(&fs::symlink_metadata(&at.0)?);
            let same = taken.ino == before.ino;
            let held = Held { at, taken, is_own: link, lent: link, copied: None };
            return if same { Ok(held) } else { Err(io::Error::other("replaced meanwhile")) };
        }
        self.copy(output, &at.0)?;
        Ok(own(at, before))
    }

    /// A copy that shares the blocks, where the file system can.
    fn clone(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.clones.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let source = File::open(from)?;
        let target = File::options().write(true).create_new(true).open(to)?;
        // SAFETY: both descriptors are open for the whole call; FICLONE takes the source's as its argument.
        let cloned = unsafe { ficlone(target.as_raw_fd(), source.as_raw_fd() as u64) };
        cloned.map(drop).map_err(|errno| {
            self.clones.fetch_and(errno != Errno::EOPNOTSUPP, Ordering::Relaxed);
            let _ = fs::remove_file(to);
            errno.into()
        })
    }

    /// A copy that is whole when this returns: a file system may report a failed write only now.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.clone(from, to).is_ok() {
            return Ok(());
        }
        let mut target = File::options().write(true).create_new(true).open(to)?;
        failpoint::reached(Point::CopyBegun);
        let copied = io::copy(&mut File::open(from)?, &mut target);
        failpoint::reached(Point::CopyEnded);
        let closed = copied.and_then(|_| Ok(nix::unistd::close(target)?));
        closed.inspect_err(|_| {
            let _ = fs::remove_file(to);
        })
    }

    /// Makes a held link a copy of its own, where the output may be written into. The link stays until it is adopted.
    pub fn separate(&self, held: &mut Held) -> io::Result<()> {
        if held.copied.is_some() || held.is_own {
            return Ok(());
        }
        let copied = Temporary(self.temporary());
        self.copy(&held.at.0, &copied.0)?;
        held.check()?;
        held.copied = Some(copied);
        Ok(())
    }

    /// Reads a held output: its digest, and which of `needles` it contains.
    pub fn scan(&self, held: &Held, needles: &[&[u8]]) -> io::Result<Scanned> {
        let scanned = scan(&mut File::open(held.path())?, needles)?;
        held.check()?;
        Ok(scanned)
    }

    /// What the format of a held output tells.
    pub fn look(&self, held: &Held) -> io::Result<Look> {
        look(held.path())
    }

    /// Makes a scanned output a blob, in place of whatever lies there, unless that is `known` to be the blob. Returns the
    /// blob's modification time.
    pub fn adopt(&self, held: Held, digest: &Digest, known: bool) -> io::Result<i64> {
        let path = self.path(digest);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        failpoint::reached(Point::BeforeRename);
        if !known || !path.exists() {
            if path.is_dir() {
                fs::remove_dir_all(&path)?;
            }
            fs::rename(held.path(), &path)?;
        }
        failpoint::reached(Point::AfterRename);
        drop(held);
        Ok(Stamp::of(&fs::metadata(&path)?).mtime_ns)
    }

    /// The blob's state on disk.
    pub fn stamp(&self, digest: &Digest) -> io::Result<Stamp> {
        let meta = fs::symlink_metadata(self.path(digest))?;
        if meta.is_file() { Ok(Stamp::of(&meta)) } else { Err(io::Error::other("a blob is a regular file")) }
    }

    /// Whether the blob's bytes are what its name says.
    pub fn verify(&self, digest: &Digest) -> io::Result<bool> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(self.path(digest))?)?;
        Ok(hasher.finalize().as_bytes() == &digest.0)
    }

    /// Moves a damaged blob aside.
    pub fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        fs::rename(self.path(digest), self.dir.join("quarantine").join(digest.hex()))
    }

    /// Removes a blob; one that is not there is as good as removed.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every blob with its length and modification time.
    pub fn list(&self) -> io::Result<Vec<(Digest, Stamp)>> {
        let mut blobs = Vec::new();
        for shard in fs::read_dir(self.dir.join("cas"))?.flatten() {
            for blob in fs::read_dir(shard.path()).into_iter().flatten().flatten() {
                let digest = blob.file_name().to_str().and_then(Digest::from_hex);
                if let (Some(digest), Ok(meta)) = (digest, blob.metadata()) {
                    blobs.push((digest, Stamp::of(&meta)));
                }
            }
        }
        Ok(blobs)
    }
}

/// Digest, length and needles of a file in one reading.
fn scan(file: &mut File, needles: &[&[u8]]) -> io::Result<Scanned> {
    const CHUNK: usize = 1 << 20;
    let overlap = needles.iter().map(|needle| needle.len()).max().unwrap_or(0).saturating_sub(1);
    // Most outputs are small, and a buffer has to be cleared.
    let chunk = CHUNK.min(file.metadata()?.len() as usize + 1);
    let mut buffer = vec![0; overlap + chunk];
    let mut kept = 0;
    let mut hasher = blake3::Hasher::new();
    let mut scanned = Scanned { digest: Digest([0; 32]), size: 0, found: vec![false; needles.len()] };
    loop {
        let read = file.read(&mut buffer[kept..kept + chunk])?;
        if read == 0 {
            break;
        }
        let end = kept + read;
        hasher.update(&buffer[kept..end]);
        scanned.size += read as u64;
        for (found, needle) in scanned.found.iter_mut().zip(needles) {
            *found = *found || names_root(&buffer[..end], needle);
        }
        kept = overlap.min(end);
        buffer.copy_within(end - kept..end, 0);
    }
    scanned.digest = Digest(*hasher.finalize().as_bytes());
    Ok(scanned)
}

nix::ioctl_write_int!(ficlone, 0x94, 9);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_across_chunks_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let mut bytes = vec![b'x'; (1 << 20) - 3];
        bytes.extend(b"/a/ws/src");
        bytes.resize(3 << 20, b'y');
        fs::write(&file, &bytes).unwrap();
        let scanned = scan(&mut File::open(&file).unwrap(), &[b"/a/ws", b"/b/ws"]).unwrap();
        assert_eq!(scanned, Scanned { digest: Digest::of(&bytes), size: 3 << 20, found: vec![true, false] });
    }

    #[test]
    fn an_output_written_into_after_it_was_taken_never_becomes_a_blob() {
        let dir = tempfile::tempdir().unwrap();
        let cas = Cas::open(&dir.path().join("store")).unwrap();
        let output = dir.path().join("x");
        fs::write(&output, "whole").unwrap();
        let mut held = cas.hold(&output, false).unwrap();
        if !held.is_own {
            fs::write(&output, "stripped").unwrap();
            assert!(cas.separate(&mut held).is_err());
        }
        drop(held);
        let mut held = cas.hold(&output, false).unwrap();
        cas.separate(&mut held).unwrap();
        let digest = cas.scan(&held, &[]).unwrap().digest;
        cas.adopt(held, &digest, false).unwrap();
        fs::write(&output, "edited!!").unwrap();
        assert!(cas.verify(&digest).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_noticed_and_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let cas = Cas::open(dir.path()).unwrap();
        let output = dir.path().join("x");
        fs::write(&output, "whole").unwrap();
        let held = cas.hold(&output, true).unwrap();
        let digest = cas.scan(&held, &[]).unwrap().digest;
        cas.adopt(held, &digest, false).unwrap();
        fs::write(cas.path(&digest), "wrong").unwrap();
        assert!(!cas.verify(&digest).unwrap());
        cas.quarantine(&digest).unwrap();
        assert!(cas.stamp(&digest).is_err());
        assert_eq!(cas.list().unwrap().len(), 0);
    }
}
