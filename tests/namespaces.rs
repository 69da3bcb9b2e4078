//! Namespaces: a client, a daemon or a part of the compiler to which paths mean other files than to the rest, and users and
//! processes that cannot be seen from where the daemon is. Whatever cannot be told apart by its paths is bypassed.

mod fixture;
mod harness;
mod storage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fixture::{reasons, settle};
use harness::{CLIENT, Counts, Effect, World, ZCACHE, ZCACHED, assert_same, effect, files, run};
use serde_json::Value;
use storage::Mount;

/// How a compile's command gets where it runs: a script, of which `"$@"` is the compile.
type Way<'a> = (&'a str, &'a str);

/// Other headers than outside, in a mount namespace of their own.
const OTHER_MOUNTS: Way<'_> =
    ("a mount namespace", "exec unshare -m sh -c 'mount --bind other inc; exec \"$@\"' sh \"$@\"");

/// A source that tells which headers it got: `inc/` holds 1, `other/` 2 and one header more.
fn world() -> World {
    let world = World::new();
    settle(&|| {
        world.write(&[
            ("p/x.c", "#include \"v.h\"\n#if __has_include(\"opt.h\")\nint o;\n#endif\nint f(void) { return V; }\n"),
            ("p/inc/v.h", "#define V 1\n"),
            ("p/other/v.h", "#define V 2\n"),
            ("p/other/opt.h", ""),
            ("p/out/.keep", ""),
        ]);
    });
    world
}

/// What runs `command` in `p/`, by a way. It has to end in time.
fn by(world: &World, (_, way): Way<'_>, command: &[&str]) -> Command {
    let mut shell = world.command("timeout");
    shell.args(["30", "sh", "-c", way, "sh"]).args(command).current_dir(world.path("p"));
    shell
}

fn gcc(world: &World, way: Way<'_>, client: Option<&str>) -> Effect {
    world.remove("p/out/x.o");
    let command: Vec<&str> = client.into_iter().chain("gcc -Iinc -c x.c -o out/x.o".split(' ')).collect();
    effect(&mut by(world, way, &command), &world.path("p/out"))
}

const HERE: Way<'_> = ("here", "exec \"$@\"");

/// Compiles by a way, bare and `times` times through zcache: all the same. What the daemon counted.
fn alike(world: &World, way: Way<'_>, times: usize) -> Counts {
    let bare = gcc(world, way, None);
    assert_eq!(bare.code, Some(0), "{}: {}", way.0, bare.stderr);
    let before = world.status();
    for _ in 0..times {
        assert_same(&bare, &gcc(world, way, Some(CLIENT)), &format!("{}\n{}", way.0, world.log()));
        // What was committed before the question is stored.
        world.status();
    }
    world.since(&before)
}

/// The same where a result is known to everyone outside; then every one of these is bypassed, for this reason.
fn is_bypassed(world: &World, way: Way<'_>, reason: &str) {
    assert_eq!(alike(world, HERE, 2).misses, 1, "{}", reasons(world));
    let before = world.status()["bypass_reasons"][reason].as_u64().unwrap_or(0);
    assert_eq!(alike(world, way, 2), Counts { hits: 0, misses: 0, bypasses: 2 }, "{}: {}", way.0, world.log());
    assert_eq!(world.status()["bypass_reasons"][reason], before + 2, "{}: {}", way.0, world.status());
    assert_eq!(alike(world, HERE, 1).hits, 1, "{}: what was known before", way.0);
}

#[test]
#[ignore = "needs root: mounts"]
fn a_client_among_other_mounts_is_bypassed() {
    let ways = [
        OTHER_MOUNTS,
        (
            "with its own processes",
            "exec unshare -m -p -f --mount-proc sh -c 'mount --bind other inc; exec \"$@\"' sh \"$@\"",
        ),
        ("as another root", "exec unshare -U -r -m sh -c 'mount --bind other inc; exec \"$@\"' sh \"$@\""),
    ];
    for way in ways {
        is_bypassed(&world(), way, "other_namespace");
    }
}

/// The root directory again, by another mount below which there are other headers. Neither inode nor namespace tells.
#[test]
#[ignore = "needs root: mounts"]
fn a_client_in_another_root_is_bypassed() {
    for with_proc in [true, false] {
        let world = world();
        let root = world.path("root");
        let _root = Mount::new("--bind /", &root);
        let inside = |path: &str| root.join(world.path(path).strip_prefix("/").unwrap());
        let _dev = Mount::new("--bind /dev", &root.join("dev"));
        let _proc = with_proc.then(|| Mount::new("-t proc none", &root.join("proc")));
        let _other = Mount::new(&format!("--bind {}", world.path("p/other").display()), &inside("p/inc"));
        let way = ("a root", "exec chroot ../root sh -c 'cd \"$0\" && exec \"$@\"' \"$PWD\" \"$@\"");
        is_bypassed(&world, way, "other_namespace");
    }
}

