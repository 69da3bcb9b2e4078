//! Start: brings a daemon up for a client that found none. One client of many starts it, the others wait for that
//! one; the daemon inherits nothing of the build.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private;

use crate::limits;
use crate::session::{Session, SessionError};
use crate::trouble::Trouble;

/// How long a build's first compile may wait for a daemon to come up.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long a person may wait for it.
const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may sleep between looks for the daemon that another one starts.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often a daemon is started that ends before it serves.
const TRIES: u32 = 3;
/// A log longer than this is begun anew, bytes.
const LOG_MAX: u64 = 10 << 20;

/// What the daemon gets of the environment: where things are and what the user set for zcache.
const KEPT: &[&str] = &[
    "HOME",
    "LANG",
    "PATH",
    "SUDO_UID",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "ZCACHE_DIR",
    "ZCACHE_LOG",
    "ZCACHE_MAX_SIZE",
    "ZCACHE_SOCKET",
];

/// Who asks for the daemon: that decides how long it is waited for, and whether it leaves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A compile, which waits as little as possible. The daemon leaves when nobody needs it any more.
    Client,
    /// A person's build, `zcache run`: it waits, and the daemon leaves as well.
    Build,
    /// A person: the daemon stays until it is told to go.
    Person,
}

impl By {
    fn patience(self) -> Duration {
        match self {
            Self::Client => PATIENCE,
            Self::Build | Self::Person => LONG_PATIENCE,
        }
    }

    fn activation(self) -> &'static str {
        match self {
            Self::Client | Self::Build => "client",
            Self::Person => "manual",
        }
    }
}

/// Connects to the daemon at `endpoint`, starting it where there is none.
pub fn connect_or_start(endpoint: &Endpoint, by: By) -> Result<Session, SessionError> {
    match Session::connect(endpoint) {
        Err(SessionError::Absent) => {}
        answer => return answer,
    }
    let until = Instant::now() + by.patience();
    let lost = |error: io::Error| SessionError::Lost(error.to_string());
    private::make(endpoint.dir()).map_err(SessionError::of_place)?;
    // It would inherit the limits.
    if by == By::Client && limits::are_tight() {
        return Err(SessionError::Trouble(Trouble::Tight));
    }
    let mut tries = 1;
    loop {
        let turn = take_turn(endpoint, until).map_err(lost)?;
        match Session::connect(endpoint) {
            Err(SessionError::Absent) => {}
            answer => return answer,
        }
        if turn.is_none() || Instant::now() >= until {
            return Err(SessionError::Trouble(Trouble::Unstartable));
        }
        match start(endpoint, by, until) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SessionError::NotInstalled),
            // It was killed before it served, or it has a reason, which it will have again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && tries < TRIES => {}
            Err(_) => return Err(SessionError::Trouble(Trouble::Unstartable)),
        }
        tries += 1;
        match Session::connect(endpoint) {
            // An older daemon was just leaving: its lock made the new one leave as well.
            Err(SessionError::Absent) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            answer => return answer,
        }
    }
}

/// Whether a client runs above this process, whatever the environment says.
pub fn is_nested() -> bool {
    let identity = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let this = identity("/proc/self/exe");
    let mut pid = nix::unistd::getppid().as_raw();
    for _ in 0..256 {
        if pid <= 1 {
            return false;
        }
        if this.is_some() && identity(&format!("/proc/{pid}/exe")) == this {
            return true;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    false
}

/// The right to start the daemon; none where another client has it for too long.
fn take_turn(endpoint: &Endpoint, until: Instant) -> io::Result<Option<Flock<File>>> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(endpoint.starting())?;
    let mut pause = Duration::from_millis(3);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, _)) if Instant::now() >= until => return Ok(None),
            Err((back, _)) => file = back,
        }
        if Session::connect(endpoint).is_ok() {
            return Ok(None);
        }
        std::thread::sleep(pause);
        // A hundred that look all the time would leave no processor to the daemon that they wait for.
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Starts the daemon and waits until it serves.
fn start(endpoint: &Endpoint, by: By, until: Instant) -> io::Result<()> {
    let (ready, tell) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut command = Command::new(daemon_program()?);
    command.args(["--activation", by.activation()]);
    command.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::from(tell)).stderr(log(endpoint)?);
    // SAFETY: between fork and exec only system calls are made, and no memory is allocated.
    unsafe { command.pre_exec(detach) };
    command.spawn()?.wait()?;
    drop(command);
    wait_for(ready, until)
}

/// Makes the process nobody's child and nobody's terminal's, and gives it no descriptor but the standard ones.
fn detach() -> io::Result<()> {
    const CLOEXEC: nix::libc::c_uint = 4;
    nix::unistd::setsid()?;
    // SAFETY: marks descriptors only; none of them is used after exec.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 3, nix::libc::c_uint::MAX, CLOEXEC) };
    // SAFETY: this process has one thread, being itself fresh from fork; the parent ends at once.
    match unsafe { nix::unistd::fork() }? {
        // SAFETY: ends this process without running anything that belongs to the client.
        nix::unistd::ForkResult::Parent { .. } => unsafe { nix::libc::_exit(0) },
        nix::unistd::ForkResult::Child => Ok(()),
    }
}

/// The daemon writes a byte when it serves, and closes the pipe without one when it cannot.
fn wait_for(ready: OwnedFd, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], timeout)?;
    File::from(nonblocking(ready)?).read_exact(&mut [0])
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

fn log(endpoint: &Endpoint) -> io::Result<File> {
    let at = endpoint.log();
    if fs::symlink_metadata(&at).is_ok_and(|meta| meta.len() > LOG_MAX) {
        let _ = fs::rename(&at, at.with_extension("log.old"));
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(at)
}

/// `zcached` beside this program, or in PATH.
fn daemon_program() -> io::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("zcached")));
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    let all = beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join("zcached")));
    let runs = |path: &PathBuf| fs::metadata(Path::new(path)).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0);
    all.into_iter().find(runs).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "zcached is not installed"))
}
