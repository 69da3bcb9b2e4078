//! Streams of C compilers: sources that come through a pipe, which must neither hang nor be mixed up, and messages on
//! pipes and terminals, which must be what bare prints there, on a miss and on a hit.

mod fixture;
mod harness;
mod matrix;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Counts, World, assert_same, run, stdout};
use matrix::{Expected, Matrix};
use nix::pty::{Winsize, openpty};

const FILES: &[(&str, &str)] = &[
    ("m.c", "#include \"h.h\"\nint f(int x) { return x + H; }\n"),
    ("h.h", "#define H 1\n"),
    ("w.c", WARNS),
    ("warns.sh", "echo from the script\n"),
    ("dash", "-\n"),
    ("args", "-O2 -c m.c\n"),
];

/// A line that no narrow terminal takes whole.
const WARNS: &str = "int f(void) { int an_unused_variable_whose_name_takes_much_room_on_the_line = 1, another_one_that_is_\
unused_and_at_least_as_long_as_the_first = 2; return 1; }\n";

#[test]
fn source_on_standard_input() {
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Stored,
        &[
            "%gcc -x c -c - -o out/s.o < m.c",
            "cat m.c | %gcc -x c -c - -o out/s.o -MD",
            "%gcc -x c -S - -o - < m.c",
            "%gcc -E - < m.c",
            "%gcc -M -xc - < m.c",
            "%gcc -x assembler -c - -o out/s.o < /dev/null",
            "%gcc -E -dM -x c - < /dev/null",
            "%gcc -fsyntax-only -Wall -x c - < w.c",
        ],
    );
}

#[test]
#[ignore = "needs clang"]
fn source_on_standard_input_of_clang() {
    let matrix = Matrix::new(FILES);
    matrix.all(Expected::Stored, &["%clang -x c -c - -o out/s.o -MD < m.c", "cat m.c | %clang -E -"]);
}

/// The same command with one source and another: `line` has to answer for the one that it gets, which it finds in `s`.
fn follows_its_source(line: &str) {
    let matrix = Matrix::new(FILES);
    let give = |text: &str| {
        let line = format!("printf '{text}' > s; {line}");
        let bare = matrix.fresh(&line, false);
        let got = matrix.fresh(&line, true);
        assert_same(&bare, &got, &format!("{line}: {}", matrix.why()));
    };
    ["int a;", "int b;", "int a;", "int b;"].into_iter().for_each(give);
}

#[test]
fn sources_on_standard_input_are_not_mixed_up() {
    for line in ["%gcc -x c -c - -o out/s.o < s", "%gcc -x c -E - < s", "cat s | %gcc -x c -c -o out/s.o -"] {
        follows_its_source(line);
    }
}

#[test]
fn standard_input_that_an_argument_file_asks_for() {
    follows_its_source("%gcc -x c -c @dash -o out/s.o < s");
    follows_its_source("cat s | %gcc -x c -c @dash -o out/s.o");
}

#[test]
fn argument_files_on_standard_input() {
    follows_its_source("(cat args; echo -include s) | %gcc @/dev/stdin -o out/s.o");
    follows_its_source("echo -D$(sed 's/int \\(.\\);/\\1/' s) | %gcc -c m.c @/dev/stdin -g3 -o out/s.o");
}

#[test]
fn sources_that_are_streams_by_name_are_right_and_not_kept() {
    for line in [
        "%gcc -x c -c /dev/stdin -o out/s.o < s",
        "cat s | %gcc -x c -c /dev/fd/0 -o out/s.o",
        "cat s | %gcc -x c -c /proc/self/fd/0 -o out/s.o",
        "%gcc -c m.c -include /dev/stdin -o out/s.o < s",
        "%gcc -x c -c <(cat s) -o out/s.o",
        "%gcc -c m.c -include <(cat s) -o out/s.o",
        "mkfifo p; cat s > p & %gcc -x c -c p -o out/s.o; rm p",
        "exec 5< s; %gcc -x c -c /dev/fd/5 -o out/s.o",
        "ln -s /dev/stdin l; %gcc -x c -c l -o out/s.o < s",
    ] {
        follows_its_source(line);
    }
    let matrix = Matrix::new(FILES);
    matrix.all(
        Expected::Refused("read_kernel_file"),
        &["%gcc -x c -c /dev/stdin -o out/s.o < w.c", "%gcc -x c -c <(cat w.c) -o out/s.o"],
    );
}

