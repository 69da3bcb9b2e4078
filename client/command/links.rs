//! Links: a directory of links to the client that are named like the compilers in PATH. Decides which names, where and
//! how it stays whole. Knows no variables, and not what the client makes of its name.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use zcache_daemon::server::variable;
use zcache_proto::driver::Driver;
use zcache_proto::private::{self, Others};
use zcache_proto::trace;

use crate::daemon::config;
use crate::failure::Failure;

/// Where programs are looked for when PATH is not set.
pub const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// For PATH: it holds nothing but compilers' names.
const BIN: &str = "bin";
/// Apart from them, as `sccache` in PATH would be taken for sccache.
const WRAPPER: &str = "wrapper/sccache";

/// The directory. It stays: cmake and configure write the paths that they find into build directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    dir: PathBuf,
}

impl Links {
    /// The links to `client` for the compilers in `path`, made or mended.
    pub fn prepare(client: &Path, path: &[PathBuf]) -> Result<Self, Failure> {
        let names = names(path, identity(client));
        let known: Vec<&[u8]> =
            names.iter().map(|name| name.as_bytes()).chain([client.as_os_str().as_bytes()]).collect();
        let root = root()?;
        let dir = root.join(format!("{:016x}", trace::hash(&known.join(&0))));
        let wanted: Vec<PathBuf> = names.iter().map(|name| Path::new(BIN).join(name)).chain([WRAPPER.into()]).collect();
        private(&root)?;
        if !dir.exists() {
            make(&root, &dir, &wanted, client)?;
        }
        mend(&dir, &wanted, client)?;
        Ok(Self { dir })
    }

    /// What goes into PATH.
    pub fn bin(&self) -> PathBuf {
        self.dir.join(BIN)
    }

    /// The client under a name by which the cc crate takes cargo's wrapper for one of C compilers too.
    pub fn wrapper(&self) -> PathBuf {
        self.dir.join(WRAPPER)
    }
}

/// Whether this entry of PATH holds our links, be it for compilers that have changed since.
pub fn is_ours(entry: &Path) -> bool {
    entry.file_name() == Some(OsStr::new(BIN))
        && entry.parent().and_then(Path::parent).is_some_and(|above| root().is_ok_and(|root| root == above))
}

/// What tells one file from another, whatever it is called.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The file that a command's name means.
pub fn program_of(name: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| is_program(&meta));
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(runs);
    }
    let path = variable("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(runs)
}

/// Whether a file is a program.
pub fn is_program(meta: &fs::Metadata) -> bool {
    meta.is_file() && meta.mode() & 0o111 != 0
}

/// Beside what else belongs to the user; without a home, beside the cached results.
fn root() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    match data {
        Some(data) => Ok(data.join("zcache/links")),
        None => Ok(config()?.dir.join("links")),
    }
}

/// The names of the compilers in `path`, less those that are the client itself.
fn names(path: &[PathBuf], client: Option<(u64, u64)>) -> BTreeSet<OsString> {
    let entries = path.iter().filter(|dir| dir.is_absolute()).flat_map(fs::read_dir).flatten().flatten();
    let is_other = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| is_program(&meta) && Some((meta.dev(), meta.ino())) != client)
    };
    let named = entries.filter(|entry| Driver::of(entry.file_name().as_bytes()) == Some(Driver::C));
    named.filter(|entry| is_other(&entry.path())).map(|entry| entry.file_name()).collect()
}

/// Makes the directory whole before anyone can see it. Whoever is first wins.
fn make(root: &Path, dir: &Path, wanted: &[PathBuf], client: &Path) -> Result<(), Failure> {
    let new = nix::unistd::mkdtemp(&root.join(".new-XXXXXX")).map_err(|error| at(root, error.into()))?;
    let made = mend(&new, wanted, client).and_then(|()| match fs::rename(&new, dir) {
        Err(_) if dir.exists() => Ok(()),
        renamed => renamed.map_err(|error| at(dir, error)),
    });
    // It is gone where it got its name.
    let _ = fs::remove_dir_all(&new);
    made
}

/// Sees to it that every link is there. Nothing is written where all is well.
fn mend(dir: &Path, wanted: &[PathBuf], client: &Path) -> Result<(), Failure> {
    private(dir)?;
    private(&dir.join(BIN))?;
    for name in wanted {
        let link = dir.join(name);
        if let Some(parent) = link.parent().filter(|parent| !parent.ends_with(BIN)) {
            private(parent)?;
        }
        if !fs::read_link(&link).is_ok_and(|leads| leads == client) {
            replace(&link, client).map_err(|error| at(&link, error))?;
        }
    }
    Ok(())
}

/// Puts a link in the place of whatever file is there, so that there is no moment without one.
fn replace(link: &Path, client: &Path) -> io::Result<()> {
    let mut new = link.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(client, &new)?;
    fs::rename(&new, link).inspect_err(|_| drop(fs::remove_file(&new)))
}

/// A directory of the user's that nobody else can put programs into.
fn private(dir: &Path) -> Result<(), Failure> {
    if private::sudo_intrudes(dir, variable).is_some() {
        return Err(Failure::new(format!("{} would be in the way of who called sudo", dir.display())));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| at(dir, error))?;
    private::check(dir, Others::Look)
        .map_err(|_| Failure::new(format!("{} is not a directory that you alone can write to", dir.display())))
}

fn at(path: &Path, error: io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
