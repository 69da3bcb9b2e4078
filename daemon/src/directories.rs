//! Directories: what a directory that has not moved proves of the names in it. A name that was not there, or was no
//! link, when it was last asked for is so still while the directory's times stand: one look at the directory answers
//! for all its names. Knows paths, not what they are for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::Mutex;

use nix::libc;
use nix::sys::statfs::{self, FsType};

use crate::compilers::toolchain::{file_name, parent};
use crate::inputs::{Stamp, has_settled, lock, path};
use crate::paths::{Alias, tidy};
use crate::places::System;

/// Most names that are remembered; beyond it all are forgotten and learnt again.
const NAMES_MAX: usize = 100_000;
/// Most links on the way to one file: the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// File systems of this machine, which move a directory's time with every change in it. Of others nothing is remembered.
const LOCAL: &[FsType] = &[
    statfs::EXT4_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
];

/// What a name was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Absent,
    /// There, and no link.
    Plain,
}

type Names = HashMap<Vec<u8>, Name>;

/// What is known of names, by the state of their directory.
#[derive(Debug, Default)]
pub struct Directories {
    known: Mutex<Known>,
    local: Mutex<HashMap<u64, bool>>,
}

#[derive(Debug, Default)]
struct Known {
    /// By device and inode of the directory: its last state, and what names were found to be in that.
    names: HashMap<(u64, u64), (Stamp, Names)>,
    count: usize,
}

impl Directories {
    fn get(&self, directory: &Stamp, name: &[u8]) -> Option<Name> {
        let known = lock(&self.known);
        let (state, names) = known.names.get(&(directory.dev, directory.ino))?;
        (state == directory).then(|| names.get(name).copied())?
    }

    /// Keeps what a name was found to be after the directory's state was taken.
    fn keep(&self, directory: &Stamp, name: &[u8], what: Name) {
        if !has_settled(directory.mtime_ns.max(directory.ctime_ns)) {
            return;
        }
        let mut known = lock(&self.known);
        if known.count >= NAMES_MAX {
            *known = Known::default();
        }
        let Known { names, count } = &mut *known;
        let (state, found) =
            names.entry((directory.dev, directory.ino)).or_insert_with(|| (*directory, HashMap::new()));
        if state != directory {
            // It has moved on: a build's own directory does with every compile.
            *count -= found.len();
            (*state, *found) = (*directory, HashMap::new());
        }
        *count += usize::from(found.insert(name.to_vec(), what).is_none());
    }

    fn is_local(&self, directory: &[u8], device: u64) -> bool {
        *lock(&self.local).entry(device).or_insert_with(|| {
            statfs::statfs(path(directory)).is_ok_and(|found| LOCAL.contains(&found.filesystem_type()))
        })
    }
}

/// The directories during one look-up: each is looked at once.
#[derive(Debug)]
pub struct View<'a> {
    directories: &'a Directories,
    /// Where there is none: whether that is certain.
    states: HashMap<Vec<u8>, Result<State, bool>>,
    resolved: HashMap<Vec<u8>, Option<Vec<u8>>>,
    systems: HashMap<u64, Option<System>>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// To this, without links.
    To(Vec<u8>),
    /// Into a file system of the kernel's, whose links mean something else to each process: the rest of the path there.
    Into(System, Vec<u8>),
    /// To nothing that could be seen.
    Nowhere,
}

#[derive(Debug, Clone, Copy)]
struct State {
    stamp: Stamp,
    is_local: bool,
}

impl<'a> View<'a> {
    /// Nothing looked at yet.
    pub fn new(directories: &'a Directories) -> Self {
        Self { directories, states: HashMap::new(), resolved: HashMap::new(), systems: HashMap::new() }
    }

