//! Projects: real C and C++ through `zcache run`: what a build leaves is the same bare, cold and warm, a warm one starts
//! no compiler, the project's own tests pass on restored objects, and a build ends although it has started a daemon.
//! `tests/projects/setup.sh` brings the tools and the sources.

mod harness;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use harness::{CLIENT, World, ZCACHE, run};

/// How long a build may take. What ends a moment later than it could is caught by [`AFTERWARDS`].
const BUILD: Duration = Duration::from_secs(300);
/// How long a build's pipes may stay open after its end.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Shell commands, each run at the top of the project's source.
struct Project {
    source: &'static str,
    configure: &'static str,
    build: &'static str,
    /// Removes what `build` made, and not what `configure` did.
    clean: &'static str,
    /// Succeeds where nothing is left to build.
    done: &'static str,
    /// The project's own tests, of what is built already.
    test: &'static str,
    /// The fewest compiles that `build` makes.
    compiles: u64,
}

const ZLIB: Project = Project {
    source: "zlib",
    configure: "./configure",
    build: "make -j2",
    clean: "make clean",
    done: "make -q",
    test: "make test",
    compiles: 30,
};

const ZLIB_BY_CMAKE: Project = Project {
    source: "zlib",
    configure: "cmake -S . -B o -G Ninja",
    build: "ninja -C o",
    clean: "ninja -C o -t clean",
    done: "ninja -C o -n | grep 'no work to do'",
    test: "cd o && ctest --output-on-failure",
    compiles: 30,
};

/// Templates without end, googletest among them.
const FMT: Project = Project {
    source: "fmtlib",
    configure: "cmake -S . -B o -G Ninja -DCMAKE_BUILD_TYPE=Debug",
    build: "ninja -C o args-test core-test ranges-test",
    clean: "ninja -C o -t clean",
    done: "ninja -C o -n args-test core-test ranges-test | grep 'no work to do'",
    test: "cd o && ctest --output-on-failure -R '^(args|core|ranges)-test$'",
    compiles: 10,
};

/// An assembly source, dependency files that make reads, and a directory named by a hash of the flags.
const ZSTD: Project = Project {
    source: "libzstd",
    configure: "true",
    build: "make -j2 -C lib libzstd.a CFLAGS=-O1 ZSTD_LEGACY_SUPPORT=0",
    clean: "make -C lib clean",
    done: "ar t lib/libzstd.a | grep huf_decompress_amd64.o",
    test: "for i in compression decompression; do
            cc -Ilib -o $i examples/simple_$i.c lib/libzstd.a || exit 1
        done
        cp README.md text && ./compression text && mv text before && ./decompression text.zst",
    compiles: 30,
};

/// One job, so that what the compilers say has an order: with `-Winline` they say a lot.
const BZIP2: Project = Project {
    source: "bzip2",
    configure: "true",
    build: "make libbz2.a bzip2",
    clean: "make clean",
    done: "make -q libbz2.a",
    test: "make test",
    compiles: 15,
};

/// What a build printed.
struct Said {
    stdout: String,
    stderr: String,
}

/// Where the sources are.
fn source(name: &str) -> PathBuf {
    let named = std::env::var_os("ZCACHE_TEST_PROJECTS").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/projects"));
    assert!(dir.join(name).exists(), "run tests/projects/setup.sh {}", dir.display());
    dir.join(name)
}

/// A command at the top of the project, with nothing of the runner's that leads to another compiler or other flags.
fn command(world: &World, program: impl AsRef<OsStr>) -> Command {
    let mut command = world.command(program);
    for name in ["CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").current_dir(world.path("p"));
    command
}

fn bare(world: &World, script: &str) -> Said {
    ends(command(world, "sh").args(["-c", script]))
}

fn through_zcache(world: &World, script: &str) -> Said {
    ends(command(world, ZCACHE).args(["run", "--", "sh", "-c", script]))
}

/// Everything that comes out of a pipe, once all who hold its other end are gone.
fn drained(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).expect("a pipe to read from");
        sender.send(all)
    });
    receiver
}

