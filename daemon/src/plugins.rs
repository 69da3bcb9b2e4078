//! Plugins: whether an object that a compiler loaded can read the environment whole. A single variable is seen when
//! it is asked for; a walk over `environ` is not, but a program that does so imports that symbol.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use object::{Object, ObjectSymbol, ReadCache};
use zcache_proto::Digest;

use crate::inputs::lock;

/// Answers by the object's digest.
#[derive(Debug, Default)]
pub struct Plugins(Mutex<HashMap<Digest, bool>>);

impl Plugins {
    /// Whether the object may walk over the environment; one that cannot be read may.
    pub fn reads_environment(&self, at: &Path, digest: Digest) -> bool {
        if let Some(known) = lock(&self.0).get(&digest) {
            return *known;
        }
        let imports = imports_environ(at).unwrap_or(true);
        lock(&self.0).insert(digest, imports);
        imports
    }
}

fn imports_environ(at: &Path) -> Option<bool> {
    let data = ReadCache::new(File::open(at).ok()?);
    let object = object::File::parse(&data).ok()?;
    let mut symbols = object.dynamic_symbols();
    Some(symbols.any(|s| s.is_undefined() && matches!(s.name_bytes(), Ok(b"environ" | b"__environ" | b"_environ"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_object_may_do_anything() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "text").unwrap();
        assert!(Plugins::default().reads_environment(&file, Digest::of(b"text")));
    }
}
