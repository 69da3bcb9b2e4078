//! Address: the file in a store's directory by which the store says which socket serves it. Whoever comes from other
//! surroundings (another or no `XDG_RUNTIME_DIR`, as under cron, su or in a container; the store by another name) looks
//! for a daemon at another socket, and a second daemon cannot have the store.
//!
//! A daemon that finds its store served therefore leaves a link in place of its own socket, which leads to the one that
//! serves, and goes. (Only systemd's daemon makes the other one go: whoever waits at systemd's socket can be led nowhere.)
//! Clients follow such a link, with the same distrust as at their own socket, at the cost of a
//! `readlink`. A link that leads nowhere any more is as good as no socket: the next daemon takes its place. The lock in
//! the store decides who serves, and the address is never more than a hint: one that a killed daemon left behind leads to
//! a socket at which nobody answers.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::net::UnixStream;
use zcache_proto::private::{self, Others};

use crate::process::Process;

/// The file's name.
pub const NAME: &str = "SOCKET";
/// Where it is until it is whole.
pub const UNFINISHED: &str = "SOCKET.new";
/// A path is not longer, bytes.
const LENGTH_MAX: u64 = 4096;
/// How long a daemon may take to accept a connection.
const PATIENCE: Duration = Duration::from_millis(200);

/// The socket that serves the store at `dir`, as the store says.
pub fn of(dir: &Path) -> Option<PathBuf> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(dir.join(NAME)).ok()?;
    let meta = file.metadata().ok().filter(|meta| meta.is_file() && meta.uid() == geteuid().as_raw())?;
    let mut text = Vec::with_capacity(usize::try_from(meta.len().min(LENGTH_MAX)).ok()?);
    file.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
    // Without its end it is half of one.
    text.pop().filter(|end| *end == b'\n')?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(text))).filter(|socket| socket.is_absolute())
}

/// Says in the store at `dir`, which this process holds, that `socket` serves it. Where that cannot be written, others
/// do without: it is no reason not to serve.
pub fn write(dir: &Path, socket: &Path) {
    let new = dir.join(UNFINISHED);
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(socket.as_os_str().as_encoded_bytes())?;
        file.write_all(b"\n")?;
        fs::rename(&new, dir.join(NAME))
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the store does not say who serves it: only clients of this socket find the daemon");
    }
}

/// Takes it back.
pub fn remove(dir: &Path) {
    let _ = fs::remove_file(dir.join(NAME));
}

/// The process that listens at a socket, 0 where it cannot be told; else why nobody can be reached there.
pub async fn reach(socket: &Path) -> Result<u32, String> {
    let uid = geteuid().as_raw();
    private::check(socket.parent().unwrap_or(Path::new("/")), Others::Nothing).map_err(|why| why.to_string())?;
    let meta = fs::symlink_metadata(socket).map_err(|error| error.to_string())?;
    if !meta.file_type().is_socket() || meta.uid() != uid {
        return Err("it is no socket of yours".to_owned());
    }
    let peer = match tokio::time::timeout(PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream.peer_cred().map_err(|error| error.to_string())?,
        // So many are waiting that there is no room for one more, which is an answer too.
        Err(_) => return Ok(0),
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Ok(Err(error)) => return Err(error.to_string()),
    };
    if peer.uid() != uid {
        return Err("another user listens there".to_owned());
    }
    Ok(peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0))
}

/// Has a daemon end, which finishes what it has accepted. systemd may have the socket in its name, and is no daemon.
pub fn end(pid: u32) {
    let is_daemon = Process::get(pid).is_some_and(|process| process.name == "zcached");
    if is_daemon && let Ok(pid) = i32::try_from(pid) {
        tracing::info!(pid, "the store has a daemon whose clients can come here: it is told to go");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Leaves a link to `socket` at `own`, a socket's path whose lock this process holds.
pub fn lead(own: &Path, socket: &Path) -> io::Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    if identity(own).is_some_and(|it| Some(it) == identity(socket)) {
        // It leads there already, or it is the same by another name.
        return Ok(());
    }
    match fs::symlink_metadata(own).map(|meta| meta.file_type()) {
        Ok(kind) if !kind.is_socket() && !kind.is_symlink() => return Err(io::ErrorKind::AlreadyExists.into()),
        _ => {}
    }
    let new = own.with_extension("link");
    let _ = fs::remove_file(&new);
    symlink(socket, &new)?;
    fs::rename(&new, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_address_is_whole_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(of(dir), None);
        for socket in ["/run/user/7/zcache/zcached-v1.sock", "/a b/c\nd"] {
            write(dir, Path::new(socket));
            assert_eq!(of(dir), Some(PathBuf::from(socket)));
        }
        for damaged in ["", "\n", "/half", "relative\n"] {
            fs::write(dir.join(NAME), damaged).unwrap();
            assert_eq!(of(dir), None, "{damaged:?}");
        }
        remove(dir);
        symlink("/etc/hostname", dir.join(NAME)).unwrap();
        assert_eq!(of(dir), None, "a link is not ours");
    }

    #[test]
    fn a_link_takes_the_place_of_a_dead_socket_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        drop(UnixListener::bind(at("dead")).unwrap());
        let _serving = UnixListener::bind(at("serving")).unwrap();
        for own in ["none", "dead", "dead"] {
            lead(&at(own), &at("serving")).unwrap();
            assert_eq!(fs::read_link(at(own)).unwrap(), at("serving"));
        }
        lead(&at("serving"), &at("serving")).unwrap();
        assert!(fs::symlink_metadata(at("serving")).unwrap().file_type().is_socket(), "never to itself");
        fs::write(at("precious"), "").unwrap();
        assert!(lead(&at("precious"), &at("serving")).is_err());
    }
}
