//! Where outputs go: what a compile left comes back at its own place, however that was spelled, and nowhere else.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fixture::{reasons, settle};
use harness::{CLIENT, Counts, World, assert_same, effect, run};

/// gcc in `dir` of this world, through zcache where asked.
fn gcc(world: &World, dir: &Path, cached: bool, line: &str) -> Command {
    let client = if cached { CLIENT } else { "" };
    let mut command = world.command("sh");
    command.args(["-c", &format!("{client} gcc {line}")]).current_dir(dir);
    command
}

/// Compiles bare and twice through zcache in a checkout called `name`; everything has to be the same.
fn thrice(world: &World, name: &str, lay_out: &dyn Fn(&Path), line: &str) -> Counts {
    let top = world.path(name);
    let compile = |cached: bool| {
        settle(&|| {
            world.remove(name);
            fs::create_dir_all(top.join("sub/dir")).unwrap();
            fs::write(top.join("sub/dir/x.c"), "int f(void) { return 1; }\n").unwrap();
            lay_out(&top);
        });
        effect(&mut gcc(world, &top.join("sub/dir"), cached, line), &top)
    };
    let bare = compile(false);
    assert_eq!(bare.code, Some(0), "{line}: {}", bare.stderr);
    let before = world.status();
    for round in ["first", "second"] {
        assert_same(&bare, &compile(true), &format!("{line}, {round} in {name}\n{}", world.log()));
    }
    world.since(&before)
}

#[test]
fn a_parent_directory_in_the_name_of_an_output_is_followed() {
    for line in
        ["-c x.c -o ../x.o", "-c x.c -o ../../x.o -MD", "-c x.c -o ../dir/x.o", "-c x.c -o x.o -MD -MF ../d.Tpo"]
    {
        let world = World::new();
        for checkout in ["one", "other/deeper"] {
            let counts = thrice(&world, checkout, &|_| {}, line);
            assert!(counts.hits >= 1, "{line} in {checkout}: {counts:?} {}\n{}", reasons(&world), world.log());
        }
    }
}

#[test]
fn a_link_before_a_parent_directory_leads_where_it_leads() {
    let world = World::new();
    let elsewhere = |top: &Path| {
        fs::create_dir_all(top.join("far/away")).unwrap();
        symlink("../../far/away", top.join("sub/dir/l")).unwrap();
    };
    let counts = thrice(&world, "one", &elsewhere, "-c x.c -o l/../x.o");
    assert_eq!(counts, Counts { hits: 0, misses: 2, bypasses: 0 });
    assert_eq!(reasons(&world)["strange_output"], 2, "{}", reasons(&world));
    assert!(world.path("one/far/x.o").exists());
    // Where no link stood at first.
    let plain = |top: &Path| fs::create_dir_all(top.join("sub/dir/l")).unwrap();
    assert_eq!(thrice(&world, "two", &plain, "-c x.c -o l/../x.o").hits, 1, "{}", world.log());
    assert_eq!(thrice(&world, "two", &elsewhere, "-c x.c -o l/../x.o").hits, 0, "{}", world.log());
    assert!(world.path("two/far/x.o").exists() && !world.path("two/sub/dir/x.o").exists());
}

#[test]
fn what_stays_in_the_temporary_directory_comes_back() {
    let world = World::new();
    world.write(&[("p/x.c", "int f(void) { return 1; }\n"), ("t/.keep", "")]);
    let object = Path::new("/tmp").join(format!("zcache-places-{}.o", std::process::id()));
    let depfile = world.path("t/x.d");
    let line = format!("-c x.c -o {} -MD -MF {}", object.display(), depfile.display());
    let compile = |cached: bool| {
        settle(&|| {
            let _ = (fs::remove_file(&object), fs::remove_file(&depfile));
        });
        run(gcc(&world, &world.path("p"), cached, &line).env("TMPDIR", world.path("t")));
        run(&mut gcc(&world, &world.path("p"), cached, &format!("-c x.c -o {}", object.display())));
        [&object, &depfile].map(|at| fs::read(at).ok())
    };
    let bare = compile(false);
    let cached = [compile(true), compile(true)];
    let _ = fs::remove_file(&object);
    assert!(bare.iter().all(Option::is_some) && cached == [bare.clone(), bare], "{}", world.log());
    assert_eq!(world.total("hits"), 2, "{}", world.log());
}

#[test]
fn a_source_above_the_root_is_compiled() {
    let world = World::new();
    world.write(&[("p/x.c", "int f(void) { return 1; }\n")]);
    let up = "../".repeat(20);
    for _ in 0..2 {
        let line = format!("-c {up}{} -o x.o", world.path("p/x.c").display());
        settle(&|| world.remove("p/x.o"));
        run(world.command("timeout").args(["20", CLIENT, "gcc"]).args(line.split(' ')).current_dir(world.path("p")));
        assert!(world.path("p/x.o").exists());
    }
    assert_eq!(world.total("hits"), 1, "{}", world.log());
}

#[test]
fn argument_files_without_end_are_the_compilers_own_trouble() {
    let world = World::new();
    world.write(&[
        ("p/x.c", "int f(void) { return 1; }\n"),
        ("p/a", &"@b ".repeat(2000)),
        ("p/b", &"@a ".repeat(2000)),
    ]);
    let compile = |cached: bool| effect(&mut gcc(&world, &world.path("p"), cached, "-c x.c @a"), &world.path("p"));
    let bare = compile(false);
    assert_ne!(bare.code, Some(0));
    assert_same(&bare, &compile(true), "argument files that name each other");
    assert_eq!(world.status()["bypass_reasons"]["argument_file"], 1, "{}", world.log());
}