    /// Whether nothing has this name, not even a link.
    pub fn is_absent(&mut self, at: &[u8]) -> bool {
        let (directory, name) = (parent(at), file_name(at));
        let looked = || fs::symlink_metadata(path(at)).err();
        if matches!(name, b"" | b"." | b"..") {
            return looked().as_ref().is_some_and(tells_absence);
        }
        let State { stamp, is_local } = match self.state(directory) {
            Ok(state) => state,
            Err(is_certain) => return is_certain,
        };
        if is_local && let Some(known) = self.directories.get(&stamp, name) {
            return known == Name::Absent;
        }
        let missing = looked();
        if is_local && missing.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.directories.keep(&stamp, name, Name::Absent);
        }
        missing.as_ref().is_some_and(tells_absence)
    }

    /// The path without links, `.` and `..`; none where it leads nowhere.
    pub fn resolve(&mut self, at: &[u8]) -> Option<Vec<u8>> {
        if let Some(known) = self.resolved.get(at) {
            return known.clone();
        }
        let above = parent(at);
        let directory = match self.resolved.get(above) {
            Some(known) => known.clone(),
            None => self.walk(b"/".to_vec(), above),
        };
        self.resolved.insert(above.to_vec(), directory.clone());
        let found = directory.and_then(|directory| self.walk(directory, file_name(at)));
        self.resolved.insert(at.to_vec(), found.clone());
        found
    }

    fn walk(&mut self, directory: Vec<u8>, path: &[u8]) -> Option<Vec<u8>> {
        match self.travel(directory, path) {
            Way::To(at) => Some(at),
            Way::Into(..) | Way::Nowhere => None,
        }
    }

    /// Where `path` leads from a directory without links. As many names as it may have, it takes no stack.
    pub fn travel(&mut self, mut directory: Vec<u8>, path: &[u8]) -> Way {
        let names = |path: &[u8]| path.rsplit(|&b| b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut links = LINKS_MAX;
        let mut pending = names(path);
        while let Some(name) = pending.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => directory = parent(&directory).to_vec(),
                name => {
                    if let Some(system) = self.kernels(&directory) {
                        let rest =
                            pending.iter().rev().fold(name.to_vec(), |rest, name| [&rest, name.as_slice()].join(&b'/'));
                        return Way::Into(system, rest);
                    }
                    match self.entry(&directory, name) {
                        Some(Entry::Plain(at)) => directory = at,
                        Some(Entry::Link(target)) if links > 0 => {
                            links -= 1;
                            pending.extend(names(&target));
                            if target.starts_with(b"/") {
                                directory = b"/".to_vec();
                            }
                        }
                        _ => return Way::Nowhere,
                    }
                }
            }
        }
        Way::To(directory)
    }

    /// The file system that a directory without links lies in, where the kernel makes up what is there. Asked anew by
    /// each view: a number that names one file system now may have named another before.
    pub fn kernels(&mut self, directory: &[u8]) -> Option<System> {
        let device = self.state(directory).ok()?.stamp.dev;
        let ask = || System::of(statfs::statfs(path(directory)).ok()?.filesystem_type());
        *self.systems.entry(device).or_insert_with(ask)
    }

    /// What a name in a directory without links is.
    fn entry(&mut self, directory: &[u8], name: &[u8]) -> Option<Entry> {
        let at = [directory.strip_suffix(b"/").unwrap_or(directory), b"/", name].concat();
        let state = self.state(directory).ok()?;
        if state.is_local && self.directories.get(&state.stamp, name) == Some(Name::Plain) {
            return Some(Entry::Plain(at));
        }
        match fs::read_link(path(&at)) {
            Ok(target) => Some(Entry::Link(target.into_os_string().into_vec())),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                if state.is_local {
                    self.directories.keep(&state.stamp, name, Name::Plain);
                }
                Some(Entry::Plain(at))
            }
            Err(_) => None,
        }
    }

    fn state(&mut self, directory: &[u8]) -> Result<State, bool> {
        if let Some(state) = self.states.get(directory) {
            return *state;
        }
        let state = match fs::metadata(path(directory)) {
            Ok(meta) if meta.is_dir() => {
                let stamp = Stamp::of(&meta);
                Ok(State { stamp, is_local: self.directories.is_local(directory, stamp.dev) })
            }
            Ok(_) => Err(true),
            Err(error) => Err(tells_absence(&error)),
        };
        self.states.insert(directory.to_vec(), state);
        state
    }
}

