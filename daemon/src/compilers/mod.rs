//! Compilers: what a family of compilers' command lines mean and which of its observed habits are not inputs.
//! Everything that knows a family stands in its file here. Pure: argument files are read by the caller.

pub mod argfile;
pub mod rustc;
pub mod toolchain;

use std::fmt;

use serde::Serialize;
use zcache_proto::Digest;

use crate::invocation::Invocation;
use crate::roles::Roots;
use crate::template::Template;

/// Why a command is none of zcache's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bypass {
    /// Not a compiler that zcache knows.
    UnknownCompiler,
    /// It writes for a terminal, which a replay would not do alike.
    Terminal,
    /// `cargo fix` rewrites sources and talks to its parent.
    CargoFix,
    /// It asks for arguments in a file that cannot be read.
    ArgumentFile,
    /// It reads more source from standard input than zcache keeps.
    LargeStdin,
    /// The client lives in another mount namespace, so its paths are not the daemon's.
    OtherNamespace,
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
    /// It may name the checkout.
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
    /// Whether `module`, mapped in a process that runs `program`, belongs to the compiler rather than to the project.
    fn owns(&self, program: &[u8], module: &[u8]) -> bool;
    /// Whether `path` is the compiler's own state, neither input nor output.
    fn is_state(&self, path: &[u8]) -> bool;
    /// Whether the compiler lists `path` only to find files that it then opens.
    fn lists_for_candidates(&self, path: &[u8]) -> bool;
    /// How a variable that the compiler itself reads counts.
    fn env_rule(&self, name: &[u8]) -> EnvRule;
    /// How an output is kept.
    fn output_rule(&self, path: &[u8]) -> OutputRule;
    /// The inputs that a dependency file names, as it names them.
    fn declared_inputs(&self, path: &[u8], text: &[u8]) -> Vec<Vec<u8>>;
    /// Whether an output may hold the checkout's path where a search of its bytes cannot see it.
    fn hides_paths(&self) -> bool;
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
}

/// Says what `invocation` is. `argv` is its command with argument files expanded.
pub fn parse(invocation: &Invocation, argv: &[Vec<u8>]) -> Result<Command, Bypass> {
    let (rustc, roots, summary) = rustc::parse(invocation, argv)?;
    let action = action(invocation, &rustc.key_arguments(argv), &roots);
    Ok(Command { family: Box::new(rustc), roots, action, summary })
}

/// Digest of all that is known before running: program, arguments by role, source on standard input, umask, which
/// descriptors are terminals, and the processor where it matters.
fn action(invocation: &Invocation, arguments: &[&[u8]], roots: &Roots) -> Digest {
    let template = |bytes: &[u8]| Template::of(bytes, roots);
    let arguments: Vec<Template> = arguments.iter().map(|argument| template(argument)).collect();
    let known = (
        "zcache action 1",
        template(&invocation.program),
        arguments,
        template(&invocation.cwd),
        &invocation.stdin,
        invocation.umask,
        invocation.terminals,
        &invocation.processor,
    );
    Digest::of(&postcard::to_stdvec(&known).expect("plain data in memory is always serialisable"))
}
