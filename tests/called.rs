//! Called: by what name a compiler runs, which it prints and by which it looks for what was installed with it, whatever
//! stands before it along PATH.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fixture::settle;
use harness::{CLIENT, World, run, stdout};

/// A directory before the rest of PATH, made in the world.
type Before = fn(&World);

/// What stands before the compilers, and whether a compiler can keep its name then.
const BEFORE: &[(&str, Before, bool)] = &[
    ("nothing", |_| (), true),
    ("links to the client", |world| links(world, CLIENT), true),
    (
        "links to the client beside a linker",
        |world| {
            links(world, CLIENT);
            world.script("before/ld", "#!/bin/sh\nexec /usr/bin/ld \"$@\"\n");
        },
        false,
    ),
    ("another cache's links", |world| links(world, cache(world).to_str().unwrap()), true),
    (
        "another cache's links beside a linker",
        |world| {
            links(world, cache(world).to_str().unwrap());
            world.script("before/ld", "#!/bin/sh\nexec /usr/bin/ld \"$@\"\n");
        },
        false,
    ),
];

fn links(world: &World, program: &str) {
    for name in ["gcc", "g++", "clang"] {
        symlink(program, world.path("before").join(name)).unwrap();
    }
}

/// In a directory from which no compiler was installed.
fn cache(world: &World) -> std::path::PathBuf {
    world.script("opt/cache/bin/ccache", "#!/bin/sh\nexec \"/usr/bin/${0##*/}\" \"$@\"\n")
}

fn world(before: Before) -> World {
    let world = World::new();
    settle(&|| world.write(&[("p/x.c", "int main(void) { return 0; }\n"), ("before/.keep", "")]));
    fs::remove_file(world.path("before/.keep")).unwrap();
    before(&world);
    world
}

/// A command of a shell in `p/`, where PATH begins with `before/` if asked.
fn shell(world: &World, with_before: bool, line: &str) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut command = world.command("sh");
    command.args(["-c", line]).current_dir(world.path("p"));
    if with_before {
        command.env("PATH", format!("{}:{path}", world.path("before").display()))
    } else {
        &mut command
    };
    command
}

/// What it prints, without the names that are new each time.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    text.split_inclusive([' ', '\n', '\'']).filter(|word| !word.contains("/tmp/cc")).collect()
}

#[test]
fn a_compiler_prints_the_name_by_which_it_was_called() {
    let lines =
        ["gcc -v", "gcc -###  -c x.c", "gcc -v -E x.c", "gcc -v -fsyntax-only x.c", "g++ -v -c x.c", "gcc -v x.c -o x"];
    for (what, before, keeps) in BEFORE {
        let world = world(*before);
        for line in lines {
            let bare = printed(&mut shell(&world, false, line));
            for _ in 0..3 {
                // Its name alone leads to a link, where there is one; the client in front of it leads past it.
                let mut got = vec![printed(&mut shell(&world, true, &format!("{CLIENT} {line}")))];
                if what.contains("client") {
                    got.push(printed(&mut shell(&world, true, line)));
                }
                for got in got {
                    let (got, bare) = if *keeps { (got, bare.clone()) } else { (named(&got), named(&bare)) };
                    assert_eq!(got, bare, "{what}: {line}\n{}", world.log());
                }
            }
        }
    }
}

/// A text in which the compilers are called by their names.
fn named(text: &str) -> String {
    text.replace("COLLECT_GCC=/usr/bin/", "COLLECT_GCC=")
}

#[test]
fn a_compiler_finds_what_belongs_to_it() {
    for (what, before, _) in BEFORE {
        let world = world(*before);
        for compiler in ["gcc", "g++", "clang"] {
            if !Path::new("/usr/bin").join(compiler).exists() {
                continue;
            }
            for _ in 0..2 {
                run(&mut shell(
                    &world,
                    true,
                    &format!("{CLIENT} {compiler} -c x.c && {CLIENT} {compiler} x.o -o x && ./x"),
                ));
            }
        }
        assert!(world.total("hits") > 0, "{what}: {}", world.log());
    }
}

#[test]
fn what_names_the_caller_serves_nobody_who_calls_otherwise() {
    let world = world(|_| ());
    let gcc = stdout(&mut shell(&world, false, "command -v gcc"));
    for line in ["-v -c x.c", "-### -c x.c"] {
        for _ in 0..2 {
            for program in ["gcc", &gcc, "/usr/../usr/bin/gcc"] {
                let bare = printed(&mut shell(&world, false, &format!("{program} {line}")));
                let got = printed(&mut shell(&world, false, &format!("{CLIENT} {program} {line}")));
                assert_eq!(got, bare, "{program} {line}\n{}", world.log());
            }
        }
    }
    // What prints nothing serves all.
    let before = world.status();
    for program in ["gcc", &gcc] {
        run(&mut shell(&world, false, &format!("{CLIENT} {program} -c x.c -O1")));
        world.status();
    }
    let counts = world.since(&before);
    assert_eq!((counts.hits, counts.misses), (1, 1), "{}", world.log());
}
