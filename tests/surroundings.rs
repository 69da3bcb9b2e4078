//! Surroundings: where zcache has its socket, its store and the compiler its temporary files, and where a compile runs and
//! writes. Whatever is wrong with a place, it works or the compiler runs as if zcache were not there, and why is said.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fixture::{reasons, settle};
use harness::{CLIENT, Counts, Effect, World, assert_same, effect, run, rustc};
use serde_json::Value;

/// What comes of a variable's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The second compile is a hit.
    Served,
    /// The compiler runs, and `zcache status` says this.
    Said(&'static str),
}

use Outcome::{Said, Served};

/// A variable, its value, in which `{}` is the world's directory, or none where it is not set; and what comes of it.
type Row = (&'static str, Option<&'static str>, Outcome);

/// As long as a name may be, and longer than a socket's path.
const LONG: &str = "{}/llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll";
const LONGER: &str =
    "{}/run/lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll";
const ODD: &str = "{}/a b:c\nd$e'f\"g,h;i";

const ROWS: &[Row] = &[
    ("XDG_RUNTIME_DIR", None, Served),
    ("XDG_RUNTIME_DIR", Some(""), Served),
    ("XDG_RUNTIME_DIR", Some("run"), Served),
    ("XDG_RUNTIME_DIR", Some("{}/run/"), Served),
    ("XDG_RUNTIME_DIR", Some("{}//run/../run/."), Served),
    ("XDG_RUNTIME_DIR", Some("{}/linked-run"), Served),
    ("XDG_RUNTIME_DIR", Some("{}/none/deep"), Served),
    ("XDG_RUNTIME_DIR", Some(ODD), Served),
    ("XDG_RUNTIME_DIR", Some(LONG), Served),
    ("XDG_RUNTIME_DIR", Some("{}/file"), Said("cannot be made")),
    ("XDG_RUNTIME_DIR", Some("/proc/none"), Said("not running")),
    ("ZCACHE_SOCKET", Some("z.sock"), Served),
    ("ZCACHE_SOCKET", Some("{}/none/z.sock"), Served),
    ("ZCACHE_SOCKET", Some("{}/run/a b:c\nd$e"), Served),
    ("ZCACHE_SOCKET", Some(LONGER), Said("SUN_LEN")),
    ("ZCACHE_SOCKET", Some("{}/p/x.c/z.sock"), Said("does not belong to you alone")),
    ("ZCACHE_SOCKET", Some("{}/open/z.sock"), Said("must be a directory owned by you")),
    ("ZCACHE_DIR", None, Served),
    ("ZCACHE_DIR", Some(""), Served),
    ("ZCACHE_DIR", Some("{}/store/"), Served),
    ("ZCACHE_DIR", Some("{}//store/../store/."), Served),
    ("ZCACHE_DIR", Some("{}/linked-store"), Served),
    ("ZCACHE_DIR", Some("{}/none/deep"), Served),
    ("ZCACHE_DIR", Some(ODD), Served),
    ("ZCACHE_DIR", Some(LONG), Served),
    ("ZCACHE_DIR", Some("store"), Said("absolute path")),
    ("ZCACHE_DIR", Some("{}/file"), Said("Not a directory")),
    ("ZCACHE_DIR", Some("/proc/none"), Said("cannot be opened")),
    ("HOME", None, Said("the store needs a place")),
    ("HOME", Some("home"), Said("the store needs a place")),
    ("HOME", Some(ODD), Served),
    ("HOME", Some("{}/file"), Said("Not a directory")),
    ("XDG_CACHE_HOME", Some("cache"), Served),
    ("XDG_CACHE_HOME", Some("{}/none/deep/"), Served),
    ("XDG_CACHE_HOME", Some(ODD), Served),
    ("XDG_CACHE_HOME", Some("/proc/none"), Said("cannot be opened")),
    ("TMPDIR", None, Served),
    ("TMPDIR", Some("{}/none"), Served),
    ("TMPDIR", Some("{}/file"), Said("input_unreadable")),
    ("TMPDIR", Some("tmp"), Served),
    ("TMPDIR", Some(ODD), Served),
    ("TMPDIR", Some(LONG), Served),
    ("TMPDIR", Some("/proc"), Said("client")),
];

#[test]
fn places_that_variables_name() {
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || ROWS.iter().skip(part).step_by(2).for_each(|row| place(*row)));
        }
    });
}

