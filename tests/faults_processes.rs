//! Processes that are ended while they compile: whoever is hit, and by whatever signal, ends as without zcache, leaves
//! no compiler and nothing half written behind, and the next build is right.

mod faults;
mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use faults::{Compiler, end, listing, processes, send, until};
use harness::{CLIENT, World, assert_same, effect, run, rustc, stdout};
use nix::sys::signal::Signal;

/// Who gets the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// The client, where a build tool ends a compile that it started.
    Client,
    /// All of the group, where a person presses keys.
    Group,
}

/// What gcc itself removes what it has begun for.
const POLITE: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

const ENDS: &[(Signal, Whom)] = &[
    (Signal::SIGINT, Whom::Group),
    (Signal::SIGINT, Whom::Client),
    (Signal::SIGTERM, Whom::Group),
    (Signal::SIGTERM, Whom::Client),
    (Signal::SIGHUP, Whom::Client),
    (Signal::SIGQUIT, Whom::Group),
    (Signal::SIGKILL, Whom::Group),
    (Signal::SIGKILL, Whom::Client),
];

fn spawn(mut command: Command) -> Child {
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Waits until the program that does the work is at it.
fn until_busy(world: &World, compiler: Compiler) -> i32 {
    let worker = compiler.programs().last().unwrap();
    // What only asks a compiler for its version is gone again after a moment.
    let busy = || {
        let first = *processes(world, &[worker]).first()?;
        std::thread::sleep(Duration::from_millis(300));
        processes(world, &[worker]).contains(&first).then_some(first)
    };
    let found = std::cell::Cell::new(None);
    until("the compiler starts", world, || {
        found.set(busy());
        found.get().is_some()
    });
    found.get().unwrap()
}

fn until_gone(world: &World, compiler: Compiler, what: &str) {
    let names = [compiler.programs(), &["as", "zcache-client"]].concat();
    until(&format!("{what}: the compiler ends"), world, || processes(world, &names).is_empty());
}

/// Compiles for ever, bare or not, and ends it.
fn interrupted(world: &World, compiler: Compiler, client: Option<&str>, (signal, whom): (Signal, Whom)) -> Ended {
    let mut child = spawn(compiler.command(world, client));
    until_busy(world, compiler);
    let pid = child.id().cast_signed();
    send(if whom == Whom::Group { -pid } else { pid }, signal);
    let status = end(&mut child, &format!("{compiler:?} {signal} {whom:?}"), world);
    // What bare leaves running is not looked at.
    processes(world, compiler.programs()).iter().for_each(|pid| {
        if client.is_none() {
            send(*pid, Signal::SIGKILL)
        }
    });
    (status.code(), status.signal())
}

type Ended = (Option<i32>, Option<i32>);

/// The build after the fault, compared with bare.
fn next_is_right(world: &World, compiler: Compiler, what: &str) {
    compiler.write(world, 0);
    let fresh = |client| {
        world.remove("p/out/x.o");
        world.remove("p/out/libx.rlib");
        effect(&mut compiler.command(world, client), &world.path("p"))
    };
    let bare = fresh(None);
    assert_same(&bare, &fresh(Some(CLIENT)), &format!("{what}: the next build"));
    assert_same(&bare, &fresh(Some(CLIENT)), &format!("{what}: the one after it"));
}

fn ends_as_bare(compiler: Compiler) {
    for fault in ENDS {
        let what = format!("{compiler:?} {fault:?}");
        let world = World::new();
        run(&mut world.zcache("start"));
        compiler.write(&world, compiler.endless());
        let bare = interrupted(&world, compiler, None, *fault);
        until_gone(&world, compiler, &format!("{what}, bare"));
        world.remove("tmp");
        compiler.write(&world, compiler.endless());
        let began = Instant::now();
        assert_eq!(interrupted(&world, compiler, Some(CLIENT), *fault), bare, "{what}");
        until_gone(&world, compiler, &what);
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
        assert_eq!(listing(&world, "p/out"), [""; 0], "{what}");
        if POLITE.contains(&fault.0) {
            assert_eq!(listing(&world, "tmp"), [""; 0], "{what}: what gcc removes");
        }
        until("it is counted", &world, || world.status()["refusal_reasons"]["abandoned"] == 1);
        assert_eq!((world.total("stored"), world.total("errors")), (0, 0), "{what}: {}", world.status());
        next_is_right(&world, compiler, &what);
        assert_eq!((world.total("stored"), world.total("hits")), (1, 1), "{what}: {}", world.log());
    }
}

#[test]
fn rustc_that_is_interrupted_ends_as_bare() {
    ends_as_bare(Compiler::Rustc);
}

#[test]
fn gcc_that_is_interrupted_ends_as_bare() {
    ends_as_bare(Compiler::Gcc);
}

/// The keys of a terminal, which reach all of its foreground at once: the compiler gets the signal once.
#[test]
#[ignore = "needs script"]
fn keys_of_a_terminal_end_a_compile_as_bare() {
    for compiler in [Compiler::Gcc, Compiler::Rustc] {
        for (key, name) in [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")] {
            let world = World::new();
            run(&mut world.zcache("start"));
            compiler.write(&world, compiler.endless());
            let pressed = |client: Option<&str>| {
                let command = compiler.command(&world, client);
                let words = [command.get_program()].into_iter().chain(command.get_args());
                let line = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
                let mut terminal = world.command("script");
                terminal.args(["-qec", &format!("exec {line}"), "/dev/null"]).current_dir(world.path("p"));
                terminal.env("TMPDIR", world.path("tmp")).stdin(Stdio::piped()).stdout(Stdio::null());
                let mut child = terminal.spawn().unwrap();
                until_busy(&world, compiler);
                child.stdin.as_mut().unwrap().write_all(key).unwrap();
                let status = end(&mut child, name, &world);
                until_gone(&world, compiler, name);
                (status.code(), listing(&world, "p/out"))
            };
            let bare = pressed(None);
            world.remove("tmp");
            compiler.write(&world, compiler.endless());
            assert_eq!(pressed(Some(CLIENT)), bare, "{compiler:?} {name}");
            assert!(name != "SIGINT" || listing(&world, "tmp").is_empty(), "{compiler:?}: what the compiler removes");
            assert_eq!((world.total("stored"), world.total("errors")), (0, 0), "{}", world.log());
            next_is_right(&world, compiler, name);
        }
    }
}

#[test]
fn a_signal_that_the_caller_ignores_is_ignored() {
    let world = World::new();
    let compiler = Compiler::Gcc;
    run(&mut world.zcache("start"));
    compiler.write(&world, compiler.seconds());
    let mut shell = world.command("sh");
    shell.args(["-c", &format!("trap '' INT HUP; exec {CLIENT} gcc -c x.c -o out/x.o")]).current_dir(world.path("p"));
    let mut child = spawn(shell);
    until_busy(&world, compiler);
    send(-child.id().cast_signed(), Signal::SIGINT);
    send(child.id().cast_signed(), Signal::SIGHUP);
    assert!(end(&mut child, "it goes on", &world).success());
    assert_eq!((listing(&world, "p/out"), world.total("stored")), (vec!["x.o".to_owned()], 1), "{}", world.log());
}

#[test]
fn a_second_build_goes_on_where_the_first_is_interrupted() {
    for (compiler, fault) in [
        (Compiler::Gcc, (Signal::SIGTERM, Whom::Client)),
        (Compiler::Gcc, (Signal::SIGKILL, Whom::Group)),
        (Compiler::Rustc, (Signal::SIGINT, Whom::Group)),
    ] {
        let world = World::new();
        run(&mut world.zcache("start"));
        compiler.write(&world, compiler.seconds());
        let mut first = spawn(compiler.command(&world, Some(CLIENT)));
        until_busy(&world, compiler);
        let mut second = spawn(compiler.command(&world, Some(CLIENT)));
        until("the second waits", &world, || world.total("invocations") == 2);
        let pid = first.id().cast_signed();
        send(if fault.1 == Whom::Group { -pid } else { pid }, fault.0);
        assert!(!end(&mut first, "the first", &world).success());
        assert!(end(&mut second, "the second", &world).success(), "{compiler:?} {fault:?}: {}", world.log());
        assert_eq!(
            (world.total("misses"), world.total("stored")),
            (2, 1),
            "{compiler:?} {fault:?}: {}",
            world.status()
        );
        next_is_right(&world, compiler, &format!("{compiler:?} {fault:?}"));
    }
}

/// `kill` of the program that does the work, as the kernel does it that is out of memory.
#[test]
fn a_compiler_that_is_killed_ends_as_bare_and_is_not_stored() {
    // rustc goes on after a SIGSEGV that is only sent.
    for (compiler, signals) in
        [(Compiler::Rustc, [Signal::SIGABRT, Signal::SIGKILL]), (Compiler::Gcc, [Signal::SIGSEGV, Signal::SIGKILL])]
    {
        for signal in signals {
            let world = World::new();
            run(&mut world.zcache("start"));
            compiler.write(&world, compiler.endless());
            let killed = |client| {
                let mut command = compiler.command(&world, client);
                let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                send(until_busy(&world, compiler), signal);
                let output = child.wait_with_output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                // A compiler that can still speak tells where it was hit, which no two runs agree on.
                let said = if signal == Signal::SIGKILL { stderr } else { String::new() };
                (output.status.code(), output.status.signal(), said)
            };
            let bare = killed(None);
            assert_eq!(killed(Some(CLIENT)), bare, "{compiler:?} {signal}");
            assert_eq!(listing(&world, "p/out"), [""; 0]);
            let refused = world.status()["refusal_reasons"].to_string();
            assert_eq!((world.total("misses"), world.total("stored")), (1, 0), "{refused}");
            next_is_right(&world, compiler, &format!("{compiler:?} {signal}"));
        }
    }
}

/// At each step of putting an output in place: by then nothing is there, or all of it.
#[test]
#[ignore = "needs strace"]
fn a_client_that_is_killed_while_it_restores_leaves_no_part() {
    let world = World::new();
    let compiler = Compiler::Gcc;
    compiler.write(&world, 0);
    let object = world.path("p/out/x.o");
    run(&mut compiler.command(&world, Some(CLIENT)));
    let whole = std::fs::read(&object).unwrap();
    let mut left = [0, 0];
    for step in ["ioctl", "copy_file_range", "fchmod", "utimensat", "linkat", "close", "write", "exit_group"] {
        for old in [false, true] {
            let _ = if old { std::fs::write(&object, "old") } else { std::fs::remove_file(&object) };
            // Where the store's file system shares blocks, nothing would be copied.
            let mut command = world.command("strace");
            command.args(["-qq", "-o", "/dev/null", "-e", "inject=ioctl:error=EOPNOTSUPP"]);
            command.args(["-e", &format!("inject={step}:signal=KILL"), CLIENT, "gcc", "-c", "x.c", "-o", "out/x.o"]);
            let status = command.current_dir(world.path("p")).env("TMPDIR", world.path("tmp")).status().unwrap();
            let content = std::fs::read(&object).ok();
            left[usize::from(content.as_ref() == Some(&whole))] += 1;
            let is_sound = content.as_ref().is_none_or(|content| content == b"old" || *content == whole);
            let length = content.map(|content| content.len());
            assert!(is_sound, "{step}: {length:?} bytes are left, and the client ended with {status}");
            assert!(listing(&world, "p/out").len() <= 1, "{step}: {:?}", listing(&world, "p/out"));
        }
    }
    assert!(left.iter().all(|count| *count > 0), "before and after: {left:?}");
    assert_eq!(world.total("misses"), 1, "{}", world.log());
    next_is_right(&world, compiler, "after all that");
}

#[test]
fn cargo_that_is_interrupted_builds_right_the_next_time() {
    for (signal, whom) in [
        (Signal::SIGINT, Whom::Group),
        (Signal::SIGTERM, Whom::Group),
        (Signal::SIGKILL, Whom::Group),
        (Signal::SIGKILL, Whom::Client),
    ] {
        let world = World::new();
        world.write(&[("c/Cargo.toml", "[package]\nname = 'c'\nversion = '0.1.0'\nedition = '2021'\n")]);
        let main = |steps: u64| {
            let text = format!("const N: u64 = {{ let mut i = 0; while i < {steps} {{ i += 1 }} i }};");
            let allow = "#![allow(long_running_const_eval)]";
            world.write(&[("c/src/main.rs", &format!("{allow}\n{text}\nfn main() {{ print!(\"{{N}}\") }}"))]);
            std::thread::sleep(Duration::from_millis(20));
        };
        main(1 << 40);
        let mut cargo = spawn(world.cargo("c", "build"));
        until_busy(&world, Compiler::Rustc);
        let pid = cargo.id().cast_signed();
        send(if whom == Whom::Group { -pid } else { pid }, signal);
        assert!(!end(&mut cargo, "cargo", &world).success());
        if whom == Whom::Client {
            // A compiler whose cargo alone was killed goes on, with zcache as without.
            assert_eq!(processes(&world, &["rustc"]).len(), 1);
            send(-pid, Signal::SIGTERM);
        }
        until_gone(&world, Compiler::Rustc, "cargo");
        assert_eq!(world.status()["refusal_reasons"]["compile_failed"], serde_json::Value::Null);
        main(5);
        run(&mut world.cargo("c", "build"));
        assert_eq!(stdout(&mut world.command(world.path("c/target/debug/c"))), "5", "{signal} {whom:?}");
    }
}

#[test]
#[ignore = "needs make"]
fn the_jobserver_of_make_survives_the_end_of_a_client() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let world = World::new();
        run(&mut world.zcache("start"));
        Compiler::Gcc.write(&world, Compiler::Gcc.endless());
        let quick: Vec<String> = (0..8).map(|n| format!("q{n}.o")).collect();
        for n in 0..8 {
            world.write(&[(&format!("p/q{n}.c"), &format!("int f(void) {{ return {n}; }}\n"))]);
        }
        let all = quick.join(" ");
        world.write(&[("p/Makefile", &format!("all: x.o {all}\n%.o: %.c\n\t+{CLIENT} gcc -c $< -o $@\n"))]);
        let mut make = world.command("make");
        make.args(["-k", "-j2"]).current_dir(world.path("p")).process_group(0);
        let make = make.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until_busy(&world, Compiler::Gcc);
        until("the others", &world, || quick.iter().all(|name| world.path(&format!("p/{name}")).exists()));
        until("their clients end", &world, || processes(&world, &["zcache-client"]).len() == 1);
        let clients = processes(&world, &["zcache-client"]);
        let [client] = clients[..] else { panic!("{clients:?}") };
        send(client, signal);
        let output = make.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("token") && !world.path("p/x.o").exists(), "{said}");
        until_gone(&world, Compiler::Gcc, "make");
    }
}

