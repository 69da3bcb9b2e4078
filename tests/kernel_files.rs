//! What is a file, and what is the kernel's: memory is a disk like any other, the kernel's links lead to real files, and
//! what went into a pipe, a device or a descriptor that a compile was given cannot be put back. Each line is compared with
//! bare, and joins the others of its kind.

mod fixture;
mod harness;
mod matrix;

use std::path::Path;

use harness::{World, assert_same, run};
use matrix::{Expected, Matrix};

const FILES: &[(&str, &str)] = &[
    ("m.c", "#include \"h.h\"\nint f(int x) { return x + H; }\n"),
    ("h.h", "#define H 1\n"),
    ("u.c", "#include \"v.h\"\nint g(void) { return V; }\n"),
    ("inc/.keep", ""),
    ("other/v.h", "#define V 0\n"),
    ("lib.rs", "mod m;\npub fn f() -> u32 { m::V }\n"),
    ("m.rs", "pub const V: u32 = 1;\n"),
];

/// The directory of memory that every Linux has.
const MEMORY: &str = "/dev/shm";

#[test]
fn what_lies_in_memory_is_stored_and_served() {
    let matrix = Matrix::below(MEMORY, FILES);
    let rustc = harness::rustc().display();
    matrix.all(
        Expected::Stored,
        &[
            "%gcc -c m.c".to_owned(),
            "%gcc -c m.c -o out/m.o -MD".to_owned(),
            "%gcc -c $PWD/m.c -o $PWD/out/m.o -MD -MF $PWD/out/deps".to_owned(),
            "%gcc -E m.c -o out/m.i".to_owned(),
            "%gcc -g -S m.c -I/dev/../dev/shm".to_owned(),
            format!("%{rustc} --crate-name x --crate-type lib lib.rs --emit=dep-info,metadata,link --out-dir out"),
            format!("%{rustc} --crate-name x --crate-type lib lib.rs --emit=obj -o out/x.o"),
        ],
    );
}

#[test]
#[ignore = "needs clang"]
fn what_lies_in_memory_is_stored_and_served_with_clang() {
    let matrix = Matrix::below(MEMORY, FILES);
    matrix.all(Expected::Stored, &["%clang -c m.c", "%clang -g -c m.c -o out/m.o -MMD"]);
}

/// A whole project in memory.
#[test]
fn cargo_in_memory_is_served() {
    let world = World::below(Path::new(MEMORY));
    world.write(&[
        ("p/Cargo.toml", "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
        ("p/src/lib.rs", "pub fn f() -> u32 { 1 }\n"),
        ("p/src/main.rs", "fn main() { println!(\"{}\", p::f()) }\n"),
    ]);
    run(&mut world.cargo("p", "build"));
    world.remove("p/target");
    let before = world.status();
    run(&mut world.cargo("p", "build"));
    let counts = world.since(&before);
    assert!(counts.hits >= 2 && counts.misses == 0, "{counts:?} {}\n{}", fixture::reasons(&world), world.log());
}

/// Walks one line through states of the world, in each of which it has to do what bare does.
fn follows(place: &str, line: &str, states: &[&str]) {
    let matrix = Matrix::below(place, FILES);
    for state in states.iter().chain(states) {
        let line = format!("{state}; {line}");
        let bare = matrix.fresh(&line, false);
        let got = matrix.fresh(&line, true);
        assert_same(&bare, &got, &format!("{line}: {}", matrix.why()));
    }
}

/// A header that changes, and one that appears before it.
const STATES: &[&str] = &[
    "echo '#define V 1' > inc/v.h",
    "echo '#define V 2' > inc/v.h",
    "mkdir -p first; echo '#define V 2' > inc/v.h; echo '#define V 3' > first/v.h",
    "rm -f inc/v.h",
];

const WAYS_TO_A_HEADER: &[&str] = &[
    "%gcc -c u.c -I$PWD/first -I$PWD/inc",
    "%gcc -c u.c -I/proc/self/cwd/first -I/proc/self/cwd/inc",
    "%gcc -c u.c -I/proc/self/root$PWD/first -I/proc/self/root$PWD/inc",
    "%gcc -c u.c -I/proc/thread-self/cwd/first -I//proc/./self/cwd/inc",
    "%gcc -c u.c -I/proc/$$/cwd/first -I/proc/$$/cwd/inc; true",
    "%gcc -c u.c -I/usr/../proc/self/cwd/first -I/usr/../proc/self/cwd/inc",
    "ln -s /proc/self/cwd/first f; ln -s /proc/self/cwd/inc i; %gcc -c u.c -If -Ii",
    "ln -s /proc/self/cwd c; %gcc -c u.c -Ic/first -Ic/inc",
    "ln -s /proc p; %gcc -c u.c -Ip/self/cwd/first -Ip/self/cwd/inc",
    "mkdir -p first; exec 7<first 8<inc; %gcc -c u.c -I/proc/self/fd/7 -I/dev/fd/8",
    "%gcc -c /proc/self/cwd/u.c -Ifirst -Iinc",
    "(cd inc; %gcc -c ../u.c -o ../u.o -I/proc/self/cwd/../first -I/proc/self/cwd)",
];

#[test]
fn headers_are_followed_by_every_way_to_them() {
    WAYS_TO_A_HEADER.iter().for_each(|line| follows("/tmp", line, STATES));
    WAYS_TO_A_HEADER[..2].iter().for_each(|line| follows(MEMORY, line, STATES));
}

#[test]
fn a_directory_that_a_descriptor_leads_to_may_be_another() {
    follows("/tmp", "%gcc -c u.c -I/dev/fd/7", &["echo '#define V 1' > inc/v.h; exec 7<inc", "exec 7<other"]);
}

/// What the kernel makes up is no source that stays.
#[test]
fn what_the_kernel_makes_up_is_no_source() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Refused("read_kernel_file"),
        &[
            "%gcc -E -include /proc/version -x c /dev/null -o out/x.i",
            "echo '.incbin \"/proc/sys/kernel/hostname\"' > x.s; %gcc -c x.s -o out/x.o",
            "echo 'asm(\".incbin \\\"/proc/sys/kernel/ostype\\\"\");' > x.c; %gcc -c x.c -o out/x.o",
            "ln -s /proc p; echo '.incbin \"p/sys/kernel/ostype\"' > x.s; %gcc -c x.s -o out/x.o",
        ],
    );
}

