//! Traces: what a client sends as its observer's, and what is made of the records in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zcache_daemon::distill::{Scene, distill};
use zcache_daemon::distilled::Distilled;
use zcache_daemon::observation::{Record, records};
use zcache_daemon::places::Place;
use zcache_fuzz::{CLIENT, command, invocation};
use zcache_proto::trace;

/// Paths that meet each other: directories, what is in them, and the long way there.
const PATHS: &[&str] = &[
    "/w/p/src/x.c",
    "/w/p/x.o",
    "/w/p/a",
    "/w/p/a/b",
    "/w/p/a/b/c",
    "/w/p/../q",
    "/",
    "relative",
    "/proc/self/fd/0",
    "/usr/bin/gcc",
    "/opt/zig",
    "/t/bin/rustc",
    "/usr/lib/libc.so.6",
    "/w/p/libmac.so",
    "/dev/stdin",
    "//w/./p//a",
];

/// Descriptors are where they usually are, and everything else on a disk.
macro_rules! scene {
    () => {
        Scene {
            alias: None,
            place: &mut |at| if at.starts_with(b"/proc/") { Place::Given } else { Place::Disk },
            streams: &[],
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let invocation = invocation(choice);
    let command = command(&invocation);
    // As it comes from the socket.
    if let Ok(records) = records(data) {
        distill(&records, &*command.family, &invocation, scene!());
    }
    // And well formed, so that more than the first check is reached.
    let list: Vec<Record<'_>> = data.chunks_exact(8).map(|bytes| written(bytes)).collect();
    let sent = encoded(&list);
    let back = records(&sent).expect("what is well formed is read");
    assert_eq!(back, list);
    let seen = distill(&back, &*command.family, &invocation, scene!());
    let mut outer = seen.clone();
    outer.fold(seen.clone());
    holds(&seen);
});

/// What is true of every observation.
fn holds(seen: &Distilled) {
    for path in seen.contents.keys().chain(&seen.absent).chain(&seen.outputs).chain(&seen.directories) {
        assert!(path.starts_with(b"/"), "no path is relative: {:?}", String::from_utf8_lossy(path));
    }
}

fn written(bytes: &[u8]) -> Record<'static> {
    let path = |byte: u8| PATHS[usize::from(byte) % PATHS.len()].as_bytes();
    let pid = u32::from(bytes[2] % 4);
    let start = u64::from(bytes[3]) << 4;
    let kind = u16::from(bytes[0] % 24);
    let value = match kind {
        trace::START if bytes[4] % 2 == 0 => u64::from(CLIENT),
        trace::MODULE => start + u64::from(bytes[4]),
        trace::STAT => u64::from(bytes[4]) << 8,
        _ => u64::from(bytes[4] % 4),
    };
    Record {
        kind,
        flags: u16::from(bytes[1]),
        pid,
        errno: [0, 0, 0, 2, 13, 17, 20, 22][usize::from(bytes[5] % 8)],
        time_ns: u64::from(bytes[4]),
        caller: start,
        value,
        a: path(bytes[6]),
        b: if bytes[7] < 128 { path(bytes[7]) } else { b"" },
    }
}

fn encoded(records: &[Record<'_>]) -> Vec<u8> {
    let mut sent = vec![0; trace::HEADER_LEN];
    sent[..8].copy_from_slice(&trace::MAGIC);
    for r in records {
        let len = (trace::RECORD_LEN + r.a.len() + r.b.len()).next_multiple_of(8);
        let at = sent.len();
        sent.extend((len as u32).to_le_bytes());
        sent.extend([r.kind, r.flags].iter().flat_map(|n| n.to_le_bytes()));
        sent.extend([r.pid, r.errno].iter().flat_map(|n| n.to_le_bytes()));
        sent.extend([r.time_ns, r.caller, r.value].iter().flat_map(|n| n.to_le_bytes()));
        sent.extend([r.a.len() as u32, r.b.len() as u32].iter().flat_map(|n| n.to_le_bytes()));
        sent.extend(r.a.iter().chain(r.b));
        sent.resize(at + len, 0);
    }
    let end = sent.len() as u64;
    sent[trace::CURSOR_AT..][..8].copy_from_slice(&end.to_le_bytes());
    sent
}
