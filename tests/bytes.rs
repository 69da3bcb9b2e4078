//! Bytes: names, arguments, variables and messages may hold whatever the system lets them, and be as long as it lets them.
//! What is more than zcache takes runs as if it were not there.

mod fixture;
mod harness;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{reasons, settle};
use harness::{CLIENT, Counts, Effect, World, assert_same, effect, files, run, rustc};

const SERVED: Counts = Counts { hits: 1, misses: 1, bypasses: 0 };
const COMPILED: Counts = Counts { hits: 0, misses: 2, bypasses: 0 };

/// A command in a directory, bare or through zcache.
struct Compile<'a> {
    world: &'a World,
    dir: PathBuf,
    program: OsString,
    arguments: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl<'a> Compile<'a> {
    /// In `p/`.
    fn new(world: &'a World, program: &OsStr, arguments: &[&OsStr]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { world, dir: world.path("p"), program: program.to_owned(), arguments, env: Vec::new() }
    }

    fn command(&self, cached: bool) -> Command {
        let mut command = self.world.command("timeout");
        command.arg("60").args(cached.then_some(CLIENT)).arg(&self.program).args(&self.arguments);
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.dir);
        command
    }

    /// What it does to `p/` as it is now, which is put back.
    fn effect(&self, cached: bool) -> Effect {
        let before = files(&self.world.path("p"));
        let began = Instant::now();
        let done = effect(&mut self.command(cached), &self.world.path("p"));
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        for name in files(&self.world.path("p")).keys().rev().filter(|name| !before.contains_key(*name)) {
            let at = self.world.path("p").join(name);
            let _ = fs::remove_file(&at).or_else(|_| fs::remove_dir(&at));
        }
        done
    }

    /// Bare and twice through zcache: the same, and counted so.
    fn is(&self, want: Counts, what: &str) -> Effect {
        let bare = self.effect(false);
        let before = self.world.status();
        for round in ["first", "second"] {
            let got = self.effect(true);
            // What was committed before the question is stored.
            self.world.status();
            assert_same(&bare, &got, &format!("{what}, {round}"));
        }
        let log = || self.world.log().lines().rev().take(8).collect::<Vec<_>>().join("\n");
        assert_eq!(
            self.world.since(&before),
            want,
            "{what}: {} {}\n{}",
            reasons(self.world),
            self.world.status()["miss_reasons"],
            log()
        );
        bare
    }
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// `name` with `end`, no longer than a name may be.
fn named(name: &[u8], end: &str) -> OsString {
    let stem = &name[..name.len().min(255 - end.len())];
    OsString::from_vec([stem, end.as_bytes()].concat())
}

fn names() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a byte that is no text", b"a\xffb".to_vec()),
        ("bytes that are no text", (0x80..=0xff).collect()),
        ("a line's end", b"a\nb".to_vec()),
        ("a tab, a bell and an escape", b"a\tb\x07c\x1bd".to_vec()),
        ("spaces", b" a  b ".to_vec()),
        ("what a shell reads", b"a'b\"c$d`e;f&g|h*i?j[k]l<m>n~o!p(q)r{s}".to_vec()),
        ("what make reads", b"a:b%c#d=e\\f$$g".to_vec()),
        ("what a list reads", b"a,b;c:d@e".to_vec()),
        ("as long as can be", vec![b'n'; 255]),
        ("as long as can be and no text", vec![0xfe; 255]),
    ]
}

/// Each name is the directory's, the source's, a header's and that of each output.
#[test]
fn names_of_files_for_gcc() {
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || names().iter().skip(part).step_by(2).for_each(|(what, name)| name_for_gcc(what, name)));
        }
    });
}

