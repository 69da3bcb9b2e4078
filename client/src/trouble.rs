//! Trouble: the note by which clients tell each other not to bother with a daemon that hangs or does not start, so
//! that a whole build loses the time once and not per compile.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private::{self, Others};

use crate::limits::longest_file;
use crate::pulse::{is_stopped, started};

/// How long a note counts about which nothing can be checked.
const HOLDS: Duration = Duration::from_secs(60);

/// A note is not longer, bytes.
const NOTE_MAX: u64 = 100;

/// No more compiles without a daemon are counted.
const UNASKED_MAX: u64 = 1 << 20;

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
            // With its start, because the number alone may come to be that of another process which is stopped.
            Self::Stopped(pid) => format!("stopped {pid} {}\n", started(pid).unwrap_or_default()),
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
        let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
        let lasting = match words[..] {
            ["stopped", pid, since] => {
                let pid = pid.parse().ok()?;
                return (is_stopped(pid) && started(pid) == since.parse().ok()).then_some(Self::Stopped(pid));
            }
            ["silent"] => Self::Silent,
            ["unstartable"] => Self::Unstartable,
            ["tight"] => Self::Tight,
            _ => return None,
        };
        is_young(&endpoint.trouble()).then_some(lasting)
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

/// Notes that a compile ran without the daemon, which cannot count it.
pub fn count_unasked(endpoint: &Endpoint) {
    // What others could read or exchange is no place for it.
    if longest_file() < UNASKED_MAX || private::check(endpoint.dir(), Others::Nothing).is_err() {
        return;
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).custom_flags(flags.bits()).open(endpoint.unasked());
    let _ = file.and_then(|mut file| if file.metadata()?.len() < UNASKED_MAX { file.write_all(b".") } else { Ok(()) });
}

/// How many did since a daemon last counted them.
pub fn unasked(endpoint: &Endpoint) -> u64 {
    fs::symlink_metadata(endpoint.unasked()).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
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

    #[test]
    fn a_daemon_that_was_stopped_and_is_over_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint { socket: dir.path().join("s.sock") };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, at) = (child.id(), endpoint.trouble());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGSTOP).unwrap();
        while !is_stopped(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Trouble::Stopped(pid).note(&endpoint);
        assert_eq!(Trouble::find(&endpoint), Some(Trouble::Stopped(pid)));
        let note = fs::read_to_string(&at).unwrap();
        fs::write(&at, format!("stopped {pid} 1\n")).unwrap();
        assert_eq!(Trouble::find(&endpoint), None, "another process had the number");
        fs::write(&at, note).unwrap();
        child.kill().unwrap();
        while is_stopped(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(Trouble::find(&endpoint), None, "nobody has collected it");
        child.wait().unwrap();
    }
}
