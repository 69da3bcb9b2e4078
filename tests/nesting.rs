//! Nesting: compilers that call the client again. Depth is known, nothing hangs, a nested result's inputs are its
//! parent's, and a circle ends in one clear error.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::{reasons, settle};
use harness::{CLIENT, World, run, rustc, stdout};

/// Runs a command that has to end in time; it is killed, with its process group, where it does not.
fn bounded(command: &mut Command, seconds: u64) -> Output {
    use std::os::unix::process::CommandExt;
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    let (done, over) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        let _ = done.send(());
        output
    });
    if over.recv_timeout(Duration::from_secs(seconds)).is_err() {
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        panic!("{command:?} does not end in {seconds} s");
    }
    waiting.join().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Builds, removes the target directory and builds again, which must be served whole.
fn served_again(world: &World, project: &str) {
    let first = bounded(&mut world.cargo(project, "build"), 100);
    assert!(first.status.success(), "{}\n{}", text(&first.stderr), world.log());
    world.remove(&format!("{project}/target"));
    let before = world.status();
    let second = bounded(&mut world.cargo(project, "build"), 100);
    assert!(second.status.success(), "{}\n{}", text(&second.stderr), world.log());
    let counts = world.since(&before);
    // Probes that are meant to fail run each time.
    let failed = |report: &serde_json::Value| report["refusal_reasons"]["compile_failed"].as_u64().unwrap_or(0);
    let all = counts.misses == failed(&world.status()) - failed(&before) && counts.bypasses == 0 && counts.hits > 0;
    assert!(all, "{counts:?} {} {}\n{}", reasons(world), world.status()["miss_reasons"], world.log());
    assert_eq!(world.total("errors"), 0, "{}", world.log());
}

