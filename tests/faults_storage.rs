//! Faults of the disk under the store, and what must be true all the same: every build is right, what is wrong is said
//! once and counted, the daemon lives on, and it stores again when the disk lets it.

mod fixture;
mod harness;
mod storage;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{CLIENT, ZCACHED, assert_same, effect, files, run};
use nix::libc::{EIO, ENOLCK, ENOSPC, EPERM, EROFS};
use serde_json::Value;
use storage::{Bench, Injector, Mount, number, refused};

/// Room that a store leaves to others, MiB; as in `premises`.
const ROOM: u64 = 16;

#[test]
#[ignore = "needs root: mounts"]
fn on_a_full_disk_builds_pass_and_storing_begins_again_with_room() {
    // Full from the start; full after one object; full in the middle of one, before anyone looks how much is left.
    for megabytes in [1, ROOM + 2, ROOM + 5] {
        let mut bench = Bench::new();
        let what = format!("a disk of {megabytes} MiB");
        let disk = Mount::new(&format!("-t tmpfs -o size={megabytes}m,mode=700 none"), &bench.store);
        let is_told = |report: &Value| {
            let refused = refused(report, "store_full") + refused(report, "store_failed");
            refused > 0 && report["cache"]["problem"] == "store_full"
        };
        let mut report = bench.status();
        // How much room there is is looked at now and then.
        for round in 0..100 {
            if round % 4 == 3 {
                bench.renew(round);
            }
            bench.is_right(&what);
            report = bench.status();
            if round > 12 && is_told(&report) {
                break;
            }
        }
        assert!(is_told(&report), "{what}: {report}\n{}", bench.world.log());
        assert!(bench.report().contains("its disk is full"), "{what}: {}", bench.report());
        let pid = number(&report["daemon"]["pid"]) as u32;
        bench.is_calm(pid, &what);
        disk.again("remount,size=200m");
        bench.serves_again(&what);
        assert_eq!(bench.counted(&what).hits, 3, "{what}");
        assert_eq!(bench.status()["cache"]["problem"], "", "{what}");
        bench.stop();
        assert_eq!(bench.counted(&what).hits, 3, "{what}: {}", bench.world.log());
    }
}

#[test]
fn a_limit_on_the_length_of_files_stops_storing_and_nothing_else() {
    // Not even the index's first write; a blob in its middle; the index as it grows.
    for limit in [20_000, 300_000, 600_000, 900_000] {
        let mut bench = Bench::new();
        let what = format!("files of {limit} bytes");
        let limit = format!("--fsize={limit}");
        let mut child = bench.daemon("prlimit", &[&limit, ZCACHED], &[]);
        for round in 0..6 {
            bench.renew(round % 3);
            bench.is_right(&what);
            std::thread::sleep(Duration::from_millis(300));
        }
        let report = bench.status();
        let told = refused(&report, "store_full") + refused(&report, "store_failed");
        assert!(told > 0, "{what}: {report}\n{}", bench.world.log());
        let lines = bench.world.log().lines().count();
        assert!(lines < 12, "{what}: said once, not per compile:\n{}", bench.world.log());
        bench.is_calm(child.id(), &what);
        bench.stop();
        child.wait().unwrap();
        // Without the limit: nothing half-written is served.
        bench.is_right(&what);
        bench.serves_again(&what);
    }
}

#[test]
fn calls_that_fail_cost_a_result_and_no_more() {
    // Calls of the daemon, their error, the files it meets, whether the results are stored all the same.
    let table: &[(&str, i32, &str, bool)] = &[
        ("write", ENOSPC, "/store/tmp/", false),
        ("write", EIO, "/store/tmp/", false),
        ("close", ENOSPC, "/store/tmp/", false),
        ("pwrite write", ENOSPC, "/store/index/", false),
        ("pwrite write", EIO, "/store/index/", false),
        ("pwrite write fsync", EROFS, "/store/index/", false),
        ("pwrite write fsync close", EIO, "/store/", false),
        ("fsync", EIO, "/store/", true),
        ("link", EPERM, "/store/", true),
    ];
    std::thread::scope(|scope| {
        let check = |part: usize| table.iter().skip(part).step_by(2).for_each(|row| fails_and_recovers(*row));
        scope.spawn(move || check(0));
        check(1);
    });
}