/// Tokens of a jobserver, which is a pipe. rustc takes one for each thread more.
struct Jobserver(fs::File);

impl Jobserver {
    const TOKENS: usize = 3;

    fn new(world: &World) -> Self {
        run(world.command("mkfifo").arg("p/jobs"));
        let options = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let pipe = fs::OpenOptions::new().read(true).write(true).custom_flags(options).open(world.path("p/jobs"));
        let mut pipe = pipe.unwrap();
        pipe.write_all(&[b'+'; Self::TOKENS]).unwrap();
        Self(pipe)
    }

    /// Takes those that are there, and puts all there again.
    fn left(&mut self) -> usize {
        let mut tokens = [0; 64];
        let left = self.0.read(&mut tokens).unwrap_or(0);
        self.0.write_all(&[b'+'; Self::TOKENS]).unwrap();
        left
    }

    /// rustc with this jobserver, as cargo hands it on.
    fn rustc(world: &World, client: &str, line: &str) -> Command {
        let mut shell = world.command("sh");
        let variables = "CARGO_MAKEFLAGS='-j4 --jobserver-fds=3,3 --jobserver-auth=3,3'";
        shell.args(["-c", &format!("exec 3<>jobs; export {variables}; exec {client} {} {line}", rustc().display())]);
        shell.current_dir(world.path("p")).env("TMPDIR", world.path("tmp"));
        shell
    }
}

