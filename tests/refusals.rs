//! Refusals: what a compile is not stored for, a compile around it is not stored for either. A table of compiles that
//! cannot be stored, each by itself and inside of others.

mod fixture;
mod harness;
mod matrix;

use fixture::settle;
use harness::{CLIENT, World, effect, rustc};
use matrix::Matrix;

/// Compiles that leave `out/x.o`, by the compiler that `$CC` names, and whether they can be stored.
const COMPILES: &[(&str, &str, bool)] = &[
    ("control", "$CC gcc -c x.c -o out/x.o", true),
    ("control, a held date", "SOURCE_DATE_EPOCH=1 $CC gcc -c date.c -o out/x.o", true),
    ("the date", "$CC gcc -c date.c -o out/x.o", false),
    ("the time, indirectly", "$CC gcc -c deep.c -o out/x.o", false),
    ("a file's time", "$CC gcc -c stamp.c -o out/x.o", false),
    ("a date that is not held", "env -u SOURCE_DATE_EPOCH $CC gcc -c date.c -o out/x.o", false),
    ("a date that nobody asks the clock for", "env -u SOURCE_DATE_EPOCH $CC gcc -c unused.c -o out/x.o", false),
    ("a listing of an assembler", "$CC gcc -Wa,-adghln -c x.c -o out/x.o > out/list", false),
    ("an assembler that cannot be watched", "$CC gcc -Bstatic/ -c x.c -o out/x.o", false),
    ("an assembler with a random number", "$CC gcc -Brandom/ -c x.c -o out/x.o", false),
    ("an assembler that asks for the time", "$CC gcc -Bdate/ -c x.c -o out/x.o", false),
    ("a file that is appended to", "DEPENDENCIES_OUTPUT=all.d $CC gcc -c x.c -o out/x.o", false),
    ("a header that changes meanwhile", "$CC gcc -Bedits/ -c x.c -o out/x.o", false),
];

/// The same, of zig.
const ZIG: &[(&str, &str, bool)] = &[
    ("control", "$CC zig cc -target x86_64-linux-gnu -c x.c -o out/x.o", true),
    ("a header that is probed for", "$CC zig cc -target x86_64-linux-gnu -c probes.c -o out/x.o", false),
    ("the date", "$CC zig cc -target x86_64-linux-gnu -c unused.c -o out/x.o", false),
    ("an option that reads more", "$CC zig cc -target x86_64-linux-gnu -Xclang -w -c x.c -o out/x.o", false),
];

/// Where a compile stands: a command of a shell, `%` for the client and `INNER` for a script that does the compile, and
/// what the compile calls its compiler through.
const SHAPES: &[(&str, &str, &str)] = &[
    ("by itself", ". ./INNER", "%"),
    ("in a script", "%./wrapper -c x.c -o out/x.o", "%"),
    ("in a script that is run", "%./runs -c x.c -o out/x.o", "%"),
    ("in a script, by the name of the compiler", "zcache run -- %./wrapper -c x.c -o out/x.o", ""),
    ("in the linker of rustc", "%$R main.rs -C linker=./links -o out/main", "%"),
    ("two deep", "%./outer -c x.c -o out/x.o", "%"),
];

const FILES: &[(&str, &str)] = &[
    ("x.c", "#include \"h.h\"\nint x;\n"),
    ("h.h", "#define H 1\n"),
    ("date.c", "const char *d = __DATE__ __TIME__;\n"),
    ("unused.c", "/* __DATE__ */ int x;\n"),
    ("deep.c", "#include \"deep.h\"\nconst char *d = T;\n"),
    ("deep.h", "#define CAT(a, b) a ## b\n#define X(a, b) CAT(a, b)\n#define T X(__TI, ME__)\n"),
    ("stamp.c", "const char *d = __TIMESTAMP__;\n"),
    ("probes.c", "#include \"h.h\"\n#if __has_include(\"opt.h\")\nint a;\n#endif\nint x;\n"),
    ("all.d", "\n"),
    ("main.rs", "fn main() {}\n"),
    ("static.c", "#include <unistd.h>\nint main(int n, char **a) { return execv(\"/usr/bin/as\", a); }\n"),
];