fn fails_and_recovers((calls, errno, place, is_stored): (&str, i32, &str, bool)) {
    let what = format!("{calls}: {} at {place}", nix::errno::Errno::from_raw(errno));
    let mut bench = Bench::new();
    let injector = Injector::new(&bench.world);
    let mut child = bench.daemon(ZCACHED, &[], &injector.env());
    bench.renew(0);
    bench.is_right(&what);
    assert_eq!(bench.counted(&what).hits, 3, "{what}: {}", bench.world.log());
    // The index is written once a second.
    std::thread::sleep(Duration::from_millis(2500));
    injector.fail(calls, errno, place);
    for round in 1..4 {
        bench.renew(round);
        bench.is_right(&what);
        std::thread::sleep(Duration::from_millis(600));
        let again = bench.counted(&what);
        let hits = if is_stored { 3 } else { again.hits };
        assert_eq!((again.hits, again.bypasses), (hits, 0), "{what}: {}\n{}", bench.status(), bench.world.log());
    }
    let report = bench.status();
    let told = refused(&report, "store_failed") + refused(&report, "store_full");
    assert_eq!(told > 0, !is_stored, "{what}: {report}");
    // What was stored before is served, also when the index has been tried again meanwhile.
    bench.renew(0);
    for _ in 0..if place.contains("index") { 8 } else { 1 } {
        assert_eq!(bench.counted(&what).hits, 3, "{what}: {}\n{}", bench.status(), bench.world.log());
        std::thread::sleep(Duration::from_millis(900));
    }
    let lines = bench.world.log().lines().count();
    assert!(lines < 12, "{what}: said once, not per compile:\n{}", bench.world.log());
    bench.is_calm(child.id(), &what);
    injector.relent();
    bench.renew(4);
    bench.serves_again(&what);
    assert_eq!(bench.status()["cache"]["problem"], "", "{what}");
    bench.stop();
    child.wait().unwrap();
    // What another daemon finds is whole.
    bench.is_right(&what);
    bench.serves_again(&what);
}

#[test]
#[ignore = "needs root: mounts"]
fn a_hit_onto_a_full_disk_ends_as_the_bare_compile_does() {
    let bench = Bench::new();
    bench.is_right("there is room");
    assert_eq!(bench.counted("there is room").hits, 3);
    let out = bench.world.path("w/out");
    let build = |cached: bool| {
        bench.world.remove("w/out");
        let _disk = Mount::new("-t tmpfs -o size=1m none", &out);
        let done = effect(&mut bench.command(cached), &out);
        assert!(done.stderr.contains("No space left on device"), "{}", done.stderr);
        // It names temporary files, by other names each time.
        harness::Effect { stderr: String::new(), ..done }
    };
    let (bare, got) = (build(false), build(true));
    assert_ne!(bare.code, Some(0), "1 MB takes no 3 MB");
    assert_same(&bare, &got, "a full target");
    assert!(number(&bench.status()["totals"]["errors"]) > 0, "{}", bench.status());
}

