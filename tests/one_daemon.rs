//! One daemon: which daemon serves a store, wherever a command comes from and whatever became of earlier ones; who may
//! have its socket's directory; and when it leaves.

mod fixture;
mod harness;

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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
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
