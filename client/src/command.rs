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
use crate::sccache::{self, Asked, NotAsked};

/// The shim's own name.
pub const NAME: &str = "zcache-client";
/// The name by which the `cc` crate knows that a RUSTC_WRAPPER wraps C compilers too.
pub const KNOWN_NAME: &str = "sccache";
/// The people's command.
const PEOPLES: &str = "zcache";
/// What it does that no program is called.
const VERBS: [&str; 11] =
    ["run", "env", "status", "start", "stop", "zero", "clear", "gc", "verify", "service", "config"];

const USAGE: &str = "\
usage: zcache-client COMPILER [ARGUMENT…]

Runs a compiler through zcache, the compile cache: RUSTC_WRAPPER=zcache-client cargo build, or CC=\"zcache-client gcc\".
A link to it that is named like a compiler stands for that compiler, one named sccache for sccache. `zcache help` has
what people do: run a build through the cache, look at what it did, start and stop the daemon.";

/// A compiler command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program's file.
    pub program: PathBuf,
    /// The command as called, compiler first.
    pub argv: Vec<OsString>,
    /// PATH for it, where that is not this process's own.
    pub path: Option<OsString>,
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
    /// What the people's command does.
    Manage(Command),
    /// To say what it is.
    About(String),
}

/// Why there is no compiler to run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Called without a command.
    #[error("nothing to run\n{USAGE}")]
    Empty,
    /// The command is this program.
    #[error(
        "{0} is {NAME} itself; name the real compiler instead (RUSTC, CC or the first entry of PATH leads back here)"
    )]
    Itself(PathBuf),
    /// There is no such program.
    #[error("{0}: no such compiler in PATH")]
    NotFound(String),
    /// The words are sccache's, and make no sense here.
    #[error(transparent)]
    NotAsked(#[from] NotAsked),
}

impl Call {
    /// From this process's arguments.
    pub fn from_args(mut argv: Vec<OsString>) -> Result<Self, CommandError> {
        let own = argv.first().map(|name| file_name(name).to_owned());
        let wraps = own.as_ref().is_none_or(|own| own == NAME || own == KNOWN_NAME);
        if wraps {
            argv.drain(..argv.len().min(1));
        }
        if wraps && argv.first().is_some_and(|first| first == IN_PLACE_OF) {
            return Command::in_place_of(argv.split_off(1)).map(Self::Compile);
        }
        if argv.is_empty() {
            return Err(CommandError::Empty);
        }
        if wraps && own.as_ref().is_some_and(|own| own == KNOWN_NAME) {
            match sccache::read(&argv)? {
                Asked::Manage(words) => return managing(words.into_iter().map(OsString::from)).map(Self::Manage),
                Asked::Compile(at) => drop(argv.drain(..at)),
            }
        } else if wraps && let Some(text) = about(&argv[0]) {
            return Ok(Self::About(text));
        }
        let name = argv[0].clone();
        let found = match resolve(if wraps { &name } else { file_name(&name) }) {
            // Who mixes the two up is served: no compiler has such a name.
            Err(CommandError::NotFound(verb)) if wraps && VERBS.contains(&verb.as_str()) => {
                return managing(argv.into_iter()).map(Self::Manage);
            }
            found => found?,
        };
        let path = match found.before {
            // A path leads back here, or to nothing.
            _ if found.renamed || !wraps && is_path(&argv[0]) => {
                argv[0] = found.program.clone().into();
                None
            }
            Before::Nothing => None,
            Before::Masquerades(path) => Some(path),
            Before::More => {
                argv[0] = found.program.clone().into();
                None
            }
        };
        Ok(Self::Compile(Command { path, ..Command::new(found.program, argv) }))
    }
}

