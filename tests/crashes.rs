//! The daemon killed, at every place where it changes what is on disk and at random: no build fails or comes out wrong,
//! then or later, and the daemon comes back by itself.

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{CLIENT, Effect, World, ZCACHED, assert_same, effect, run, stdout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zcache_daemon::failpoint;

/// Sources of a build that makes blobs, of rustc's kind and gcc's, and text.
fn lay_out(world: &World) {
    world.write(&[
        ("s/a.rs", "pub fn a() -> u32 { 1 }"),
        ("s/b.rs", "pub fn b() -> u32 { a::a() + 1 }"),
        ("s/c.c", "#include \"c.h\"\nint c(void) { return C; }"),
        ("s/c.h", "#define C 3\n"),
    ]);
}

/// The build from nothing, bare or through zcache.
fn build(world: &World, cached: bool) -> Effect {
    world.remove("out");
    fs::create_dir(world.path("out")).unwrap();
    let client = if cached { CLIENT } else { "" };
    let rustc = format!("{client} {} --crate-type lib --emit link,dep-info --out-dir out", harness::rustc().display());
    let line = format!(
        "{rustc} s/a.rs && {rustc} s/b.rs -L out --extern a=out/liba.rlib && {client} gcc -g -MD -c s/c.c -o out/c.o"
    );
    let mut command = world.command("sh");
    effect(command.args(["-c", &line]), &world.path("out"))
}

/// The daemon, dying at a failpoint.
fn doomed(world: &World, point: &str) -> Child {
    let mut daemon = world.command(ZCACHED);
    daemon.env("ZCACHE_FAILPOINT", point).stdout(Stdio::null()).stderr(Stdio::null());
    daemon.spawn().unwrap()
}

fn serves(world: &World) -> bool {
    world.zcache("status --json").output().is_ok_and(|output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        report["daemon"].is_object()
    })
}

