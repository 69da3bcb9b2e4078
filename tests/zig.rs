//! zig as a C compiler, which no observer can enter: hits equal bare, and what it reads is followed or not kept.
//! Uses `zig` in PATH, or the one that `ZCACHE_TEST_ZIG` names.

mod fixture;
mod harness;
mod matrix;

use fixture::{Compile, State, reasons, settle};
use harness::{CLIENT, World, ZCACHE, run};
use matrix::{Expected, Matrix};

const FILES: &[(&str, &str)] = &[
    ("m.c", "#include <stdio.h>\n#include \"h.h\"\nint f(int x) { return x + H; }\n"),
    ("h.h", "#define H 1\n"),
    ("uses.c", "#include <only.h>\nint g(void) { return ONLY; }\n"),
    ("inc/only.h", "#define ONLY 2\n"),
    ("h.c", "#include \"h.h\"\nint f(int x) { return x + H; }\n"),
    ("w.c", "int f(void) { int unused; return 1; }\n"),
    ("bad.c", "int f(void) { return missing; }\n"),
    ("x.cc", "#include <vector>\nint f() { std::vector<int> v(3); return int(v.size()); }\n"),
    ("a.S", "#include \"h.h\"\n.globl q\nq: .long H\n"),
];

const STORED: &[&str] = &[
    "cc -c m.c -o out/m.o",
    "cc -c m.c -o out/m.o -MD -MF out/m.d",
    "cc -c uses.c -Iinc -o out/u.o -MD -MF out/u.d -MT tgt -MP",
    "cc -target aarch64-linux-gnu -c m.c -o out/m.o",
    "cc -target x86_64-linux-musl -O2 -c m.c -o out/m.o -MD -MF out/m.d",
    "cc -g -c m.c -o out/m.o",
    "cc -target aarch64-linux-musl -g -O2 -c m.c -o out/m.o",
    "cc -c $PWD/m.c -o $PWD/out/m.o -I$PWD/inc -MD -MF $PWD/out/m.d",
    "cc -c a.S -o out/a.o",
    "cc -E m.c",
    "cc -E m.c -o out/m.i",
    "cc -S m.c -o out/m.s",
    "cc -c w.c -Wall -o out/w.o",
    "c++ -c x.cc -o out/x.o",
];

fn zig() -> String {
    std::env::var("ZCACHE_TEST_ZIG").unwrap_or_else(|_| "zig".to_owned())
}

/// zig's own cache of what belongs to it, kept over the tests of one run, since filling it takes seconds. Its cache of
/// compiles is emptied before each: it does not notice a header that appears earlier, nor keep depfiles apart.
fn global_cache() -> String {
    env!("CARGO_TARGET_TMPDIR").to_owned() + "/zig"
}

