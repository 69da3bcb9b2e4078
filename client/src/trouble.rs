//! Trouble: the note by which clients tell each other not to bother with a daemon that hangs or does not start, so
//! that a whole build loses the time once and not per compile.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use zcache_proto::endpoint::Endpoint;

use crate::limits::longest_file;
use crate::pulse::is_stopped;

/// How long a note counts about which nothing can be checked.
const HOLDS: Duration = Duration::from_secs(60);

/// A note is not longer, bytes.
const NOTE_MAX: u64 = 100;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The daemon with this pid is stopped.
    Stopped(u32),
    /// The daemon does not answer.
    Silent,
    /// No daemon starts.
    Unstartable,
    /// No daemon runs, and who would start one has no room for it. Others may have.
    Tight,
}

impl Trouble {
    /// Leaves the note. Failing to costs time, no more.
    pub fn note(self, endpoint: &Endpoint) {
        let text = match self {
            Self::Stopped(pid) => format!("stopped {pid}\n"),
            Self::Silent => "silent\n".to_owned(),
            Self::Unstartable => "unstartable\n".to_owned(),
            Self::Tight => "tight\n".to_owned(),
        };
        if longest_file() < NOTE_MAX {
            // The kernel would end this process.
            return;
        }
        let _ = fs::write(endpoint.trouble(), text);
    }

    /// What the note says, while it counts.
    pub fn find(endpoint: &Endpoint) -> Option<Self> {
        let text = note_at(&endpoint.trouble())?;
        let trouble = match text.trim().split_once(' ') {
            Some(("stopped", pid)) => Self::Stopped(pid.parse().ok()?),
            _ if text == "silent\n" => Self::Silent,
            _ if text == "unstartable\n" => Self::Unstartable,
            _ if text == "tight\n" => Self::Tight,
            // It is just being written.
            _ => return None,
        };
        let counts = match trouble {
            Self::Stopped(pid) => is_stopped(pid),
            _ => is_young(&endpoint.trouble()),
        };
        counts.then_some(trouble)
    }

    /// For people.
    pub fn explain(self) -> String {
        match self {
            Self::Stopped(pid) => format!("the daemon (pid {pid}) is stopped; `kill -CONT {pid}` lets it go on"),
            Self::Silent => "the daemon did not answer in time; clients do without it for a minute".to_owned(),
            Self::Unstartable => "the daemon did not start; its log says why".to_owned(),
            Self::Tight => {
                "compiles ran without a daemon, their limits (ulimit -v, -u) being too tight for starting one; \
                            `zcache start` in a shell with more"
                    .to_owned()
            }
        }
    }
}

/// The note's text. Something else in its place, another user's perhaps, may have no end or never begin.
fn note_at(path: &Path) -> Option<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let ours = meta.is_file() && meta.uid() == nix::unistd::getuid().as_raw();
    let mut text = String::new();
    (ours && file.take(NOTE_MAX).read_to_string(&mut text).is_ok()).then_some(text)
}

fn is_young(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age < HOLDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_while_it_is_true() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint { socket: dir.path().join("s.sock") };
        assert_eq!(Trouble::find(&endpoint), None);
        Trouble::Unstartable.note(&endpoint);
        assert_eq!(Trouble::find(&endpoint), Some(Trouble::Unstartable));
        Trouble::Stopped(std::process::id()).note(&endpoint);
        assert_eq!(Trouble::find(&endpoint), None, "this process is not stopped");
    }
}
