//! Faults: compiles that last until they are ended, the processes of a world, and what its daemon holds. Knows the
//! harness, not which fault is injected.

#![allow(dead_code, reason = "each test file uses its part of the faults")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zcache_proto::endpoint::Endpoint;

use crate::harness::{World, rustc};

/// A compiler and a source that it needs minutes for, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    Rustc,
    Gcc,
}

impl Compiler {
    /// Its programs, the one that does the work last.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Rustc => &["rustc"],
            Self::Gcc => &["gcc", "cc1"],
        }
    }

    /// Writes the source `p/x` with so much to do: one more doubles it. 0 is no work.
    pub fn write(self, world: &World, work: u32) {
        let steps = if work == 0 { 0 } else { 1u64 << work };
        let rust = format!(
            "#![allow(long_running_const_eval)]\npub const N: u64 = {{ let mut i = 0; while i < {steps} {{ i += 1 }} i }};\n\
             pub static S: [u8; (N % 7) as usize] = [0; (N % 7) as usize];"
        );
        let header = if work == self.endless() {
            format!("#if __INCLUDE_LEVEL__ < {work}\n#include \"x.h\"\n#include \"x.h\"\n#endif\n")
        } else {
            // Takes memory, and leaves no long trace.
            let doubled: String = (1..=work).map(|n| format!("#define A{n} (A{0}+A{0})\n", n - 1)).collect();
            format!("#define A0 1\n{doubled}#if A{work}\n#endif\n")
        };
        world.write(&[
            ("p/x.rs", &rust),
            ("p/x.c", &format!("#include \"x.h\"\nint f(void) {{ return {work}; }}\n")),
            ("p/x.h", &header),
            ("p/out/.keep", ""),
            ("tmp/.keep", ""),
        ]);
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Work that outlasts a test.
    pub fn endless(self) -> u32 {
        match self {
            Self::Rustc => 40,
            Self::Gcc => 60,
        }
    }

    /// Work for some seconds.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Rustc => 21,
            Self::Gcc => 23,
        }
    }

    /// What compiles it, through zcache where `client` names it.
    pub fn command(self, world: &World, client: Option<&str>) -> Command {
        let (program, arguments) = match self {
            Self::Rustc => (rustc().display().to_string(), "x.rs --crate-name x --crate-type lib --out-dir out"),
            Self::Gcc => ("gcc".to_owned(), "-c x.c -o out/x.o"),
        };
        let mut command = world.command(client.unwrap_or(&program));
        command.args(client.map(|_| &program)).args(arguments.split(' '));
        command.current_dir(world.path("p")).env("TMPDIR", world.path("tmp"));
        command
    }
}

/// Processes of this world with one of these names.
pub fn processes(world: &World, names: &[&str]) -> Vec<i32> {
    let mine = format!("XDG_RUNTIME_DIR={}", world.path("run").display());
    let numbers = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let is_mine = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        names.contains(&name.trim()) && environment.split(|&b| b == 0).any(|variable| variable == mine.as_bytes())
    };
    numbers.filter(is_mine).collect()
}

/// Waits, not for ever, until `done`.
pub fn until(what: &str, world: &World, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}: in vain\n{}", world.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits, not for ever, until a child has ended.
pub fn end(child: &mut Child, what: &str, world: &World) -> ExitStatus {
    until(what, world, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    });
    child.wait().expect("a status")
}

/// Sends a signal to a process, or to a group where the number is negative.
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// The one daemon's number.
pub fn daemon(world: &World) -> i32 {
    let [daemon] = world.daemons()[..] else { panic!("not one daemon: {:?}\n{}", world.daemons(), world.log()) };
    daemon as i32
}

/// Descriptors that a process has open.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count()
}

/// Memory that a process occupies, KiB.
pub fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The socket of this world's daemon.
pub fn socket(world: &World) -> PathBuf {
    let env = |name: &str| match name {
        "ZCACHE_DIR" => Some(world.path("store").into_os_string()),
        "XDG_RUNTIME_DIR" => Some(world.path("run").into_os_string()),
        _ => None,
    };
    Endpoint::from_env(env, 0).socket
}

/// Names of what a directory holds, apart from what keeps it in place.
pub fn listing(world: &World, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(world.path(dir)).expect("a directory").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".keep").collect()
}
