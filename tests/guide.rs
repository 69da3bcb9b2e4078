//! Guide: a build under `zcache run` starts its compilers as it always does, and they come through the cache. Each way to
//! start one is compared with bare in all that it leaves, and counted.

mod harness;

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use harness::{CLIENT, Effect, World, ZCACHE, assert_same, effect, files, run, stdout};

/// A way to start compilers: what it needs besides a shell and gcc, the command for `sh -c` in a directory with `x.c`, and
/// how many hits come of it, and other requests, once all that can be stored is stored.
type Way = (&'static str, &'static str, [u64; 2]);

const WAYS: &[Way] = &[
    ("", "gcc -c x.c", [1, 0]),
    ("", "/usr/bin/gcc -c x.c", [1, 0]),
    ("", "exec gcc -c x.c", [1, 0]),
    ("", "../p/./bin/gcc -c x.c", [1, 0]),
    ("", "PATH=bin:$PATH; gcc -c x.c", [1, 0]),
    ("", "PATH=; cd /usr/bin; ./gcc -c \"$OLDPWD/x.c\" -o \"$OLDPWD/x.o\"", [1, 0]),
    ("", "'./a b/gcc' -c x.c", [1, 0]),
    ("", "./scripts/gcc -c x.c", [1, 0]),
    ("", "./scripts/plain-gcc -c x.c", [1, 0]),
    ("", "./scripts/c99 -c x.c; echo $?", [0, 1]),
    ("", "./broken/gcc -c x.c; echo $?", [0, 0]),
    ("", "PATH=broken:$PATH; timeout 9 gcc -c x.c", [0, 0]),
    ("", "env -i /usr/bin/gcc -c x.c", [1, 0]),
    ("", "env -i PATH=/usr/bin sh -c 'gcc -c x.c; env'", [1, 0]),
    ("", "nice timeout 60 nohup setsid -w env A=b gcc -c x.c", [1, 0]),
    ("", "echo x.c y.c | xargs -n 1 gcc -c", [2, 0]),
    ("", "find . -name '?.c' -exec gcc -c {} ';'", [2, 0]),
    ("", "awk 'BEGIN { system(\"gcc -c x.c\"); \"gcc -dumpversion\" | getline v; print v }'", [2, 0]),
    ("", "sh -c 'sh -c \"sh -c \\\"sh -c \\\\\\\"gcc -c x.c\\\\\\\"\\\"\"'", [1, 0]),
    ("", "gcc -c x.c & gcc -c y.c & wait", [2, 0]),
    ("", "gcc -c bad.c; echo $?", [0, 1]),
    ("", "gcc -v -c x.c 2>&1 | grep -E '^COLLECT|x.c' | sed 's|/tmp/cc[^ ]*||'", [1, 0]),
    ("", "exec 5>five; gcc -c x.c; echo >&5; cat five", [1, 0]),
    ("", "export LD_PRELOAD=libc.so.6; gcc -c x.c; echo $LD_PRELOAD; env | grep LD_", [1, 0]),
    ("", "./start gcc -c x.c", [1, 0]),
    ("", "./start sh -c 'gcc -c x.c; env'", [1, 0]),
    ("", "./start ./start ./start sh -c './start gcc -c x.c; ./start bin/gcc -c y.c'", [2, 0]),
    ("", "./start ./scripts/gcc -c x.c; ./start ./scripts/plain-gcc -c y.c", [2, 0]),
    ("", "./start gcc -c bad.c; ./start ./broken/gcc; echo $?", [0, 1]),
    ("", "ulimit -n 64; gcc -c x.c", [1, 0]),
    ("", "printf 'all:\\n\\tgcc -c x.c\\n' > m; make -f m; rm m", [1, 0]),
    ("", "make -s x.o CC=/usr/bin/gcc", [1, 0]),
    ("", "command -v gcc cc; echo $PATH$RUSTC_WRAPPER$CC; export -p", [0, 0]),
    ("", "cat /proc/self/environ | tr '\\0' '\\n' | grep .", [0, 0]),
    ("", "LD_PRELOAD=libc.so.6 cat /proc/self/environ | tr '\\0' '\\n' | grep .; ./start env", [0, 0]),
    ("bash", "bash -c 'exec -a gcc /usr/bin/gcc -c x.c'", [1, 0]),
    ("bash", "bash -c 'exec -a other /usr/bin/gcc -c x.c'; echo $?", [0, 1]),
    ("bash", "bash -c 'exec -a rustc /usr/bin/gcc -c x.c'; echo $?", [0, 0]),
    ("bash", "bash -c 'coproc gcc -c x.c; wait; cat <(gcc -dumpversion)'", [2, 0]),
    ("bash", "bash -lc 'gcc -c x.c'", [1, 0]),
    (
        "perl",
        "perl -e 'system(\"gcc\", \"-c\", \"x.c\"); system(\"gcc -c y.c; true\"); print `gcc -dumpversion`'",
        [3, 0],
    ),
    ("perl", "perl -e 'exec {\"/usr/bin/gcc\"} \"gcc\", \"-c\", \"x.c\"'", [1, 0]),
    ("python3", "python3 -c 'import subprocess as s; s.call([\"gcc\", \"-c\", \"x.c\"])'", [1, 0]),
    (
        "python3",
        "python3 -c 'import subprocess as s; s.call([\"gcc\", \"-c\", \"x.c\"], executable=\"/usr/bin/gcc\")'",
        [1, 0],
    ),
    ("python3", "python3 -c 'import subprocess as s; s.call(\"gcc -c x.c\", shell=True)'", [1, 0]),
    ("python3", "python3 -c 'import subprocess as s; s.call([\"./gcc\", \"-c\", \"../x.c\"], cwd=\"bin\")'", [1, 0]),
    ("python3", "python3 -c 'import subprocess as s; s.call([\"gcc\", \"-c\", \"x.c\"], env={\"A\": \"b\"})'", [0, 1]),
    (
        "python3",
        "python3 -c 'import subprocess as s; s.call([\"gcc\", \"-c\", \"x.c\"], start_new_session=True, close_fds=False)'",
        [1, 0],
    ),
    (
        "python3",
        "python3 -c 'import os; os.posix_spawn(\"/usr/bin/gcc\", [\"gcc\", \"-c\", \"x.c\"], os.environ); os.wait()'",
        [1, 0],
    ),
    (
        "python3",
        "python3 -c 'import os; os.execve(os.open(\"/usr/bin/gcc\", 0), [\"gcc\", \"-c\", \"x.c\"], os.environ)'",
        [1, 0],
    ),
    (
        "python3",
        "python3 -c 'import os; os.system(\"gcc -c x.c\"); print(os.popen(\"gcc -dumpversion\").read())'",
        [2, 0],
    ),
    (
        "python3",
        "python3 -c 'import threading as t, subprocess as s; a=[t.Thread(target=s.call, args=([\"gcc\", \"-c\", n + \".c\"],)) for n in \"xyxyxyxy\"]; [b.start() for b in a]; [b.join() for b in a]'",
        [8, 0],
    ),
    (
        "python3",
        "python3 -c 'import os; print(sorted(os.environ.items())); os.environ[\"Q\"] = \"1\"; os.system(\"env | sort\")'",
        [0, 0],
    ),
    (
        "ninja",
        "printf 'rule c\\n command = gcc -c $in -o $out\\nbuild x.o: c x.c\\n' > build.ninja; ninja; rm .ninja*",
        [1, 0],
    ),
    ("fakeroot", "fakeroot sh -c 'gcc -c bad.c; chown 7 x.c; stat -c %u x.c; env | grep -c LD_'", [0, 1]),
    ("faketime", "faketime '2020-01-01 00:00:00' sh -c 'gcc -c x.c; date +%Y'", [1, 0]),
    ("strace", "strace -f -o /dev/null sh -c 'gcc -c x.c'", [1, 0]),
    ("clang", "clang -c x.c; PATH=bin:$PATH; clang++ -x c -c y.c", [2, 0]),
    ("musl-gcc", "musl-gcc -c x.c", [1, 0]),
    ("ccache", "ccache gcc -c x.c; /usr/lib/ccache/gcc -c y.c", [2, 0]),
];

