//! Matrix: one command bare, as a miss and as a hit, each in a fresh directory of the same name, compared in all that
//! it leaves. Knows the harness, not the compilers.

#![allow(dead_code, reason = "each test file uses its part of the matrix")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fixture::settle;
use crate::harness::{CLIENT, Counts, Effect, World, assert_same, effect};

/// What has to come of a command that is given to zcache twice.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// A miss, then a hit.
    Stored,
    /// Two misses, neither of which is stored, for this reason.
    Refused(&'static str),
    /// It is handed on, for this reason.
    Bypassed(&'static str),
}

/// A world and the files that every command finds in the directory `w`.
pub struct Matrix<'a> {
    pub world: World,
    pub files: &'a [(&'a str, &'a str)],
    pub env: Vec<(&'a str, String)>,
}

impl<'a> Matrix<'a> {
    /// A world of its own.
    pub fn new(files: &'a [(&'a str, &'a str)]) -> Self {
        Self { world: World::new(), files, env: Vec::new() }
    }

    /// Whose lines can do the machine no harm.
    pub fn harmless(files: &'a [(&'a str, &'a str)]) -> Self {
        Self { world: World::harmless(), files, env: Vec::new() }
    }

    /// In a directory of `place`.
    pub fn below(place: &str, files: &'a [(&'a str, &'a str)]) -> Self {
        Self { world: World::below(Path::new(place)), files, env: Vec::new() }
    }

    /// Checks each of `lines`, commands of a shell in `w` with `%` before each compiler, to the last.
    pub fn all(&self, expected: Expected, lines: &[impl AsRef<str>]) {
        let fails = |line: &&str| catch_unwind(AssertUnwindSafe(|| self.check(expected, line))).is_err();
        let failed: Vec<&str> = lines.iter().map(AsRef::as_ref).filter(fails).collect();
        assert!(failed.is_empty(), "{} of {} lines, told above: {failed:#?}", failed.len(), lines.len());
    }

    /// As [`Matrix::all`], for one line. Returns what bare does.
    pub fn check(&self, expected: Expected, line: &str) -> Effect {
        let bare = self.fresh(line, false);
        let works = !matches!(expected, Expected::Stored) || bare.code == Some(0);
        assert!(works, "{line} is stored, yet it fails: {}", bare.stderr);
        for (round, want) in ["miss", "hit"].into_iter().zip(expected.counts()) {
            let before = self.world.status();
            let got = self.fresh(line, true);
            assert_eq!(self.world.since(&before), want, "{round} of {line}: {}", self.why());
            let counted = |report: &Value| expected.reason().map_or(0, |(kind, word)| number(&report[kind][word]));
            let reasons = counted(&self.world.status()) - counted(&before);
            let refused = u64::from(expected.reason().is_some());
            assert_eq!(reasons, refused, "{round} of {line}: {expected:?}: {}", self.why());
            assert_same(&bare, &got, &format!("{round} of {line}"));
        }
        bare
    }

    /// Runs a line in a fresh directory.
    pub fn fresh(&self, line: &str, cached: bool) -> Effect {
        settle(&|| self.lay_out());
        effect(&mut self.shell(line, cached), &self.dir())
    }

    /// Makes the directory anew.
    pub fn lay_out(&self) {
        self.world.remove("w");
        fs::create_dir_all(self.dir().join("out")).expect("a directory");
        for (name, text) in self.files {
            let path = self.dir().join(OsStr::from_bytes(&unescaped(name)));
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        self.world.hand_over();
    }

    /// The shell that runs a line.
    pub fn shell(&self, line: &str, cached: bool) -> Command {
        let client = if cached { format!("{CLIENT} ") } else { String::new() };
        let mut command = self.world.command("bash");
        command.arg("-c").arg(OsStr::from_bytes(&unescaped(&line.replace('%', &client))));
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(self.dir());
        command
    }

    /// Where commands run.
    pub fn dir(&self) -> PathBuf {
        self.world.path("w")
    }

    /// What zcache has to say about it.
    pub fn why(&self) -> String {
        let status = self.world.status();
        format!("{} {}\n{}", status["refusal_reasons"], status["bypass_reasons"], self.world.log())
    }
}

impl Expected {
    fn counts(self) -> [Counts; 2] {
        let counts = |hits, misses, bypasses| Counts { hits, misses, bypasses };
        match self {
            Self::Stored => [counts(0, 1, 0), counts(1, 0, 0)],
            Self::Refused(_) => [counts(0, 1, 0); 2],
            Self::Bypassed(_) => [counts(0, 0, 1); 2],
        }
    }

    fn reason(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Stored => None,
            Self::Refused(word) => Some(("refusal_reasons", word)),
            Self::Bypassed(word) => Some(("bypass_reasons", word)),
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A `¿` stands for the byte 0xff, which is in no text.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, part) in text.split('¿').enumerate() {
        bytes.extend((number > 0).then_some(0xff));
        bytes.extend(part.as_bytes());
    }
    bytes
}
