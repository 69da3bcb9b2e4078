//! Limits: what a shell, a container or an administrator allows a process (`ulimit`). A build has the effect of bare under
//! the same limit, in bounded time, whether it is the client's limit or the daemon's.

mod crowd;
mod faults;
mod fixture;
mod harness;
mod storage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crowd::{bare, c, crowd};
use faults::until;
use fixture::settle;
use harness::{CLIENT, Effect, World, ZCACHED, assert_same, effect, run, rustc, stdout};
use nix::sys::signal::Signal;

/// The user of a build whose processes are counted.
const USER: u32 = 65_532;
/// How long a build may take, whatever is allowed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compiles one after another and beside each other, in two languages.
struct Build {
    world: World,
    client: String,
    user: Option<u32>,
}

impl Build {
    fn new(user: Option<u32>) -> Self {
        let world = World::new();
        let c = |n: usize| (format!("p/{n}.c"), format!("#include \"h.h\"\nint f{n}(void) {{ return N + {n}; }}\n"));
        let sources: Vec<_> = (0..5).map(c).collect();
        settle(&|| {
            sources.iter().for_each(|(name, text)| world.write(&[(name, text)]));
            world.write(&[("p/h.h", "#define N 1\n"), ("p/l.rs", "struct L;\n"), ("p/out/.keep", "")]);
        });
        let mut build = Self { world, client: CLIENT.to_owned(), user };
        if let Some(user) = user {
            build.give_to(user);
        }
        build
    }

    /// Makes all of it the user's, and the programs theirs to run.
    fn give_to(&mut self, user: u32) {
        let world = &self.world;
        fs::create_dir(world.path("bin")).unwrap();
        for program in [CLIENT, ZCACHED] {
            fs::copy(program, world.path("bin").join(Path::new(program).file_name().unwrap())).unwrap();
        }
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["store", "run", "config", "home", "p", "p/out"] {
            chown(world.path(name), Some(user), Some(user)).unwrap();
        }
        self.client = world.path("bin/zcache-client").display().to_string();
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.world.command("timeout");
        command.args(["60", "bash", "-c", script]).current_dir(self.world.path("p"));
        if let Some(user) = self.user {
            command.uid(user).gid(user).env("HOME", self.world.path("home")).env_remove("XDG_CACHE_HOME");
        }
        command
    }

    /// The build's effect under a limit of bash's `ulimit`, from nothing.
    fn effect(&self, cached: bool, limit: &str) -> Effect {
        let out = self.world.path("p/out");
        self.world.remove("p/out");
        fs::create_dir(&out).unwrap();
        chown(&out, self.user, self.user).unwrap();
        let client = if cached { &self.client } else { "" };
        // The toolchain may be another user's.
        let rustc = if self.user.is_some() {
            "gcc -S -x c".to_owned()
        } else {
            format!("{} --crate-type lib", rustc().display())
        };
        let script = format!(
            "ulimit {limit}
            {client} gcc -c 0.c -o out/0.o -MD; a=$?
            {client} {rustc} l.rs -o out/l; b=$?
            for n in 1 2 3 4; do {client} gcc -c $n.c -o out/$n.o & j=\"$j $!\"; done
            for i in $j; do wait $i || c=$?; done
            exec echo $a $b $c"
        );
        let began = Instant::now();
        let effect = effect(&mut self.shell(&script), &out);
        assert!(began.elapsed() < PATIENCE, "{limit}: {:?}", began.elapsed());
        effect
    }

    /// Builds three times under a limit, each time as bare.
    fn is_as_bare(&self, limit: &str, what: &str) {
        let bare = self.effect(false, limit);
        for round in ["first", "second", "third"] {
            let got = self.effect(true, limit);
            assert_eq!(got.stdout, bare.stdout, "{what}, {round} build: how its compiles ended\n{}", got.stderr);
            // One that fails may leave what has another name each time.
            if bare.stdout.trim() == "0 0" {
                assert_same(&bare, &got, &format!("{what}, {round} build\n{}", self.world.log()));
            }
        }
    }

    /// Whether all of it is served once there is a daemon without limits.
    fn is_served(&self, what: &str) {
        for pid in self.world.daemons() {
            faults::send(pid.cast_signed(), Signal::SIGKILL);
        }
        // That none started counts for a minute.
        let _ = fs::remove_file(faults::socket(&self.world).with_extension("trouble"));
        until(what, &self.world, || {
            let before = self.world.status();
            self.is_as_bare("-c 0", what);
            self.world.since(&before).hits >= 18
        });
    }

    /// A daemon that this program, with these arguments before it, starts.
    fn daemon(&self, limit: &str) -> Child {
        let (daemon, log) = (self.client.replace("zcache-client", "zcached"), self.world.path("run/daemon.log"));
        let mut command = self.shell(&format!("ulimit {limit}; exec {daemon}"));
        command.stdout(Stdio::null()).stderr(fs::File::create(log).unwrap());
        let child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        child
    }
}

/// Limits of a whole build.
const LIMITS: &[&str] = &[
    "-n 32",
    "-n 16",
    "-n 10",
    "-v 1000000",
    "-v 200000",
    "-v 64000",
    "-f 0",
    "-f 60",
    "-f 1000",
    "-s 256",
    "-t 60",
    "-i 4",
];

