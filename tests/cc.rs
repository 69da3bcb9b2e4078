//! A hit equals the bare compile: gcc and clang alone, as a miss and as a hit, compared in files, bytes, modes, streams
//! and exit code, over what build systems ask of them.

mod fixture;
mod harness;
mod matrix;

use matrix::{Expected, Matrix};

const FILES: &[(&str, &str)] = &[
    ("m.c", "#include <stdio.h>\n#include \"h.h\"\nint f(int x) { return x + H; }\n"),
    ("h.h", "#define H 1\n"),
    ("inc/only.h", "#define ONLY 2\n"),
    ("main.c", "int main(void) { return 0; }\n"),
    ("uses.c", "#include <only.h>\nint g(void) { return ONLY; }\n"),
    ("w.c", "int f(void) { int unused; return 1; }\n"),
    ("bad.c", "#include \"h.h\"\nint f(void) { return missing; }\n"),
    ("nohdr.c", "#include \"not-there.h\"\n"),
    ("quoted.c", "const char *x = X; const char *y = Y;\n"),
    ("x.cc", "#include \"h.h\"\nint f() { return H; }\n"),
    ("heavy.cc", HEAVY),
    ("a.S", "#include \"h.h\"\n.globl q\nq: .long H\n"),
    ("b.s", ".globl q\nq: .long 1\n.include \"c.inc\"\n"),
    ("c.inc", ".long 2\n"),
    ("p.i", "int f(void) { return 2; }\n"),
    ("p.ii", "int f() { return 2; }\n"),
    ("o.m", "int f(void) { return 2; }\n"),
    ("a b$c.c", "#include \"d e.h\"\nint f(void) { return E; }\n"),
    ("d e.h", "#define E 5\n"),
    ("odd¿.c", "#include \"h.h\"\nconst char *f(void) { return __FILE__; }\n"),
    ("args", "-O2 \"-DX=\\\"a b\\\"\" @nested\n\n"),
    ("nested", "'-DY=\"c d\"' -I inc\n-DZ=\\\"\\ \\\" "),
    ("loop", "-O1 @loop"),
];

const HEAVY: &str = "#include <algorithm>\n#include <iostream>\n#include <map>\n#include <regex>\n#include <string>
#include <unordered_map>\n#include <vector>
int f() { std::map<std::string, int> m; std::vector<int> v(3); std::cout << v.size(); return int(m.size()); }\n";

/// What a project asks of either compiler and gets from the store the second time.
const STORED: &[&str] = &[
    "-c m.c",
    "-c m.c -o out/m.o",
    "-c -o out/m.o m.c -pipe",
    "-O2 -g -c m.c",
    "-g3 -gz -c m.c",
    "-S m.c",
    "-S m.c -o -",
    "-c m.c -o /dev/null",
    "-c ./m.c -Iinc -Inope -o ./out/../out/m.o",
    "-c uses.c -Iinc -MD",
    "-c uses.c -isystem inc -MMD",
    "-c $PWD/m.c -o $PWD/out/m.o -MD -MF $PWD/out/m.d",
    "-xc -c m.c",
    "-c w.c -Wall -o out/w.o",
    "-c w.c -Wall -fdiagnostics-color=always",
    "-c w.c -Wall -w",
    "-c a.S -o out/a.o -MD",
    "-g -c a.S",
    "-c b.s",
    "-c p.i",
    "-c -g3 m.c -gsplit-dwarf -o out/m.o",
    "-c m.c -save-temps",
    "-c m.c -save-temps=obj -o out/m.o",
    "-c m.c -fstack-usage",
    "-c m.c -frandom-seed=1 --coverage -o out/m.o",
    "-c m.c -frandom-seed=1 -ftest-coverage -fprofile-arcs",
    "-frandom-seed=1 -flto -c m.c",
    "-g -fdebug-prefix-map=$PWD=. -c m.c",
    "-g -ffile-prefix-map=$PWD=/x -c m.c",
    "-E m.c",
    "-E m.c -o out/m.i",
    "-E -P -dM m.c",
    "-E -dD -CC h.h",
    "-M m.c",
    "-MM m.c -MT tgt -MP",
    "-MM m.c -MF out/d.d",
    "-M -MG nohdr.c",
    "-fsyntax-only m.c",
    "-fsyntax-only -Wall w.c",
    "-c m.c w.c",
    "-c m.c x.cc a.S -MD",
    "--version",
    "-dumpmachine",
    "-dumpversion",
    "-print-search-dirs",
    "-print-file-name=libc.so",
    "-c 'a b$c.c' -MD -o 'out/a b$c.o'",
    "-c 'a b$c.c' -MD -MT 'x y$z' -MQ 'x y$z'",
    "-c 'odd¿.c' -MD -o 'out/odd¿.o'",
    "-c quoted.c @args",
    "-c @args quoted.c -MD -o out/q.o",
    "-c m.c -include h.h",
    "-c m.c -include inc/only.h -MD -imacros h.h",
    "-c m.c -DF='\"%\"' -UH -std=c11 -fPIC -fvisibility=hidden",
    "-march=native -c m.c",
    "-x c++ -c x.cc -x c m.c",
];

