//! Linking: archives, objects, linkers, externs and the processor are inputs by content. Each walk compares with the
//! bare compiler.

mod fixture;
mod harness;

use std::fs;

use fixture::{Compile, State, reasons, rustc_in, settle};
use harness::{CLIENT, World, run, rustc, stdout};

/// Follows `p/app.rs`, compiled with these arguments, through states.
fn link_follows(world: &World, arguments: &str, states: &[State<'_>]) {
    let arguments = format!("app.rs --crate-name app --edition 2021 --out-dir out {arguments}");
    let compile = Compile {
        world,
        command: &|cached| rustc_in(world, "p", cached, &arguments),
        out: "p/out",
        program: "p/out/app",
        messages: true,
    };
    compile.follows(states);
}

const CALLER: &str = "extern \"C\" { fn answer() -> i32; }\nfn main() { println!(\"{}\", unsafe { answer() }) }";

/// An object with a function that returns this number.
fn object(world: &World, number: u32, name: &str) {
    world.write(&[("p/answer.c", &format!("int answer(void) {{ return {number}; }}"))]);
    run(world.command("gcc").args(["-c", "answer.c", "-o", name]).current_dir(world.path("p")));
}

#[test]
fn a_native_archive_that_is_replaced() {
    for kind in ["static:+whole-archive", "static:+bundle", "static"] {
        let world = World::new();
        world.write(&[("p/app.rs", CALLER), ("p/nat/.keep", "")]);
        let archive = |number: u32| {
            object(&world, number, "answer.o");
            world.remove("p/nat/libanswer.a");
            run(world.command("ar").args(["crs", "nat/libanswer.a", "answer.o"]).current_dir(world.path("p")));
        };
        let (one, two) = (|| archive(1), || archive(2));
        link_follows(&world, &format!("-l {kind}=answer -L native=nat"), &[(&one, &[]), (&two, &[])]);
    }
}

#[test]
fn an_archive_that_goes_into_a_library() {
    let world = World::new();
    world.write(&[
        ("p/lib.rs", "extern \"C\" { fn answer() -> i32; }\npub fn ask() -> i32 { unsafe { answer() } }"),
        ("p/app.rs", "fn main() { println!(\"{}\", lib::ask()) }"),
        ("p/nat/.keep", ""),
    ]);
    let library =
        "lib.rs --crate-name lib --crate-type lib --out-dir out -l static:+whole-archive=answer -L native=nat";
    for (number, hits) in [(1, 0), (1, 1), (2, 1), (1, 2), (2, 3)] {
        object(&world, number, "nat/answer.o");
        world.remove("p/nat/libanswer.a");
        run(world.command("ar").args(["crs", "nat/libanswer.a", "nat/answer.o"]).current_dir(world.path("p")));
        settle(&|| world.remove("p/out"));
        run(&mut rustc_in(&world, "p", true, library));
        assert_eq!(world.total("hits"), hits, "{number}: {}\n{}", reasons(&world), world.log());
        let arguments = "app.rs --crate-name app --edition 2021 --out-dir out -L out --extern lib=out/liblib.rlib";
        run(&mut rustc_in(&world, "p", false, arguments));
        assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), number.to_string());
    }
}

#[test]
fn an_archive_that_appears_earlier_on_the_search_path() {
    let world = World::new();
    world.write(&[("p/app.rs", CALLER), ("p/late/.keep", "")]);
    let archive = |number: u32, dir: &str| {
        object(&world, number, "answer.o");
        world.write(&[(&format!("p/{dir}/.keep"), "")]);
        let to = format!("{dir}/libanswer.a");
        world.remove(&format!("p/{to}"));
        run(world.command("ar").args(["crs", &to, "answer.o"]).current_dir(world.path("p")));
    };
    archive(1, "late");
    let (only_late, early) = (|| world.remove("p/early"), || archive(2, "early"));
    let arguments = "-l static=answer -L native=early -L native=late";
    link_follows(&world, arguments, &[(&only_late, &[]), (&early, &[])]);
    // The same where the linker itself searches.
    let arguments = "-C link-arg=-Learly -C link-arg=-Llate -C link-arg=-lanswer";
    link_follows(&world, arguments, &[(&only_late, &[]), (&early, &[])]);
}