#[test]
#[ignore = "needs root: mounts"]
fn a_directory_below_a_later_mount_is_not_taken_for_it() {
    let world = world();
    let source = fs::read_to_string(world.path("p/x.c")).unwrap();
    settle(&|| world.write(&[("q/x.c", &source), ("q/inc/v.h", "#define V 3\n"), ("q/out/.keep", "")]));
    // What the mount brings is known by the same path.
    let brought = ("brought", "mount --bind ../q ../p; (cd ../p && \"$@\"); end=$?; umount -l ../p; exit $end");
    let known = gcc(&world, brought, Some(CLIENT));
    assert_eq!((known.code, world.total("stored")), (Some(0), 1), "{}", world.log());
    let hidden = ("hidden", "mount --bind ../q ../p; \"$@\"; end=$?; umount -l ../p; exit $end");
    is_bypassed(&world, hidden, "directory_gone");
}

/// Namespaces that change no path: what is known is served, and what cannot be watched is not kept.
#[test]
#[ignore = "needs root: namespaces"]
fn namespaces_that_leave_paths_alone_are_served() {
    for (way, is_watched) in [
        (("another user's number", "exec unshare -U \"$@\""), true),
        (("a number of root's", "exec unshare -U -r \"$@\""), true),
        (("no network", "exec unshare -n \"$@\""), true),
        (("another host name", "exec unshare -u -i \"$@\""), true),
        (("processes that /proc does not show", "exec unshare -p -f \"$@\""), false),
        (("root's directory by another name", "exec chroot / sh -c 'cd \"$0\" && exec \"$@\"' \"$PWD\" \"$@\""), true),
    ] {
        let world = world();
        run(&mut world.zcache("start"));
        let counts = alike(&world, way, 2);
        assert_eq!(
            (counts.hits, counts.misses),
            if is_watched { (1, 1) } else { (0, 2) },
            "{}: {}",
            way.0,
            world.log()
        );
        assert_eq!(reasons(&world)["client"], if is_watched { Value::Null } else { 2.into() }, "{}", reasons(&world));
        assert_eq!(alike(&world, HERE, 2).hits, if is_watched { 2 } else { 1 }, "{}", way.0);
        assert_eq!(alike(&world, way, 1).hits, 1, "{}: {}", way.0, world.log());
        settle(&|| world.write(&[("p/inc/v.h", "#define V 4\n")]));
        assert_eq!(alike(&world, way, 1).hits, 0, "{}", way.0);
    }
}