/// Commands that fail, or whose end says nothing that is worth keeping: run every time.
const FAILING: &[&str] = &[
    "-c bad.c",
    "-c bad.c -o out/bad.o -MD",
    "-c nohdr.c -MD -o out/n.o",
    "-c gone.c",
    "-c m.c gone.c",
    "-c m.c --no-such-option",
    "-c w.c -Wall -Werror",
    "-c m.c @missing",
    "-c m.c -o nodir/m.o",
    "-c m.c -MD -MF nodir/m.d",
    "-c m.c w.c -o out/both.o",
    "-fsyntax-only bad.c",
];

/// gcc's precompiled headers differ from one time to the next.
const BYPASSED: &[(&str, &str)] = &[
    ("main.c -o out/main", "link"),
    ("-shared -fPIC m.c -o out/m.so", "link"),
    ("h.h -o out/h.gch; rm out/h.gch", "precompiled_header"),
    ("-x c-header h.h -o out/h.gch; rm out/h.gch", "precompiled_header"),
];

/// Both compilers' lines.
fn both(compiler: &str) {
    let matrix = Matrix::new(FILES);
    let line = |arguments: &&str| format!("%{compiler} {}", arguments.replace('%', "x"));
    matrix.all(Expected::Stored, &STORED.iter().map(line).collect::<Vec<_>>());
    matrix.all(Expected::Refused("compile_failed"), &FAILING.iter().map(line).collect::<Vec<_>>());
    for (arguments, reason) in BYPASSED {
        matrix.check(Expected::Bypassed(reason), &line(arguments));
    }
}

#[test]
fn what_gcc_is_asked() {
    both("gcc");
}

#[test]
#[ignore = "needs clang"]
fn what_clang_is_asked() {
    both("clang");
}

#[test]
fn what_only_gcc_is_asked() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Stored,
        &[
            "%gcc -c m.c -fcallgraph-info",
            "%gcc -c m.c -fcallgraph-info=su,da -fstack-usage -o out/m.o",
            "%gcc -c m.c -fdump-tree-original -o out/m.o",
            "%gcc -c m.c -frandom-seed=1 -flto -ffat-lto-objects -o out/m.o",
            "%gcc -c m.c -save-temps -dumpdir out/ -o out/m.o",
            "%gcc -c w.c -Wall -fdiagnostics-format=json",
            "%gcc -c m.c -aux-info out/m.X -Wa,-adhln=out/m.lst",
            "%gcc -c m.c -specs=/dev/null",
            "%gcc -v -c p.i -o out/p.o 2> /dev/null",
            "%cc -c m.c",
            "%c99 -c m.c",
            "%gcc-12 -c m.c",
            "%$(command -v gcc) -c m.c",
        ],
    );
    matrix.all(Expected::Bypassed("argument_file"), &["%gcc -c m.c @loop"]);
}

#[test]
#[ignore = "needs clang"]
fn what_only_clang_is_asked() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Stored,
        &[
            "%clang -c o.m",
            "%clang -c m.c -MJ out/m.json -o out/m.o",
            "%clang -c w.c -Wall --serialize-diagnostics out/w.dia",
            "%clang -c m.c -emit-llvm -o out/m.bc",
            "%clang -S -emit-llvm m.c -o out/m.ll",
            "%clang -c m.c -fno-integrated-as",
            "%clang -c m.c -flto=thin -o out/m.o",
            "%clang -c m.c -fsave-optimization-record -O2 -o out/m.o",
            "%clang --target=aarch64-linux-gnu -c p.i -o out/p.o",
            "%clang -c m.c -Xclang -disable-llvm-passes",
        ],
    );
}