fn place((name, value, outcome): Row) {
    let what = format!("{name}={value:?}");
    let world = World::new();
    let top = world.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let value = value.map(|value| value.replace("{}", &top));
    settle(&|| world.write(&[("p/x.c", "int x;\n"), ("file", ""), ("open/.keep", ""), ("p/tmp/.keep", "")]));
    symlink("run", world.path("linked-run")).unwrap();
    symlink("store", world.path("linked-store")).unwrap();
    if let Some(value) = value.as_ref().filter(|_| name == "TMPDIR" && outcome == Served) {
        let _ = value.contains(['\n', 'l']).then(|| fs::create_dir_all(value));
    }
    let with = |mut command: Command| {
        command.env("HOME", world.path("home")).env_remove("XDG_CACHE_HOME");
        if matches!(name, "HOME" | "XDG_CACHE_HOME") {
            command.env_remove("ZCACHE_DIR");
        }
        match &value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        command
    };
    let compile = |client: &str| {
        world.remove("p/x.o");
        let mut command = world.command("sh");
        command.args(["-c", &format!("exec {client} gcc -c x.c")]).current_dir(world.path("p"));
        let began = Instant::now();
        let done = effect(&mut with(command), &world.path("p"));
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
        done
    };
    let status = |line: &str| {
        let output = with(world.zcache(line)).output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let bare = compile("");
    for round in 0..2 {
        assert_same(&bare, &compile(CLIENT), &format!("{what}, {round}"));
        status("status");
    }
    match outcome {
        Served => {
            let (json, error) = status("status --json");
            let report: Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{what}: {error}"));
            let hits = &report["totals"]["hits"];
            assert_eq!(*hits, 1, "{what}: {report} {error}\n{}", world.log());
        }
        Said(words) => {
            let (said, error) = status("status");
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(words) || error.contains(words), "{what}: {said}{error}\n{}", world.log());
        }
    }
    let socket = status("status --json").0;
    run_or_not(with(world.zcache("stop")));
    // What is in /tmp is not the world's to remove.
    let socket = serde_json::from_str::<Value>(&socket).unwrap_or_default()["daemon"]["socket"].clone();
    if let Some(socket) = socket.as_str().filter(|socket| !socket.starts_with(&top)) {
        let _ = ["lock", "log", "starting"].map(|end| fs::remove_file(Path::new(socket).with_extension(end)));
    }
}

fn run_or_not(mut command: Command) {
    let _ = command.output();
}

/// The compiler needs no directory where all that it is told is absolute.
#[test]
fn a_directory_that_is_gone_is_bypassed() {
    let world = World::new();
    world.write(&[("p/x.c", "int x;\n"), ("p/x.rs", "pub fn f() {}\n"), ("out/.keep", "")]);
    run(&mut world.zcache("start"));
    let at = |name: &str| world.path(name).display().to_string();
    let gcc = ["gcc".into(), "-c".into(), at("p/x.c"), "-o".into(), at("out/x.o")];
    let rust = rustc().display().to_string();
    let rust = [rust, at("p/x.rs"), "--crate-type=lib".into(), "-o".into(), at("out/x.rlib")];
    for (command, times) in [(&gcc, 2), (&rust, 4)] {
        for how in ["rmdir ../gone", "mv ../gone ../moved && rmdir ../moved"] {
            let compile = |client: Option<&str>| {
                run(world.command("sh").args(["-c", "rm -f out/*; mkdir gone"]));
                let mut shell = world.command("timeout");
                let line = format!("{how} && unset PWD && exec \"$@\"");
                shell.args(["20", "sh", "-c", &line, "sh"]).args(client).args(command).current_dir(at("gone"));
                effect(&mut shell, &world.path("out"))
            };
            assert_same(&compile(None), &compile(Some(CLIENT)), &format!("{how}: {command:?}"));
        }
        assert_eq!(world.status()["bypass_reasons"]["directory_gone"], times, "{}\n{}", world.status(), world.log());
    }
}

/// Removed while the compiler runs, and made anew by the same name.
#[test]
fn a_directory_that_goes_while_the_compiler_runs() {
    let world = World::new();
    let slow = world.script("bin/gcc", "#!/bin/sh\nrm -rf ../p; eval \"$AFTER\"; exec /usr/bin/gcc \"$@\"\n");
    let at = |name: &str| world.path(name).display().to_string();
    for after in ["", "mkdir ../p", "mkdir ../p; echo 'int g(void) { return 7; }' > ../p/x.c"] {
        let compile = |client: Option<&str>| {
            settle(&|| world.write(&[("p/.keep", ""), ("q/x.c", "int f(void) { return 1; }\n"), ("out/.keep", "")]));
            world.remove("out/x.o");
            let mut shell = world.command("timeout");
            shell.arg("20").args(client).arg(&slow).args(["-c", &at("q/x.c"), "-o", &at("out/x.o")]);
            effect(shell.env("AFTER", after).current_dir(world.path("p")), &world.path("out"))
        };
        let bare = compile(None);
        for _ in 0..2 {
            assert_same(&bare, &compile(Some(CLIENT)), after);
        }
    }
    assert_eq!(world.total("errors"), 0, "{}", world.log());
}

