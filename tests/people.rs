//! People: what the programs say to those who call them by hand or from scripts that know sccache, and to those who mix
//! the programs up. Knows nothing of what is cached.

mod fixture;
mod harness;

use std::os::unix::fs::symlink;
use std::process::Command;

use fixture::settle;
use harness::{CLIENT, World, ZCACHE, assert_same, effect, run, stdout};
use serde_json::Value;

fn world() -> World {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int f(void) { return 1; }\n"), ("links/.keep", "")]));
    symlink(CLIENT, world.path("links/sccache")).unwrap();
    world
}

/// What a command says, and how it ends.
fn said(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn sccache(world: &World, line: &str) -> Command {
    let mut command = world.command(world.path("links/sccache"));
    command.args(line.split_whitespace()).current_dir(world.path("p"));
    command
}

#[test]
fn every_program_says_what_it_is() {
    let world = world();
    for program in [CLIENT, ZCACHE, harness::ZCACHED] {
        let name = program.rsplit('/').next().unwrap();
        for option in ["--version", "-V"] {
            let version = format!("{name} {}", env!("CARGO_PKG_VERSION"));
            assert_eq!(stdout(world.command(program).arg(option)), version);
        }
        for option in ["--help", "-h"] {
            let help = stdout(world.command(program).arg(option));
            assert!(help.to_lowercase().contains("usage") && help.contains(name), "{program}: {help}");
        }
    }
    // Of a compiler it is the compiler's.
    let gcc = stdout(world.command("gcc").arg("--version"));
    symlink(CLIENT, world.path("links/gcc")).unwrap();
    let path = format!("{}:{}", world.path("links").display(), std::env::var("PATH").unwrap());
    assert_eq!(stdout(world.command(CLIENT).args(["gcc", "--version"])), gcc);
    assert_eq!(stdout(world.command("gcc").arg("--version").env("PATH", path)), gcc);
    assert!(world.status()["totals"]["invocations"].as_u64() > Some(0));
    let full = said(Command::new("sh").args(["-c", &format!("{CLIENT} --help >/dev/full")]));
    assert_eq!(full.0, Some(1), "{}", full.1);
}

#[test]
fn sccaches_scripts_find_its_json() {
    let world = world();
    let json = |line: &str| -> Value { serde_json::from_str(&stdout(&mut sccache(&world, line))).unwrap() };
    // Before there is anything.
    assert_eq!(json("--show-stats --stats-format=json")["stats"]["compile_requests"], 0);
    for _ in 0..2 {
        run(&mut sccache(&world, "gcc -c x.c"));
    }
    run(&mut sccache(&world, "--stats-format=json gcc -c x.c"));
    run(sccache(&world, "").arg(harness::rustc()).args(["--crate-type=lib", "--crate-name=y", "-"]));
    for line in [
        "--show-stats --stats-format=json",
        "--stats-format=json --show-stats",
        "-s --stats-format json",
        "--stats-format json --show-adv-stats",
    ] {
        let info = json(line);
        let stats = &info["stats"];
        for (name, number) in
            [("compile_requests", 4), ("requests_executed", 4), ("compilations", 2), ("cache_writes", 2)]
        {
            assert_eq!(stats[name], number, "{line}: {name}: {info}");
        }
        assert_eq!(stats["cache_hits"]["counts"]["C/C++"], 2, "{line}");
        assert_eq!(stats["cache_misses"]["counts"], serde_json::json!({"C/C++": 1, "Rust": 1}), "{line}");
        assert!(stats["cache_hits"]["adv_counts"].is_object() && stats["cache_errors"]["counts"].is_object());
        assert!(stats["cache_write_duration"]["secs"].is_number() && stats["not_cached"].is_object());
        assert!(
            info["cache_size"].as_u64() > Some(0) && info["max_cache_size"].is_u64() && info["version"].is_string()
        );
        let location = format!("Local disk: {:?}", world.path("store"));
        assert_eq!((&info["cache_location"], &info["use_preprocessor_cache_mode"]), (&location.into(), &false.into()));
    }
    for line in ["--show-stats", "-s --stats-format=text", "--stats-format text --show-adv-stats"] {
        let text = stdout(&mut sccache(&world, line));
        assert!(text.starts_with("daemon ") && text.contains("2 hits"), "{line}: {text}");
    }
    run(&mut sccache(&world, "--zero-stats --stats-format=text"));
    assert_eq!(json("-s --stats-format=json")["stats"]["compile_requests"], 0);
}

#[test]
fn sccaches_server_commands_end_as_its_own_do() {
    let world = world();
    assert_eq!(said(&mut sccache(&world, "--stop-server")).0, Some(2), "there is none");
    assert_eq!(world.zcache("stop").output().unwrap().status.code(), Some(0), "people have what they want");
    run(&mut sccache(&world, "--start-server"));
    run(&mut sccache(&world, "--stop-server"));
    assert_eq!(said(&mut sccache(&world, "--stop-server")).0, Some(2), "it is gone");
    for (line, named) in [
        ("--dist-status", "--dist-status"),
        ("--show-stats --package-toolchain a b", "--package-toolchain"),
        ("--show-stats --stats-format=yaml", "yaml"),
        ("--show-stats --zero-stats", "at once"),
        ("--stats-format=json", "nothing to do"),
        ("", "nothing to run"),
    ] {
        let (code, text) = said(&mut sccache(&world, line));
        assert!(code == Some(2) && text.contains(named), "{line}: {code:?} {text}");
    }
    assert_eq!(world.daemons().len(), 0);
}

/// What is called decides what a program is, whichever of the two it is.
#[test]
fn who_mixes_the_programs_up_is_served() {
    let world = world();
    let compile = |line: &[&str]| {
        world.remove("p/x.o");
        effect(world.command(line[0]).args(&line[1..]).current_dir(world.path("p")), &world.path("p"))
    };
    let rest = ["-c", "x.c", "-Wall"];
    let gcc = stdout(world.command("sh").args(["-c", "command -v gcc"]));
    let bare = compile(&[&["gcc"][..], &rest].concat());
    for program in ["gcc", &gcc, "./../links/my-gcc"] {
        let script = format!("#!/bin/sh\nexec {gcc} \"$@\"\n");
        world.script("links/my-gcc", &script);
        let before = world.status();
        for _ in 0..2 {
            assert_same(&bare, &compile(&[&[ZCACHE, program][..], &rest].concat()), program);
        }
        assert!(world.since(&before).hits >= 1, "{program}: {}", world.log());
    }
    assert_same(&compile(&["gcc", "-c", "nothing.c"]), &compile(&[ZCACHE, "gcc", "-c", "nothing.c"]), "a failure");
    // The subcommand goes first.
    world.script("links/gc", "#!/bin/sh\nexit 9\n");
    let path = format!("{}:{}", world.path("links").display(), std::env::var("PATH").unwrap());
    assert_eq!(said(world.zcache("gc").env("PATH", &path)).0, Some(0));
    // A compiler of any name that is called as one.
    world.script("links/odd", "#!/bin/sh\nexec gcc \"$@\"\n");
    run(world.zcache("odd -c x.c").env("PATH", &path).current_dir(world.path("p")));
    for (line, words) in [("cargo build", "zcache run -- cargo"), ("stats", "status"), ("/no/such/rustc", "/no/such")] {
        let (code, text) = said(&mut world.zcache(line));
        assert!(code == Some(2) && text.contains(words), "{line}: {text}");
    }
    let status = said(world.command(CLIENT).arg("status"));
    assert!(status.0 == Some(0) && status.1.starts_with("daemon "), "{status:?}");
    run(world.command(CLIENT).args(["run", "--", "gcc", "-c", "p/x.c"]));
}

#[test]
fn cargo_with_the_peoples_command_as_its_wrapper() {
    let world = world();
    world.write(&[
        ("c/Cargo.toml", "[package]\nname = 'c'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("c/src/main.rs", "fn main() { print!(\"built\") }"),
    ]);
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        for _ in 0..2 {
            world.remove("c/target");
            run(world.bare_cargo("c", "build").env(name, ZCACHE));
            assert_eq!(stdout(&mut world.command(world.path("c/target/debug/c"))), "built");
        }
    }
    assert!(world.total("hits") > 0, "{}", world.log());
}

/// Whoever comes from sccache with its settings learns what becomes of them.
#[test]
fn variables_of_sccaches_are_named_and_not_passed_over() {
    let world = world();
    let with = |mut command: Command| {
        command.env("SCCACHE_DIR", "/x").env("SCCACHE_BUCKET", "b").env("SCCACHE_NEW", "1").env("SCCACHE_REGION", "");
        command
    };
    for line in ["run true", "status", "status --json"] {
        let text = said(&mut with(world.zcache(line))).1;
        for named in ["SCCACHE_DIR", "ZCACHE_DIR", "SCCACHE_BUCKET", "SCCACHE_NEW"] {
            assert!(text.contains(named), "{line}: {named}: {text}");
        }
        assert_eq!(text.matches("does not read").count(), 1, "{line}: {text}");
        assert!(!text.contains("SCCACHE_REGION"), "{line}: {text}");
        let without = said(&mut world.zcache(line)).1;
        assert!(!without.contains("SCCACHE_"), "{line}: {without}");
    }
    // A compile prints what the compiler prints.
    let bare = said(with(world.command("gcc")).args(["-c", "p/x.c"]));
    assert_eq!(said(with(world.command(CLIENT)).args(["gcc", "-c", "p/x.c"])), bare);
}

/// A daemon reads its settings when it starts; what a later command has set is not taken for what is in effect.
#[test]
fn settings_that_the_daemon_does_not_have_are_told_from_those_that_it_has() {
    for (name, value, key) in
        [("ZCACHE_MAX_SIZE", "1 GiB", "max_size"), ("ZCACHE_LOG", "trace", "log"), ("ZCACHE_DIR", "{}/other", "dir")]
    {
        let world = world();
        let value = value.replace("{}", world.path("").to_str().unwrap().trim_end_matches('/'));
        let socket = world.path("run/z.sock");
        let with = |mut command: Command| {
            command.env("ZCACHE_SOCKET", &socket);
            command
        };
        let other = |line: &str| {
            let text = said(with(world.zcache(line)).env(name, &value)).1;
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let remark = format!("has {key} ");
        assert!(!other("config").contains("the daemon that runs"), "{name}: there is none");
        run(&mut with(world.zcache("start")));
        for line in ["config", "status", "start"] {
            let text = other(line);
            assert!(text.contains(&remark) && text.contains("zcache stop"), "{name}: {line}: {text}");
            let own = said(&mut with(world.zcache(line))).1;
            assert!(!own.contains("the daemon that runs"), "{name}: {line}: {own}");
        }
        run(&mut with(world.zcache("stop")));
        run(with(world.zcache("start")).env(name, &value));
        assert!(!other("config").contains("the daemon that runs"), "{name}: {}", other("config"));
        run(&mut with(world.zcache("stop")));
    }
    // By another name it is the same store.
    let world = world();
    symlink("store", world.path("link")).unwrap();
    run(&mut world.zcache("start"));
    let text = said(world.zcache("config").env("ZCACHE_DIR", world.path("link"))).1;
    assert!(!text.contains("the daemon that runs"), "{text}");
}
