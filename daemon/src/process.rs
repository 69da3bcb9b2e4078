//! Process: what /proc tells of a process. Reads only; knows nothing of builds.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use nix::fcntl::OFlag;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// When it started, clock ticks since boot: tells it from a later process with the same id.
    pub started: u64,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// `R`, `S`, `T` and so on.
    pub state: char,
}

impl Process {
    /// The process with this id, while there is one.
    pub fn get(pid: u32) -> Option<Self> {
        // The kernel hands out the whole line at once; it is never longer.
        let mut line = [0; 2048];
        let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        parse(pid, &String::from_utf8_lossy(&line[..length]))
    }

    /// One that cannot be seen from here: it lives in another namespace of processes.
    pub fn unseen() -> Self {
        Self { pid: 0, parent: 0, started: 0, name: "a process out of sight".to_owned(), state: '?' }
    }

    /// Whether it is still there, and the same.
    pub fn is_alive(&self) -> bool {
        Self::get(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }

    /// Its command line, for people.
    pub fn command(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words: Vec<_> =
            line.split(|&b| b == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
        if words.is_empty() { self.name.clone() } else { words.join(" ") }
    }
}

/// The ancestors of a process, its parent first. A chain longer than any that can be is cut.
pub fn ancestors(of: &Process) -> Vec<Process> {
    let mut chain: Vec<Process> = Vec::new();
    let mut next = of.parent;
    while next > 1 && chain.len() < 1024 {
        let Some(process) = Process::get(next) else { break };
        next = process.parent;
        chain.push(process);
    }
    chain
}

/// Whether `/proc` shows processes by the numbers that this one knows them by. It may be another namespace's.
pub fn are_shown() -> bool {
    static SHOWN: OnceLock<bool> = OnceLock::new();
    let own = || fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&std::process::id().to_string()));
    *SHOWN.get_or_init(own)
}

/// Where a process's paths begin: a directory, and the mount by which it is reached. In the same mount namespace, too, a
/// process may have the same directory with other things mounted below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    mount: u64,
    directory: (u64, u64),
}

/// The root of a process. Whoever shares it finds the same file by the same path.
pub fn root(pid: u32) -> Option<Root> {
    let open = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(format!("/proc/{pid}/root")).ok()?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd())).ok()?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    Some(Root { mount, directory: identity(&open.metadata().ok()?) })
}

/// Whether a process's current directory is the one at `path`: not one that was removed, nor one below a later mount.
pub fn is_in(pid: u32, path: &Path) -> bool {
    let cwd = fs::metadata(format!("/proc/{pid}/cwd")).ok();
    cwd.is_some_and(|cwd| fs::metadata(path).is_ok_and(|there| identity(&there) == identity(&cwd)))
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// `pid (name) state parent … started …`, where the name may hold anything.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_ascii_whitespace();
    let (state, parent) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started, name, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) R b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let process = parse(7, stat).unwrap();
        assert_eq!((process.parent, process.started, process.name.as_str(), process.state), (3, 4242, "a) R b", 'S'));
        assert_eq!(parse(7, "junk"), None);
    }

    #[test]
    fn this_process_is_alive() {
        let this = Process::get(std::process::id()).unwrap();
        assert!(this.is_alive());
        assert!(!Process { started: this.started + 1, ..this }.is_alive());
    }
}
