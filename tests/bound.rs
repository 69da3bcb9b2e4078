//! Whose result is it? One command in two places that differ in a root (checkout, target directory, output's directory
//! and name, home): wherever a path got into an output, each place has its own, as bare has; what none got into is shared.

mod fixture;
mod harness;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fixture::settle;
use harness::{CLIENT, World, assert_same, effect, rustc};

/// Whether the second place may be served the first one's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// It has to be: nothing of the place is in it.
    Shared,
    /// It must have its own.
    Own,
    /// Either is right.
    Either,
}
use Second::{Either, Own, Shared};

/// Two places, as directories of a world. In a line `$` is the place, `~` the world, and `%` stands before compilers.
struct Places<'a> {
    dirs: [&'a str; 2],
    /// Files of both.
    files: &'a [(&'a str, &'a str)],
}

const CHECKOUTS: [&str; 2] = ["one/ws", "other/and/deeper/ws"];

impl Places<'_> {
    /// Runs `line` in both places: everywhere as bare does.
    fn check(&self, compiler: &str, line: &str, second: Second) {
        let world = World::new();
        let mut hits = 0;
        for dir in self.dirs {
            let lay_out = || {
                world.remove(dir);
                let named: Vec<_> = self.files.iter().map(|(name, text)| (format!("{dir}/{name}"), *text)).collect();
                world.write(&named.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
            };
            let run = |cached: bool| {
                settle(&lay_out);
                effect(&mut self.command(&world, dir, compiler, line, cached), &world.path(dir))
            };
            let bare = run(false);
            assert_eq!(bare.code, Some(0), "{compiler} {line}: {}", bare.stderr);
            let before = world.status();
            assert_same(&bare, &run(true), &format!("{compiler} {line} in {dir}\n{}", world.log()));
            hits = world.since(&before).hits;
            assert_same(&bare, &run(true), &format!("{compiler} {line} again in {dir}"));
            let again = world.since(&before).hits;
            assert!(again > hits, "{compiler} {line} again in {dir} is no hit\n{}", world.log());
        }
        let got = if hits > 0 { Shared } else { Own };
        assert!(second == Either || got == second, "{compiler} {line}: {got:?}, wanted {second:?}\n{}", world.log());
    }

    fn command(&self, world: &World, dir: &str, compiler: &str, line: &str, cached: bool) -> Command {
        let (place, all) = (world.path(dir), world.path(""));
        let client = if cached { format!("{CLIENT} {compiler}") } else { compiler.to_owned() };
        let line = line.replace('%', &client).replace('$', place.to_str().unwrap());
        let line = line.replace('~', all.to_str().unwrap().trim_end_matches('/'));
        let mut command = world.command("sh");
        command.args(["-c", &line]).current_dir(&place).env("PWD", &place);
        command
    }

    fn all(&self, compilers: &[&str], lines: &[(&str, Second)]) {
        let mut failed = Vec::new();
        for compiler in compilers {
            for (line, second) in lines {
                let run = || self.check(compiler, line, *second);
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                    failed.push(format!("{compiler} {line}"));
                }
            }
        }
        assert!(failed.is_empty(), "{} lines, told above: {failed:#?}", failed.len());
    }
}

/// Sources that compute on the path that they were called by.
const C: &[(&str, &str)] = &[
    ("x.c", "int f(int x) { return x; }\n"),
    ("size.c", "int n = sizeof __FILE__;\n"),
    ("wide.c", "#include <stddef.h>\nconst wchar_t *w = L\"\" __FILE__;\n"),
    ("macro.c", "#include \"macro.h\"\nint n = SIZE;\n"),
    ("macro.h", "#define SIZE sizeof __FILE__\n"),
    ("base.c", "#include \"base.h\"\n"),
    ("base.h", "int n = sizeof __BASE_FILE__;\n"),
    ("defined.c", "int n = sizeof DIR;\n"),
    ("assert.c", "#include <assert.h>\nint f(int x) { assert(x); return x; }\n"),
    ("quiet.c", "#define NDEBUG\n#include <assert.h>\nint f(int x) { assert(x); return x; }\n"),
    ("m.c", "int main(void) { return 0; }\n"),
    ("where.c", "int n = sizeof WHERE;\n"),
    ("args", "-fdebug-prefix-map=/tmp=/T\n"),
    ("maps", "*cc1_options:\n+ -fdebug-prefix-map=/tmp=/T\n\n"),
    ("specs", "*asm:\n--compress-debug-sections=zlib %(asm_cpu)\n\n"),
    ("out/.keep", ""),
    ("out2/.keep", ""),
];

