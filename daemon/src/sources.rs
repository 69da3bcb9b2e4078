//! Sources: what a file that a compiler reads as source says of itself: that it wants to know the time, or whether other
//! files are there. Knows bytes, not languages; a word counts wherever it stands.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use memchr::memmem;
use zcache_proto::Digest;

use crate::inputs::{FILES_MAX, lock};
use crate::recent::Recent;

/// What a source names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// `__DATE__` or `__TIME__`.
    pub date: bool,
    /// `__TIMESTAMP__`: its own modification time.
    pub timestamp: bool,
    /// `__has_include`, `#embed`, `.incbin` and their like: files that no list of headers tells.
    pub probes: bool,
}

impl Marks {
    /// What `text` names.
    pub fn of(text: &[u8]) -> Self {
        let names = |words: &[&str]| words.iter().any(|word| memmem::find(text, word.as_bytes()).is_some());
        Self {
            date: names(&["__DATE__", "__TIME__"]),
            timestamp: names(&["__TIMESTAMP__"]),
            probes: names(&["__has_include", "__has_embed", "#embed", "# embed", ".incbin", ".include"]),
        }
    }
}

/// Marks by the file's digest.
#[derive(Debug)]
pub struct Sources(Mutex<Recent<Digest, Marks>>);

impl Default for Sources {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(FILES_MAX)))
    }
}

impl Sources {
    /// The marks of the file at `at`, whose digest is `digest`.
    pub fn marks(&self, at: &Path, digest: Digest) -> io::Result<Marks> {
        if let Some(marks) = lock(&self.0).get(&digest) {
            return Ok(*marks);
        }
        let text = fs::read(at)?;
        if Digest::of(&text) != digest {
            return Err(io::Error::other("the file changed"));
        }
        let marks = Marks::of(&text);
        lock(&self.0).insert(digest, marks);
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_wherever_they_stand() {
        assert_eq!(Marks::of(b"int x; // __TIMER__ has_include"), Marks::default());
        assert_eq!(Marks::of(b"#define T __TIME__"), Marks { date: true, ..Marks::default() });
        assert_eq!(Marks::of(b"\"\" __TIMESTAMP__"), Marks { timestamp: true, ..Marks::default() });
        assert_eq!(Marks::of(b"asm(\".incbin\")"), Marks { probes: true, ..Marks::default() });
    }
}