fn name_for_gcc(what: &str, name: &[u8]) {
    let world = World::new();
    let dir = world.path("p").join(os(name));
    let write = |text: &str| settle(&|| fs::write(dir.join(named(name, ".h")), text).unwrap());
    fs::create_dir_all(dir.join(named(name, ".d"))).unwrap();
    fs::write(dir.join(named(name, ".c")), "int f(void) { return V; }\n").unwrap();
    write("#define V 1\n");
    let (source, header, object) = (named(name, ".c"), named(name, ".h"), named(name, ".o"));
    let (depfile, include) = (named(name, ".dep"), named(name, ".d"));
    let mut compile = Compile::new(&world, os(b"gcc"), &[os(b"-c"), &source, os(b"-o"), &object, os(b"-I"), &include]);
    let more = [os(b"-include"), &header, os(b"-MD"), os(b"-MF"), &depfile, os(b"-g")];
    compile.arguments.extend(more.map(OsStr::to_owned));
    compile.dir = dir.clone();
    if name.contains(&b'\n') {
        // A depfile has no way to name it, so it does not say what the observer saw.
        let bare = compile.is(COMPILED, what);
        assert_eq!((bare.code, &reasons(&world)["declared_input_not_observed"]), (Some(0), &2.into()), "{what}");
        compile.arguments.retain(|argument| argument != "-MD" && argument != "-MF" && *argument != depfile);
    }
    let one = compile.is(SERVED, what);
    assert_eq!(one.code, Some(0), "{what}: {}", one.stderr);
    write("#define V 2\n");
    assert_ne!(compile.is(SERVED, what).files, one.files, "{what}");
    // What was absent before is looked for by the same name.
    settle(&|| fs::write(dir.join(&include).join(&header), "#define V 3\n").unwrap());
    fs::remove_file(dir.join(&header)).unwrap();
    compile.is(SERVED, what);
    write("#define V 2\n");
    assert_eq!(compile.effect(true).code, Some(0));
    assert_eq!(world.total("hits"), 4, "{what}: {}", world.log());
}

#[test]
fn names_of_files_for_rustc() {
    for (what, name) in names() {
        let world = World::new();
        let dir = world.path("p").join(os(&name));
        let module = dir.join(named(&name, ".rs"));
        fs::create_dir_all(&dir).unwrap();
        let write = |number: u32| settle(&|| fs::write(&module, format!("pub const V: u32 = {number};\n")).unwrap());
        let out = named(&name, ".out");
        let mut compile =
            Compile::new(&world, rustc().as_os_str(), &[module.file_name().unwrap(), os(b"--out-dir"), &out]);
        let rest = "--crate-name x --crate-type lib --emit=dep-info,metadata,link -g -C metadata=x";
        compile.arguments.extend(rest.split(' ').map(OsString::from));
        compile.dir = dir.clone();
        write(1);
        let one = compile.effect(false);
        if one.stderr.contains("panicked") {
            // A compiler that cannot take such a name says so with its thread's number.
            assert_eq!((compile.effect(true).code, world.total("stored")), (one.code, 0), "{what}");
            continue;
        }
        let counts = if one.code == Some(0) { SERVED } else { COMPILED };
        compile.is(counts, what);
        write(2);
        let two = compile.is(counts, what);
        assert!(one.code != Some(0) || two.files != one.files, "{what}");
    }
}

#[test]
fn arguments_and_variables_hold_any_byte() {
    let all: Vec<u8> = (1..=255).filter(|byte| !b"\"\\\n\r".contains(byte)).collect();
    let define = |value: &[u8]| OsString::from_vec([b"-DV=\"", value, b"\""].concat());
    let rows: Vec<(&str, OsString, OsString, OsString)> = vec![
        ("every byte", define(&all), "LC_ALL".into(), "C".into()),
        ("nothing", OsString::new(), "EMPTY".into(), OsString::new()),
        ("a line's end", os(b"-Iinc\nx").to_owned(), "CPATH".into(), OsString::from_vec(b"inc\nx:inc\xff".to_vec())),
        ("a variable that is no text", "-DV=1".into(), OsString::from_vec(b"N\xffA\nME".to_vec()), "x".into()),
        ("a variable with every byte", "-DV=1".into(), "CPATH".into(), OsString::from_vec(all.clone())),
    ];
    let world = World::new();
    for (what, argument, variable, value) in rows {
        settle(&|| {
            world.write(&[("p/x.c", "#ifdef V\nconst char *s = V;\n#endif\n#include <v.h>\n"), ("p/inc/v.h", "")]);
        });
        let mut compile = Compile::new(&world, os(b"gcc"), &[os(b"-c"), os(b"x.c"), os(b"-Iinc")]);
        compile.arguments.extend((!argument.is_empty()).then_some(argument));
        compile.env = vec![(variable, value)];
        let bare = compile.is(SERVED, what);
        assert_eq!(bare.code, Some(0), "{what}: {}", bare.stderr);
    }
    // An empty argument names a file that is never there.
    let compile = Compile::new(&world, os(b"gcc"), &[os(b"-c"), os(b"x.c"), os(b""), os(b"-Iinc")]);
    assert_ne!(compile.effect(false).code, Some(0));
    assert_same(&compile.effect(false), &compile.effect(true), "an empty argument");
}

