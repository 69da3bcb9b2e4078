//! What changes around a C compile: the compiler itself and its parts, its plugins and specs, its inputs while it runs,
//! its outputs afterwards.

mod fixture;
mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use fixture::{Compile, State, reasons, settle};
use harness::{CLIENT, Counts, World, assert_same, effect, files, run, stdout};

const PROGRAM: &str = "int puts(const char *);\nint main(void) { puts(V); return 0; }\n";

/// Follows `p/x.c`, compiled by the script or program `compiler` and linked bare, through states.
fn follows(world: &World, compiler: &str, states: &[State<'_>]) {
    world.write(&[("p/x.c", PROGRAM)]);
    let command = |cached: bool| {
        let client = if cached { CLIENT } else { "" };
        let line = format!("mkdir out; {client} {compiler} -c x.c -o out/x.o && gcc out/x.o -o out/app");
        let mut command = world.command("sh");
        command.args(["-c", &line]).current_dir(world.path("p"));
        command
    };
    Compile { world, command: &command, out: "p/out", program: "p/out/app", messages: true }.follows(states);
}

/// Writes a script at once, with a time of long ago, whatever it says.
fn dated_script(world: &World, name: &str, text: &str) {
    world.remove(name);
    let path = world.script(name, text);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_compiler_replaced_with_one_of_the_same_size_and_time() {
    let world = World::new();
    let write =
        |value: &str| dated_script(&world, "bin/my-cc", &format!("#!/bin/sh\nexec gcc '-DV=\"{value}\"' \"$@\"\n"));
    follows(&world, "../bin/my-cc", &[(&|| write("one"), &[]), (&|| write("two"), &[])]);
}

#[test]
fn a_compiler_swapped_behind_a_wrapper() {
    let world = World::new();
    world.script("bin/my-cc", "#!/bin/sh\nexec ${0%/*}/real \"$@\"\n");
    let write =
        |value: &str| dated_script(&world, "bin/real", &format!("#!/bin/sh\nexec gcc '-DV=\"{value}\"' \"$@\"\n"));
    follows(&world, "../bin/my-cc", &[(&|| write("one"), &[]), (&|| write("two"), &[])]);
}

#[test]
fn a_compiler_behind_a_link_that_turns() {
    let world = World::new();
    for value in ["one", "two"] {
        let text = format!("#!/bin/sh\nexec gcc '-DV=\"{value}\"' \"$@\"\n");
        dated_script(&world, &format!("bin/{value}"), &text);
    }
    let turn = |to: &str| {
        world.remove("bin/gcc-9");
        symlink(to, world.path("bin/gcc-9")).unwrap();
    };
    follows(&world, "../bin/gcc-9", &[(&|| turn("one"), &[]), (&|| turn("two"), &[])]);
}

#[test]
fn a_compiler_that_appears_earlier_in_path() {
    let world = World::new();
    world.write(&[("p/early/.keep", "")]);
    let usual = || world.remove("p/early/gcc");
    let ours = || dated_script(&world, "p/early/gcc", "#!/bin/sh\nexec /usr/bin/gcc -UV '-DV=\"early\"' \"$@\"\n");
    follows(&world, "env PATH=$PWD/early:$PATH gcc '-DV=\"usual\"'", &[(&usual, &[]), (&ours, &[])]);
}

/// A part of gcc that `-B` names: the real one, with one more argument where that is asked for.
fn part(world: &World, name: &str, before: &str, more: &str) {
    let real = stdout(world.command("gcc").arg(format!("-print-prog-name={name}")));
    dated_script(world, &format!("p/parts/{name}"), &format!("#!/bin/sh\n{before}exec {real} \"$@\" {more}\n"));
}

#[test]
fn parts_of_gcc_that_appear_and_change() {
    let world = World::new();
    world.write(&[("p/parts/.keep", "")]);
    let usual = || world.remove("p/parts/cc1");
    let [one, two] =
        ["one", "two"].map(|value| move |world: &World| part(world, "cc1", "", &format!("-UV '-DV=\"{value}\"'")));
    follows(&world, "gcc '-DV=\"usual\"' -Bparts/", &[(&usual, &[]), (&|| one(&world), &[]), (&|| two(&world), &[])]);
}

#[test]
fn an_assembler_that_is_named_and_changes() {
    let world = World::new();
    let set = |value: &str| part(&world, "as", "", &format!("--defsym answer={value}"));
    let source = "'-DV=(char *)&text' -include text.h";
    world.write(&[("p/text.h", "__asm__(\".data\\ntext: .byte answer, 0\\n.text\");\nextern const char text[];\n")]);
    let (a, b) = (|| set("65"), || set("66"));
    follows(&world, &format!("gcc {source} -fPIC -Bparts/"), &[(&a, &[]), (&b, &[])]);
}

#[test]
fn specs_that_change_and_appear() {
    let world = World::new();
    let values = "'-Done=\"one\"' '-Dtwo=\"two\"' '-DV=\"none\"'";
    let write = |name: &str, value: &str| world.write(&[(name, &format!("*cc1_options:\n+ -UV -DV={value}\n\n"))]);
    let [one, two] = ["one", "two"].map(|value| move || write("p/f.specs", value));
    follows(&world, &format!("gcc -specs=f.specs {values}"), &[(&one, &[]), (&two, &[])]);
    world.write(&[("p/parts/.keep", "")]);
    let none = || world.remove("p/parts/specs");
    let [one, two] = ["one", "two"].map(|value| move || write("p/parts/specs", value));
    follows(&world, &format!("gcc -Bparts/ {values}"), &[(&none, &[]), (&one, &[]), (&two, &[])]);
}

/// A plugin that says its name when it is loaded, which needs no header of the compiler.
fn plugin_that_changes(compiler: &str, option: &str) {
    let world = World::new();
    let build = |name: &str| {
        let source = format!(
            "#include <stdio.h>\nint plugin_is_GPL_compatible;\nint plugin_init(void *a, void *b) {{ return 0; }}
__attribute__((constructor)) static void hello(void) {{ fprintf(stderr, \"plugin {name}\\n\"); }}\n"
        );
        world.write(&[("p/plugin.c", &source)]);
        world.remove("p/plugin.so");
        let mut gcc = world.command("gcc");
        run(gcc.args(["-shared", "-fPIC", "plugin.c", "-o", "plugin.so"]).current_dir(world.path("p")));
    };
    let command = format!("{compiler} '-DV=\"v\"' {option}");
    follows(&world, &command, &[(&|| build("one"), &[]), (&|| build("two"), &[])]);
}

#[test]
fn a_plugin_of_gcc_that_changes() {
    plugin_that_changes("gcc", "-fplugin=./plugin.so");
}

#[test]
#[ignore = "needs clang"]
fn a_plugin_of_clang_that_changes() {
    plugin_that_changes("clang", "-fplugin=./plugin.so");
    plugin_that_changes("clang", "-Xclang -load -Xclang ./plugin.so");
}

/// Compiles something slowly and edits `h.h` meanwhile, at the moment that `cc1` has read it. The next compile is right.
fn edited_meanwhile(name: &str, edit: &dyn Fn(&World)) {
    let world = World::new();
    let real = stdout(world.command("gcc").arg("-print-prog-name=as"));
    // gcc's compiler is done when the assembler starts, and so has read its header.
    world.script(
        "w/parts/as",
        &format!("#!/bin/sh\n[ -e ../reached ] || touch ../reached\nsleep 0.6\nexec {real} \"$@\"\n"),
    );
    settle(&|| {
        world.write(&[("w/x.c", "#include \"h.h\"\nint f(void) { return H; }\n"), ("w/h.h", "#define H 1111\n")])
    });
    let compile = |cached: bool| {
        let mut command = world.command(if cached { CLIENT } else { "env" });
        command.args(["gcc", "-Bparts/", "-c", "x.c", "-MD"]).current_dir(world.path("w"));
        command
    };
    let mut first = compile(true).spawn().unwrap();
    while !world.path("reached").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    edit(&world);
    assert!(first.wait().unwrap().success());
    assert_eq!((world.total("stored"), &reasons(&world)["input_changed"]), (0, &1.into()), "{name}: {}", world.log());
    run(&mut compile(false));
    let want = files(&world.path("w"));
    for _ in 0..2 {
        world.remove("w/x.o");
        run(&mut compile(true));
        assert!(want == files(&world.path("w")), "{name}: {}", world.log());
    }
    assert_eq!(world.total("hits"), 1, "{name}");
}

#[test]
fn a_header_that_is_edited_while_the_compiler_runs() {
    let write = |world: &World| world.write(&[("w/h.h", "#define H 2222\n")]);
    edited_meanwhile("edited", &write);
    edited_meanwhile("edited and dated back", &|world| {
        let time = fs::metadata(world.path("w/h.h")).unwrap().modified().unwrap();
        write(world);
        fs::File::options().write(true).open(world.path("w/h.h")).unwrap().set_modified(time).unwrap();
    });
    edited_meanwhile("replaced", &|world| {
        world.write(&[("w/next", "#define H 2222\n")]);
        fs::rename(world.path("w/next"), world.path("w/h.h")).unwrap();
    });
    edited_meanwhile("the source", &|world| world.write(&[("w/x.c", "int f(void) { return 3; }\n")]));
}

#[test]
fn outputs_changed_in_place_do_not_spoil_the_store() {
    let world = World::new();
    world.write(&[("a/x.c", "int f(void) { return 1; }\n"), ("b/x.c", "int f(void) { return 1; }\n")]);
    let compile = |dir: &str| {
        let mut command = world.command(CLIENT);
        run(command.args(["gcc", "-c", "x.c", "-MD", "-g1", "-fdebug-prefix-map=/=x"]).current_dir(world.path(dir)));
    };
    settle(&|| ());
    compile("a");
    assert_eq!(world.total("stored"), 1, "{}", world.log());
    let [object, list] = ["a/x.o", "a/x.d"].map(|name| fs::read(world.path(name)).unwrap());
    for change in [
        "strip -g x.o",
        "objcopy --add-section .note.x=x.c x.o",
        "truncate -s 7 x.o",
        "printf changed | dd of=x.o conv=notrunc 2> /dev/null",
        "echo changed > x.d",
        "chmod 777 x.o; echo >> x.o",
    ] {
        run(world.command("sh").args(["-c", change]).current_dir(world.path("a")));
        let before = world.status();
        world.remove("a/x.o");
        compile("a");
        assert_eq!(world.since(&before).hits, 1, "{change}: {}", world.log());
        let now = ["a/x.o", "a/x.d"].map(|name| fs::read(world.path(name)).unwrap());
        assert!(now == [object.clone(), list.clone()], "{change}");
        run(world.command("sh").args(["-c", change]).current_dir(world.path("a")));
        compile("b");
        let nm = stdout(world.command("nm").arg("b/x.o"));
        assert!(nm.ends_with(" T f"), "{change}: {nm}");
    }
}

/// As above, while the daemon may still be busy with what it took.
#[test]
fn an_output_changed_at_once_is_not_what_the_next_gets() {
    for number in 0..20 {
        let world = World::new();
        settle(&|| world.write(&[("x.c", "int f(void) { return 1; }\n")]));
        let compile = |output: &str| {
            let line = format!("{CLIENT} gcc -c x.c -o {output}");
            run(world.command("sh").args(["-c", &line]));
            world.path(output)
        };
        let size = u64::from(number % 2 == 0) * 5;
        fs::File::options().write(true).open(compile("x.o")).unwrap().set_len(size).unwrap();
        assert!(stdout(world.command("nm").arg(compile("x.o"))).ends_with(" T f"), "{}", world.log());
    }
}

/// clang compares the times of what a precompiled header was made of, whether an option names it or it lies beside the
/// header that one includes.
#[test]
#[ignore = "needs clang"]
fn clangs_precompiled_header_is_as_old_as_its_sources() {
    let world = World::new();
    world.write(&[("p/h.h", "#define V 7\n"), ("p/x.c", "int v(void) { return V; }\n")]);
    settle(&|| ());
    for (make, line) in
        [("h.pch", "clang -include-pch h.pch -c x.c -o x.o"), ("h.h.pch", "clang -include h.h -c x.c -o x.o")]
    {
        run(world.command("clang").args(["-x", "c-header", "h.h", "-o", make]).current_dir(world.path("p")));
        let compile = |client: &str| {
            world.remove("p/x.o");
            effect(
                world.command("sh").args(["-c", &format!("{client} {line}")]).current_dir(world.path("p")),
                &world.path("p"),
            )
        };
        settle(&|| ());
        let bare = compile("");
        let before = world.status();
        for round in 0..2 {
            assert_same(&bare, &compile(CLIENT), &format!("{line}, {round}"));
        }
        assert_eq!(world.since(&before).hits, 1, "{line}: {}\n{}", reasons(&world), world.log());
        let time = fs::metadata(world.path("p/h.h")).unwrap().modified().unwrap();
        let set =
            |time| fs::File::options().append(true).open(world.path("p/h.h")).unwrap().set_modified(time).unwrap();
        set(time - Duration::from_secs(9));
        let bare = compile("");
        assert_ne!(bare.code, Some(0), "{line}: clang takes an older header");
        assert_same(&bare, &compile(CLIENT), &format!("{line} of an older header"));
        set(time);
    }
}

#[test]
fn a_precompiled_header_in_use_is_right() {
    let world = World::new();
    let header = |value: &str, precompile: bool| {
        world.remove("p/h.h.gch");
        world.write(&[("p/h.h", &format!("#define V \"{value}\"\n"))]);
        if precompile {
            run(world.command("gcc").args(["h.h", "-o", "h.h.gch"]).current_dir(world.path("p")));
            // Only the precompiled one says this.
            world.write(&[("p/h.h", "#define V \"plain\"\n")]);
        }
    };
    let answer = |cached: bool| {
        world.remove("p/out");
        let client = if cached { CLIENT } else { "" };
        let line = format!("mkdir out; {client} gcc -include h.h -c x.c -o out/x.o && gcc out/x.o -o out/app");
        run(world.command("sh").args(["-c", &line]).current_dir(world.path("p")));
        stdout(&mut world.command(world.path("p/out/app")))
    };
    world.write(&[("p/x.c", PROGRAM)]);
    for (value, precompiled) in [("one", false), ("two", true), ("three", true), ("one", false), ("two", true)] {
        settle(&|| header(value, precompiled));
        let want = answer(false);
        assert_eq!(want, value, "what gcc makes of it");
        let before = world.status();
        for _ in 0..2 {
            assert_eq!(answer(true), want, "{precompiled}: {}\n{}", reasons(&world), world.log());
        }
        assert!(world.since(&before).hits > 0, "{value} {precompiled}: {}\n{}", reasons(&world), world.log());
    }
    // What a date stands behind in it is a date.
    world.write(&[("p/h.h", "#define V __TIME__\n")]);
    run(world.command("gcc").args(["h.h", "-o", "h.h.gch"]).current_dir(world.path("p")));
    settle(&|| ());
    let stored = world.total("stored");
    (0..2).for_each(|_| drop(answer(true)));
    assert_eq!(world.total("stored"), stored, "{}", reasons(&world));
}

/// A configure script writes one file anew for each of its questions, and asks at once.
#[test]
fn one_source_with_many_contents_one_after_the_other() {
    let world = World::new();
    let line = format!(
        "for i in $(seq 40); do echo \"int h$i;\" > conftest.c; rm -f conftest.o; {CLIENT} gcc -c conftest.c || exit 1; \
         nm conftest.o | grep -q \"h$i$\" || exit 2; done"
    );
    let ask = || {
        let before = world.status();
        run(world.command("sh").args(["-c", &line]));
        world.since(&before)
    };
    assert_eq!(ask(), Counts { hits: 0, misses: 40, bypasses: 0 });
    assert_eq!(ask(), Counts { hits: 40, misses: 0, bypasses: 0 }, "{}", reasons(&world));
}

/// Compiles in `p`, bare and twice through zcache, each time what comes of a state; `line` prints something that tells.
fn tells_the_same(world: &World, line: &str, states: &[&str]) {
    let shell = |text: &str| {
        let mut command = world.command("sh");
        command.args(["-c", text]).current_dir(world.path("p"));
        stdout(&mut command)
    };
    for state in states {
        let answer = |compiler: &str| {
            settle(&|| drop(shell(state)));
            shell(&line.replace('%', compiler))
        };
        let bare = answer("");
        for round in 0..2 {
            assert_eq!(answer(&format!("{CLIENT} ")), bare, "{state}, {round}: {}", world.log());
        }
    }
}

#[test]
fn a_directory_named_like_a_header_that_becomes_one() {
    let world = World::new();
    world.write(&[("p/a/h.h/.keep", ""), ("p/b/h.h", "int b;"), ("p/x.c", "#include \"h.h\"\n")]);
    let states = ["true", "rm -rf a/h.h; echo 'int a;' > a/h.h", "rm -f a/h.h"];
    tells_the_same(&world, "%gcc -Ia -Ib -c x.c -o x.o && nm x.o", &states);
}

#[test]
fn a_part_of_the_compiler_that_may_not_be_executed_any_more() {
    let world = World::new();
    world.write(&[("p/x.c", "int x;")]);
    world.script("p/parts/as", "#!/bin/sh\necho mine; exec as \"$@\"\n");
    let states = ["true", "chmod -x parts/as", "chmod +x parts/as"];
    tells_the_same(&world, "%gcc -Bparts -c x.c -o x.o", &states);
}

/// What a compiler writes through stays what it is.
#[test]
fn a_link_where_the_output_goes() {
    let world = World::new();
    world.write(&[("p/x.c", "int x;"), ("p/real/.keep", "")]);
    let line = "%gcc -c x.c -o x.o && ls -l x.o | cut -c1 && ls real";
    tells_the_same(&world, line, &["true", "rm -f x.o real/x.o; ln -s real/x.o x.o"]);
}

/// Too short a limit for the observer's record is no reason to end a compile.
#[test]
fn files_that_a_compiler_appends_to() {
    let world = World::new();
    world.write(&[("w/a.c", "#include \"x.h\"\nint a;"), ("w/b.c", "#include \"x.h\"\nint b;"), ("w/x.h", "")]);
    for variables in ["DEPENDENCIES_OUTPUT=all.d", "SUNPRO_DEPENDENCIES='all.d it'"] {
        let build = |client: &str| {
            world.remove("w/all.d");
            let line = format!("export {variables}; for x in a b a; do {client} gcc -c $x.c -o $x.o || exit; done");
            run(world.command("sh").args(["-c", &line]).current_dir(world.path("w")));
            fs::read_to_string(world.path("w/all.d")).unwrap()
        };
        let bare = build("");
        for round in 0..3 {
            assert_eq!(build(CLIENT), bare, "round {round} of {variables}: {}", world.log());
        }
    }
}

#[test]
fn a_limit_on_the_length_of_files() {
    let world = World::new();
    world.write(&[("p/x.c", "int x;")]);
    for blocks in ["64", "2048", "16384"] {
        let line = format!("ulimit -f {blocks}; {CLIENT} gcc -c x.c -o x.o && nm x.o");
        let mut command = world.command("sh");
        assert!(stdout(command.args(["-c", &line]).current_dir(world.path("p"))).ends_with('x'));
    }
}
