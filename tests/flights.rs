//! Flights: two builds that need the same compile run it once, and the second waits only for a first that lives and
//! moves.

mod fixture;
mod harness;

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fixture::{LINKINGS, reasons, rustc_in, write_macro};
use harness::{World, run, stdout};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A crate that compiles for two seconds, in two checkouts.
fn slow() -> World {
    let world = World::new();
    let body = "std::thread::sleep(std::time::Duration::from_secs(4)); \"slow\".into()";
    write_macro(&world, body, LINKINGS[0]);
    run(world.command("cp").args(["-r", "p", "q"]));
    // A daemon is there.
    run(&mut world.rustc("-vV"));
    std::thread::sleep(Duration::from_millis(20));
    world
}

/// Compiles in one checkout, in a process group of its own.
fn start(world: &World, dir: &str) -> Child {
    let arguments = "app.rs --crate-name app --edition 2021 --extern mac=libmac.so --out-dir out";
    let mut command = rustc_in(world, dir, true, arguments);
    command.process_group(0).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_in_time(mut child: Child, seconds: u64, world: &World) {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{}", world.log());
            return;
        }
        if Instant::now() > until {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
            panic!("it waits for ever\n{}", world.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until so many invocations run.
fn until_running(world: &World, invocations: u64) {
    let until = Instant::now() + Duration::from_secs(5);
    while world.total("invocations") < invocations {
        assert!(Instant::now() < until, "{}", world.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    // A moment to reach the compile, or to begin to wait.
    std::thread::sleep(Duration::from_millis(500));
}

fn says_slow(world: &World, dir: &str) {
    assert_eq!(stdout(&mut world.command(world.path(&format!("{dir}/out/app")))), "slow");
}

#[test]
fn two_builds_compile_once() {
    for dirs in [["p", "p"], ["p", "q"]] {
        let world = slow();
        let first = start(&world, dirs[0]);
        until_running(&world, 2);
        let second = start(&world, dirs[1]);
        wait_in_time(first, 30, &world);
        wait_in_time(second, 30, &world);
        dirs.iter().for_each(|dir| says_slow(&world, dir));
        assert_eq!((world.total("misses"), world.total("hits")), (2, 1), "{}\n{}", reasons(&world), world.log());
        assert_eq!(world.total("stored"), 2, "{}", reasons(&world));
    }
}

#[test]
fn four_builds_at_once_compile_once() {
    let world = slow();
    let all: Vec<_> = (0..4).map(|_| start(&world, "p")).collect();
    all.into_iter().for_each(|child| wait_in_time(child, 30, &world));
    says_slow(&world, "p");
    assert_eq!((world.total("misses"), world.total("hits")), (2, 3), "{}\n{}", reasons(&world), world.log());
}

#[test]
fn the_second_compiles_where_the_first_is_killed() {
    let world = slow();
    let mut first = start(&world, "p");
    until_running(&world, 2);
    let second = start(&world, "q");
    until_running(&world, 3);
    // The client alone, not its compiler.
    kill(Pid::from_raw(first.id() as i32), Signal::SIGKILL).unwrap();
    first.wait().unwrap();
    wait_in_time(second, 30, &world);
    says_slow(&world, "q");
    assert_eq!((world.total("misses"), world.total("hits")), (3, 0), "{}\n{}", reasons(&world), world.log());
}

#[test]
fn the_second_does_not_wait_for_a_first_that_is_stopped() {
    let world = slow();
    let first = start(&world, "p");
    until_running(&world, 2);
    let second = start(&world, "q");
    until_running(&world, 3);
    let group = Pid::from_raw(first.id() as i32);
    killpg(group, Signal::SIGSTOP).unwrap();
    wait_in_time(second, 10, &world);
    says_slow(&world, "q");
    // A third comes while the first is still stopped.
    world.remove("q/out");
    wait_in_time(start(&world, "q"), 10, &world);
    says_slow(&world, "q");
    killpg(group, Signal::SIGCONT).unwrap();
    wait_in_time(first, 30, &world);
    says_slow(&world, "p");
}

#[test]
fn the_second_compiles_where_the_first_fails() {
    let world = slow();
    let body = "std::thread::sleep(std::time::Duration::from_secs(3));
        if std::fs::remove_file(\"data/fail\").is_ok() { panic!(\"once\") } \"slow\".into()";
    write_macro(&world, body, LINKINGS[0]);
    world.write(&[("p/data/fail", "")]);
    let mut first = start(&world, "p");
    until_running(&world, 2);
    let second = start(&world, "p");
    assert!(!first.wait().unwrap().success());
    wait_in_time(second, 30, &world);
    says_slow(&world, "p");
    assert_eq!((world.total("misses"), world.total("hits")), (3, 0), "{}\n{}", reasons(&world), world.log());
}
