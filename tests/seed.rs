//! The case that zcache exists for: cargo-zigbuild, real zig and real ring, cross-compiled, through a cache that the
//! compiler calls back into. `tests/seed/setup.sh` installs what it needs.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{CLIENT, World, ZCACHE, run};
use serde_json::Value;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Where the tools are.
fn tools() -> PathBuf {
    let named = std::env::var_os("ZCACHE_TEST_SEED").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/seed"));
    assert!(dir.join("old/bin/cargo-zigbuild").exists(), "run tests/seed/setup.sh {}", dir.display());
    dir
}

/// A world with the project in it.
fn world() -> World {
    let world = World::new();
    run(Command::new("cp")
        .args(["-r", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seed/project")])
        .arg(world.path("p")));
    world
}

/// Adds what every build here needs to a command: the version of cargo-zigbuild and Debian's rustc.
fn with_tools<'a>(command: &'a mut Command, version: &str, world: &World) -> &'a mut Command {
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", tools().join(version).join("bin").display()));
    command.env("RUSTC", "/usr/bin/rustc").env("ZIG_GLOBAL_CACHE_DIR", tools().join("zig"));
    command.env("HOME", world.path("home")).current_dir(world.path("p"))
}

/// `cargo zigbuild` with these variables; the program that comes out has to be one for aarch64.
fn builds(world: &World, version: &str, jobs: &str, variables: &[(&str, &Path)]) {
    let mut cargo = world.command("cargo");
    cargo.args(["zigbuild", "--target", TARGET, jobs]).envs(variables.iter().copied());
    run(with_tools(&mut cargo, version, world));
    is_for_aarch64(world);
}

/// The same by `zcache run`.
fn builds_by_run(world: &World, version: &str, jobs: &str) {
    let mut command = world.command(ZCACHE);
    command.args(["run", "--", "cargo", "zigbuild", "--target", TARGET, jobs]);
    run(with_tools(&mut command, version, world));
    is_for_aarch64(world);
}

fn is_for_aarch64(world: &World) {
    let program = fs::read(world.path("p/target").join(TARGET).join("debug/seedproj")).expect("a program");
    assert_eq!((&program[..4], program[18]), (b"\x7fELF".as_slice(), 183));
}

/// A counter of the compiles by zig.
fn zig(status: &Value, counter: &str) -> u64 {
    status["by_compiler"]["zig"][counter].as_u64().unwrap_or(0)
}

/// Builds twice by `zcache run`. What zig is asked about itself, and cannot be watched at, comes through too and stays a
/// miss: as many as were refused.
fn second_by_run(world: &World, version: &str, jobs: &str) -> Value {
    builds_by_run(world, version, jobs);
    let first = world.status();
    let refused = first["refusal_reasons"]["unwatched_program_tells_too_little"].as_u64().unwrap_or(0);
    assert!(zig(&first, "stored") > 15 && zig(&first, "stored") + refused == zig(&first, "misses"), "{first}");
    assert_eq!(first["totals"]["errors"], 0, "{first}");
    world.remove("p/target");
    run(&mut world.zcache("zero"));
    builds_by_run(world, version, jobs);
    let second = world.status();
    assert_eq!(zig(&second, "misses"), refused, "{second}\n{}", world.log());
    assert_eq!(zig(&second, "hits") + refused, zig(&first, "invocations"), "{second}\n{}", world.log());
    first
}

