//! Wrappers: programs of every kind that stand where a compiler, an assembler or a linker is called. One that is
//! replaced, reads a file or asks a variable changes the result, and zcache has to follow; what can be watched is served.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use fixture::{reasons, settle};
use harness::{CLIENT, World, run, rustc, stdout};

/// What a wrapper is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A program of C, built with these options.
    C(&'static str),
    /// A script for a shell.
    Shell(&'static str),
    Python(&'static str),
    Perl(&'static str),
}

/// Every kind, and whether it can be watched.
const KINDS: &[(Kind, bool)] = &[
    (Kind::C(""), true),
    (Kind::C("-static"), false),
    (Kind::C("-static-pie"), false),
    (Kind::C("-m32"), false),
    (Kind::C("-m32 -static"), false),
    (Kind::Shell("/bin/dash"), true),
    (Kind::Shell("/usr/bin/env dash"), true),
    (Kind::Shell("/bin/bash"), true),
    (Kind::Shell("/usr/bin/env bash"), true),
    (Kind::Shell("/bin/busybox sh"), false),
    (Kind::Python("/usr/bin/python3"), true),
    (Kind::Python("/usr/bin/env -S python3 -E"), true),
    (Kind::Perl("/usr/bin/perl"), true),
];

/// Where a wrapper gets its value from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// It is built in: the wrapper is replaced.
    Own,
    /// It reads a file.
    File,
    /// It asks a variable.
    Variable,
}

const VALUES: [Value; 3] = [Value::Own, Value::File, Value::Variable];

/// Where a wrapper stands.
struct Place {
    /// The command, with `%` before the compiler, `$R` for rustc; the wrapper is `parts/WRAPPER`.
    line: &'static str,
    /// Its name.
    wrapper: &'static str,
    /// What it runs; its own first argument where that is empty.
    program: &'static str,
    /// What it adds to the arguments, around its value.
    option: &'static str,
}

impl Kind {
    /// The text of a wrapper at `place` that gets `value` where `from` says.
    fn source(self, place: &Place, from: Value, value: &str) -> String {
        let (program, option) = (place.program, place.option);
        match self {
            Self::C(_) => {
                let get = match from {
                    Value::Own => format!("strcpy(v, \"{value}\");"),
                    Value::File => "fgets(v, 99, fopen(\"value\", \"r\"));".to_owned(),
                    Value::Variable => "strcpy(v, getenv(\"VALUE\"));".to_owned(),
                };
                let run = if program.is_empty() { "a[1]".to_owned() } else { format!("\"{program}\"") };
                let first = if program.is_empty() { "a + 1" } else { "a" };
                format!(
                    "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>
                    int main(int n, char **a) {{
                        static char v[200], o[200], *b[999]; {get}
                        sprintf(o, \"{option}\", v);
                        char **from = {first}, **to = b;
                        while (*from) *to++ = *from++;
                        *to++ = o; b[0] = {run}; execv(b[0], b); return 9;
                    }}"
                )
            }
            Self::Shell(interpreter) => {
                let get = match from {
                    Value::Own => format!("v={value}"),
                    Value::File => "read -r v < value".to_owned(),
                    Value::Variable => "v=$VALUE".to_owned(),
                };
                format!("#!{interpreter}\n{get}\nexec {program} \"$@\" \"{}\"\n", option.replace("%s", "$v"))
            }
            Self::Python(interpreter) => {
                let get = match from {
                    Value::Own => format!("'{value}'"),
                    Value::File => "open('value').read().strip()".to_owned(),
                    Value::Variable => "os.environ['VALUE']".to_owned(),
                };
                let command = if program.is_empty() { String::new() } else { format!("'{program}', ") };
                format!(
                    "#!{interpreter}\nimport os, sys\nv = {get}\na = [{command}*sys.argv[1:], '{option}' % v]\nos.execv(a[0], a)\n"
                )
            }
            Self::Perl(interpreter) => {
                let get = match from {
                    Value::Own => format!("'{value}'"),
                    Value::File => "do { open(my $f, '<', 'value'); my $l = <$f>; chomp $l; $l }".to_owned(),
                    Value::Variable => "$ENV{VALUE}".to_owned(),
                };
                let command = if program.is_empty() { String::new() } else { format!("'{program}', ") };
                format!("#!{interpreter}\nmy $v = {get};\nexec({command}@ARGV, sprintf('{option}', $v)) or die;\n")
            }
        }
    }

    /// Puts such a wrapper at its place.
    fn build(self, world: &World, place: &Place, from: Value, value: &str) {
        let (at, source) = (format!("w/parts/{}", place.wrapper), self.source(place, from, value));
        world.remove(&at);
        match self {
            Self::C(options) => {
                world.write(&[("w/wrapper.c", &source)]);
                let mut gcc = world.command("gcc");
                gcc.args(["-w", "wrapper.c", "-o"]).arg(world.path(&at)).args(options.split_whitespace());
                run(gcc.current_dir(world.path("w")));
            }
            _ => {
                world.write(&[(&at, &source)]);
                fs::set_permissions(world.path(&at), fs::Permissions::from_mode(0o755)).expect("a mode");
            }
        }
    }
}

fn command(world: &World, place: &Place, value: &str, cached: bool) -> Command {
    let client = if cached { format!("{CLIENT} ") } else { String::new() };
    let mut command = world.command("dash");
    command.args(["-c", &place.line.replace('%', &client)]).current_dir(world.path("w"));
    command.env("R", rustc()).env("VALUE", value);
    command
}

/// One cell: bare and zcache agree before and after the value changes, and what is watched is served.
fn agrees(place: &Place, (kind, watched): (Kind, bool), from: Value) -> Result<(), String> {
    let world = World::new();
    world.write(&[
        ("w/x.c", "#ifdef V\nint V;\n#endif\nint x;\n"),
        (
            "w/x.rs",
            "#[cfg(vone)] #[no_mangle] pub static vone: u8 = 1; #[cfg(vtwo)] #[no_mangle] pub static vtwo: u8 = 1;",
        ),
        ("w/main.rs", "fn main() {}\n"),
        ("w/parts/.keep", ""),
    ]);
    let mut answers = Vec::new();
    for value in ["one", "two"] {
        settle(&|| {
            if from == Value::File {
                world.write(&[("w/value", value)]);
            }
            if value == "one" || from == Value::Own {
                kind.build(&world, place, from, value);
            }
        });
        let bare = stdout(&mut command(&world, place, value, false));
        answers.push(bare.clone());
        for round in 0..2 {
            world.remove("w/x.o");
            let before = world.status();
            let got = stdout(&mut command(&world, place, value, true));
            let counts = world.since(&before);
            let why = || format!("{counts:?} {}\n{}", reasons(&world), world.log());
            if got != bare {
                return Err(format!("{value}, {round}: bare: {bare}, zcache: {got}: {}", why()));
            }
            if watched && round > 0 && (counts.hits, counts.misses) != (1, 0) {
                return Err(format!("{value} is not served: {}", why()));
            }
        }
    }
    if !watched && world.total("stored") != 0 {
        return Err(format!("it is not watched, yet stored: {}", world.log()));
    }
    (answers[0] != answers[1]).then_some(()).ok_or_else(|| format!("both the same: {answers:?}"))
}

/// Every kind of wrapper at `place`, with every source of its value.
fn all_agree(place: &Place) {
    let cells = KINDS.iter().flat_map(|kind| VALUES.map(|from| (*kind, from)));
    let failed: Vec<String> = cells
        .filter_map(|(kind, from)| agrees(place, kind, from).err().map(|why| format!("{kind:?}, {from:?}: {why}")))
        .collect();
    failed.iter().for_each(|failure| println!("{failure}\n"));
    assert!(failed.is_empty(), "{} cells of {}, told above", failed.len(), place.line);
}

#[test]
#[ignore = "needs 32-bit libraries, bash, busybox, python and perl"]
fn as_the_driver() {
    let (line, option) = ("%parts/wrap -c x.c -o x.o && nm x.o", "-DV=v%s");
    all_agree(&Place { line, wrapper: "wrap", program: "/usr/bin/gcc", option });
}

#[test]
#[ignore = "needs 32-bit libraries, bash, busybox, python and perl"]
fn as_the_assembler() {
    let (line, option) = ("%gcc -Bparts/ -c x.c -o x.o && nm x.o", "--defsym=v%s=1");
    all_agree(&Place { line, wrapper: "as", program: "/usr/bin/as", option });
}

#[test]
#[ignore = "needs 32-bit libraries, bash, busybox, python and perl"]
fn as_the_linker() {
    let line = "%$R main.rs -C linker=parts/wrap -C strip=none -o x.o && nm x.o | grep -w -e vone -e vtwo";
    all_agree(&Place { line, wrapper: "wrap", program: "/usr/bin/gcc", option: "-Wl,--defsym=v%s=1" });
}

#[test]
#[ignore = "needs 32-bit libraries, bash, busybox, python and perl"]
fn as_the_linkers_linker() {
    let line = "%$R main.rs -C linker-features=-lld -C link-arg=-Bparts/ -C strip=none -o x.o && nm x.o | grep -w -e vone -e vtwo";
    all_agree(&Place { line, wrapper: "ld", program: "/usr/bin/ld", option: "--defsym=v%s=1" });
}

#[test]
#[ignore = "needs 32-bit libraries, bash, busybox, python and perl"]
fn as_the_workspace_wrapper() {
    let line = "%parts/wrap $R x.rs --crate-name x --crate-type lib --emit=obj -o x.o && nm x.o";
    all_agree(&Place { line, wrapper: "wrap", program: "", option: "--cfg=v%s" });
}