/// The functions that start programs, each called by a program of its own.
const STARTS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int execveat(int, const char *, char *const[], char *const[], int);
int main(int c, char **v) {
    char *f = "/usr/bin/gcc", *n = "gcc", *a[] = {n, "-c", "x.c", 0}, *how = v[1];
    int is = 0, s = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
#define IS(name) (is = !strcmp(how, name))
    if (IS("execl")) execl(f, n, "-c", "x.c", (char *)0);
    if (IS("execle")) execle(f, n, "-c", "x.c", (char *)0, environ);
    if (IS("execlp")) execlp(n, n, "-c", "x.c", (char *)0);
    if (IS("execv")) execv(f, a);
    if (IS("execve")) execve(f, a, environ);
    if (IS("execvp")) execvp(n, a);
    if (IS("execvpe")) execvpe(n, a, environ);
    if (IS("fexecve")) fexecve(open(f, O_RDONLY | O_CLOEXEC), a, environ);
    if (IS("execveat")) execveat(open("/usr/bin", O_PATH), n, a, environ, 0);
    if (IS("execveat-empty")) execveat(open(f, O_PATH), "", a, environ, AT_EMPTY_PATH);
    if (IS("vfork")) { if (!vfork()) { execve(f, a, environ); _exit(9); } wait(&s); return s; }
    if (IS("fork")) { if (!fork()) { execvp(n, a); _exit(9); } wait(&s); return s; }
    if (IS("posix_spawn")) { posix_spawn(&child, f, &actions, 0, a, environ); wait(&s); return s; }
    if (IS("posix_spawn-none")) { posix_spawn(0, f, 0, 0, a, environ); wait(&s); return s; }
    if (IS("posix_spawnp")) { posix_spawnp(&child, n, 0, 0, a, environ); wait(&s); return s; }
    if (IS("chdir")) {
        a[2] = "../x.c";
        posix_spawn_file_actions_addchdir_np(&actions, "bin");
        s = posix_spawn(&child, "./gcc", &actions, 0, a, environ);
        wait(&s);
        return s;
    }
    if (IS("system")) return system("gcc -c x.c");
    if (IS("popen")) { FILE *p = popen("gcc -c x.c", "r"); return pclose(p); }
    if (IS("many")) {
        char **m = calloc(4004, sizeof *m);
        for (int i = 0; i < 4000; i++) m[i] = "-DA";
        m[0] = n, m[4000] = "-c", m[4001] = "x.c";
        execvp(n, m);
    }
    if (IS("raw")) syscall(SYS_execve, f, a, environ);
    return 8;
}
"#;