/// Whether a look-up that failed so says that nothing is there, rather than that it cannot be seen.
pub fn tells_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG))
}

/// A step on the way to a file.
enum Entry {
    /// There, and no link.
    Plain(Vec<u8>),
    /// A link, with its target.
    Link(Vec<u8>),
}

/// The two names of a directory, where a link stands in the one that a command uses: up to the names that both end in, so
/// that they serve for what is beside it as well.
pub fn alias(named: &[u8]) -> Option<Alias> {
    let (mut named, mut real) = (tidy(named), fs::canonicalize(path(named)).ok()?.into_os_string().into_vec());
    while named != real && real.len() > 1 && file_name(&named) == file_name(&real) {
        named.truncate(parent(&named).len());
        real.truncate(parent(&real).len());
    }
    (named != real).then_some(Alias { named, real })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    fn bytes(at: &Path) -> &[u8] {
        at.as_os_str().as_bytes()
    }

    #[test]
    fn a_name_that_appears_is_seen_whenever_it_was_asked_for_before() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::default();
        let at = dir.path().join("x.h");
        for wait in [0, 60, 60] {
            std::thread::sleep(Duration::from_millis(wait));
            for _ in 0..2 {
                assert!(View::new(&directories).is_absent(bytes(&at)));
            }
            fs::write(&at, "").unwrap();
            assert!(!View::new(&directories).is_absent(bytes(&at)), "after {wait} ms");
            fs::remove_file(&at).unwrap();
        }
        let below = dir.path().join("none/x.h");
        assert!(View::new(&directories).is_absent(bytes(&below)));
        fs::create_dir(dir.path().join("none")).unwrap();
        fs::write(&below, "").unwrap();
        assert!(!View::new(&directories).is_absent(bytes(&below)));
    }

    #[test]
    fn an_unmoved_directory_is_asked_no_name_twice() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::default();
        std::thread::sleep(Duration::from_millis(60));
        assert!(View::new(&directories).is_absent(bytes(&dir.path().join("x"))));
        assert_eq!(lock(&directories.known).count, 1);
        assert!(View::new(&directories).is_absent(bytes(&dir.path().join("x"))));
        assert_eq!(lock(&directories.known).count, 1);
    }

    #[test]
    fn of_a_directory_that_moves_on_only_the_last_state_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories::default();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "").unwrap();
            std::thread::sleep(Duration::from_millis(60));
            assert!(View::new(&directories).is_absent(bytes(&dir.path().join("x"))));
            assert!(View::new(&directories).is_absent(bytes(&dir.path().join("y"))));
            let known = lock(&directories.known);
            assert_eq!((known.count, known.names.len()), (2, 1));
        }
    }

    #[test]
    fn paths_resolve_as_the_kernel_does_and_follow_a_link_that_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), "").unwrap();
        fs::write(root.join("f"), "").unwrap();
        symlink("a/b", root.join("l")).unwrap();
        symlink("l2", root.join("l2")).unwrap();
        let directories = Directories::default();
        for wait in [0, 60] {
            std::thread::sleep(Duration::from_millis(wait));
            for name in ["a/b/f", "l/f", "l/../b/./f", "a/../f", "a//b", "l2/x", "none", "f"] {
                let at = root.join(name);
                let want = fs::canonicalize(&at).ok().map(|found| found.into_os_string().into_vec());
                for _ in 0..2 {
                    assert_eq!(View::new(&directories).resolve(bytes(&at)), want, "{name}");
                }
            }
        }
        fs::remove_file(root.join("f")).unwrap();
        symlink("a/b/f", root.join("f")).unwrap();
        let found = View::new(&directories).resolve(bytes(&root.join("f")));
        assert_eq!(found.as_deref(), Some(bytes(&root.join("a/b/f"))));
    }
}