impl Command {
    fn new(program: PathBuf, argv: Vec<OsString>) -> Self {
        Self { file: program.clone(), program, argv, path: None, guide: Guide::find() }
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
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
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

/// What the client says of itself; none where `first` is no question about it.
fn about(first: &OsStr) -> Option<String> {
    match first.to_str()? {
        "--help" | "-h" => Some(USAGE.to_owned()),
        "--version" | "-V" => Some(format!("{NAME} {}", env!("CARGO_PKG_VERSION"))),
        _ => None,
    }
}

/// `zcache` with these words.
fn managing(words: impl Iterator<Item = OsString>) -> Result<Command, CommandError> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PEOPLES)));
    let program = beside.filter(|path| path.is_file());
    let program = program.map_or_else(|| resolve(OsStr::new(PEOPLES)).map(|found| found.program), Ok)?;
    let argv = [program.clone().into()].into_iter().chain(words).collect();
    Ok(Command::new(program, argv))
}

/// A program's file, and how it was come by.
struct Found {
    program: PathBuf,
    /// It was named by a path that leads to this program.
    renamed: bool,
    before: Before,
}

/// What stands before a program along PATH, under its name. Compilers look for what was installed with them by the name
/// that they are called by, along PATH: gcc that finds a link to a cache there takes the cache's directory for its own,
/// and has no `cc1` in it.
enum Before {
    /// Nothing: whoever looks for the name finds the program.
    Nothing,
    /// Directories that hold nothing but links to a cache, and PATH without them. A compiler that is given this PATH can
    /// keep the name by which it was called, which it prints. It loses no program that is one.
    Masquerades(OsString),
    /// Something that cannot be taken out of PATH, because there are other programs beside it: the compiler has to be
    /// called by its path, and prints that.
    More,
}

/// The file that `name` means; this program itself is passed over, and a link to it means the next of its name in PATH.
fn resolve(name: &OsStr) -> Result<Found, CommandError> {
    let this = identity(Path::new("/proc/self/exe")).ok();
    let is_this = |path: &Path| this.is_some() && identity(path).ok() == this;
    if !is_path(name) {
        return search(name, is_this);
    }
    let path = absolute(Path::new(name));
    match file_name(name) {
        _ if !is_this(&path) => Ok(Found { program: path, renamed: false, before: Before::Nothing }),
        own if own == NAME || own == KNOWN_NAME => Err(CommandError::Itself(path)),
        own => search(own, is_this).map(|found| Found { renamed: true, ..found }),
    }
}

fn search(name: &OsStr, is_this: impl Fn(&Path) -> bool) -> Result<Found, CommandError> {
    let search = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let dirs: Vec<PathBuf> = env::split_paths(&search).collect();
    let (mut itself, mut passed) = (None, Vec::new());
    for (at, dir) in dirs.iter().enumerate() {
        let program = absolute(&dir.join(name));
        if !fs::metadata(&program).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0) {
            continue;
        }
        let is_this = is_this(&program);
        if !is_this && !is_wrapper(&program) {
            return Ok(Found { program, renamed: false, before: before(&dirs, &passed, name) });
        }
        passed.push(at);
        itself = itself.or(Some(program).filter(|_| is_this));
    }
    Err(itself.map_or_else(|| CommandError::NotFound(name.to_string_lossy().into_owned()), CommandError::Itself))
}

/// What the entries `passed` of PATH are, in which a cache has the name.
fn before(dirs: &[PathBuf], passed: &[usize], name: &OsStr) -> Before {
    let is_masquerade = |dir: &PathBuf| {
        let cache = identity(&dir.join(name)).ok();
        let is_cache = |entry: fs::DirEntry| cache.is_some() && identity(&entry.path()).ok() == cache;
        fs::read_dir(dir).is_ok_and(|entries| entries.flatten().all(is_cache))
    };
    if passed.is_empty() {
        return Before::Nothing;
    }
    let others = dirs.iter().enumerate().filter(|(at, _)| !passed.contains(at)).map(|(_, dir)| dir);
    match env::join_paths(others) {
        Ok(path) if passed.iter().all(|at| is_masquerade(&dirs[*at])) => Before::Masquerades(path),
        _ => Before::More,
    }
}

fn is_path(name: &OsStr) -> bool {
    name.as_encoded_bytes().contains(&b'/')
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
