//! File systems: a store and outputs on kinds of their own, with and without links, modes and room for each other's inodes,
//! and one store by several paths. What is served is whole, and a second daemon is refused with the reason.

mod fixture;
mod harness;
mod storage;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use harness::{World, run};
use storage::{Bench, Mount, number, refused};

/// A mount at a directory of the world's: what `mount` is told, in which `{}` is the world.
type Mounted = (&'static str, &'static str);

const TMPFS: &str = "-t tmpfs -o size=100m,mode=700 none";
const OVERLAY: &str = "-t overlay -o lowerdir={}/lower,upperdir={}/disk/upper,workdir={}/disk/work none";

/// What is mounted, and where the store is.
const ROWS: &[(&str, &str, &[Mounted])] = &[
    ("a store on tmpfs, outputs elsewhere", "store", &[("store", TMPFS)]),
    ("outputs on tmpfs, the store elsewhere", "store", &[("w/out", TMPFS)]),
    ("each on a tmpfs of its own", "store", &[("store", TMPFS), ("w/out", TMPFS)]),
    ("a store on an overlay", "store", &[("disk", TMPFS), ("store", OVERLAY)]),
    ("outputs on an overlay", "store", &[("disk", TMPFS), ("w/out", OVERLAY)]),
    ("all on one overlay", "w/store", &[("disk", TMPFS), ("w", OVERLAY)]),
    ("another mount of the same file system", "store", &[("w/out", "--bind {}/plain")]),
];

#[test]
#[ignore = "needs root: mounts"]
fn stores_and_outputs_apart() {
    for (what, store, mounts) in ROWS {
        let world = World::new();
        world.write(&[("lower/.keep", ""), ("plain/.keep", ""), ("disk/.keep", ""), ("w/out/.keep", "")]);
        let top = world.path("").display().to_string();
        let mut mounted = Vec::new();
        for (at, how) in *mounts {
            mounted.push(Mount::new(&how.replace("{}", top.trim_end_matches('/')), &world.path(at)));
            if *at == "disk" {
                world.write(&[("disk/upper/.keep", ""), ("disk/work/.keep", "")]);
            }
        }
        let mut bench = Bench::apart(world);
        bench.store = bench.world.path(store);
        serves(&bench, what);
        // Before the world goes, which they are in.
        drop(mounted);
    }
}

/// No links, no modes, no owners: what a stick or another system's disk has.
#[test]
#[ignore = "needs root: mounts; needs exfat-fuse and exfatprogs"]
fn a_store_on_a_file_system_without_links_and_modes() {
    for (what, options) in [("open to all", "umask=0"), ("private", "umask=077")] {
        let world = World::new();
        world.write(&[("w/out/.keep", "")]);
        let image = world.path("image");
        run(Command::new("truncate").args(["-s", "64M"]).arg(&image));
        run(Command::new("mkfs.exfat").arg(&image));
        let device = harness::stdout(Command::new("losetup").args(["-f", "--show"]).arg(&image));
        let store = world.path("store");
        run(Command::new("mount.exfat-fuse").args(["-o", options, &device]).arg(&store));
        let bench = Bench::apart(world);
        let report = match what {
            "private" => {
                serves(&bench, what);
                String::new()
            }
            _ => {
                // Others could put blobs there.
                bench.is_right(what);
                bench.is_right(what);
                bench.report().split_whitespace().collect::<Vec<_>>().join(" ")
            }
        };
        let _ = bench.world.zcache("stop").output();
        let _ = Command::new("umount").arg("-l").arg(&store).status();
        let _ = Command::new("losetup").args(["-d", &device]).status();
        assert!(what == "private" || report.contains("others can write"), "{report}");
    }
}

/// Builds, serves, serves after a restart, and serves whole though the outputs were written into.
fn serves(bench: &Bench, what: &str) {
    bench.serves_again(what);
    for round in 0..2 {
        assert_eq!(bench.counted(what).hits, 3, "{what}, {round}: {}", bench.world.log());
        let object = bench.world.path("w/out/big.c.o");
        let length = fs::metadata(&object).unwrap().len() as usize;
        fs::write(&object, vec![7; length]).unwrap();
        bench.stop();
    }
    let report = bench.status();
    let lost = number(&report["totals"]["errors"])
        + refused(&report, "store_failed")
        + number(&report["cache"]["quarantined"]);
    assert_eq!(lost, 0, "{what}: {report}\n{}", bench.world.log());
    run(bench.world.zcache("verify").env("ZCACHE_DIR", &bench.store));
}

/// One store by another path has another socket, and one daemon all the same.
#[test]
fn a_store_by_another_path_is_refused_and_builds_pass() {
    let mut bench = Bench::small();
    bench.is_right("the first");
    symlink("store", bench.world.path("linked")).unwrap();
    let first = bench.store.clone();
    let paths = [
        bench.world.path("linked"),
        PathBuf::from(format!("{}/", first.display())),
        PathBuf::from(format!("{}/../store", first.display())),
    ];
    for path in paths {
        bench.store = path.clone();
        for _ in 0..2 {
            bench.is_right(&format!("{}", path.display()));
        }
        let text = bench.report();
        assert!(text.contains("in use"), "{}: {text}", path.display());
        assert_eq!(bench.world.daemons().len(), 1, "{}", path.display());
    }
    bench.store = first;
    assert_eq!(bench.counted("the first again").hits, 2);
    // Once it is gone another may have the store, by whatever path.
    bench.stop();
    bench.store = bench.world.path("linked");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let _ = fs::remove_dir_all(bench.world.path("run/zcache"));
    assert_eq!(bench.counted("by a link").hits, 2, "{}", bench.world.log());
}

/// Daemons by hand, a dozen at once, for one store by sockets of their own: one gets it.
#[test]
fn a_dozen_daemons_for_one_store() {
    let bench = Bench::small();
    let mut children: Vec<_> = (0..12)
        .map(|n| {
            let dir = bench.world.path(&format!("run{n}"));
            fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
            let mut command = bench.world.command(harness::ZCACHED);
            command.env("ZCACHE_SOCKET", dir.join("z.sock")).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let ended = children.iter_mut().filter_map(|child| child.try_wait().unwrap()).collect::<Vec<_>>();
    assert_eq!(ended.len(), 11);
    assert!(ended.iter().all(|status| status.code() == Some(1)), "{ended:?}");
    for mut child in children {
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            continue;
        }
        let output = child.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another daemon"));
    }
    assert_eq!(bench.counted("afterwards").misses, 2);
}
