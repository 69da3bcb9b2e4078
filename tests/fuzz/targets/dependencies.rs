//! What compilers list: depfiles of the C family and of rustc, zig's headers, and any text with paths in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zcache_daemon::compilers::depfile::prerequisites;
use zcache_daemon::manifest::by_role;
use zcache_daemon::sources::Marks;
use zcache_daemon::template::Template;
use zcache_fuzz::{command, invocation, roots, spelled};

fuzz_target!(|data: &[u8]| {
    check(data);
    check(&spelled(data));
});

fn check(data: &[u8]) {
    let names = prerequisites(data);
    assert!(names.iter().all(|name| !name.is_empty()));
    assert!(names.iter().map(Vec::len).sum::<usize>() <= data.len(), "a list names no more than it holds");
    for choice in 0..3 {
        let invocation = invocation(choice);
        let command = command(&invocation);
        let declared = command.family.declared_inputs(b"/w/p/x.d", data);
        assert!(declared.iter().map(Vec::len).sum::<usize>() <= data.len());
        if let Some((zig, _)) = command.family.zig() {
            let inputs = zig.inputs(data);
            let candidates = zig.candidates(&inputs).unwrap_or_default();
            assert!(candidates.is_disjoint(&inputs));
        }
        assert_eq!(Template::of(data, &command.roots).render(&command.roots).as_deref(), Some(data));
    }
    let roots = roots();
    assert_eq!(Template::of(data, &roots).render(&roots).as_deref(), Some(data), "the same roots give the same text");
    by_role(data, &roots);
    Marks::of(data);
}
