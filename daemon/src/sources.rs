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
    /// `__FILE__`, `std::source_location` and their like: code can compute on the path of a source.
    pub own_path: bool,
    /// It takes in a file by a path from the root.
    pub absolute: bool,
    /// It is a precompiled header of clang's, which is valid as long as the files that it was made of have their times.
    pub dates_inputs: bool,
}

/// Words by which a source gets at the path of itself or of what includes it.
const OWN_PATH: &[&str] = &["__FILE__", "__BASE_FILE__", "__builtin_FILE", "source_location"];

/// Whether a function gets the path of a failed assertion. It is called when that fails, so nothing is computed from the path.
fn reports_assertion(function: &[u8]) -> bool {
    function == b"__assert" || function.ends_with(b"assert_fail") || function == b"__assert_perror_fail"
}

impl Marks {
    /// What both name.
    pub fn and(self, other: Self) -> Self {
        Self {
            date: self.date || other.date,
            timestamp: self.timestamp || other.timestamp,
            probes: self.probes || other.probes,
            own_path: self.own_path || other.own_path,
            absolute: self.absolute || other.absolute,
            dates_inputs: self.dates_inputs || other.dates_inputs,
        }
    }

    /// What `text` names. A precompiled header of gcc's holds every word that the compiler knows, whether its sources
    /// named it or not: the clock tells of dates, since gcc asks for the time when it comes to one.
    pub fn of(text: &[u8]) -> Self {
        if text.starts_with(b"gpch") {
            return Self { own_path: true, ..Self::default() };
        }
        if text.starts_with(b"CPCH") {
            return Self { own_path: true, dates_inputs: true, ..Self::default() };
        }
        let names = |words: &[&str]| words.iter().any(|word| memmem::find(text, word.as_bytes()).is_some());
        Self {
            date: names(&["__DATE__", "__TIME__"]),
            timestamp: names(&["__TIMESTAMP__"]),
            probes: names(&["__has_include", "__has_embed", "#embed", "# embed", ".incbin", ".include"]),
            own_path: OWN_PATH.iter().any(|word| computes_on(text, word.as_bytes())),
            absolute: takes_in_absolute(text),
            dates_inputs: false,
        }
    }
}

impl Marks {
    /// What arguments name: a macro may be defined in one, and another character set hides a path from a search.
    pub fn of_arguments(arguments: &[Vec<u8>]) -> Self {
        let text = arguments.join(&b'\n');
        let hides = memmem::find(&text, b"exec-charset").is_some();
        Self { own_path: hides || OWN_PATH.iter().any(|word| computes_on(&text, word.as_bytes())), ..Self::default() }
    }
}

/// Whether `word` stands in `text` other than as an argument of an assertion's function.
fn computes_on(text: &[u8], word: &[u8]) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let alone =
        |at: &usize| !is_part(at.checked_sub(1).and_then(|at| text.get(at))) && !is_part(text.get(at + word.len()));
    memmem::find_iter(text, word).filter(alone).any(|at| !is_asserted(text, at))
}

/// Whether the word at `at` is itself an argument of such a function, rather than something that is computed for one.
fn is_asserted(text: &[u8], at: usize) -> bool {
    let line = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    // The bracket that is still open there.
    let mut closed = 0;
    let opens = |b: &u8| match b {
        b')' => {
            closed += 1;
            false
        }
        b'(' if closed > 0 => {
            closed -= 1;
            false
        }
        b => *b == b'(',
    };
    let Some(from_end) = text[line..at].iter().rev().position(opens) else { return false };
    let open = at - line - from_end - 1;
    let before = text[line..line + open].trim_ascii_end();
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    reports_assertion(before.rsplit(|b| !is_part(b)).next().unwrap_or_default())
}

/// `#include "/…"`, `<…>` likewise, and their kin.
fn takes_in_absolute(text: &[u8]) -> bool {
    let quoted = [b"\"/".as_slice(), b"</"].into_iter().flat_map(|start| memmem::find_iter(text, start));
    quoted.into_iter().any(|at| {
        let line = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let before = &text[line..at];
        [b"include".as_slice(), b"import", b"embed", b"incbin"].iter().any(|word| memmem::find(before, word).is_some())
    })
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
        assert_eq!(Marks::of(b"gpch __DATE__ __TIMESTAMP__"), Marks { own_path: true, ..Marks::default() });
        assert_eq!(Marks::of(b"unsigned h = hash(__FILE__);"), Marks { own_path: true, ..Marks::default() });
        assert_eq!(Marks::of(b"#define __cpp_lib_source_location 1"), Marks::default());
        assert_eq!(Marks::of(b"__assert_perror_fail ((errnum), __FILE__, __LINE__)"), Marks::default());
        assert_eq!(Marks::of(b"#define a(e) __assert_fail(#e, __FILE__, __LINE__)"), Marks::default());
        for text in ["static_assert(len(__FILE__) > 3);", "__assert_fail(#e, h(__FILE__), 1)", "my_assert(__FILE__)"] {
            assert!(Marks::of(text.as_bytes()).own_path, "{text}");
        }
        assert_eq!(Marks::of(b"# include \"/gen/x.h\""), Marks { absolute: true, ..Marks::default() });
        assert_eq!(Marks::of(b"char *path = \"/usr\"; // include"), Marks::default());
    }
}
