//! cargo through zcache: what it builds, that it is content with what is restored, and that another checkout of the
//! same code is served.

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::{World, run, stdout};

/// A workspace with a library, a macro, a build script, a binary, an example, tests and a bench harness.
fn project(world: &World, root: &str) {
    let file = |name: &str| format!("{root}/{name}");
    let files = [
        (
            "Cargo.toml",
            "[workspace]\nmembers = ['app', 'lib', 'mac']\nresolver = '2'\n[profile.fast]\ninherits = 'release'\n",
        ),
        (
            "lib/Cargo.toml",
            "[package]\nname = 'lib'\nversion = '0.1.0'\nedition = '2021'\n[lib]\ncrate-type = ['lib', 'cdylib', 'staticlib']\n",
        ),
        (
            "lib/src/lib.rs",
            "pub fn one() -> u32 { 1 }\n#[no_mangle] pub extern \"C\" fn c_one() -> u32 { 1 }\n#[test] fn is_one() { assert_eq!(one(), 1) }\n",
        ),
        ("mac/Cargo.toml", "[package]\nname = 'mac'\nversion = '0.1.0'\nedition = '2021'\n[lib]\nproc-macro = true\n"),
        (
            "mac/src/lib.rs",
            "#[proc_macro] pub fn two(_: proc_macro::TokenStream) -> proc_macro::TokenStream { \"2u32\".parse().unwrap() }\n",
        ),
        (
            "app/Cargo.toml",
            "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n[dependencies]\nlib = { path = '../lib' }\nmac = { path = '../mac' }\n",
        ),
        (
            "app/build.rs",
            "fn main() { std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/gen.rs\", \"pub const THREE: u32 = 3;\").unwrap(); }\n",
        ),
        (
            "app/src/main.rs",
            "include!(concat!(env!(\"OUT_DIR\"), \"/gen.rs\"));\nfn main() { let unused = 0; println!(\"{} {} {THREE}\", lib::one(), mac::two!()); }\n#[test] fn t() {}\n",
        ),
        ("app/examples/ex.rs", "fn main() { println!(\"{}\", lib::one()) }\n"),
        ("app/tests/it.rs", "#[test] fn it() { assert!(env!(\"CARGO_BIN_EXE_app\").ends_with(\"app\")) }\n"),
    ];
    let files: Vec<(String, &str)> = files.iter().map(|(name, text)| (file(name), *text)).collect();
    world.write(&files.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
}

/// Builds twice from nothing; the second time everything must be a hit, print the same, and be fresh right after.
fn all_hits(world: &World, project: &str, arguments: &str) {
    let text = |output: &std::process::Output| {
        let lines = String::from_utf8_lossy(&output.stderr);
        let mut lines: Vec<_> = lines
            .lines()
            .filter(|l| !["Finished", "generated", "Blocking"].iter().any(|word| l.contains(word)))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines.join("\n")
    };
    world.remove(&format!("{project}/target"));
    let bare = text(&run(&mut world.bare_cargo(project, arguments)));
    world.remove(&format!("{project}/target"));
    assert_eq!(text(&run(&mut world.cargo(project, arguments))), bare, "miss of cargo {arguments}");
    let fresh = |what: &str| {
        let before = world.status();
        let output =
            String::from_utf8_lossy(&run(&mut world.cargo(project, &format!("{arguments} -v"))).stderr).into_owned();
        assert!(!output.contains("Compiling") && !output.contains("Checking"), "{what} of cargo {arguments}: {output}");
        assert_eq!(world.since(&before).misses, 0, "{what}");
    };
    fresh("second build after a miss");
    world.remove(&format!("{project}/target"));
    let before = world.status();
    assert_eq!(text(&run(&mut world.cargo(project, arguments))), bare, "hit of cargo {arguments}");
    let counts = world.since(&before);
    assert!(
        counts.misses == 0 && counts.bypasses == 0 && counts.hits > 0,
        "cargo {arguments}: {counts:?}\n{}",
        world.log()
    );
    fresh("second build after a hit");
}

#[test]
fn builds_in_every_profile() {
    let world = World::new();
    project(&world, "ws");
    all_hits(&world, "ws", "build");
    assert_eq!(stdout(&mut world.command(world.path("ws/target/debug/app"))), "1 2 3");
    all_hits(&world, "ws", "build --release");
    all_hits(&world, "ws", "build --profile fast");
    all_hits(&world, "ws", "build --examples");
    // A target that is named has a directory of its own.
    let host = stdout(&mut world.bare_rustc("--print=host-tuple"));
    all_hits(&world, "ws", &format!("build --target {host}"));
}

#[test]
fn checks_tests_and_docs() {
    let world = World::new();
    project(&world, "ws");
    all_hits(&world, "ws", "check --all-targets");
    all_hits(&world, "ws", "test --no-run");
    run(&mut world.cargo("ws", "test -q"));
    run(&mut world.cargo("ws", "doc -q --no-deps"));
}

#[test]
#[ignore = "needs clippy"]
fn clippy_is_a_compiler_like_any_other() {
    let world = World::new();
    project(&world, "ws");
    all_hits(&world, "ws", "clippy");
}

#[test]
fn incremental_is_neither_key_nor_output_but_that_it_is_on_counts() {
    let world = World::new();
    project(&world, "ws");
    run(world.cargo("ws", "build").env("CARGO_INCREMENTAL", "1"));
    let before = world.status();
    world.remove("ws/target");
    run(world.cargo("ws", "build").env("CARGO_INCREMENTAL", "0"));
    assert!(world.since(&before).misses >= 3, "{:?}", world.since(&before));
    // An edit and back: the first state is still known, and the compiler's own state does no harm.
    world.remove("ws/target");
    run(world.cargo("ws", "build").env("CARGO_INCREMENTAL", "1"));
    let lib = "pub fn one() -> u32 { 4 }\n";
    let first = fs::read_to_string(world.path("ws/lib/src/lib.rs")).unwrap();
    for (text, want) in [(lib, "4 2 3"), (first.as_str(), "1 2 3"), (lib, "4 2 3")] {
        world.write(&[("ws/lib/src/lib.rs", text)]);
        run(world.cargo("ws", "build").env("CARGO_INCREMENTAL", "1"));
        assert_eq!(stdout(&mut world.command(world.path("ws/target/debug/app"))), want);
    }
}

#[test]
fn another_checkout_is_served_where_the_outputs_name_none() {
    let world = World::new();
    // Without debug information a library names its sources by relative path; the release profile has none.
    for root in ["first/ws", "second/elsewhere"] {
        project(&world, root);
    }
    run(&mut world.cargo("first/ws", "build --release"));
    let before = world.status();
    let output = run(world.cargo("second/elsewhere", "build --release").env("CARGO_LOG", "off"));
    let counts = world.since(&before);
    assert!(counts.hits > 0, "{counts:?}\n{}", world.log());
    let app = world.path("second/elsewhere/target/release/app");
    assert_eq!(stdout(&mut world.command(&app)), "1 2 3");
    let first = world.path("first/ws").into_os_string().into_encoded_bytes();
    for (path, (_, bytes)) in harness::files(&world.path("second/elsewhere/target")) {
        let named = bytes.windows(first.len()).any(|window| window == first);
        assert!(!named, "{} names the other checkout", path.display());
    }
    assert!(!String::from_utf8_lossy(&output.stderr).contains("first/ws"));
    // Both stay fresh, whichever was touched last.
    for root in ["first/ws", "second/elsewhere", "first/ws"] {
        let output = run(&mut world.cargo(root, "build --release"));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("Compiling"), "{root}");
    }
}