#[test]
fn a_limit_of_the_build_is_no_other_than_without_zcache() {
    for limit in LIMITS {
        let build = Build::new(None);
        build.is_as_bare(limit, limit);
        println!("{limit}: {}", build.world.status()["totals"]);
        build.is_served(limit);
    }
}

/// The kernel ends who writes beyond this limit: the compiler, which says so, and never the client.
#[test]
fn what_may_not_be_written_the_compiler_fails_to_write() {
    let build = Build::new(None);
    build.is_served("warm");
    for limit in ["-f 0", "-f 1", "-f 4", "-f 60"] {
        build.is_as_bare(limit, limit);
    }
    build.is_served("without a limit");
}

/// Limits of the daemon alone.
const DAEMONS: &[&str] = &["-n 32", "-n 16", "-n 8", "-v 400000", "-v 200000", "-v 64000", "-s 64", "-t 1"];

#[test]
fn a_limit_of_the_daemon_costs_hits_only() {
    for limit in DAEMONS {
        let build = Build::new(None);
        let mut daemon = build.daemon(limit);
        for _ in 0..3 {
            build.is_as_bare("-c 0", limit);
        }
        let report = build.world.status();
        println!("daemon {limit}: {:?} {} {}", daemon.try_wait(), report["daemon"]["pid"], report["totals"]);
        build.is_served(limit);
        daemon.wait().unwrap();
    }
}

/// Each client is a descriptor of the daemon's, and so is each file that it reads for one.
#[test]
fn a_daemon_with_few_descriptors_stands_a_crowd() {
    let build = Build::new(None);
    let world = &build.world;
    let units: Vec<_> = (0..100).map(|client| c(world, client, client)).collect();
    let bare = bare(world, &units);
    let mut daemon = build.daemon("-n 32");
    for round in ["first", "second", "third"] {
        let (effects, times) = crowd(world, &units, Some(CLIENT));
        let longest = times.into_iter().max().unwrap();
        println!("{round}: {longest:?}; {}", world.status()["totals"]);
        for (client, (want, got)) in bare.iter().zip(&effects).enumerate() {
            assert_same(want, got, &format!("{round} crowd, client {client}"));
        }
        assert!(longest < PATIENCE, "{round}: {longest:?}");
    }
    // Some may have lost patience, but none was taken for what it is not.
    let totals = &world.status()["totals"];
    assert_eq!((totals["bypasses"].as_u64(), totals["errors"].as_u64()), (Some(0), Some(0)), "{}", world.status());
    assert!(daemon.try_wait().unwrap().is_none(), "{}", world.log());
    let pid = faults::daemon(world);
    until("it serves what comes later", world, || {
        let before = world.total("hits");
        build.is_as_bare("-c 0", "after the crowds");
        world.total("hits") >= before + 18
    });
    assert_eq!(faults::daemon(world), pid, "the same daemon");
}

/// Eight packages and eight sources of C.
fn many_units() -> World {
    let world = World::new();
    for n in 0..8 {
        world.write(&[
            (&format!("w/m{n}/src/lib.rs"), &format!("pub fn f() -> usize {{ {n} }}\n")),
            (&format!("w/m{n}/Cargo.toml"), &format!("[package]\nname = \"m{n}\"\nedition = \"2024\"\n")),
            (&format!("w/{n}.c"), &format!("int f{n}(void) {{ return {n}; }}\n")),
        ]);
    }
    let rule = "t/%.o: %.c\n\t$(CC) -c $< -o $@\n";
    world.write(&[
        ("w/Cargo.toml", "[workspace]\nmembers = [\"m*\"]\nresolver = \"3\"\n"),
        ("w/Makefile", &format!("all: $(patsubst %.c,t/%.o,$(wildcard *.c))\n{rule}")),
    ]);
    world
}

/// How `line` ends in the directory `w`, and the objects and libraries that it makes.
fn drive(world: &World, line: &str, cached: bool, descriptors: usize) -> Effect {
    world.remove("w/t");
    fs::create_dir(world.path("w/t")).unwrap();
    let mut shell = world.command("bash");
    shell.args(["-c", &format!("ulimit -n {descriptors}; exec timeout 60 {line}")]).current_dir(world.path("w"));
    shell.env("CARGO_INCREMENTAL", "0").env("CC", "gcc");
    if cached {
        shell.env("RUSTC_WRAPPER", CLIENT).env("CC", format!("{CLIENT} gcc"));
    }
    let mut effect = effect(&mut shell, &world.path("w/t"));
    let is_result = |kind: &std::ffi::OsStr| kind == "o" || kind == "rlib";
    effect.files.retain(|name, _| name.extension().is_some_and(is_result));
    // They are in no order.
    effect.stdout.clear();
    effect
}

