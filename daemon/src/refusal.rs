//! Refusal: why a compile that ran is not stored. Typed, so that it can be counted and explained. Pure.

use std::fmt;

/// A reason not to store a result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It failed: failures run every time.
    Failed,
    /// The client says why.
    Client(String),
    /// A program in the tree had another root or mount namespace: its paths are not ours.
    OtherNamespace(Vec<u8>),
    /// A program in the tree could not be watched, or not to its end.
    Unobserved(Vec<u8>),
    /// The trace tells nothing.
    Trace(crate::observation::TraceError),
    /// The project's own code in the compiler asked for the time.
    Clock,
    /// A source names a macro that stands for the time of the compile.
    TimeMacro(Vec<u8>),
    /// A program that could not be watched does not tell enough: why.
    Undeclarable(Vec<u8>),
    /// It opened a socket: its answer may come from anywhere.
    Socket,
    /// It read a file in which the kernel says something new each time.
    KernelFile(Vec<u8>),
    /// The project's own code asked the machine for what is another answer each time: what.
    System(&'static str),
    /// It wrote into a pipe, a device or a descriptor that it was given: nothing can put that back.
    Stream(Vec<u8>),
    /// It read or wrote a file by a descriptor that it was given open.
    Given,
    /// A look-up failed for another reason than absence.
    Unreadable(Vec<u8>),
    /// It wrote to a file that it also read.
    RewritesInput(Vec<u8>),
    /// It changed or removed a file that was there before.
    Modifies(Vec<u8>),
    /// It moved something that it did not make.
    Moves(Vec<u8>),
    /// An input may have changed while the compiler ran.
    Changed(Vec<u8>),
    /// A declared input was not observed.
    Undeclared(Vec<u8>),
    /// An output is neither file, directory nor link, or cannot be read.
    StrangeOutput(Vec<u8>),
    /// A nested compile inside it could not be followed.
    Nested,
    /// Its results have gone unused again and again, because this variable is another each time.
    Unused(Vec<u8>),
    /// The store's disk has no room.
    StoreFull,
    /// The store cannot be written.
    StoreReadOnly,
    /// The store could not take it.
    Store(String),
}

impl Refusal {
    /// One word for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Failed => "compile_failed",
            Self::Client(_) => "client",
            Self::OtherNamespace(_) => "other_namespace",
            Self::Unobserved(_) => "unobserved_program",
            Self::Trace(_) => "trace_incomplete",
            Self::Clock => "read_clock",
            Self::TimeMacro(_) => "time_macro",
            Self::Undeclarable(_) => "unwatched_program_tells_too_little",
            Self::Socket => "opened_socket",
            Self::KernelFile(_) => "read_kernel_file",
            Self::System(_) => "asked_system",
            Self::Stream(_) => "wrote_to_stream",
            Self::Given => "used_given_descriptor",
            Self::Unreadable(_) => "input_unreadable",
            Self::RewritesInput(_) => "rewrote_input",
            Self::Modifies(_) => "modified_file",
            Self::Moves(_) => "moved_file",
            Self::Changed(_) => "input_changed",
            Self::Undeclared(_) => "declared_input_not_observed",
            Self::StrangeOutput(_) => "strange_output",
            Self::Nested => "nested_unknown",
            Self::Unused(_) => "never_used",
            Self::StoreFull => "store_full",
            Self::StoreReadOnly => "store_read_only",
            Self::Store(_) => "store_failed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::OtherNamespace(path)
            | Self::Unobserved(path)
            | Self::TimeMacro(path)
            | Self::Undeclarable(path)
            | Self::KernelFile(path)
            | Self::Stream(path)
            | Self::Unreadable(path)
            | Self::RewritesInput(path)
            | Self::Modifies(path)
            | Self::Moves(path)
            | Self::Changed(path)
            | Self::Undeclared(path)
            | Self::StrangeOutput(path)
            | Self::Unused(path) => write!(f, ": {}", String::from_utf8_lossy(path)),
            Self::System(what) => write!(f, ": {what}"),
            Self::Client(text) | Self::Store(text) => write!(f, ": {text}"),
            Self::Trace(error) => write!(f, ": {error}"),
            Self::Failed
            | Self::Given
            | Self::Clock
            | Self::Socket
            | Self::Nested
            | Self::StoreFull
            | Self::StoreReadOnly => Ok(()),
        }
    }
}
