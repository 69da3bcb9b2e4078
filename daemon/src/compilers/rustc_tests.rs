//! Tests of rustc's command line.

use super::super::parse as parse_command;
use super::super::toolchain::owns;
use super::*;

fn invocation(cwd: &str, command: &str) -> Invocation {
    Invocation {
        argv: command.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
        program: b"/sysroot/bin/rustc".into(),
        cwd: cwd.into(),
        pwd: cwd.into(),
        ..Invocation::default()
    }
}

fn parsed(cwd: &str, command: &str) -> Result<(Rustc, Roots, String), Bypass> {
    let invocation = invocation(cwd, command);
    parse(&invocation, &invocation.argv)
}

fn action(cwd: &str, command: &str) -> zcache_proto::Digest {
    let invocation = invocation(cwd, command);
    parse_command(&invocation, |_| None).unwrap().action
}

#[test]
fn cargos_layouts_have_one_target_root() {
    for (out_dir, triple, root) in [
        ("/w/target/debug/deps", None, "/w/target"),
        ("/w/target/debug/examples", None, "/w/target"),
        ("/w/target/debug/build/ring-0a1b", None, "/w/target"),
        ("/w/t/aarch64-unknown-linux-gnu/release/deps", Some("aarch64-unknown-linux-gnu"), "/w/t"),
        ("/w/t/my/release/deps", Some("/w/my.json"), "/w/t"),
        ("/w/t/release/deps", Some("aarch64-unknown-linux-gnu"), "/w/t"),
        ("/plain/out", None, "/plain/out"),
    ] {
        assert_eq!(target_root(out_dir.as_bytes(), triple.map(str::as_bytes)), root.as_bytes(), "{out_dir}");
    }
}

#[test]
fn another_checkout_is_the_same_action() {
    let command = |root: &str| {
        format!(
            "rustc --crate-name x src/lib.rs --out-dir {root}/target/debug/deps -C incremental={root}/target/debug/incremental \
             --extern y={root}/target/debug/deps/liby.rmeta"
        )
    };
    assert_eq!(action("/a/ws", &command("/a/ws")), action("/b/elsewhere", &command("/b/elsewhere")));
}

#[test]
fn what_matters_is_in_the_action() {
    let base = "rustc --crate-name x src/lib.rs --extern x=/t/a --extern y=/t/b";
    for other in [
        "rustc --crate-name x src/lib.rs --extern x=/t/b --extern y=/t/a",
        "rustc --crate-name x src/lib.rs --extern y=/t/b --extern x=/t/a",
        "rustc --crate-name x src/lib.rs --extern x=/t/a --extern y=/t/b -C incremental=/i",
        "rustc --crate-name x src/lib.rs --extern x=/t/a --extern y=/t/b -C opt-level=1",
    ] {
        assert_ne!(action("/a/ws", base), action("/a/ws", other), "{other}");
    }
    let on = |dir: &str| action("/a/ws", &format!("{base} -C incremental={dir}"));
    assert_eq!(on("/i"), on("/j"));
    let joined = |dir: &str| action("/a/ws", &format!("{base} -Cincremental={dir}"));
    assert_eq!(joined("/i"), joined("/j"));
}

#[test]
fn how_diagnostics_look_is_no_part_of_the_question() {
    let with = |arguments: &str| action("/a/ws", &format!("rustc --crate-name x src/lib.rs {arguments}"));
    for (arguments, same) in [
        ("--error-format=json --json=diagnostic-short,artifacts --diagnostic-width=80", true),
        ("--json=artifacts --error-format json --diagnostic-width 100 --color=always", true),
        ("--error-format=json", false),
        ("--error-format=json --json=artifacts,future-incompat", false),
    ] {
        assert_eq!(with(arguments) == with("--error-format=json --json=artifacts"), same, "{arguments}");
    }
    assert_eq!(with("--color=never"), with("--error-format=short"));
    let rustc = Rustc::default();
    let notice = b"{\"$message_type\":\"artifact\",\"artifact\":\"/t/x.rmeta\",\"emit\":\"metadata\"}\n";
    assert!(
        !rustc.prints(b"", b"") && !rustc.prints(b"", notice) && !rustc.prints(b"", &[&notice[..], notice].concat())
    );
    assert!(rustc.prints(b"x", b"") && rustc.prints(b"", &[notice, &b"warning: x\n"[..]].concat()));
}

#[test]
fn shapes_that_are_rustcs() {
    for command in [
        "rustc -vV",
        "./stand-in.sh --crate-name x src/lib.rs",
        "clippy-driver rustc --crate-name x y.rs",
        "w rustc -vV",
    ] {
        assert!(parsed("/w/s", command).is_ok(), "{command}");
    }
    for command in ["gcc -c x.c", "rustc", "ls -l"] {
        assert_eq!(parsed("/w/s", command).unwrap_err(), Bypass::UnknownCompiler, "{command}");
    }
}

#[test]
fn cargo_fix_is_left_alone() {
    let mut invocation = invocation("/w/s", "cargo rustc --crate-name x y.rs");
    invocation.env = crate::invocation::Env::new(vec![b"__CARGO_FIX_PLZ=127.0.0.1:1".into()]);
    assert_eq!(parse(&invocation, &invocation.argv).unwrap_err(), Bypass::CargoFix);
}

#[test]
fn dep_info_names_inputs_as_empty_rules() {
    let text =
        b"/t/x.d: src/lib.rs a\\ b.rs\n\n/t/x: src/lib.rs a\\ b.rs\n\nsrc/lib.rs:\na\\ b.rs:\n\n# env-dep:X=y:\n";
    let inputs = Rustc::default().declared_inputs(b"/t/x.d", text);
    assert_eq!(inputs, [b"src/lib.rs".to_vec(), b"a b.rs".to_vec()]);
}

#[test]
fn what_a_compiler_brings_is_its_own_and_a_macro_is_not() {
    for (program, module, own) in [
        ("/t/bin/rustc", "/t/lib/librustc_driver.so", true),
        ("/t/lib/rustlib/x/bin/gcc-ld/ld.lld", "/t/lib/libLLVM.so", true),
        ("/usr/bin/x86_64-linux-gnu-ld.bfd", "/usr/lib/x86_64-linux-gnu/libbfd.so", true),
        ("/t/bin/rustc", "/ws/target/debug/deps/libmac.so", false),
        ("/bin/dash", "/lib/x86_64-linux-gnu/libc.so.6", false),
    ] {
        assert_eq!(owns(program.as_bytes(), module.as_bytes()), own, "{program} {module}");
    }
}