#[test]
fn an_object_that_is_replaced() {
    let world = World::new();
    world.write(&[("p/app.rs", CALLER)]);
    let (one, two) = (|| object(&world, 1, "sys.o"), || object(&world, 2, "sys.o"));
    link_follows(&world, "-C link-arg=sys.o", &[(&one, &[]), (&two, &[])]);
}

#[test]
fn a_linker_script_and_a_shared_object_that_are_replaced() {
    let world = World::new();
    world.write(&[("p/app.rs", CALLER)]);
    object(&world, 1, "one.o");
    object(&world, 2, "two.o");
    let one = || world.write(&[("p/libanswer.so", "INPUT(one.o)")]);
    let two = || world.write(&[("p/libanswer.so", "INPUT(two.o)")]);
    link_follows(&world, "-C link-arg=-L. -C link-arg=-lanswer", &[(&one, &[]), (&two, &[])]);
}

#[test]
fn a_linker_that_is_replaced() {
    let world = World::new();
    world.write(&[("p/app.rs", CALLER)]);
    object(&world, 1, "one.o");
    object(&world, 2, "two.o");
    let one = || drop(world.script("p/lk.sh", "#!/bin/sh\nexec cc \"$@\" one.o\n"));
    let two = || drop(world.script("p/lk.sh", "#!/bin/sh\nexec cc \"$@\" two.o\n"));
    link_follows(&world, "-C linker=./lk.sh", &[(&one, &[]), (&two, &[])]);
}

#[test]
fn a_linker_with_another_content_that_does_the_same() {
    let world = World::new();
    world.write(&[("p/app.rs", "fn main() {}")]);
    world.write(&[(
        "lk.c",
        "#include <unistd.h>\nint main(int n, char **a) { a[0] = \"cc\"; return execvp(\"cc\", a); }",
    )]);
    run(world.command("gcc").args(["lk.c", "-o", "p/lk"]));
    let compile = || {
        settle(&|| world.remove("p/out"));
        let before = world.status();
        run(&mut rustc_in(&world, "p", true, "app.rs --crate-name app --out-dir out -C linker=./lk"));
        let counts = world.since(&before);
        (counts.hits, counts.misses)
    };
    assert_eq!(compile(), (0, 1));
    assert_eq!(compile(), (1, 0), "{}\n{}", reasons(&world), world.log());
    let mut bytes = fs::read(world.path("p/lk")).unwrap();
    bytes.push(0);
    fs::write(world.path("p/lk"), bytes).unwrap();
    assert_eq!(compile(), (0, 1));
    assert_eq!(compile(), (1, 0));
}

#[test]
fn a_linker_that_appears_earlier_on_the_path() {
    let world = World::new();
    world.write(&[("p/app.rs", CALLER)]);
    object(&world, 1, "one.o");
    object(&world, 2, "two.o");
    world.script("p/late/lk", "#!/bin/sh\nexec cc \"$@\" one.o\n");
    let only_late = || world.remove("p/early");
    let early = || drop(world.script("p/early/lk", "#!/bin/sh\nexec cc \"$@\" two.o\n"));
    let path = format!("{}:{}:/usr/bin:/bin", world.path("p/early").display(), world.path("p/late").display());
    let env = [("PATH", path.as_str())];
    link_follows(&world, "-C linker=lk -C linker-flavor=gcc", &[(&only_late, &env), (&early, &env)]);
}

