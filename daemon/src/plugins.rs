//! Plugins: whether an object that a compiler loaded can read the environment whole. A single variable is seen when
//! it is asked for; a walk over `environ` is not, but a program that does so imports that symbol.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use object::{Object, ObjectSymbol, ReadCache};
use zcache_proto::Digest;

use crate::inputs::lock;
use crate::recent::Recent;

/// Most objects that are remembered.
const OBJECTS_MAX: usize = 2 * (7 << 10);

/// Answers by the object's digest.
#[derive(Debug)]
pub struct Plugins(Mutex<Recent<Digest, bool>>);

impl Default for Plugins {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(OBJECTS_MAX)))
    }
}

impl Plugins {
    /// Whether the object may walk over the environment; one that cannot be read may.
    pub fn reads_environment(&self, at: &Path, digest: Digest) -> bool {
        if let Some(known) = lock(&self.0).get(&digest) {
            return *known;
        }
        // One that cannot be opened now may be the next time.
        let Ok(file) = File::open(at) else { return true };
        let imports = imports_environ(file).unwrap_or(true);
        lock(&self.0).insert(digest, imports);
        imports
    }
}

fn imports_environ(file: File) -> Option<bool> {
    let data = ReadCache::new(file);
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