#[test]
#[ignore = "needs root: mounts"]
fn a_read_only_store_serves_and_takes_nothing() {
    let mut bench = Bench::new();
    bench.is_right("stored");
    bench.stop();
    let before = files(&bench.store);
    let mount = Mount::read_only(&bench.store);
    assert_eq!(bench.counted("read-only").hits, 3, "{}", bench.world.log());
    assert_eq!(bench.counted("read-only again").hits, 3, "{}", bench.world.log());
    bench.renew(1);
    for _ in 0..3 {
        assert_eq!(bench.counted("new, read-only").misses, 3);
    }
    let report = bench.status();
    assert_eq!((refused(&report, "store_read_only"), number(&report["totals"]["errors"])), (9, 0), "{report}");
    assert_eq!(report["cache"]["problem"], "store_read_only");
    assert!(bench.report().contains("it is read-only"), "{}", bench.report());
    let log = bench.world.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    bench.stop();
    assert!(bench.report().contains("3 results"), "at rest: {}", bench.report());
    drop(mount);
    assert!(files(&bench.store) == before, "nothing was written");
    assert_eq!(bench.counted("writable").misses, 3);
    bench.serves_again("writable");
}

#[test]
#[ignore = "needs root: mounts"]
fn a_store_that_becomes_read_only_goes_on_serving() {
    let mut bench = Bench::new();
    bench.serves_again("stored");
    let pid = number(&bench.status()["daemon"]["pid"]) as u32;
    let mount = Mount::read_only(&bench.store);
    // For a moment the index may find that it cannot write.
    bench.serves_again("read-only");
    std::thread::sleep(Duration::from_millis(1500));
    bench.renew(1);
    let before = refused(&bench.status(), "store_read_only");
    for _ in 0..3 {
        assert_eq!(bench.counted("new, read-only").misses, 3);
    }
    let report = bench.status();
    let errors = number(&report["totals"]["errors"]);
    assert_eq!((refused(&report, "store_read_only") - before, errors), (9, 0), "{report}");
    bench.is_calm(pid, "read-only");
    drop(mount);
    bench.serves_again("writable");
    assert_eq!(bench.world.daemons(), [pid]);
}

#[test]
#[ignore = "needs root: mounts"]
fn a_file_system_that_gives_up_writing_is_outlived() {
    let mut bench = Bench::new();
    let _disk = Mount::image("ext4", &bench.world.path("disk"), &bench.store);
    bench.is_right("stored");
    assert_eq!(bench.counted("served").hits, 3);
    let pid = number(&bench.status()["daemon"]["pid"]) as u32;
    // What `errors=remount-ro` does when the disk fails, with files open for writing.
    _disk.again("remount,abort");
    assert_eq!(bench.counted("aborted").hits, 3, "{}", bench.world.log());
    bench.renew(1);
    for _ in 0..3 {
        bench.is_right("aborted, new");
        std::thread::sleep(Duration::from_millis(500));
    }
    let report = bench.status();
    assert!(refused(&report, "store_read_only") + refused(&report, "store_failed") > 0, "{report}");
    bench.is_calm(pid, "aborted");
}

#[test]
fn a_second_socket_on_a_store_leads_to_the_first() {
    let bench = Bench::small();
    bench.is_right("the first");
    let other = bench.world.path("run2/z.sock");
    fs::DirBuilder::new().mode(0o700).create(bench.world.path("run2")).unwrap();
    bench.world.remove("w/out/a.c.o");
    let (mut command, before) = (bench.command(true), bench.status());
    run(command.env("ZCACHE_SOCKET", &other));
    assert_eq!(number(&bench.status()["totals"]["hits"]), number(&before["totals"]["hits"]) + 2);
    let report = bench.world.zcache("status").env("ZCACHE_SOCKET", &other).output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout) + String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success() && text.contains("in use"), "{text}");
    assert_eq!(bench.world.daemons().len(), 1);
    assert_eq!(bench.counted("the first again").hits, 2);
}

#[test]
fn a_file_system_without_locks_is_refused_with_the_reason() {
    let bench = Bench::small();
    let injector = Injector::new(&bench.world);
    injector.fail("flock", ENOLCK, "/store/");
    let output = bench.world.command(ZCACHED).envs(injector.env()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("without locks") && text.contains("ZCACHE_DIR"), "{text}");
}

