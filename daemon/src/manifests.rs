//! Manifests: what is known of each action on disk, a file each. In a database, whose pages hold many values however long
//! they are, the thousands of a large build would all be in memory. One that is not as it was written is as good as absent.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zcache_proto::Digest;

use crate::manifest::Manifest;
use crate::packed::{PACKED_MAX, unpack};

/// Where a file is until it is whole.
const UNFINISHED: &str = "unfinished";
/// Length of what a file begins with: a digest of the action and of what follows.
const SEAL: usize = 32;

/// The manifests of one index.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    next: AtomicU64,
}

impl Manifests {
    /// Those below `dir`. What an earlier daemon left unfinished goes.
    pub fn open(dir: PathBuf) -> Self {
        let _ = fs::remove_dir_all(dir.join(UNFINISHED));
        Self { dir, next: AtomicU64::new(0) }
    }

    fn path(&self, action: &Digest) -> PathBuf {
        let hex = action.hex();
        self.dir.join(&hex[..2]).join(hex)
    }

    /// What is known of an action.
    pub fn get(&self, action: &Digest) -> Option<Manifest> {
        let path = self.path(action);
        fs::symlink_metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() <= PACKED_MAX)?;
        let bytes = fs::read(path).ok()?;
        let (found, packed) = bytes.split_at_checked(SEAL)?;
        if found == seal(action, packed).0 { unpack(packed) } else { None }
    }

    /// Replaces what is known of an action.
    pub fn put(&self, action: &Digest, packed: &[u8]) -> io::Result<()> {
        let (path, unfinished) = (self.path(action), self.dir.join(UNFINISHED));
        let new = unfinished.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let make = |dir: &Path| DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make(&unfinished)?;
        path.parent().map_or(Ok(()), make)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file.write_all(&seal(action, packed).0).and_then(|()| file.write_all(packed));
        // A file system may report a failed write only now.
        let written = written.and_then(|()| Ok(nix::unistd::close(file)?));
        // Something else may be in its place.
        let free = || if path.is_dir() { fs::remove_dir_all(&path) } else { Ok(()) };
        written.and_then(|()| free()).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Forgets an action; one that is not known is as good as forgotten.
    pub fn remove(&self, action: &Digest) -> io::Result<()> {
        let path = self.path(action);
        unless_absent(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) })
    }

    /// Forgets all.
    pub fn clear(&self) -> io::Result<()> {
        unless_absent(fs::remove_dir_all(&self.dir))
    }

    /// Every action of which something is known.
    pub fn list(&self) -> impl Iterator<Item = Digest> {
        let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let all = names(self.dir.clone()).flat_map(move |shard| names(shard.path()));
        all.filter_map(|file| Digest::from_hex(file.file_name().to_str()?))
    }
}

/// Binds a manifest to its action: a file in another one's place is no manifest of that.
fn seal(action: &Digest, packed: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&action.0).update(packed);
    Digest(*hasher.finalize().as_bytes())
}

fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ActionResult, Entry};
    use crate::packed::pack;

    fn known() -> (Manifest, Vec<u8>) {
        let result = ActionResult { duration_ms: 7, ..ActionResult::default() };
        let manifest = Manifest { entries: vec![Entry { expectations: vec![], result }] };
        let packed = pack(&manifest).unwrap();
        (manifest, packed)
    }

    #[test]
    fn what_is_not_as_it_was_written_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = Manifests::open(dir.path().join("manifests"));
        let (manifest, packed) = known();
        let (action, other) = (Digest::of(b"a"), Digest::of(b"b"));
        manifests.put(&action, &packed).unwrap();
        assert_eq!((manifests.get(&action), manifests.get(&other)), (Some(manifest), None));
        let whole = fs::read(manifests.path(&action)).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(manifests.path(&action), bad).unwrap();
            assert_eq!(manifests.get(&action), None, "byte {at}");
            fs::write(manifests.path(&action), &whole[..at]).unwrap();
            assert_eq!(manifests.get(&action), None, "cut at {at}");
        }
        fs::create_dir_all(manifests.path(&other).parent().unwrap()).unwrap();
        fs::write(manifests.path(&other), whole).unwrap();
        assert_eq!(manifests.get(&other), None, "it is another one's");
    }

    #[test]
    fn they_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let manifests = Manifests::open(dir.path().join("manifests"));
        let (_, packed) = known();
        let actions = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        actions.iter().for_each(|action| manifests.put(action, &packed).unwrap());
        manifests.remove(&actions[0]).unwrap();
        manifests.remove(&actions[0]).unwrap();
        let listed: std::collections::HashSet<_> = manifests.list().collect();
        assert_eq!(listed, actions[1..].iter().copied().collect());
        manifests.clear().unwrap();
        manifests.clear().unwrap();
        assert_eq!(manifests.list().count(), 0);
    }
}