#[test]
fn what_a_source_asks_of_the_environment_may_be_any_bytes() {
    let world = World::new();
    settle(&|| world.write(&[("p/x.rs", "pub const V: Option<&str> = option_env!(\"V\");\n")]));
    let mut compile = Compile::new(&world, rustc().as_os_str(), &[os(b"x.rs"), os(b"--crate-type=lib"), os(b"-g")]);
    let mut seen = Vec::new();
    let values: [&[u8]; 6] = [b"1", b"", b"a\nb", b"\xff", b"\xfe", &[b'v'; 100_000]];
    for value in values {
        compile.env = vec![("V".into(), OsString::from_vec(value.to_vec()))];
        let bare = compile.effect(false);
        let counts = if bare.code == Some(0) { SERVED } else { COMPILED };
        // Two values that are no text are alike to the compiler, and not to us.
        compile.is(counts, &String::from_utf8_lossy(&value[..value.len().min(9)]));
        seen.push(bare.files);
    }
    assert_ne!(seen[0], seen[2]);
    assert_ne!(seen[1], seen[2]);
}

/// Variables of so many bytes together, none longer than the kernel takes.
fn filling(bytes: usize) -> Vec<(OsString, OsString)> {
    let lengths = (0..bytes / 100_000).map(|_| 100_000).chain([bytes % 100_000]).enumerate();
    lengths.map(|(n, length)| (format!("FILLING{n:02}").into(), "x".repeat(length).into())).collect()
}

/// Up to the last byte that the kernel takes: a compiler that just starts, starts. Watching it takes variables of ours.
#[test]
fn environments_as_long_as_can_be() {
    let world = World::new();
    world.write(&[("p/.keep", ""), ("elsewhere/.keep", "")]);
    let rust = [os(b"x.rs"), os(b"--crate-type=lib"), os(b"--emit=metadata"), os(b"-Awarnings")];
    let programs = [(os(b"gcc"), &[os(b"-c"), os(b"x.c")][..]), (rustc().as_os_str(), &rust[..])];
    for (program, arguments) in programs {
        let mut compile = Compile::new(&world, program, arguments);
        // The most with which the client can be started at all, by halves.
        let (mut fits, mut beyond) = (0, 4 << 20);
        while beyond - fits > 1 {
            let middle = (fits + beyond) / 2;
            compile.env = filling(middle);
            let mut command = compile.command(true);
            command.env("ZCACHE_DISABLE", "1").stdout(Stdio::null()).stderr(Stdio::null());
            *if command.current_dir(world.path("elsewhere")).status().is_ok() { &mut fits } else { &mut beyond } =
                middle;
        }
        let fits = fits + "ZCACHE_DISABLE=1".len() + 1 + size_of::<usize>();
        let before = world.status();
        for left in [100_000, 500, 400, 300, 250, 200, 150, 120, 100, 80, 60, 40, 20, 10, 0] {
            let source = format!("{left}");
            settle(&|| world.write(&[("p/x.c", &format!("int x{source};\n")), ("p/x.rs", &format!("// {source}\n"))]));
            compile.env = filling(fits - left);
            let bare = compile.effect(false);
            for _ in 0..2 {
                assert_same(&bare, &compile.effect(true), &format!("{left} bytes left for {program:?}"));
                world.status();
            }
        }
        let counts = world.since(&before);
        assert!(
            counts.hits >= 1 && counts.misses > counts.hits,
            "some fit and some do not: {counts:?} {}",
            reasons(&world)
        );
    }
    assert_eq!(world.total("errors"), 0);
}