/// What starts the compiler goes elsewhere, below a client that stays here.
#[test]
#[ignore = "needs root: mounts"]
fn a_compiler_that_is_started_elsewhere_is_not_stored() {
    let raw = "#define _GNU_SOURCE\n#include <sys/mount.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n
        int main(int n, char **a) {
            syscall(SYS_unshare, 0x20000);
            mount(0, \"/\", 0, MS_REC | MS_PRIVATE, 0);
            if (mount(\"other\", \"inc\", 0, MS_BIND, 0)) return 9;
            a[0] = \"gcc\";
            execvp(a[0], a);
        }";
    let mount = "mount --bind other inc; exec gcc \"$@\"";
    for (what, body) in [
        ("by a program", format!("exec unshare -m sh -c '{mount}' gcc \"$@\"")),
        ("by a child", format!("unshare -m -f sh -c '{mount}' gcc \"$@\"")),
        ("with other processes", format!("exec unshare -m -p -f --mount-proc sh -c '{mount}' gcc \"$@\"")),
        ("with another user", format!("exec unshare -U -r -m sh -c '{mount}' gcc \"$@\"")),
        ("by system calls of its own", "exec ./raw \"$@\"".to_owned()),
        (
            "in another root",
            "cd out; exec chroot ../../root sh -c 'cd \"$0\"; exec gcc \"$@\"' \"${PWD%/out}\" \"$@\"".to_owned(),
        ),
    ] {
        let world = world();
        // Nothing of ours is there, so a loader that looked for it would complain.
        let root = world.path("root");
        let _root = Mount::new("--bind /", &root);
        let inside = |path: &str| root.join(world.path(path).strip_prefix("/").unwrap());
        let _store = Mount::new("-t tmpfs none", &inside("store"));
        let _other = Mount::new(&format!("--bind {}", world.path("p/other").display()), &inside("p/inc"));
        world.write(&[("raw.c", raw)]);
        run(world.command("gcc").args(["raw.c", "-o", "p/raw"]));
        world.script("p/bin/gcc", &format!("#!/bin/sh\nPATH=${{PATH#*:}}\n{body}\n"));
        let way = (what, "export PATH=$PWD/bin:$PATH; exec \"$@\"");
        settle(&|| world.remove("p/other/opt.h"));
        assert_eq!(alike(&world, way, 2), Counts { hits: 0, misses: 2, bypasses: 0 }, "{what}: {}", world.log());
        assert_eq!(reasons(&world)["other_namespace"], 2, "{what}: {}\n{}", reasons(&world), world.log());
        settle(&|| world.write(&[("p/other/opt.h", "")]));
        assert_eq!(alike(&world, way, 2).hits, 0, "{what}");
    }
}

/// A daemon that began elsewhere has no say here.
#[test]
#[ignore = "needs root: mounts"]
fn a_daemon_among_other_mounts_serves_those_beside_it_alone() {
    let world = world();
    run(&mut by(&world, OTHER_MOUNTS, &[ZCACHE, "start"]));
    let counts = alike(&world, HERE, 2);
    assert_eq!(counts, Counts { hits: 0, misses: 0, bypasses: 2 }, "{}", world.log());
    // Among its own mounts it is one like any other.
    let pid = world.daemons()[0].to_string();
    let beside = format!("exec nsenter -t {pid} -m sh -c 'cd \"$0\"; exec \"$@\"' \"$PWD\" \"$@\"");
    assert_eq!(alike(&world, ("beside", &beside), 2).hits, 1, "{}", world.log());
    assert_eq!(world.status()["bypass_reasons"]["other_namespace"], 2);
}

/// Numbers of processes mean nothing to a daemon whose /proc is another's.
#[test]
#[ignore = "needs root: namespaces"]
fn a_daemon_that_cannot_see_its_clients_serves_none() {
    let world = world();
    let script = format!("{ZCACHE} start; {CLIENT} gcc -Iinc -c x.c -o out/x.o; touch ready; sleep 30");
    let mut away = world.command("unshare");
    away.args(["-p", "-f", "--kill-child", "sh", "-c", &script]).current_dir(world.path("p"));
    let mut away = away.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !world.path("p/ready").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(alike(&world, HERE, 2), Counts { hits: 0, misses: 0, bypasses: 2 }, "{}", world.log());
    assert_eq!(alike(&world, OTHER_MOUNTS, 2), Counts { hits: 0, misses: 0, bypasses: 2 }, "{}", world.log());
    assert_eq!(world.status()["bypass_reasons"]["other_namespace"], 5, "{}", world.status());
    away.kill().unwrap();
    away.wait().unwrap();
}

/// The user who is not root.
const USER: u32 = 65_533;

/// Another user with this one's environment: the daemon is not his to ask, and nothing of his is left in the way.
#[test]
#[ignore = "needs root, to be two users"]
fn another_users_environment_is_not_used() {
    let own = format!("PATH=/usr/bin:/bin exec setpriv --reuid={USER} --regid={USER} --clear-groups \"$@\"");
    let shared = |owner: u32| {
        let world = world();
        let copies = [CLIENT, ZCACHE, ZCACHED].map(|program| {
            let copy = world.path(Path::new(program).file_name().unwrap().to_str().unwrap());
            fs::copy(program, &copy).unwrap();
            copy.display().to_string()
        });
        for dir in ["store", "run", "home", "p/out"] {
            chown(world.path(dir), Some(owner), Some(owner)).unwrap();
        }
        for dir in ["", "p/out", "config"] {
            fs::set_permissions(world.path(dir), fs::Permissions::from_mode(0o777)).unwrap();
        }
        (world, copies)
    };
    let said = |world: &World, way: Way<'_>, zcache: &str| {
        let output = by(world, way, &[zcache, "status"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // A user comes upon root's daemon: behind closed doors, and behind open ones.
    for mode in [0o700, 0o755] {
        let (world, [client, zcache, _]) = shared(0);
        assert_eq!(alike(&world, HERE, 2).hits, 1);
        for dir in ["run", "run/zcache", "store"] {
            fs::set_permissions(world.path(dir), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (way, before) = (("a user", own.as_str()), world.status());
        let bare = gcc(&world, way, None);
        assert_same(&bare, &gcc(&world, way, Some(&client)), &format!("a user, {mode:o}"));
        assert_eq!(world.since(&before), Counts { hits: 0, misses: 0, bypasses: 0 });
        let why = if mode == 0o755 { "does not belong to you" } else { "Permission denied" };
        assert!(said(&world, way, &zcache).contains(why), "{mode:o}: {}", said(&world, way, &zcache));
    }
    // Root comes before the user's first daemon.
    let (world, [client, zcache, _]) = shared(USER);
    let root = ("root", "exec \"$@\"");
    let bare = gcc(&world, root, None);
    assert_same(&bare, &gcc(&world, root, Some(&client)), "root");
    assert!(said(&world, root, &zcache).contains("does not belong to you"), "{}", said(&world, root, &zcache));
    assert_eq!(files(&world.path("run")).len(), 0, "root makes nothing that the user could not use");
    let way = ("the user", own.as_str());
    let bare = gcc(&world, way, None);
    for _ in 0..2 {
        assert_same(&bare, &gcc(&world, way, Some(&client)), "the user");
    }
    assert!(said(&world, way, &zcache).contains("1 hit"), "{}", said(&world, way, &zcache));
}

/// A stand-in for gcc that goes through zcache a hundred times before it compiles.
#[test]
fn a_hundred_compilers_inside_each_other() {
    const DEPTH: u64 = 100;
    for call in ["$client $0 \"$@\"", "exec $client $0 \"$@\"", "env -u ZCACHE_PARENT $client $0 \"$@\""] {
        let world = world();
        let body = format!(
            "#!/bin/sh\nif [ ${{LEFT:-0}} = 0 ]; then exec gcc \"$@\"; fi\nexport LEFT=$((LEFT - 1))\n{call}\n"
        );
        let gcc = world.script("bin/gcc", &body).display().to_string();
        run(&mut world.zcache("start"));
        let compile = |client: &str| {
            world.remove("p/out/x.o");
            let mut command = by(&world, HERE, &[if client.is_empty() { "env" } else { client }, &gcc]);
            command.args("-Iinc -c x.c -o out/x.o".split(' ')).env("LEFT", DEPTH.to_string()).env("client", client);
            effect(&mut command, &world.path("p/out"))
        };
        settle(&|| ());
        let bare = compile("");
        assert_eq!(bare.code, Some(0), "{call}: {}", bare.stderr);
        assert_same(&bare, &compile(CLIENT), &format!("{call}\n{}", world.log()));
        let status = world.status();
        assert_eq!(status["totals"]["max_depth"], DEPTH, "{call}: {status}");
        assert_eq!((&status["totals"]["errors"], world.daemons().len()), (&0.into(), 1), "{call}: {status}");
        let before = world.status();
        assert_same(&bare, &compile(CLIENT), call);
        assert_eq!(
            world.since(&before),
            Counts { hits: 1, misses: 0, bypasses: 0 },
            "{call}: {}\n{}",
            reasons(&world),
            world.log()
        );
    }
}

/// A directory that may not be looked into hides what is there: that is an error, and no absence.
#[test]
#[ignore = "needs root, to give up its rights"]
fn what_may_not_be_looked_into_is_not_absent() {
    let weak = ("a weak root", "exec setpriv --bounding-set=-dac_override,-dac_read_search \"$@\"");
    for inside in ["inc", "inc/deeper"] {
        let world = world();
        // Nothing is found there, and much is looked for.
        fs::rename(world.path("p/inc/v.h"), world.path("p/v.h")).unwrap();
        fs::create_dir(world.path("p/inc/deeper")).unwrap();
        let compile = |client: Option<&str>| {
            world.remove("p/out/x.o");
            let line = format!("gcc -I{inside} -c x.c -o out/x.o");
            let command: Vec<&str> = client.into_iter().chain(line.split(' ')).collect();
            effect(&mut by(&world, weak, &command), &world.path("p/out"))
        };
        run(&mut by(&world, weak, &[ZCACHE, "start"]));
        settle(&|| ());
        assert_eq!((compile(Some(CLIENT)).code, world.total("stored")), (Some(0), 1), "{}", world.log());
        assert_eq!((compile(Some(CLIENT)).code, world.total("hits")), (Some(0), 1), "{}", world.log());
        let mode = |mode| fs::set_permissions(world.path("p/inc"), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o000);
        let bare = compile(None);
        assert_same(&bare, &compile(Some(CLIENT)), inside);
        assert!(inside != "inc" || bare.code == Some(1), "{}", bare.stderr);
        mode(0o755);
        assert_eq!((compile(Some(CLIENT)).code, world.total("hits")), (Some(0), 2), "{}", world.log());
    }
}