/// Commands that go through zig as they do bare, with its cache of compiles emptied before each.
fn asked(lines: &[&str], expected: Expected) {
    let mut matrix = Matrix::new(FILES);
    let own_cache = matrix.world.path("zig").to_str().unwrap().to_owned();
    let zig = format!("rm -rf {own_cache}; %{}", zig());
    matrix.env = vec![("ZIG_GLOBAL_CACHE_DIR", global_cache()), ("ZIG_LOCAL_CACHE_DIR", own_cache)];
    matrix.all(expected, &lines.iter().map(|line| format!("{zig} {line}")).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs zig"]
fn what_zig_is_asked() {
    asked(STORED, Expected::Stored);
    asked(&["cc -c bad.c -o out/b.o"], Expected::Refused("compile_failed"));
    let untold = [
        "cc -c w.c -o out/w.o -fprofile-instr-generate",
        "cc --version",
        "cc -c w.c -o out/w.o -march=native",
        "cc -c w.c -o out/w.o -Xclang -disable-llvm-passes",
    ];
    asked(&untold, Expected::Refused("unwatched_program_tells_too_little"));
}

/// The list of headers that zig is asked for would change what `-MMD` writes.
#[test]
#[ignore = "needs zig"]
fn depfiles_without_system_headers_are_right_and_not_kept() {
    let lines = &[
        "cc -c m.c -o out/m.o -MMD -MF out/m.d",
        "cc -c h.c -o h.o -MMD",
        "cc -c uses.c -Iinc -o out/u.o -MMD -MF out/u.d -MT tgt -MP",
    ];
    asked(lines, Expected::Refused("unwatched_program_tells_too_little"));
}

#[test]
#[ignore = "needs zig"]
fn depfiles_without_a_name() {
    asked(&["cc -c uses.c -Iinc -o out/u.o -MD"], Expected::Stored);
}

#[test]
#[ignore = "needs zig"]
fn outputs_without_a_name() {
    asked(&["cc -c h.c", "cc -S h.c"], Expected::Stored);
}

/// A command whose program prints what `p/x.c` saw.
fn follows(world: &World, arguments: &str, states: &[State<'_>]) {
    let command = |cached: bool| {
        let (client, zig) = (if cached { CLIENT } else { "" }, zig());
        let line = format!(
            "mkdir out; rm -rf ../zig; {client} {zig} cc -c x.c -o out/x.o {arguments} && {zig} cc out/x.o -o out/app"
        );
        let mut command = world.command("sh");
        command.args(["-c", &line]).env("ZIG_GLOBAL_CACHE_DIR", global_cache()).current_dir(world.path("p"));
        command.env("ZIG_LOCAL_CACHE_DIR", world.path("zig"));
        command
    };
    Compile { world, command: &command, out: "p/out", program: "p/out/app", messages: true }.follows(states);
}

fn program(world: &World, head: &str) {
    let main = "int puts(const char *);\nint main(void) { puts(V); return 0; }\n";
    world.write(&[("p/x.c", &format!("{head}\n{main}"))]);
}

#[test]
#[ignore = "needs zig"]
fn headers_that_change_or_appear_earlier() {
    let world = World::new();
    program(&world, "#include \"foo.h\"");
    world.write(&[("p/b/.keep", "")]);
    let [a, other] = ["a", "other a"].map(|value| format!("#define V \"{value}\""));
    let first = || {
        world.remove("p/b/foo.h");
        world.remove("p/foo.h");
        world.write(&[("p/a/foo.h", &a)]);
    };
    let edited = || world.write(&[("p/a/foo.h", &other)]);
    let shadowed = || world.write(&[("p/b/foo.h", "#define V \"b\"")]);
    let beside = || world.write(&[("p/foo.h", "#define V \"beside\"")]);
    follows(&world, "-Ib -Ia", &[(&first, &[]), (&edited, &[]), (&shadowed, &[]), (&beside, &[])]);
}

#[test]
#[ignore = "needs zig"]
fn a_directory_of_headers_that_appears() {
    let world = World::new();
    program(&world, "#include <sub/foo.h>");
    world.write(&[("p/a/sub/foo.h", "#define V \"a\"")]);
    let absent = || world.remove("p/later");
    let there = || world.write(&[("p/later/sub/foo.h", "#define V \"later\"")]);
    follows(&world, "-Ilater -Ia -target x86_64-linux-musl", &[(&absent, &[]), (&there, &[])]);
}

#[test]
#[ignore = "needs zig"]
fn variables_with_include_directories() {
    let world = World::new();
    program(&world, "#include <foo.h>");
    world.write(&[("p/a/foo.h", "#define V \"a\""), ("p/b/foo.h", "#define V \"b\"")]);
    let set: [&[(&str, &str)]; 2] = [&[("CPATH", "a")], &[("CPATH", "b")]];
    follows(&world, "", &set.map(|env| -> State<'_> { (&|| (), env) }));
}

/// A variable's directory in which a header appears that stands before one that was found.
#[test]
#[ignore = "needs zig"]
fn a_header_that_appears_in_a_directory_that_a_variable_names() {
    let world = World::new();
    program(&world, "#include <foo.h>");
    world.write(&[("p/a/foo.h", "#define V \"a\""), ("p/b/.keep", "")]);
    let absent = || world.remove("p/b/foo.h");
    let there = || world.write(&[("p/b/foo.h", "#define V \"b\"")]);
    follows(&world, "", &[(&absent, &[("CPATH", "b:a")]), (&there, &[("CPATH", "b:a")])]);
}

#[test]
#[ignore = "needs zig"]
fn what_zig_does_not_tell_is_not_kept() {
    let told = "unwatched_program_tells_too_little";
    for (source, header, reason) in [
        ("#include \"h.h\"\nint x = V;", "#if __has_include(\"o.h\")\n#define V 1\n#else\n#define V 2\n#endif", told),
        ("__asm__(\".incbin \\\"h.h\\\"\");", "", told),
        ("#include \"h.h\"\nconst char *t = NOW;", "#define NOW __TIME__", "time_macro"),
        ("const char *t = __DATE__ __TIMESTAMP__;", "", "time_macro"),
    ] {
        let world = World::new();
        settle(&|| world.write(&[("x.c", source), ("h.h", header)]));
        for _ in 0..2 {
            let mut command = world.command(CLIENT);
            command.env("ZIG_GLOBAL_CACHE_DIR", global_cache());
            run(command.args([&zig(), "cc", "-c", "x.c", "-o", "x.o"]));
        }
        let why = reasons(&world);
        assert_eq!((world.total("stored"), &why[reason]), (0, &2.into()), "{source}: {why}\n{}", world.log());
    }
}

/// By which way a build was led here is no difference to what it asks.
#[test]
#[ignore = "needs zig"]
fn every_way_in_asks_the_same() {
    let world = World::new();
    world.write(&[("w/x.c", "int v(void) { return 1; }\n"), ("bin/.keep", "")]);
    std::os::unix::fs::symlink(zig(), world.path("bin/zig")).unwrap();
    std::os::unix::fs::symlink(CLIENT, world.path("sccache")).unwrap();
    settle(&|| ());
    let compile = "zig cc -target x86_64-linux-gnu -c x.c -o x.o";
    let (client, sccache) = (CLIENT, world.path("sccache").display().to_string());
    for (number, line) in [
        format!("{client} {compile}"),
        format!("{sccache} {compile}"),
        format!("{ZCACHE} run -- sh -c '{compile}'"),
        format!("eval \"$({ZCACHE} env)\"; {compile}"),
        format!("RUSTC_WRAPPER={sccache} CMAKE_C_COMPILER_LAUNCHER={client} {sccache} {compile}"),
    ]
    .iter()
    .enumerate()
    {
        let before = world.status();
        let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = world.command("sh");
        command.args(["-c", line]).env("PATH", path).env("ZIG_GLOBAL_CACHE_DIR", global_cache());
        run(command.current_dir(world.path("w")));
        assert_eq!(world.since(&before).hits, u64::from(number > 0), "{line}\n{}", world.log());
    }
}
