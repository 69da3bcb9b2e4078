//! Macros: what procedural macros read is seen, whatever way they read it, so that a program never shows an old
//! answer. Each walk compares with the bare compiler.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;

use fixture::{CARGOS, Compile, LINKINGS, State, macro_follows};
use harness::{World, run, stdout};

/// Follows a macro over two contents of `p/data/f`.
fn file_follows(body: &str, linkings: &[&str]) {
    macro_follows(body, linkings, &|world, follows| {
        let one = || world.write(&[("p/data/f", "one")]);
        let other = || world.write(&[("p/data/f", "another")]);
        follows(&[(&one, &[]), (&other, &[])]);
    });
}

#[test]
fn every_combination_of_variable_and_file() {
    let world = World::new();
    world.write(&[
        ("w/Cargo.toml", "[workspace]\nmembers = ['mac', 'app']\nresolver = '2'\n"),
        (
            "w/mac/Cargo.toml",
            "[package]\nname = 'mac'\nversion = '0.1.0'\nedition = '2021'\n[lib]\nproc-macro = true\n",
        ),
        (
            "w/mac/src/lib.rs",
            "use proc_macro::TokenStream;\n#[proc_macro]\npub fn hidden(_: TokenStream) -> TokenStream {
    let e = std::env::var(\"HIDDEN_VAR\").unwrap_or_else(|_| \"unset\".into());
    let dir = std::env::var(\"CARGO_MANIFEST_DIR\").unwrap();
    let f = std::fs::read_to_string(std::path::Path::new(&dir).join(\"../data/hidden.txt\"));
    let f = f.unwrap_or_else(|_| \"nofile\".into());
    format!(\"{:?}\", format!(\"{e}/{}\", f.trim())).parse().unwrap()\n}\n",
        ),
        (
            "w/app/Cargo.toml",
            "[package]\nname = 'app'\nversion = '0.1.0'\nedition = '2021'\n[dependencies]\nmac = { path = '../mac' }\n",
        ),
        ("w/app/src/main.rs", "fn main() { println!(\"{}\", mac::hidden!()); }\n"),
        ("w/data/other.txt", ""),
    ]);
    let one = || world.write(&[("w/data/hidden.txt", "one\n")]);
    let two = || world.write(&[("w/data/hidden.txt", "two\n")]);
    let none = || world.remove("w/data/hidden.txt");
    let files: [&dyn Fn(); 3] = [&one, &two, &none];
    let variables: [&[(&str, &str)]; 3] = [&[("HIDDEN_VAR", "a")], &[("HIDDEN_VAR", "b")], &[]];
    let states: Vec<State<'_>> = files.iter().flat_map(|file| variables.map(|variable| (*file, variable))).collect();
    let compile = Compile {
        world: &world,
        command: &|cached| if cached { world.cargo("w", "build -q") } else { world.bare_cargo("w", "build -q") },
        out: "w/target",
        program: "w/target/debug/app",
        messages: false,
    };
    compile.follows(&states);
}

#[test]
fn a_directory_that_is_listed() {
    let body = "let mut n: Vec<_> = std::fs::read_dir(\"data\").unwrap().map(|e| e.unwrap().file_name()).collect();
        n.sort(); format!(\"{n:?}\")";
    macro_follows(body, &LINKINGS, &|world, follows| {
        let few = || world.remove("p/data/b");
        let more = || world.write(&[("p/data/b", "")]);
        follows(&[(&few, &[]), (&more, &[])]);
    });
}

#[test]
fn a_file_that_is_not_there() {
    macro_follows("std::path::Path::new(\"data/flag\").exists().to_string()", CARGOS, &|world, follows| {
        let absent = || world.remove("p/data/flag");
        let present = || world.write(&[("p/data/flag", "")]);
        follows(&[(&absent, &[]), (&present, &[])]);
    });
}

#[test]
fn a_file_in_a_directory_that_is_not_there() {
    macro_follows("std::fs::read_to_string(\"data/d/f\").unwrap_or_default()", CARGOS, &|world, follows| {
        let absent = || world.remove("p/data/d");
        let present = || world.write(&[("p/data/d/f", "present")]);
        follows(&[(&absent, &[]), (&present, &[])]);
    });
}

#[test]
fn a_script_that_is_run() {
    let body = "String::from_utf8(std::process::Command::new(\"data/run.sh\").output().unwrap().stdout).unwrap()";
    macro_follows(body, CARGOS, &|world, follows| {
        let one = || drop(world.script("p/data/run.sh", "#!/bin/sh\necho one\n"));
        let other = || drop(world.script("p/data/run.sh", "#!/bin/sh\necho other\n"));
        follows(&[(&one, &[]), (&other, &[])]);
    });
}

#[test]
fn a_program_that_is_found_along_the_path() {
    let body = "String::from_utf8(std::process::Command::new(\"zc-tool\").output().unwrap().stdout).unwrap()";
    macro_follows(body, CARGOS, &|world, follows| {
        world.script("p/late/zc-tool", "#!/bin/sh\necho late\n");
        let path = format!("{}:{}:/usr/bin:/bin", world.path("p/early").display(), world.path("p/late").display());
        let only_late = || world.remove("p/early");
        let early = || drop(world.script("p/early/zc-tool", "#!/bin/sh\necho early\n"));
        let env = [("PATH", path.as_str())];
        follows(&[(&only_late, &env), (&early, &env)]);
    });
}

#[test]
fn a_variable_that_a_child_reads() {
    let body = "String::from_utf8(std::process::Command::new(\"sh\").args([\"-c\", \"echo got $HIDDEN\"])
        .output().unwrap().stdout).unwrap()";
    macro_follows(body, CARGOS, &|_, follows| {
        follows(&[(&|| (), &[("HIDDEN", "one")]), (&|| (), &[("HIDDEN", "other")]), (&|| (), &[])]);
    });
}

#[test]
fn a_variable_that_is_found_by_walking_over_all() {
    let body = "std::env::vars_os().find(|v| v.0 == \"HIDDEN\").map_or(\"unset\".into(), |v| format!(\"{v:?}\"))";
    macro_follows(body, &LINKINGS, &|_, follows| {
        follows(&[(&|| (), &[("HIDDEN", "one")]), (&|| (), &[("HIDDEN", "other")]), (&|| (), &[])]);
    });
}

#[test]
fn variables_that_the_compiler_itself_may_ignore() {
    let body = "[\"PATH\", \"TMPDIR\", \"MAKEFLAGS\", \"RUST_RECURSION_COUNT\", \"LD_PRELOAD\", \"OUT_DIR\"]
        .map(|name| format!(\"{:?}\", std::env::var(name))).join(\" \")";
    for name in ["PATH", "TMPDIR", "MAKEFLAGS", "RUST_RECURSION_COUNT", "OUT_DIR"] {
        macro_follows(body, CARGOS, &|_, follows| {
            follows(&[(&|| (), &[(name, "/tmp:/usr/bin:/bin")]), (&|| (), &[(name, "/usr/bin:/bin")])]);
        });
    }
}

#[test]
fn the_length_of_a_file() {
    file_follows("std::fs::metadata(\"data/f\").unwrap().len().to_string()", &LINKINGS);
}

#[test]
fn the_length_of_a_file_in_a_listing() {
    file_follows(
        "std::fs::read_dir(\"data\").unwrap().map(|e| e.unwrap().metadata().unwrap()).filter(|m| m.is_file())
            .map(|m| m.len()).sum::<u64>().to_string()",
        &LINKINGS,
    );
}

#[test]
fn the_permissions_of_a_file() {
    let body = "use std::os::unix::fs::PermissionsExt;
        format!(\"{:o}\", std::fs::metadata(\"data/f\").unwrap().permissions().mode())";
    macro_follows(body, &LINKINGS, &|world, follows| {
        let plain = || {
            world.remove("p/data/f");
            world.write(&[("p/data/f", "same")]);
        };
        let runs = || drop(world.script("p/data/f", "same"));
        follows(&[(&plain, &[]), (&runs, &[])]);
    });
}

#[test]
fn the_time_of_a_file() {
    let body = "let time = std::fs::metadata(\"data/f\").unwrap().modified().unwrap();
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string()";
    macro_follows(body, CARGOS, &|world, follows| {
        let dated = |seconds: u64| {
            world.write(&[("p/data/f", "same")]);
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = std::fs::File::options().write(true).open(world.path("p/data/f")).unwrap();
            file.set_modified(time).unwrap();
        };
        let (one, two) = (|| dated(1000), || dated(2000));
        follows(&[(&one, &[]), (&two, &[])]);
    });
}

#[test]
fn files_read_by_threads() {
    let body = "let read = |n: u8| std::thread::spawn(move || std::fs::read_to_string(format!(\"data/{n}\")).unwrap());
        [0, 1, 2, 3].map(read).map(|t| t.join().unwrap()).join(\"\")";
    macro_follows(body, CARGOS, &|world, follows| {
        let all = |texts: [&str; 4]| {
            for (n, text) in texts.iter().enumerate() {
                world.write(&[(&format!("p/data/{n}"), text)]);
            }
        };
        let (first, second, third) =
            (|| all(["a", "b", "c", "d"]), || all(["a", "b", "c", "D"]), || all(["A", "b", "c", "d"]));
        follows(&[(&first, &[]), (&second, &[]), (&third, &[])]);
    });
}

#[test]
fn a_link_that_is_read_and_a_link_that_is_followed() {
    for body in [
        "std::fs::read_link(\"data/l\").unwrap().display().to_string()",
        "std::fs::canonicalize(\"data/l\").unwrap().file_name().unwrap().to_str().unwrap().to_owned()",
        "std::fs::read_to_string(\"data/l\").unwrap()",
        "std::fs::read_to_string(\"data/l/../x\").unwrap_or_default() + &std::fs::read_to_string(\"data/l\").unwrap()",
    ] {
        macro_follows(body, CARGOS, &|world, follows| {
            world.write(&[("p/data/a", "in a"), ("p/data/b", "in b")]);
            let to = |name: &str| {
                world.remove("p/data/l");
                symlink(name, world.path("p/data/l")).unwrap();
            };
            let (a, b) = (|| to("a"), || to("b"));
            follows(&[(&a, &[]), (&b, &[])]);
        });
    }
}

#[test]
fn a_file_by_a_path_relative_to_a_directory_that_was_changed_to() {
    file_follows(
        "let was = std::env::current_dir().unwrap(); std::env::set_current_dir(\"data\").unwrap();
        let text = std::fs::read_to_string(\"f\").unwrap(); std::env::set_current_dir(was).unwrap(); text",
        CARGOS,
    );
}

#[test]
fn an_object_that_is_loaded() {
    let body = "extern \"C\" { fn dlopen(n: *const u8, f: i32) -> usize; fn dlsym(h: usize, n: *const u8) -> usize; }
        let f = unsafe { dlsym(dlopen(b\"./data/x.so\\0\".as_ptr(), 2), b\"answer\\0\".as_ptr()) };
        assert!(f != 0); let f: extern \"C\" fn() -> i32 = unsafe { std::mem::transmute(f) }; f().to_string()";
    macro_follows(body, CARGOS, &|world, follows| {
        let object = |number: u32| {
            world.write(&[("x.c", &format!("int answer(void) {{ return {number}; }}"))]);
            world.remove("p/data/x.so");
            run(world.command("gcc").args(["-shared", "-fPIC", "x.c", "-o", "p/data/x.so"]));
        };
        let (one, two) = (|| object(1), || object(2));
        follows(&[(&one, &[]), (&two, &[])]);
    });
}

#[test]
fn the_name_of_the_directory() {
    let body = "std::env::current_dir().unwrap().file_name().unwrap().to_str().unwrap().to_owned()";
    for linking in LINKINGS {
        let world = World::new();
        fixture::write_macro(&world, body, linking);
        run(world.command("cp").args(["-r", "p", "q"]));
        for (dir, hits) in [("p", 0), ("q", 0), ("p", 1), ("q", 2)] {
            let arguments = "app.rs --edition 2021 --extern mac=libmac.so --crate-name app --out-dir out";
            world.remove(&format!("{dir}/out"));
            run(&mut fixture::rustc_in(&world, dir, true, arguments));
            let said = stdout(&mut world.command(world.path(&format!("{dir}/out/app"))));
            assert_eq!(said, dir, "{linking}\n{}", world.log());
            assert_eq!(world.total("hits"), hits, "{dir}, {linking}\n{}", world.log());
        }
    }
}

#[test]
fn a_file_that_a_macro_writes_comes_back() {
    for linking in LINKINGS {
        let world = World::new();
        let body = "std::fs::create_dir_all(\"gen/deep\").unwrap();
            std::fs::write(\"gen/deep/f\", std::fs::read(\"data/f\").unwrap()).unwrap(); \"done\".into()";
        fixture::write_macro(&world, body, linking);
        for (text, hits) in [("one", 0), ("one", 1), ("other", 1), ("one", 2), ("other", 3)] {
            fixture::settle(&|| world.write(&[("p/data/f", text)]));
            world.remove("p/out");
            world.remove("p/gen");
            run(&mut fixture::app(&world, true));
            assert_eq!(fs::read_to_string(world.path("p/gen/deep/f")).unwrap(), text, "{linking}\n{}", world.log());
            assert_eq!(world.total("hits"), hits, "{text}, {linking}: {}\n{}", fixture::reasons(&world), world.log());
        }
    }
}

/// What is asked for without its time, and what a fresh clone leaves of it.
#[test]
fn a_time_that_was_not_asked_for_does_not_count() {
    let c = "extern \"C\" { fn access(p: *const u8, m: i32) -> i32;
        fn statx(d: i32, p: *const u8, f: i32, m: u32, b: *mut u64) -> i32; } let mut b = [0_u64; 64];";
    for body in [
        format!("{c} let _ = &mut b; unsafe {{ access(c\"data/f\".as_ptr().cast(), 2) }}.to_string()"),
        format!(
            "{c} unsafe {{ statx(-100, c\"data/f\".as_ptr().cast(), 0, 3, b.as_mut_ptr()) }}; (b[3] >> 32).to_string()"
        ),
    ] {
        let world = World::new();
        fixture::write_macro(&world, &body, LINKINGS[0]);
        let compile = || {
            world.remove("p/out");
            run(&mut fixture::app(&world, true));
            world.total("hits")
        };
        fixture::settle(&|| world.write(&[("p/data/f", "one")]));
        compile();
        for (number, change) in ["touch p/data/f", "rm p/data/f; echo other > p/data/f"].iter().enumerate() {
            fixture::settle(&|| drop(run(world.command("sh").args(["-c", change]))));
            assert_eq!(compile(), number as u64 + 1, "{change}: {}", world.log());
        }
        fixture::settle(&|| drop(run(world.command("chmod").args(["755", "p/data/f"]))));
        assert_eq!(compile(), 2, "{}", world.log());
    }
}

/// Of a directory too.
#[test]
fn the_time_of_a_directory() {
    let body = "format!(\"{:?}\", std::fs::metadata(\"data\").unwrap().modified().unwrap())";
    macro_follows(body, CARGOS, &|world, follows| {
        let date = |time: &str| drop(run(world.command("touch").args(["-d", time, "p/data"])));
        follows(&[(&|| date("2001-01-01"), &[]), (&|| date("2002-02-02"), &[])]);
    });
}