#[test]
fn what_went_to_a_descriptor_is_not_stored() {
    let matrix = Matrix::harmless(FILES);
    matrix.all(
        Expected::Refused("wrote_to_stream"),
        &[
            "%gcc -c m.c -o out/m.o -MD -MF /dev/fd/3 3>out/deps",
            "%gcc -c m.c -o out/m.o -MD -MF /proc/self/fd/3 3>out/deps",
            "%gcc -c m.c -o out/m.o -MD -MF //dev/./fd/3 3>out/deps",
            "%gcc -c m.c -o out/m.o -MD -MF /dev/fd/3 3> >(cat > out/deps; touch out/done); until [ -e out/done ]; do :; done; rm out/done",
            "mkfifo p; cat p > out/deps & %gcc -c m.c -o out/m.o -MD -MF p; wait; rm p",
            "mkfifo p; ln -s p l; cat p > out/deps & %gcc -c m.c -o out/m.o -MD -MF l; wait; rm p",
            "%gcc -S m.c -o /dev/fd/3 3>out/m.s",
            "(cd /dev; exec 3>$OLDPWD/out/m.s; %gcc -S $OLDPWD/m.c -o fd/3)",
        ],
    );
}

#[test]
fn what_went_nowhere_or_to_a_kept_stream_is_stored() {
    let matrix = Matrix::harmless(FILES);
    matrix.all(
        Expected::Stored,
        &[
            "%gcc -c m.c -o /dev/null",
            "%gcc -c m.c -o out/m.o -MD -MF /dev/null",
            "ln -s /dev/null n; %gcc -c m.c -o out/m.o -MD -MF n",
            "%gcc -S m.c -o /dev/stdout | cat",
            "%gcc -c m.c -o out/m.o -MD -MF /dev/stderr 2>&1 >/dev/null | cat",
            "%gcc -c m.c -o out/m.o -MD -MF /proc/self/fd/1 | cat",
        ],
    );
}

/// What `-o` and its like name as the compiler's own stream is that stream, and no pipe in its place.
#[test]
fn a_stream_that_is_named_as_a_file_is_left_alone() {
    let matrix = Matrix::harmless(FILES);
    matrix.all(Expected::Bypassed("own_stream"), OWN_STREAMS);
}

const OWN_STREAMS: &[&str] = &[
    "%gcc -c m.c -o /dev/stdout > out/m.o",
    "%gcc -c m.c -o /dev/fd/1 > out/m.o",
    "%gcc -c m.c -o /dev/stderr 2> out/m.o",
    "%gcc -c m.c -o/proc/self/fd/1 > out/m.o",
    "%gcc -c m.c -o //dev//./stdout > out/m.o",
    "ln -s /dev/stdout l; %gcc -c m.c -o l > out/m.o",
    "ln -s /proc/self/fd d; %gcc -c m.c -o d/1 > out/m.o",
    "(cd /dev; %gcc -c $OLDPWD/m.c -o stdout > $OLDPWD/out/m.o)",
    "echo -c m.c -o /dev/stdout > args; %gcc @args > out/m.o",
    "echo first > out/m.s; %gcc -S m.c -o /dev/stdout >> out/m.s",
    "echo first > out/deps; %gcc -c m.c -o out/m.o -MD -MF /dev/stdout >> out/deps",
    "%gcc -c m.c -o out/m.o -Wp,-MD,/dev/stdout > out/deps",
    "%gcc -O2 -c m.c -o out/m.o -fopt-info-all=/dev/stderr 2> out/notes",
    "%gcc -c m.c -o /dev/stdout > /dev/null",
    "DEPENDENCIES_OUTPUT=/dev/stdout %gcc -c m.c -o out/m.o > out/deps",
];

/// Who cannot print may fail of that, or not.
#[test]
fn a_stream_that_is_closed_stays_closed() {
    let matrix = Matrix::new(&[("w.c", "int f(void) { int a; return 1; }\n"), ("m.c", "int f;\n")]);
    let lines = ["%gcc -Wall -c w.c 2>&-", "%gcc -c m.c >&- 2>&-", "%gcc -E m.c >&-", "%gcc -Wall -c w.c <&- 2>&-"];
    matrix.all(Expected::Bypassed("closed_stream"), &lines);
    matrix.all(Expected::Stored, &["%gcc -Wall -c w.c <&-"]);
}

/// What goes to or comes from a descriptor by its number is seen by what becomes of the file.
#[test]
fn what_went_through_a_descriptor_by_number_is_not_stored() {
    let matrix = Matrix::new(FILES);
    matrix.world.script("shouts", "#!/bin/sh\necho said >&3\nexec gcc \"$@\"\n");
    matrix.world.script("listens", "#!/bin/sh\nread -r x\nexec gcc -DH=$x \"$@\"\n");
    let lines = ["% ../shouts -c m.c -o out/m.o 3>out/said", "echo 5 > n; % ../listens -c m.c -o out/m.o < n"];
    matrix.all(Expected::Refused("used_given_descriptor"), &lines);
    matrix.all(Expected::Stored, &["%gcc -c m.c -o out/m.o < h.h 3>out/said"]);
}
