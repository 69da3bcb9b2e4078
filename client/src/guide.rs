//! Guide: what the guide in a build's programs hands to the client that it starts in a compiler's place, and what the
//! client does with it for the compiler. The guide itself is a library, in `observer/`.
//!
//! A compiler is observed and not guided: what it starts is part of its run. A script that stands for a compiler goes on
//! being guided, since what it starts may be a compiler that no observer can enter, as zig is.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use zcache_proto::endpoint::Endpoint;

use crate::observe::{Entry, entry};
use crate::parent;

/// The variable: the client's path, the daemon's socket and the guide's library, a line each. Hidden from every program
/// but zcache's own.
pub const VARIABLE: &str = "ZCACHE_GUIDE";
/// How the client is told that it is started in another program's place. The program's file follows, and then the command
/// as it was called.
pub const IN_PLACE_OF: &str = "--in-place-of";

const PRELOAD: &str = "LD_PRELOAD";
/// Longest `#!` line that the kernel reads.
const LINE_MAX: usize = 256;

/// What leads a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guide {
    value: OsString,
    /// It is kept by an observer in this process, which hands it on by itself.
    observed: bool,
}

impl Guide {
    /// One for the build that this process is about to start; none where a path cannot be put into a line.
    pub fn new(client: &Path, endpoint: &Endpoint, library: &Path) -> Option<Self> {
        let lines = [client, &endpoint.socket, library].map(|path| path.as_os_str().as_bytes());
        let is_clean = lines.iter().all(|line| !line.contains(&b'\n'));
        is_clean.then(|| Self { value: OsString::from_vec(lines.join(&b'\n')), observed: false })
    }

    /// The one that this client is below.
    pub fn find() -> Option<Self> {
        let (value, observed) = match env::var_os(VARIABLE) {
            Some(value) => (value, false),
            None => (parent::guide()?, true),
        };
        let guide = Self { value, observed };
        guide.line(2).is_some().then_some(guide)
    }

    fn line(&self, number: usize) -> Option<&Path> {
        let line = self.value.as_bytes().split(|&byte| byte == b'\n').nth(number);
        line.filter(|line| !line.is_empty()).map(|line| Path::new(OsStr::from_bytes(line)))
    }

    /// Where the build's daemon listens, for a compiler whose environment has nothing left that would say so (`env -i`).
    pub fn endpoint(&self) -> Option<Endpoint> {
        let says = ["ZCACHE_SOCKET", "ZCACHE_DIR", "XDG_RUNTIME_DIR"];
        let is_told = says.iter().any(|name| env::var_os(name).is_some());
        self.line(1).filter(|_| !is_told).map(|socket| Endpoint { socket: socket.to_owned() })
    }

    /// Sets what a command that is started without being observed needs: a script goes on being guided, a compiler is
    /// not. Where it is observed after all, the observer takes the library's place.
    pub fn lead(&self, command: &mut Command, program: &Path) {
        let goes_on = interpreter(program).is_some() && enters(program);
        match (goes_on, self.observed) {
            (true, false) => {
                command.envs(self.variables());
            }
            (true, true) => {}
            (false, false) => {
                command.env_remove(VARIABLE);
            }
            (false, true) => {
                command.env(VARIABLE, "");
            }
        }
    }

    /// What a client is given, which no guide enters.
    pub fn for_client(&self) -> Option<(&'static str, OsString)> {
        Some((VARIABLE, self.value.clone()))
    }

    /// What puts a program under guidance.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        let mut preload = env::var_os(PRELOAD).unwrap_or_default();
        if !preload.is_empty() {
            preload.push(":");
        }
        preload.push(self.line(2).unwrap_or(Path::new("")));
        [(PRELOAD, preload), (VARIABLE, self.value.clone())]
    }
}

/// Whether a guide can enter a program, or what reads it.
pub fn enters(program: &Path) -> bool {
    let image = interpreter(program);
    entry(image.as_deref().unwrap_or(program)) == Entry::Certain
}

/// What reads a script.
pub fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut head = Vec::with_capacity(LINE_MAX);
    File::open(program).ok()?.take(LINE_MAX as u64).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let name = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    (!name.is_empty()).then(|| OsStr::from_bytes(name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let endpoint = Endpoint { socket: "/run/z:s.sock".into() };
        let guide = Guide::new(Path::new("/a b/zcache-client"), &endpoint, Path::new("/g.so")).unwrap();
        assert_eq!((guide.line(0), guide.line(2)), (Some(Path::new("/a b/zcache-client")), Some(Path::new("/g.so"))));
        assert_eq!(guide.line(1), Some(endpoint.socket.as_path()));
        assert_eq!(Guide::new(Path::new("/a\nb"), &endpoint, Path::new("/g.so")), None);
    }

    #[test]
    fn a_script_is_what_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &[u8]| {
            std::fs::write(dir.path().join("s"), text).unwrap();
            interpreter(&dir.path().join("s"))
        };
        assert_eq!(of(b"#! /bin/sh -e\nx"), Some("/bin/sh".into()));
        assert_eq!(of(b"#!/usr/bin/env bash"), Some("/usr/bin/env".into()));
        assert_eq!((of(b"#!\n"), of(b"echo\n"), of(b"\x7fELF")), (None, None, None));
        of(b"#!/bin/sh\n");
        assert!(enters(&dir.path().join("s")) && enters(Path::new("/proc/self/exe")));
        of(b"#!/no/such\n");
        assert!(!enters(&dir.path().join("s")));
    }
}