#[test]
fn extern_names_that_are_swapped() {
    let world = World::new();
    world.write(&[
        ("p/a.rs", "pub const N: &str = \"a\";"),
        ("p/b.rs", "pub const N: &str = \"b\";"),
        ("p/app.rs", "fn main() { println!(\"{}{}\", x::N, y::N) }"),
    ]);
    for name in ["a", "b"] {
        run(&mut rustc_in(&world, "p", false, &format!("{name}.rs --crate-name {name} --crate-type lib")));
    }
    for (x, y, hits) in [("a", "b", 0), ("a", "b", 1), ("b", "a", 1), ("a", "b", 2), ("b", "a", 3)] {
        settle(&|| world.remove("p/out"));
        let externs = format!("--extern x=lib{x}.rlib --extern y=lib{y}.rlib");
        let arguments = format!("app.rs --crate-name app --edition 2021 --out-dir out {externs}");
        run(&mut rustc_in(&world, "p", true, &arguments));
        assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), format!("{x}{y}"), "{}", world.log());
        assert_eq!(world.total("hits"), hits, "{}\n{}", reasons(&world), world.log());
    }
}

#[test]
fn extern_files_that_are_swapped() {
    let world = World::new();
    world.write(&[
        ("p/a.rs", "pub const N: &str = \"a\";"),
        ("p/b.rs", "pub const N: &str = \"b\";"),
        ("p/app.rs", "fn main() { println!(\"{}{}\", x::N, y::N) }"),
    ]);
    for name in ["a", "b"] {
        run(&mut rustc_in(&world, "p", false, &format!("{name}.rs --crate-name {name} --crate-type lib")));
    }
    let place = |x: &str, y: &str| {
        for (from, to) in [(x, "x"), (y, "y")] {
            fs::copy(world.path(&format!("p/lib{from}.rlib")), world.path(&format!("p/lib{to}.rlib"))).unwrap();
        }
    };
    let (plain, swapped) = (|| place("a", "b"), || place("b", "a"));
    link_follows(&world, "--extern x=libx.rlib --extern y=liby.rlib", &[(&plain, &[]), (&swapped, &[])]);
}

/// Another processor is another /proc/cpuinfo, in a mount namespace with a daemon of its own over the same store.
#[test]
#[ignore = "needs unshare and mount, as root"]
fn two_processors_never_share_native_code() {
    let world = World::new();
    world.write(&[("app.rs", "fn main() {}"), ("out/.keep", "")]);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap();
    let other = text.replace("flags\t", "flags\t: other\nold flags\t").replace("Features\t", "Features\t: other ");
    let other = other.replace("model name\t: ", "model name\t: another ");
    assert_ne!(text, other, "/proc/cpuinfo is of an unknown form");
    world.write(&[("cpuinfo", &other)]);
    let compile = |processor: &str, target: &str| {
        let before = world.status();
        let mut command = world.command("unshare");
        let mount = if processor == "other" { "mount --bind cpuinfo /proc/cpuinfo" } else { "true" };
        let end = format!("{} stop", harness::ZCACHE);
        let line = format!("{mount} && \"$@\" && {end}");
        command.args(["-m", "sh", "-ec", &line, "sh", CLIENT]).arg(rustc());
        command.args(["app.rs", "--crate-name", "app", "--out-dir", "out", "-C", target]);
        settle(&|| world.wait_until_gone());
        run(&mut command);
        world.wait_until_gone();
        let counts = world.since(&before);
        assert_eq!(counts.bypasses, 0, "{}", world.log());
        (counts.hits, counts.misses)
    };
    for target in ["target-cpu=native", "opt-level=1"] {
        assert_eq!(compile("this", target), (0, 1), "{}", world.log());
        assert_eq!(compile("this", target), (1, 0), "{}", world.log());
        let shared = if target == "target-cpu=native" { (0, 1) } else { (1, 0) };
        assert_eq!(compile("other", target), shared, "{}", world.log());
        assert_eq!(compile("other", target), (1, 0), "{}", world.log());
        assert_eq!(compile("this", target), (1, 0), "{}", world.log());
    }
}
