//! One C file in two checkouts: what names the checkout must be its own there, and what does not serves both.

mod fixture;
mod harness;

use std::fs;

use fixture::settle;
use harness::{CLIENT, Counts, World, assert_same, effect};

const SOURCE: &str = "#include \"inc/h.h\"\nint f(int x) { return x + H; }\n";
const NAMES_ITSELF: &str = "#include \"inc/n.h\"\nconst char *f(void) { int unused; return __FILE__ NAME; }\n";

/// Compiles in the checkouts `one` and `other`, compared with bare in each. Says how the second was answered.
fn in_both(compiler: &str, source: &str, arguments: &str) -> Counts {
    let world = World::new();
    let mut counts = Counts { hits: 0, misses: 0, bypasses: 0 };
    for checkout in ["one", "other/deeper"] {
        let lay_out = || {
            world.remove(checkout);
            world.write(&[
                (&format!("{checkout}/src/x.c"), source),
                (&format!("{checkout}/src/inc/h.h"), "#define H 1\n"),
                (&format!("{checkout}/src/inc/n.h"), "#define NAME __FILE__\n"),
                (&format!("{checkout}/build/.keep"), ""),
            ]);
        };
        let dir = world.path(checkout);
        let root = dir.to_str().unwrap();
        let compile = |cached: bool| {
            settle(&lay_out);
            let client = if cached { CLIENT } else { "" };
            let line = format!("{client} {compiler} -c {arguments}").replace('$', root);
            effect(world.command("sh").args(["-c", &line]).current_dir(dir.join("build")), &dir)
        };
        let bare = compile(false);
        assert_eq!(bare.code, Some(0), "{arguments}: {}", bare.stderr);
        let before = world.status();
        assert_same(&bare, &compile(true), &format!("{arguments} in {checkout}"));
        counts = world.since(&before);
        assert_same(&bare, &compile(true), &format!("{arguments} again in {checkout}"));
        assert_eq!(world.since(&before).hits, counts.hits + 1, "{arguments} in {checkout}\n{}", world.log());
    }
    counts
}

/// Commands whose object names no place of the checkout.
const SHARED: &[&str] = &[
    "../src/x.c -o x.o",
    "../src/x.c -o x.o -MD",
    "$/src/x.c -o $/build/x.o",
    "$/src/x.c -o $/build/x.o -I$/src/inc -MD -MF $/build/x.d",
    "../src/x.c -O2 -o x.o -Wall -Wextra -fPIC",
];

/// Commands whose object, or what they print, names it.
const OWN: &[&str] =
    &["../src/x.c -g -o x.o", "$/src/x.c -g -O2 -o $/build/x.o", "../src/x.c -g -gz -o x.o", "../src/x.c -g3 -o x.o"];

/// Commands that map the checkout to a name; the same result for both would be right, and each being its own is too.
const MAPPED: &[&str] = &[
    "$/src/x.c -g -fdebug-prefix-map=$=. -o x.o",
    "$/src/x.c -g -ffile-prefix-map=$=/here -o x.o",
    "$/src/x.c -g -fmacro-prefix-map=$=/here -o x.o",
    "../src/x.c -g -fdebug-prefix-map=$/build=. -fdebug-prefix-map=$=.. -o x.o -MD",
    "../src/x.c -g -fdebug-prefix-map=/nowhere=/here -o x.o",
];

fn names_the_right_checkout(compiler: &str) {
    for arguments in SHARED {
        let hits = in_both(compiler, SOURCE, arguments).hits;
        // See `a_source_above_the_directory_of_the_compile`.
        assert!(hits == 1 || arguments.starts_with(".."), "{compiler} {arguments}");
    }
    for arguments in OWN {
        assert_eq!(in_both(compiler, SOURCE, arguments).misses, 1, "{compiler} {arguments}");
    }
    for arguments in MAPPED.iter().chain(OWN) {
        in_both(compiler, NAMES_ITSELF, &format!("{arguments} -Wall"));
    }
    in_both(compiler, NAMES_ITSELF, "$/src/x.c -Wall -o x.o");
    in_both(compiler, NAMES_ITSELF, "../src/x.c -Wall -o x.o");
}

#[test]
fn objects_of_gcc() {
    names_the_right_checkout("gcc");
}

#[test]
#[ignore = "needs clang"]
fn objects_of_clang() {
    names_the_right_checkout("clang");
}

#[test]
fn a_source_above_the_directory_of_the_compile() {
    for arguments in SHARED.iter().filter(|arguments| arguments.starts_with("..")) {
        assert_eq!(in_both("gcc", SOURCE, arguments).hits, 1, "{arguments}");
    }
}

/// The bytes that a debugger reads, rather than only equality with bare.
#[test]
fn the_directory_of_the_compile_is_in_the_object() {
    let world = World::new();
    for dir in ["one", "two"] {
        world.write(&[(&format!("{dir}/x.c"), "int f(void) { return 1; }\n")]);
    }
    for dir in ["one", "two", "one", "two"] {
        settle(&|| world.remove(&format!("{dir}/x.o")));
        let mut command = world.command(CLIENT);
        harness::run(command.args(["gcc", "-g", "-c", "x.c"]).current_dir(world.path(dir)));
        let object = fs::read(world.path(dir).join("x.o")).unwrap();
        let names = |dir: &str| {
            let path = world.path(dir).into_os_string().into_encoded_bytes();
            object.windows(path.len()).any(|bytes| bytes == path)
        };
        let other = if dir == "one" { "two" } else { "one" };
        assert!(names(dir) && !names(other), "in {dir}: {}", world.log());
    }
    assert_eq!(world.total("hits"), 2);
}

/// Neither the shell's `PWD` nor a link to the checkout may end in the other's object.
#[test]
fn a_checkout_behind_a_link() {
    let world = World::new();
    world.write(&[("real/x.c", "int f(void) { return 1; }\n")]);
    std::os::unix::fs::symlink("real", world.path("link")).unwrap();
    let compile = |cached: bool, dir: &str| {
        settle(&|| world.remove("real/x.o"));
        let client = if cached { CLIENT } else { "" };
        let line = format!("cd {dir} && {client} gcc -g -c x.c");
        effect(world.command("sh").args(["-c", &line]), &world.path("real"))
    };
    let [real, link] = ["real", "link"].map(|dir| compile(false, dir));
    assert_ne!(real.files, link.files, "gcc takes PWD for the directory");
    for (dir, bare) in [("real", &real), ("link", &link), ("real", &real), ("link", &link)] {
        assert_same(bare, &compile(true, dir), &format!("{dir}: {}", world.log()));
    }
    assert_eq!(world.total("hits"), 2);
}
