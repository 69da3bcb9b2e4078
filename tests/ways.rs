//! Ways: what leads a build's compilers through zcache by variables and links named like compilers: `zcache env`, and
//! `zcache run` where its command is one that no guide can enter.

mod harness;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{CLIENT, World, ZCACHE, run, stdout};

const WRAPPER: &str = "RUSTC_WRAPPER";

/// `script` in a shell, with `zcache` as its first argument.
fn shell(world: &World, script: &str) -> Command {
    let mut command = world.command("sh");
    command.args(["-c", script, "sh", ZCACHE]);
    command
}

/// The variables that `env -0` printed.
fn variables(output: &Output) -> BTreeMap<String, OsString> {
    let pairs = output.stdout.split(|&b| b == 0).filter_map(|pair| {
        let middle = pair.iter().position(|&b| b == b'=')?;
        Some((String::from_utf8_lossy(&pair[..middle]).into(), OsStr::from_bytes(&pair[middle + 1..]).to_owned()))
    });
    pairs.collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn client() -> PathBuf {
    fs::canonicalize(CLIENT).unwrap()
}

/// The only directory of links in this world.
fn links(world: &World) -> PathBuf {
    let all: Vec<_> = fs::read_dir(world.path("data/zcache/links")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| text(e.unwrap().file_name().as_bytes())).collect();
    names.sort();
    names
}

/// `start`, a static program that becomes the command it is given: no guide can enter it.
fn static_start(world: &World) {
    let source = "#include <unistd.h>\nint main(int c, char **v) { execvp(v[1], v + 1); return 127; }\n";
    world.write(&[("start.c", source)]);
    run(world.command("gcc").args(["-static", "start.c", "-o", "start"]));
}

/// PATH with one directory more at its front.
fn path_with(dir: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap();
    std::env::join_paths([dir.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

#[test]
fn a_shell_takes_the_variables_in_whatever_is_in_them() {
    let world = World::new();
    let data = world.path("o'd'd $(false) \"`x`\" *\n\\");
    let odd = world.path("d").join(OsStr::from_bytes(b"\xff 'bin'"));
    let mut command = shell(&world, "eval \"$(\"$1\" env)\" && env -0");
    let path = path_with(&odd);
    let got = variables(&run(command.env("XDG_DATA_HOME", &data).env("PATH", &path)));
    let wrapper = Path::new(&got[WRAPPER]);
    assert!(wrapper.starts_with(data.join("zcache/links")) && wrapper.ends_with("wrapper/sccache"), "{wrapper:?}");
    assert_eq!(fs::canonicalize(wrapper).unwrap(), client());
    let first = wrapper.parent().unwrap().with_file_name("bin");
    let expected = [first.as_os_str().as_bytes(), b":", path.as_bytes()].concat();
    assert_eq!(got["PATH"].as_bytes(), expected);
    for name in ["C", "CXX", "OBJC", "OBJCXX"] {
        assert_eq!(got[&format!("CMAKE_{name}_COMPILER_LAUNCHER")], client());
    }
    assert_eq!(got["CC_KNOWN_WRAPPER_CUSTOM"], "zcache-client");
    assert!(!got.contains_key("CC") && !got.contains_key("CXX"));
    assert!(world.daemons().is_empty());
}

#[test]
fn links_are_named_like_the_compilers_of_path() {
    let world = World::new();
    for name in ["gcc", "gcc-12", "x86_64-linux-gnu-gcc-12", "musl-gcc", "zig", "gcc-ar", "my-cc", "ccache"] {
        world.script(&format!("a/{name}"), "#!/bin/sh\n");
    }
    world.script("b/clang++-14", "#!/bin/sh\n");
    world.script("relative/clang", "#!/bin/sh\n");
    world.write(&[("b/clang-14", "cannot be run")]);
    fs::create_dir(world.path("b/c99")).unwrap();
    symlink("gcc", world.path("a/c++")).unwrap();
    symlink("gone", world.path("a/g++")).unwrap();
    symlink(CLIENT, world.path("a/cc")).unwrap();
    let path = format!("{}::relative:{}", world.path("a").display(), world.path("b").display());
    let printed = stdout(world.zcache("env").env("PATH", &path));
    let links = links(&world);
    let expected = ["c++", "clang++-14", "gcc", "gcc-12", "musl-gcc", "x86_64-linux-gnu-gcc-12", "zig"];
    assert_eq!(names(&links.join("bin")), expected);
    assert_eq!(
        (names(&links.join("wrapper")), names(&links)),
        (vec!["sccache".into()], vec!["bin".into(), "wrapper".into()])
    );
    assert!(printed.contains(&format!("PATH='{}:{path}'", links.join("bin").display())), "{printed}");
    for (file, (mode, content)) in harness::files(&world.path("data")) {
        match mode {
            0o777 => assert_eq!(content, client().as_os_str().as_bytes(), "{file:?}"),
            _ => assert_eq!(mode, 0o700, "{file:?}"),
        }
    }
}

#[test]
fn a_second_time_changes_nothing() {
    let world = World::new();
    static_start(&world);
    let script = "eval \"$(\"$1\" env)\"; first=$(\"$1\" env); eval \"$first\"; PATH=/before:$PATH
        [ \"$(\"$1\" run -- ./start sh -c 'echo \"$PATH\"')\" = \"$(echo \"$PATH\" | sed 's|^/before:\\([^:]*\\)|\\1:/before|')\" ]
        PATH=${PATH#/before:}; second=$(\"$1\" env); [ \"$first\" = \"$second\" ] && printf %s \"$PATH\"";
    let path = stdout(&mut shell(&world, script));
    let bin = links(&world).join("bin");
    assert_eq!(std::env::split_paths(&path).filter(|dir| *dir == bin).count(), 1, "{path}");
    // A compiler that is installed later has its link; the links of before have no place any more.
    world.script("more/clang-99", "#!/bin/sh\n");
    let later = stdout(
        shell(&world, "eval \"$(\"$1\" env)\"; printf %s \"$PATH\"")
            .env("PATH", format!("{path}:{}", world.path("more").display())),
    );
    let entries: Vec<_> = std::env::split_paths(&later).collect();
    assert!(entries[0].join("clang-99").exists() && !entries.contains(&bin), "{later}");
}

#[test]
fn a_command_that_is_static_finds_links_where_there_are_compilers() {
    let world = World::new();
    static_start(&world);
    let look = "command -v cc; command -v nonexistent-clang; echo \"$RUSTC_WRAPPER\"";
    let output = run(world.command(ZCACHE).args(["run", "--", "./start", "sh", "-c", look]));
    let said = text(&output.stderr);
    assert_eq!(said.lines().filter(|line| line.contains("links in PATH, since nothing")).count(), 1, "{said}");
    let links = links(&world);
    let expected = format!("{}\n{}\n", links.join("bin/cc").display(), links.join("wrapper/sccache").display());
    assert_eq!(text(&output.stdout), expected);
    // A command that is a compiler itself is no exception.
    let version = stdout(world.command("cc").arg("--version"));
    assert_eq!(stdout(&mut world.zcache("run cc --version")), version);
    assert!(world.total("invocations") >= 1);
    assert!(links.join("bin/cc").exists() && !links.join("bin/nonexistent-clang").exists());
}

#[test]
fn links_that_are_gone_or_wrong_are_mended() {
    let world = World::new();
    let first = stdout(&mut world.zcache("env"));
    let links = links(&world);
    let files = harness::files(&links);
    fs::remove_file(links.join("bin/cc")).unwrap();
    fs::remove_file(links.join("bin/gcc")).unwrap();
    symlink("/bin/true", links.join("bin/gcc")).unwrap();
    fs::remove_dir_all(links.join("wrapper")).unwrap();
    assert_eq!(stdout(&mut world.zcache("env")), first);
    assert_eq!(harness::files(&links), files);
    // Where others can write, they could put compilers of theirs.
    fs::set_permissions(links.join("bin"), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = world.zcache("env").output().unwrap();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(text(&refused.stderr).contains("you alone"), "{}", text(&refused.stderr));
}

#[test]
fn without_a_home_the_links_are_in_the_store() {
    let world = World::new();
    let printed = stdout(world.zcache("env").env_remove("XDG_DATA_HOME").env_remove("HOME"));
    let place = world.path("store/links");
    assert!(printed.contains(&format!("{WRAPPER}='{}/", place.display())), "{printed}");
    let printed = stdout(world.zcache("env").env("XDG_DATA_HOME", "relative").env("HOME", world.path("home")));
    let place = world.path("home/.local/share/zcache/links");
    assert!(printed.contains(&format!("{WRAPPER}='{}/", place.display())), "{printed}");
}

#[test]
fn without_links_the_command_runs_all_the_same() {
    let world = World::new();
    static_start(&world);
    world.write(&[("data", "a file")]);
    let show = "echo \"$RUSTC_WRAPPER\"; command -v cc; echo \"$CMAKE_C_COMPILER_LAUNCHER\"; exit 3";
    let output = world.command(ZCACHE).args(["run", "./start", "sh", "-c", show]).output().unwrap();
    let cc = stdout(world.command("sh").args(["-c", "command -v cc"]));
    assert_eq!(text(&output.stdout), format!("{}\n{cc}\n\n", client().display()));
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    let notes = said.lines().filter(|line| line.starts_with("zcache: only rustc ")).count();
    assert_eq!((notes, said.lines().count()), (1, 3), "{said}");
    let refused = world.zcache("env").output().unwrap();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
}

#[test]
fn a_wrapper_that_gives_way_is_named() {
    let world = World::new();
    let said = |command: &mut Command| text(&run(command).stderr);
    world.script("bin/ccache", "#!/bin/sh\nexec \"$@\"\n");
    symlink(CLIENT, world.path("bin/sccache")).unwrap();
    let path = path_with(&world.path("bin"));
    static_start(&world);
    for verb in ["env", "run ./start true"] {
        let mut command = world.zcache(verb);
        command.env("PATH", &path).env("CMAKE_C_COMPILER_LAUNCHER", "ccache").env(WRAPPER, "/opt/wrapper");
        let said = said(command.env("CMAKE_CXX_COMPILER_LAUNCHER", "sccache").env("CMAKE_OBJC_COMPILER_LAUNCHER", ""));
        let notes: Vec<_> = said.lines().filter(|line| line.contains("takes the place of")).collect();
        assert_eq!(notes.len(), 2, "{said}");
        assert!(notes[0].ends_with("of RUSTC_WRAPPER=/opt/wrapper"), "{said}");
        assert!(notes[1].ends_with("of CMAKE_C_COMPILER_LAUNCHER=ccache"), "{said}");
    }
    // What zcache set itself is no news.
    let said = said(&mut shell(&world, "eval \"$(\"$1\" env)\"; \"$1\" env >/dev/null"));
    assert_eq!(said, "");
}

#[test]
fn a_build_script_goes_through_it() {
    let world = World::new();
    world.write(&[
        ("p/Cargo.toml", "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n"),
        (
            "p/build.rs",
            "fn main() {
    let out = std::env::var(\"OUT_DIR\").unwrap();
    // As the cc crate does for a wrapper of this name.
    let wrapper = std::env::var(\"RUSTC_WRAPPER\").unwrap();
    assert!(wrapper.ends_with(\"/sccache\"));
    let run = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        assert!(command.args(arguments).status().unwrap().success(), \"{command:?}\");
    };
    run(&wrapper, &[\"cc\", \"-c\", \"seven.c\", \"-o\", &format!(\"{out}/seven.o\")]);
    run(\"ar\", &[\"rcs\", &format!(\"{out}/libseven.a\"), &format!(\"{out}/seven.o\")]);
    println!(\"cargo:rustc-link-search=native={out}\\ncargo:rustc-link-lib=static=seven\");
}",
        ),
        ("p/seven.c", "int seven(void) { return 7; }"),
        ("p/src/main.rs", "extern \"C\" { fn seven() -> i32; }\nfn main() { print!(\"{}\", unsafe { seven() }) }"),
    ]);
    static_start(&world);
    let build = || run(world.zcache("run -- ../start cargo build").current_dir(world.path("p")));
    build();
    assert_eq!(stdout(&mut world.command(world.path("p/target/debug/p"))), "7");
    world.remove("p/target");
    let before = world.status();
    build();
    let counts = world.since(&before);
    assert!(counts.hits >= 2, "{counts:?} {}", world.log());
    assert_eq!(stdout(&mut world.command(world.path("p/target/debug/p"))), "7");
}

#[test]
#[ignore = "needs make"]
fn make_goes_through_it() {
    let world = World::new();
    static_start(&world);
    world.write(&[("m/x.c", "int main(void) { return 0; }"), ("m/Makefile", "x: x.o\n")]);
    run(world.zcache("run -- ../start make").current_dir(world.path("m")));
    run(&mut world.command(world.path("m/x")));
    assert!(world.total("invocations") >= 2, "{}", world.status());
}

#[test]
#[ignore = "needs cmake and make"]
fn cmake_goes_through_it() {
    let world = World::new();
    world.write(&[
        ("c/CMakeLists.txt", "cmake_minimum_required(VERSION 3.17)\nproject(c C CXX)\nadd_executable(c c.c d.cpp)\n"),
        ("c/c.c", "int d(void); int main(void) { return d(); }"),
        ("c/d.cpp", "extern \"C\" int d(void) { return 0; }"),
    ]);
    static_start(&world);
    run(&mut world.zcache("run -- ./start cmake -S c -B b"));
    let cached = fs::read_to_string(world.path("b/CMakeCache.txt")).unwrap();
    assert!(cached.contains(&format!("CMAKE_C_COMPILER_LAUNCHER:STRING={}", client().display())), "{cached}");
    // What cmake wrote down leads through zcache from here on.
    let before = world.total("invocations");
    run(world.command("cmake").args(["--build", "b"]));
    run(&mut world.command(world.path("b/c")));
    assert!(world.total("invocations") >= before + 2);
}

#[test]
fn links_named_like_compilers_stand_for_them() {
    let world = World::new();
    world.write(&[("m.c", "int main(void) { return 0; }"), ("links/.keep", "")]);
    let machine = stdout(world.command("gcc").arg("-dumpmachine"));
    let version = stdout(world.command("gcc").arg("-dumpversion"));
    let names =
        ["cc", "gcc", &format!("{machine}-gcc"), &format!("gcc-{version}"), &format!("{machine}-gcc-{version}")];
    let path = std::env::var("PATH").unwrap();
    let exists = |name: &&str| path.split(':').any(|dir| Path::new(dir).join(name).exists());
    let names: Vec<&str> = names.into_iter().filter(exists).collect();
    assert!(names.len() > 2, "{names:?}");
    let links = format!("{}:{path}", world.path("links").display());
    for name in names {
        symlink(CLIENT, world.path("links").join(name)).unwrap();
        let before = world.status();
        // By its name along PATH, by its path, and by the client in front of either.
        let by_path = world.path("links").join(name).display().to_string();
        for line in [name.to_owned(), by_path.clone(), format!("{CLIENT} {name}"), format!("{CLIENT} {by_path}")] {
            world.remove("m.o");
            run(world
                .command("sh")
                .args(["-c", &format!("{line} -c m.c -o m.o && {line} m.o -o m && ./m")])
                .env("PATH", &links));
        }
        let counts = world.since(&before);
        assert!(counts.hits == 3 && counts.misses == 1 && counts.bypasses == 4, "{name}: {counts:?}\n{}", world.log());
    }
}