/// Runs a build that has to succeed and, itself and its pipes, to end.
fn ends(command: &mut Command) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().expect("a build");
    let (stdout, stderr) = (drained(child.stdout.take().unwrap()), drained(child.stderr.take().unwrap()));
    let until = Instant::now() + BUILD;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > until {
            run(Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]));
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = |pipe: Receiver<Vec<u8>>| {
        let all = pipe.recv_timeout(AFTERWARDS).unwrap_or_else(|_| panic!("{command:?}: someone keeps its pipe open"));
        String::from_utf8_lossy(&all).into_owned()
    };
    let said = Said { stdout: text(stdout), stderr: text(stderr) };
    assert!(status.success(), "{command:?} ended with {status}\n{}\n{}", said.stdout, said.stderr);
    said
}

/// A fresh source, always in the same place: objects can contain their path.
fn lay(world: &World, project: &Project) {
    world.remove("p");
    run(Command::new("cp").arg("-a").arg(source(project.source)).arg(world.path("p")));
}

/// The objects, libraries and programs below the project, and the dependency files.
fn built(world: &World) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut files = harness::files(&world.path("p"));
    files.retain(|path, (_, bytes)| {
        let made = bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"!<arch>\n");
        made || path.extension().is_some_and(|extension| extension == "d")
    });
    files
}

fn assert_same(bare: &BTreeMap<PathBuf, (u32, Vec<u8>)>, world: &World, what: &str) {
    let got = built(world);
    assert_eq!(bare.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>(), "{what}");
    for (path, (mode, bytes)) in bare {
        assert_eq!(*mode, got[path].0, "{what}: mode of {}", path.display());
        assert!(*bytes == got[path].1, "{what}: bytes of {}", path.display());
    }
}

/// Builds what is known: every compile is a hit and starts no compiler, and nothing is left to do.
fn warm(world: &World, project: &Project) -> Said {
    run(&mut world.zcache("zero"));
    let trace = world.path("trace");
    let mut strace = command(world, "strace");
    strace.args(["-f", "-qq", "-s", "256", "-e", "trace=execve", "-o"]).arg(&trace);
    let said = ends(strace.args([ZCACHE, "run", "--", "sh", "-c", project.build]));
    let compiles = all_hits(world);
    assert!(compiles >= project.compiles, "{compiles} compiles");
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.matches("execve(").count() as u64 >= compiles, "nothing was traced");
    // What comes through a pipe is a question about the compiler, which a makefile asks.
    let is_compiler =
        |line: &&str| ["/cc1\"", "/cc1plus\""].iter().any(|c| line.contains(c)) && !line.contains("\"-\"");
    let started: Vec<_> = trace.lines().filter(is_compiler).collect();
    assert!(started.is_empty(), "{started:?}");
    bare(world, project.done);
    said
}

/// Says how many compiles there were since `zcache zero`, each of which has to be a hit. Links are no compiles.
fn all_hits(world: &World) -> u64 {
    let status = world.status();
    assert_eq!(status["totals"]["errors"], 0, "{status}");
    let compilers = status["by_compiler"].as_object().unwrap().iter().filter(|(name, _)| *name != "other");
    let counts = |counter: &str| compilers.clone().map(|(_, counts)| counts[counter].as_u64().unwrap()).sum::<u64>();
    assert_eq!((counts("hits"), counts("misses")), (counts("invocations"), 0), "{status}\n{}", world.log());
    counts("hits")
}

/// Bare, cold and warm, the latter after a clean and from a source laid anew. Returns what each build printed.
fn passes(project: &Project) -> [Said; 4] {
    let world = World::new();
    lay(&world, project);
    bare(&world, project.configure);
    let said = bare(&world, project.build);
    let expected = built(&world);
    assert!(expected.len() as u64 >= project.compiles / 2, "{:?}", expected.keys());

    lay(&world, project);
    through_zcache(&world, project.configure);
    let cold = through_zcache(&world, project.build);
    assert_eq!(world.daemons().len(), 1, "without one, the end of the pipes says nothing");
    assert!(world.total("stored") >= project.compiles, "{}\n{}", world.status(), world.log());
    assert_same(&expected, &world, "cold");

    bare(&world, project.clean);
    let cleaned = warm(&world, project);
    assert_same(&expected, &world, "warm after a clean");

    // What configure compiles itself has names drawn at random.
    lay(&world, project);
    through_zcache(&world, project.configure);
    let anew = warm(&world, project);
    assert_same(&expected, &world, "warm in a new directory");
    bare(&world, project.test);
    [said, cold, cleaned, anew]
}

