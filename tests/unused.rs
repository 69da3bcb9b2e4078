//! Unused: results that nobody asks for again, because a variable is another each time, stop being stored; those that are
//! asked for do not.

mod fixture;
mod harness;

use std::process::Command;

use fixture::settle;
use harness::{CLIENT, World, run};

/// A compile in `p/`, the `n`th.
type Compile = fn(&World, u32) -> Command;

fn gcc(world: &World, n: u32) -> Command {
    let mut command = world.command(CLIENT);
    command.args(["gcc", "-c", "x.c"]).env("SOURCE_DATE_EPOCH", (n * 100_000).to_string());
    command
}

fn rustc(world: &World, n: u32) -> Command {
    let mut command = world.command(CLIENT);
    command.arg(harness::rustc()).args(["--crate-type=lib", "x.rs", "-o", "x.rlib"]).env("BUILD", n.to_string());
    command
}

fn fakeroot(world: &World, _: u32) -> Command {
    let mut command = world.command("fakeroot");
    command.args([CLIENT, "gcc", "-c", "y.c", "-o", "x.o"]);
    command
}

fn world() -> World {
    let world = World::new();
    settle(&|| {
        world.write(&[
            ("p/x.c", "#include \"x.h\"\nconst char *date = __DATE__;\nint f(void) { return N; }\n"),
            ("p/y.c", "int f(void) { return 1; }\n"),
            ("p/x.h", "#define N 0\n"),
            ("p/x.rs", "pub const BUILD: &str = env!(\"BUILD\");\n"),
        ]);
    });
    // The daemon outlives what it is started in.
    run(&mut world.zcache("start"));
    world
}

/// Runs one, from nothing, and says how many results have been stored by then.
fn stored(world: &World, mut command: Command) -> u64 {
    for output in ["p/x.o", "p/x.rlib"] {
        world.remove(output);
    }
    run(command.current_dir(world.path("p")));
    world.total("stored")
}

fn stops(compile: Compile) {
    let world = world();
    let counts: Vec<u64> = (1..=12).map(|n| stored(&world, compile(&world, n))).collect();
    assert_eq!(counts[0], 1, "{}", world.log());
    assert!(counts[5] == counts[11] && counts[11] <= 5, "{counts:?}: {}", world.log());
    let report = world.status();
    assert_eq!(report["refusal_reasons"]["never_used"], 12 - counts[11], "{report}");
    assert!(world.log().contains("never_used: "), "{}", world.log());
}

#[test]
fn a_variable_that_is_another_each_time_ends_storing() {
    stops(gcc);
    stops(rustc);
}

#[test]
#[ignore = "needs fakeroot"]
fn what_fakeroot_compiles_is_not_stored_for_ever() {
    stops(fakeroot);
}

#[test]
fn a_variable_that_comes_to_rest_is_served_again() {
    let world = world();
    for compile in [gcc, rustc] {
        (1..=8).for_each(|n| _ = stored(&world, compile(&world, n)));
        let before = world.status();
        (0..20).for_each(|_| _ = stored(&world, compile(&world, 99)));
        let counts = world.since(&before);
        assert!(counts.hits > 0 && counts.misses < 18, "{counts:?} {}", world.log());
        // From there on it is as ever.
        for n in [100, 101] {
            let before = world.status();
            (0..3).for_each(|_| _ = stored(&world, compile(&world, n)));
            assert_eq!(world.since(&before).hits, 2, "{}", world.log());
        }
    }
}

#[test]
fn what_is_worked_on_is_stored_each_time() {
    let world = world();
    for n in 1..=12u32 {
        settle(&|| world.write(&[("p/x.h", &format!("#define N {n}\n"))]));
        assert_eq!(stored(&world, gcc(&world, 1)), u64::from(n), "{}", world.log());
    }
}
