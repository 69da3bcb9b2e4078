//! Places: whether a path leads to files of a disk, or to what the kernel makes up. The file system says so, not the path's
//! first name: `/dev/shm` is a disk like any other, and a link may lead to `/proc` from anywhere.
//!
//! Some of the kernel's names are links that mean something else to each process: its directory, its root, what it has
//! open. The observer resolves `/proc/self/cwd` and `/proc/self/root` where the path begins with them, since it alone can.
//! Every other way to such a link (through another link, `//proc`, another process's number) ends here as [`Place::Astray`]:
//! nobody can tell afterwards what file that was, so a compile that read one is not stored.

use std::collections::HashMap;

use nix::sys::statfs::{self, FsType};

use crate::compilers::toolchain::{file_name, parent};
use crate::directories::{View, Way};

/// A file system whose files the kernel makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// That of the processes.
    Processes,
    /// Any other.
    Other,
}

/// Those that nix has no name for: of formats of programs, of the firmware's variables, of configuration, of FUSE's
/// controls, of resource groups, of stored panics, of AppArmor.
const UNNAMED: &[FsType] = &[
    FsType(0x4249_4e4d),
    FsType(0xde5e_81e4),
    FsType(0x6265_6570),
    FsType(0x6573_5543),
    FsType(0x0765_5821),
    FsType(0x6165_676c),
    FsType(0x5a3c_69f0),
];

impl System {
    /// By the kernel's number for the kind of file system; none for a disk, as which memory counts.
    pub fn of(kind: FsType) -> Option<Self> {
        const OTHERS: &[FsType] = &[
            statfs::BPF_FS_MAGIC,
            statfs::CGROUP_SUPER_MAGIC,
            statfs::CGROUP2_SUPER_MAGIC,
            statfs::DEBUGFS_MAGIC,
            statfs::DEVPTS_SUPER_MAGIC,
            statfs::NSFS_MAGIC,
            statfs::SECURITYFS_MAGIC,
            statfs::SELINUX_MAGIC,
            statfs::SMACK_MAGIC,
            statfs::SYSFS_MAGIC,
            statfs::TRACEFS_MAGIC,
        ];
        match kind {
            statfs::PROC_SUPER_MAGIC => Some(Self::Processes),
            kind => (OTHERS.contains(&kind) || UNNAMED.contains(&kind)).then_some(Self::Other),
        }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file, or none, of a disk.
    Disk,
    /// What the kernel makes up.
    Kernel,
    /// A descriptor that a process holds.
    Given,
    /// Wherever a link leads that means something else to each process.
    Astray,
}

/// The places of one observation's paths.
#[derive(Debug)]
pub struct Places<'a> {
    view: View<'a>,
    /// By directory: none for one of a disk, else the way into the kernel's.
    known: HashMap<Vec<u8>, Option<(System, Vec<u8>)>>,
}

impl<'a> Places<'a> {
    /// As `view` sees them.
    pub fn new(view: View<'a>) -> Self {
        Self { view, known: HashMap::new() }
    }

    /// What an absolute path leads to. Where nothing is, the directories decide that are there.
    pub fn of(&mut self, path: &[u8]) -> Place {
        let (directory, name) = (parent(path), file_name(path));
        if matches!(name, b"" | b"." | b"..") {
            return self.followed(path).map_or(Place::Disk, |(system, rest)| judged(system, &rest));
        }
        if !self.known.contains_key(directory) {
            let way = self.followed(directory);
            self.known.insert(directory.to_vec(), way);
        }
        match &self.known[directory] {
            Some((system, rest)) if rest.is_empty() => judged(*system, name),
            Some((system, rest)) => judged(*system, &[rest, name].join(&b'/')),
            // There, the links are that lead to what a process has open.
            None if directory.ends_with(b"/dev") => {
                self.followed(path).map_or(Place::Disk, |(system, rest)| judged(system, &rest))
            }
            None => Place::Disk,
        }
    }

    fn followed(&mut self, path: &[u8]) -> Option<(System, Vec<u8>)> {
        match self.view.travel(b"/".to_vec(), path) {
            Way::Into(system, rest) => Some((system, rest)),
            Way::To(at) => self.view.kernels(&at).map(|system| (system, Vec::new())),
            Way::Nowhere => None,
        }
    }
}

/// What the rest of a path means in a file system of the kernel's.
fn judged(system: System, rest: &[u8]) -> Place {
    let mut names = rest.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    if system == System::Other || names.clone().next().is_none() {
        return if names.any(|name| name == b"..") { Place::Astray } else { Place::Kernel };
    }
    if names.clone().any(|name| name == b"..") {
        return Place::Astray;
    }
    let mut below = names.skip(1);
    let name = match below.next() {
        Some(b"task") => below.nth(1),
        name => name,
    };
    match (name, below.next(), below.next()) {
        (Some(b"cwd" | b"root" | b"map_files"), ..) | (Some(b"fd"), Some(_), Some(_)) => Place::Astray,
        (Some(b"fd"), Some(_), None) => Place::Given,
        _ => Place::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::directories::Directories;

    #[test]
    fn places_are_told_by_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).as_os_str().as_bytes().to_vec();
        symlink("/proc/self/cwd", dir.path().join("cwd")).unwrap();
        symlink("/dev/fd", dir.path().join("fds")).unwrap();
        symlink("/proc", dir.path().join("processes")).unwrap();
        let directories = Directories::default();
        let mut places = Places::new(View::new(&directories));
        let rows: &[(Place, &[Vec<u8>])] = &[
            (Place::Disk, &[at("x"), at("none/x"), b"/dev/shm/x".into(), b"/dev/null".into(), b"/usr/lib/x".into()]),
            (Place::Kernel, &[b"/proc/uptime".into(), b"/proc/self/status".into(), b"/sys/kernel/x".into()]),
            (Place::Kernel, &[at("processes/uptime"), b"/usr/../proc//./uptime".into(), b"/dev/pts/none".into()]),
            (Place::Given, &[b"/dev/stdout".into(), b"/dev/fd/3".into(), b"/proc/1/fd/7".into(), at("fds/2")]),
            (Place::Given, &[b"/dev/../dev//fd/1".into(), b"/proc/self/task/4/fd/3".into()]),
            (Place::Astray, &[at("cwd/x.h"), b"/proc/1/root/x".into(), b"/proc/self/fd/3/x.h".into()]),
            (Place::Astray, &[at("processes/self/cwd/x.h"), b"/proc/self/../../w/x.h".into()]),
        ];
        for (place, paths) in rows {
            for path in *paths {
                assert_eq!(places.of(path), *place, "{}", String::from_utf8_lossy(path));
            }
        }
    }
}