/// What drives a build needs descriptors as well, and the daemon that its first compile starts gets no more than it has.
#[test]
fn drivers_with_few_descriptors_build_as_without_zcache() {
    for line in ["make -j4", "cargo build -q -j4 --offline --target-dir t"] {
        let world = many_units();
        let passes = |descriptors: &usize| (0..3).all(|_| drive(&world, line, false, *descriptors).code == Some(0));
        // cargo itself needs some more for what happens to run at the same time.
        let spare = if line.starts_with("cargo") { 16 } else { 0 };
        let least = (32..1024).step_by(8).find(passes).unwrap() + spare;
        let bare = drive(&world, line, false, least);
        assert!(bare.files.len() >= 8, "{line}: {:?}", bare.files.keys());
        for round in 0..3 {
            let got = drive(&world, line, true, least);
            assert_same(&bare, &got, &format!("{line}, {least} descriptors, build {round}\n{}", world.log()));
        }
        println!("{line}: {least} descriptors; {}", world.status()["totals"]);
    }
}

#[test]
fn what_limits_keep_from_the_cache_is_counted() {
    let build = Build::new(None);
    let world = &build.world;
    build.is_as_bare("-v 200000", "no daemon");
    assert_eq!(world.daemons(), [0; 0], "it would have inherited the limit");
    let said = stdout(&mut world.zcache("status"));
    assert!(said.contains("ulimit"), "{said}");
    run(&mut world.zcache("start"));
    build.is_as_bare("-v 200000", "a daemon");
    assert_eq!(world.status()["bypass_reasons"]["tight_limits"], 18, "{}", world.status());
    build.is_served("without a limit");
}

/// Threads count as processes.
#[test]
#[ignore = "needs root, to be another user"]
fn a_limit_of_processes_is_no_other_than_without_zcache() {
    for number in [200, 64, 20] {
        let limit = format!("-u {number}");
        let build = Build::new(Some(USER));
        build.is_as_bare(&limit, &limit);
        let mut daemon = build.daemon(&limit);
        for _ in 0..2 {
            build.is_as_bare("-c 0", &format!("daemon {limit}"));
        }
        let _ = daemon.kill();
        daemon.wait().unwrap();
    }
}

/// An environment that leaves room for the compiler and not for what zcache adds.
#[test]
fn arguments_that_just_fit_fit_with_zcache() {
    let build = Build::new(None);
    let world = &build.world;
    fs::create_dir(world.path("links")).unwrap();
    std::os::unix::fs::symlink(CLIENT, world.path("links/gcc")).unwrap();
    // As many bytes of environment as a small stack allows.
    let compile = |cached: bool, bytes: usize| {
        world.remove("p/out/0.o");
        let line = "ulimit -s 1024; gcc -c 0.c -o out/0.o 2>&1; echo $? out/*";
        let mut shell = build.shell(line);
        let path = std::env::var("PATH").unwrap();
        // The same length with and without.
        let first = if cached { "links" } else { "other" };
        shell.env("PATH", format!("{}:{path}", world.path(first).display())).env("A", "a".repeat(131_000));
        shell.env("B", "b".repeat(bytes));
        String::from_utf8_lossy(&shell.output().unwrap().stdout).into_owned()
    };
    let passes = |bytes: usize| compile(false, bytes).ends_with("0 out/0.o\n");
    let (mut most, mut more) = (100_000, 131_000);
    assert!(passes(most) && !passes(more), "{}", compile(false, more));
    while more - most > 1 {
        let half = (most + more) / 2;
        (most, more) = if passes(half) { (half, more) } else { (most, half) };
    }
    println!("{most} bytes");
    let mut bypassed = 0;
    for less in (0..1200).step_by(30) {
        let (want, got) = (compile(false, most - less), compile(true, most - less));
        // The shell cannot start the client, whose path is longer than the compiler's.
        if got.contains("Argument list too long") && less < 60 + CLIENT.len() {
            bypassed += 1;
            continue;
        }
        assert_eq!(want, got, "{less} bytes less than the most");
    }
    assert!(bypassed < 10, "{bypassed}");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let world = World::new();
    world.write(&[("p/.keep", "")]);
    run(&mut world.zcache("start"));
    let limit = |bytes: &str| {
        let pid = format!("--pid={}", faults::daemon(&world));
        run(world.command("prlimit").args([&pid, &format!("--fsize={bytes}:unlimited")]));
    };
    let compile = |n: usize, text: &str| {
        settle(&|| world.write(&[(&format!("p/{n}.c"), text)]));
        let line = format!("gcc -c {n}.c -o {n}.o");
        run(world.command(CLIENT).args(line.split(' ')).current_dir(world.path("p")));
    };
    limit("1");
    // It has something to say about each: what cannot be stored, and what may not be.
    (0..8).for_each(|n| compile(n, &format!("int f(void) {{ return {n}; }}\n")));
    (8..12).for_each(|n| compile(n, "const char *f(void) { return __TIME__; }\n"));
    limit("unlimited");
    // The index may have failed as well, and is opened again after a while.
    until("the store is cleared", &world, || {
        let began = Instant::now();
        let cleared = world.zcache("clear").output().unwrap().status.success();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        cleared
    });
    until("it stores again", &world, || {
        let before = world.total("hits");
        (0..2).for_each(|_| compile(20, "int g(void) { return 20; }\n"));
        world.total("hits") > before
    });
}