/// cargo with a target directory that is, or lies behind, a link; the link turns between builds.
#[test]
fn target_directories_that_are_links() {
    for (target, link) in [("target", "c/target"), ("link/target", "c/link"), ("target", "c/target/debug")] {
        let world = World::new();
        let main = |n: u32| world.write(&[("c/src/main.rs", &format!("fn main() {{ print!(\"{n}\") }}\n"))]);
        world.write(&[("c/Cargo.toml", "[package]\nname = 'c'\nversion = '0.1.0'\nedition = '2021'\n")]);
        world.write(&[("one/.keep", ""), ("two/.keep", ""), ("c/target/.keep", "")]);
        let builds = |to: &str, n: u32| {
            settle(&|| main(n));
            world.remove(link);
            symlink(world.path(to), world.path(link)).unwrap();
            let before = world.status();
            run(&mut world.cargo("c", &format!("build --target-dir {target}")));
            let program = world.path(&format!("c/{target}/debug/c"));
            assert_eq!(harness::stdout(&mut Command::new(program)), n.to_string(), "{target} to {to}");
            world.since(&before)
        };
        assert!(builds("one", 1).misses > 0 && builds("two", 2).misses > 0);
        assert_eq!(reasons(&world), serde_json::json!({}), "{target}: {}", world.log());
        // Each has its own, which cargo takes for fresh or asks for again.
        for (to, n) in [("one", 1), ("two", 2), ("two", 1), ("one", 2)] {
            assert_eq!(builds(to, n).misses, 0, "{target} to {to}, {n}: {}", world.log());
        }
        for dir in ["one", "two"] {
            world.remove(dir);
            fs::create_dir(world.path(dir)).unwrap();
        }
        assert!(builds("one", 2).hits > 0);
    }
}

/// The same of outputs that are named.
#[test]
fn outputs_behind_a_link_go_where_it_leads() {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int x;\n"), ("p/a/.keep", ""), ("p/b/.keep", "")]));
    let compile = |to: &str, client: &str| {
        run(world.command("sh").args(["-c", &format!("cd p && rm -f */x.o */x.d && ln -sfn {to} out")]));
        let line = format!("{client} gcc -c x.c -o out/x.o -MD");
        effect(world.command("sh").args(["-c", &line]).current_dir(world.path("p")), &world.path("p"))
    };
    let mut counts = Vec::new();
    for to in ["a", "b", "a", "b", "."] {
        let before = world.status();
        assert_same(&compile(to, ""), &compile(to, CLIENT), to);
        counts.push(world.since(&before));
    }
    assert!(counts.iter().filter(|counts| counts.hits == 1).count() >= 2, "{counts:?} {}", world.log());
}

/// Neither temporary files nor outputs can be written where the compile runs: what goes elsewhere is served.
#[test]
#[ignore = "needs root: mounts"]
fn a_directory_that_is_read_only() {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int x;\n"), ("out/.keep", "")]));
    run(Command::new("mount").args(["--bind", "-o", "ro"]).args([world.path("p"), world.path("p")]));
    let compile = |client: &str, output: &str| {
        world.remove("out/x.o");
        let mut shell = world.command("sh");
        shell.args(["-c", &format!("{client} gcc -c x.c -o {output}")]).current_dir(world.path("p"));
        effect(&mut shell, &world.path(""))
    };
    let only = |effect: Effect| Effect {
        files: effect.files.into_iter().filter(|(name, _)| name.starts_with("p") || name.starts_with("out")).collect(),
        // The assembler names a temporary file.
        stderr: String::new(),
        ..effect
    };
    let seen = ["../out/x.o", "x.o"].map(|output| {
        let bare = only(compile("", output));
        for _ in 0..2 {
            assert_same(&bare, &only(compile(CLIENT, output)), output);
            world.status();
        }
        bare.code
    });
    run(Command::new("umount").arg("-l").arg(world.path("p")));
    assert_eq!((seen[0], seen[1] != Some(0)), (Some(0), true));
    assert_eq!((world.total("hits"), world.total("errors")), (1, 0), "{}", world.log());
}

/// Deeper than a path may be long: by relative steps one gets there all the same.
#[test]
fn a_directory_deeper_than_a_path_is_long() {
    let world = World::new();
    run(&mut world.zcache("start"));
    let name = "d".repeat(250);
    for (levels, want) in
        [(14, Counts { hits: 1, misses: 1, bypasses: 0 }), (20, Counts { hits: 0, misses: 0, bypasses: 2 })]
    {
        let line = |client: &str| {
            format!(
                "set -e; for n in $(seq {levels}); do mkdir -p {name}; cd {name}; done; rm -f x.o
                 test -f x.c || {{ echo 'int x;' > x.c; sleep 0.05; }}
                 {client} gcc -c x.c && cat x.o"
            )
        };
        let compile = |client: &str| {
            let mut shell = world.command("timeout");
            effect(
                shell.args(["20", "bash", "-c", &line(client)]).current_dir(world.path("home")),
                Path::new("/nowhere"),
            )
        };
        let (bare, before) = (compile(""), world.status());
        assert_eq!(bare.code, Some(0), "{}", bare.stderr);
        for _ in 0..2 {
            assert_same(&bare, &compile(CLIENT), &format!("{levels} levels"));
            world.status();
        }
        assert_eq!(world.since(&before), want, "{levels} levels: {}\n{}", reasons(&world), world.log());
    }
    run(world.command("rm").args(["-rf", "home"]));
}
