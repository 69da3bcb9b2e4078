//! Command: which compiler a client was called for. Its own name decides its role: as `zcache-client` or `sccache` it
//! wraps the command that follows; by any other name it stands for the program of that name further along PATH. A guide
//! says by an option which file it stands for, and how that was called.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;

use zcache_proto::driver;
use zcache_proto::endpoint::Endpoint;

use crate::guide::{Guide, IN_PLACE_OF};

/// The shim's own name.
pub const NAME: &str = "zcache-client";
/// The name by which the `cc` crate knows that a RUSTC_WRAPPER wraps C compilers too.
pub const KNOWN_NAME: &str = "sccache";
/// The people's command.
const PEOPLES: &str = "zcache";

/// A compiler command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program's file.
    pub program: PathBuf,
    /// The command as called, compiler first.
    pub argv: Vec<OsString>,
    /// The program's file as its caller named it: a script sees it.
    file: PathBuf,
    /// What led here, where that was a guide.
    guide: Option<Guide>,
}

/// What this process was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A compile.
    Compile(Command),
    /// What `sccache` would do by itself, in the words of the people's command.
    Manage(Command),
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
    /// An option of sccache's that means nothing here.
    #[error("{0} is an option of sccache's that zcache does not have; see `zcache help`")]
    Foreign(String),
}

impl Call {
    /// From this process's arguments.
    pub fn from_args(mut argv: Vec<OsString>) -> Result<Self, CommandError> {
        let own = argv.first().map(|name| file_name(name).to_owned());
        let wraps = own.as_ref().is_none_or(|own| own == NAME || own == KNOWN_NAME);
        if wraps {
            argv.drain(..argv.len().min(1));
        }
        let name = argv.first().ok_or(CommandError::Empty)?.clone();
        if wraps && name == IN_PLACE_OF {
            return Command::in_place_of(argv.split_off(1)).map(Self::Compile);
        }
        if wraps && own.is_some_and(|own| own == KNOWN_NAME) && name.as_encoded_bytes().starts_with(b"-") {
            return managing(&name).map(Self::Manage);
        }
        let found = resolve(if wraps { &name } else { file_name(&name) })?;
        if found.passed || !wraps {
            // Compilers look for what was installed with them by this name, which must not lead back here.
            argv[0] = found.program.clone().into();
        }
        Ok(Self::Compile(Command::new(found.program, argv)))
    }
}

impl Command {
    fn new(program: PathBuf, argv: Vec<OsString>) -> Self {
        Self { file: program.clone(), program, argv, guide: Guide::find() }
    }

    /// The program's file, and the command as it was called.
    fn in_place_of(mut words: Vec<OsString>) -> Result<Self, CommandError> {
        if words.len() < 2 {
            return Err(CommandError::Empty);
        }
        let argv = words.split_off(1);
        let file = PathBuf::from(words.remove(0));
        let program = absolute(&file);
        // Without a slash it would be searched.
        let file = if file.as_os_str().as_encoded_bytes().contains(&b'/') { file } else { program.clone() };
        Ok(Self { file, ..Self::new(program, argv) })
    }

    /// The command to run, ready for more settings.
    pub fn process(&self) -> process::Command {
        let mut command = process::Command::new(&self.file);
        command.arg0(&self.argv[0]).args(&self.argv[1..]);
        if let Some(guide) = &self.guide {
            guide.lead(&mut command, &self.program);
        }
        command
    }

    /// Where the daemon listens, where the environment does not say so any more.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.guide.as_ref().and_then(Guide::endpoint)
    }
}

/// `zcache` for an option of sccache's.
fn managing(option: &OsStr) -> Result<Command, CommandError> {
    let verb = match option.to_str().unwrap_or_default() {
        "--show-stats" | "-s" | "--show-adv-stats" => "status",
        "--zero-stats" | "-z" => "zero",
        "--start-server" => "start",
        "--stop-server" => "stop",
        "--version" | "-V" => "--version",
        "--help" | "-h" => "--help",
        other => return Err(CommandError::Foreign(other.to_owned())),
    };
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PEOPLES)));
    let program = beside.filter(|path| path.is_file());
    let program = program.map_or_else(|| resolve(OsStr::new(PEOPLES)).map(|found| found.program), Ok)?;
    let argv = vec![program.clone().into(), verb.into()];
    Ok(Command::new(program, argv))
}

/// A program's file.
struct Found {
    program: PathBuf,
    /// This program stands before it, under the same name.
    passed: bool,
}

/// The file that `name` means; this program itself is passed over, and a link to it means the next of its name in PATH.
fn resolve(name: &OsStr) -> Result<Found, CommandError> {
    let this = identity(Path::new("/proc/self/exe")).ok();
    let is_this = |path: &Path| this.is_some() && identity(path).ok() == this;
    if !name.as_encoded_bytes().contains(&b'/') {
        return search(name, is_this);
    }
    let path = absolute(Path::new(name));
    match file_name(name) {
        _ if !is_this(&path) => Ok(Found { program: path, passed: false }),
        own if own == NAME || own == KNOWN_NAME => Err(CommandError::Itself(path)),
        own => search(own, is_this).map(|found| Found { passed: true, ..found }),
    }
}

fn search(name: &OsStr, is_this: impl Fn(&Path) -> bool) -> Result<Found, CommandError> {
    let search = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut passed = None;
    for dir in env::split_paths(&search) {
        let program = absolute(&dir.join(name));
        if !fs::metadata(&program).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0) {
            continue;
        }
        if is_wrapper(&program) {
            continue;
        }
        if !is_this(&program) {
            return Ok(Found { program, passed: passed.is_some() });
        }
        passed = Some(program);
    }
    Err(passed.map_or_else(|| CommandError::NotFound(name.to_string_lossy().into_owned()), CommandError::Itself))
}

/// Whether a program is another cache's or distributor's link, which would look for the compiler along the same PATH and
/// find us.
fn is_wrapper(program: &Path) -> bool {
    let named = |path: &Path| driver::is_cache(file_name(path.as_os_str()).as_encoded_bytes());
    fs::canonicalize(program).is_ok_and(|real| named(&real)) && !named(program)
}

fn file_name(path: &OsStr) -> &OsStr {
    Path::new(path).file_name().unwrap_or(path)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}
