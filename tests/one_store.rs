//! One store, one daemon: from whatever surroundings a command comes, and by whatever name it calls the store, it finds the
//! daemon that serves it, or says why it cannot.

mod fixture;
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fixture::settle;
use harness::{CLIENT, World, ZCACHED, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Surroundings: what the variables are, `{}` being the world's directory; an empty value unsets.
type Surroundings = &'static [(&'static str, &'static str)];

/// Where the daemon is started.
const HERE: Surroundings = &[];

/// Other ways to the same store.
const ELSEWHERE: &[Surroundings] = &[
    &[("XDG_RUNTIME_DIR", "{}/run2")],
    &[("XDG_RUNTIME_DIR", "{}/none/deep")],
    &[("XDG_RUNTIME_DIR", "")],
    &[("XDG_RUNTIME_DIR", "relative")],
    &[("ZCACHE_SOCKET", "{}/run2/other.sock")],
    &[("ZCACHE_DIR", "{}/linked-store")],
    &[("ZCACHE_DIR", "{}/store/")],
    &[("ZCACHE_DIR", "{}/run/..//store/.")],
    &[("ZCACHE_DIR", "{}/linked-store"), ("XDG_RUNTIME_DIR", "{}/run2")],
    &[("ZCACHE_DIR", ""), ("XDG_CACHE_HOME", "{}/caches")],
    &[("ZCACHE_DIR", ""), ("XDG_CACHE_HOME", ""), ("HOME", "{}/home")],
    &[("ZCACHE_DIR", ""), ("XDG_CONFIG_HOME", "{}/config2"), ("XDG_RUNTIME_DIR", "{}/run2")],
];

fn world() -> World {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int f(void) { return 1; }\n")]));
    fs::DirBuilder::new().mode(0o700).create(world.path("run2")).unwrap();
    symlink("store", world.path("linked-store")).unwrap();
    for dir in ["caches", "home/.cache"] {
        fs::create_dir_all(world.path(dir)).unwrap();
        symlink(world.path("store"), world.path(dir).join("zcache")).unwrap();
    }
    world.write(&[("config2/zcache/config.toml", &format!("dir = {:?}\n", world.path("store")))]);
    world
}

fn with(world: &World, around: Surroundings, mut command: Command) -> Command {
    for (name, value) in around {
        match *value {
            "" => command.env_remove(name),
            value => command.env(name, value.replace("{}", world.path("").to_str().unwrap().trim_end_matches('/'))),
        };
    }
    command
}

fn compile(world: &World, around: Surroundings) -> Command {
    world.remove("p/x.o");
    let mut command = world.command(CLIENT);
    command.args(["gcc", "-c", "x.c"]).current_dir(world.path("p"));
    with(world, around, command)
}

fn status(world: &World, around: Surroundings) -> Value {
    let output = run(&mut with(world, around, world.zcache("status --json")));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(world: &World, around: Surroundings, line: &str) -> String {
    let output = with(world, around, world.zcache(line)).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every daemon of this world, whichever runtime directory it knows.
fn daemons(world: &World) -> Vec<Pid> {
    let mine = world.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let is_mine = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        name.trim() == "zcached" && String::from_utf8_lossy(&environment).contains(&mine)
    };
    numbers.filter(is_mine).map(Pid::from_raw).collect()
}

/// Ends what a world's [`Drop`] does not know, and removes what was put in `/tmp`.
struct Cleaner<'a>(&'a World);

impl Drop for Cleaner<'_> {
    fn drop(&mut self) {
        daemons(self.0).into_iter().for_each(|pid| _ = kill(pid, Signal::SIGKILL));
        let common = PathBuf::from(format!("/tmp/zcache-{}", nix::unistd::getuid()));
        let env = |name: &str| (name == "ZCACHE_DIR").then(|| self.0.path("store").into());
        let socket = zcache_proto::endpoint::Endpoint::from_env(env, nix::unistd::getuid().as_raw()).socket;
        assert!(socket.starts_with(common));
        for extension in ["sock", "lock", "log", "starting", "trouble", "link", "unasked"] {
            let _ = fs::remove_file(socket.with_extension(extension));
        }
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pid(report: &Value) -> u64 {
    report["daemon"]["pid"].as_u64().unwrap_or_else(|| panic!("no daemon in {report}"))
}

fn hits(report: &Value) -> u64 {
    report["totals"]["hits"].as_u64().unwrap()
}

#[test]
fn the_daemon_of_a_store_is_found_from_everywhere() {
    std::thread::scope(|scope| {
        for part in 0..3 {
            scope.spawn(move || ELSEWHERE.iter().skip(part).step_by(3).for_each(|around| found(around)));
        }
    });
}

fn found(around: Surroundings) {
    let world = world();
    let _cleaner = Cleaner(&world);
    run(&mut compile(&world, HERE));
    let here = status(&world, HERE);
    // People find it before any compile has looked for it.
    assert_eq!(pid(&status(&world, around)), pid(&here), "{around:?}");
    for round in 1..3 {
        run(&mut compile(&world, around));
        assert_eq!(hits(&status(&world, HERE)), round, "{around:?}: {}", world.log());
        assert_eq!(status(&world, around)["totals"], status(&world, HERE)["totals"], "{around:?}");
    }
    assert_eq!(daemons(&world).len(), 1, "{around:?}");
    for (line, expected) in [
        ("run -- gcc -c p/x.c", "compiling saved"),
        ("start", "already running"),
        ("verify", "0 damaged"),
        ("gc", "freed"),
        ("zero", "counters are zero"),
    ] {
        let said = text(&world, around, line);
        assert!(said.contains(expected), "{around:?}: {line}: {said}");
    }
    assert_eq!(status(&world, HERE)["totals"]["invocations"], 0, "{around:?}");
    let said = text(&world, around, "stop");
    assert!(said.contains(&format!("stopped: pid {}", pid(&here))), "{around:?}: {said}");
    assert!(!world.path("store/SOCKET").exists(), "{around:?}: nobody serves it");
    // Whoever is next starts one, which the others find in turn: after a stop, and after a kill, which tidies nothing up.
    for (first, second) in [(around, HERE), (HERE, around), (around, HERE)] {
        for round in 0..2 {
            let before = hits(&status(&world, if round == 0 { first } else { second }));
            run(&mut compile(&world, if round == 0 { first } else { second }));
            let after = status(&world, second);
            assert_eq!(hits(&after), before + 1, "{around:?}: {first:?}: {}", world.log());
            assert_eq!(daemons(&world).len(), 1, "{around:?}");
        }
        let all = daemons(&world);
        all.iter().for_each(|daemon| kill(*daemon, Signal::SIGKILL).unwrap());
        until("it is gone", || daemons(&world).is_empty());
    }
}

#[test]
fn clients_from_all_sides_at_once_come_to_one_daemon() {
    for _ in 0..5 {
        let world = world();
        let _cleaner = Cleaner(&world);
        let sides: Vec<Surroundings> = [HERE].into_iter().chain(ELSEWHERE.iter().copied()).collect();
        let line = format!("exec {CLIENT} /bin/true --crate-name x");
        let start = |around: &Surroundings| {
            let mut command = world.command("sh");
            command.args(["-c", &line]);
            with(&world, around, command).spawn().unwrap()
        };
        let clients: Vec<_> = (0..3).flat_map(|_| sides.iter().map(start).collect::<Vec<_>>()).collect();
        let number = clients.len() as u64;
        clients.into_iter().for_each(|mut client| assert!(client.wait().unwrap().success()));
        until("one daemon is left", || daemons(&world).len() == 1);
        let pids: BTreeSet<u64> = sides.iter().map(|around| pid(&status(&world, around))).collect();
        assert_eq!(pids.len(), 1, "{}", world.log());
        // Those that waited too long for it are counted as well.
        let counted = || status(&world, HERE)["totals"]["invocations"].as_u64() == Some(number);
        until("all are counted", counted);
    }
}

/// As in a container that has the store and not the socket.
#[test]
fn a_daemon_that_cannot_be_reached_is_named() {
    let world = world();
    let _cleaner = Cleaner(&world);
    run(&mut compile(&world, HERE));
    let open = |mode| fs::set_permissions(world.path("run/zcache"), fs::Permissions::from_mode(mode)).unwrap();
    open(0o755);
    let around: Surroundings = &[("XDG_RUNTIME_DIR", "{}/run2")];
    for _ in 0..3 {
        run(&mut compile(&world, around));
    }
    let socket = fs::read_to_string(world.path("store/SOCKET")).unwrap();
    for (line, why) in [("status", socket.trim()), ("run true", "chmod 700"), ("start", "chmod 700")] {
        let said = text(&world, around, line);
        assert!(said.contains(why), "{line}: {said}");
    }
    let said = text(&world, around, "status");
    assert!(said.contains("3 compiles ran without it"), "{said}");
    open(0o700);
    assert_eq!(status(&world, HERE)["totals"]["misses"], 1);
}

/// A daemon by hand that can have nothing to do says so; nobody waits for it.
#[test]
fn a_second_daemon_by_hand_names_the_first() {
    let world = world();
    run(&mut compile(&world, HERE));
    let around: Surroundings = &[("XDG_RUNTIME_DIR", "{}/run2")];
    let output = with(&world, around, world.command(ZCACHED)).output().unwrap();
    let (said, socket) =
        (String::from_utf8(output.stderr).unwrap(), fs::read_to_string(world.path("store/SOCKET")).unwrap());
    assert!(!output.status.success() && said.contains("in use") && said.contains(socket.trim()), "{said}");
    assert_eq!(daemons(&world).len(), 1);
}

/// Who waits at systemd's socket can be led nowhere, so that its daemon has the right of way.
#[test]
#[ignore = "needs systemd-socket-activate"]
fn the_daemon_of_systemds_socket_takes_the_store_over() {
    let world = world();
    let _cleaner = Cleaner(&world);
    let around: Surroundings = &[("ZCACHE_SOCKET", "{}/run2/other.sock")];
    run(&mut compile(&world, around));
    let first = pid(&status(&world, around));
    let socket = world.path("run2/unit.sock");
    let mut manager = world.command("systemd-socket-activate");
    manager.arg("-l").arg(&socket);
    let unit: Surroundings = &[("ZCACHE_SOCKET", "{}/run2/unit.sock")];
    for name in ["ZCACHE_SOCKET", "ZCACHE_DIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "ZCACHE_LOG"] {
        manager.args(["-E", name]);
    }
    manager.arg(ZCACHED);
    let mut manager = with(&world, unit, manager).spawn().unwrap();
    until("systemd listens", || socket.exists());
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    until("it is served", || {
        run(&mut compile(&world, unit));
        let report = status(&world, unit);
        report["daemon"]["activation"] == "systemd" && pid(&report) != first && hits(&report) > 0
    });
    let before = hits(&status(&world, unit));
    run(&mut compile(&world, around));
    assert_eq!((hits(&status(&world, unit)), daemons(&world).len()), (before + 1, 1));
    let _ = fs::remove_file(socket.with_extension("trouble"));
    manager.kill().unwrap();
    manager.wait().unwrap();
}