#[test]
fn registry_packages_are_served_to_every_checkout() {
    let world = World::new();
    let manifest = "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n[dependencies]\nanyhow = '1'\nitoa = '1'\nmemchr = '2'\nrustix = { version = '1', features = ['fs'] }\n";
    // The versions that zcache's own lock file names are on this machine.
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    for root in ["a/ws", "b/elsewhere"] {
        world.write(&[
            (&format!("{root}/Cargo.toml"), manifest),
            (&format!("{root}/Cargo.lock"), &lock),
            (&format!("{root}/src/main.rs"), "fn main() { print!(\"{}\", itoa::Buffer::new().format(7)) }"),
        ]);
    }
    run(&mut world.cargo("a/ws", "build"));
    let before = world.status();
    run(&mut world.cargo("b/elsewhere", "build"));
    assert_eq!(stdout(&mut world.command(world.path("b/elsewhere/target/debug/p"))), "7");
    let counts = world.since(&before);
    // The program itself names its directory in its debug information; probes that fail are never stored.
    let failing = world.status()["refusal_reasons"]["compile_failed"].as_u64().unwrap_or(0)
        - before["refusal_reasons"]["compile_failed"].as_u64().unwrap_or(0);
    assert_eq!((counts.misses - failing, counts.bypasses), (1, 0), "{counts:?}\n{}", world.log());
    assert!(counts.hits >= 8, "{counts:?}");
}

