//! Which files are one: gcc and clang include a file once and search a directory once, and judge by more than content.
//! Each line is walked through states in which the same paths hold the same bytes, and does in each what bare does there.

mod fixture;
mod harness;
mod matrix;

use fixture::settle;
use harness::{Effect, assert_same, effect};
use matrix::Matrix;

const FILES: &[(&str, &str)] = &[
    ("once.c", "#include \"a/h.h\"\n#include \"b/h.h\"\nstruct s x;\n"),
    ("import.c", "#import \"a/p.h\"\n#import \"b/p.h\"\nstruct s x;\n"),
    ("mixed.c", "#import \"a/p.h\"\n#include \"b/p.h\"\nstruct s x;\n"),
    ("next.c", "#include <n.h>\nint x = N;\n"),
    ("twice.c", "#include \"a/h.h\"\n#include \"a/../b/h.h\"\nstruct s x;\n"),
    ("a/h.h", "#pragma once\nstruct s { int i; };\n"),
    ("a/p.h", "struct s { int i; };\n"),
    ("a/n.h", "#include_next <n.h>\n#ifndef N\n#define N 1\n#else\n#define MORE\n#endif\n"),
    ("c/n.h", "#define N 3\n"),
];

/// How `b` relates to `a`.
const STATES: &[&str] = &[
    "cp -r a b; touch -d 2001-01-01 a/*; touch -d 2002-02-02 b/*",
    "cp -r a b; touch -d 2001-01-01 a/* b/*",
    "cp -r a b; touch -d 2001-01-01T00:00:00.1 a/*; touch -d 2001-01-01T00:00:00.9 b/*",
    "mkdir b; ln a/* b",
    "mkdir b; ln -s ../a/h.h ../a/p.h ../a/n.h b",
    "ln -s a b",
    "mv a b; ln -s b a",
    "cp -r a d; touch -d 2001-01-01 a/*; touch -d 2002-02-02 d/*; ln -s d b",
];

const COMPILES: &[&str] = &[
    "%gcc -c once.c -o out/x.o",
    "%gcc -E once.c -o out/x.i -MD",
    "%gcc -c import.c -o out/x.o",
    "%gcc -c mixed.c -o out/x.o",
    "%gcc -c twice.c -o out/x.o",
    "%g++ -x c++ -c once.c -o out/x.o",
    "%gcc -E next.c -Ia -Ib -Ic -o out/x.i",
    "%gcc -E next.c -iquote a -isystem b -Ic -Ia -o out/x.i",
];

const COMPILES_OF_CLANG: &[&str] = &[
    "%clang -c once.c -o out/x.o",
    "%clang -E import.c -o out/x.i",
    "%clang -c mixed.c -o out/x.o",
    "%clang -E next.c -Ia -Ib -Ic -o out/x.i",
];

fn are_followed(compiles: &[&str]) {
    for compile in compiles {
        let matrix = Matrix::new(FILES);
        let mut answers: Vec<Effect> = Vec::new();
        for state in STATES.iter().chain(STATES) {
            let get = |cached| {
                settle(&|| {
                    matrix.lay_out();
                    assert!(matrix.shell(state, false).status().expect("a shell").success(), "{state}");
                });
                effect(&mut matrix.shell(compile, cached), &matrix.dir().join("out"))
            };
            let bare = get(false);
            assert_same(&bare, &get(true), &format!("{compile} after {state}: {}", matrix.why()));
            let hits = matrix.world.total("hits");
            assert_same(&bare, &get(true), &format!("{compile} again after {state}: {}", matrix.why()));
            let is_hit = bare.code != Some(0) || matrix.world.total("hits") > hits;
            assert!(is_hit, "{compile} again after {state}: {}", matrix.why());
            answers.extend((!answers.contains(&bare)).then_some(bare));
        }
        println!("{compile}: {} answers", answers.len());
    }
}

#[test]
fn files_that_part_or_become_one_are_followed() {
    are_followed(COMPILES);
}

#[test]
#[ignore = "needs clang"]
fn files_that_part_or_become_one_are_followed_by_clang() {
    are_followed(COMPILES_OF_CLANG);
}