#[test]
fn arguments_as_long_as_can_be() {
    let world = World::new();
    let many = |count: usize, of: &str| (0..count).map(|n| OsString::from(format!("{of}{n}"))).collect::<Vec<_>>();
    let one = |of: &str, length: usize| vec![OsString::from(format!("{of}{}", "x".repeat(length - of.len())))];
    // gcc hands all of its options on in one variable, which holds 128 KiB.
    let rows: Vec<(&str, &str, Vec<OsString>, bool)> = vec![
        ("gcc", "100 KB of arguments", many(9_000, "-DA"), true),
        ("gcc", "more than gcc hands on", many(12_000, "-DA"), false),
        ("gcc", "one argument of 120 KB", one("-DA", 120_000), true),
        ("gcc", "a name longer than names are", one("-I", 5_000), false),
        ("rustc", "1 MB of arguments", many(60_000, "--cfg=a"), true),
        ("rustc", "one argument as long as can be", one("--cfg=a", (128 << 10) - 1), true),
        ("rustc", "one argument longer than can be", one("--cfg=a", 128 << 10), false),
    ];
    for (program, what, arguments, passes) in rows {
        settle(&|| world.write(&[("p/x.c", "int x;\n"), ("p/x.rs", "")]));
        let (name, line) = match program {
            "gcc" => (os(b"gcc"), vec![os(b"-c"), os(b"x.c")]),
            _ => (rustc().as_os_str(), vec![os(b"x.rs"), os(b"--crate-type=lib"), os(b"-Awarnings")]),
        };
        let mut compile = Compile::new(&world, name, &line);
        compile.arguments.extend(arguments);
        if let Err(error) = compile.command(false).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            assert_eq!(error.kind(), std::io::ErrorKind::ArgumentListTooLong, "{what}");
            continue;
        }
        let bare = compile.is(if passes { SERVED } else { COMPILED }, what);
        assert_eq!(bare.code == Some(0), passes, "{what}: {:.300}", bare.stderr);
    }
}

/// A message that tonic would refuse (4 MB), in each direction, and what is more than a message of ours.
#[test]
fn messages_longer_than_usual() {
    let world = World::new();
    let warnings = |megabytes: usize| (0..megabytes).map(|_| format!("#warning {}\n", "w".repeat(1 << 20))).collect();
    let printed = |megabytes: usize| format!("char s[] = \"{}\";\n", "s".repeat(megabytes * 1_000_000));
    let directories: Vec<OsString> = (0..100).map(|n| format!("-Id{n}").into()).collect();
    let headers = |number: usize| (0..number).map(|n| format!("#include <h{n}.h>\n")).collect::<String>();
    let rows: Vec<(&str, String, Vec<OsString>, Counts)> = vec![
        ("3 MB of warnings", warnings(3), vec!["-fno-diagnostics-show-caret".into()], SERVED),
        ("5 MB of warnings, more than is kept", warnings(5), vec!["-fno-diagnostics-show-caret".into()], COMPILED),
        ("4 MB of output", printed(4), vec!["-E".into()], SERVED),
        ("8 MB of output, more than is kept", printed(8), vec!["-E".into()], COMPILED),
        ("a trace of 6 MB", headers(500), directories.clone(), SERVED),
        ("a trace of 20 MB and more", headers(2800), directories, COMPILED),
    ];
    for n in 0..2800 {
        world.write(&[(&format!("p/d99/h{n}.h"), "")]);
    }
    for n in 0..99 {
        fs::create_dir(world.path(&format!("p/d{n}"))).unwrap();
    }
    for (what, source, arguments, counts) in rows {
        settle(&|| fs::write(world.path("p/x.c"), &source).unwrap());
        let mut compile = Compile::new(&world, os(b"gcc"), &[os(b"-c"), os(b"x.c")]);
        compile.arguments.extend(arguments);
        let bare = compile.is(counts, what);
        assert_eq!(bare.code, Some(0), "{what}: {:.300}", bare.stderr);
    }
    assert_eq!((&reasons(&world)["client"], &reasons(&world)["trace_incomplete"]), (&4.into(), &2.into()));
    assert_eq!(world.total("errors"), 0, "{}", world.status());
}

/// A source on standard input goes to the daemon with the question: up to 16 MiB, where tonic alone would take 4 MB.
#[test]
fn sources_on_standard_input_longer_than_usual() {
    let world = World::new();
    world.write(&[("p/out/.keep", "")]);
    for (what, length, counts) in [
        ("9 MB", 9_000_000, Counts { hits: 1, misses: 1, bypasses: 0 }),
        ("16 MiB and more", 17_000_000, Counts { hits: 0, misses: 0, bypasses: 0 }),
    ] {
        let source = format!("int x;\n/*{}*/\n", "c".repeat(length));
        settle(&|| world.write(&[("source", &source)]));
        let compile = |client: &str| {
            world.remove("p/out/x.o");
            let mut shell = world.command("sh");
            shell.args(["-c", &format!("{client} gcc -c -xc - -o out/x.o < ../source")]).current_dir(world.path("p"));
            effect(&mut shell, &world.path("p/out"))
        };
        let bare = compile("");
        run(&mut world.zcache("start"));
        let before = world.status();
        for _ in 0..2 {
            assert_same(&bare, &compile(CLIENT), what);
            world.status();
        }
        assert_eq!((bare.code, world.since(&before)), (Some(0), counts), "{what}: {}", reasons(&world));
    }
}
