//! Records: the index as the daemon holds it. One that cannot be written is read on, and opened again when there is
//! hope; where it cannot be opened at all, a copy stands in for it. Knows no sled and nothing of what is recorded.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::index::Index;
use crate::inputs::lock;
use crate::process::Process;

/// An index that failed is not opened again before this long; twice that when it fails again, and so on.
const PAUSE: Duration = Duration::from_secs(5);
/// At most this many times twice as long.
const DOUBLINGS: u32 = 6;
/// An index that is given up may take this long to close.
const CLOSING: Duration = Duration::from_secs(2);
/// What the names of scratch directories begin with; the process's number follows.
const SCRATCH: &str = "zcache-index-";

/// The index of a store, shared.
#[derive(Debug, Clone)]
pub struct Records(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: RwLock<Index>,
    /// Where it is and where a damaged one goes; none where it stays what it is.
    place: Option<(PathBuf, PathBuf)>,
    failure: Mutex<Failure>,
}

#[derive(Debug, Default)]
struct Failure {
    /// Since when, and why, nothing can be recorded.
    now: Option<(Instant, String)>,
    count: u32,
}

impl From<Index> for Records {
    fn from(index: Index) -> Self {
        Self(Arc::new(Shared { current: RwLock::new(index), place: None, failure: Mutex::default() }))
    }
}

impl Records {
    /// The index at `dir`, or, where the disk does not let it be opened, a copy until it does. Says whether it is new.
    pub fn open(dir: &Path, aside: &Path) -> io::Result<(Self, bool)> {
        let (index, fresh, failure) = match Index::open_or_renew(dir, aside) {
            Ok((index, fresh)) => (index, fresh, Failure::default()),
            Err(error) => {
                tracing::error!(%error, "the index cannot be opened: it is read, and nothing is stored until it can");
                (stand_in(Some(dir))?, false, Failure { now: Some((Instant::now(), error.to_string())), count: 1 })
            }
        };
        let place = Some((dir.to_owned(), aside.to_owned()));
        let shared = Shared { current: RwLock::new(index), place, failure: Mutex::new(failure) };
        Ok((Self(Arc::new(shared)), fresh))
    }

    /// A copy of the index at `dir`, which cannot be written, or an empty one. What is recorded in it ends with the daemon.
    pub fn copy(dir: Option<&Path>) -> io::Result<Self> {
        stand_in(dir).map(Self::from)
    }

    /// The index as it is now.
    pub fn get(&self) -> Index {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nothing can be recorded.
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.failure).now.as_ref().map(|(_, why)| why.clone())
    }

    /// Notices that the index failed, and opens it again where `has_room` and some time has passed. Where it did,
    /// says whether it is a new one.
    pub fn tend(&self, has_room: bool) -> Option<bool> {
        let Some((dir, aside)) = &self.0.place else { return None };
        let Some((since, why)) = lock(&self.0.failure).now.clone() else {
            if let Err(error) = self.get().flush() {
                tracing::error!(%error, "the index cannot be written: nothing is stored until it can");
                let mut failure = lock(&self.0.failure);
                *failure = Failure { now: Some((Instant::now(), error.to_string())), count: failure.count + 1 };
            }
            return None;
        };
        let pause = PAUSE * 2u32.pow(lock(&self.0.failure).count.saturating_sub(1).min(DOUBLINGS));
        if !has_room || since.elapsed() < pause {
            return None;
        }
        match self.renew(dir, aside) {
            Ok(fresh) => {
                tracing::info!("the index is open again");
                lock(&self.0.failure).now = None;
                Some(fresh)
            }
            Err(error) => {
                let error = error.to_string();
                if error != why {
                    tracing::warn!(error, "the index does not open yet");
                }
                let mut failure = lock(&self.0.failure);
                *failure = Failure { now: Some((Instant::now(), error)), count: failure.count + 1 };
                None
            }
        }
    }

    /// Closes the index, which nobody else can open before, and opens it again. A copy answers meanwhile.
    fn renew(&self, dir: &Path, aside: &Path) -> io::Result<bool> {
        let failed = self.swap(stand_in(Some(dir))?);
        let (closed, closing) = mpsc::channel();
        thread::Builder::new().name("close".into()).spawn(move || {
            drop(failed);
            let _ = closed.send(());
        })?;
        let _ = closing.recv_timeout(CLOSING);
        let (index, fresh) = Index::open_or_renew(dir, aside)?;
        drop(self.swap(index));
        Ok(fresh)
    }

    fn swap(&self, index: Index) -> Index {
        std::mem::replace(&mut *self.0.current.write().unwrap_or_else(PoisonError::into_inner), index)
    }
}

/// A copy of the index at `dir` in a directory of its own, empty where there is nothing to copy, no room for it or
/// where it is damaged.
fn stand_in(dir: Option<&Path>) -> io::Result<Index> {
    let to = scratch()?;
    let copied = dir.map_or(Ok(()), |dir| copy_all(dir, &to)).and_then(|()| Index::scratch(&to));
    copied.or_else(|error| {
        tracing::debug!(%error, "the index cannot be copied");
        let _ = fs::remove_dir_all(&to);
        Index::scratch(&scratch()?)
    })
}

/// A new directory that nobody else can have made. Those of processes that were killed are removed.
fn scratch() -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let above = std::env::temp_dir();
    for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(SCRATCH)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| Process::get(pid).is_none_or(|process| !process.is_alive())) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = above.join(format!("{SCRATCH}{}-{number}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let (entry, at) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        match fs::symlink_metadata(&entry)? {
            meta if meta.is_dir() => {
                DirBuilder::new().mode(0o700).create(&at)?;
                copy_all(&entry, &at)?;
            }
            meta if meta.is_file() => drop(fs::copy(&entry, &at)?),
            _ => {}
        }
    }
    Ok(())
}
