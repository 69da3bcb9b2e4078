//! System: what a program may ask of the machine and of itself, and what becomes of that where the project's own code asks
//! (a macro, a script, a plugin). The toolchain's own questions (how many threads, how deep a stack) show in nothing it
//! makes.
//!
//! | asked | by | becomes |
//! |---|---|---|
//! | name and kind of the host | `gethostname`, `uname`, `/proc/sys/kernel/…` | [`Question::Host`] |
//! | processors | `sched_getaffinity`, `sysconf`, `/sys/devices/system/cpu`, the control group's files | [`Question::Processors`] |
//! | limits | `getrlimit`, `sysconf`, `/proc/self/limits` | [`Question::Limits`] |
//! | user and groups | `getuid` … `getgroups` | [`Question::User`] |
//! | their names | `getpwuid` … `getgrnam` | [`Question::Users`] |
//! | memory | `sysconf` | [`Question::Memory`] |
//! | mounts | `/proc/self/mountinfo` | [`Question::Mounts`] |
//! | load, free memory, times used, room on disks, the login's name | `sysinfo`, `getloadavg`, `times`, `statvfs` … | a refusal |
//! | numbers of processes | `getpid`, `getppid` | a refusal of a macro's; an interpreter asks when it starts, and what a script makes of it (`$$`, a temporary name) is not told from that |
//! | the locale | `setlocale` | its variables |
//!
//! The answers are asked of the client's process, which hands its own down to the compiler, when the result is stored and
//! again before it is served. Whoever calls the kernel without the C library is not seen, nor are random numbers: every hash
//! table of Rust's begins with some.

use std::fs;

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use zcache_proto::{Digest, trace};

/// A question whose answer stays for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Question {
    /// The host's name, its kernel and what that says of the machine.
    Host,
    /// The processors that may be used.
    Processors,
    /// Limits on resources.
    Limits,
    /// The user and its groups, by number.
    User,
    /// The user and its groups, and all that the machine knows of users.
    Users,
    /// How much memory there is.
    Memory,
    /// What is mounted where.
    Mounts,
}