/// And how many requests come of each. Where a relative path leads after a child has changed its directory is not known:
/// there the guide finds itself in the compiler. A raw system call is not seen, and has nothing to hand on.
const FUNCTIONS: &[(&str, u64)] = &[
    ("execl", 1),
    ("execle", 1),
    ("execlp", 1),
    ("execv", 1),
    ("execve", 1),
    ("execvp", 1),
    ("execvpe", 1),
    ("fexecve", 1),
    ("execveat", 1),
    ("execveat-empty", 1),
    ("vfork", 1),
    ("fork", 1),
    ("posix_spawn", 1),
    ("posix_spawn-none", 1),
    ("posix_spawnp", 1),
    ("chdir", 1),
    ("system", 1),
    ("popen", 1),
    ("many", 1),
    ("raw", 0),
];

/// A directory with sources, and compilers under several names.
fn prepare(world: &World) {
    world.write(&[
        ("p/x.c", "int f(void) { return 1; }\n"),
        ("p/y.c", "int g(void) { return 2; }\n"),
        ("p/bad.c", "int h(void) { return k; }\n"),
        ("p/bin/.keep", ""),
        ("p/a b/.keep", ""),
    ]);
    for (target, link) in
        [("/usr/bin/gcc", "p/bin/gcc"), ("/usr/bin/gcc", "p/a b/gcc"), ("/usr/bin/clang", "p/bin/clang++")]
    {
        symlink(target, world.path(link)).unwrap();
    }
    // A script that stands for a compiler, one that is none by its name, and one that fails with its own name.
    world.script("p/scripts/gcc", "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n");
    world.script("p/scripts/plain-gcc", "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n");
    world.script("p/scripts/c99", "#!/bin/sh\necho \"$0: $# arguments\" >&2; exit 3\n");
    world.script("p/broken/gcc", "#!/no/such/interpreter\n");
    let source = "#include <unistd.h>\nint main(int c, char **v) { execvp(v[1], v + 1); return 127; }\n";
    world.write(&[("start.c", source)]);
    run(world.command("gcc").args(["-static", "start.c", "-o", "p/start"]));
    std::thread::sleep(std::time::Duration::from_millis(30));
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    program.is_empty() || std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// What `sh -c script` leaves, by `zcache run` where asked. zcache's own remarks are no part of it.
fn does(world: &World, script: &str, cached: bool) -> Effect {
    run(world.command("sh").args(["-c", "cd p; rm -f *.o bin/*.o five"]));
    let mut command = world.command(if cached { ZCACHE } else { "sh" });
    if cached {
        command.args(["run", "--", "sh"]);
    }
    // What `zcache run` sets is set; a time-out, since a hang is the worst that can happen.
    command.args(["-c", script]).env("CCACHE_DISABLE", "1").current_dir(world.path("p"));
    let mut effect = effect(&mut command, &world.path("p"));
    effect.stderr = effect
        .stderr
        .lines()
        .filter(|line| !line.starts_with("zcache: "))
        .fold(String::new(), |text, line| text + line + "\n");
    effect
}

/// Bare, then twice by `zcache run`, the second time from the cache.
fn compare(world: &World, script: &str, [hits, others]: [u64; 2]) {
    let bare = does(world, script, false);
    let counts = [1, 2].map(|round| {
        let before = world.status();
        assert_same(&bare, &does(world, script, true), &format!("{script}, round {round}"));
        world.since(&before)
    });
    let [_, warm] = counts;
    assert_eq!((warm.hits, warm.misses + warm.bypasses), (hits, others), "{script}: {counts:?}\n{}", world.log());
}

#[test]
#[ignore = "needs bash, perl, python, clang and others"]
fn ways_to_start_a_compiler() {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((program, script, counts)) = WAYS.get(next.fetch_add(1, Relaxed)) {
            if is_installed(program) {
                let world = World::new();
                prepare(&world);
                println!("{script}");
                compare(&world, script, *counts);
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
}

#[test]
fn functions_that_start_programs() {
    let world = World::new();
    prepare(&world);
    world.write(&[("starts.c", STARTS)]);
    run(world.command("gcc").args(["starts.c", "-o", "p/starts"]));
    for (how, hits) in FUNCTIONS {
        // Each has a source of its own, so that none lives on what another stored.
        world.write(&[("p/x.c", &format!("char how[] = \"{how}\";\n"))]);
        std::thread::sleep(std::time::Duration::from_millis(30));
        compare(&world, &format!("./starts {how}; echo $?"), [*hits, 0]);
    }
}

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

/// Runs a command line by `zcache run` in `p`; what it says besides zcache's remarks, and those.
fn said(world: &World, line: &str, variables: &[(&str, &str)]) -> (String, String) {
    let mut command = world.command(ZCACHE);
    command.args(["run", "--", "sh", "-c", line]).envs(variables.iter().copied()).current_dir(world.path("p"));
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    let (ours, theirs): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| line.starts_with("zcache: "));
    (text(&output.stdout) + &theirs.join("\n"), ours.join("\n"))
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

/// A script that stands for a compiler goes on being guided: what it starts is asked for by itself, and is an input of the
/// script's run, by every step from its name to the file.
#[test]
#[ignore = "needs clang"]
fn what_a_script_starts_is_its_input() {
    let world = World::new();
    prepare(&world);
    world.script("p/scripts/gcc", "#!/bin/sh\nexec cc \"$@\"\n");
    world.write(&[("p/turn/.keep", "")]);
    for (target, requests) in [("gcc", 2), ("clang", 2), ("gcc", 0)] {
        run(world.command("ln").args(["-sfn", &format!("/usr/bin/{target}"), "p/turn/cc"]));
        std::thread::sleep(std::time::Duration::from_millis(30));
        let before = world.status();
        let line = "PATH=$PWD/turn:$PATH; ./scripts/gcc -c x.c";
        for round in 0..2 {
            assert_same(&does(&world, line, false), &does(&world, line, true), &format!("{target}, {round}"));
        }
        let counts = world.since(&before);
        assert_eq!((counts.misses, counts.bypasses), (requests, 0), "{target}: {counts:?}\n{}", world.log());
    }
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
