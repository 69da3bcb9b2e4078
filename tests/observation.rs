//! Observation: what the compiler itself reads of a project, and what happens to it meanwhile. Each walk compares
//! with the bare compiler. Macros, linking and programs that are run have files of their own.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use fixture::{Compile, State, app, reasons, rustc_in, settle, write_macro};
use harness::{World, run, stdout};

/// Follows `p/app.rs` through states.
fn source_follows(world: &World, states: &[State<'_>]) {
    let arguments = "app.rs --crate-name app --edition 2021 --out-dir out --emit=link,dep-info";
    let compile = Compile {
        world,
        command: &|cached| {
            // rustc makes it for programs, not for their dependency files.
            fs::create_dir_all(world.path("p/out")).unwrap();
            rustc_in(world, "p", cached, arguments)
        },
        out: "p/out",
        program: "p/out/app",
        messages: true,
    };
    compile.follows(states);
}

#[test]
fn a_file_that_is_included() {
    for include in ["include_str!(\"data/f\")", "String::from_utf8_lossy(include_bytes!(\"data/f\"))"] {
        let world = World::new();
        world.write(&[("p/app.rs", &format!("fn main() {{ println!(\"{{}}\", {include}) }}"))]);
        let one = || world.write(&[("p/data/f", "one")]);
        let two = || world.write(&[("p/data/f", "two")]);
        let none = || world.remove("p/data/f");
        source_follows(&world, &[(&one, &[]), (&two, &[]), (&none, &[])]);
    }
}

#[test]
fn a_module_by_path() {
    let world = World::new();
    world.write(&[("p/app.rs", "#[path = \"data/m.rs\"] mod x;\nfn main() { println!(\"{}\", x::N) }")]);
    let one = || world.write(&[("p/data/m.rs", "pub const N: u32 = 1;")]);
    let two = || world.write(&[("p/data/m.rs", "pub const N: u32 = 2;")]);
    source_follows(&world, &[(&one, &[]), (&two, &[])]);
}

#[test]
fn a_module_that_appears_in_a_second_place() {
    let world = World::new();
    world.write(&[("p/app.rs", "mod x;\nfn main() { println!(\"{}\", x::N) }")]);
    let text = "pub const N: u32 = 1;";
    let first = || {
        world.remove("p/x");
        world.write(&[("p/x.rs", text)]);
    };
    let both = || world.write(&[("p/x/mod.rs", text)]);
    let second = || {
        world.remove("p/x.rs");
        world.write(&[("p/x/mod.rs", "pub const N: u32 = 2;")]);
    };
    source_follows(&world, &[(&first, &[]), (&both, &[]), (&second, &[])]);
}

#[test]
fn variables_that_the_source_names() {
    let world = World::new();
    world.write(&[("p/app.rs", "fn main() { println!(\"{}\", env!(\"ZC_TEST\")) }")]);
    let set: [&[(&str, &str)]; 3] = [&[("ZC_TEST", "a")], &[("ZC_TEST", "b")], &[]];
    source_follows(&world, &set.map(|env| -> State<'_> { (&|| (), env) }));
    world.write(&[("p/app.rs", "fn main() { println!(\"{:?}\", option_env!(\"ZC_TEST\")) }")]);
    let set: [&[(&str, &str)]; 4] = [&[("ZC_TEST", "a")], &[("ZC_TEST", "b")], &[("ZC_TEST", "")], &[]];
    source_follows(&world, &set.map(|env| -> State<'_> { (&|| (), env) }));
}

/// Variables that rustc reads for its own purposes as well.
#[test]
fn variables_that_the_compiler_needs_too_and_the_source_names() {
    for name in ["PATH", "TMPDIR", "TERM", "CARGO_MAKEFLAGS"] {
        let world = World::new();
        world.write(&[("p/app.rs", &format!("fn main() {{ println!(\"{{:?}}\", option_env!(\"{name}\")) }}"))]);
        let set: [&[(&str, &str)]; 2] = [&[(name, "/usr/bin:/bin")], &[(name, "/tmp:/usr/bin:/bin")]];
        source_follows(&world, &set.map(|env| -> State<'_> { (&|| (), env) }));
        if name == "CARGO_MAKEFLAGS" {
            continue;
        }
        // Where no file lists them.
        let command = |cached: bool| rustc_in(&world, "p", cached, "app.rs --crate-name app --out-dir out -O");
        let compile = Compile { world: &world, command: &command, out: "p/out", program: "p/out/app", messages: true };
        compile.follows(&set.map(|env| -> State<'_> { (&|| (), env) }));
    }
}

#[test]
fn what_a_build_script_generates() {
    let world = World::new();
    world.write(&[
        ("w/Cargo.toml", "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n"),
        (
            "w/build.rs",
            "fn main() { println!(\"cargo:rerun-if-changed=data/in\");
    let out = std::env::var(\"OUT_DIR\").unwrap() + \"/gen.rs\";
    let text = std::fs::read_to_string(\"data/in\").unwrap();
    std::fs::write(out, format!(\"const N: u32 = {};\", text.trim())).unwrap(); }",
        ),
        ("w/src/main.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/gen.rs\"));\nfn main() { println!(\"{N}\") }"),
    ]);
    let one = || world.write(&[("w/data/in", "1")]);
    let two = || world.write(&[("w/data/in", "2")]);
    let compile = Compile {
        world: &world,
        command: &|cached| if cached { world.cargo("w", "build -q") } else { world.bare_cargo("w", "build -q") },
        out: "w/target",
        program: "w/target/debug/app",
        messages: false,
    };
    compile.follows(&[(&one, &[]), (&two, &[])]);
}

#[test]
fn an_edit_of_the_same_size_with_the_time_put_back() {
    let world = World::new();
    world.write(&[("p/app.rs", "fn main() { println!(\"{}\", include_str!(\"data/f\")) }")]);
    let time = SystemTime::now() - Duration::from_secs(1000);
    let edit = |text: &str| {
        world.write(&[("p/data/f", text)]);
        fs::File::options().write(true).open(world.path("p/data/f")).unwrap().set_modified(time).unwrap();
    };
    let (one, two) = (|| edit("one"), || edit("two"));
    source_follows(&world, &[(&one, &[]), (&two, &[])]);
}

/// Compiles a program whose macro reads `p/data/f` and then takes its time, in which `edit` happens. The next
/// compile must be right, whatever was made of the first.
fn edited_meanwhile(prepare: &dyn Fn(&World), edit: &dyn Fn(&World)) {
    let world = World::new();
    let body = "let text = std::fs::read_to_string(\"data/f\").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1200)); text";
    write_macro(&world, body, fixture::LINKINGS[0]);
    world.write(&[("p/app.rs", "fn main() { println!(\"{} {}\", include_str!(\"data/g\"), mac::m!()) }")]);
    world.write(&[("p/data/g", "old g")]);
    settle(&|| prepare(&world));
    let mut first = app(&world, true).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    edit(&world);
    assert!(first.wait().unwrap().success());
    let early = stdout(&mut world.command(world.path("p/out/app")));
    assert_eq!(early, "old g old f", "the edit came too early for this test");
    assert_eq!(world.total("stored"), 0, "{}\n{}", reasons(&world), world.log());
    assert_eq!(reasons(&world)["input_changed"], 1, "{}", reasons(&world));
    world.remove("p/out");
    run(&mut app(&world, false));
    let want = stdout(&mut world.command(world.path("p/out/app")));
    world.remove("p/out");
    run(&mut app(&world, true));
    assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), want, "{}", world.log());
}

fn old_f(world: &World) {
    world.write(&[("p/data/f", "old f")]);
}

#[test]
fn a_file_edited_while_the_compiler_runs() {
    edited_meanwhile(&old_f, &|world| world.write(&[("p/data/f", "new f")]));
}

#[test]
fn a_source_edited_while_the_compiler_runs() {
    edited_meanwhile(&old_f, &|world| world.write(&[("p/data/g", "new g")]));
}

#[test]
fn a_file_edited_and_dated_back_while_the_compiler_runs() {
    edited_meanwhile(&old_f, &|world| {
        world.write(&[("p/data/f", "new f")]);
        let file = fs::File::options().write(true).open(world.path("p/data/f")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    });
}

#[test]
fn a_file_replaced_while_the_compiler_runs() {
    edited_meanwhile(
        &|world| {
            old_f(world);
            world.write(&[("p/data/next", "new f")]);
        },
        &|world| fs::rename(world.path("p/data/next"), world.path("p/data/f")).unwrap(),
    );
}

#[test]
fn a_file_removed_while_the_compiler_runs() {
    let world = World::new();
    let body = "let text = std::fs::read_to_string(\"data/f\").unwrap_or(\"none\".into());
        std::thread::sleep(std::time::Duration::from_millis(1200)); text";
    write_macro(&world, body, fixture::LINKINGS[0]);
    settle(&|| old_f(&world));
    let mut first = app(&world, true).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    world.remove("p/data/f");
    assert!(first.wait().unwrap().success());
    assert_eq!(world.total("stored"), 0, "{}\n{}", reasons(&world), world.log());
    run(&mut app(&world, true));
    assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), "none", "{}", world.log());
}

#[test]
fn a_link_turned_while_the_compiler_runs() {
    edited_meanwhile(
        &|world| {
            world.write(&[("p/data/a", "old f"), ("p/data/b", "new f")]);
            symlink("a", world.path("p/data/f")).unwrap();
        },
        &|world| {
            symlink("b", world.path("p/data/next")).unwrap();
            fs::rename(world.path("p/data/next"), world.path("p/data/f")).unwrap();
        },
    );
}

#[test]
fn a_directory_exchanged_while_the_compiler_runs() {
    edited_meanwhile(
        &|world| {
            old_f(world);
            world.write(&[("p/other/f", "new f"), ("p/other/g", "new g")]);
        },
        &|world| {
            fs::rename(world.path("p/data"), world.path("p/was")).unwrap();
            fs::rename(world.path("p/other"), world.path("p/data")).unwrap();
        },
    );
}