const LINES: &[(&str, Second)] = &[
    ("% -c x.c -o x.o", Shared),
    ("% -c $/x.c -o $/out/x.o -MD -MF $/out/x.d", Shared),
    ("% -c $/quiet.c -o quiet.o", Shared),
    ("% -c size.c", Shared),
    ("% -c $/x.c -I$/out -O2", Shared),
    ("% -S $/x.c -o x.s", Either),
    ("% -c $/size.c", Own),
    ("% -c $/wide.c", Own),
    ("% -c $/base.c", Own),
    ("% -c macro.c -I$", Either),
    ("% -c $/macro.c -I$", Own),
    ("% -c $/assert.c", Own),
    ("% -c defined.c -DDIR='\"$\"'", Own),
    ("% -c defined.c -D DIR='\"$/sub\"'", Own),
    ("% -c where.c -DWHERE=__FILE__", Shared),
    ("% -c $/where.c -DWHERE=__FILE__", Own),
    ("% -g -c x.c @args", Own),
    ("% -g -c x.c", Own),
    ("% -g -gdwarf-4 -c x.c", Own),
    ("% -g -fdebug-prefix-map=~=/T -c x.c", Own),
    ("% -g -fdebug-prefix-map=~/=/T/ -c x.c", Own),
    ("% -g -ffile-prefix-map=~=/T -c $/x.c", Own),
    ("% -g -fdebug-prefix-map=$=. -c x.c", Shared),
    ("% -c size.c -flto -frandom-seed=x", Either),
    ("% -g -c x.c -flto -frandom-seed=x", Own),
    ("% -g -gz -c x.c", Own),
    ("% -g -gdwarf-4 -Xassembler --compress-debug-sections=zlib -c x.c", Either),
    ("% -g -gdwarf-4 -Wa,--compress-debug-sections=zlib -c x.c", Either),
    ("% -E $/x.c", Either),
    ("% -E $/size.c -o size.i", Either),
    ("% -M $/x.c", Shared),
    ("% -c $/x.c -MD -MP -MT '$/out/a name' -MF out/x.d", Either),
    ("% -M $/assert.c -I$/out", Shared),
    ("% -g -gsplit-dwarf -c x.c -o out/x.o", Own),
];

#[test]
fn gcc_in_two_checkouts() {
    let places = Places { dirs: CHECKOUTS, files: C };
    places.all(&["gcc"], LINES);
    places.all(
        &["gcc"],
        &[
            ("% -g -gdwarf-4 -specs=$/specs -c x.c", Own),
            ("% -g -gdwarf-4 -specs=specs -c x.c", Own),
            ("% -c $/assert.c -fexec-charset=UTF-16", Own),
            ("% -g -specs=maps -c x.c", Own),
            ("% -g -gdwarf-4 -Wa,-L,--compress-debug-sections=zlib -c x.c", Own),
            ("% -g -gdwarf-4 -Xassembler --compress-debug-sections=zlib -c x.c", Own),
        ],
    );
}

#[test]
#[ignore = "needs clang"]
fn clang_in_two_checkouts() {
    let places = Places { dirs: CHECKOUTS, files: C };
    places.all(&["clang"], LINES);
    places.all(
        &["clang"],
        &[
            ("% -fprofile-instr-generate -fcoverage-mapping -c m.c", Own),
            ("% -c $/m.c -fprofile-instr-generate -fcoverage-mapping", Own),
            ("% -c -emit-llvm -g m.c", Own),
            ("% -c $/m.c -funique-internal-linkage-names", Either),
        ],
    );
}

