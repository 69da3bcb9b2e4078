//! A hit equals the bare compile: rustc alone, as a miss and as a hit, compared in files, bytes, modes, streams and
//! exit code, over everything that cargo asks rustc for.

mod harness;

use harness::{CLIENT, Counts, World, assert_same, effect, run, rustc};

const LIB: &str =
    "pub fn f(x: u32) -> u32 { x + 1 }\n#[cfg(test)] mod t { #[test] fn t() { assert_eq!(super::f(1), 2); } }\n";

/// Runs a rustc command bare, as a miss and as a hit, each into an empty directory of the same name.
fn same(world: &World, arguments: &str, umask: &str, stdin: Option<&str>) {
    let out = world.path("out");
    let mut effects = Vec::new();
    for (program, counts) in
        [(None, None), (Some(harness::CLIENT), Some((0, 1))), (Some(harness::CLIENT), Some((1, 0)))]
    {
        world.remove("out");
        std::fs::create_dir(&out).unwrap();
        let before = world.status();
        let mut command = world.command("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).args(program).arg(harness::rustc());
        command.args(arguments.split_whitespace());
        if let Some(source) = stdin {
            world.write(&[("stdin", source)]);
            command.stdin(std::fs::File::open(world.path("stdin")).unwrap());
        }
        effects.push(effect(&mut command, &out));
        if let Some((hits, misses)) = counts {
            let log = world.log();
            assert_eq!(world.since(&before), Counts { hits, misses, bypasses: 0 }, "rustc {arguments}\n{log}");
        }
    }
    assert_same(&effects[0], &effects[1], &format!("miss of rustc {arguments}"));
    assert_same(&effects[0], &effects[2], &format!("hit of rustc {arguments}"));
    assert_eq!(effects[0].code, Some(0), "rustc {arguments}: {}", effects[0].stderr);
}

#[test]
fn every_crate_type_and_emission() {
    let world = World::new();
    world.write(&[
        ("lib.rs", LIB),
        ("main.rs", "fn main() { println!(\"{}\", file!()); }"),
        ("warn.rs", "pub fn f() { let x = 1; }"),
        ("mac.rs", "#[proc_macro] pub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }"),
    ]);
    for arguments in [
        "--crate-name a --crate-type lib lib.rs --out-dir out --emit=dep-info,metadata,link -C metadata=1 -C extra-filename=-1",
        "--crate-name a --crate-type lib lib.rs --out-dir out --emit=dep-info,metadata -C debuginfo=2",
        "--crate-name a --crate-type rlib lib.rs --out-dir out -C opt-level=3",
        "--crate-name a --crate-type dylib lib.rs --out-dir out -C prefer-dynamic",
        "--crate-name a --crate-type cdylib lib.rs --out-dir out",
        "--crate-name a --crate-type staticlib lib.rs --out-dir out",
        "--crate-name a --crate-type proc-macro mac.rs --out-dir out --extern proc_macro",
        "--crate-name a --crate-type bin main.rs --out-dir out --emit=dep-info,link -C debuginfo=2",
        "--crate-name a --test lib.rs --out-dir out",
        "--crate-name a --crate-type lib lib.rs --out-dir out --emit=obj,asm,llvm-ir,mir",
        "--crate-name a --crate-type lib lib.rs -o out/named.rlib",
        "--crate-name a --crate-type lib warn.rs --out-dir out --error-format=json --json=artifacts,diagnostic-rendered-ansi",
        "--crate-name a --crate-type bin main.rs --out-dir out -C split-debuginfo=unpacked -C debuginfo=2",
    ] {
        same(&world, arguments, "022", None);
    }
}

#[test]
fn probes_and_standard_input() {
    let world = World::new();
    for (arguments, stdin) in [
        ("-vV", None),
        ("--version", None),
        ("--print=sysroot", None),
        ("--print=cfg -C target-cpu=native", None),
        ("- --crate-name ___ --print=file-names --crate-type bin --crate-type rlib --print=cfg", Some("")),
        ("- --crate-name probe --crate-type lib --out-dir out --emit=metadata", Some("pub fn probe() {}")),
    ] {
        same(&world, arguments, "022", stdin);
    }
}

#[test]
fn source_on_standard_input_is_part_of_the_question() {
    let world = World::new();
    let compile = |source: &str| {
        world.write(&[("stdin", source)]);
        let mut command = world.rustc("- --crate-name x --crate-type bin -o out");
        command.stdin(std::fs::File::open(world.path("stdin")).unwrap());
        run(&mut command);
        harness::stdout(&mut world.command(world.path("out")))
    };
    assert_eq!(compile("fn main() { println!(\"one\") }"), "one");
    assert_eq!(compile("fn main() { println!(\"two\") }"), "two");
    assert_eq!(compile("fn main() { println!(\"one\") }"), "one");
    assert_eq!(world.total("hits"), 1, "{}", world.log());
}

#[test]
fn modes_follow_the_callers_umask() {
    let world = World::new();
    world.write(&[("lib.rs", LIB), ("main.rs", "fn main() {}")]);
    for umask in ["077", "022", "002"] {
        same(&world, "--crate-name a --crate-type lib lib.rs --out-dir out --emit=dep-info,metadata,link", umask, None);
        same(&world, "--crate-name a --crate-type bin main.rs --out-dir out --emit=dep-info,link", umask, None);
    }
}

#[test]
fn older_outputs_are_replaced_alike() {
    const LINE: &str = "lib.rs --crate-type lib --emit link,metadata,dep-info --out-dir out";
    let world = World::new();
    world.write(&[("lib.rs", LIB), ("out/.keep", "")]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    run(&mut world.rustc(LINE));
    assert_eq!(world.total("stored"), 1, "{}", world.log());
    for (mode, name) in
        [(400, "liblib.rlib"), (400, "liblib.rmeta"), (400, "lib.d"), (600, "lib.d"), (600, "liblib.rlib")]
    {
        let line = format!("mkdir out; echo old > out/{name}; chmod {mode} out/{name}; exec \"$@\"");
        let compile = |cached: bool| {
            world.remove("out");
            let mut command = world.command("sh");
            command.args(["-c", &line, "sh"]).args(cached.then_some(CLIENT)).arg(rustc()).args(LINE.split(' '));
            effect(&mut command, &world.path("out"))
        };
        let bare = compile(false);
        for round in 1..=2 {
            assert_same(&bare, &compile(true), &format!("{name} of mode {mode}, round {round}"));
        }
    }
}

#[test]
fn names_with_spaces_and_other_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let name = std::ffi::OsStr::from_bytes(b"a b $c\xff:d");
    let dir = world.path("").join(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("main.rs"), "fn main() {}").unwrap();
    let mut effects = Vec::new();
    for program in [None, Some(harness::CLIENT), Some(harness::CLIENT)] {
        let _ = std::fs::remove_file(dir.join("x"));
        let mut command = world.command(program.map_or(harness::rustc().as_os_str(), std::ffi::OsStr::new));
        command.args(program.map(|_| harness::rustc())).args(["--crate-name", "x", "main.rs", "-o", "x"]);
        effects.push(effect(command.env("ODD", name).current_dir(&dir), &dir));
    }
    assert_same(&effects[0], &effects[1], "miss");
    assert_same(&effects[0], &effects[2], "hit");
    assert_eq!((world.total("hits"), world.total("stored")), (1, 1), "{}", world.log());
}

#[test]
fn argument_files_stand_for_their_lines() {
    let world = World::new();
    world.write(&[("lib.rs", LIB), ("args", "--crate-name\na\n--crate-type\nlib\nlib.rs\n")]);
    same(&world, "@args --out-dir out", "022", None);
    // Another file with the same lines asks the same; other lines do not.
    world.write(&[("args2", "--crate-name\na\n--crate-type\nlib\nlib.rs\n")]);
    let before = world.status();
    run(&mut world.rustc("@args2 --out-dir out"));
    assert_eq!(world.since(&before).hits, 1);
    world.write(&[("args2", "--crate-name\nb\n--crate-type\nlib\nlib.rs\n")]);
    run(&mut world.rustc("@args2 --out-dir out"));
    assert!(world.path("out/libb.rlib").exists());
}

#[test]
fn a_failing_compile_runs_every_time_and_says_what_bare_says() {
    let world = World::new();
    world.write(&[("lib.rs", "pub fn f() -> u32 { \"no\" }")]);
    let arguments = "--crate-name a --crate-type lib lib.rs --out-dir out";
    let bare = effect(&mut world.bare_rustc(arguments), &world.path("out"));
    assert_eq!(bare.code, Some(1));
    for _ in 0..2 {
        assert_same(&bare, &effect(&mut world.rustc(arguments), &world.path("out")), "failing compile");
    }
    assert_eq!((world.total("hits"), world.total("misses"), world.total("stored")), (0, 2, 0));
}

#[test]
fn a_killed_compiler_ends_the_client_alike_and_nothing_is_stored() {
    let world = World::new();
    let stand_in = world.script("rustc.sh", "#!/bin/sh\necho half > out\nkill -SEGV $$\n");
    let mut command = world.command(harness::CLIENT);
    let status = command.arg(stand_in).args(["--crate-name", "x", "x.rs"]).status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(11));
    assert_eq!((world.total("misses"), world.total("stored")), (1, 0));
}