#[test]
fn every_token_of_the_jobserver_comes_back() {
    let world = World::new();
    let compiler = Compiler::Rustc;
    compiler.write(&world, 0);
    let modules: String = (0..8)
        .map(|n| {
            format!("pub mod m{n} {{ pub fn f(x: &[u64]) -> Vec<u64> {{ x.iter().map(|y| y + {n}).collect() }} }}\n")
        })
        .collect();
    world.write(&[("p/many.rs", &modules)]);
    std::thread::sleep(Duration::from_millis(20));
    let mut jobs = Jobserver::new(&world);
    let many = "many.rs --crate-type lib -O -C codegen-units=8 -o out/libmany.rlib";
    let compile = |client: &str| {
        world.remove("p/out/libmany.rlib");
        effect(&mut Jobserver::rustc(&world, client, many), &world.path("p/out"))
    };
    let bare = compile("");
    for (what, hits) in [("a miss", 0), ("a hit", 1)] {
        assert_eq!(jobs.left(), Jobserver::TOKENS, "before {what}");
        assert_same(&bare, &compile(CLIENT), what);
        assert_eq!(world.total("hits"), hits, "{}", world.log());
    }
    compiler.write(&world, compiler.endless());
    for (signal, whom) in ENDS {
        let line = "x.rs --crate-name x --crate-type lib --out-dir out";
        let mut child = spawn(Jobserver::rustc(&world, CLIENT, line));
        until_busy(&world, compiler);
        let pid = child.id().cast_signed();
        send(if *whom == Whom::Group { -pid } else { pid }, *signal);
        end(&mut child, "the client", &world);
        until_gone(&world, compiler, "jobserver");
        assert_eq!(jobs.left(), Jobserver::TOKENS, "{signal} {whom:?}");
    }
}