#[test]
#[ignore = "needs root: mounts; needs btrfs-progs and xfsprogs"]
fn where_blocks_can_be_shared_they_are_and_a_blob_stays_whole() {
    for kind in ["btrfs", "xfs"] {
        let mut bench = Bench::new();
        let disk = Mount::image(kind, &bench.world.path("disk"), &bench.world.path("w/out"));
        // Store and outputs share the file system; the build empties its directory below.
        bench.store = bench.world.path("w/out/store");
        let build = |cached: bool| {
            fs::create_dir_all(bench.world.path("w/out/o")).unwrap();
            let lines = ["big.c", "small.c"]
                .map(|name| format!("{} gcc -c {name} -o out/o/{name}.o", if cached { CLIENT } else { "" }));
            let mut command = bench.world.command("bash");
            command.args(["-c", &lines.join("\n")]).current_dir(bench.world.path("w")).env("ZCACHE_DIR", &bench.store);
            let done = effect(&mut command, &bench.world.path("w/out/o"));
            assert_eq!(done.code, Some(0), "{kind}: {}", done.stderr);
            done
        };
        let bare = build(false);
        fs::remove_dir_all(bench.world.path("w/out/o")).unwrap();
        assert_same(&bare, &build(true), kind);
        for round in 0..3 {
            fs::remove_dir_all(bench.world.path("w/out/o")).unwrap();
            let before = bench.status();
            assert_same(&bare, &build(true), kind);
            let hits = number(&bench.status()["totals"]["hits"]) - number(&before["totals"]["hits"]);
            assert_eq!(hits, 2, "{kind}, round {round}: {}", bench.world.log());
            run(&mut Command::new("sync"));
            let extents = harness::stdout(Command::new("filefrag").arg("-v").arg(bench.world.path("w/out/o/big.c.o")));
            assert!(extents.contains("shared"), "{kind}: the blocks are not shared: {extents}");
            // The next round shows that the blob did not see this.
            let mut bytes = bare.files[Path::new("big.c.o")].1.clone();
            bytes[1 << 20] ^= 1;
            let file = fs::File::options().write(true).open(bench.world.path("w/out/o/big.c.o")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[1 << 20..], 1 << 20).unwrap();
        }
        assert_eq!(number(&bench.status()["cache"]["quarantined"]), 0, "{kind}");
        bench.stop();
        drop(disk);
    }
}

#[test]
fn a_store_is_its_users_alone_whatever_the_umask() {
    for umask in ["0", "022", "0777"] {
        let bench = Bench::small();
        bench.world.remove("store");
        let mut command = bench.world.command("bash");
        command.args(["-c", &format!("umask {umask}; exec {CLIENT} gcc -c a.c -o /dev/null")]);
        run(command.current_dir(bench.world.path("w")).env("ZCACHE_DIR", &bench.store));
        bench.is_right(umask);
        bench.status();
        std::thread::sleep(Duration::from_millis(1200));
        bench.stop();
        assert_eq!(fs::metadata(&bench.store).unwrap().mode() & 0o7777, 0o700, "umask {umask}");
        let mut seen = 0;
        for (path, (mode, _)) in files(&bench.store) {
            // A blob may be the very file that the compiler made; its directory keeps others out.
            let is_blob = path.starts_with("cas") && bench.store.join(&path).is_file();
            assert!(is_blob || mode & 0o077 == 0, "umask {umask}: {} has {mode:o}", path.display());
            seen += 1;
        }
        assert!(seen > 6, "{seen}");
    }
}

#[test]
fn an_open_store_of_ones_own_is_closed_to_others() {
    let bench = Bench::small();
    fs::set_permissions(&bench.store, fs::Permissions::from_mode(0o777)).unwrap();
    bench.is_right("mode 0777");
    let until = Instant::now() + Duration::from_secs(5);
    while fs::metadata(&bench.store).unwrap().mode() & 0o777 != 0o700 {
        assert!(Instant::now() < until, "others may still write");
        std::thread::sleep(Duration::from_millis(50));
    }
}
