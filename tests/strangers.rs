//! Strangers: another user of this machine can neither speak to the daemon nor put anything in the way that daemon or
//! client would use, and what they keep is for nobody else's eyes.

mod faults;
mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use faults::{daemon, socket};
use fixture::{LINKINGS, app, settle, write_macro};
use harness::{CLIENT, Effect, World, ZCACHED, assert_same, effect, files, run};
use nix::libc;

/// The user whose build it is, and the one who is in the way.
const USER: u32 = 65_533;
const STRANGER: u32 = 65_534;

/// Runs `act` in a thread that is the stranger.
fn as_stranger<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the system call, other than the C library's function, changes this thread alone, which ends here.
            let changed = unsafe {
                libc::syscall(libc::SYS_setgroups, 0, 0);
                libc::syscall(libc::SYS_setresgid, STRANGER, STRANGER, STRANGER);
                libc::syscall(libc::SYS_setresuid, STRANGER, STRANGER, STRANGER)
            };
            assert_eq!(changed, 0, "becoming the stranger");
            act()
        });
        thread.join().expect("the stranger")
    })
}

/// A world whose programs the user and the stranger can reach, and whose directories are the user's.
fn shared() -> World {
    let world = World::new();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(world.path("bin")).unwrap();
    for program in [CLIENT, ZCACHED] {
        fs::copy(program, world.path("bin").join(Path::new(program).file_name().unwrap())).unwrap();
    }
    world.write(&[("p/x.c", "int f(void) { return 1; }\n"), ("victim/precious", "precious")]);
    for name in ["store", "run", "config", "home", "p", "p/x.c", "victim", "victim/precious"] {
        chown(world.path(name), Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(world.path("victim"), fs::Permissions::from_mode(0o700)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    world
}

/// A command of the user's.
fn by_user(world: &World, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = world.command(program);
    command.uid(USER).gid(USER).env("HOME", world.path("home")).env_remove("XDG_CACHE_HOME");
    command.current_dir(world.path("p"));
    command
}

/// The user's compile, bare or not, with this environment; it must not take long.
fn compile(world: &World, cached: bool, env: &[(&str, PathBuf)]) -> Effect {
    world.remove("p/x.o");
    let mut command = by_user(world, if cached { world.path("bin/zcache-client") } else { "gcc".into() });
    command.args(cached.then_some("gcc")).args(["-c", "x.c"]).envs(env.iter().map(|(name, at)| (name, at)));
    let began = Instant::now();
    let effect = effect(&mut command, &world.path("p"));
    assert!(began.elapsed() < Duration::from_secs(20), "{env:?}: {:?}", began.elapsed());
    effect
}

/// What the stranger puts at a path that zcache uses, being faster than the user.
type Plant = fn(&Path, &World);

const PLANTS: &[(&str, Plant)] = &[
    ("a directory", |at, _| open_directory(at)),
    ("a directory with a socket", |at, world| {
        open_directory(at);
        let name = socket(world).file_name().unwrap().to_owned();
        std::mem::forget(UnixListener::bind(at.join(name)).unwrap());
    }),
    ("a link to a directory of the user's", |at, world| symlink(world.path("victim"), at).unwrap()),
    ("a link to nothing", |at, world| symlink(world.path("victim/new"), at).unwrap()),
    ("a file", |at, _| fs::write(at, "x").unwrap()),
    ("a pipe", |at, _| pipe(at)),
    ("a directory with pipes and links for every file", |at, world| {
        open_directory(at);
        let socket = socket(world);
        let stem = socket.file_stem().unwrap().to_str().unwrap();
        pipe(&at.join(format!("{stem}.trouble")));
        for name in [format!("{stem}.log"), format!("{stem}.lock"), format!("{stem}.starting"), "LOCK".into()] {
            symlink(world.path("victim/precious"), at.join(name)).unwrap();
        }
        for name in ["cas", "index", "tmp", "quarantine"] {
            symlink(world.path("victim"), at.join(name)).unwrap();
        }
    }),
];

fn open_directory(at: &Path) {
    fs::create_dir(at).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
}

fn pipe(at: &Path) {
    nix::unistd::mkfifo(at, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
}

#[test]
#[ignore = "needs root, to be two users"]
fn what_a_stranger_plants_is_not_used() {
    for place in ["XDG_RUNTIME_DIR", "ZCACHE_SOCKET", "ZCACHE_DIR", "/tmp"] {
        for (what, plant) in PLANTS {
            let what = format!("{what} at {place}");
            let world = shared();
            let common = world.path("common");
            open_directory(&common);
            fs::set_permissions(&common, fs::Permissions::from_mode(0o1777)).unwrap();
            let own = PathBuf::from(format!("/tmp/zcache-{USER}"));
            let (at, env) = match place {
                "XDG_RUNTIME_DIR" => (common.join("zcache"), vec![(place, common.clone())]),
                "ZCACHE_SOCKET" => (common.join("z"), vec![(place, common.join("z/s.sock"))]),
                "ZCACHE_DIR" => (common.join("store"), vec![(place, common.join("store"))]),
                _ => (own.clone(), vec![("XDG_RUNTIME_DIR", PathBuf::new())]),
            };
            as_stranger(|| plant(&at, &world));
            let victim = files(&world.path("victim"));
            let bare = compile(&world, false, &env);
            for _ in 0..2 {
                assert_same(&bare, &compile(&world, true, &env), &what);
            }
            assert_eq!(files(&world.path("victim")), victim, "{what}: what the links lead to is as it was");
            // What a link leads to has been looked at.
            let planted_files = if at.is_symlink() { Default::default() } else { files(&at) };
            let left: Vec<_> = planted_files.into_keys().filter(|name| owner(&at.join(name)) == USER).collect();
            assert_eq!(left, Vec::<PathBuf>::new(), "{what}: nothing of the user's is left there");
            let planted = fs::symlink_metadata(&at).is_ok_and(|meta| meta.uid() == STRANGER);
            assert!(planted, "{what}: it is not the daemon's to remove");
            assert_eq!(users_daemons(), [0; 0], "{what}");
            let _ = fs::remove_file(&own).or_else(|_| fs::remove_dir_all(&own));
        }
    }
}

fn owner(at: &Path) -> u32 {
    fs::symlink_metadata(at).map_or(u32::MAX, |meta| meta.uid())
}

/// Daemons of the user that live.
fn users_daemons() -> Vec<i32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let is = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.starts_with("Name:\tzcached\n")
            && status.contains(&format!("Uid:\t{USER}\t"))
            && !status.contains("(zombie)")
    };
    numbers.filter(is).collect()
}

/// The observer goes to the next place where another user could change it in the first.
#[test]
#[ignore = "needs root, to be two users"]
fn an_observer_that_others_could_change_is_not_loaded() {
    let world = shared();
    // The daemon has a place; the client's environment names one that is open to all.
    let env = |dir: &Path| vec![("XDG_CACHE_HOME", dir.to_owned())];
    let open = world.path("open");
    open_directory(&open);
    let cache = open.join("zcache");
    as_stranger(|| open_directory(&cache));
    let compile = |env: &[(&str, PathBuf)]| {
        world.remove("p/x.o");
        let mut command = by_user(&world, world.path("bin/zcache-client"));
        command.env_remove("ZCACHE_DIR").env("HOME", "/nonexistent");
        run(command.args(["gcc", "-c", "x.c"]).envs(env.iter().map(|(name, at)| (name, at))));
    };
    compile(&env(&open));
    assert_eq!(files(&cache).len(), 0, "nothing is put where a stranger could exchange it");
    for pid in users_daemons() {
        faults::send(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
#[ignore = "needs root, to be two users"]
fn a_stranger_cannot_speak_to_the_daemon() {
    let world = shared();
    let root = World::new();
    run(&mut root.zcache("start"));
    let at = socket(&root);
    let connected = as_stranger(|| UnixStream::connect(&at).map(drop));
    assert_eq!(connected.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let mode = |at: &Path| fs::metadata(at).unwrap().mode() & 0o777;
    assert_eq!((mode(&at), mode(at.parent().unwrap())), (0o600, 0o700));
    // Even where the user opens every door, the daemon looks who it is.
    for dir in [root.path(""), root.path("run"), root.path("run/zcache")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&at, fs::Permissions::from_mode(0o666)).unwrap();
    let heard = as_stranger(|| {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(&at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).map(|_| heard.len()).unwrap_or(0)
    });
    assert_eq!(heard, 0, "the daemon says nothing to a stranger");
    assert!(root.log().contains("another user connected"), "{}", root.log());
    // The stranger's own client does not trust it either.
    let env = [("XDG_RUNTIME_DIR", root.path("run")), ("ZCACHE_DIR", root.path("store"))];
    let bare = compile(&world, false, &env);
    assert_same(&bare, &compile(&world, true, &env), "another user's daemon");
    // Nor does root's, while the doors are open.
    fs::set_permissions(root.path("run/zcache"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!((root.total("invocations"), root.daemons().len()), (0, 1));
}

/// `sudo` that keeps the environment: what root compiles there is not for the user's daemon, and root's own has no business
/// in the user's store.
#[test]
#[ignore = "needs root, to be two users"]
fn root_in_the_users_surroundings_leaves_nothing_of_its_own_there() {
    let world = shared();
    let programs = world.path("bin/zcache-client");
    run(by_user(&world, &programs).args(["gcc", "-c", "x.c", "-o", "/dev/null"]));
    run(by_user(&world, &programs).args(["gcc", "-c", "x.c"]));
    let [daemon] = users_daemons()[..] else { panic!("{:?}", users_daemons()) };
    let common = PathBuf::from(format!("/tmp/zcache-{}", nix::unistd::getuid()));
    for runtime in [world.path("run"), PathBuf::new(), world.path("none")] {
        let root = |program: &str| {
            let mut command = world.command(program);
            command.env("HOME", world.path("home")).env("XDG_RUNTIME_DIR", &runtime).env("SUDO_UID", USER.to_string());
            command.current_dir(world.path("p"));
            command
        };
        let began = Instant::now();
        for _ in 0..2 {
            run(root(CLIENT).args(["gcc", "-c", "x.c", "-o", "root.o"]));
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{runtime:?}: {:?}", began.elapsed());
        let output = run(root(harness::ZCACHE).arg("status"));
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(said.contains("not belong to you"), "{runtime:?}: {said}");
        for dir in ["store", "run", "home", "config"] {
            let of_root: Vec<_> =
                files(&world.path(dir)).into_keys().filter(|name| owner(&world.path(dir).join(name)) == 0).collect();
            assert_eq!(of_root, Vec::<PathBuf>::new(), "{runtime:?}: {dir}");
        }
        world.remove("none");
    }
    assert_eq!(users_daemons(), [daemon], "it goes on");
    faults::send(daemon, nix::sys::signal::Signal::SIGKILL);
    // What root's client noted for itself.
    let env = |name: &str| (name == "ZCACHE_DIR").then(|| world.path("store").into());
    let socket = zcache_proto::endpoint::Endpoint::from_env(env, 0).socket;
    assert!(socket.starts_with(common));
    for extension in ["lock", "log", "starting", "trouble", "unasked"] {
        let _ = fs::remove_file(socket.with_extension(extension));
    }
}

/// Neither where files lie nor what they hold tells others anything, whatever the umask.
#[test]
fn what_is_kept_is_private() {
    let world = World::new();
    world.remove("store");
    fs::create_dir(world.path("store")).unwrap();
    fs::set_permissions(world.path("store"), fs::Permissions::from_mode(0o777)).unwrap();
    world.write(&[("x.c", "int f(void) { return 1; }\n")]);
    settle(&|| ());
    run(world.command("sh").args(["-c", &format!("umask 0; {CLIENT} gcc -c x.c")]));
    assert_eq!(world.total("stored"), 1, "{}", world.log());
    let mode = |at: &str| fs::metadata(world.path(at)).unwrap().mode() & 0o777;
    assert_eq!((mode("store"), mode("run/zcache")), (0o700, 0o700));
    for dir in ["store", "run/zcache"] {
        for (name, (mode, _)) in files(&world.path(dir)) {
            // A blob shares its inode with the build's own file where it is linked; the directories above keep it in.
            let is_blob = name.starts_with("cas") || name.to_string_lossy().starts_with("observer-");
            assert!(is_blob || mode & 0o077 == 0, "{dir}/{}: {mode:o}", name.display());
        }
    }
}

#[test]
fn no_secret_is_written_down() {
    const SECRET: &str = "hunter2-7f3a91c4e8d25b60-correct-horse";
    let world = World::new();
    // Read by a macro, whose answer is its length, and by nobody. What is looked for as a path is kept as one.
    let body = "std::env::var(\"API_TOKEN\").unwrap_or_default().len().to_string()";
    write_macro(&world, body, LINKINGS[0]);
    world.write(&[("p/x.c", "int f(void) { return 1; }\n")]);
    settle(&|| ());
    let mut gcc = world.command(CLIENT);
    gcc.args(["gcc", "-c", "x.c", "-o", "x.o"]).current_dir(world.path("p"));
    let variables = ["API_TOKEN", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, SECRET));
    for command in [&mut app(&world, true), &mut gcc] {
        run(command.envs(variables).env("ZCACHE_LOG", "trace"));
    }
    assert_eq!(world.total("stored"), 2, "{}", world.log());
    let pid = daemon(&world);
    let texts = [
        ("the log", world.log().into_bytes()),
        ("the status", run(&mut world.zcache("status --json")).stdout),
        ("the environment", fs::read(format!("/proc/{pid}/environ")).unwrap()),
    ];
    // All that it had in mind is on disk then.
    run(&mut world.zcache("stop"));
    let kept = ["store", "run"].into_iter().flat_map(|dir| files(&world.path(dir)));
    let kept = kept.map(|(name, (_, bytes))| (name.display().to_string(), bytes));
    for (name, bytes) in texts.map(|(name, bytes)| (name.to_owned(), bytes)).into_iter().chain(kept) {
        // What is packed keeps in one piece what it has not seen before.
        let at = bytes.windows(SECRET.len()).position(|part| part == SECRET.as_bytes());
        let around = at.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(60)..at + 60]).into_owned());
        assert_eq!(around, None, "{name}");
    }
}
