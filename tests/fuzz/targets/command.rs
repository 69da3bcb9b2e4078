//! Command lines: a directory, arguments and argument files, of all families.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zcache_daemon::compilers::argfile::BYTES_MAX;
use zcache_daemon::compilers::parse;
use zcache_daemon::invocation::Invocation;
use zcache_fuzz::{piece, spelled};

fuzz_target!(|data: &[u8]| {
    check(data);
    check(&spelled(data));
});

fn check(data: &[u8]) {
    let mut data = data;
    let line = piece(&mut data, 0);
    let cwd = piece(&mut data, 0);
    let env = piece(&mut data, 0);
    // What is left are argument files: `@a` is the first of them.
    let files: Vec<&[u8]> = data.split(|&b| b == 0).collect();
    let invocation = Invocation {
        argv: line.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect(),
        program: b"/usr/bin/gcc".into(),
        cwd: [b"/", cwd].concat(),
        env: zcache_daemon::invocation::Env::new(env.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect()),
        ..Invocation::default()
    };
    let mut read = 0;
    let mut asked = 0;
    let parsed = parse(&invocation, |name| {
        let text = files.get(usize::from(name.first()?.wrapping_sub(b'a')))?.to_vec();
        read += text.len();
        asked += 1;
        Some(text)
    });
    assert!(read <= BYTES_MAX + data.len() && asked <= 2001, "{read} bytes in {asked} files");
    let Ok(command) = parsed else { return };
    // The same question has the same answer.
    let again = parse(&invocation, |name| Some(files.get(usize::from(name.first()?.wrapping_sub(b'a')))?.to_vec()));
    assert_eq!(again.expect("it was one before").action, command.action);
    for source in command.family.sources() {
        assert!(source.starts_with(b"/"));
        command.family.output_rule(&source);
        command.family.is_state(&source);
        command.family.lists_for_candidates(&source);
        command.roots.role_of(&source);
    }
    if let Some((zig, outputs)) = command.family.zig() {
        assert!(outputs.iter().all(|at| at.starts_with(b"/")));
        zig.candidates(&zig.inputs(env));
    }
}
