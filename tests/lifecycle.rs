//! The daemon's life as builds see it: started once however many race, inherits nothing, and whatever is wrong with it
//! costs a build no more than a second in all.

mod harness;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{CLIENT, World, ZCACHED, run, stdout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A build of several units, to be run while something is wrong.
fn build(world: &World) -> Command {
    world.write(&[("p/src/main.rs", "fn main() { print!(\"built\") }")]);
    let deps: Vec<String> = (0..8).map(|i| format!("d{i}")).collect();
    let table: String = deps.iter().map(|name| format!("{name} = {{ path = '{name}' }}\n")).collect();
    let manifest =
        |name: &str, rest: &str| format!("[package]\nname = '{name}'\nversion = '0.1.0'\nedition = '2021'\n{rest}");
    world.write(&[("p/Cargo.toml", &manifest("p", &format!("[dependencies]\n{table}")))]);
    for name in &deps {
        world.write(&[(&format!("p/{name}/Cargo.toml"), &manifest(name, "")), (&format!("p/{name}/src/lib.rs"), "")]);
    }
    world.remove("p/target");
    world.cargo("p", "build")
}

fn socket(world: &World) -> PathBuf {
    let env = |name: &str| match name {
        "ZCACHE_DIR" => Some(world.path("store").into_os_string()),
        "XDG_RUNTIME_DIR" => Some(world.path("run").into_os_string()),
        _ => None,
    };
    zcache_proto::endpoint::Endpoint::from_env(env, 0).socket
}

/// The build passes, and takes at most a second longer than bare.
fn unharmed(world: &World, what: &str) {
    let mut bare = build(world);
    let began = Instant::now();
    run(bare.env_remove("RUSTC_WRAPPER"));
    let bare = began.elapsed();
    let mut command = build(world);
    let began = Instant::now();
    run(&mut command);
    let took = began.elapsed();
    assert_eq!(stdout(&mut world.command(world.path("p/target/debug/p"))), "built", "{what}");
    // Twice bare, for the other tests that run meanwhile.
    assert!(took < bare * 2 + Duration::from_secs(1), "{what}: {took:?}, bare {bare:?}");
}

#[test]
fn a_daemon_whose_starter_lost_patience_serves_who_comes_later() {
    let world = World::new();
    let (starter, told) = std::io::pipe().unwrap();
    drop(starter);
    let mut command = world.command(ZCACHED);
    let mut daemon = command.args(["--activation", "client"]).stdout(told).spawn().unwrap();
    drop(command);
    while world.status()["daemon"].is_null() {
        assert_eq!(daemon.try_wait().unwrap(), None, "it left");
        std::thread::sleep(Duration::from_millis(10));
    }
    run(&mut world.rustc("-vV"));
    assert_eq!((world.daemons(), world.total("invocations")), (vec![daemon.id()], 1));
    run(&mut world.zcache("stop"));
    daemon.wait().unwrap();
}

#[test]
fn a_hundred_clients_start_one_daemon_and_lose_no_request() {
    let world = World::new();
    for round in 0..50 {
        let go = world.path("go");
        let _ = fs::remove_file(&go);
        run(world.command("mkfifo").arg(&go));
        // The shell opens the barrier for reading, which lasts until this test opens it for writing.
        let line = format!("read _ < {}; exec {CLIENT} /bin/true --crate-name r{round}", go.display());
        let clients: Vec<_> = (0..100).map(|_| world.command("sh").args(["-c", &line]).spawn().unwrap()).collect();
        std::thread::sleep(Duration::from_millis(50));
        let barrier = fs::OpenOptions::new().write(true).open(&go).unwrap();
        drop(barrier);
        for mut client in clients {
            assert!(client.wait().unwrap().success(), "round {round}: {}", world.log());
        }
        assert_eq!(world.daemons().len(), 1, "round {round}: {}", world.log());
        assert_eq!(world.total("invocations"), 100 * (round + 1), "round {round}: {}", world.log());
        run(&mut world.zcache("stop"));
        assert_eq!(world.daemons().len(), 0, "stop returns when the daemon is gone");
    }
}

#[test]
fn the_daemon_inherits_nothing_of_the_build() {
    let world = World::new();
    // A pipe that the daemon kept open would keep this from ending.
    let mut client = world.command(CLIENT);
    client.args(["/bin/true", "--crate-name", "x"]).env("SECRET", "s3cret");
    let mut child = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let daemon = world.daemons()[0];
    let environment = fs::read(format!("/proc/{daemon}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("s3cret"));
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), PathBuf::from("/"));
    for fd in fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default().display().to_string();
        assert!(!target.starts_with("pipe:") && !target.contains("tty"), "{target}");
    }
}

#[test]
#[ignore = "needs make and ninja"]
fn make_and_ninja_end_when_the_build_ends() {
    let compile = format!("{CLIENT} {} --crate-type lib x.rs -o", harness::rustc().display());
    let make = format!("all: a b\na b:\n\t{compile} $@ --crate-name $@\n");
    let ninja = format!("rule r\n  command = {compile} $out --crate-name $out\nbuild a: r\nbuild b: r\n");
    for (tool, file, text) in [("make -j2", "Makefile", make), ("ninja -j2", "build.ninja", ninja)] {
        let world = World::new();
        world.write(&[(file, &text), ("x.rs", "")]);
        // Output through a pipe, and the jobserver's own: neither may be held by the daemon that this starts.
        run(world.command("timeout").args(["60", "sh", "-c", &format!("{tool} | cat")]));
        assert_eq!((world.daemons().len(), world.total("stored")), (1, 2), "{tool}\n{}", world.log());
    }
}

