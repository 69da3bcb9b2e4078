//! Command: which compiler a client was called for. Its own name decides its role: as `zcache-client` it wraps the
//! command that follows; by any other name it stands for the program of that name further along PATH.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;

/// The shim's own name.
pub const NAME: &str = "zcache-client";

/// A compiler command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program's file.
    pub program: PathBuf,
    /// The command as called, compiler first.
    pub argv: Vec<OsString>,
}

/// Why there is no compiler to run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Called without a command.
    #[error("nothing to run\nusage: {NAME} COMPILER [ARGUMENT…], for example through RUSTC_WRAPPER={NAME}")]
    Empty,
    /// The command is this program.
    #[error(
        "{0} is {NAME} itself; name the real compiler instead (RUSTC, CC or the first entry of PATH leads back here)"
    )]
    Itself(PathBuf),
    /// There is no such program.
    #[error("{0}: no such compiler in PATH")]
    NotFound(String),
}

impl Command {
    /// From this process's arguments.
    pub fn from_args(mut argv: Vec<OsString>) -> Result<Self, CommandError> {
        let own = argv.first().map(|name| Path::new(name).file_name().unwrap_or(name).to_owned());
        let linked = own.is_some_and(|own| own != NAME);
        if !linked {
            argv.drain(..argv.len().min(1));
        }
        let name = argv.first().ok_or(CommandError::Empty)?.clone();
        let name = if linked { Path::new(&name).file_name().unwrap_or(&name).to_owned() } else { name };
        let program = resolve(&name)?;
        Ok(Self { program, argv })
    }

    /// The command to run, ready for more settings.
    pub fn process(&self) -> process::Command {
        let mut command = process::Command::new(&self.program);
        command.arg0(&self.argv[0]).args(&self.argv[1..]);
        command
    }
}

/// The file that `name` means; along PATH, this program itself is passed over.
fn resolve(name: &OsStr) -> Result<PathBuf, CommandError> {
    let this = identity(Path::new("/proc/self/exe"));
    if name.as_encoded_bytes().contains(&b'/') {
        let path = absolute(Path::new(name));
        return match identity(&path) {
            Ok(found) if this.as_ref().is_ok_and(|this| *this == found) => Err(CommandError::Itself(path)),
            _ => Ok(path),
        };
    }
    let search = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut passed = None;
    for dir in env::split_paths(&search) {
        let path = absolute(&dir.join(name));
        let Ok(meta) = fs::metadata(&path) else { continue };
        if !meta.is_file() || meta.mode() & 0o111 == 0 {
            continue;
        }
        if this.as_ref().is_ok_and(|this| *this == (meta.dev(), meta.ino())) {
            passed = Some(path);
            continue;
        }
        return Ok(path);
    }
    Err(passed.map_or_else(|| CommandError::NotFound(name.to_string_lossy().into_owned()), CommandError::Itself))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