const CC: &[(&str, &str)] = &[
    (
        "k.cc",
        "constexpr unsigned h(const char*s){unsigned r=0;while(*s)r=r*33+*s++;return r;}\nunsigned id=h(__FILE__);\n",
    ),
    (
        "l.cc",
        "#include <source_location>\nconstexpr unsigned h(const char*s){unsigned r=0;while(*s)r=r*33+*s++;return r;}\n\
         unsigned id=h(std::source_location::current().file_name());\n",
    ),
    (
        "b.cc",
        "constexpr unsigned n(const char*s){unsigned r=0;while(*s++)r++;return r;}\nint id=n(__builtin_FILE());\n",
    ),
    ("i.cc", "namespace { struct S { S() { asm(\"\"); } } s; }\n"),
    ("v.cc", "#include <vector>\nint f(std::vector<int>&v){ v.push_back(1); return v.size(); }\n"),
    ("out/.keep", ""),
];

#[test]
#[ignore = "needs g++"]
fn cxx_in_two_checkouts() {
    let places = Places { dirs: CHECKOUTS, files: CC };
    let lines = [
        ("% -c $/k.cc", Own),
        ("% -c k.cc", Shared),
        ("% -std=c++20 -c $/b.cc", Own),
        ("% -c $/v.cc -o $/out/v.o", Shared),
        ("% -frandom-seed=1 -c $/i.cc", Either),
    ];
    places.all(&["g++"], &lines);
    places.all(&["g++"], &[("% -std=c++20 -c $/l.cc", Own)]);
}

#[test]
#[ignore = "needs clang"]
fn cxx_by_clang_in_two_checkouts() {
    let lines = [("% -c $/k.cc", Own), ("% -c k.cc", Shared), ("% -std=c++20 -c $/b.cc", Own), ("% -c $/i.cc", Shared)];
    Places { dirs: CHECKOUTS, files: CC }.all(&["clang++"], &lines);
}

#[test]
#[ignore = "needs zig"]
fn zig_in_two_checkouts() {
    // Each place has a cache of zig's: its own answers with what another directory was compiled in.
    let zig = std::env::var("ZCACHE_TEST_ZIG").unwrap_or_else(|_| "zig".to_owned());
    let lines = [
        ("ZIG_GLOBAL_CACHE_DIR=$/../zig % -c x.c -o x.o", Either),
        ("ZIG_GLOBAL_CACHE_DIR=$/../zig % -c $/size.c -o size.o", Own),
        ("ZIG_GLOBAL_CACHE_DIR=$/../zig % -g -c $/x.c -o x.o", Own),
        ("ZIG_GLOBAL_CACHE_DIR=$/../zig % -c defined.c -DDIR='\"$\"' -o d.o", Own),
        ("ZIG_GLOBAL_CACHE_DIR=$/../zig % -g -fdebug-prefix-map=~=/T -c x.c -o x.o", Own),
    ];
    Places { dirs: CHECKOUTS, files: C }.all(&[&format!("{zig} cc -target x86_64-linux-gnu")], &lines);
}

/// Packages with whatever puts a path into an output.
const CARGO: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[package]\nname = \"p\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[profile.dev]\ndebug = 0\n[profile.release]\nrpath = true\n",
    ),
    ("build.rs", "fn main() { println!(\"cargo::rerun-if-changed=build.rs\"); }\n"),
    (
        "src/main.rs",
        "const N: usize = env!(\"OUT_DIR\").len();\n#[inline(never)]\nfn f(x: usize) -> usize { if x > 2 { x } else { x * 3 } }\n\
         fn main() { println!(\"{} {}\", N, f(std::env::args().count())); }\n",
    ),
];