#[test]
#[ignore = "needs strace"]
fn a_hit_starts_no_process() {
    let world = World::new();
    world.write(&[("main.rs", "fn main() {}")]);
    let arguments = "--crate-name a --crate-type bin main.rs -o out";
    run(&mut world.rustc(arguments));
    assert_eq!(world.total("stored"), 1);
    let daemon = world.daemons()[0].to_string();
    let mut watch = world.command("strace");
    let watch = watch.args(["-f", "-q", "-e", "trace=execve,execveat", "-o", "daemon.trace", "-p", &daemon]).spawn();
    let mut watch = watch.expect("strace is installed");
    let trace = || std::fs::read_to_string(world.path("daemon.trace")).unwrap_or_default();
    while std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap().contains("TracerPid:\t0") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    world.remove("out");
    let mut client = world.command("strace");
    client
        .args(["-f", "-q", "-e", "trace=execve,execveat", "-o", "client.trace", harness::CLIENT])
        .arg(harness::rustc());
    run(client.args(arguments.split_whitespace()));
    let started = std::fs::read_to_string(world.path("client.trace")).unwrap();
    assert_eq!(started.matches("exec").count(), 1, "only the client itself: {started}");
    assert_eq!(trace().matches("exec").count(), 0, "{}", trace());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watch.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    watch.wait().unwrap();
    assert_eq!(world.total("hits"), 1);
}
