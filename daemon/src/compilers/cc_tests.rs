//! Tests of the C family's command lines.

use super::super::parse as parse_command;
use super::*;

fn invocation(cwd: &str, command: &str) -> Invocation {
    Invocation {
        argv: command.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
        program: b"/usr/bin/cc".into(),
        cwd: cwd.into(),
        pwd: cwd.into(),
        ..Invocation::default()
    }
}

fn parsed(command: &str) -> Result<Cc, Bypass> {
    let invocation = invocation("/w/p", command);
    parse(&invocation, &invocation.argv).map(|(cc, ..)| cc)
}

fn action(cwd: &str, command: &str) -> zcache_proto::Digest {
    let invocation = invocation(cwd, command);
    parse_command(&invocation, |_| Some(b"-DFROM_FILE".into())).unwrap().action
}

#[test]
fn drivers_go_by_many_names() {
    for name in ["cc", "/usr/bin/gcc-12", "x86_64-linux-gnu-g++-12", "clang++-14", "zig", "c99"] {
        assert!(is_driver(name.as_bytes()), "{name}");
    }
    for name in ["ccache", "cc1", "rustc", "ld", "gcc-ar", "c++filt"] {
        assert!(!is_driver(name.as_bytes()), "{name}");
    }
}

#[test]
fn what_compiles_is_cached_and_the_rest_has_a_reason() {
    for command in [
        "cc -c x.c",
        "cc -o x.o -c x.c",
        "gcc -S x.c -ox.s",
        "g++ -E x.cc",
        "cc -M x.c",
        "clang -c -x c -",
        "cc --version",
        "cc -c a.c b.c",
        "zig cc -c x.c",
        "./zigcc-aarch64.sh -c x.S",
        "clang -E x.h",
        "./wrapper -c x.i",
        "cc -c x.c -Ifoo.h",
        "gcc --compile x.c",
        "clang --analyze x.c",
        "clang -c x.c -include-pch x.pch",
    ] {
        assert!(parsed(command).is_ok(), "{command}: {:?}", parsed(command));
    }
    for (command, reason) in [
        ("cc x.c -o x", Bypass::Link),
        ("cc x.o", Bypass::Link),
        ("cc -", Bypass::Link),
        ("cc -shared x.o -o x.so", Bypass::Link),
        ("gcc x.h", Bypass::PrecompiledHeader),
        ("gcc -c x.hpp -o x.gch", Bypass::PrecompiledHeader),
        ("g++ -x c++-header y -o y.gch", Bypass::PrecompiledHeader),
        ("clang -c x.c -Xclang -emit-pch", Bypass::PrecompiledHeader),
        ("clang -c -fmodules x.m", Bypass::Modules),
        ("clang++ --precompile x.cppm -o x.pcm", Bypass::Modules),
        ("g++ -fmodules-ts -c x.cc", Bypass::Modules),
        ("ccache gcc -c x.c", Bypass::OtherWrapper),
        ("gcc -c x.c -ftime-report", Bypass::Profiling),
        ("zig build", Bypass::UnknownCompiler),
        ("tar -c -f x.tar y", Bypass::UnknownCompiler),
        ("./wrapper x.o", Bypass::UnknownCompiler),
    ] {
        assert_eq!(parsed(command).unwrap_err(), reason, "{command}");
    }
}

#[test]
fn another_checkout_is_the_same_action() {
    let command = |root: &str| format!("cc -c {root}/src/x.c -o {root}/build/x.o -I{root}/inc");
    assert_eq!(action("/a/ws/build", &command("/a/ws")), action("/b/else/build", &command("/b/else")));
    let out = |root: &str| format!("cc -c x.c -o {root}/target/debug/build/ring-1/out/x.o");
    assert_eq!(action("/reg/ring", &out("/a/ws")), action("/reg/ring", &out("/b/else")));
    assert_ne!(action("/w/p", "cc -c x.c"), action("/w/p", "cc -c y.c"));
    assert_ne!(action("/w/p", "cc -c x.c"), action("/w/q", "cc -c ../p/x.c"));
}

#[test]
fn the_name_of_a_probe_does_not_matter() {
    let probe = |name: &str| action("/reg/ring", &format!("cc -E /w/target/out/{name}"));
    assert_eq!(probe("12detect_compiler_family.c"), probe("987detect_compiler_family.c"));
    assert_ne!(probe("12other.c"), probe("987other.c"));
}

#[test]
fn argument_files_are_part_of_the_action() {
    assert_eq!(action("/w/p", "cc -c x.c @f"), action("/w/p", "cc -c x.c -DFROM_FILE"));
    let invocation = invocation("/w/p", "cc -c x.c @f");
    assert!(parse_command(&invocation, |_| None).is_ok(), "gcc takes it for a name");
}

#[test]
fn dependency_files_are_text() {
    for (command, path) in [
        ("cc -c x.c -MD -MF deps/x.dep", "/w/p/deps/x.dep"),
        ("cc -c x.c -MMD", "/w/p/x.d"),
        ("cc -c x.c -MD -MF/abs/x", "/abs/x"),
        ("cc -c x.c -Wp,-MD,.x.o.dep", "/w/p/.x.o.dep"),
    ] {
        assert_eq!(parsed(command).unwrap().output_rule(path.as_bytes()), OutputRule::Text, "{command}");
    }
    assert_eq!(parsed("cc -c x.c").unwrap().output_rule(b"/w/p/x.o"), OutputRule::Plain);
}

#[test]
fn the_output_is_the_callers_to_choose() {
    let base = action("/w/p", "cc -c x.c -o a/x.o -MD -MF a/x.o.d -MT a/x.o -Wp,-MMD,a/.x.d");
    for (command, same) in [
        ("cc -c x.c -o b/c/y.o -MD -MF b/c/y.o.d -MT b/c/y.o -Wp,-MMD,b/c/.x.d", true),
        ("cc -c x.c -o /t/y.o -MD -MF /t/y.o.d -MT /t/y.o -Wp,-MMD,/t/.x.d", true),
        ("cc -c x.c -o b/y.o -MD -MF b/z.d -MT b/y.o -Wp,-MMD,b/.x.d", false),
        ("cc -c x.c -o b/y.o -MD -MF b/y.o.d -MT other -Wp,-MMD,b/.x.d", false),
        ("cc -c z.c -o b/y.o -MD -MF b/y.o.d -MT b/y.o -Wp,-MMD,b/.x.d", false),
    ] {
        assert_eq!(action("/w/p", command) == base, same, "{command}");
    }
    let probe = |dir: &str| action("/w/p", &format!("cc -Werror -c -x c /dev/null -o {dir}/tmp"));
    assert_eq!(probe(".tmp_12"), probe(".tmp_345"));
}

#[test]
fn a_source_above_the_root_is_in_the_root() {
    for (cwd, source) in [("/w", "../../../x.c"), ("/", "../x.c"), ("/a/b", "/../../x.c"), ("/a//b", "../../../..")] {
        let invocation = invocation(cwd, &format!("cc -c {source}"));
        assert!(parse_command(&invocation, |_| None).is_ok(), "{cwd}: {source}");
    }
}
