//! Pulse: whether another process is stopped, at work or idle, as /proc tells. Knows no daemon and no patience.

use std::fs;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It is stopped, and may be told to go on.
    Stopped,
    /// It is over, whether or not its parent has collected it: what it held is free, and nothing comes of waiting. A
    /// parent that never collects, as the first process of many containers, leaves it standing for ever.
    Ended,
    /// It has worked since it was last looked at, or waits for a processor.
    Works,
    /// Neither: it waits for something else, or cannot be looked at.
    Idles,
}

/// A process, looked at now and then.
#[derive(Debug)]
pub struct Pulse {
    pid: u32,
    worked: Option<u64>,
}

impl Pulse {
    /// Of a process that nobody has looked at yet.
    pub fn of(pid: u32) -> Self {
        Self { pid, worked: None }
    }

    /// What it did since the last look; at the first one it has worked, unless it is stopped.
    pub fn feel(&mut self) -> Doing {
        let Some((state, worked)) = state(self.pid) else { return Doing::Idles };
        let before = self.worked.replace(worked);
        match state {
            'T' | 't' => Doing::Stopped,
            'Z' | 'X' => Doing::Ended,
            'R' => Doing::Works,
            _ if before != Some(worked) || has_runnable(self.pid) => Doing::Works,
            _ => Doing::Idles,
        }
    }
}

/// Whether a process is there that is stopped.
pub fn is_stopped(pid: u32) -> bool {
    Pulse::of(pid).feel() == Doing::Stopped
}

/// When a process started, clock ticks since boot: it tells the process from a later one with its number.
pub fn started(pid: u32) -> Option<u64> {
    ticks(&stat(pid)?, 19)
}

/// State of the first thread, and the time for which all have had a processor, clock ticks.
fn state(pid: u32) -> Option<(char, u64)> {
    let stat = stat(pid)?;
    Some((stat.chars().next()?, ticks(&stat, 11)?.saturating_add(ticks(&stat, 12)?)))
}

/// The line of a process, from its state on.
fn stat(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

/// The number in a field of what [`stat`] returned, the state being field 0.
fn ticks(stat: &str, field: usize) -> Option<u64> {
    stat.split(' ').nth(field)?.trim_end().parse().ok()
}

/// Whether a thread waits for a processor. Where a thousand processes do, it may for seconds, and hold what the first
/// thread waits for.
fn has_runnable(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Waits until it is seen to do this twice in a row.
    fn comes_to(pulse: &mut Pulse, doing: Doing) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        let mut before = None;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            match pulse.feel() {
                now if now == doing && before == Some(doing) => return true,
                now => before = Some(now),
            }
        }
        false
    }

    #[test]
    fn a_process_is_seen_to_work_to_idle_to_be_stopped_and_to_end() {
        for (line, doing) in [("while :; do :; done", Doing::Works), ("read x", Doing::Idles)] {
            let mut child = Command::new("sh").args(["-c", line]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            let mut pulse = Pulse::of(child.id());
            assert!(comes_to(&mut pulse, doing), "{line}");
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGSTOP).unwrap();
            assert!(comes_to(&mut pulse, Doing::Stopped), "{line}");
            child.kill().unwrap();
            assert!(comes_to(&mut pulse, Doing::Ended), "{line}: not collected yet");
            assert!(!is_stopped(child.id()), "{line}: over and not collected");
            child.wait().unwrap();
            assert!(comes_to(&mut pulse, Doing::Idles), "{line}: gone");
        }
    }
}
