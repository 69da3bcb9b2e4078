//! Holder: which process holds a lock file. Looks without touching the lock, so that a daemon about to take it is not
//! turned away.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// The process with this id.
    Process(u32),
    /// Somebody whom the kernel does not name, as in another container.
    Unknown,
}

impl Holder {
    /// Who holds the lock file `at`.
    pub fn of(at: &Path) -> Self {
        let Ok(file) = File::open(at) else { return Self::Nobody };
        let Ok(inode) = file.metadata().map(|meta| meta.ino()) else { return Self::Unknown };
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        if let Some(pid) = locks.lines().find_map(|line| holder(line, inode)) {
            return Self::Process(pid);
        }
        // A shared lock for a moment, given back at once, tells the same without the name.
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Self::Nobody,
            Err(_) => Self::Unknown,
        }
    }

    /// As a remark that follows another: ` (pid 7)`.
    pub fn remark(self) -> String {
        match self {
            Self::Process(pid) => format!(" (pid {pid})"),
            Self::Nobody | Self::Unknown => String::new(),
        }
    }
}

/// `1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF`. The device is not compared: some file systems show another one
/// here than in their files' metadata.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if (words.next()?, words.next()?, words.next()?) != ("FLOCK", "ADVISORY", "WRITE") {
        return None;
    }
    let pid: u32 = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
    let found: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    let is_daemon = || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "zcached");
    (found == inode && is_daemon()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_and_held() {
        let dir = std::env::temp_dir().join(format!("zcache-holder-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = dir.join("lock");
        assert_eq!(Holder::of(&at), Holder::Nobody);
        let file = File::create(&at).unwrap();
        assert_eq!(Holder::of(&at), Holder::Nobody);
        let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        assert_eq!(Holder::of(&at), Holder::Unknown, "this process is no daemon");
        drop(lock);
        assert_eq!(Holder::of(&at), Holder::Nobody);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn other_locks_are_no_answer() {
        for line in
            ["", "1: POSIX ADVISORY WRITE 7 fe:00:5 0 EOF", "1: -> FLOCK ADVISORY WRITE 7 fe:00:5 0 EOF", "1: FLOCK"]
        {
            assert_eq!(holder(line, 5), None, "{line}");
        }
    }
}