/// Builds twice, and says what the second one did.
fn second(world: &World, build: &dyn Fn()) -> Value {
    build();
    let first = world.status();
    assert!(zig(&first, "misses") > 15 && zig(&first, "hits") == 0, "ring's C never came: {first}");
    assert_eq!(first["totals"]["errors"], 0, "{first}");
    world.remove("p/target");
    run(&mut world.zcache("zero"));
    build();
    let second = world.status();
    let compiles = zig(&first, "invocations");
    assert_eq!((zig(&second, "hits"), zig(&second, "misses")), (compiles, 0), "{second}\n{}", world.log());
    first
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn rings_objects_come_back_where_the_compiler_calls_back() {
    let world = world();
    let first = second_by_run(&world, "old", "-j8");
    // The scripts that stand for zig are none of the client's: what they start is asked for by itself.
    assert_eq!(first["totals"]["max_depth"], 0, "{first}");
    assert!(first["by_compiler"]["rustc"]["hits"].as_u64() > Some(10), "the script's `rustc -vV`: {first}");
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn rings_objects_come_back_with_the_newest_version() {
    let world = world();
    second_by_run(&world, "new", "-j2");
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn a_link_named_sccache_and_the_variable_that_breaks_sccache() {
    let world = world();
    fs::create_dir(world.path("links")).unwrap();
    let link = world.path("links/sccache");
    symlink(CLIENT, &link).unwrap();
    symlink(ZCACHE, world.path("links/zcache")).unwrap();
    let variables: &[(&str, &Path)] = &[("RUSTC_WRAPPER", &link), ("SCCACHE_START_SERVER", Path::new("1"))];
    let manages = |option: &str| run(world.command(&link).arg(option).env("SCCACHE_START_SERVER", "1"));
    manages("--start-server");
    assert_eq!(world.daemons().len(), 1);
    second(&world, &|| builds(&world, "old", "-j1", variables));
    let shown = String::from_utf8(manages("--show-stats").stdout).unwrap();
    assert!(shown.contains("hits") && shown.contains("zig"), "{shown}");
    manages("--zero-stats");
    assert_eq!(world.total("invocations"), 0);
    manages("--stop-server");
    assert!(world.daemons().is_empty());
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn the_wrapper_alone_and_a_daemon_that_is_killed() {
    let world = world();
    let killer = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut killed = 0;
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(1500));
                for daemon in world.daemons() {
                    killed += u32::from(Command::new("kill").args(["-KILL", &daemon.to_string()]).status().is_ok());
                }
            }
            killed
        });
        builds(&world, "old", "-j8", &[("RUSTC_WRAPPER", Path::new(CLIENT))]);
        killer.join().unwrap()
    });
    assert!(killer > 0, "no daemon was there to be killed");
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn no_daemon_at_all() {
    let world = world();
    // Alone in its directory, the client finds no daemon to start.
    fs::create_dir(world.path("alone")).unwrap();
    let client = world.path("alone/sccache");
    fs::copy(CLIENT, &client).unwrap();
    builds(&world, "old", "-j2", &[("RUSTC_WRAPPER", &client), ("SCCACHE_START_SERVER", Path::new("1"))]);
    assert!(world.daemons().is_empty());
}

/// Builds a project whose build script compiles C by the `cc` crate, with these variables: a miss, then a hit.
fn the_cc_crate_comes_here(world: &World, variables: &[(&str, &str)]) {
    run(Command::new("cp").args(["-r", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seed/cc")]).arg(world.path("p")));
    let counters = || {
        let status = world.status();
        ["hits", "misses"].map(|counter| status["by_compiler"]["cc"][counter].as_u64().unwrap_or(0))
    };
    for is_hit in [false, true] {
        world.remove("p/target");
        let before = counters();
        assert_eq!(harness::stdout(world.bare_cargo("p", "run -q").envs(variables.iter().copied())), "42");
        let now = counters();
        let (hits, misses) = (now[0] - before[0], now[1] - before[1]);
        assert!(
            if is_hit { hits > 0 && misses == 0 } else { misses > 0 },
            "{variables:?}: {hits} hits, {misses} misses"
        );
    }
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn the_cc_crate_is_told_of_the_wrapper() {
    let compiler = format!("{CLIENT} cc");
    the_cc_crate_comes_here(&World::new(), &[("CC", &compiler), ("CC_KNOWN_WRAPPER_CUSTOM", "zcache-client")]);
}

#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn the_cc_crate_finds_the_wrapper_by_its_name() {
    let world = World::new();
    fs::create_dir(world.path("links")).unwrap();
    let link = world.path("links/sccache");
    symlink(CLIENT, &link).unwrap();
    the_cc_crate_comes_here(&world, &[("RUSTC_WRAPPER", link.to_str().unwrap())]);
}

/// The control: without it, a pass above might mean that the case has gone away.
#[test]
#[ignore = "needs tests/seed/setup.sh"]
fn sccache_fails() {
    let world = world();
    let sccache = tools().join("old/bin/sccache");
    let mut cargo = world.command("cargo");
    cargo.args(["zigbuild", "--target", TARGET]).env("RUSTC_WRAPPER", &sccache);
    let server: [(&str, PathBuf); 2] =
        [("SCCACHE_SERVER_UDS", world.path("sccache.sock")), ("SCCACHE_DIR", world.path("sccache"))];
    let output = with_tools(cargo.envs(server.clone()), "old", &world).output().unwrap();
    let _ = world.command(&sccache).arg("--stop-server").envs(server).output();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("SCCACHE_START_SERVER"), "{stderr}");
}