#[test]
fn a_stopped_daemon_is_given_up_and_taken_up_again() {
    let world = World::new();
    run(&mut build(&world));
    let daemon = Pid::from_raw(world.daemons()[0] as i32);
    kill(daemon, Signal::SIGSTOP).unwrap();
    unharmed(&world, "stopped daemon");
    let report = world.zcache("status").output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout) + String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success() && text.contains("stopped"), "{text}");
    kill(daemon, Signal::SIGCONT).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let before = world.status();
    run(&mut build(&world));
    assert!(world.since(&before).hits > 0, "{}", world.log());
}

#[test]
fn a_killed_daemon_is_replaced() {
    let world = World::new();
    run(&mut build(&world));
    world.status();
    kill(Pid::from_raw(world.daemons()[0] as i32), Signal::SIGKILL).unwrap();
    world.wait_until_gone();
    run(&mut build(&world));
    assert_eq!(world.daemons().len(), 1);
    assert!(world.total("hits") > 0, "what was stored is still there");
}

#[test]
fn builds_pass_while_the_daemon_is_killed_again_and_again() {
    let world = World::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(70));
                world.daemons().iter().for_each(|pid| _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL));
            }
        });
        for _ in 0..5 {
            let output = build(&world).output().unwrap();
            let built = stdout(&mut world.command(world.path("p/target/debug/p")));
            if !output.status.success() || built != "built" {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn without_a_daemon_program_the_compiler_runs() {
    let world = World::new();
    let client = world.path("alone/zcache-client");
    fs::create_dir(world.path("alone")).unwrap();
    fs::copy(CLIENT, &client).unwrap();
    let mut command = build(&world);
    run(command.env("RUSTC_WRAPPER", &client));
    assert_eq!(stdout(&mut world.command(world.path("p/target/debug/p"))), "built");
    assert_eq!(world.daemons().len(), 0);
}

#[test]
fn a_plain_file_in_the_sockets_place_is_left_there_and_explained() {
    let world = World::new();
    let socket = socket(&world);
    fs::create_dir(socket.parent().unwrap()).unwrap();
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&socket, "precious").unwrap();
    unharmed(&world, "plain file");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    let report = world.zcache("status").output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout) + String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success() && text.contains("socket; remove it"), "{text}");
}

#[test]
fn a_server_that_is_no_zcached_harms_nothing() {
    let world = World::new();
    // A process of its own: the tests beside this one keep this process busy, and who works is waited for.
    world.write(&[("server.rs", SERVER)]);
    run(world.command(harness::rustc()).args(["server.rs", "-o", "server"]).current_dir(world.path("")));
    let at = socket(&world);
    fs::create_dir(at.parent().unwrap()).unwrap();
    fs::set_permissions(at.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    for what in ["hangs up", "speaks something else", "says nothing"] {
        let _ = fs::remove_file(&at);
        let mut server = world.command(world.path("server")).arg(&at).arg(what).spawn().unwrap();
        while !at.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        world.remove("p");
        unharmed(&world, what);
        server.kill().unwrap();
        server.wait().unwrap();
        let _ = fs::remove_file(at.with_extension("trouble"));
    }
}

/// Listens at the socket that it is told, and treats every caller in the manner that it is told.
const SERVER: &str = r#"
use std::io::Write;
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut all = Vec::new();
    for mut stream in std::os::unix::net::UnixListener::bind(&arguments[1]).unwrap().incoming().flatten() {
        match arguments[2].as_str() {
            "hangs up" => drop(stream),
            "speaks something else" => drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            _ => all.push(stream),
        }
    }
}
"#;

#[test]
fn a_bad_configuration_is_an_error_of_the_command_and_none_of_the_build() {
    let world = World::new();
    world.write(&[("config/zcache/config.toml", "max_sise = 3\n")]);
    let output = world.zcache("status").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("max_sise"));
    run(&mut build(&world));
    world.remove("config/zcache/config.toml");
    let output = world.zcache("status").env("ZCACHE_MAX_SIZE", "plenty").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("ZCACHE_MAX_SIZE"));
}

#[test]
fn disabled_means_not_there() {
    let world = World::new();
    run(build(&world).env("ZCACHE_DISABLE", "1"));
    assert_eq!(world.daemons().len(), 0);
}

#[test]
fn two_daemons_never_share_a_store() {
    let world = World::new();
    run(&mut build(&world));
    fs::create_dir(world.path("run2")).unwrap();
    fs::set_permissions(world.path("run2"), fs::Permissions::from_mode(0o700)).unwrap();
    let output = world.command(harness::ZCACHED).env("XDG_RUNTIME_DIR", world.path("run2")).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{}", String::from_utf8_lossy(&output.stderr));
}
