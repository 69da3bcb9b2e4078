//! Inputs of C compiles: headers that change, appear and disappear, files that a source takes in otherwise, and
//! variables. Each walk compares with the bare compiler in every state.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use fixture::{Compile, State, reasons, settle};
use harness::{CLIENT, World, run};

/// Follows `p/x.c`, compiled with these arguments and linked bare, through states.
fn follows(world: &World, compiler: &str, arguments: &str, states: &[State<'_>]) {
    let command = |cached: bool| {
        let client = if cached { CLIENT } else { "" };
        let line = format!(
            "mkdir out; {client} {compiler} -c x.c -o out/x.o -Wall {arguments} && {compiler} out/x.o -o out/app"
        );
        let mut command = world.command("sh");
        command.args(["-c", &line]).current_dir(world.path("p"));
        command
    };
    Compile { world, command: &command, out: "p/out", program: "p/out/app", messages: true }.follows(states);
}

/// A program that prints the text `value` after these lines.
fn program(world: &World, head: &str, value: &str) {
    let main = format!("int main(void) {{ puts({value}); return 0; }}\n");
    world.write(&[("p/x.c", &format!("{head}\nint puts(const char *);\n{main}"))]);
}

/// Each walk with both compilers.
macro_rules! walks {
    ($($name:ident)*) => {
        mod gcc {
            $(#[test] fn $name() { super::$name("gcc"); })*
        }
        mod clang {
            $(#[test] #[ignore = "needs clang"] fn $name() { super::$name("clang"); })*
        }
    };
}

walks! {
    a_header_that_is_edited
    an_edit_of_the_same_size_with_the_time_put_back
    a_header_that_appears_earlier_on_the_path
    a_header_that_appears_beside_the_source
    a_header_that_appears_in_a_directory_of_the_system
    a_header_that_is_asked_for
    a_header_that_is_asked_for_in_a_directory_to_come
    an_include_directory_that_appears
    an_include_directory_that_is_a_link
    a_file_in_the_place_of_a_directory
    the_next_header_of_a_name
    a_header_named_by_a_macro
    a_header_forced_by_the_command_line
    a_blob_that_the_assembler_takes_in
    variables_with_include_directories
    the_date_that_a_variable_sets
    the_language_of_messages
    argument_files_that_change
    a_source_that_is_a_link
    macros_for_the_time_are_not_kept
}

fn a_header_that_is_edited(compiler: &str) {
    let world = World::new();
    program(&world, "#include \"one.h\"", "V");
    world.write(&[("p/one.h", "#include <two.h>")]);
    let [a, b, warns, none] = ["#define V \"a\"", "#define V \"b\"", "#define V \"b\"\nstatic int f(void) {}", ""]
        .map(|text| move |world: &World| world.write(&[("p/inc/two.h", text)]));
    let gone = || world.remove("p/inc/two.h");
    let states: [State<'_>; 5] =
        [(&|| a(&world), &[]), (&|| b(&world), &[]), (&|| warns(&world), &[]), (&|| none(&world), &[]), (&gone, &[])];
    follows(&world, compiler, "-Iinc", &states);
}

fn an_edit_of_the_same_size_with_the_time_put_back(compiler: &str) {
    let world = World::new();
    program(&world, "#include \"f.h\"", "V");
    let time = SystemTime::now() - Duration::from_secs(100_000);
    let edit = |text: &str| {
        world.write(&[("p/f.h", text)]);
        fs::File::options().write(true).open(world.path("p/f.h")).unwrap().set_modified(time).unwrap();
    };
    follows(&world, compiler, "-MD", &[(&|| edit("#define V \"one\""), &[]), (&|| edit("#define V \"two\""), &[])]);
}

/// Two headers of one name, of which the first decides; the second is always there.
fn shadowed(compiler: &str, include: &str, arguments: &str, first: &str, second: &str) {
    let world = World::new();
    program(&world, include, "V");
    world.write(&[(second, "#define V \"second\""), ("p/b/sub/.keep", "")]);
    let alone = || world.remove(first);
    let both = || world.write(&[(first, "#define V \"first\"")]);
    follows(&world, compiler, arguments, &[(&alone, &[]), (&both, &[])]);
}

fn a_header_that_appears_earlier_on_the_path(compiler: &str) {
    for arguments in ["-Ib -Ia", "-iquote b -I a", "-I b -isystem a", "-isystem b -idirafter a"] {
        let include = if arguments.contains("quote") { "#include \"foo.h\"" } else { "#include <foo.h>" };
        shadowed(compiler, include, arguments, "p/b/foo.h", "p/a/foo.h");
    }
    shadowed(compiler, "#include <sub/foo.h>", "-Ib -Ia", "p/b/sub/foo.h", "p/a/sub/foo.h");
}

fn a_header_that_appears_beside_the_source(compiler: &str) {
    shadowed(compiler, "#include \"foo.h\"", "-Ia", "p/foo.h", "p/a/foo.h");
}

fn a_header_that_appears_in_a_directory_of_the_system(compiler: &str) {
    let world = World::new();
    program(&world, "#include <limits.h>\n#ifndef V\n#define V \"system\"\n#endif", "V");
    world.write(&[("p/b/.keep", "")]);
    let system = || world.remove("p/b/limits.h");
    let ours = || world.write(&[("p/b/limits.h", "#define V \"ours\"")]);
    follows(&world, compiler, "-Ib -MMD", &[(&system, &[]), (&ours, &[])]);
}

const ASKS: &str =
    "#if __has_include(\"opt.h\")\n#define V \"there\"\n#else\n#define V \"not there\"\n#endif\nint one;";

fn a_header_that_is_asked_for(compiler: &str) {
    let world = World::new();
    program(&world, ASKS, "V");
    world.write(&[("p/b/.keep", "")]);
    let absent = || world.remove("p/b/opt.h");
    let there = || world.write(&[("p/b/opt.h", "")]);
    follows(&world, compiler, "-Ib", &[(&absent, &[]), (&there, &[])]);
}

fn a_header_that_is_asked_for_in_a_directory_to_come(compiler: &str) {
    let world = World::new();
    program(&world, ASKS, "V");
    let absent = || world.remove("p/later");
    let there = || world.write(&[("p/later/opt.h", "")]);
    follows(&world, compiler, "-Ilater -Ilater/sub", &[(&absent, &[]), (&there, &[])]);
}

fn an_include_directory_that_appears(compiler: &str) {
    let world = World::new();
    program(&world, "#include <foo.h>", "V");
    world.write(&[("p/a/foo.h", "#define V \"a\"")]);
    let absent = || world.remove("p/later");
    let there = || world.write(&[("p/later/foo.h", "#define V \"later\"")]);
    follows(&world, compiler, "-Ilater -Ia -MD", &[(&absent, &[]), (&there, &[])]);
}

fn an_include_directory_that_is_a_link(compiler: &str) {
    let world = World::new();
    program(&world, "#include <foo.h>", "V");
    world.write(&[("p/a/foo.h", "#define V \"a\""), ("p/b/foo.h", "#define V \"b\"")]);
    let turn = |to: &str| {
        world.remove("p/inc");
        symlink(to, world.path("p/inc")).unwrap();
    };
    follows(&world, compiler, "-Iinc", &[(&|| turn("a"), &[]), (&|| turn("b"), &[])]);
}

fn a_file_in_the_place_of_a_directory(compiler: &str) {
    let world = World::new();
    program(&world, "#include <sub/foo.h>", "V");
    world.write(&[("p/a/sub/foo.h", "#define V \"a\""), ("p/b/.keep", "")]);
    let file = || {
        world.remove("p/b/sub");
        world.write(&[("p/b/sub", "")]);
    };
    let directory = || {
        world.remove("p/b/sub");
        world.write(&[("p/b/sub/foo.h", "#define V \"b\"")]);
    };
    follows(&world, compiler, "-Ib -Ia", &[(&file, &[]), (&directory, &[])]);
}

fn the_next_header_of_a_name(compiler: &str) {
    let world = World::new();
    program(&world, "#include <foo.h>", "V");
    world.write(&[("p/a/foo.h", "#include_next <foo.h>"), ("p/c/foo.h", "#define V \"c\""), ("p/b/.keep", "")]);
    let alone = || world.remove("p/b/foo.h");
    let both = || world.write(&[("p/b/foo.h", "#define V \"b\"")]);
    follows(&world, compiler, "-Ia -Ib -Ic", &[(&alone, &[]), (&both, &[])]);
}

fn a_header_named_by_a_macro(compiler: &str) {
    let world = World::new();
    program(&world, "#include \"which.h\"\n#include WHICH", "V");
    world.write(&[("p/a.h", "#define V \"a\""), ("p/b.h", "#define V \"b\"")]);
    let a = || world.write(&[("p/which.h", "#define WHICH \"a.h\"")]);
    let b = || world.write(&[("p/which.h", "#define WHICH \"b.h\"")]);
    follows(&world, compiler, "", &[(&a, &[]), (&b, &[])]);
}

fn a_header_forced_by_the_command_line(compiler: &str) {
    shadowed(compiler, "", "-include foo.h -Ia", "p/foo.h", "p/a/foo.h");
}

fn a_blob_that_the_assembler_takes_in(compiler: &str) {
    let world = World::new();
    let assembly = "__asm__(\".data\\nblob: .incbin \\\"blob\\\"\\n.byte 0\\n.text\");\nextern const char blob[];";
    program(&world, assembly, "blob");
    let one = || world.write(&[("p/blob", "one")]);
    let two = || world.write(&[("p/blob", "two")]);
    follows(&world, compiler, "-fPIC", &[(&one, &[]), (&two, &[])]);
    // A blob that appears in a directory that is looked at earlier.
    world.remove("p/blob");
    let later = || world.remove("p/b/blob");
    let first = || world.write(&[("p/b/blob", "first"), ("p/a/blob", "then")]);
    world.write(&[("p/a/blob", "then"), ("p/b/.keep", "")]);
    follows(&world, compiler, "-fPIC -Wa,-Ib,-Ia", &[(&later, &[]), (&first, &[])]);
}

fn variables_with_include_directories(compiler: &str) {
    for name in ["CPATH", "C_INCLUDE_PATH"] {
        let world = World::new();
        program(&world, "#include <foo.h>", "V");
        world.write(&[("p/a/foo.h", "#define V \"a\""), ("p/b/foo.h", "#define V \"b\"")]);
        let set: [&[(&str, &str)]; 4] = [&[(name, "a")], &[(name, "b")], &[], &[(name, "none:../p/c")]];
        world.write(&[("p/c/foo.h", "#define V \"c\"")]);
        follows(&world, compiler, "", &set.map(|env| -> State<'_> { (&|| (), env) }));
    }
}

fn the_date_that_a_variable_sets(compiler: &str) {
    // clang 14 does not know it.
    if compiler == "gcc" {
        let world = World::new();
        program(&world, "", "__DATE__ \" \" __TIME__");
        let set: [&[(&str, &str)]; 2] = [&[("SOURCE_DATE_EPOCH", "1")], &[("SOURCE_DATE_EPOCH", "1000000000")]];
        follows(&world, compiler, "", &set.map(|env| -> State<'_> { (&|| (), env) }));
    }
}

fn the_language_of_messages(compiler: &str) {
    let world = World::new();
    world.write(&[("p/x.c", "int main(void) { int unused; return 0; }\n")]);
    let set: [&[(&str, &str)]; 2] = [&[("LC_ALL", "C")], &[("LC_ALL", "C.utf8")]];
    let colours = "01;31";
    let more: [&[(&str, &str)]; 2] =
        [&[("LC_ALL", "C"), ("GCC_COLORS", "warning=01;32")], &[("LC_ALL", "C"), ("GCC_COLORS", colours)]];
    if compiler == "gcc" {
        follows(&world, compiler, "", &set.map(|env| -> State<'_> { (&|| (), env) }));
        follows(&world, compiler, "-fdiagnostics-color", &more.map(|env| -> State<'_> { (&|| (), env) }));
    }
}

fn argument_files_that_change(compiler: &str) {
    let world = World::new();
    program(&world, "", "V");
    let one = || world.write(&[("p/args", "@more"), ("p/more", "'-DV=\"one\"'")]);
    let two = || world.write(&[("p/more", "'-DV=\"two\"'")]);
    let none = || world.remove("p/more");
    follows(&world, compiler, "@args", &[(&one, &[]), (&two, &[]), (&none, &[])]);
}

fn a_source_that_is_a_link(compiler: &str) {
    let world = World::new();
    for name in ["a", "b"] {
        program(&world, "#include \"v.h\"", "V");
        world.write(&[(&format!("p/{name}/v.h"), &format!("#define V \"{name}\""))]);
        fs::rename(world.path("p/x.c"), world.path(&format!("p/{name}/real.c"))).unwrap();
    }
    let turn = |to: &str| {
        world.remove("p/x.c");
        symlink(format!("{to}/real.c"), world.path("p/x.c")).unwrap();
        world.remove("p/v.h");
        symlink(format!("{to}/v.h"), world.path("p/v.h")).unwrap();
    };
    follows(&world, compiler, "", &[(&|| turn("a"), &[]), (&|| turn("b"), &[])]);
}

/// A source that tells the time is right two seconds later, and not kept.
fn macros_for_the_time_are_not_kept(compiler: &str) {
    for (source, header) in [
        ("const char *t = __TIME__ __DATE__;", ""),
        ("#include \"now.h\"\nconst char *t = NOW;", "#define NOW __TIME__"),
        ("#include \"now.h\"\nconst char *t = NOW;", "#define NOW __TIMESTAMP__"),
        ("#define CAT(a, b) a##b\nconst char *t = CAT(__TI, ME__);", ""),
        ("#define CAT(a, b) a##b\nconst char *t = CAT(__TIME, STAMP__);", ""),
        ("const char *t = __TIME\\\nSTAMP__;", ""),
        ("const char *t = GIVEN;", ""),
    ] {
        let world = World::new();
        world.write(&[("x.c", source), ("now.h", header)]);
        settle(&|| ());
        let line = format!("touch x.c now.h; sleep 0.05; {CLIENT} {compiler} -DGIVEN=__TIMESTAMP__ -c x.c -o x.o");
        let compile = || {
            run(world.command("sh").args(["-c", &line]));
            fs::read(world.path("x.o")).unwrap()
        };
        let first = compile();
        std::thread::sleep(Duration::from_millis(2000));
        assert_ne!(first, compile(), "{source} {header}: {}", world.log());
        let why = reasons(&world);
        let counted = ["time_macro", "read_clock"].map(|word| why[word].as_u64().unwrap_or(0));
        assert_eq!((world.total("stored"), counted.iter().sum::<u64>()), (0, 2), "{source} {header}: {why}");
    }
}

#[test]
fn a_listing_with_the_time_is_not_kept() {
    let world = World::new();
    settle(&|| world.write(&[("x.c", "int x;")]));
    run(world.command(CLIENT).args(["gcc", "-c", "x.c", "-Wa,-ag=x.list"]));
    assert_eq!((world.total("stored"), &reasons(&world)["read_clock"]), (0, &1.into()), "{}", world.log());
    run(world.command(CLIENT).args(["gcc", "-c", "x.c", "-Wa,-adhln=x.list"]));
    assert_eq!(world.total("stored"), 1, "a listing without it: {}", reasons(&world));
}
