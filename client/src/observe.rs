//! Observe: the libraries carried in this program, put where programs can load them, and the trace that the observer
//! writes.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private::{self, Others};
use zcache_proto::trace;

use crate::command::Command;
use crate::limits::{longest_file, longest_trace};

/// A library that is preloaded, as built with this program.
#[derive(Debug)]
pub struct Library {
    name: &'static str,
    bytes: &'static [u8],
    hash: u64,
}

/// The observer, for a compiler's process tree.
pub static OBSERVER: Library = Library::new("observer", include_bytes!(concat!(env!("OUT_DIR"), "/observer.so")));
/// The guide, for a build's.
pub static GUIDE: Library = Library::new("guide", include_bytes!(concat!(env!("OUT_DIR"), "/guide.so")));

/// A shorter one would not be enough for any compile, bytes.
const TRACE_MIN: u64 = 64 << 10;

/// A trace being written.
#[derive(Debug)]
pub struct Trace(File);

impl Trace {
    /// An empty trace.
    pub fn new() -> io::Result<Self> {
        let file = File::from(memfd_create(c"zcache-trace", MFdFlags::MFD_CLOEXEC)?);
        let length = trace::CAPACITY_MAX.min(longest_trace());
        if length < TRACE_MIN {
            return Err(too_short());
        }
        file.set_len(length)?;
        file.write_all_at(&trace::MAGIC, 0)?;
        file.write_all_at(&length.to_le_bytes(), trace::CAPACITY_AT as u64)?;
        file.write_all_at(&(trace::HEADER_LEN as u64).to_le_bytes(), trace::CURSOR_AT as u64)?;
        let trace = Self(file);
        // Where /proc counts otherwise than we do, this is another process's file.
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let reached = fs::metadata(trace.path()).map(identity).ok();
        match reached == Some(identity(trace.0.metadata()?)) {
            true => Ok(trace),
            false => Err(io::Error::other("/proc is not there, or another namespace's")),
        }
    }

    /// Notes, before anything else, which program this process is about to start: what begins otherwise is another one.
    pub fn announce(&self, command: &Command) -> io::Result<()> {
        let (path, target) = (command.program.as_os_str().as_bytes(), target(command));
        let length = (trace::RECORD_LEN + path.len() + target.len()).next_multiple_of(8);
        let mut record = Vec::with_capacity(length);
        record.extend((length as u32).to_le_bytes());
        record.extend([trace::ENTRY, 0].map(u16::to_le_bytes).concat());
        record.extend([std::process::id(), 0].map(u32::to_le_bytes).concat());
        // A preloaded library may have replaced our clock, so no time is told.
        record.extend([0u64; 3].map(u64::to_le_bytes).concat());
        record.extend([path.len() as u32, target.len() as u32].map(u32::to_le_bytes).concat());
        record.extend([path, &target].concat());
        record.resize(length, 0);
        let end = (trace::HEADER_LEN + length) as u64;
        self.0.write_all_at(&record, trace::HEADER_LEN as u64)?;
        self.0.write_all_at(&end.to_le_bytes(), trace::CURSOR_AT as u64)
    }

    /// Where the compiler finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The variables that put a compiler under observation.
    pub fn variables(&self, observer: &Path) -> [(&'static str, OsString); 2] {
        let mut preload = observer.as_os_str().to_owned();
        if let Some(own) = env::var_os("LD_PRELOAD").filter(|own| !own.is_empty()) {
            preload.push(":");
            preload.push(own);
        }
        [("LD_PRELOAD", preload), ("ZCACHE_TRACE", self.path().into())]
    }

    /// What it is called in this process.
    pub fn descriptor(&self) -> u32 {
        self.0.as_raw_fd().cast_unsigned()
    }
}

impl Library {
    const fn new(name: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, bytes, hash: trace::hash(bytes) }
    }