/// Waits for the daemon to serve or to be gone.
fn wait_until_up(world: &World, daemon: &mut Child) {
    let until = Instant::now() + Duration::from_secs(20);
    while daemon.try_wait().unwrap().is_none() && !serves(world) {
        assert!(Instant::now() < until, "the daemon does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has the daemon do what it does in its life, until it dies.
fn live(world: &World, bare: &Effect, point: &str) {
    for round in ["first", "again"] {
        assert_same(bare, &build(world, true), &format!("{point}, {round}"));
    }
    for blob in blobs(&world.path("store")) {
        fs::write(blob, "damaged").unwrap();
    }
    for verb in ["gc", "verify --repair", "clear"] {
        let _ = world.zcache(verb).output();
        assert_same(bare, &build(world, true), &format!("{point}, after {verb}"));
    }
    let _ = world.zcache("stop").output();
}

fn blobs(store: &Path) -> Vec<std::path::PathBuf> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    list(&store.join("cas")).flat_map(|shard| list(&shard).collect::<Vec<_>>()).collect()
}

#[test]
fn killed_at_every_place_where_it_changes_the_disk() {
    std::thread::scope(|scope| {
        for half in [0, 1] {
            scope.spawn(move || failpoint::ALL.iter().skip(half).step_by(2).for_each(|(point, _)| killed_at(point)));
        }
    });
}

fn killed_at(point: &str) {
    let world = World::new();
    lay_out(&world);
    let bare = build(&world, false);
    if point == "evicted" {
        world.write(&[("config/zcache/config.toml", "max_size = \"3 KiB\"\n")]);
    }
    let mut daemon = doomed(&world, point);
    wait_until_up(&world, &mut daemon);
    live(&world, &bare, point);
    let status = daemon.wait().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(killed, Some(9), "{point} was never reached");
    // Whatever it left behind: the next daemon serves nothing that is torn, and stores again.
    for round in ["once", "twice"] {
        assert_same(&bare, &build(&world, true), &format!("{point}, afterwards {round}"));
    }
    let report = world.status();
    assert!(report["daemon"].is_object(), "{point}: {report}");
    if point != "evicted" {
        assert!(report["totals"]["hits"].as_u64() >= Some(3), "{point}: {report}\n{}", world.log());
    }
    assert_eq!(fs::read_dir(world.path("store/tmp")).unwrap().count(), 0, "{point}");
    let verified = world.zcache("verify").output().unwrap();
    assert!(verified.status.success(), "{point}: {}", String::from_utf8_lossy(&verified.stdout));
}

/// A parallel build of C units, each of which says its number.
fn many(world: &World) -> Command {
    const UNITS: usize = 24;
    for n in 0..UNITS {
        world.write(&[(&format!("m/u{n}.c"), &format!("#include <stdio.h>\nint u{n}(void) {{ return {n}; }}\n"))]);
    }
    let sum: String = (0..UNITS).map(|n| format!("int u{n}(void);\n")).collect();
    let calls: Vec<String> = (0..UNITS).map(|n| format!("u{n}()")).collect();
    let main =
        format!("#include <stdio.h>\n{sum}int main(void) {{ printf(\"%d\", {}); return 0; }}\n", calls.join("+"));
    let objects: Vec<String> = (0..UNITS).map(|n| format!("u{n}.o")).collect();
    let make = format!(
        "CC = {CLIENT} gcc\napp: main.o {0}\n\tgcc -o $@ $^\nclean:\n\trm -f app main.o {0}\n",
        objects.join(" ")
    );
    world.write(&[("m/main.c", &main), ("m/Makefile", &make)]);
    let mut command = world.command("make");
    command.args(["-j4", "app"]).current_dir(world.path("m"));
    command
}

#[test]
#[ignore = "needs make and a minute"]
fn two_hundred_random_kills_during_parallel_builds() {
    let world = World::new();
    let mut build = many(&world);
    let (stop, kills) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Enough like chance, and the same every time.
            let mut seed = 1u64;
            while !stop.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                std::thread::sleep(Duration::from_millis(1 + (seed >> 33) % 300));
                for pid in world.daemons() {
                    let killed = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).is_ok();
                    kills.fetch_add(u64::from(killed), Ordering::Relaxed);
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while kills.load(Ordering::Relaxed) < 200 {
                run(world.command("make").arg("clean").current_dir(world.path("m")));
                run(&mut build);
                assert_eq!(stdout(&mut world.command(world.path("m/app"))), "276");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for _ in 0..2 {
        run(world.command("make").arg("clean").current_dir(world.path("m")));
        run(&mut build);
        assert_eq!(stdout(&mut world.command(world.path("m/app"))), "276");
    }
    assert!(world.total("hits") > 0, "{}", world.log());
    run(&mut world.zcache("verify"));
}

#[test]
#[ignore = "needs make"]
fn clearing_and_collecting_without_pause_costs_hits_only() {
    let world = World::new();
    world.write(&[("config/zcache/config.toml", "max_size = \"20 KiB\"\n")]);
    let mut build = many(&world);
    // A store at rest is one command's alone.
    run(&mut world.zcache("start"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for verb in ["gc", "clear", "verify --repair"] {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let output = world.zcache(verb).output().unwrap();
                    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        for _ in 0..4 {
            run(world.command("make").arg("clean").current_dir(world.path("m")));
            run(&mut build);
            assert_eq!(stdout(&mut world.command(world.path("m/app"))), "276");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let report = world.status();
    assert_eq!((&report["totals"]["errors"], &report["cache"]["quarantined"]), (&0.into(), &0.into()), "{report}");
    assert!(report["cache"]["bytes"].as_u64() <= Some(21 << 10), "{report}");
}

#[test]
#[ignore = "needs libfaketime"]
fn a_clock_that_is_ten_years_off_evicts_nothing() {
    let world = World::new();
    lay_out(&world);
    let bare = build(&world, false);
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
    assert!(Path::new(&library).exists(), "libfaketime is not installed");
    for years in ["+10y", "-10y", "+0y", "+10y"] {
        let mut daemon = world.command(ZCACHED);
        daemon.env("LD_PRELOAD", &library).env("FAKETIME", years).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().unwrap();
        wait_until_up(&world, &mut daemon);
        for round in ["once", "twice"] {
            assert_same(&bare, &build(&world, true), &format!("{years}, {round}"));
        }
        let report = world.status();
        assert_eq!(report["cache"]["evicted_bytes"], 0, "{years}: {report}");
        assert!(report["cache"]["results"].as_u64() >= Some(3), "{years}: {report}");
        run(&mut world.zcache("gc"));
        assert_eq!(world.status()["cache"]["results"], report["cache"]["results"], "{years}");
        run(&mut world.zcache("stop"));
        daemon.wait().unwrap();
    }
}

#[test]
fn verify_tells_of_damage_and_repairs_it() {
    for running in [true, false] {
        let world = World::new();
        lay_out(&world);
        let bare = build(&world, false);
        assert_same(&bare, &build(&world, true), "miss");
        world.status();
        if !running {
            run(&mut world.zcache("stop"));
        }
        assert!(stdout(&mut world.zcache("verify")).contains(" 0 damaged, 0 missing"));
        let blobs = blobs(&world.path("store"));
        fs::write(&blobs[0], "damaged").unwrap();
        fs::remove_file(&blobs[1]).unwrap();
        let output = world.zcache("verify").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(1) && text.contains(" 1 damaged, 1 missing"), "{text}");
        run(&mut world.zcache("verify --repair"));
        assert!(stdout(&mut world.zcache("verify")).contains(" 0 damaged, 0 missing"));
        assert_same(&bare, &build(&world, true), "after the repair");
    }
}
