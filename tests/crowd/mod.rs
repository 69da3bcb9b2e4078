//! Crowd: clients that wait for each other and then all compile at the same moment. Knows the harness, not what there is to
//! serve them.

#![allow(dead_code, reason = "each test file uses its part of the crowd")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Effect, World, files, rustc};

/// How many compiles bare may run beside each other.
const BARE: usize = 4;

/// A unit as a client compiles it: its directory and the command.
pub struct Unit {
    /// Below the world.
    pub dir: String,
    arguments: Vec<String>,
}

/// A source of C whose compile prints a warning.
pub fn c(world: &World, client: usize, number: usize) -> Unit {
    let dir = format!("c{client}");
    let text = format!("#warning \"number {number}\"\nint f(void) {{ return {number}; }}\n");
    world.write(&[(&format!("{dir}/x.c"), &text), (&format!("{dir}/out/.keep"), "")]);
    Unit { dir, arguments: words("gcc -c x.c -o out/x.o") }
}

/// A source of Rust, likewise.
pub fn rust(world: &World, client: usize, number: usize) -> Unit {
    let dir = format!("r{client}");
    let text = format!("pub fn f() -> usize {{ let unused = 0; {number} }}\n");
    world.write(&[(&format!("{dir}/x.rs"), &text), (&format!("{dir}/out/.keep"), "")]);
    // The results of one command line in many checkouts crowd each other out, so each has its own.
    let line = format!("{} x.rs --crate-name x{number} --crate-type lib --emit link,dep-info", rustc().display());
    Unit { dir, arguments: words(&format!("{line} --out-dir out")) }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

impl Unit {
    /// Waits at `gate` until nobody holds its other end, then compiles.
    fn waiting(&self, world: &World, client: Option<&str>, gate: Stdio) -> Command {
        let out = world.path(&self.dir).join("out");
        fs::remove_dir_all(&out).expect("a directory");
        fs::create_dir(&out).expect("a directory");
        let mut command = world.command("sh");
        command.args(["-c", "read _; exec \"$@\" </dev/null >out/stdout 2>out/stderr", "sh"]);
        command.args(client).args(&self.arguments).current_dir(world.path(&self.dir)).stdin(gate);
        command
    }

    /// What it left, its end being `code`.
    fn effect(&self, world: &World, code: Option<i32>) -> Effect {
        let files = files(&world.path(&self.dir).join("out"));
        let text = |name: &str| String::from_utf8_lossy(&files[Path::new(name)].1).into_owned();
        Effect { code, stdout: text("stdout"), stderr: text("stderr"), files }
    }
}

/// Effects of all units, every one of which has been started before the first goes on; and how long each took from then.
pub fn crowd(world: &World, units: &[Unit], client: Option<&str>) -> (Vec<Effect>, Vec<Duration>) {
    let (gate, open) = std::io::pipe().expect("a pipe");
    let start = |unit: &Unit| {
        let gate = Stdio::from(gate.try_clone().expect("a descriptor"));
        unit.waiting(world, client, gate).spawn().expect("a client")
    };
    let children: Vec<_> = units.iter().map(start).collect();
    let began = Instant::now();
    drop(open);
    std::thread::scope(|scope| {
        let end = |(unit, mut child): (_, std::process::Child)| {
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            let wait = move || {
                let status = child.wait().expect("a status");
                (Unit::effect(unit, world, status.code()), began.elapsed())
            };
            thread.spawn_scoped(scope, wait).expect("a thread")
        };
        let all: Vec<_> = units.iter().zip(children).map(end).collect();
        all.into_iter().map(|thread| thread.join().expect("an effect")).unzip()
    })
}

/// The same, a few at a time.
pub fn bare(world: &World, units: &[Unit]) -> Vec<Effect> {
    units.chunks(BARE).flat_map(|some| crowd(world, some, None).0).collect()
}

/// The time within which so many in a thousand were done.
pub fn within(times: &[Duration], per_mille: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * per_mille / 1000).min(sorted.len() - 1)]
}
