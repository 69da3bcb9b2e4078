//! What people and scripts see: the report's contract, counters over restarts, the size limit, clearing and zeroing,
//! and `zcache run`.

mod harness;

use std::fs;

use harness::{World, run};
use serde_json::Value;

fn compile(world: &World, name: &str, source: &str) {
    world.write(&[("x.rs", source)]);
    run(&mut world.rustc(&format!("--crate-name {name} --crate-type lib x.rs --out-dir .")));
}

#[test]
fn the_report_has_the_promised_names() {
    let world = World::new();
    compile(&world, "a", "");
    compile(&world, "a", "");
    run(world.command(harness::CLIENT).args(["/bin/echo", "hello"]));
    let report = world.status();
    for (group, names) in [
        ("daemon", &["version", "pid", "uptime_s", "socket", "activation"][..]),
        ("cache", &["dir", "bytes", "max_bytes", "blobs", "results"]),
        (
            "totals",
            &["invocations", "hits", "misses", "bypasses", "errors", "stored", "nested", "max_depth", "saved_ms"],
        ),
    ] {
        for name in names {
            assert!(!report[group][name].is_null(), "{group}.{name} in {report}");
        }
    }
    for name in ["id", "command", "active", "invocations", "hits", "misses", "bypasses", "nested", "max_depth"] {
        assert!(!report["builds"][0][name].is_null(), "builds.{name} in {report}");
    }
    let totals = &report["totals"];
    assert_eq!((&totals["invocations"], &totals["hits"], &totals["misses"]), (&3.into(), &1.into(), &1.into()));
    assert_eq!(report["by_compiler"]["rustc"]["hits"], 1);
    assert_eq!(report["miss_reasons"]["new"], 1);
    assert_eq!(report["bypass_reasons"]["unknown_compiler"], 1);
    assert_eq!(report["daemon"]["activation"], "client");
}

#[test]
fn totals_survive_a_restart_and_no_daemon_is_no_error() {
    let world = World::new();
    let nothing = world.status();
    assert!(nothing["daemon"].is_null() && nothing["totals"]["invocations"] == 0, "{nothing}");
    compile(&world, "a", "");
    let before = world.status();
    run(&mut world.zcache("stop"));
    let stopped = world.status();
    assert!(stopped["daemon"].is_null(), "{stopped}");
    assert_eq!((&stopped["totals"], &stopped["cache"]["blobs"]), (&before["totals"], &before["cache"]["blobs"]));
    compile(&world, "a", "");
    assert_eq!((world.total("invocations"), world.total("hits")), (2, 1));
    let text = harness::stdout(&mut world.zcache("status"));
    assert!(text.contains("store") && text.contains("hits"), "{text}");
}

#[test]
fn zero_resets_counters_and_clear_empties_the_store() {
    let world = World::new();
    compile(&world, "a", "");
    run(&mut world.zcache("zero"));
    let report = world.status();
    assert_eq!(
        (&report["totals"]["invocations"], &report["miss_reasons"]),
        (&0.into(), &Value::Object(Default::default()))
    );
    assert!(report["cache"]["blobs"].as_u64() > Some(0));
    run(&mut world.zcache("clear"));
    let report = world.status();
    assert_eq!((&report["cache"]["blobs"], &report["cache"]["bytes"]), (&0.into(), &0.into()));
    compile(&world, "a", "");
    assert_eq!(world.total("misses"), 1);
    // At rest too, with something in it.
    run(&mut world.zcache("stop"));
    run(&mut world.zcache("zero"));
    run(&mut world.zcache("clear"));
    let report = world.status();
    assert!(report["daemon"].is_null());
    assert_eq!((&report["cache"]["blobs"], &report["totals"]["misses"]), (&0.into(), &0.into()));
}

#[test]
fn clearing_during_builds_harms_none() {
    let world = World::new();
    world.write(&[
        ("p/Cargo.toml", "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("p/src/lib.rs", "pub fn f() -> u32 { 7 }"),
        ("p/src/main.rs", "fn main() { print!(\"{}\", p::f()) }"),
    ]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| {
            let mut cleared = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Before the first compile there is a moment in which a daemon starts and does not answer yet.
                cleared += u32::from(world.zcache("clear").output().unwrap().status.success());
            }
            assert!(cleared >= 8, "only {cleared} times");
        });
        for _ in 0..8 {
            world.remove("p/target");
            let built = world.cargo("p", "build").output().unwrap();
            if !built.status.success() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{}", String::from_utf8_lossy(&built.stderr));
            }
            assert_eq!(harness::stdout(&mut world.command(world.path("p/target/debug/p"))), "7");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        clearing.join().unwrap();
    });
}

#[test]
fn the_size_limit_holds_by_last_use() {
    let world = World::new();
    let filler = |n: u32| format!("pub static S: [u8; 400000] = [{n}; 400000];");
    world.write(&[("config/zcache/config.toml", "max_size = \"2560 KiB\"\n")]);
    compile(&world, "first", &filler(1));
    for n in 2..6 {
        compile(&world, &format!("other{n}"), &filler(n));
        // Last uses are told apart by the second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        compile(&world, "first", &filler(1));
    }
    let report = world.status();
    assert!(report["cache"]["bytes"].as_u64() <= report["cache"]["max_bytes"].as_u64(), "{report}");
    assert_eq!(report["cache"]["max_bytes"], 2560 << 10);
    assert!(report["cache"]["evicted_bytes"].as_u64() > Some(0), "{report}");
    assert_eq!(report["totals"]["hits"], 4, "what is used stays: {report}");
    compile(&world, "other2", &filler(2));
    assert_eq!(world.total("hits"), 4, "what was used least has gone");
}

#[test]
fn run_sets_the_wrapper_passes_the_end_through_and_sums_up() {
    let world = World::new();
    world.write(&[
        ("p/Cargo.toml", "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n"),
        ("p/src/main.rs", "fn main() {}"),
    ]);
    let build = |world: &World| {
        world.remove("p/target");
        let output = run(world.zcache("run -- cargo build").current_dir(world.path("p")));
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
    };
    let first = build(&world);
    assert!(first.starts_with("zcache: ") && first.contains("misses"), "{first}");
    let second = build(&world);
    assert!(second.contains(" 0 misses") && second.ends_with("s of compiling saved"), "{second}");
    assert_eq!(world.zcache("run -- false").status().unwrap().code(), Some(1));
    assert_eq!(world.command(harness::ZCACHE).args(["run", "sh", "-c", "exit 7"]).status().unwrap().code(), Some(7));
    assert_eq!(world.zcache("run -- no-such-command").output().unwrap().status.code(), Some(127));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let world = World::new();
    let line = format!("{} status | true", harness::ZCACHE);
    let output = world.command("sh").args(["-c", &line]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn the_store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    compile(&world, "a", "");
    for name in ["store/cas", "store/tmp", "store/quarantine", "run/zcache"] {
        assert_eq!(fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
}
