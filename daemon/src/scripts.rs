//! Scripts: how a script gets at what its interpreter took from the clock when it began. An interpreter does that before
//! the script's first line is read, and it shows in nothing that the script does, unless the script says one of these
//! words: then it is the project's. Knows bytes, not languages; a word counts wherever it stands.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use memchr::memmem;
use zcache_proto::Digest;

use crate::compilers::toolchain::file_name;
use crate::inputs::lock;
use crate::recent::Recent;

/// Most scripts that are remembered.
const SCRIPTS_MAX: usize = 2 * (7 << 10);

/// Who reads a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interpreter {
    /// It gives its script the time at which it began.
    Perl,
    /// It gives its script nothing of it.
    Python,
    /// A shell, or unknown: the seed of its random numbers is the time at which it began.
    Shell,
}

impl Interpreter {
    /// By its file.
    pub fn of(program: &[u8]) -> Self {
        match file_name(program) {
            name if name.starts_with(b"perl") => Self::Perl,
            name if name.starts_with(b"python") => Self::Python,
            _ => Self::Shell,
        }
    }

    /// Whether `text` may ask for what is left of the time at which the interpreter began.
    fn gives(self, text: &[u8]) -> bool {
        let says = |word: &[u8]| memmem::find(text, word).is_some();
        match self {
            Self::Perl => names_beginning(text) || says(b"BASETIME") || asks_age(text),
            Self::Python => false,
            Self::Shell => says(b"RANDOM"),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether there is a `$^T` or `${^T}`, which is no `${^TAINT}`.
fn names_beginning(text: &[u8]) -> bool {
    memmem::find_iter(text, b"^T").any(|at| !text.get(at + 2).is_some_and(|next| is_word(*next)))
}

/// Whether perl is asked for a file's age: `-M $file`, `-A "name"`, `-C _`.
fn asks_age(text: &[u8]) -> bool {
    let asks = |at: usize| {
        let before = at.checked_sub(1).map_or(b' ', |before| text[before]);
        let is_test = !is_word(before) && before != b'-' && matches!(text.get(at + 1), Some(b'M' | b'A' | b'C'));
        let operand = text.get(at + 2..).unwrap_or_default().trim_ascii_start();
        is_test && operand.first().is_some_and(|first| matches!(first, b'$' | b'"' | b'\'' | b'_' | b'('))
    };
    memchr::memchr_iter(b'-', text).any(asks)
}

/// Answers by the script's digest and its reader.
#[derive(Debug)]
pub struct Scripts(Mutex<Recent<(Digest, Interpreter), bool>>);

impl Default for Scripts {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(SCRIPTS_MAX)))
    }
}

impl Scripts {
    /// Whether the script at `at`, whose digest is `digest`, may tell when its interpreter began.
    pub fn tells_time(&self, at: &Path, digest: Digest, reader: Interpreter) -> io::Result<bool> {
        if let Some(known) = lock(&self.0).get(&(digest, reader)) {
            return Ok(*known);
        }
        let text = fs::read(at)?;
        if Digest::of(&text) != digest {
            return Err(io::Error::other("the file changed"));
        }
        let tells = reader.gives(&text);
        lock(&self.0).insert((digest, reader), tells);
        Ok(tells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_give_the_time_away_are_found() {
        let [perl, python, shell] =
            ["/usr/bin/perl", "/usr/bin/python3.11", "/bin/bash"].map(|program| Interpreter::of(program.as_bytes()));
        for (reader, text, gives) in [
            (shell, "x=$RANDOM", true),
            (shell, "exec gcc -M \"$@\"", false),
            (perl, "print $^T", true),
            (perl, "print ${^T}", true),
            (perl, "if (${^TAINT}) {}", false),
            (perl, "use English; print $BASETIME", true),
            (perl, "print -M $file", true),
            (perl, "if (-M 'x' > 1) {}", true),
            (perl, "print(-C _)", true),
            (perl, "exec 'gcc', '-MD', '-MF', @ARGV", false),
            (perl, "$x - $y; $A-C", false),
            (python, "RANDOM", false),
        ] {
            assert_eq!(reader.gives(text.as_bytes()), gives, "{text}");
        }
    }
}
