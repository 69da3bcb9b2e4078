//! What can only show in messages is no part of a question whose answer had none: another terminal, another message
//! format, variables for backtraces. Where something was printed, it is printed as bare prints it.

mod fixture;
mod harness;

use fixture::settle;
use harness::{World, assert_same, effect};

const QUIET: &str = "pub fn f(x: i32) -> i32 { x + 1 }\n";
const WARNS: &str = "pub fn f(x: i32) -> i32 { let unused = x; x + 1 }\n";

/// Ways to ask for messages, each with variables.
const LOOKS: &[(&str, &str)] = &[
    ("--error-format=json --json=diagnostic-rendered-ansi,artifacts,future-incompat --diagnostic-width=80", ""),
    ("--error-format=json --json=diagnostic-rendered-ansi,artifacts,future-incompat --diagnostic-width=40", ""),
    ("--error-format=json --json=diagnostic-short,artifacts,future-incompat", ""),
    ("--error-format=json --json=artifacts,diagnostic-rendered-ansi,future-incompat", "RUST_BACKTRACE=1"),
    ("--error-format=json --json=artifacts,future-incompat --diagnostic-width 50", "RUST_BACKTRACE=full CI=true"),
    ("--error-format=json --json=future-incompat,artifacts", "RUST_BACKTRACE=0 TERM=dumb COLORTERM=truecolor"),
];

/// Compiles in each way; how often that is a hit, beyond the first.
fn hits(source: &str) -> u64 {
    let world = World::new();
    world.write(&[("src/lib.rs", source), ("out/.keep", "")]);
    settle(&|| ());
    let mut hits = 0;
    for (look, variables) in LOOKS {
        let line = format!(
            "--crate-name x --edition 2024 --crate-type lib src/lib.rs --emit dep-info,metadata {look} --out-dir out"
        );
        let with = |mut command: std::process::Command| {
            command.env_remove("RUST_BACKTRACE").env_remove("CI").env("TERM", "xterm");
            command.envs(variables.split_whitespace().filter_map(|variable| variable.split_once('=')));
            effect(&mut command, &world.path("out"))
        };
        let bare = with(world.bare_rustc(&line));
        assert_eq!(bare.code, Some(0), "{look}: {}", bare.stderr);
        let before = world.status();
        assert_same(&bare, &with(world.rustc(&line)), &format!("{look} {variables}"));
        hits += world.since(&before).hits;
        assert_same(&bare, &with(world.rustc(&line)), &format!("{look} {variables} again"));
        assert!(world.since(&before).hits > 0, "{look} {variables} again\n{}", world.log());
    }
    hits
}

#[test]
fn another_terminal_is_no_cold_cache() {
    assert_eq!(hits(QUIET), LOOKS.len() as u64 - 1);
}

#[test]
fn what_was_printed_is_printed_as_asked() {
    // The last three look alike but for the width, which a rendered text without colours may go by.
    assert!(hits(WARNS) <= 1, "other looks, other texts");
}

/// The variables that cargo's users set, and a message format, after a build with none of them.
#[test]
fn cargo_asked_for_other_messages_compiles_nothing() {
    let world = World::new();
    world.write(&[
        ("p/Cargo.toml", "[package]\nname = \"p\"\nversion = \"1.0.0\"\nedition = \"2024\"\n"),
        ("p/src/lib.rs", QUIET),
        ("p/src/main.rs", "fn main() { println!(\"{}\", p::f(1)); }\n"),
    ]);
    settle(&|| ());
    let build = |arguments: &str, variables: &[(&str, &str)]| {
        world.remove("p/target");
        let before = world.status();
        let mut command = world.cargo("p", arguments);
        command.env_remove("RUST_BACKTRACE").env_remove("CI").envs(variables.iter().copied());
        harness::run(&mut command);
        world.since(&before)
    };
    build("build", &[]);
    for (arguments, variables) in [
        ("build --message-format=short", &[][..]),
        ("build --message-format=json", &[]),
        ("build", &[("RUST_BACKTRACE", "1")]),
        ("build", &[("RUST_BACKTRACE", "full"), ("CI", "true")]),
        ("build", &[("TERM", "dumb"), ("CARGO_TERM_COLOR", "always")]),
        ("build", &[("COLUMNS", "99")]),
    ] {
        let counts = build(arguments, variables);
        assert_eq!(counts.misses, 0, "{arguments} {variables:?}\n{}", world.log());
    }
}

#[test]
fn what_measures_itself_runs() {
    let world = World::new();
    world.write(&[("x.c", "int f(void) { return 0; }\n"), ("src/lib.rs", QUIET)]);
    settle(&|| ());
    let count = |line: &str| {
        let before = world.status();
        let client = harness::CLIENT;
        let line = line.replace('%', client).replace("rustc", harness::rustc().to_str().unwrap());
        harness::run(world.command("sh").args(["-c", &line]).env("RUSTC_BOOTSTRAP", "1"));
        world.since(&before).bypasses
    };
    for line in ["% gcc -c x.c -ftime-report", "% gcc -c x.c -Q", "% rustc --crate-type lib src/lib.rs -Ztime-passes"] {
        assert_eq!((count(line), count(line)), (1, 1), "{line}");
        assert_eq!(world.status()["bypass_reasons"]["profiling"].as_u64().unwrap() % 2, 0, "{line}");
    }
}
