//! Guided builds: what `zcache run` leaves as it is for cargo, build systems and other caches, and what it says.

mod guided;
mod harness;

use std::os::unix::fs::symlink;

use guided::{is_installed, prepare, said, text};
use harness::{CLIENT, World, ZCACHE, files, run, stdout};

/// A package whose build script declares what pyo3's and the `cc` crate's declare, and compiles C.
fn package(world: &World) {
    world.write(&[
        ("c/Cargo.toml", "[package]\nname = 'c'\nversion = '0.1.0'\nedition = '2021'\n"),
        (
            "c/build.rs",
            "fn main() {
    for name in [\"PATH\", \"RUSTC_WRAPPER\", \"CC\", \"CMAKE_C_COMPILER_LAUNCHER\", \"LD_PRELOAD\"] {
        println!(\"cargo:rerun-if-env-changed={name}\");
    }
    let out = std::env::var(\"OUT_DIR\").unwrap();
    let run = |program: &str, arguments: &[&str]| {
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    run(\"cc\", &[\"-c\", \"seven.c\", \"-o\", &format!(\"{out}/seven.o\")]);
    run(\"ar\", &[\"rcs\", &format!(\"{out}/libseven.a\"), &format!(\"{out}/seven.o\")]);
    println!(\"cargo:rustc-link-search=native={out}\\ncargo:rustc-link-lib=static=seven\");
}",
        ),
        ("c/seven.c", "int seven(void) { return 7; }"),
        ("c/src/main.rs", "extern \"C\" { fn seven() -> i32; }\nfn main() { print!(\"{}\", unsafe { seven() }) }"),
    ]);
}

#[test]
fn cargo_takes_its_own_work_for_fresh_with_and_without_zcache() {
    let world = World::new();
    package(&world);
    let build = |cached: bool| {
        let mut command = if cached { world.zcache("run -- cargo build") } else { world.bare_cargo("c", "build") };
        let said = text(&run(command.current_dir(world.path("c"))).stderr);
        (said.matches("Compiling").count(), said)
    };
    for first in [true, false] {
        world.remove("c/target");
        assert_eq!(build(first).0, 1);
        for cached in [true, false, true, false] {
            let (compiled, said) = build(cached);
            assert_eq!(compiled, 0, "{first} {cached}: {said}");
        }
    }
    world.remove("c/target");
    let before = world.status();
    build(true);
    let counts = world.since(&before);
    // cargo's questions, the build script, its C, the program.
    assert!(counts.hits >= 4 && counts.misses + counts.bypasses == 0, "{counts:?} {}", world.log());
    assert_eq!(stdout(&mut world.command(world.path("c/target/debug/c"))), "7");
}

/// Build systems: how a build directory is configured, and how it is built there.
const SYSTEMS: &[(&str, &str, &str)] = &[
    ("cmake", "cmake -S . -B b", "cmake --build b"),
    ("cmake", "cmake -S . -B b -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=1", "cmake --build b"),
    ("cmake", "CC=clang cmake -S . -B b", "cmake --build b -v"),
    ("meson", "meson setup b", "ninja -C b"),
    ("meson", "meson setup b -Dc_args=-DX", "meson compile -C b"),
    ("sh", "mkdir b; cd b; ../configure", "make -C b"),
    ("sh", "mkdir b; cd b; CC=/usr/bin/gcc ../configure", "make -C b"),
];

fn project(world: &World) {
    world.write(
        &[
            ("CMakeLists.txt", "cmake_minimum_required(VERSION 3.17)\nproject(c C)\nadd_executable(c c.c d.c)\n"),
            ("meson.build", "project('c', 'c')\nexecutable('c', 'c.c', 'd.c')\n"),
            ("c.c", "int d(void); int main(void) { return d(); }\n"),
            ("d.c", "int d(void) { return 0; }\n"),
        ]
        .map(|(name, text)| (Box::leak(format!("q/{name}").into_boxed_str()) as &str, text)),
    );
    // What autoconf's do: the compiler by its name, or by the path that was found, goes into what is generated.
    let configure = "#!/bin/sh
test -n \"$CC\" || { for d in $(echo $PATH | tr : ' '); do test -x $d/gcc && CC=$d/gcc && break; done; }
echo 'int main(void) { return 0; }' > conftest.c && $CC conftest.c -o conftest && ./conftest || exit 77
rm conftest*
printf 's,@CC@,%s,\\n' \"$CC\" > config.status
printf 'c: c.o d.o\\n\\t%s c.o d.o -o c\\n%%.o: ../%%.c\\n\\t%s -c $< -o $@\\n' \"$CC\" \"$CC\" > Makefile
";
    world.script("q/configure", configure);
}

#[test]
#[ignore = "needs cmake, meson, ninja and make"]
fn build_directories_belong_to_both() {
    for (needs, configure, build) in SYSTEMS.iter().filter(|system| is_installed(system.0)) {
        let world = World::new();
        project(&world);
        let shell = |script: &str, cached: bool| {
            let mut command = world.command(if cached { ZCACHE } else { "sh" });
            command.args(cached.then_some(["run", "--", "sh"]).into_iter().flatten());
            run(command.args(["-c", script]).current_dir(world.path("q")))
        };
        // Configured without, built with: cached, whatever paths are written down.
        shell(&format!("rm -rf b; {configure}"), false);
        let hits = [(); 2].map(|()| {
            shell("rm -f b/c b/*.o b/*/*.o b/CMakeFiles/c.dir/*.o", false);
            let before = world.status();
            shell(build, true);
            world.since(&before).hits
        });
        assert!(hits[0] == 0 && hits[1] >= 2, "{configure}: {hits:?} {}", world.log());
        // Configured with: nothing there is of zcache, and it builds without.
        shell(&format!("rm -rf b; {configure}"), true);
        let ours = [CLIENT, "zcache", "data/"];
        for (file, (_, content)) in files(&world.path("q/b")) {
            let found = ours.iter().find(|ours| content.windows(ours.len()).any(|part| part == ours.as_bytes()));
            assert_eq!(found, None, "{configure}: {needs}: {}", file.display());
        }
        run(&mut world.zcache("stop"));
        run(world.command("sh").args(["-c", build]).current_dir(world.path("q")));
        assert!(world.daemons().is_empty());
    }
}

#[test]
#[ignore = "needs ccache and clang"]
fn another_cache_tells_compilers_apart_as_it_does_without_us() {
    let world = World::new();
    prepare(&world);
    for (link, target) in [("G/cc", "/usr/bin/gcc"), ("L/cc", "/usr/bin/clang")] {
        world.write(&[(&format!("{}/.keep", &link[..1]), "")]);
        symlink(target, world.path(link)).unwrap();
    }
    let cache = world.path("ccache").display().to_string();
    for variables in [&[("CCACHE_DIR", cache.as_str())][..], &[("CCACHE_DIR", &cache), ("CCACHE_NODISABLE", "1")]] {
        world.remove("ccache");
        for dir in ["G", "L", "G", "L"] {
            let line = format!("PATH=$PWD/../{dir}:$PATH; ccache cc -c x.c; grep -c clang x.o");
            let (printed, _) = said(&world, &line, variables);
            assert_eq!(printed, if dir == "L" { "1\n" } else { "0\n" }, "{dir} {variables:?}");
        }
    }
    // It is turned off, but for who says otherwise.
    assert_eq!(said(&world, "echo $CCACHE_DISABLE", &[]).0, "1\n");
    assert_eq!(said(&world, "echo $CCACHE_DISABLE", &[("CCACHE_NODISABLE", "1")]).0, "\n");
    assert_eq!(said(&world, "echo $CCACHE_DISABLE", &[("CCACHE_DISABLE", "true")]).0, "true\n");
}

/// As ccache does: it looks for the next compiler of its name that is not itself.
const MASQUERADE: &str = "#!/bin/sh\nfor d in $(echo $PATH | tr : ' '); do\n[ $d = ${0%/*} ] || [ ! -x $d/${0##*/} ] || \
                          exec $d/${0##*/} \"$@\"; done\n";

#[test]
fn links_of_another_cache_run_as_without_us_and_what_they_start_is_cached() {
    for (name, remark) in [("ccache", false), ("distcc", true), ("icecc", true), ("buildcache", false)] {
        let world = World::new();
        prepare(&world);
        let script = world.script(name, MASQUERADE);
        world.write(&[("masks/.keep", "")]);
        symlink(script, world.path("masks/gcc")).unwrap();
        let path = format!("{}:{}", world.path("masks").display(), std::env::var("PATH").unwrap());
        for hits in 0..2 {
            let (_, ours) = said(&world, "gcc -c x.c", &[("PATH", &path)]);
            assert_eq!(world.total("hits"), hits, "{name}");
            assert_eq!(ours.matches(&format!("is {name}'s")).count(), usize::from(remark), "{ours}");
        }
    }
}

#[test]
fn a_run_without_requests_says_why() {
    let world = World::new();
    prepare(&world);
    let why = |line: &str, variables: &[(&str, &str)]| said(&world, line, variables).1;
    assert!(why("true", &[]).contains("up to date"));
    assert!(why("true", &[("RUSTC_WRAPPER", "/opt/sccache")]).contains("RUSTC_WRAPPER=/opt/sccache stands before"));
    assert!(why("true", &[("CC", "ccache gcc")]).contains("CC=ccache gcc stands before"));
    assert!(why("true", &[("CC", "/opt/tool")]).contains("CC=/opt/tool is no compiler that zcache knows"));
    assert!(why("true", &[("CC", "clang-14")]).contains("up to date"));
    assert!(why("gcc -c x.c", &[]).contains("1 miss"));
}

#[test]
fn zcache_runs_within_zcache() {
    let world = World::new();
    prepare(&world);
    let zcache = format!("{ZCACHE} run --");
    let line = format!("{zcache} sh -c '{zcache} gcc -c x.c; env' | grep -E 'LD_|ZCACHE_G'; {CLIENT} gcc -c x.c");
    for hits in [1, 3] {
        let (printed, _) = said(&world, &line, &[]);
        assert_eq!((printed.as_str(), world.total("hits")), ("", hits), "{}", world.log());
    }
    assert_eq!(world.daemons().len(), 1);
}

/// gcc's AddressSanitizer ends a program into which anything is loaded before it.
#[test]
fn a_sanitized_program_runs() {
    let world = World::new();
    prepare(&world);
    world.write(&[(
        "p/s.c",
        "#include <stdlib.h>\nint main(int c, char **v) { return c > 1 ? system(\"gcc -c x.c\") : 0; }\n",
    )]);
    let (printed, _) = said(&world, "gcc -fsanitize=address s.c -o s && ./s && ./s 1 && echo well", &[]);
    assert_eq!(printed, "well\n");
}

/// Another user cannot read the library, and the loader would say so.
#[test]
#[ignore = "needs root: another user"]
fn another_user_is_not_led() {
    let world = World::new();
    prepare(&world);
    let line = "cd /; setpriv --reuid 65534 --clear-groups sh -c 'gcc -dumpversion; env | grep -E \"LD_|ZCACHE_G\"'";
    let bare = text(&run(world.command("sh").args(["-c", &format!("{line}; true")])).stdout);
    assert_eq!(said(&world, line, &[]).0, bare);
}

/// The same for a program of 32 bits: it is started as it would be.
#[test]
#[ignore = "needs gcc-multilib"]
fn a_program_of_another_kind_hears_nothing() {
    let world = World::new();
    prepare(&world);
    run(world.command("gcc").args(["-m32", "start.c", "-o", "p/start32"]));
    assert_eq!(
        said(&world, "./start32 gcc -dumpversion >/dev/null; ./start32 env | grep -E 'LD_|ZCACHE_G'", &[]).0,
        ""
    );
}