/// What remains of 64 mixes of depfile options after gcc and clang have said what they think of them is the same bare.
fn depfiles(compiler: &str) {
    let matrix = Matrix::new(FILES);
    let options = ["-MF out/d.d", "-MT tgt", "-MQ '$tgt'", "-MP", "-o out/m.o"];
    for kind in ["-MD", "-MMD"] {
        for mix in 0..1 << options.len() {
            let chosen = options.iter().enumerate().filter(|(bit, _)| mix >> bit & 1 == 1).map(|(_, option)| *option);
            let line = format!("%{compiler} -c m.c {kind} {}", chosen.collect::<Vec<_>>().join(" "));
            let bare = matrix.check(Expected::Stored, &line);
            assert!(bare.files.keys().any(|name| name.extension().is_some_and(|e| e == "d")), "{line}");
        }
    }
    let more = [
        "-Wp,-MD,out/d.d",
        "-Wp,-MMD,out/d.d -o out/m.o",
        "-Wp,-MMD,out/d.d -Wp,-MT,tgt -Wp,-MP",
        "-MD -MFout/d.d -MTtgt -MT other",
        "-MD -MF -",
        "-MMD -MF /dev/null",
        "-MD -S -o out/m.s",
        "-E -MD -MF out/d.d -MT tgt",
    ];
    let line = |arguments: &&str| format!("%{compiler} -c m.c {arguments}");
    matrix.all(Expected::Stored, &more.iter().map(line).collect::<Vec<_>>());
}

#[test]
fn every_mix_of_depfile_options_with_gcc() {
    depfiles("gcc");
}

#[test]
#[ignore = "needs clang"]
fn every_mix_of_depfile_options_with_clang() {
    depfiles("clang");
}

#[test]
#[ignore = "needs g++"]
fn cxx_with_many_headers() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Stored,
        &["%g++ -c heavy.cc -o out/heavy.o -g -MD", "%c++ -c p.ii", "%g++ -E x.cc", "%gcc -c x.cc -o out/x.o"],
    );
}

#[test]
#[ignore = "needs clang"]
fn cxx_with_many_headers_by_clang() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Stored,
        &["%clang++ -c heavy.cc -o out/heavy.o -g -MD", "%clang++ -c p.ii", "%clang++ -Wall -c m.c -o out/m.o"],
    );
}

#[test]
fn modes_follow_the_callers_umask() {
    let matrix = Matrix::new(FILES);
    for umask in ["077", "022", "002"] {
        for line in ["%gcc -c m.c -MD -fstack-usage", "%gcc -S m.c -o out/m.s", "%gcc -g -gsplit-dwarf -c m.c"] {
            let bare = matrix.check(Expected::Stored, &format!("umask {umask}; {line}"));
            let made = bare.files.iter().filter(|(name, _)| name.starts_with("out/m.s") || name.ends_with("m.o"));
            let mode = 0o666 & !u32::from_str_radix(umask, 8).unwrap();
            made.for_each(|(name, (got, _))| assert_eq!(*got, mode, "{line} {}", name.display()));
        }
    }
}

#[test]
fn a_depfile_that_was_deleted_comes_back() {
    let matrix = Matrix::new(FILES);
    let line = "%gcc -c uses.c -Iinc -MD -MF out/u.d -o out/u.o";
    let bare = matrix.check(Expected::Stored, line);
    std::fs::remove_file(matrix.dir().join("out/u.d")).unwrap();
    let again = harness::effect(&mut matrix.shell(line, true), &matrix.dir());
    harness::assert_same(&bare, &again, "after deleting the depfile");
    assert_eq!(matrix.world.total("hits"), 2);
    // The other half of it.
    std::fs::remove_file(matrix.dir().join("out/u.o")).unwrap();
    let again = harness::effect(&mut matrix.shell(line, true), &matrix.dir());
    harness::assert_same(&bare, &again, "after deleting the object");
    assert_eq!(matrix.world.total("hits"), 3);
}

#[test]
fn a_directory_that_is_gone_is_an_error_even_where_a_result_is_known() {
    let matrix = Matrix::new(FILES);
    for line in ["%gcc -c m.c -o out/m.o", "%gcc -c m.c -o out/m.o -MD -MF dep/m.d"] {
        matrix.check(Expected::Stored, &format!("mkdir dep; {line}"));
        for gone in ["out", "dep"] {
            let line = format!("mkdir dep; rmdir {gone}; {line}");
            let bare = matrix.fresh(&line, false);
            harness::assert_same(&bare, &matrix.fresh(&line, true), &line);
        }
    }
}

#[test]
fn older_outputs_are_replaced_alike() {
    let matrix = Matrix::new(FILES);
    for before in [
        "echo old > m.o",
        "echo old > m.o; chmod 400 m.o",
        "echo old > m.d; chmod 400 m.d",
        "echo old > m.d; chmod 606 m.d",
        "ln -s out/there m.o; echo old > out/there",
    ] {
        let line = format!("{before}; %gcc -c m.c -MD");
        let bare = matrix.fresh(&line, false);
        for round in ["first", "second", "third"] {
            harness::assert_same(&bare, &matrix.fresh(&line, true), &format!("{round} of {line}"));
        }
    }
}
