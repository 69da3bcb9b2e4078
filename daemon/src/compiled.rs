//! Compiled: a finished compile, and its inputs as it found them, between the client's report and the entry that comes
//! of it. Data only.

use std::collections::BTreeMap;
use std::sync::Arc;

use zcache_proto::Digest;

use crate::compilers::Command;
use crate::distilled::Distilled;
use crate::inputs::Stamp;
use crate::invocation::Invocation;
use crate::sources::Marks;

/// A finished compile.
#[derive(Debug)]
pub struct Compiled {
    /// What it was called with.
    pub invocation: Arc<Invocation>,
    /// What that means.
    pub command: Arc<Command>,
    /// What it did, its nested compiles' doings folded in.
    pub seen: Distilled,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit_code: i32,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
    /// When it began, nanoseconds since 1970.
    pub began_ns: i64,
    /// Sources that were new when it began.
    pub fresh: Fresh,
}

/// Digests of files that changed so shortly before a compile began that their times do not tell whether they changed
/// after: a configure test, or what the step before has generated.
pub type Fresh = BTreeMap<Vec<u8>, Digest>;

/// An input in the state that the compiler read.
#[derive(Debug)]
pub struct Input {
    /// Where.
    pub path: Vec<u8>,
    /// Its state.
    pub stamp: Stamp,
    /// Known already, or read at once: sources may be edited as soon as the build is over.
    pub digest: Option<Digest>,
    /// What it names, where it is a source and was read at once.
    pub marks: Option<Marks>,
}
