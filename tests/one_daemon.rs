//! One daemon: which daemon serves a store, wherever a command comes from and whatever became of earlier ones; who may
//! have its socket's directory; and when it leaves.

mod fixture;
mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixture::settle;
use harness::{CLIENT, World, ZCACHED, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A world with a source.
fn world() -> World {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int f(void) { return 1; }\n")]));
    world
}

/// One compile through zcache.
fn compile(world: &World) -> Command {
    world.remove("p/x.o");
    let mut command = world.command(CLIENT);
    command.args(["gcc", "-c", "x.c"]).current_dir(world.path("p"));
    command
}

/// A daemon that is this process's child, so that it is not collected before [`Child::wait`].
fn child_daemon(world: &World, arguments: &[&str]) -> Child {
    let mut command = world.command(ZCACHED);
    let daemon = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it serves", || !world.status()["daemon"].is_null());
    daemon
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

/// The first process of a container may never collect a daemon that was killed.
#[test]
fn a_daemon_that_is_over_and_not_collected_is_replaced() {
    let stopped: &[Signal] = &[Signal::SIGSTOP, Signal::SIGKILL];
    for signals in [&[Signal::SIGKILL][..], stopped, &[Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGKILL]] {
        let world = world();
        let mut daemon = child_daemon(&world, &[]);
        run(&mut compile(&world));
        world.status();
        for signal in signals {
            kill(Pid::from_raw(daemon.id().cast_signed()), *signal).unwrap();
            let expected = if *signal == Signal::SIGKILL { 'Z' } else { 'T' };
            until("it is so", || state(daemon.id()) == expected);
            // While it is stopped, this leaves the note that clients do without.
            run(&mut compile(&world));
        }
        until("another serves", || {
            run(&mut compile(&world));
            !world.status()["daemon"].is_null()
        });
        assert_eq!(state(daemon.id()), 'Z', "{signals:?}");
        let before = world.status();
        run(&mut compile(&world));
        assert_eq!(world.since(&before).hits, 1, "{signals:?}: {}", world.log());
        daemon.wait().unwrap();
    }
}

/// Who refuses a socket's directory and who does not is one rule: never does a client wait for a daemon that will not come.
#[test]
fn client_daemon_and_command_agree_on_the_sockets_directory() {
    for mode in [0o700, 0o500, 0o1700, 0o750, 0o710, 0o705, 0o755, 0o770, 0o777] {
        let world = world();
        let dir = world.path("sockets");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        let socket = dir.join("z.sock");
        let with = |mut command: Command| {
            command.env("ZCACHE_SOCKET", &socket);
            command
        };
        let is_private = mode & 0o077 == 0;
        for _ in 0..2 {
            let began = Instant::now();
            run(&mut with(compile(&world)));
            // No daemon was started in vain.
            assert!(is_private || began.elapsed() < Duration::from_millis(800), "{mode:o}: {:?}", began.elapsed());
        }
        let text = |line: &str| {
            let output = with(world.zcache(line)).output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.success(), format!("{out} {err}").split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let by_hand = || String::from_utf8(with(world.command(ZCACHED)).output().unwrap().stderr).unwrap();
        let remedy = format!("chmod 700 {}", dir.display());
        match is_private {
            true => assert!(text("status").1.contains("1 hit "), "{mode:o}: {}", text("status").1),
            false => {
                for said in [text("status").1, text("start").1, text("run true").1, by_hand()] {
                    assert!(said.contains(&remedy), "{mode:o}: {said}");
                }
                assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{mode:o}: nothing is put there");
            }
        }
        assert_eq!(text("start").0, is_private, "{mode:o}");
        with(world.zcache("stop")).output().unwrap();
    }
}

/// A daemon that serves the store is none for clients that no way leads to it.
#[test]
fn nobody_says_that_the_cache_works_where_it_does_not() {
    let world = world();
    run(&mut compile(&world));
    let open = world.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    let said = |line: &str, name: &str, value: &std::ffi::OsStr| {
        let output = world.zcache(line).env(name, value).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for line in ["status", "status --json", "run gcc -c p/x.c"] {
        let text = said(line, "ZCACHE_SOCKET", open.join("z.sock").as_os_str());
        assert!(text.contains("chmod 700"), "{line}: {text}");
        let text = said(line, "ZCACHE_DISABLE", "1".as_ref());
        assert!(text.contains("ZCACHE_DISABLE is set"), "{line}: {text}");
        let text = said(line, "ZCACHE_DISABLE", "0".as_ref());
        assert!(!text.contains("ZCACHE_DISABLE"), "{line}: {text}");
    }
    assert!(said("run true", "ZCACHE_SOCKET", open.join("z.sock").as_os_str()).contains("without the cache"));
}

/// Only who asks for a daemon by name has one that stays.
#[test]
fn what_a_build_started_leaves_with_the_builds() {
    for (line, activation) in [("run true", "client"), ("run gcc -c p/x.c", "client"), ("start", "manual")] {
        let world = world();
        run(&mut world.zcache(line));
        assert_eq!(world.status()["daemon"]["activation"], activation, "{line}");
        // One that is there already stays what it is.
        run(&mut world.zcache("run true"));
        run(&mut compile(&world));
        assert_eq!(world.status()["daemon"]["activation"], activation, "{line}");
    }
}

/// Root in the surroundings of the user who called sudo leaves nothing in his way.
#[test]
#[ignore = "needs root, to be two users"]
fn what_sudo_runs_leaves_nothing_in_the_callers_home() {
    const CALLER: u32 = 65_533;
    let world = world();
    chown(world.path("home"), Some(CALLER), Some(CALLER)).unwrap();
    for line in ["client", "run"] {
        for store in ["", "own-store"] {
            let mut command = if line == "client" { compile(&world) } else { world.zcache("run gcc -c p/x.c") };
            command.env("HOME", world.path("home")).env("SUDO_UID", CALLER.to_string());
            for name in ["ZCACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
                command.env_remove(name);
            }
            let text = if store.is_empty() { String::new() } else { format!("dir = {:?}", world.path(store)) };
            world.write(&[("config/zcache/config.toml", &text)]);
            run(&mut command);
            assert_eq!(fs::read_dir(world.path("home")).unwrap().count(), 0, "{line} {store:?}: {}", world.log());
            for pid in world.daemons() {
                kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
            }
            world.wait_until_gone();
        }
    }
    assert_eq!(fs::metadata(world.path("home")).unwrap().uid(), CALLER);
}