#[test]
#[ignore = "needs tests/projects/setup.sh"]
fn zlib_by_configure_and_make() {
    passes(&ZLIB);
}

#[test]
#[ignore = "needs tests/projects/setup.sh"]
fn zlib_by_cmake_and_ninja() {
    passes(&ZLIB_BY_CMAKE);
}

#[test]
#[ignore = "needs tests/projects/setup.sh"]
fn fmt_by_cmake_and_ninja() {
    passes(&FMT);
}

#[test]
#[ignore = "needs tests/projects/setup.sh"]
fn zstd_by_make() {
    passes(&ZSTD);
}

#[test]
#[ignore = "needs tests/projects/setup.sh"]
fn bzip2_by_make_says_what_it_says_bare() {
    let [bare, through @ ..] = passes(&BZIP2);
    assert!(bare.stderr.matches("warning: inlining failed").count() > 5, "{}", bare.stderr);
    for said in through {
        let stderr: String = said.stderr.split_inclusive('\n').filter(|line| !line.starts_with("zcache: ")).collect();
        assert_eq!((said.stdout, stderr), (bare.stdout.clone(), bare.stderr.clone()));
    }
}

/// Four directories of eight sources each. A header that is made on the way, and options in a file.
fn plain(world: &World) {
    let sub = "OBJECTS := $(addsuffix .o,1 2 3 4 5 6 7 8)
all: lib.a
lib.a: $(OBJECTS)\n\trm -f $@ && ar rcs $@ $(OBJECTS)
$(OBJECTS): %.o: %.c ../made.h\n\t$(CC) @../options -c $< -o $@\n";
    world.write(&[
        ("p/options", "-O1 -Wall -I.. \"-DTEXT=\\\"a b\\\"\"\n"),
        (
            "p/Makefile",
            "SUBS := a b c d
all: $(SUBS)
made.h:\n\tsleep 0.1; echo '#define MADE 7' >$@
$(SUBS): made.h\n\t$(MAKE) -C $@
clean:\n\trm -f made.h */*.o */*.a
.PHONY: all clean $(SUBS)\n",
        ),
    ]);
    for dir in ["a", "b", "c", "d"] {
        world.write(&[(&format!("p/{dir}/Makefile"), sub)]);
        for n in 1..9 {
            let text = format!(
                "#include <stdio.h>\n#include \"made.h\"\n\
                 int {dir}{n}(void);\nint {dir}{n}(void) {{ puts(TEXT); return MADE + {n}; }}\n"
            );
            world.write(&[(&format!("p/{dir}/{n}.c"), &text)]);
        }
    }
}

#[test]
#[ignore = "needs make"]
fn a_recursive_make_with_a_jobserver_ends() {
    let world = World::new();
    plain(&world);
    bare(&world, "make -j4");
    let expected = built(&world);
    assert_eq!(expected.len(), 36, "{:?}", expected.keys());
    // The daemon is started by a job of make, in the midst of its pipes.
    for round in ["cold", "warm", "warm once more"] {
        bare(&world, "make clean");
        if round != "cold" {
            run(&mut world.zcache("zero"));
        }
        let said = ends(command(&world, "make").args(["-j4", &format!("CC={CLIENT} cc")]));
        assert!(!said.stderr.contains("jobserver"), "{}", said.stderr);
        assert_same(&expected, &world, round);
        assert_eq!(world.daemons().len(), 1);
        if round != "cold" {
            assert_eq!(all_hits(&world), 32);
        }
    }
    assert_eq!(bare(&world, "make --no-print-directory -j4 | grep -c ' -c ' || true").stdout, "0\n");
}
