//! Records of the index: what the disk holds is a manifest or nothing, and what is told to a client names plain places.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use zcache_daemon::cas::Cas;
use zcache_daemon::manifest::{ActionResult, Entry, Manifest, OutputContent, OutputFile};
use zcache_daemon::packed::{pack, pack_bytes, unpack};
use zcache_daemon::paths::is_plain;
use zcache_daemon::roles::{Role, RolePath};
use zcache_daemon::template::Template;
use zcache_daemon::wire;
use zcache_fuzz::{roots, spelled};
use zcache_proto::v1::output::Content;
use zcache_proto::{Digest, v1};

/// Where blobs would be: no target reads one.
static CAS: LazyLock<Cas> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("zcache-fuzz-{}", std::process::id()));
    let cas = Cas::open(&dir).expect("a directory");
    let _ = std::fs::remove_dir_all(dir);
    cas
});

fuzz_target!(|data: &[u8]| {
    // As it may lie on the disk, and past the packing, which hardly any mutation survives.
    for packed in [data.to_vec(), pack_bytes(data)] {
        if let Some(manifest) = unpack(&packed) {
            check(&manifest);
        }
    }
    // And one of outputs wherever the bytes spell.
    if let Some(manifest) = unpack(&pack(&made_up(data)).expect("it fits")) {
        check(&manifest);
    }
});

fn made_up(data: &[u8]) -> Manifest {
    let output = |bytes: &[u8]| {
        let (&choice, rest) = bytes.split_first()?;
        let rest = spelled(rest);
        let role = [None, Some(Role::Workspace), Some(Role::Output), Some(Role::Probe)][usize::from(choice % 4)];
        let content = match choice / 4 % 4 {
            0 => OutputContent::Blob { digest: Digest::of(&rest), size: 1, link: choice >= 128 },
            1 => OutputContent::Text(Template::of(&rest, &roots())),
            2 => OutputContent::Directory,
            _ => OutputContent::Symlink(rest.clone()),
        };
        Some(OutputFile { path: RolePath { role, rest }, content, mode: 0o644 })
    };
    let outputs = data.split(|&b| b == 0xff).filter_map(output).collect();
    Manifest {
        entries: vec![Entry { expectations: Vec::new(), result: ActionResult { outputs, ..ActionResult::default() } }],
    }
}

fn check(manifest: &Manifest) {
    assert_eq!(unpack(&pack(manifest).expect("it fits")).as_ref(), Some(manifest));
    let roots = roots();
    for entry in &manifest.entries {
        for expectation in &entry.expectations {
            let _ = expectation.to_string();
        }
        wire::as_seen(&entry.expectations, &entry.result, &roots, 1);
        wire::blobs(&entry.result, &roots);
        let Some(hit) = wire::hit(&entry.result, &roots, &CAS, 1, 1) else { continue };
        let made: Vec<_> =
            hit.outputs.iter().filter(|output| !matches!(output.content, Some(Content::Directory(_)))).collect();
        for output in &hit.outputs {
            let inside = |file: &&v1::Output| {
                output.path.strip_prefix(&file.path[..]).is_some_and(|rest| rest.starts_with(b"/"))
            };
            assert!(
                !made.iter().any(|file| inside(file))
                    || entry.result.outputs.iter().any(|file| file.path.role.is_some())
            );
            assert!(is_plain(&output.path) && output.mode & !0o7777 == 0);
            if let Some(Content::Blob(at)) = &output.content {
                assert!(is_plain(at));
            }
        }
    }
}
