//! Guided: command lines in a directory with sources and compilers, bare and by `zcache run`. Knows the harness, not
//! what is tested with it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::harness::{Effect, World, ZCACHE, assert_same, effect, run};

/// A directory with sources, and compilers under several names.
pub fn prepare(world: &World) {
    world.write(&[
        ("p/x.c", "int f(void) { return 1; }\n"),
        ("p/y.c", "int g(void) { return 2; }\n"),
        ("p/bad.c", "int h(void) { return k; }\n"),
        ("p/x.rs", "pub fn f() {}\n"),
        ("p/bin/.keep", ""),
        ("p/a b/.keep", ""),
    ]);
    for (target, link) in
        [("/usr/bin/gcc", "p/bin/gcc"), ("/usr/bin/gcc", "p/a b/gcc"), ("/usr/bin/clang", "p/bin/clang++")]
    {
        symlink(target, world.path(link)).unwrap();
    }
    std::fs::write(world.path("p").join(OsStr::from_bytes(b"q\xff z.c")), "int q;\n").unwrap();
    // A script that stands for a compiler, one that is none by its name, and one that fails with its own name.
    world.script("p/scripts/gcc", "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n");
    world.script("p/scripts/plain-gcc", "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n");
    world.script("p/scripts/c99", "#!/bin/sh\necho \"$0: $# arguments\" >&2; exit 3\n");
    world.script("p/broken/gcc", "#!/no/such/interpreter\n");
    let source = "#include <unistd.h>\nint main(int c, char **v) { execvp(v[1], v + 1); return 127; }\n";
    world.write(&[("start.c", source)]);
    run(world.command("gcc").args(["-static", "start.c", "-o", "p/start"]));
    std::thread::sleep(std::time::Duration::from_millis(30));
}

pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    let is_there = program.is_empty() || std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    // There all that the tests need is installed, so nothing is passed over.
    assert!(is_there || std::env::var_os("CI").is_none(), "{program} is not installed; .ci/run has to see to it");
    is_there
}

/// What `sh -c script` leaves, by `zcache run` where asked. zcache's own remarks are no part of it.
pub fn does(world: &World, script: &str, cached: bool) -> Effect {
    run(world.command("sh").args(["-c", "cd p; rm -f *.o *.rlib bin/*.o five"]));
    let mut command = world.command(if cached { ZCACHE } else { "sh" });
    if cached {
        command.args(["run", "--", "sh"]);
    }
    // What `zcache run` sets is set; a time-out, since a hang is the worst that can happen.
    command.args(["-c", script]).env("CCACHE_DISABLE", "1").current_dir(world.path("p"));
    let mut effect = effect(&mut command, &world.path("p"));
    effect.stderr = effect
        .stderr
        .lines()
        .filter(|line| !line.starts_with("zcache: "))
        .fold(String::new(), |text, line| text + line + "\n");
    effect
}

/// Bare, then twice by `zcache run`, the second time from the cache.
pub fn compare(world: &World, script: &str, [hits, others]: [u64; 2]) {
    let bare = does(world, script, false);
    let counts = [1, 2].map(|round| {
        let before = world.status();
        assert_same(&bare, &does(world, script, true), &format!("{script}, round {round}"));
        world.since(&before)
    });
    let [_, warm] = counts;
    assert_eq!((warm.hits, warm.misses + warm.bypasses), (hits, others), "{script}: {counts:?}\n{}", world.log());
}

/// Runs a command line by `zcache run` in `p`; what it says besides zcache's remarks, and those.
pub fn said(world: &World, line: &str, variables: &[(&str, &str)]) -> (String, String) {
    let mut command = world.command(ZCACHE);
    command.args(["run", "--", "sh", "-c", line]).envs(variables.iter().copied()).current_dir(world.path("p"));
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    let (ours, theirs): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| line.starts_with("zcache: "));
    (text(&output.stdout) + &theirs.join("\n"), ours.join("\n"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
