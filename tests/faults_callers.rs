//! Callers that do not behave: whatever arrives at the socket, and however many stay, the daemon goes on serving the
//! others, in bounded memory, and lets the silent ones go.

mod faults;
mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use faults::{daemon, descriptors, memory, socket, until};
use harness::{CLIENT, Effect, World, assert_same, effect, run};

/// How HTTP/2 begins: the client's word, and no settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// More than the daemon takes in one message, bytes.
const TOO_MUCH: u32 = 100 << 20;
/// What the daemon's memory may grow by, KiB.
const GROWTH: u64 = 40 << 10;

/// The beginning of a call, which its data follow.
fn call(stream: u32, method: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    let path = format!("/zcache.v1.Cache/{method}");
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "zcached"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.extend([0, name.len() as u8]);
        headers.extend(name.bytes());
        headers.push(value.len() as u8);
        headers.extend(value.bytes());
    }
    frame(1, 4, stream, &headers)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a message of this length.
fn message(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

type Manner = fn(&mut UnixStream) -> std::io::Result<()>;

/// What a caller does before it says no more.
const MANNERS: &[(&str, Manner)] = &[
    ("says nothing", |_| Ok(())),
    ("sends garbage", |to| to.write_all(&[0xff; 100_000])),
    ("sends zeros", |to| to.write_all(&[0; 100_000])),
    ("speaks the older protocol", |to| to.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    ("greets", |to| to.write_all(PREFACE)),
    ("sends half a greeting", |to| to.write_all(&PREFACE[..10])),
    ("sends half a frame", |to| to.write_all(&[PREFACE, &call(1, "Lookup")[..20]].concat())),
    ("sends half a request", |to| {
        let data = frame(0, 0, 1, &[message(1000), vec![0; 100]].concat());
        to.write_all(&[PREFACE, &call(1, "Lookup"), &data].concat())
    }),
    ("sends a request of nonsense", |to| {
        let data = frame(0, 1, 1, &[message(1000), vec![0xff; 1000]].concat());
        to.write_all(&[PREFACE, &call(1, "Lookup"), &data].concat())
    }),
    ("announces too much", |to| {
        let data = frame(0, 0, 1, &message(TOO_MUCH));
        to.write_all(&[PREFACE, &call(1, "Lookup"), &data].concat())
    }),
    ("sends too much", |to| {
        to.write_all(&[PREFACE, &call(1, "Commit"), &frame(0, 0, 1, &message(TOO_MUCH))].concat())?;
        let piece = frame(0, 0, 1, &[7; 16 << 10]);
        (0..TOO_MUCH / (16 << 10)).try_for_each(|_| to.write_all(&piece))
    }),
    ("announces a frame that is too long", |to| {
        to.write_all(&[PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[0; 100_000]].concat())
    }),
    ("asks a thousand times and reads nothing", |to| {
        to.write_all(PREFACE)?;
        let ask = |n: u32| [call(2 * n + 1, "Status"), frame(0, 1, 2 * n + 1, &message(0))].concat();
        (0..1000).try_for_each(|n| to.write_all(&ask(n)))
    }),
];

/// The compile, through zcache where `client` names it.
fn compile(world: &World, client: &str) -> Effect {
    world.remove("p/x.o");
    let mut command = world.command("sh");
    effect(command.args(["-c", &format!("{client} gcc -c x.c")]).current_dir(world.path("p")), &world.path("p"))
}

/// A compile through zcache, compared with bare.
fn is_served(world: &World, what: &str) {
    let before = world.status();
    assert_same(&compile(world, ""), &compile(world, CLIENT), what);
    assert_eq!(world.since(&before).hits, 1, "{what}: {}", world.log());
}

/// A world with a daemon that knows one compile.
fn serving() -> World {
    let world = World::new();
    run(&mut world.zcache("start"));
    world.write(&[("p/x.c", "int f(void) { return 1; }\n")]);
    std::thread::sleep(Duration::from_millis(20));
    compile(&world, CLIENT);
    assert_eq!(world.total("stored"), 1, "{}", world.log());
    world
}

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(socket(world)).expect("a connection");
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a limit");
    stream
}

#[test]
fn whatever_a_caller_does_the_others_are_served() {
    let world = serving();
    let pid = daemon(&world);
    let (before, open) = (memory(pid), descriptors(pid));
    let mut kept = Vec::new();
    for (what, manner) in MANNERS {
        let mut stream = connect(&world);
        // The daemon may hang up, or read no further.
        let _ = manner(&mut stream);
        is_served(&world, what);
        assert!(memory(pid) < before + GROWTH, "{what}: {} KiB, {before} before", memory(pid));
        kept.push(stream);
        let mut short = connect(&world);
        let _ = manner(&mut short);
        drop(short);
        is_served(&world, &format!("{what} and goes"));
    }
    assert_eq!(daemon(&world), pid, "it is the same daemon still");
    drop(kept);
    until("all is given back", &world, || descriptors(pid) <= open);
}

#[test]
fn silent_callers_are_let_go() {
    let world = serving();
    let pid = daemon(&world);
    let open = descriptors(pid);
    let manners = MANNERS.iter().filter(|(what, _)| what.starts_with("says nothing") || what.contains("half"));
    let mut silent: Vec<UnixStream> = Vec::new();
    for (_, manner) in manners.cycle().take(300) {
        silent.push(connect(&world));
        manner(silent.last_mut().unwrap()).unwrap();
    }
    until("they are taken", &world, || descriptors(pid) >= 300);
    is_served(&world, "beside three hundred silent ones");
    until("they are let go", &world, || descriptors(pid) <= open);
    silent.iter_mut().for_each(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    assert!(world.log().contains("asked for nothing"), "{}", world.log());
    is_served(&world, "afterwards");
}

/// A client that is stopped for long after it asked is no silent caller: its compile may take hours.
#[test]
fn a_client_that_compiles_for_long_is_not_let_go() {
    let world = serving();
    let compiler = world.script("slow/gcc", "#!/bin/sh\nsleep 13\nexec gcc \"$@\"\n");
    run(world.command(CLIENT).arg(compiler).args(["-c", "x.c", "-o", "y.o"]).current_dir(world.path("p")));
    assert_eq!(world.total("misses"), 2, "{}", world.log());
    assert_eq!(world.status()["refusal_reasons"]["abandoned"], serde_json::Value::Null, "{}", world.log());
}

#[test]
fn the_daemon_listens_on_no_network_and_leaves_no_core() {
    let world = serving();
    let pid = daemon(&world);
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| {
            fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    assert!(!sockets.is_empty());
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let inode = |socket: &String| text.split_whitespace().any(|word| word == socket);
        assert_eq!(sockets.iter().find(|socket| inode(socket)), None, "{table}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let of =
        |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(of("Max core file size")[4..6], ["0", "0"]);
    let files = of("Max open files");
    assert_eq!(files[3], files[4], "as many clients as the system allows");
}
