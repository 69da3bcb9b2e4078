//! Programs: which one ran. Every step from the name that was called to the file that ran is part of what a result
//! follows from, for the compiler and for each program below it. Links turn; bare and zcache have to agree all the way.

mod fixture;
mod harness;

use fixture::{reasons, settle};
use harness::{CLIENT, World, run, rustc, stdout};

/// Commands that tell which compiler made what they made, and what turns between them.
struct Turn {
    /// What it is about.
    name: &'static str,
    /// The command, with `%` before the compiler. What it prints is compared.
    line: &'static str,
    /// Shell commands that bring the world into each state; every state has to print something else.
    states: &'static [&'static str],
}

/// The compiler that a line is called with, told by what it puts into an object.
const OBJECT: &str = "-c x.c -o x.o && readelf -p .comment x.o";

const TURNS: &[Turn] = &[
    Turn { name: "a link", line: "%$PWD/u/cc OBJECT", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn { name: "a link by a relative path", line: "%u/cc OBJECT", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn {
        name: "a directory that is a link",
        line: "%$PWD/v/cc OBJECT",
        states: &["ln -sfn $G g/cc; ln -sfn g v", "ln -sfn $C c/cc; ln -sfn c v"],
    },
    Turn {
        name: "two links in a row",
        line: "%$PWD/u/cc OBJECT",
        states: &["ln -sfn ../mid u/cc; ln -sfn $G mid", "ln -sfn $C mid"],
    },
    Turn { name: "by PATH", line: "PATH=$PWD/u:$PATH %cc OBJECT", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn {
        name: "by a PATH that is a link",
        line: "PATH=$PWD/v:$PATH %cc OBJECT",
        states: &["ln -sfn $G g/cc; ln -sfn g v", "ln -sfn $C c/cc; ln -sfn c v"],
    },
    Turn { name: "its version", line: "%u/cc --version", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn {
        name: "its macros",
        line: "%u/cc -dM -E x.c | grep -c clang || true",
        states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"],
    },
    Turn { name: "rustc's version", line: "%u/rustc -vV", states: &["ln -sfn $R u/rustc", "ln -sfn $S u/rustc"] },
    Turn {
        name: "rustc",
        line: "%u/rustc x.rs --crate-name x --crate-type lib --emit=obj -o x.o && readelf -p .comment x.o",
        states: &["ln -sfn $R u/rustc", "ln -sfn $S u/rustc"],
    },
    Turn { name: "below a script", line: "%./sh-cc OBJECT", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn {
        name: "below a script, by PATH",
        line: "PATH=$PWD/v:$PATH %./path-cc OBJECT",
        states: &["ln -sfn $G g/my; ln -sfn g v", "ln -sfn $C c/my; ln -sfn c v"],
    },
    Turn { name: "below a program of C", line: "%./exec-cc OBJECT", states: &["ln -sfn $G u/cc", "ln -sfn $C u/cc"] },
    Turn {
        name: "an interpreter",
        line: "%./tell OBJECT",
        states: &["ln -sfn /bin/dash u/interp", "ln -sfn $PWD/other-sh u/interp"],
    },
    Turn {
        name: "an interpreter that env finds",
        line: "PATH=$PWD/u:$PATH %./env-tell OBJECT",
        states: &["ln -sfn /bin/dash u/interp", "ln -sfn $PWD/other-sh u/interp"],
    },
    Turn {
        name: "an assembler by -B",
        line: "%gcc -Bu/ -c x.c -o x.o && nm x.o",
        states: &["ln -sfn ../as-1 u/as", "ln -sfn ../as-2 u/as"],
    },
    Turn {
        name: "a linker of rustc's",
        line: "%$R main.rs -C linker=u/cc -C strip=none -o main && nm main | grep -w -e one -e two",
        states: &["ln -sfn ../cc-1 u/cc", "ln -sfn ../cc-2 u/cc"],
    },
    Turn {
        name: "a directory of parts by -B",
        line: "%gcc -Bv/ -c x.c -o x.o && nm x.o",
        states: &["ln -sfn ../as-1 g/as; ln -sfn g v", "ln -sfn ../as-2 c/as; ln -sfn c v"],
    },
    Turn {
        name: "a directory of headers",
        line: "%gcc -Iv -include told-by.h -c x.c -o x.o && nm x.o",
        states: &["echo 'int g;' > g/told-by.h; ln -sfn g v", "echo 'int c;' > c/told-by.h; ln -sfn c v"],
    },
    Turn {
        name: "a library of a program",
        line: "%./uses-lib -c x.c -o x.o && nm x.o",
        states: &["ln -sfn libsay-1.so u/libsay.so", "ln -sfn libsay-2.so u/libsay.so"],
    },
    Turn {
        name: "a specs file",
        line: "%gcc -specs=u/specs -c x.c -o x.o && nm x.o",
        states: &[
            "printf '*cc1_options:\n+ -DV=one\n\n' > one.specs; ln -sfn ../one.specs u/specs",
            "printf '*cc1_options:\n+ -DV=two\n\n' > two.specs; ln -sfn ../two.specs u/specs",
        ],
    },
    Turn {
        name: "one and the same program, that looks beside itself",
        line: "%u/cc -c x.c -o x.o && nm x.o",
        states: &["ln -sfn ../one/looks u/cc", "ln -sfn ../two/looks u/cc"],
    },
];

/// A program that hands its arguments on, with one more.
const EXEC: &str = "#include <unistd.h>\n#include <string.h>\n#include <stdlib.h>
int main(int n, char **a) {
    char **b = calloc(n + 2, sizeof *b);
    memcpy(b, a, n * sizeof *a);
    if (*MORE) b[n++] = MORE;
    b[0] = PROGRAM;
    execv(PROGRAM, b);
    return 9;
}";

/// A compiler that takes its argument from a file beside the file that it is.
const LOOKS: &str = "#include <unistd.h>\n#include <string.h>\n#include <stdio.h>\n#include <stdlib.h>
int main(int n, char **a) {
    char own[4096] = {0}, more[99] = {0};
    readlink(\"/proc/self/exe\", own, 4000);
    strcpy(strrchr(own, '/'), \"/more\");
    FILE *f = fopen(own, \"r\");
    if (!f || !fgets(more, 99, f)) return 9;
    char **b = calloc(n + 2, sizeof *b);
    memcpy(b, a, n * sizeof *a);
    b[n] = more;
    b[0] = \"gcc\";
    execv(\"/usr/bin/gcc\", b);
    return 9;
}";

/// A compiler that takes its argument from a library.
const USES: &str = "#include <unistd.h>\n#include <string.h>\n#include <stdlib.h>
char *say(void);
int main(int n, char **a) {
    char **b = calloc(n + 2, sizeof *b);
    memcpy(b, a, n * sizeof *a);
    b[n] = say();
    b[0] = \"gcc\";
    execv(\"/usr/bin/gcc\", b);
    return 9;
}";

fn lay_out(world: &World) {
    let (dash, real) = ("/bin/dash", stdout(world.command("gcc").arg("-print-prog-name=as")));
    let as_real = stdout(world.command("sh").args(["-c", &format!("command -v {real}")]));
    world.write(&[
        ("w/x.c", "#ifdef V\nint V;\n#endif\nint x;\n"),
        ("w/x.rs", "pub fn f() -> u32 { 1 }\n"),
        ("w/main.rs", "fn main() {}\n"),
        ("w/exec.c", EXEC),
        ("w/looks.c", LOOKS),
        ("w/uses.c", USES),
        ("w/one/more", "-DV=one"),
        ("w/two/more", "-DV=two"),
    ]);
    for dir in ["u", "g", "c"] {
        world.write(&[(&format!("w/{dir}/.keep"), "")]);
    }
    world.script("w/sh-cc", "#!/bin/dash\nexec u/cc \"$@\"\n");
    world.script("w/path-cc", "#!/bin/dash\nexec my \"$@\"\n");
    let tell = "case $TOLD in other) exec /usr/bin/clang \"$@\";; esac; exec /usr/bin/gcc \"$@\"\n";
    world.script("w/tell", &format!("#!{}\n{tell}", world.path("w/u/interp").display()));
    world.script("w/env-tell", &format!("#!/usr/bin/env interp\n{tell}"));
    let line = format!(
        "make() {{ out=$1; shift; gcc -w \"$@\" -o $out; }}
        make exec-cc exec.c '-DPROGRAM=\"u/cc\"' '-DMORE=\"\"'
        make as-1 exec.c '-DPROGRAM=\"{as_real}\"' '-DMORE=\"--defsym=one=1\"'
        make as-2 exec.c '-DPROGRAM=\"{as_real}\"' '-DMORE=\"--defsym=two=1\"'
        make cc-1 exec.c '-DPROGRAM=\"/usr/bin/gcc\"' '-DMORE=\"-Wl,--defsym=one=1\"'
        make cc-2 exec.c '-DPROGRAM=\"/usr/bin/gcc\"' '-DMORE=\"-Wl,--defsym=two=1\"'
        make other-sh -include told.h exec.c '-DPROGRAM=\"{dash}\"' '-DMORE=\"\"'
        for v in 1 2; do
            echo \"const char *say(void) {{ return \\\"-DV=lib$v\\\"; }}\" > say.c
            gcc -shared -fPIC say.c -o u/libsay-$v.so
        done
        ln -s libsay-1.so u/libsay.so
        make uses-lib uses.c u/libsay.so -Wl,-rpath,$PWD
        make one/looks looks.c; cp -p one/looks two/looks"
    );
    // A shell by another name that says so to what it runs.
    let told = "#include <stdlib.h>\n__attribute__((constructor)) static void t(void) { putenv(\"TOLD=other\"); }\n";
    world.write(&[("w/told.h", told)]);
    run(world.command("sh").args(["-ec", &line]).current_dir(world.path("w")));
}

fn shell(world: &World, text: &str, cached: bool) -> String {
    let client = if cached { format!("{CLIENT} ") } else { String::new() };
    let mut command = world.command("bash");
    let text = text.replace('%', &client).replace("OBJECT", OBJECT);
    command.args(["-c", &text]).current_dir(world.path("w"));
    command.env("G", "/usr/bin/gcc").env("C", "/usr/bin/clang").env("R", rustc()).env("S", "/usr/bin/rustc");
    stdout(&mut command)
}

/// Walks through the states and back, bare and twice through zcache: all agree, and what comes again is served.
fn agrees(turn: &Turn) -> Result<(), String> {
    let world = World::new();
    lay_out(&world);
    let mut known: Vec<String> = Vec::new();
    for state in turn.states.iter().chain(turn.states) {
        let arrange = || {
            settle(&|| drop(shell(&world, state, false)));
            world.remove("w/x.o");
            world.remove("w/main");
        };
        arrange();
        let bare = shell(&world, turn.line, false);
        let is_new = !known.contains(&bare);
        known.extend(is_new.then(|| bare.clone()));
        for round in 0..2 {
            arrange();
            let before = world.status();
            let got = shell(&world, turn.line, true);
            let counts = world.since(&before);
            let why = || format!("{}, {state}, {round}: {counts:?} {}\n{}", turn.name, reasons(&world), world.log());
            if got != bare {
                return Err(format!("bare: {bare}\nzcache: {got}\n{}", why()));
            }
            if (round > 0 || !is_new) && (counts.hits, counts.misses) != (1, 0) {
                return Err(format!("it is not served: {}", why()));
            }
        }
    }
    (known.len() == turn.states.len()).then_some(()).ok_or_else(|| format!("{}: all the same: {known:?}", turn.name))
}

/// What began before the link turned is the first compiler's result, and is not served for the second.
#[test]
#[ignore = "needs clang"]
fn a_link_that_turns_while_the_compiler_runs() {
    let world = World::new();
    lay_out(&world);
    world.script("w/turns/as", "#!/bin/dash\nln -sfn /usr/bin/clang u/cc\nexec /usr/bin/as \"$@\"\n");
    let line = "%u/cc -Bturns/ OBJECT";
    for compiler in ["$G", "$C", "$C", "$G", "$C"] {
        let turn = || drop(shell(&world, &format!("ln -sfn {compiler} u/cc"), false));
        settle(&turn);
        let bare = shell(&world, line, false);
        settle(&turn);
        assert_eq!(shell(&world, line, true), bare, "{compiler}: {} {}", reasons(&world), world.log());
    }
}

#[test]
#[ignore = "needs clang and a second rustc"]
fn a_link_that_turns_leads_to_another_program() {
    let failed: Vec<String> = TURNS.iter().filter_map(|turn| agrees(turn).err()).collect();
    failed.iter().for_each(|failure| println!("{failure}\n"));
    assert!(failed.is_empty(), "{} of {} turns, told above", failed.len(), TURNS.len());
}
