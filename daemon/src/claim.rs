//! Claim: what a daemon has to have before it serves, and gets or leaves to another: the lock of its socket, the store and
//! the socket itself. Knows nothing of what is served.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private::NotPrivate;

use crate::address;
use crate::config::Config;
use crate::failpoint::{self, Point};
use crate::server::variable;
use crate::store::{OpenError, Store};

/// How long to wait for an earlier daemon of this socket to finish.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// How long a daemon that holds the store may take to say where it serves. A client waits no longer for its own.
const COMING_UP: Duration = Duration::from_millis(600);
/// Whoever only looks whether there is a daemon holds the lock no longer than this.
const MOMENTARY: Duration = Duration::from_millis(100);

/// What started the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// systemd handed over the socket.
    Systemd,
    /// A client that found none.
    Client,
    /// A person.
    Manual,
}

impl Activation {
    /// For the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Client => "client",
            Self::Manual => "manual",
        }
    }
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket has a daemon. No error: whoever asks for one has one.
    #[error("a daemon is already running on {0}")]
    AlreadyRunning(String),
    /// The directory of the socket is not the user's own.
    #[error(transparent)]
    Place(#[from] NotPrivate),
    /// Something else is where the socket should be.
    #[error("{0} is not a socket; remove it, or set ZCACHE_SOCKET to another path")]
    NotASocket(String),
    /// The store has a daemon.
    #[error(
        "the store {} is in use by another daemon, at {socket}; stop it, or set ZCACHE_DIR to another directory",
        dir.display()
    )]
    Served {
        /// The store.
        dir: PathBuf,
        /// Where.
        socket: String,
    },
    /// It has one that does its clients no good.
    #[error(
        "the store {} is in use by another daemon, whose socket {socket} cannot be reached from here ({why}); stop it, \
         or set ZCACHE_DIR to another directory",
        dir.display()
    )]
    OutOfReach {
        /// The store.
        dir: PathBuf,
        /// Where it says that it is.
        socket: String,
        /// Why not.
        why: String,
    },
    /// The store says no.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The store; none where another daemon serves it and this one's clients now find that. One that is about to come up or
/// on its way out is waited for.
pub async fn open(config: &Config, endpoint: &Endpoint, activation: Activation) -> Result<Option<Store>, ServeError> {
    let (until, soon) = (Instant::now() + TAKE_OVER, Instant::now() + COMING_UP);
    loop {
        let error = match Store::open(&config.dir, config.max_size) {
            Err(error @ OpenError::InUse(_)) => error,
            opened => return Ok(Some(opened?)),
        };
        if let Some(socket) = address::of(&config.dir) {
            let (dir, name) = (config.dir.clone(), socket.display().to_string());
            match address::reach(&socket).await {
                Ok(pid) if variable("LISTEN_FDS").is_some() => address::end(pid),
                Ok(_) if activation == Activation::Client => {
                    address::lead(&endpoint.socket, &socket)?;
                    tracing::info!(socket = name, "the store has a daemon: clients of this socket are led there");
                    return Ok(None);
                }
                Ok(_) => return Err(ServeError::Served { dir, socket: name }),
                // A killed one may have left it, and the next has not said yet where it is.
                Err(why) if Instant::now() >= soon => return Err(ServeError::OutOfReach { dir, socket: name, why }),
                Err(_) => {}
            }
        }
        if Instant::now() >= until {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The socket from systemd, or a new one in place of a dead daemon's.
pub fn listen(endpoint: &Endpoint, activation: Activation) -> Result<(UnixListener, Activation), ServeError> {
    if let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0)? {
        listener.set_nonblocking(true)?;
        return Ok((UnixListener::from_std(listener)?, Activation::Systemd));
    }
    match fs::symlink_metadata(&endpoint.socket) {
        Ok(meta) if !meta.file_type().is_socket() && !meta.is_symlink() => {
            return Err(ServeError::NotASocket(endpoint.socket.display().to_string()));
        }
        // The lock is ours, so whoever bound it is gone; and so is whoever it leads to, for the store is ours.
        Ok(_) => fs::remove_file(&endpoint.socket)?,
        Err(_) => {}
    }
    let listener = StdListener::bind(&endpoint.socket)?;
    failpoint::reached(Point::Bound);
    fs::set_permissions(&endpoint.socket, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, activation))
}

/// The lock of this socket; none while another daemon serves it. One that is on its way out is waited for.
pub async fn take_lock(at: &Path) -> io::Result<Option<Flock<File>>> {
    let (until, momentary) = (Instant::now() + TAKE_OVER, Instant::now() + MOMENTARY);
    loop {
        let file = File::options().create(true).append(true).open(at)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err(_) if Instant::now() < momentary || (Instant::now() < until && !at.with_extension("sock").exists()) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Which file is at the path, if any.
pub fn identity(at: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(at).map(|meta| (meta.dev(), meta.ino())).ok()
}
