//! The service under a real systemd user manager: installed, started by the first compile, restarted after it was
//! killed, removed; and no build harmed meanwhile.

mod harness;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harness::{World, run, stdout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A user manager of this world's own.
struct Manager(Child);

impl Manager {
    fn start(world: &World) -> Self {
        // systemd asks whether it runs the system; its user manager works without.
        std::fs::create_dir_all("/run/systemd/system").expect("run as root, or under systemd");
        let manager = settled(world, "/lib/systemd/systemd").arg("--user").spawn().expect("systemd is installed");
        let until = Instant::now() + Duration::from_secs(20);
        while !world.path("run/systemd/private").exists() {
            assert!(Instant::now() < until, "the user manager does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(manager)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A command that finds store and socket as the service does: by the configuration file.
fn settled(world: &World, program: &str) -> Command {
    let mut command = world.command(program);
    command.env_remove("ZCACHE_DIR").env("HOME", world.path("home")).env_remove("DBUS_SESSION_BUS_ADDRESS");
    command.env("CARGO_HOME", std::env::var_os("CARGO_HOME").unwrap_or_else(|| home().join(".cargo").into()));
    command.env("RUSTUP_HOME", std::env::var_os("RUSTUP_HOME").unwrap_or_else(|| home().join(".rustup").into()));
    command
}

fn home() -> std::path::PathBuf {
    std::env::var_os("HOME").expect("HOME").into()
}

fn zcache(world: &World, arguments: &str) -> Command {
    let mut command = settled(world, harness::ZCACHE);
    command.args(arguments.split_whitespace());
    command
}

fn report(world: &World) -> serde_json::Value {
    serde_json::from_slice(&run(&mut zcache(world, "status --json")).stdout).unwrap()
}

fn build(world: &World) {
    world.remove("p/target");
    let mut cargo = settled(world, "cargo");
    run(cargo.arg("build").env("RUSTC_WRAPPER", harness::CLIENT).current_dir(world.path("p")));
    assert_eq!(stdout(&mut world.command(world.path("p/target/debug/p"))), "built");
}

#[test]
#[ignore = "needs systemd"]
fn the_service_starts_with_the_first_compile_and_again_after_a_kill() {
    let world = World::new();
    let store = world.path("store").display().to_string();
    world.write(&[
        ("config/zcache/config.toml", &format!("dir = {store:?}\n")),
        ("p/Cargo.toml", "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("p/src/main.rs", "fn main() { print!(\"built\") }"),
    ]);
    let _manager = Manager::start(&world);
    run(&mut zcache(&world, "service install"));
    assert!(report(&world)["daemon"].is_null(), "nothing runs before it is needed");
    build(&world);
    let first = report(&world);
    assert_eq!(first["daemon"]["activation"], "systemd", "{first}");
    assert!(first["totals"]["stored"].as_u64() > Some(0), "{first}");
    let pid = first["daemon"]["pid"].as_u64().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    build(&world);
    build(&world);
    let second = report(&world);
    assert_eq!(second["daemon"]["activation"], "systemd", "{second}");
    assert_ne!(second["daemon"]["pid"], first["daemon"]["pid"]);
    assert!(second["totals"]["hits"].as_u64() > Some(0), "what was stored is still there: {second}");
    run(&mut zcache(&world, "service uninstall"));
    assert!(report(&world)["daemon"].is_null());
    let left: Vec<_> =
        harness::files(&world.path("config/systemd")).into_keys().filter(|path| path.is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
    build(&world);
}

#[test]
#[ignore = "needs systemd"]
fn the_units_are_well_formed() {
    let world = World::new();
    let unit = std::fs::read_to_string("deploy/zcached.service").unwrap();
    world.write(&[("zcached.service", &unit.replace("/usr/bin/zcached", harness::ZCACHED))]);
    std::fs::copy("deploy/zcached.socket", world.path("zcached.socket")).unwrap();
    let mut verify = world.command("systemd-analyze");
    let output = run(verify.args(["--user", "verify"]).args(["zcached.service", "zcached.socket"]));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