/// What becomes of something that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The answer is an input.
    Input(Question),
    /// The answer is another one each time; the word says what was asked.
    Refused(&'static str),
    /// As [`Self::Refused`], unless a program asks that is none of a toolchain's.
    RefusedToPlugins(&'static str),
    /// The variables are inputs by which the C library finds the answer.
    Locale,
}

/// The variables that say which locale is meant.
pub const LOCALE: &[&[u8]] = &[
    b"LANG",
    b"LANGUAGE",
    b"LC_ALL",
    b"LC_COLLATE",
    b"LC_CTYPE",
    b"LC_MESSAGES",
    b"LC_MONETARY",
    b"LC_NUMERIC",
    b"LC_TIME",
    b"LOCPATH",
];

/// What a number of the trace's means. One that is not known is of a newer observer.
pub fn meaning(what: u64) -> Meaning {
    match what {
        trace::HOST => Meaning::Input(Question::Host),
        trace::PROCESSORS => Meaning::Input(Question::Processors),
        trace::LIMITS => Meaning::Input(Question::Limits),
        trace::USER => Meaning::Input(Question::User),
        trace::USERS => Meaning::Input(Question::Users),
        trace::MEMORY => Meaning::Input(Question::Memory),
        trace::PROCESS => Meaning::RefusedToPlugins("process"),
        trace::LOCALE => Meaning::Locale,
        _ => Meaning::Refused("moment"),
    }
}

/// The question that a file of the kernel's answers, if its answer stays.
pub fn of_file(path: &[u8]) -> Option<Question> {
    let is_quota = |name: &[u8]| matches!(name, b"cpu.max" | b"cpu.cfs_quota_us" | b"cpu.cfs_period_us");
    match path {
        b"/proc/self/cgroup" => Some(Question::Processors),
        b"/proc/self/mountinfo" | b"/proc/self/mounts" | b"/proc/mounts" => Some(Question::Mounts),
        b"/proc/self/limits" => Some(Question::Limits),
        b"/proc/version" => Some(Question::Host),
        path if path.starts_with(b"/sys/devices/system/cpu/") => is_online(path).then_some(Question::Processors),
        path if path.starts_with(b"/sys/fs/cgroup/") => {
            path.rsplit(|&b| b == b'/').next().is_some_and(is_quota).then_some(Question::Processors)
        }
        path => {
            let name = path.strip_prefix(b"/proc/sys/kernel/")?;
            matches!(name, b"hostname" | b"domainname" | b"osrelease" | b"ostype" | b"version")
                .then_some(Question::Host)
        }
    }
}

fn is_online(path: &[u8]) -> bool {
    matches!(path.strip_prefix(b"/sys/devices/system/cpu/"), Some(b"online" | b"possible" | b"present"))
}

/// The answer that the process `pid` would get now; none where that cannot be told.
pub fn answer(question: Question, pid: u32) -> Option<Digest> {
    let own = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let parts: Vec<Vec<u8>> = match question {
        Question::Host => host(pid)?,
        Question::Processors => processors(pid)?,
        Question::Limits => vec![own("limits")?],
        Question::User => vec![user(&own("status")?)],
        Question::Users => {
            let files = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(|at| fs::read(at).unwrap_or_default());
            [user(&own("status")?)].into_iter().chain(files).collect()
        }
        Question::Memory => vec![lines(&fs::read("/proc/meminfo").ok()?, &[b"MemTotal:"])],
        Question::Mounts => vec![own("mountinfo")?],
    };
    Some(Digest::of(&postcard::to_stdvec(&parts).ok()?))
}

/// What `uname` tells. It is this process's own, which must be that of the other; of that, it may say another machine.
fn host(pid: u32) -> Option<Vec<Vec<u8>>> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/uts")).ok();
    if namespace("self")? != namespace(&pid.to_string())? {
        return None;
    }
    let names = ["hostname", "domainname", "ostype", "osrelease", "version"];
    let mut told: Vec<Vec<u8>> =
        names.iter().map(|name| fs::read(format!("/proc/sys/kernel/{name}")).ok()).collect::<Option<_>>()?;
    told.push(fs::read(format!("/proc/{pid}/personality")).ok()?);
    Some(told)
}

/// Which processors a process may run on, and how much of them its control groups leave it.
fn processors(pid: u32) -> Option<Vec<Vec<u8>>> {
    let set = sched_getaffinity(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let allowed = (0..nix::sched::CpuSet::count()).map(|cpu| u8::from(set.is_set(cpu).unwrap_or(false))).collect();
    let online = ["online", "possible", "present"]
        .map(|name| fs::read(format!("/sys/devices/system/cpu/{name}")).unwrap_or_default());
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut told: Vec<Vec<u8>> = [allowed].into_iter().chain(online).collect();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(group)) = (parts.next(), parts.next()) else { continue };
        if !kinds.is_empty() && !kinds.split(',').any(|kind| kind == "cpu") {
            continue;
        }
        for mount in ["", "/unified", "/cpu", "/cpu,cpuacct"] {
            for above in std::path::Path::new(group).ancestors() {
                let at = format!("/sys/fs/cgroup{mount}{}", above.display());
                let quota = ["cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"];
                told.extend(quota.iter().filter_map(|name| fs::read(format!("{at}/{name}")).ok()));
            }
        }
    }
    told.push(groups.into_bytes());
    Some(told)
}

fn user(status: &[u8]) -> Vec<u8> {
    lines(status, &[b"Uid:", b"Gid:", b"Groups:"])
}

fn lines(text: &[u8], begin: &[&[u8]]) -> Vec<u8> {
    let wanted = |line: &&[u8]| begin.iter().any(|name| line.starts_with(name));
    text.split(|&b| b == b'\n').filter(wanted).collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_has_an_answer_that_stays() {
        let all = [
            Question::Host,
            Question::Processors,
            Question::Limits,
            Question::User,
            Question::Users,
            Question::Memory,
            Question::Mounts,
        ];
        for question in all {
            let told = answer(question, std::process::id());
            assert!(told.is_some() && told == answer(question, std::process::id()), "{question:?}");
        }
        assert_eq!(answer(Question::Limits, u32::MAX), None);
    }
}
