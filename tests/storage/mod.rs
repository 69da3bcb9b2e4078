//! Storage: a small build, compared with bare, and the ways in which a disk fails it: mounts, limits, and a library that
//! makes the daemon's calls fail. Knows the harness, not what has to come of it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::settle;
use crate::harness::{CLIENT, Counts, Effect, World, assert_same, effect, run};

/// Compiles of two languages in a directory of their own: objects, which are copied, and a library, which is linked.
pub struct Bench {
    pub world: World,
    /// Where the store is.
    pub store: PathBuf,
    sources: Vec<String>,
    /// What bare makes of them.
    bare: Effect,
}

impl Bench {
    /// Two objects, one of 3 MB, and a library.
    pub fn new() -> Self {
        Self::apart(World::new())
    }

    /// The same in a world whose directories are something of their own.
    pub fn apart(world: World) -> Self {
        let big = "const char big[3 << 20] = {1}; int answer(void) { return 42; }\n";
        Self::of(world, &[("big.c", big), ("small.c", "int x = 7;\n"), ("lib.rs", "pub fn f() -> u8 { 3 }\n")])
    }

    /// Two small objects: what is quick to build a hundred times.
    pub fn small() -> Self {
        Self::of(World::new(), &[("a.c", "int a = 1;\n"), ("b.c", "int b(void) { return 2; }\n")])
    }

