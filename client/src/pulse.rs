//! Pulse: whether another process is stopped, at work or idle, as /proc tells. Knows no daemon and no patience.

use std::fs;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It does not run: stopped, or dead and not collected.
    Stopped,
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
            'T' | 't' | 'Z' => Doing::Stopped,
            'R' => Doing::Works,
            _ if before != Some(worked) || has_runnable(self.pid) => Doing::Works,
            _ => Doing::Idles,
        }
    }
}

/// Whether a process exists that does not run.
pub fn is_stopped(pid: u32) -> bool {
    Pulse::of(pid).feel() == Doing::Stopped
}

/// State of the first thread, and the time for which all have had a processor, clock ticks.
fn state(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((fields.first()?.chars().next()?, ticks(11)?.saturating_add(ticks(12)?)))
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
    fn a_process_is_seen_to_work_to_idle_and_to_be_stopped() {
        for (line, doing) in [("while :; do :; done", Doing::Works), ("read x", Doing::Idles)] {
            let mut child = Command::new("sh").args(["-c", line]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            let mut pulse = Pulse::of(child.id());
            assert!(comes_to(&mut pulse, doing), "{line}");
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGSTOP).unwrap();
            assert!(comes_to(&mut pulse, Doing::Stopped), "{line}");
            child.kill().unwrap();
            assert!(comes_to(&mut pulse, Doing::Stopped), "{line}: not collected yet");
            child.wait().unwrap();
            assert!(comes_to(&mut pulse, Doing::Idles), "{line}: gone");
        }
    }
}
