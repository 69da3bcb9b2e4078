//! Records of the index: what the disk holds is a manifest or nothing, and what is told to a client names plain places.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use zcache_daemon::cas::Cas;
use zcache_daemon::manifest::Manifest;
use zcache_daemon::packed::{pack, pack_bytes, unpack};
use zcache_daemon::paths::is_plain;
use zcache_daemon::wire;
use zcache_fuzz::roots;
use zcache_proto::v1::output::Content;

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
});

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
        for output in &hit.outputs {
            assert!(is_plain(&output.path) && output.mode & !0o7777 == 0);
            if let Some(Content::Blob(at)) = &output.content {
                assert!(is_plain(at));
            }
        }
    }
}
