//! Tests of distilling, on observations written by hand.

use zcache_proto::trace::Identity;

use super::*;
use crate::compilers::{Command, parse};
use crate::invocation::Invocation;

const RUSTC: &[u8] = b"/kit/bin/rustc";
/// The client's process.
const CLIENT: u32 = 77;
const DRIVER: u64 = 0x1000;
const MACRO: u64 = 0x2000;

/// Which file a path is: a program, a shell, and what is neither.
fn identity(path: &str) -> Identity {
    [1, trace::hash(path.as_bytes())]
}

fn record(kind: u16, a: &'static str) -> Record<'static> {
    let started = |identities: [Identity; 2]| {
        let [file, executable] = identities.map(trace::identity_bytes);
        trace::target_parts(&file, &executable, [b""; 3]).concat().leak()
    };
    let b: &[u8] = match kind {
        trace::START => trace::identity_bytes(identity(a)).to_vec().leak(),
        trace::EXEC | trace::SPAWN | trace::ENTRY => started([identity(a); 2]),
        _ => b"",
    };
    Record { kind, flags: 0, pid: 1, errno: 0, time_ns: 100, caller: DRIVER, value: 0, a: a.as_bytes(), b }
}

fn module(start: u64, path: &'static str) -> Record<'static> {
    Record { caller: start, value: start + 0x1000, ..record(trace::MODULE, path) }
}

/// A rustc that does `middle` between its start and its end, with the driver and a macro loaded.
fn rustc(middle: &[Record<'static>]) -> Vec<Record<'static>> {
    let start = Record { value: CLIENT.into(), ..record(trace::START, "/kit/bin/rustc") };
    let entry = Record { pid: CLIENT, ..record(trace::ENTRY, "/kit/bin/rustc") };
    let mut all = vec![entry, start, module(DRIVER, "/kit/lib/librustc_driver.so")];
    all.extend(middle);
    all.push(module(MACRO, "/ws/target/debug/deps/libmac.so"));
    all.push(record(trace::EXIT, ""));
    all
}

fn command() -> Command {
    let line = "rustc --crate-name x src/lib.rs --out-dir /ws/target/debug/deps -C incremental=/ws/target/debug/incremental \
                -L dependency=/ws/target/debug/deps --emit=dep-info,link";
    let argv: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.into()).collect();
    let invocation = Invocation { program: RUSTC.into(), cwd: b"/ws".into(), argv, ..Invocation::default() };
    parse(&invocation, |_| None).unwrap()
}

fn distilled(middle: &[Record<'static>], env: &[&str]) -> Distilled {
    let env = Env::new(env.iter().map(|variable| variable.as_bytes().to_vec()).collect());
    let call = Invocation { env, pid: CLIENT, ..Invocation::default() };
    distill(&rustc(middle), &*command().family, &call, Scene { alias: None, place: &mut place, streams: &[] })
}

/// As on a machine where everything is mounted where it usually is.
fn place(path: &[u8]) -> Place {
    match path.strip_prefix(b"/proc/") {
        Some(rest) if rest.windows(4).any(|part| part == b"/fd/") => Place::Given,
        Some(_) => Place::Kernel,
        None => Place::Disk,
    }
}

fn by_macro(record: Record<'static>) -> Record<'static> {
    Record { caller: MACRO + 8, ..record }
}

fn asked(name: &'static str, value: Option<&str>) -> Record<'static> {
    let (flags, value) = value.map_or((0, 0), |value| (trace::FOUND, trace::hash(value.as_bytes())));
    Record { flags, value, ..record(trace::GETENV, name) }
}

#[test]
fn reads_probes_and_listings_are_inputs() {
    let missing = Record { errno: ENOENT, ..record(trace::STAT, "/ws/src/x.rs") };
    let seen =
        distilled(&[record(trace::READ, "/ws/./src//lib.rs"), missing, by_macro(record(trace::LIST, "/ws/data"))], &[]);
    assert!(seen.contents.contains_key(b"/ws/src/lib.rs".as_slice()));
    assert!(
        seen.contents.contains_key(RUSTC) && seen.contents.contains_key(b"/ws/target/debug/deps/libmac.so".as_slice())
    );
    assert!(seen.absent.contains(b"/ws/src/x.rs".as_slice()));
    assert!(seen.listings.contains_key(b"/ws/data".as_slice()));
    assert!(seen.plugins.contains(b"/ws/target/debug/deps/libmac.so".as_slice()));
    assert_eq!(seen.refusals, BTreeSet::new());
}

#[test]
fn what_the_tree_made_is_no_input() {
    let seen = distilled(
        &[
            Record { errno: ENOENT, ..record(trace::STAT, "/tmp/rustcA/x.o") },
            record(trace::MKDIR, "/tmp/rustcA"),
            Record { flags: trace::CREATE | trace::TRUNCATE, ..record(trace::WRITE, "/tmp/rustcA/x.o") },
            record(trace::READ, "/tmp/rustcA/x.o"),
            Record { b: b"/ws/target/debug/deps/x.o", ..record(trace::RENAME, "/tmp/rustcA/x.o") },
            record(trace::REMOVE, "/tmp/rustcA"),
            record(trace::READ, "/ws/target/debug/incremental/x/s"),
        ],
        &[],
    );
    let outputs: Vec<_> = seen.outputs.iter().map(Vec::as_slice).collect();
    assert_eq!(outputs, [b"/ws/target/debug/deps/x.o".as_slice()]);
    assert!(seen.directories.is_empty() && seen.absent.is_empty());
    assert!(!seen.contents.keys().any(|path| path.starts_with(b"/tmp") || path.starts_with(b"/ws/target/debug/inc")));
}

#[test]
fn the_compilers_own_habits_are_no_inputs_but_a_macros_are() {
    let own =
        [record(trace::CLOCK, ""), record(trace::READ, "/proc/stat"), record(trace::LIST, "/ws/target/debug/deps")];
    let seen = distilled(&own, &[]);
    assert!(seen.refusals.is_empty() && seen.listings.is_empty());
    let seen = distilled(&own.map(by_macro), &[]);
    assert!(seen.refusals.contains(&Refusal::Clock));
    assert!(seen.refusals.contains(&Refusal::KernelFile(b"/proc/stat".into())));
    assert!(seen.listings.contains_key(b"/ws/target/debug/deps".as_slice()));
}

/// Variables that were asked for, without the dynamic linker's.
fn asked_for(seen: &Distilled) -> Vec<Vec<u8>> {
    let linkers = |name: &&Vec<u8>| name.starts_with(b"LD_") || name.starts_with(b"GLIBC_");
    seen.env.iter().filter(|name| !linkers(name)).cloned().collect()
}

#[test]
fn variables_count_by_who_asks_and_whether_the_build_set_them() {
    let env = ["PATH=/bin", "OUT_DIR=/ws/o", "V=1"];
    let seen = distilled(
        &[
            asked("PATH", Some("/bin")),
            asked("OUT_DIR", Some("/ws/o")),
            asked("V", Some("1")),
            asked("UNSET", None),
            asked("SET_BY_THE_COMPILER", Some("x")),
        ],
        &env,
    );
    assert_eq!(asked_for(&seen), [b"UNSET".to_vec(), b"V".to_vec()]);
    assert_eq!(seen.env_by_role, [b"OUT_DIR".to_vec()].into());
    let seen = distilled(&[by_macro(asked("PATH", Some("/bin"))), by_macro(asked("OUT_DIR", Some("/ws/o")))], &env);
    assert_eq!(asked_for(&seen), [b"OUT_DIR".to_vec(), b"PATH".to_vec()]);
}

#[test]
fn a_program_that_was_not_seen_to_its_end_is_refused() {
    let spawn = Record { value: 9, ..record(trace::SPAWN, "/usr/bin/ld") };
    assert!(distilled(&[spawn], &[]).refusals.contains(&Refusal::Unobserved(b"/usr/bin/ld".into())));
    let child = Record { pid: 9, ..record(trace::START, "/usr/bin/ld") };
    assert!(!distilled(&[spawn, child], &[]).refusals.is_empty());
    let ended = Record { pid: 9, ..record(trace::EXIT, "") };
    assert!(distilled(&[spawn, child, ended], &[]).refusals.is_empty());
    let foreign = Record { flags: trace::FOREIGN, ..record(trace::EXEC, "/ws/other") };
    assert!(!distilled(&[foreign, record(trace::EXEC_FAILED, "")], &[]).refusals.is_empty());
}

#[test]
fn a_script_may_have_read_any_variable() {
    let spawn = Record { value: 9, ..record(trace::SPAWN, "/usr/bin/dash") };
    let shell =
        [Record { pid: 9, ..record(trace::START, "/usr/bin/dash") }, Record { pid: 9, ..record(trace::EXIT, "") }];
    assert!(distilled(&[spawn, shell[0], shell[1]], &[]).environment);
    let spawn = Record { value: 9, ..record(trace::SPAWN, "/usr/bin/x86_64-linux-gnu-ld.bfd") };
    let linker = Record { pid: 9, ..record(trace::START, "/usr/bin/x86_64-linux-gnu-ld.bfd") };
    assert!(!distilled(&[spawn, linker, shell[1]], &[]).environment);
}

#[test]
fn sockets_moves_and_rewritten_inputs_are_refused() {
    let write = Record { flags: trace::CREATE, ..record(trace::WRITE, "/ws/log") };
    let seen = distilled(&[by_macro(record(trace::READ, "/ws/log")), write], &[]);
    assert!(seen.refusals.contains(&Refusal::RewritesInput(b"/ws/log".into())));
    assert!(distilled(&[write], &[]).modified.contains(b"/ws/log".as_slice()));
    assert!(distilled(&[record(trace::SOCKET, "")], &[]).refusals.contains(&Refusal::Socket));
    let moved = Record { b: b"/ws/b", ..record(trace::RENAME, "/ws/a") };
    assert!(distilled(&[moved], &[]).refusals.contains(&Refusal::Moves(b"/ws/a".into())));
}

#[test]
fn a_nested_client_speaks_for_itself() {
    let nested = |record: Record<'static>| Record { pid: 9, ..record };
    let seen = distilled(
        &[
            Record { value: 9, ..record(trace::SPAWN, "/bin/zcache-client") },
            nested(record(trace::START, "/bin/zcache-client")),
            nested(record(trace::EXEMPT, "")),
            nested(record(trace::SOCKET, "")),
            // It became the compiler.
            nested(record(trace::EXEC, "/kit/bin/rustc")),
            nested(record(trace::START, "/kit/bin/rustc")),
            nested(record(trace::READ, "/ws/probe.rs")),
            nested(record(trace::EXIT, "")),
        ],
        &[],
    );
    assert!(seen.refusals.is_empty() && !seen.environment && seen.clients.is_empty());
    assert_eq!(seen.started[RUSTC], Some(RUSTC.to_vec()));
    assert!(seen.contents.contains_key(b"/ws/probe.rs".as_slice()));
}

#[test]
fn what_a_macro_did_not_find_counts_even_if_it_made_it() {
    let missing = Record { errno: ENOENT, ..record(trace::STAT, "/ws/made") };
    let made = Record { flags: trace::CREATE | trace::EXCLUSIVE, ..record(trace::WRITE, "/ws/made") };
    assert!(distilled(&[by_macro(missing), by_macro(made)], &[]).absent_before.contains(b"/ws/made".as_slice()));
    assert!(distilled(&[by_macro(made)], &[]).absent_before.contains(b"/ws/made".as_slice()));
    let own = distilled(&[missing, made], &[]);
    assert!(own.absent_before.is_empty() && own.absent.is_empty());
    let there = Record { errno: 17, ..made };
    assert!(distilled(&[by_macro(there)], &[]).exists.contains_key(b"/ws/made".as_slice()));
}

#[test]
fn a_shells_search_for_a_program_is_a_search() {
    let tried = Record { pid: 9, ..record(trace::EXEC, "/a/cc") };
    let failed = Record { pid: 9, errno: ENOENT, ..record(trace::EXEC_FAILED, "") };
    let seen = distilled(&[tried, failed], &[]);
    assert!(seen.absent_before.contains(b"/a/cc".as_slice()) && !seen.contents.contains_key(b"/a/cc".as_slice()));
    assert!(seen.refusals.is_empty());
}

#[test]
fn folding_takes_inputs_but_not_what_the_outer_compile_makes() {
    let mut outer = distilled(&[record(trace::WRITE, "/ws/target/debug/deps/x")], &[]);
    let mut inner =
        distilled(&[record(trace::READ, "/ws/inner.rs"), record(trace::READ, "/ws/target/debug/deps/x")], &[]);
    inner.refusals.insert(Refusal::Failed);
    outer.fold(inner);
    assert!(outer.contents.contains_key(b"/ws/inner.rs".as_slice()));
    assert!(!outer.contents.contains_key(b"/ws/target/debug/deps/x".as_slice()));
    assert!(outer.refusals.is_empty());
}