/// Makes the scripts for one compile. They lie beside the directory in which it runs.
fn lay_out(world: &World, compile: &str) {
    let script = |name: &str, text: &str| drop(world.script(&format!("scripts/{name}"), text));
    script("wrapper", &format!("#!/bin/dash\n{compile}\n"));
    script("runs", &format!("#!/bin/dash\n({compile})\nexit $?\n"));
    script("links", &format!("#!/bin/dash\n{compile}\nexec /usr/bin/cc \"$@\"\n"));
    script("outer", &format!("#!/bin/dash\nexec {CLIENT} ./wrapper \"$@\"\n"));
    script("random/as", "#!/bin/bash\nexec /usr/bin/as --defsym r=$RANDOM \"$@\"\n");
    script("date/as", "#!/bin/dash\nexec /usr/bin/as --defsym r=$(date +%s) \"$@\"\n");
    script("edits/as", "#!/bin/dash\necho '#define H 2' > h.h\nexec /usr/bin/as \"$@\"\n");
}

/// Whether a compile in a shape is stored twice and right: what is stored and served is counted.
fn outcome(compile: &str, (_, line, through): (&str, &str, &str), path: &str) -> Result<u64, String> {
    let mut matrix = Matrix::new(FILES);
    matrix.env = vec![("PATH", format!("{path}{}", std::env::var("PATH").unwrap_or_default()))];
    let client = if through == "%" { CLIENT } else { "" };
    let compile = compile.replace("$CC", client);
    lay_out(&matrix.world, &compile);
    let line = line.replace(". ./INNER", &compile).replace("zcache run", &format!("{} run", harness::ZCACHE));
    let held = if compile.contains("SOURCE_DATE_EPOCH") {
        "export SOURCE_DATE_EPOCH=1; "
    } else {
        "unset SOURCE_DATE_EPOCH; "
    };
    let line = format!("{held}{line}");
    let mut codes = Vec::new();
    for _ in 0..2 {
        settle(&|| {
            matrix.lay_out();
            let prepare = "cp -r ../scripts/* .; mkdir static; gcc -static static.c -o static/as";
            harness::run(matrix.world.command("sh").args(["-c", prepare]).current_dir(matrix.dir()));
        });
        let mut shell = matrix.shell(&line, true);
        codes.push(effect(shell.env("R", rustc()), &matrix.dir()).code);
    }
    let status = matrix.world.status();
    let count = |name: &str| status["totals"][name].as_u64().unwrap_or(0);
    match count("stored") {
        0 if codes == [Some(0); 2] && count("hits") == 0 => Ok(0),
        stored if codes == [Some(0); 2] && stored > 0 => Ok(stored),
        _ => Err(format!("{codes:?} {} {}", status["totals"], matrix.why())),
    }
}

fn all(compiles: &[(&str, &str, bool)], path: &str) {
    let mut failed = Vec::new();
    for (name, compile, is_stored) in compiles {
        for shape in SHAPES {
            match outcome(compile, *shape, path) {
                Ok(stored) if (stored > 0) == *is_stored => {}
                other => failed.push(format!("{name}, {}: {other:?}", shape.0)),
            }
        }
    }
    assert!(failed.is_empty(), "{}: {}", failed.len(), failed.join("\n"));
}

#[test]
#[ignore = "needs bash and a static C library"]
fn what_is_refused_is_refused_inside_of_another() {
    all(COMPILES, "");
}

#[test]
#[ignore = "needs zig"]
fn what_zig_is_refused_for_is_refused_inside_of_another() {
    let zig = std::env::var("ZCACHE_TEST_ZIG").unwrap_or_default();
    all(ZIG, &zig.strip_suffix("zig").map(|dir| dir.to_owned() + ":").unwrap_or_default());
}
