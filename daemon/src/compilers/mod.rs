//! Compilers: what a family of compilers' command lines mean and which of its observed habits are not inputs.
//! Everything that knows a family stands in its file here. Pure: argument files are read by the caller.

pub mod argfile;
pub mod cc;
pub mod cc_words;
pub mod depfile;
pub mod rustc;
pub mod toolchain;
pub mod zig;

use std::fmt;

use serde::Serialize;
use zcache_proto::Digest;

use self::argfile::{Expanded, Style, expand};
use crate::binding::Exposed;
use crate::invocation::Invocation;
use crate::roles::Roots;
use crate::template::Template;

/// Why a command is none of zcache's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bypass {
    /// Not a compiler that zcache knows.
    UnknownCompiler,
    /// `cargo fix` rewrites sources and talks to its parent.
    CargoFix,
    /// It asks for arguments in a file that cannot be read, or in files without end.
    ArgumentFile,
    /// It reads source from standard input, as only an argument file says.
    UnreadStdin,
    /// It links.
    Link,
    /// It makes or names a precompiled header, which is bound to its sources' times.
    PrecompiledHeader,
    /// It makes or names modules, which depend on what else is being compiled.
    Modules,
    /// It measures itself, or says what it does: what it prints is new each time.
    Profiling,
    /// Another cache or distributor stands before the compiler.
    OtherWrapper,
    /// The client lives in another mount namespace or root, so its paths are not the daemon's, or where it cannot be seen.
    OtherNamespace,
    /// Its directory has no path: it was removed, or something is mounted over it.
    DirectoryGone,
    /// The limits of its processes leave room for the compiler alone.
    TightLimits,
    /// It names its own standard output or error as a file, in which it may seek as in no pipe of ours.
    OwnStream,
    /// Its standard output or error is closed: whether it fails of that only it can tell.
    ClosedStream,
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How a variable that the compiler itself reads counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvRule {
    /// It changes no result.
    Ignore,
    /// It changes nothing but what is printed.
    Messages,
    /// It may name a root.
    ByRole,
    /// Its value is an input.
    Exact,
}

/// How an output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputRule {
    /// Text that names files: paths are kept by role.
    Text,
    /// The compiler replaces such a file and never writes into it.
    Replaced,
    /// Anything else: kept as a copy of its own.
    Plain,
}

