//! Outputs that are there already: links, other names, other permissions, lists of access. Whatever the bare compiler does
//! with each, a miss and a later hit do the same, and it is counted once.

mod fixture;
mod harness;
mod matrix;

use std::fs;

use fixture::{rustc_in, settle};
use harness::{Effect, World, assert_same, run};
use matrix::{Expected, Matrix};

const FILES: &[(&str, &str)] = &[
    ("m.c", "#include \"h.h\"\nint f(int x) { for (int i = 0; i < x; i++) x += i * H; return x; }\n"),
    ("h.h", "#define H 3\n"),
];

/// How what is there came to be. `$O` is the output.
const BEFORE: &[&str] = &[
    "echo older > $O",
    ": > $O",
    "echo older > out/t; ln -s t $O",
    ": > out/t; ln -s t $O",
    "ln -s none $O",
    "ln -s /dev/null $O",
    "echo older > out/t; ln out/t $O",
    ": > out/t; ln out/t $O",
    "echo older > $O; chmod 600 $O",
    "echo older > $O; chmod 755 $O",
    "echo older > $O; chmod 444 $O",
    "echo older > $O; setfacl -m u:daemon:rw $O",
    ": > $O; setfacl -m u:daemon:r $O",
    "echo older > $O; setfattr -n user.x -v y $O 2> /dev/null || true",
    "mkdir $O",
    "mkdir out/d; ln -s d out/l; O=out/l/x",
    "setfacl -d -m u:daemon:rw out",
    "chmod g+s out",
];

const COMPILES: &[&str] = &["%gcc -c m.c -o $O", "%gcc -S m.c -o $O", "%gcc -c m.c -o out/m.o -MD -MF $O"];

const COMPILES_OF_CLANG: &[&str] =
    &["%clang -c m.c -o $O", "%clang -S m.c -o $O", "%clang -c m.c -o out/m.o -MD -MF $O"];

/// What is left, links followed, with what a listing of the directory says of each name.
fn after(matrix: &Matrix<'_>, line: &str, cached: bool) -> (Effect, String) {
    let listed = "ls -ln --time-style=+ out 2>&1; getfacl -cn $O 2> /dev/null; cksum out/t 2> /dev/null";
    let effect =
        matrix.fresh(&format!("umask 022; O=out/x; {line}; code=$?; ({listed}) > ../listing; exit $code"), cached);
    let listing = fs::read_to_string(matrix.world.path("listing")).expect("a listing");
    (effect, listing)
}

fn each_is_as_bare(compiles: &[&str]) {
    for compile in compiles {
        // Each state is met by a result of every other.
        let matrix = Matrix::new(FILES);
        for before in [&["true"], BEFORE, &["true"], BEFORE].concat() {
            let line = format!("{before}; {compile}");
            let (bare, listing) = after(&matrix, &line, false);
            let errors = matrix.world.total("errors");
            let (got, listed) = after(&matrix, &line, true);
            assert_eq!(listing, listed, "{line}: {}", matrix.why());
            assert_same(&bare, &got, &format!("{line}: {}", matrix.why()));
            assert_eq!(matrix.world.total("errors"), errors, "{line}: {}", matrix.world.log());
        }
        assert!(matrix.world.total("hits") > 0, "{compile}: {}", matrix.why());
    }
}

#[test]
fn what_is_there_already_is_treated_as_bare_does() {
    each_is_as_bare(COMPILES);
}

#[test]
#[ignore = "needs clang"]
fn what_is_there_already_is_treated_as_clang_does() {
    each_is_as_bare(COMPILES_OF_CLANG);
}

#[test]
#[ignore = "needs root: another owner"]
fn what_is_there_already_may_belong_to_another() {
    let matrix = Matrix::new(FILES);
    for before in ["echo older > $O; chown daemon $O", ": > $O; chown daemon:daemon $O"] {
        for compile in COMPILES {
            for first in ["true", before] {
                let line = format!("{first}; {compile}");
                let (bare, listing) = after(&matrix, &line, false);
                let (got, listed) = after(&matrix, &line, true);
                assert_same(&bare, &got, &format!("{line}: {}", matrix.why()));
                assert_eq!(listing, listed, "{line}");
            }
        }
    }
    assert_eq!(matrix.world.total("errors"), 0);
}

/// Side outputs over those of the compile before.
#[test]
fn side_outputs_are_made_anew() {
    let matrix = Matrix::new(FILES);
    for line in ["gcc -g -gsplit-dwarf -c m.c -o out/m.o", "gcc -c m.c -save-temps=obj -o out/m.o"] {
        matrix.all(Expected::Stored, &[format!("{line}; %{line}")]);
    }
}

/// A file that is appended to holds more after each compile.
#[test]
fn what_is_appended_to_is_never_put_back() {
    let matrix = Matrix::new(FILES);
    let line = "%gcc -O3 -c m.c -o out/m.o -fopt-info-all=out/notes";
    matrix.all(Expected::Stored, &[line]);
    matrix.all(Expected::Refused("modified_file"), &[format!("echo older > out/notes; {line}")]);
}

/// A library that its blob shares is written into, and all its times but that of the change are put back.
#[test]
fn a_library_changed_in_place_is_not_what_others_get() {
    let world = World::new();
    let compile = "--crate-name x --crate-type lib x.rs --emit=metadata,link --out-dir";
    settle(&|| world.write(&[("p/x.rs", "pub fn f() -> &'static str { \"a text of mine\" }\n")]));
    for round in 0..3 {
        world.remove("p/a");
        run(rustc_in(&world, "p", true, &format!("{compile} a")).env("X", "1"));
        let [library, bare] = ["p/a/libx.rlib", "p/bare"].map(|name| world.path(name));
        world.status();
        if round == 0 {
            fs::copy(&library, &bare).unwrap();
        }
        assert_eq!(fs::read(&library).unwrap(), fs::read(&bare).unwrap(), "round {round}: {}", world.log());
        let change = "touch -r a/libx.rlib t; printf X | dd of=a/libx.rlib conv=notrunc bs=1 seek=3000 status=none; touch -r t a/libx.rlib";
        run(world.command("sh").args(["-c", change]).current_dir(world.path("p")));
        run(&mut rustc_in(&world, "p", true, &format!("{compile} b{round}")));
        let other = world.path(&format!("p/b{round}/libx.rlib"));
        assert_eq!(fs::read(other).unwrap(), fs::read(&bare).unwrap(), "round {round}: {}", world.log());
    }
}