    /// Its file, written on first use. It lies in the store's directory, or beside the socket.
    pub fn install(&self, endpoint: &Endpoint) -> io::Result<PathBuf> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let places = [
            absolute("ZCACHE_DIR"),
            absolute("XDG_CACHE_HOME").map(|dir| dir.join("zcache")),
            absolute("HOME").map(|home| home.join(".cache/zcache")),
            Some(endpoint.dir().to_owned()),
        ];
        let mut why = io::Error::other(format!("there is no place for the {}", self.name));
        for dir in places.into_iter().flatten() {
            match self.install_in(&dir) {
                Ok(path) => return Ok(path),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn install_in(&self, dir: &Path) -> io::Result<PathBuf> {
        let dir = private(dir)?;
        let name = format!("{}-{:016x}.so", self.name, self.hash);
        let path = dir.join(&name);
        // The dynamic linker splits its list at these.
        if path.as_os_str().as_bytes().iter().any(|b| matches!(b, b' ' | b':' | b'$')) {
            return Err(io::Error::other("the path cannot stand in LD_PRELOAD"));
        }
        if self.is_installed(&path) {
            return Ok(path);
        }
        if longest_file() < self.bytes.len() as u64 {
            return Err(too_short());
        }
        if statvfs(&dir)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(io::Error::other("programs cannot be loaded from there"));
        }
        let temporary = dir.join(format!("{name}.{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o500).open(&temporary)?;
        let written = file.write_all(self.bytes).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(path)
    }

    fn is_installed(&self, path: &Path) -> bool {
        let uid = nix::unistd::getuid().as_raw();
        let is_whole = |m: fs::Metadata| m.is_file() && m.uid() == uid && m.len() == self.bytes.len() as u64;
        fs::symlink_metadata(path).is_ok_and(is_whole)
    }
}

/// The directory's own path, made where there is none. Nobody else may be able to put a file there: it is loaded into
/// compilers.
fn private(dir: &Path) -> io::Result<PathBuf> {
    if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink() && meta.uid() != geteuid().as_raw()) {
        return Err(io::Error::other("somebody else's link leads there"));
    }
    let own = fs::canonicalize(dir).or_else(|_| {
        if private::sudo_intrudes(dir, |name| env::var_os(name)).is_some() {
            return Err(io::Error::other("it would be in the way of who called sudo"));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::canonicalize(dir)
    })?;
    private::check(&own, Others::Look).map_err(io::Error::other)?;
    Ok(own)
}

fn too_short() -> io::Error {
    io::Error::other("files may not be as long as observation needs (ulimit -f)")
}

/// What a program is to be known by when it begins, as a trace has it.
fn target(command: &Command) -> Vec<u8> {
    let program = &command.program;
    let identity = |path: &Path| fs::metadata(path).map_or([0; 2], |meta| [meta.dev(), meta.ino()]);
    let mut head = [0; trace::HEAD_LEN];
    let read = File::open(program).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let interpreter = trace::interpreter(&head[..read]);
    let file = identity(program);
    let executable = interpreter.map_or(file, |interpreter| match interpreter {
        // One that is found from where we happen to be is more than is told.
        [b'/', ..] => identity(Path::new(OsStr::from_bytes(interpreter))),
        _ => [0; 2],
    });
    let [file, executable] = [file, executable].map(trace::identity_bytes);
    let mut arguments = command.argv.iter().skip(1).map(|argument| argument.as_bytes());
    let script = arguments.find(|argument| !trace::is_plain_option(argument));
    let script = script.filter(|script| !script.starts_with(b"-")).unwrap_or_default();
    trace::target_parts(&file, &executable, [interpreter.unwrap_or_default(), b"", script]).concat()
}

/// What becomes of the observer in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The dynamic linker loads it.
    Certain,
    /// A script, or a program that nothing is loaded into.
    Open,
    /// The dynamic linker would complain: it is a program of another machine.
    Foreign,
}

/// What the dynamic linker would make of the observer in `program`.
pub fn entry(program: &Path) -> Entry {
    const INTERPRETER: &[u8] = &3u32.to_ne_bytes();
    const HEAD: usize = 64;
    let mut head = [0; 1024];
    let read = File::open(program).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    if read < HEAD || !head.starts_with(b"\x7fELF") {
        return Entry::Open;
    }
    let same = |range: std::ops::Range<usize>| head[range.clone()] == OBSERVER.bytes[range];
    if !same(4..6) || !same(18..20) {
        return Entry::Foreign;
    }
    let number = |at: usize| usize::from(u16::from_ne_bytes([head[at], head[at + 1]]));
    // The table of segments follows the header in every program that a linker made.
    let segments = head[HEAD..].chunks_exact(number(54).max(4)).take(number(56));
    let mut kinds = segments.map(|segment| &segment[..4]);
    if kinds.any(|kind| kind == INTERPRETER) { Entry::Certain } else { Entry::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dynamic_linker_starts_is_sure_to_load_the_observer() {
        let dir = tempfile::tempdir().unwrap();
        let own = fs::read("/proc/self/exe").unwrap();
        let entry_of = |bytes: &[u8]| {
            let at = dir.path().join("program");
            fs::write(&at, bytes).unwrap();
            entry(&at)
        };
        assert_eq!(entry_of(&own), Entry::Certain);
        assert_eq!(entry_of(b"#!/bin/sh\n"), Entry::Open);
        assert_eq!(entry_of(&own[..63]), Entry::Open);
        let mut changed = own[..1024].to_vec();
        changed[4] = 1;
        assert_eq!(entry_of(&changed), Entry::Foreign, "32 bits");
        changed[4] = own[4];
        changed[56..58].fill(0);
        assert_eq!(entry_of(&changed), Entry::Open, "it has no segments, and so names no interpreter");
        assert_eq!(entry(&dir.path().join("none")), Entry::Open);
    }
}
