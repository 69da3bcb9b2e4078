//! Packed: a manifest as the index keeps it. What comes back may be anything that a disk holds: it is a manifest that
//! names files as a compile does, or nothing. Pure.

use crate::manifest::Manifest;

/// Longest manifest, bytes: one that claims more is damaged.
const MANIFEST_MAX: usize = 64 << 20;
/// Longest that it can be when it is packed, bytes, and then some.
pub const PACKED_MAX: u64 = 2 * MANIFEST_MAX as u64;

/// Paths, most of them alike: a tenth is left of them. Of a manifest that is too long the newest entries are kept; none
/// where not even one fits.
pub fn pack(manifest: &Manifest) -> Option<Vec<u8>> {
    within(MANIFEST_MAX, manifest)
}

fn within(max: usize, manifest: &Manifest) -> Option<Vec<u8>> {
    let mut bytes = postcard::to_stdvec(manifest).ok()?;
    let mut kept = manifest.entries.len();
    while bytes.len() > max && kept > 1 {
        kept -= 1;
        bytes = postcard::to_stdvec(&Manifest { entries: manifest.entries[..kept].to_vec() }).ok()?;
    }
    (bytes.len() <= max).then(|| pack_bytes(&bytes))
}

/// Bytes as [`pack`] packs them, whatever they are.
pub fn pack_bytes(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::compress_prepend_size(bytes)
}

/// The manifest that was packed.
pub fn unpack(bytes: &[u8]) -> Option<Manifest> {
    let (length, _) = lz4_flex::block::uncompressed_size(bytes).ok()?;
    if length > MANIFEST_MAX {
        return None;
    }
    let manifest: Manifest = postcard::from_bytes(&lz4_flex::decompress_size_prepended(bytes).ok()?).ok()?;
    manifest.entries.iter().all(|entry| entry.result.is_sound()).then_some(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ActionResult, Entry, Expectation, OutputContent, OutputFile};
    use crate::roles::{Role, RolePath};

    fn with_output(role: Option<Role>, rest: &[u8], mode: u32) -> Manifest {
        let path = RolePath { role, rest: rest.into() };
        let outputs = vec![OutputFile { path, content: OutputContent::Directory, mode }];
        let result = ActionResult { outputs, ..ActionResult::default() };
        Manifest { entries: vec![Entry { expectations: Vec::new(), result }] }
    }

    fn comes_back(manifest: &Manifest) -> bool {
        let unpacked = unpack(&pack(manifest).unwrap());
        assert!(unpacked.is_none() || unpacked.as_ref() == Some(manifest));
        unpacked.is_some()
    }

    #[test]
    fn an_output_that_leads_elsewhere_is_no_output() {
        let workspace = Some(Role::Workspace);
        for rest in ["", "/x.o", "/..x/a"] {
            assert!(comes_back(&with_output(workspace, rest.as_bytes(), 0o644)), "{rest:?}");
        }
        for rest in ["/../x", "x", "-2/x", "/a/../../x", "/a/..", "/a\0", "//x", "/./x"] {
            assert!(!comes_back(&with_output(workspace, rest.as_bytes(), 0o644)), "{rest:?}");
        }
        assert!(comes_back(&with_output(None, b"/x", 0o644)));
        for rest in ["", "x", "/", "../x", "/a/../x", "/a\0b"] {
            assert!(!comes_back(&with_output(None, rest.as_bytes(), 0o644)), "{rest:?}");
        }
        assert!(!comes_back(&with_output(None, b"/x", 0o100_644)), "a mode is permission bits");
    }

    #[test]
    fn nothing_is_put_below_what_is_no_directory() {
        let output = |rest: &[u8], content| OutputFile {
            path: RolePath { role: None, rest: rest.into() },
            content,
            mode: 0o755,
        };
        let two = |first: OutputContent| {
            let outputs = vec![output(b"/w/a", first), output(b"/w/a/b", OutputContent::Directory)];
            let result = ActionResult { outputs, ..ActionResult::default() };
            Manifest { entries: vec![Entry { expectations: Vec::new(), result }] }
        };
        assert!(comes_back(&two(OutputContent::Directory)));
        assert!(!comes_back(&two(OutputContent::Symlink(b"/etc".into()))));
    }

    #[test]
    fn damage_is_nothing_and_takes_no_memory() {
        let good = pack(&with_output(None, b"/x", 0o644)).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = unpack(&bad);
            }
            assert!(unpack(&good[..at]).is_none(), "cut at {at}");
        }
        assert!(unpack(&[0xff; 64]).is_none());
    }

    #[test]
    fn what_is_too_long_loses_its_oldest_entries() {
        let entry = |byte: u8| Entry {
            expectations: vec![Expectation::Env(vec![byte; 500], None)],
            result: ActionResult::default(),
        };
        let packed = within(1000, &Manifest { entries: vec![entry(1), entry(2)] }).unwrap();
        assert_eq!(unpack(&packed).unwrap().entries, [entry(1)]);
        let long = Entry { expectations: [entry(1).expectations, entry(2).expectations].concat(), ..entry(0) };
        assert!(within(1000, &Manifest { entries: vec![long] }).is_none());
    }
}