    /// A build of these sources.
    pub fn of(world: World, sources: &[(&str, &str)]) -> Self {
        let files: Vec<_> = sources.iter().map(|(name, text)| (format!("w/{name}"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        settle(&|| world.write(&files));
        let names = sources.iter().map(|(name, _)| (*name).to_owned()).collect();
        let nothing = Effect { code: None, stdout: String::new(), stderr: String::new(), files: Default::default() };
        let mut bench = Self { store: world.path("store"), world, sources: names, bare: nothing };
        bench.learn();
        bench
    }

    /// Gives every source another content, so that nothing of it is stored.
    pub fn renew(&mut self, number: usize) {
        for name in &self.sources {
            let text = match name.ends_with(".rs") {
                true => format!("pub fn g{number}() -> usize {{ {number} }}\n"),
                false => format!("const char big{number}[1 << 20] = {{1}}; int answer{number} = {number};\n"),
            };
            self.world.write(&[(&format!("w/{name}"), &text)]);
        }
        settle(&|| ());
        self.learn();
    }

    fn learn(&mut self) {
        self.bare = self.build(false);
        assert_eq!(self.bare.code, Some(0), "bare builds: {}", self.bare.stderr);
    }

    /// The build's effect, from nothing.
    pub fn build(&self, cached: bool) -> Effect {
        // A mount stays, and what is in it goes.
        self.world.remove("w/out");
        fs::create_dir_all(self.world.path("w/out")).expect("a directory");
        effect(&mut self.command(cached), &self.world.path("w/out"))
    }

    /// The build, which ends in any case.
    pub fn command(&self, cached: bool) -> Command {
        let client = if cached { CLIENT } else { "" };
        let rustc = crate::harness::rustc().display();
        let compile = |name: &String| match name.strip_suffix(".rs") {
            Some(stem) => format!("{client} {rustc} --crate-type lib {name} -o out/lib{stem}.rlib"),
            None => format!("{client} gcc -c {name} -o out/{name}.o"),
        };
        let lines: Vec<String> = self.sources.iter().map(compile).collect();
        let mut command = self.world.command("timeout");
        command.args(["60", "bash", "-c", &format!("set -e\n{}", lines.join("\n"))]);
        command.current_dir(self.world.path("w")).env("ZCACHE_DIR", &self.store).env("ZCACHE_LOG", "info");
        command
    }

    /// Builds and compares: nothing may be other than bare, whatever is wrong.
    pub fn is_right(&self, what: &str) {
        assert_same(&self.bare, &self.build(true), what);
    }

    /// The same, counted by the daemon that is there.
    pub fn counted(&self, what: &str) -> Counts {
        let before = self.status();
        self.is_right(what);
        let now = self.status();
        let of = |name: &str| number(&now["totals"][name]) - number(&before["totals"][name]);
        Counts { hits: of("hits"), misses: of("misses"), bypasses: of("bypasses") }
    }

    /// Builds until all of it is served, twenty seconds at most.
    pub fn serves_again(&self, what: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.counted(what).hits < self.sources.len() as u64 {
            assert!(Instant::now() < until, "{what}: {}\n{}", self.status(), self.world.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The report, with all that was committed before.
    pub fn status(&self) -> Value {
        let output = run(self.world.zcache("status --json").env("ZCACHE_DIR", &self.store));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What `zcache status` prints for people.
    pub fn report(&self) -> String {
        let output = self.world.zcache("status").env("ZCACHE_DIR", &self.store).output().expect("a report");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Ends the daemon.
    pub fn stop(&self) {
        run(self.world.zcache("stop").env("ZCACHE_DIR", &self.store));
        self.world.wait_until_gone();
    }

    /// A daemon started by `program` with these arguments before its own, serving.
    pub fn daemon(&self, program: &str, arguments: &[&str], env: &[(&str, &str)]) -> Child {
        let mut command = self.world.command(program);
        command.args(arguments).env("ZCACHE_DIR", &self.store).envs(env.iter().copied()).env("ZCACHE_LOG", "info");
        fs::create_dir_all(self.world.path("run/zcache")).expect("a directory");
        run(self.world.command("chmod").args(["700", "run/zcache"]));
        let log = fs::File::create(self.world.path("run/zcache/own.log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("a daemon");
        let until = Instant::now() + Duration::from_secs(20);
        while self.status()["daemon"].is_null() {
            assert!(Instant::now() < until, "no daemon: {}", self.world.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// Whether the daemon is the one it was, is not busy, and did not fill its log or panic.
    pub fn is_calm(&self, pid: u32, what: &str) {
        assert_eq!(self.world.daemons(), [pid], "{what}: {}", self.world.log());
        let busy = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
            let fields: Vec<u64> =
                stat.rsplit(") ").next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
            fields[10] + fields[11]
        };
        let before = busy(pid);
        std::thread::sleep(Duration::from_millis(500));
        assert!(busy(pid) - before < 25, "{what}: the daemon spins");
        let log = self.world.log();
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
}

/// A number in a report.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The refusals of a report by one word.
pub fn refused(report: &Value, word: &str) -> u64 {
    number(&report["refusal_reasons"][word])
}

/// Something mounted, until this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// `mount` with these arguments and `at`.
    pub fn new(arguments: &str, at: &Path) -> Self {
        fs::create_dir_all(at).expect("a directory");
        run(Command::new("mount").args(arguments.split(' ')).arg(at));
        Self(at.to_owned())
    }

    /// A file system of its own, of a kind.
    pub fn image(kind: &str, file: &Path, at: &Path) -> Self {
        run(Command::new("truncate").args(["-s", "320M"]).arg(file));
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(file));
        Self::new(&format!("-o loop {}", file.display()), at)
    }

    /// What is at `at` once more, read-only.
    pub fn read_only(at: &Path) -> Self {
        let mount = Self::new(&format!("--bind {}", at.display()), at);
        mount.again("remount,ro,bind");
        mount
    }

    /// Mounts it with other options.
    pub fn again(&self, options: &str) {
        let mut remount = Command::new("mount");
        remount.args(["-o", options]).arg(&self.0);
        // It is busy while somebody writes a file.
        let mut tries = 0..100;
        while tries.next().is_some() && !remount.output().is_ok_and(|output| output.status.success()) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!tries.is_empty(), "{remount:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A library that makes calls fail, and the file that tells it which.
pub struct Injector {
    library: String,
    order: PathBuf,
}

impl Injector {
    /// Builds it.
    pub fn new(world: &World) -> Self {
        world.write(&[("inject.c", include_str!("inject.c"))]);
        run(world.command("gcc").args(["-shared", "-fPIC", "-O1", "-o", "inject.so", "inject.c", "-ldl"]));
        Self { library: world.path("inject.so").display().to_string(), order: world.path("order") }
    }

    /// What a daemon needs in its environment.
    pub fn env(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("INJECT", self.order.to_str().expect("UTF-8"))]
    }

    /// From now on each of `calls` on a file whose path contains `place` fails with `errno`.
    pub fn fail(&self, calls: &str, errno: i32, place: &str) {
        let new = self.order.with_extension("new");
        fs::write(&new, format!("{errno} {place} {calls} ")).expect("an order");
        fs::rename(new, &self.order).expect("an order");
    }

    /// All is well again.
    pub fn relent(&self) {
        let _ = fs::remove_file(&self.order);
    }
}