/// gcc -pipe: an assembler whose compiler is gone must not take what it has for all.
#[test]
fn a_killed_pipe_leaves_no_object() {
    let world = World::new();
    run(&mut world.zcache("start"));
    let functions: String = (0..30_000).map(|n| format!("int f{n}(int x) {{ return x + {n}; }}\n")).collect();
    world.write(&[("p/x.c", &functions), ("p/out/.keep", "")]);
    for wait in [300, 600, 900, 1200] {
        let mut command = world.command(CLIENT);
        command.args("gcc -pipe -O1 -c x.c -o out/x.o".split(' ')).current_dir(world.path("p"));
        let mut child = spawn(command);
        until("the assembler starts", &world, || !processes(&world, &["as"]).is_empty());
        std::thread::sleep(Duration::from_millis(wait));
        let working = !processes(&world, &["cc1"]).is_empty();
        send(child.id().cast_signed(), Signal::SIGKILL);
        end(&mut child, "the client", &world);
        until_gone(&world, Compiler::Gcc, "pipe");
        // What an assembler has begun is no object yet, and no linker takes it for one.
        let object = world.command("nm").arg("p/out/x.o").output().unwrap();
        let partial = object.status.success() && !object.stdout.ends_with(b"T f9999\n");
        assert!(!working || !partial, "a partial object after {wait} ms");
        world.remove("p/out/x.o");
    }
}