/// Builds in both places, bare and cached twice, and compares the whole target directory but cargo's own files.
fn cargo_in(dirs: [&str; 2], target: impl Fn(&World, &str) -> PathBuf, arguments: &str, flags: &str) {
    let world = World::new();
    for dir in dirs {
        let named: Vec<_> = CARGO.iter().map(|(name, text)| (format!("{dir}/{name}"), *text)).collect();
        world.write(&named.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    }
    world.write(&[("args", "-Wl,--compress-debug-sections=zlib\n")]);
    settle(&|| ());
    for dir in dirs {
        let target = target(&world, dir);
        let build = |cached: bool| {
            let _ = fs::remove_dir_all(&target);
            let mut command = if cached { world.cargo(dir, arguments) } else { world.bare_cargo(dir, arguments) };
            let flags = flags.replace('~', world.path("").to_str().unwrap().trim_end_matches('/'));
            command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
            let output = command.output().expect("cargo");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let mut files = harness::files(&target);
            files.retain(|path, (_, bytes)| {
                !path.components().any(|part| part.as_os_str() == ".fingerprint")
                    && (bytes.starts_with(b"\x7fELF") || is_library(path))
            });
            let program = if arguments.contains("--release") { "release/p" } else { "debug/p" };
            let ran = world.command(target.join(program)).output().expect("the program");
            (files, ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
        };
        let bare = build(false);
        for round in 0..2 {
            let got = build(true);
            assert_eq!(bare.0.keys().collect::<Vec<_>>(), got.0.keys().collect::<Vec<_>>());
            for (path, file) in &bare.0 {
                assert!(
                    file == &got.0[path],
                    "{arguments} {flags}: {} in {dir}, round {round}\n{}",
                    path.display(),
                    world.log()
                );
            }
            assert_eq!((&bare.1, &bare.2), (&got.1, &got.2), "{arguments} {flags} in {dir}");
        }
    }
}

fn is_library(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rlib" || extension == "rmeta")
}

#[test]
fn cargo_in_two_checkouts() {
    let inside = |world: &World, dir: &str| world.path(dir).join("target");
    for (arguments, flags) in [
        ("build", ""),
        ("build", "--remap-path-prefix=~=/T"),
        ("build", "-Cinstrument-coverage"),
        ("build --release", "-Cprefer-dynamic"),
        ("build", "-Cdebuginfo=2 -Clink-arg=-Wl,--compress-debug-sections=zlib"),
        ("build", "-Cdebuginfo=2 -Clink-arg=@~/args"),
    ] {
        cargo_in(CHECKOUTS, inside, arguments, flags);
    }
}

#[test]
fn cargo_with_two_target_directories() {
    let outside = |world: &World, dir: &str| world.path(&format!("targets/{}", dir.len()));
    cargo_in(["p", "p"], outside, "build", "");
    cargo_in(CHECKOUTS, outside, "build", "");
}

#[test]
fn rustc_by_a_relative_target_directory_is_shared() {
    let places = Places { dirs: ["one/a", "two/a"], files: &[("src/lib.rs", "pub fn f() {}\n"), ("../t/.keep", "")] };
    let rustc = rustc().to_str().unwrap();
    let line = "% --crate-name x --crate-type bin src/main.rs -Cdebuginfo=0 --emit=link --out-dir $/../t";
    let files = Places { files: &[("src/main.rs", "fn main() {}\n"), ("../t/.keep", "")], ..places };
    files.check(rustc, line, Shared);
}

/// One source, other outputs: kbuild's probes in `.tmp_$$`, two targets, two build directories.
#[test]
fn the_outputs_name_is_the_callers_to_choose() {
    let world = World::new();
    world.write(&[("w/x.c", "int f(int x) { return x; }\n"), ("w/inc/h.h", "")]);
    for dir in ["a", "b/c", ".tmp_12", ".tmp_345"] {
        fs::create_dir_all(world.path("w").join(dir)).unwrap();
    }
    settle(&|| ());
    let run = |cached: bool, line: &str| {
        let client = if cached { CLIENT } else { "" };
        effect(
            world.command("sh").args(["-c", &line.replace('%', client)]).current_dir(world.path("w")),
            &world.path("w"),
        )
    };
    for (first, second, shared) in [
        ("% gcc -Werror -c -x c /dev/null -o .tmp_12/tmp", "% gcc -Werror -c -x c /dev/null -o .tmp_345/tmp", true),
        ("% gcc -c x.c -o a/x.o", "% gcc -c x.c -o b/c/x.o", true),
        ("% gcc -c x.c -O1 -o a/one.o", "% gcc -c x.c -O1 -o a/two.o", true),
        ("% gcc -c x.c -MD -MF a/x.d -MT a/x.o -o a/x.o", "% gcc -c x.c -MD -MF b/c/x.d -MT b/c/x.o -o b/c/x.o", true),
        ("% gcc -c x.c -Wp,-MMD,a/.x.d -o a/x.o", "% gcc -c x.c -Wp,-MMD,.tmp_12/.x.d -o .tmp_12/x.o", true),
        ("% gcc -c x.c -MD -o a/one.o", "% gcc -c x.c -MD -o .tmp_345/z.o", true),
        ("% gcc -g -gsplit-dwarf -c x.c -o a/x.o", "% gcc -g -gsplit-dwarf -c x.c -o b/c/x.o", false),
        ("% gcc -c x.c -fstack-usage -o a/one.o", "% gcc -c x.c -fstack-usage -o b/c/y.o", true),
        (
            "% gcc -c x.c -Ia -fprofile-use -Wno-all -o a/one.o",
            "% gcc -c x.c -Ia -fprofile-use -Wno-all -o b/c/two.o",
            false,
        ),
    ] {
        for line in [first, second] {
            let bare = run(false, line);
            assert_eq!(bare.code, Some(0), "{line}: {}", bare.stderr);
            let before = world.status();
            assert_same(&bare, &run(true, line), line);
            let hits = world.since(&before).hits;
            assert_eq!(hits == 1, line == second && shared, "{line}: {hits} hits\n{}", world.log());
            assert_same(&bare, &run(true, line), &format!("{line} again"));
            assert_eq!(world.since(&before).hits, hits + 1, "{line} again");
        }
    }
}

/// A header beside the output is found by the command's own include path, wherever the output goes.
#[test]
fn what_lies_beside_the_output_is_no_output_of_it() {
    let world = World::new();
    world.write(&[
        ("w/x.c", "#include \"h.h\"\nint v = H;\n"),
        ("w/a/h.h", "#define H 1\n"),
        ("w/b/h.h", "#define H 2\n"),
    ]);
    settle(&|| ());
    for (line, want) in [
        ("gcc -Ia -c x.c -o a/x.o", 1),
        ("gcc -Ia -c x.c -o b/x.o", 1),
        ("gcc -Ib -c x.c -o b/x.o", 2),
        ("gcc -Ib -c x.c -o a/x.o", 2),
    ] {
        let object = line.rsplit(' ').next().unwrap();
        let compile = |client: &str| {
            let line = format!(
                "{client} {line} && gcc -c -x c - -o m.o <<< 'extern int v; int main(void){{return v;}}' && gcc m.o {object} -o m && ./m"
            );
            effect(world.command("bash").args(["-c", &line]).current_dir(world.path("w")), &world.path("none")).code
        };
        assert_eq!((compile(""), compile(CLIENT), compile(CLIENT)), (Some(want), Some(want), Some(want)), "{line}");
    }
}

/// `PWD` matters only where it names the current directory, and then by which name.
#[test]
fn the_name_of_the_directory_counts_where_it_shows() {
    let world = World::new();
    world.write(&[("real/ws/x.c", "int f(int x) { return x; }\n"), ("real/ws/sub/.keep", "")]);
    std::os::unix::fs::symlink(world.path("real"), world.path("link")).unwrap();
    settle(&|| ());
    let compile = |client: &str, flags: &str, pwd: &str| {
        let line = format!("{client} gcc {flags} -c x.c -o x.o");
        let dir = world.path("real/ws");
        let pwd = world.path(pwd);
        effect(
            world
                .command("env")
                .args([format!("PWD={}", pwd.display()).as_str(), "sh", "-c"])
                .arg(format!("export PWD='{}'; exec {line}", pwd.display()))
                .current_dir(&dir),
            &dir,
        )
    };
    for (flags, pwd, hits) in [
        ("-O1", "real/ws", 0),
        ("-O1", "link/ws", 1),
        ("-O1", "real/ws/sub", 1),
        ("-O1", "nowhere", 1),
        ("-g", "real/ws", 0),
        ("-g", "real/ws/sub", 1),
        ("-g", "link/ws", 0),
        ("-g", "real", 1),
    ] {
        let bare = compile("", flags, pwd);
        let before = world.status();
        assert_same(&bare, &compile(CLIENT, flags, pwd), &format!("{flags} in {pwd}"));
        assert_eq!(world.since(&before).hits, hits, "{flags} in {pwd}\n{}", world.log());
    }
}
