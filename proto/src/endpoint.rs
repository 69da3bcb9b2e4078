//! Endpoint: where the daemon's socket is and which files stand beside it. A pure rule over the environment: it
//! touches no file system, so that client, daemon and command all arrive at the same answer.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::trace;

/// The protocol's major version: part of the socket's name, so that versions never meet.
pub const PROTOCOL: u32 = 1;

/// Longest path a Unix socket can be bound to, bytes (`sun_path` less its NUL).
const SOCKET_PATH_MAX: usize = 107;

/// The daemon's socket and the directory, private to the user, that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The Unix socket.
    pub socket: PathBuf,
}

impl Endpoint {
    /// `ZCACHE_SOCKET` where set, else `zcache/zcached-v1.sock` in `XDG_RUNTIME_DIR`, else in `/tmp/zcache-<uid>`. A
    /// `ZCACHE_DIR` in the environment has a daemon of its own, told apart by a suffix, and a path too long for a
    /// socket moves to `/tmp` likewise.
    pub fn from_env(env: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(socket) = absolute("ZCACHE_SOCKET") {
            return Self { socket };
        }
        let suffix = match env("ZCACHE_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => format!("-{:016x}", trace::hash(dir.as_bytes())),
            None => String::new(),
        };
        let private = PathBuf::from(format!("/tmp/zcache-{uid}"));
        let Some(runtime) = absolute("XDG_RUNTIME_DIR") else {
            return Self { socket: private.join(format!("zcached-v{PROTOCOL}{suffix}.sock")) };
        };
        let socket = runtime.join(format!("zcache/zcached-v{PROTOCOL}{suffix}.sock"));
        if socket.as_os_str().len() <= SOCKET_PATH_MAX {
            return Self { socket };
        }
        let long = trace::hash(socket.as_os_str().as_bytes());
        Self { socket: private.join(format!("zcached-v{PROTOCOL}-{long:016x}.sock")) }
    }

    /// The directory of the socket.
    pub fn dir(&self) -> &Path {
        self.socket.parent().unwrap_or(Path::new("/"))
    }

    /// The lock that the daemon of this socket holds for life.
    pub fn lock(&self) -> PathBuf {
        self.beside("lock")
    }

    /// The lock that a client holds while it starts a daemon, so that a hundred clients start one.
    pub fn starting(&self) -> PathBuf {
        self.beside("starting")
    }

    /// Present while clients take the daemon for hung or unstartable: they do without. A live daemon removes it.
    pub fn trouble(&self) -> PathBuf {
        self.beside("trouble")
    }

    /// A byte for each compile that ran without a daemon. The next daemon counts and removes it.
    pub fn unasked(&self) -> PathBuf {
        self.beside("unasked")
    }

    /// Where a daemon that a client started writes its log.
    pub fn log(&self) -> PathBuf {
        self.beside("log")
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.socket.with_extension(extension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(vars: &[(&str, &str)]) -> String {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Endpoint::from_env(env, 7).socket.display().to_string()
    }

    #[test]
    fn follows_the_runtime_directory() {
        assert_eq!(endpoint(&[("XDG_RUNTIME_DIR", "/run/user/7")]), "/run/user/7/zcache/zcached-v1.sock");
        assert_eq!(endpoint(&[]), "/tmp/zcache-7/zcached-v1.sock");
        assert_eq!(endpoint(&[("XDG_RUNTIME_DIR", "relative")]), "/tmp/zcache-7/zcached-v1.sock");
        assert_eq!(endpoint(&[("ZCACHE_SOCKET", "/s"), ("XDG_RUNTIME_DIR", "/r")]), "/s");
    }

    #[test]
    fn another_store_has_another_daemon() {
        let a = endpoint(&[("XDG_RUNTIME_DIR", "/r"), ("ZCACHE_DIR", "/a")]);
        let b = endpoint(&[("XDG_RUNTIME_DIR", "/r"), ("ZCACHE_DIR", "/b")]);
        assert_ne!(a, b);
        assert_ne!(a, endpoint(&[("XDG_RUNTIME_DIR", "/r")]));
    }

    #[test]
    fn a_path_too_long_for_a_socket_moves() {
        let long = format!("/{}", "d".repeat(120));
        let socket = endpoint(&[("XDG_RUNTIME_DIR", &long)]);
        assert!(socket.starts_with("/tmp/zcache-7/zcached-v1-") && socket.len() <= SOCKET_PATH_MAX);
    }
}