#[test]
fn a_build_script_that_probes_the_compiler() {
    let world = World::new();
    let probe = "fn main() {
    let (wrapper, rustc) = (std::env::var(\"RUSTC_WRAPPER\").unwrap(), std::env::var(\"RUSTC\").unwrap());
    for cleared in [false, true] {
        let command = |arguments: &[&str]| {
            let mut command = std::process::Command::new(&wrapper);
            command.arg(&rustc).args(arguments);
            if cleared {
                command.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            }
            command.output().unwrap()
        };
        let version = command(&[\"-vV\"]);
        assert!(version.status.success() && version.stdout.starts_with(b\"rustc \"), \"{version:?}\");
        let out = std::env::var(\"OUT_DIR\").unwrap();
        let arguments = [\"--crate-name\", \"probe\", \"--crate-type\", \"lib\", \"--emit=metadata\", \"--out-dir\", &out];
        for (source, good) in [(\"probe.rs\", true), (\"bad.rs\", false)] {
            let compiled = command(&[&arguments[..], &[source]].concat());
            assert_eq!(compiled.status.success(), good, \"{compiled:?}\");
            println!(\"cargo:rustc-cfg=probed_{good}\");
        }
    }
}
const KEPT: [&str; 4] = [\"PATH\", \"XDG_RUNTIME_DIR\", \"ZCACHE_DIR\", \"XDG_CONFIG_HOME\"];";
    world.write(&[
        ("w/Cargo.toml", "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("w/build.rs", probe),
        ("w/probe.rs", "pub fn f() {}"),
        ("w/bad.rs", "pub fn f() { none() }"),
        ("w/src/main.rs", "fn main() {}"),
    ]);
    let build = || {
        let output = bounded(&mut world.cargo("w", "build -vv"), 60);
        assert!(output.status.success(), "{}\n{}", text(&output.stderr), world.log());
    };
    build();
    world.remove("w/target");
    let before = world.status();
    build();
    let counts = world.since(&before);
    // The two probes that are meant to fail run each time.
    assert_eq!((counts.misses, counts.bypasses), (2, 0), "{}\n{}", world.status()["miss_reasons"], world.log());
    assert_eq!((world.total("errors"), world.daemons().len()), (0, 1));
}

#[test]
fn crates_whose_build_scripts_probe() {
    let world = World::new();
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    world.write(&[
        (
            "w/Cargo.toml",
            "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n[dependencies]\nanyhow = '1'\n
             thiserror = '2'\nrustix = '1'\n",
        ),
        // The versions that this repository uses are there without a network.
        ("w/Cargo.lock", &lock),
        (
            "w/src/main.rs",
            "#[derive(thiserror::Error, Debug)] #[error(\"x\")] struct X;\nfn main() { drop(anyhow::Error::new(X)); }",
        ),
    ]);
    served_again(&world, "w");
}

/// A stand-in for rustc that first asks the client for the version, as cargo-zigbuild's linkers do.
fn stand_in(world: &World, body: &str) -> std::path::PathBuf {
    let real = rustc().display();
    world.script("bin/rustc", &format!("#!/bin/sh\nset -e\nclient={CLIENT}\nreal={real}\n{body}\nexec $real \"$@\"\n"))
}

/// The client in front of a stand-in.
fn through(world: &World, stand_in: &std::path::Path, arguments: &str) -> Command {
    let mut command = world.command(CLIENT);
    command.arg(stand_in).args(arguments.split_whitespace());
    command
}

#[test]
fn a_stand_in_that_asks_for_the_version() {
    let world = World::new();
    let rustc = stand_in(&world, "$client $real -vV > /dev/null");
    world.write(&[("a.rs", "fn main() { println!(\"a\") }")]);
    let arguments = "a.rs --crate-name a --edition 2021 -o a";
    run(&mut through(&world, &rustc, arguments));
    let status = world.status();
    assert_eq!((&status["totals"]["nested"], &status["totals"]["max_depth"]), (&1.into(), &1.into()), "{status}");
    assert_eq!(status["builds"][0]["max_depth"], 1, "{status}");
    assert_eq!(status["totals"]["stored"], 2, "{}\n{}", reasons(&world), world.log());
    world.remove("a");
    let before = world.status();
    run(&mut through(&world, &rustc, arguments));
    let counts = world.since(&before);
    assert_eq!((counts.hits, counts.misses), (1, 0), "{}", world.log());
    assert_eq!(stdout(&mut world.command(world.path("a"))), "a");
}

#[test]
fn cargo_with_a_stand_in() {
    let world = World::new();
    let rustc = stand_in(&world, "$client $real -vV > /dev/null");
    world.write(&[
        ("w/Cargo.toml", "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("w/build.rs", "fn main() {}"),
        ("w/src/main.rs", "fn main() {}"),
        ("w/.cargo/config.toml", &format!("[build]\nrustc = {:?}\n", rustc)),
    ]);
    served_again(&world, "w");
    assert_eq!(world.total("max_depth"), 1);
}

#[test]
fn what_a_nested_compile_reads_is_its_parents_input() {
    // Handed down as it is, with a cleared environment, and two levels down through another script.
    for call in [
        "$client $real",
        "env -i XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR ZCACHE_DIR=$ZCACHE_DIR PATH=$PATH $client $real",
        "$client ./inner.sh",
    ] {
        let world = World::new();
        world.script("inner.sh", &format!("#!/bin/sh\nexec {CLIENT} {} \"$@\"\n", rustc().display()));
        let compile_other = format!("{call} other.rs --crate-name other --crate-type lib --out-dir .");
        let rustc = stand_in(&world, &compile_other);
        world.write(&[("a.rs", "fn main() { println!(\"{}\", other::N) }")]);
        let arguments = "a.rs --crate-name a --edition 2021 -o a --extern other=libother.rlib";
        let expected = [(1, (0, 2)), (1, (1, 0)), (2, (0, 2)), (2, (1, 0)), (1, (1, 0)), (2, (1, 0))];
        let direct = !call.contains("inner");
        for (number, counts) in expected {
            settle(&|| world.write(&[("other.rs", &format!("pub const N: u32 = {number};"))]));
            world.remove("a");
            world.remove("libother.rlib");
            let before = world.status();
            let output = bounded(&mut through(&world, &rustc, arguments), 60);
            assert!(output.status.success(), "{call}: {}\n{}", text(&output.stderr), world.log());
            assert_eq!(stdout(&mut world.command(world.path("a"))), number.to_string(), "{call}\n{}", world.log());
            assert!(world.path("libother.rlib").exists(), "a nested output comes back with its parent's");
            let now = world.since(&before);
            if direct || counts.1 == 0 {
                assert_eq!((now.hits, now.misses), counts, "{call}: {}\n{}", reasons(&world), world.log());
            }
        }
    }
}

#[test]
fn a_nested_hit_is_folded_as_a_nested_miss_is() {
    let world = World::new();
    let rustc_path = stand_in(&world, "$client $real other.rs --crate-name other --crate-type lib --out-dir .");
    settle(&|| {
        world.write(&[("a.rs", "fn main() { println!(\"{}\", other::N) }"), ("other.rs", "pub const N: u32 = 1;")])
    });
    // Known before the parent asks for it.
    run(&mut world.rustc("other.rs --crate-name other --crate-type lib --out-dir ."));
    assert_eq!(world.total("stored"), 1);
    let arguments = "a.rs --crate-name a --edition 2021 -o a --extern other=libother.rlib";
    settle(&|| ());
    run(&mut through(&world, &rustc_path, arguments));
    assert_eq!((world.total("hits"), world.total("misses")), (1, 2), "{}", world.log());
    for (number, hits) in [(1, 2), (2, 2), (1, 3)] {
        settle(&|| world.write(&[("other.rs", &format!("pub const N: u32 = {number};"))]));
        world.remove("a");
        world.remove("libother.rlib");
        run(&mut through(&world, &rustc_path, arguments));
        assert_eq!(stdout(&mut world.command(world.path("a"))), number.to_string(), "{}", world.log());
        assert_eq!(world.total("hits"), hits, "{}\n{}", reasons(&world), world.log());
    }
}

#[test]
fn sixteen_compiles_three_deep() {
    let world = World::new();
    let third = world.script(
        "bin/3/rustc",
        &format!("#!/bin/sh\nset -e\n{CLIENT} {0} -vV >/dev/null\nexec {0} \"$@\"\n", rustc().display()),
    );
    let next = |name: &str, inner: &std::path::Path| {
        let inner = inner.display();
        let line = format!(
            "{CLIENT} {inner} $1 --crate-name nested_$(basename $1 .rs)_{name} --crate-type lib --emit=metadata --out-dir out{name}"
        );
        world.script(
            &format!("bin/{name}/rustc"),
            &format!("#!/bin/sh\nset -e\n{line}\nexec {} \"$@\"\n", rustc().display()),
        )
    };
    let second = next("2", &third);
    let first = next("1", &second);
    for n in 0..16 {
        world.write(&[(&format!("s{n}.rs"), &format!("pub const N: u32 = {n};"))]);
    }
    let line = format!(
        "for n in $(seq 0 15); do {CLIENT} {} s$n.rs --crate-name s$n --crate-type lib --out-dir out & pids=\"$pids $!\"; done
        for p in $pids; do wait $p || exit 1; done",
        first.display()
    );
    for round in 0..2 {
        let output = bounded(world.command("sh").args(["-c", &line]), 60);
        assert!(output.status.success(), "{}\n{}", text(&output.stderr), world.log());
        for n in 0..16 {
            assert!(world.path(&format!("out/libs{n}.rlib")).exists());
        }
        assert_eq!(world.daemons().len(), 1);
        let status = world.status();
        assert_eq!(status["totals"]["max_depth"], 3, "round {round}: {}", status["totals"]);
        assert_eq!(status["totals"]["errors"], 0, "round {round}: {}", status["totals"]);
        world.remove("out");
    }
}

/// A circle ends soon, with an error that names the client, and leaves no process behind.
fn ends_in_an_error(world: &World, command: &mut Command, what: &str) {
    let began = Instant::now();
    let output = bounded(command, 20);
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{what}: {stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("zcache-client:")).collect();
    assert_eq!(lines.len(), 1, "{what}, one clear error: {stderr}\n{}", world.log());
    assert!(began.elapsed() < Duration::from_secs(10), "{what} took {:?}", began.elapsed());
    assert!(world.daemons().len() <= 1, "{what}");
}

#[test]
fn the_client_wrapping_itself() {
    let world = World::new();
    world.write(&[
        ("w/Cargo.toml", "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("w/src/main.rs", "fn main() {}"),
        ("a.rs", "fn main() {}"),
        ("links/.keep", ""),
    ]);
    symlink(CLIENT, world.path("links/rustc")).unwrap();
    let directory = std::path::Path::new(CLIENT).parent().unwrap();
    ends_in_an_error(&world, world.cargo("w", "build").env("RUSTC", CLIENT), "RUSTC names the client");
    let mut command = world.command(CLIENT);
    command.args(["zcache-client", "a.rs"]).env("PATH", directory);
    ends_in_an_error(&world, &mut command, "the client by name");
    let mut command = world.command(CLIENT);
    command.args(["rustc", "a.rs"]).env("PATH", world.path("links"));
    ends_in_an_error(&world, &mut command, "only links along the path");
    let mut command = world.command(world.path("links/rustc"));
    command.arg("a.rs").env("PATH", world.path("links"));
    ends_in_an_error(&world, &mut command, "a link with only links along the path");
    // A link as the compiler means the next program of its name.
    run(world.command(CLIENT).arg(world.path("links/rustc")).arg("a.rs"));
}

#[test]
fn circles_that_no_identity_shows() {
    let world = World::new();
    world.write(&[("a.rs", "fn main() {}"), ("one/.keep", ""), ("two/.keep", "")]);
    // Copies of the client, each of which takes the other for the compiler.
    for dir in ["one", "two"] {
        fs::copy(CLIENT, world.path(&format!("{dir}/rustc"))).unwrap();
    }
    let path = format!("{}:{}:/usr/bin:/bin", world.path("one").display(), world.path("two").display());
    let mut command = world.command(CLIENT);
    ends_in_an_error(&world, command.args(["rustc", "a.rs", "--crate-name", "a"]).env("PATH", path), "two copies");
    for call in [format!("{CLIENT} $0 \"$@\""), format!("exec {CLIENT} $0 \"$@\"")] {
        let script = world.script("rustc", &format!("#!/bin/sh\n{call}\n"));
        let mut command = through(&world, &script, "a.rs --crate-name a");
        ends_in_an_error(&world, &mut command, &call);
        let mut command = through(&world, &script, "a.rs --crate-name a");
        ends_in_an_error(&world, command.env("ZCACHE_DISABLE", "1"), &format!("{call}, disabled"));
    }
}

#[test]
fn a_descendant_with_its_ancestors_command() {
    for call in
        ["$client $0", "env -i XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR ZCACHE_DIR=$ZCACHE_DIR PATH=$PATH STOP=1 $client $0"]
    {
        let world = World::new();
        world.write(&[("a.rs", "fn main() { println!(\"a\") }")]);
        let body = format!("if [ -z \"$STOP\" ]; then export STOP=1; {call} \"$@\"; fi");
        let rustc = stand_in(&world, &body);
        for _ in 0..2 {
            world.remove("a");
            let output = bounded(&mut through(&world, &rustc, "a.rs --crate-name a -o a"), 20);
            assert!(output.status.success(), "{call}: {}\n{}", text(&output.stderr), world.log());
            assert_eq!(stdout(&mut world.command(world.path("a"))), "a");
        }
        assert_eq!(world.total("max_depth"), 1);
    }
}

#[test]
fn a_nested_client_never_starts_a_daemon() {
    let world = World::new();
    world.write(&[("a.rs", "fn main() { println!(\"a\") }")]);
    run(world.rustc("a.rs -o a").env("ZCACHE_PARENT", "1.1.1"));
    assert_eq!(stdout(&mut world.command(world.path("a"))), "a");
    assert_eq!(world.daemons(), [0; 0]);
    assert!(world.status()["daemon"].is_null());
    // With a daemon it is served like any other, one level down.
    run(&mut world.rustc("-vV"));
    run(world.rustc("a.rs -o a").env("ZCACHE_PARENT", "1.1.1"));
    assert_eq!((world.total("stored"), world.total("max_depth"), world.total("nested")), (2, 1, 1));
}