/// Waits for the end of a command, but not for ever.
fn end_of(command: &mut Command) -> i32 {
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap();
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pipe_that_nobody_closes_does_not_hold_up_who_does_not_read_it() {
    let matrix = Matrix::new(FILES);
    for line in ["%gcc -E m.c -o - > out/o", "%gcc -S -o - m.c > out/o", "%gcc -c m.c -MD -MF - > out/o", "%gcc -c m.c"]
    {
        for cached in [false, true, true] {
            matrix.lay_out();
            let (open, writer) = std::io::pipe().map(|(read, write)| (Stdio::from(read), write)).unwrap();
            let code = end_of(matrix.shell(line, cached).stdin(open).stderr(Stdio::null()));
            assert_eq!(code, 0, "{line}");
            drop(writer);
        }
    }
}

#[test]
fn a_source_that_comes_slowly_is_waited_for() {
    let matrix = Matrix::new(FILES);
    for _ in 0..2 {
        matrix.lay_out();
        let mut command = matrix.shell("%gcc -x c -c - -o out/s.o && nm out/s.o", true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        for part in ["int first", " = 1;\n", "int second = 2;\n"] {
            pipe.write_all(part.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(names.contains("first") && names.contains("second"), "{names}");
    }
    assert_eq!((matrix.world.total("misses"), matrix.world.total("hits")), (1, 1));
}

/// Which of its streams a command has on a terminal, and how wide that is.
#[derive(Debug, Clone, Copy)]
struct Place {
    streams: [bool; 3],
    columns: u16,
}

const PIPES: Place = Place { streams: [false; 3], columns: 0 };
const TERMINAL: Place = Place { streams: [true; 3], columns: 80 };
const NARROW: Place = Place { columns: 50, ..TERMINAL };
const WIDE: Place = Place { columns: 200, ..TERMINAL };
const ONLY_STDERR: Place = Place { streams: [false, false, true], columns: 80 };
const NO_STDIN: Place = Place { streams: [false, true, true], columns: 50 };
const ONLY_STDIN: Place = Place { streams: [true, false, false], columns: 50 };

/// What a command prints in such a place, on the terminal and beside it.
fn printed(mut command: Command, place: Place) -> (String, String) {
    let size = Winsize { ws_row: 24, ws_col: place.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).unwrap();
    let (beside, other) = std::io::pipe().unwrap();
    let end = |number: usize, pipe: &dyn Fn() -> Stdio| {
        if place.streams[number] { Stdio::from(pair.slave.try_clone().unwrap()) } else { pipe() }
    };
    let pipe = || Stdio::from(other.try_clone().unwrap());
    command.stdin(end(0, &Stdio::null)).stdout(end(1, &pipe)).stderr(end(2, &pipe));
    let mut child = command.spawn().unwrap();
    drop((command, other));
    let terminal = reader(pair.master);
    let beside = reader(beside.into());
    child.wait().unwrap();
    drop(pair.slave);
    (terminal.join().unwrap(), beside.join().unwrap())
}

/// All that comes until the other end is closed, which a terminal calls an error.
fn reader(end: OwnedFd) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut file, mut all) = (File::from(end), Vec::new());
        let _ = file.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// The line prints in each of the places, in any order of them, what bare prints there.
fn prints_alike(line: &str, states: &[(Place, &[(&str, &str)])]) {
    let matrix = Matrix::new(FILES);
    fixture::settle(&|| matrix.lay_out());
    let prints = |cached: bool, (place, env): &(Place, &[(&str, &str)])| {
        let mut command = matrix.shell(line, cached);
        command.env("TERM", "xterm-256color").envs(env.iter().copied());
        printed(command, *place)
    };
    let bare: Vec<_> = states.iter().map(|state| prints(false, state)).collect();
    for round in ["first", "second"] {
        for (state, bare) in states.iter().zip(&bare) {
            assert_eq!(&prints(true, state), bare, "{round} time of {line} in {state:?}: {}", matrix.why());
        }
    }
    let counts = matrix.world.status();
    let hits = counts["totals"]["hits"].as_u64().unwrap();
    assert!(hits >= states.len() as u64, "{line}: {counts}");
}

/// Places and variables that decide on what messages look like.
const STATES: &[(Place, &[(&str, &str)])] = &[
    (PIPES, &[]),
    (TERMINAL, &[]),
    (NARROW, &[]),
    (WIDE, &[]),
    (ONLY_STDERR, &[]),
    (TERMINAL, &[("TERM", "dumb")]),
    (TERMINAL, &[("GCC_COLORS", "warning=01;31:caret=4")]),
    (TERMINAL, &[("GCC_COLORS", "")]),
    (TERMINAL, &[("COLUMNS", "40")]),
    (TERMINAL, &[("NO_COLOR", "1")]),
    (PIPES, &[("GCC_COLORS", "warning=01;31:caret=4")]),
    (PIPES, &[("COLUMNS", "40")]),
    (PIPES, &[("LC_ALL", "C.utf8")]),
    (PIPES, &[("LC_ALL", "C")]),
];

#[test]
fn warnings_of_gcc_in_every_place() {
    prints_alike("%gcc -Wall -c w.c -o out/w.o", STATES);
    prints_alike("%gcc -Wall -c w.c -o out/w.o -fdiagnostics-color=always", STATES);
}

#[test]
#[ignore = "needs clang"]
fn warnings_of_clang_in_every_place() {
    prints_alike("%clang -Wall -c w.c -o out/w.o", STATES);
}

/// gcc takes the width of the terminal on its standard input, whatever its messages go to.
#[test]
fn the_terminal_on_standard_input_counts_too() {
    prints_alike("%gcc -Wall -c w.c -o out/w.o", &[(NO_STDIN, &[]), (NARROW, &[]), (ONLY_STDERR, &[])]);
    prints_alike("%gcc -Wall -c w.c -o out/w.o", &[(NARROW, &[]), (NO_STDIN, &[]), (ONLY_STDIN, &[])]);
}

/// A compile that prints nothing, first in one place, then in the others.
fn is_served_in_every_place(line: &str) {
    let places = [PIPES, TERMINAL, NARROW, ONLY_STDERR, NO_STDIN, ONLY_STDIN];
    for first in [0, 1] {
        let matrix = Matrix::new(FILES);
        fixture::settle(&|| matrix.lay_out());
        for (number, place) in places.iter().skip(first).enumerate() {
            let before = matrix.world.status();
            let mut command = matrix.shell(line, true);
            command.env("TERM", "xterm-256color");
            assert_eq!(printed(command, *place), Default::default());
            let (hits, misses) = if number == 0 { (0, 1) } else { (1, 0) };
            let counts = Counts { hits, misses, bypasses: 0 };
            assert_eq!(matrix.world.since(&before), counts, "{line} in {place:?}: {}", matrix.why());
        }
    }
}

#[test]
fn what_prints_nothing_is_served_in_every_place() {
    is_served_in_every_place("%gcc -c m.c -o out/m.o");
    is_served_in_every_place("%gcc -g -c m.c -o out/m.o -MD");
}

#[test]
#[ignore = "needs clang"]
fn what_clang_prints_nothing_for_is_served_in_every_place() {
    is_served_in_every_place("%clang -c m.c -o out/m.o");
}

/// Two streams that go to one place.
fn keeps_its_order(line: &str) {
    let matrix = Matrix::new(FILES);
    let bare = matrix.fresh(line, false);
    for _ in 0..3 {
        assert_same(&bare, &matrix.fresh(line, true), line);
    }
}

#[test]
fn warnings_and_assembly_in_one_place() {
    keeps_its_order("%gcc -Wall -S -o - w.c 2>&1");
    keeps_its_order("%gcc -Wall -S -o - w.c > out/both 2>&1");
}

#[test]
fn both_streams_in_one_place_keep_their_order() {
    keeps_its_order("%gcc -H -E m.c 2>&1");
    keeps_its_order("%gcc -H -E m.c > out/both 2>&1");
}

#[test]
fn a_reader_that_goes_away_is_no_trouble() {
    let world = World::new();
    world.write(&[("m.c", &"int a;\n".repeat(20_000))]);
    for _ in 0..2 {
        let line = format!("{} gcc -E m.c | head -1; {} gcc -c m.c -o m.o && nm m.o", harness::CLIENT, harness::CLIENT);
        run(world.command("bash").args(["-c", &line]));
    }
    assert!(stdout(world.command("nm").arg("m.o")).ends_with('a'));
}

/// What was not all passed on is not kept, and not taken for success.
#[test]
fn output_that_cannot_be_written() {
    let matrix = Matrix::new(FILES);
    for line in [
        "%gcc -E m.c > /dev/full",
        "%gcc -S m.c -o - > /dev/full",
        "%gcc -E m.c 1< m.c",
        "%gcc -Wall -c w.c 2> /dev/full",
        "(%gcc -E m.c) | true",
        "%gcc -Wall -c w.c 2>&1 | true",
    ] {
        let bare = matrix.fresh(line, false);
        for round in 0..3 {
            let got = matrix.fresh(line, true);
            assert_eq!(got.code == Some(0), bare.code == Some(0), "{line}, {round}: {}", got.stderr);
        }
    }
    for line in ["%gcc -E m.c", "%gcc -S m.c -o -", "%gcc -Wall -c w.c", "%gcc -E m.c > /dev/full"] {
        let bare = matrix.fresh(line, false);
        for round in 0..2 {
            let got = matrix.fresh(line, true);
            assert_eq!((got.code == Some(0), &got.stdout), (bare.code == Some(0), &bare.stdout), "{line}, {round}");
        }
    }
}