#[test]
fn paths_of_a_checkout_that_reach_the_program_are_its_own() {
    let world = World::new();
    for root in ["a/ws", "bb/ws"] {
        world.write(&[
            (&format!("{root}/Cargo.toml"), "[package]\nname = 'p'\nversion = '0.1.0'\nedition = '2021'\n[profile.dev]\ndebug = 0\nincremental = false\n"),
            (&format!("{root}/build.rs"), "fn main() {}"),
            (&format!("{root}/src/main.rs"), "fn main() { print!(\"{} {}\", env!(\"CARGO_MANIFEST_DIR\"), env!(\"OUT_DIR\")) }"),
        ]);
        let program = |world: &World| stdout(&mut world.command(world.path(&format!("{root}/target/debug/p"))));
        run(&mut world.bare_cargo(root, "build"));
        let bare = program(&world);
        world.remove(&format!("{root}/target"));
        run(&mut world.cargo(root, "build"));
        assert_eq!(program(&world), bare);
    }
}

#[test]
fn a_restored_program_can_be_edited_without_reaching_the_store() {
    let world = World::new();
    project(&world, "ws");
    run(&mut world.cargo("ws", "build"));
    let app = world.path("ws/target/debug/app");
    let original = fs::read(&app).unwrap();
    // In place, as strip does it: the inode stays.
    let inode = fs::metadata(&app).unwrap().ino();
    run(world.command("strip").arg(&app));
    fs::write(&app, [fs::read(&app).unwrap(), vec![0; 16]].concat()).unwrap();
    assert_ne!(fs::read(&app).unwrap(), original);
    assert!(inode > 0);
    world.remove("ws/target");
    for _ in 0..2 {
        run(&mut world.cargo("ws", "build"));
        assert!(fs::read(&app).unwrap() == original, "the edited program came back");
        fs::write(&app, "edited").unwrap();
        let rlibs = fs::read_dir(world.path("ws/target/debug/deps")).unwrap().flatten();
        for file in rlibs.filter(|file| file.path().extension().is_some_and(|extension| extension == "rlib")) {
            let mut bytes = fs::read(file.path()).unwrap();
            bytes.reverse();
            fs::write(file.path(), bytes).unwrap();
        }
        world.remove("ws/target");
    }
    assert_eq!(world.total("errors"), 0);
}

#[test]
fn cargo_fix_repairs_what_it_repairs_without_us() {
    let world = World::new();
    project(&world, "ws");
    run(&mut world.cargo("ws", "build"));
    run(&mut world.cargo("ws", "fix --allow-no-vcs -p app --bin app"));
    assert!(fs::read_to_string(world.path("ws/app/src/main.rs")).unwrap().contains("_unused"));
    let output = run(&mut world.cargo("ws", "build"));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("unused"), "a stale warning");
}

#[test]
fn a_workspace_wrapper_is_part_of_the_command() {
    let world = World::new();
    project(&world, "ws");
    let wrapper = world.script("wrapper.sh", "#!/bin/sh\necho wrapped >> \"$LOGFILE\"\nexec \"$@\"\n");
    let build = || {
        world.remove("ws/target");
        let mut command = world.cargo("ws", "build");
        run(command.env("RUSTC_WORKSPACE_WRAPPER", &wrapper).env("LOGFILE", world.path("ws/wrapper.log")));
        assert_eq!(stdout(&mut world.command(world.path("ws/target/debug/app"))), "1 2 3");
    };
    build();
    build();
    // It appends to a file: not a thing that a hit could repeat, so it runs every time.
    let lines = fs::read_to_string(world.path("ws/wrapper.log")).unwrap().lines().count();
    assert!(lines >= 8, "{lines} lines\n{}", world.log());
}

#[test]
fn diagnostics_stream_while_the_compiler_runs() {
    use std::io::Read;
    let world = World::new();
    // The message about the metadata must come before the compiler ends, or cargo cannot pipeline.
    let stand_in = world
        .script("rustc.sh", "#!/bin/sh\necho first >&2\nwhile [ ! -e go ]; do sleep 0.02; done\necho second >&2\n");
    let mut command = world.command(harness::CLIENT);
    let mut child =
        command.arg(stand_in).args(["--crate-name", "x"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut first = [0; 6];
    stderr.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    world.write(&[("go", "")]);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second\n");
    assert!(child.wait().unwrap().success());
}
