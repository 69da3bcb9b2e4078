//! Premises: the directory of a store before anything is read from it. Private, its entries what they should be rather
//! than links that lead elsewhere, held by one process, and whether there is room to write. Knows no blob and no record.

use std::fs::{self, DirBuilder, File, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};
use zcache_proto::private::{self, NotPrivate, Others};

use crate::address;
use crate::refusal::Refusal;

/// Nothing is stored while there are fewer bytes free: others need them, and the index must not meet the end of the
/// disk in the middle of a write.
const ROOM: u64 = 16 << 20;

/// Whether a store can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Room {
    /// It can.
    Free,
    /// Its disk is as good as full.
    Short,
    /// Its file system is read-only.
    ReadOnly,
}

impl Room {
    /// Of the file system that has `dir`.
    pub fn of(dir: &Path) -> Self {
        // One that does not say is tried.
        let Ok(state) = statvfs(dir) else { return Self::Free };
        let free = state.blocks_available().saturating_mul(state.fragment_size());
        let no_inodes = state.files() > 0 && state.files_available() == 0;
        match () {
            () if state.flags().contains(FsFlags::ST_RDONLY) => Self::ReadOnly,
            () if free < ROOM || no_inodes => Self::Short,
            () => Self::Free,
        }
    }

    /// Why nothing is stored.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Free => None,
            Self::Short => Some(Refusal::StoreFull),
            Self::ReadOnly => Some(Refusal::StoreReadOnly),
        }
    }

    fn from(number: u8) -> Self {
        [Self::Free, Self::Short, Self::ReadOnly].into_iter().find(|room| *room as u8 == number).unwrap_or(Self::Free)
    }
}

/// The directory of a store, held.
#[derive(Debug)]
pub struct Premises {
    dir: PathBuf,
    /// Whether it could not be written when it was opened: it is read for good, beside others who may read it too.
    pub read_only: bool,
    room: AtomicU8,
    _lock: Option<Flock<File>>,
}

impl Premises {
    /// Enters `dir`, made where it is not there. Fails with `EWOULDBLOCK` where another process has it.
    pub fn enter(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let room = Room::of(dir);
        let lock = match room {
            Room::ReadOnly => read_lock(dir)?,
            _ => Some(write_lock(dir)?),
        };
        if room != Room::ReadOnly {
            tidy(dir)?;
        }
        let room_now = AtomicU8::new(room as u8);
        Ok(Self { dir: dir.to_owned(), read_only: room == Room::ReadOnly, room: room_now, _lock: lock })
    }

    /// Whether the store can be written, as last seen.
    pub fn room(&self) -> Room {
        if self.read_only { Room::ReadOnly } else { Room::from(self.room.load(Ordering::Relaxed)) }
    }

    /// Looks again, and says so where it is otherwise than before.
    pub fn look(&self) {
        let now = Room::of(&self.dir);
        if Room::from(self.room.swap(now as u8, Ordering::Relaxed)) != now {
            match now {
                Room::Free => tracing::info!("the store can be written again"),
                Room::Short => tracing::warn!("the store's disk is full: hits are served, nothing is stored"),
                Room::ReadOnly => tracing::warn!("the store is read-only: hits are served, nothing is stored"),
            }
        }
    }

    /// Whether it was entered read-only and can now be written: a new daemon would do better.
    pub fn is_outgrown(&self) -> bool {
        self.read_only && Room::from(self.room.load(Ordering::Relaxed)) != Room::ReadOnly
    }
}

/// What of the store at `dir` another user has put there, if anything: the directory, a link to it, or an entry.
pub fn foreign(dir: &Path) -> io::Result<Option<PathBuf>> {
    let uid = nix::unistd::getuid().as_raw();
    let is_foreign = |meta: &fs::Metadata| meta.uid() != uid;
    let own = match fs::symlink_metadata(dir) {
        // Who called sudo could not use it later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let intrudes = private::sudo_intrudes(dir, |name| std::env::var_os(name));
            return Ok(intrudes.map(|_| dir.to_owned()));
        }
        meta => meta?,
    };
    if is_foreign(&own) || is_foreign(&fs::metadata(dir)?) {
        return Ok(Some(dir.to_owned()));
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if is_foreign(&entry.metadata()?) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn write_lock(dir: &Path) -> io::Result<Flock<File>> {
    let (at, quarantine) = (dir.join("LOCK"), dir.join("quarantine"));
    if fs::symlink_metadata(&quarantine).is_ok_and(|meta| !meta.is_dir()) {
        fs::remove_file(&quarantine)?;
    }
    set_strange_aside(dir, Path::new("LOCK"), FileType::is_file)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(at)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Others may read with us; where there is no lock, nobody ever wrote.
fn read_lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(dir.join("LOCK")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).map(Some).map_err(|(_, errno)| errno.into()),
    }
}

/// Whether a failure to enter means that another process is there.
pub fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EWOULDBLOCK as i32)
}

/// Makes the directory private and every entry what it should be.
fn tidy(dir: &Path) -> io::Result<()> {
    // The way to it may be a link of the user's own.
    let own = fs::canonicalize(dir)?;
    if let Err(NotPrivate::Open { .. }) = private::check(&own, Others::Nothing) {
        // A file system without permissions refuses this, or only says that it is done.
        let _ = fs::set_permissions(&own, Permissions::from_mode(0o700));
        if private::check(&own, Others::Look).is_err() {
            let why = "others can write there, and its file system keeps no permissions; set ZCACHE_DIR to another one";
            return Err(io::Error::other(why));
        }
    }
    for name in ["cas", "tmp", "index"] {
        set_strange_aside(dir, Path::new(name), FileType::is_dir)?;
    }
    for name in ["FORMAT", "FORMAT.new", address::NAME, address::UNFINISHED] {
        set_strange_aside(dir, Path::new(name), FileType::is_file)?;
    }
    if !is_plain(&dir.join("index")) {
        set_aside(dir, Path::new("index"))?;
    }
    for shard in fs::read_dir(dir.join("cas")).into_iter().flatten().flatten() {
        set_strange_aside(dir, &Path::new("cas").join(shard.file_name()), FileType::is_dir)?;
    }
    Ok(())
}

/// Whether there are only files and directories below `dir`: whoever opens them follows no link.
fn is_plain(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_type(), entry.path())).all(|(kind, at)| match kind {
        Ok(kind) if kind.is_dir() => is_plain(&at),
        Ok(kind) => kind.is_file(),
        Err(_) => false,
    })
}

/// Moves an entry to quarantine that is there and not what it should be. A link goes as a link.
fn set_strange_aside(dir: &Path, name: &Path, is_right: impl Fn(&FileType) -> bool) -> io::Result<()> {
    match fs::symlink_metadata(dir.join(name)) {
        Ok(meta) if !is_right(&meta.file_type()) => set_aside(dir, name),
        _ => Ok(()),
    }
}

fn set_aside(dir: &Path, name: &Path) -> io::Result<()> {
    let at = dir.join(name);
    tracing::warn!(at = %at.display(), "this is not what a store has there: moved to quarantine");
    let quarantine = dir.join("quarantine");
    DirBuilder::new().recursive(true).mode(0o700).create(&quarantine)?;
    let aside = quarantine.join(name.file_name().unwrap_or_default());
    let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir_all(&aside));
    fs::rename(&at, &aside)
}