/// What a family knows about one of its commands, for reading the observation.
pub trait Family: fmt::Debug + Send + Sync {
    /// The name that statistics use.
    fn name(&self) -> &'static str;
    /// The arguments that the action's digest covers, by role.
    fn key_arguments(&self, argv: &[Vec<u8>], roots: &Roots) -> Vec<Template>;
    /// What can become of the arguments' text.
    fn exposed(&self) -> &Exposed;
    /// Arguments that change what is printed and nothing else; they are in no action.
    fn display(&self) -> &[Vec<u8>] {
        &[]
    }
    /// Whether something was printed that such arguments, variables and terminals change.
    fn prints(&self, stdout: &[u8], stderr: &[u8]) -> bool {
        !stdout.is_empty() || !stderr.is_empty()
    }
    /// Whether `program` is the one that reads sources and knows macros for the date.
    fn is_compiler(&self, _program: &[u8]) -> bool {
        false
    }
    /// Whether `path` is the compiler's own state, neither input nor output.
    fn is_state(&self, path: &[u8]) -> bool;
    /// Whether the compiler lists `path` only to find files that it then opens.
    fn lists_for_candidates(&self, path: &[u8]) -> bool;
    /// How a variable that the compiler itself reads counts.
    fn env_rule(&self, name: &[u8]) -> EnvRule;
    /// Variables that its programs read where no observer sees it.
    fn unseen_env(&self) -> &'static [&'static [u8]] {
        &[]
    }
    /// How an output is kept.
    fn output_rule(&self, path: &[u8]) -> OutputRule;
    /// The inputs that a dependency file names, as it names them.
    fn declared_inputs(&self, path: &[u8], text: &[u8]) -> Vec<Vec<u8>>;
    /// The variables that a dependency file says a source asked for, whatever else the compiler asks them for.
    fn declared_variables(&self, _path: &[u8], _text: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// The directory in which it makes and removes temporary files beside its outputs.
    fn out_dir(&self) -> Option<&[u8]> {
        None
    }
    /// Source files that the command names, absolute.
    fn sources(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// Whether a failure is an answer like any other: to a question about the compiler rather than to a compile.
    fn keeps_failure(&self) -> bool {
        false
    }
    /// What zig tells where it is behind the command, and the outputs that the command names.
    fn zig(&self) -> Option<(&zig::Zig, Vec<Vec<u8>>)> {
        None
    }
}

/// A command that may be cached.
#[derive(Debug)]
pub struct Command {
    /// What its family knows about it.
    pub family: Box<dyn Family>,
    /// The checkout.
    pub roots: Roots,
    /// What is known before running it.
    pub action: Digest,
    /// A few words for people.
    pub summary: String,
    /// Argument files whose lines are in the action.
    pub argument_files: Vec<Vec<u8>>,
}

impl Command {
    /// Digest of the arguments that say how messages look.
    pub fn display(&self) -> Digest {
        Digest::of(&self.family.display().join(&0))
    }
}

/// Says what `invocation` is. Argument files come through `read`.
pub fn parse(invocation: &Invocation, read: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<Command, Bypass> {
    match invocation {
        Invocation { limited: true, .. } => return Err(Bypass::TightLimits),
        Invocation { names_stream: true, .. } => return Err(Bypass::OwnStream),
        Invocation { lacks_stream: true, .. } => return Err(Bypass::ClosedStream),
        _ => {}
    }
    if is_rustc(&invocation.argv) {
        let expanded = expand(&invocation.argv, Style::Lines, read).ok_or(Bypass::ArgumentFile)?;
        let (rustc, roots, summary) = rustc::parse(invocation, &expanded.argv)?;
        has_stdin(invocation, &expanded.argv)?;
        return Ok(command(invocation, Box::new(rustc), roots, summary, expanded));
    }
    let expanded = expand(&invocation.argv, Style::Words, read).ok_or(Bypass::ArgumentFile)?;
    let (cc, roots, summary) = cc::parse(invocation, &expanded.argv)?;
    has_stdin(invocation, cc.sources())?;
    // These are read again by the compiler, as inputs.
    let expanded = Expanded { files: Vec::new(), ..expanded };
    Ok(command(invocation, Box::new(cc), roots, summary, expanded))
}

/// The client has read standard input where the command itself names it as a source.
fn has_stdin(invocation: &Invocation, names: &[Vec<u8>]) -> Result<(), Bypass> {
    let unread = invocation.stdin.is_none() && names.iter().any(|name| name == b"-");
    if unread { Err(Bypass::UnreadStdin) } else { Ok(()) }
}

/// Whether a command is rustc's: by its name, or by its shape where a stand-in is called as rustc is.
fn is_rustc(argv: &[Vec<u8>]) -> bool {
    let shape = |argument: &Vec<u8>| {
        matches!(argument.as_slice(), b"--crate-name" | b"-vV" | b"--print") || argument.starts_with(b"--print=")
    };
    let by_name = rustc::is_rustc(&argv[0]) || argv.get(1).is_some_and(|inner| rustc::is_rustc(inner));
    by_name || !cc::is_driver(&argv[0]) && argv[1..].iter().any(shape)
}

fn command(
    invocation: &Invocation,
    family: Box<dyn Family>,
    roots: Roots,
    summary: String,
    expanded: Expanded,
) -> Command {
    let action = action(invocation, family.key_arguments(&expanded.argv, &roots), &roots);
    Command { family, roots, action, summary, argument_files: expanded.files }
}

/// Digest of all that is known before running: program, arguments by role, source on standard input, umask, and the
/// processor where it matters.
fn action(invocation: &Invocation, arguments: Vec<Template>, roots: &Roots) -> Digest {
    let template = |bytes: &[u8]| Template::of(bytes, roots);
    let known = (
        "zcache action 4",
        template(&invocation.program),
        arguments,
        template(&invocation.cwd),
        &invocation.stdin,
        invocation.umask,
        &invocation.processor,
    );
    Digest::of(&postcard::to_stdvec(&known).expect("plain data in memory is always serialisable"))
}
