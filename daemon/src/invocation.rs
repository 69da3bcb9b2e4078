//! Invocation: one compiler command as the client saw it. Pure data; what the command means is for `compilers`.

use std::borrow::Cow;

use zcache_proto::{Digest, v1};

use crate::manifest::Terminal;

/// Longest command with its environment, bytes: the kernel takes no more than 6 MiB of both.
const COMMAND_MAX: usize = 8 << 20;

/// Environment variables, in the order given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(Vec<(Vec<u8>, Vec<u8>)>);

impl Env {
    /// From `NAME=value` strings; what has no `=` is dropped, as no program can ask for it.
    pub fn new(strings: Vec<Vec<u8>>) -> Self {
        let split = |s: Vec<u8>| {
            let at = s.iter().skip(1).position(|&b| b == b'=')? + 1;
            Some((s[..at].to_vec(), s[at + 1..].to_vec()))
        };
        Self(strings.into_iter().filter_map(split).collect())
    }

    /// The value of the first variable called `name`, which is the one that `getenv` answers with.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

impl Env {
    /// Digest of all variables but those that are new in every build: the jobserver's, the shell's own counters, ours. A
    /// value counts as `shown` makes of it, and not at all where that is none.
    pub fn digest<'a>(&'a self, shown: impl Fn(&'a [u8], &'a [u8]) -> Option<Cow<'a, [u8]>>) -> Digest {
        const NOISE: &[&[u8]] = &[
            b"CARGO_MAKEFLAGS",
            b"MAKEFLAGS",
            b"MFLAGS",
            b"MAKELEVEL",
            b"NUM_JOBS",
            b"RUST_RECURSION_COUNT",
            b"SHLVL",
            b"OLDPWD",
            b"_",
        ];
        let counts = |name: &[u8]| !NOISE.contains(&name) && !name.starts_with(b"ZCACHE_");
        let counting = self.iter().filter(|(name, _)| counts(name));
        let mut all: Vec<_> = counting.filter_map(|(name, value)| Some((name, shown(name, value)?))).collect();
        all.sort_unstable();
        Digest::of(&postcard::to_stdvec(&all).expect("plain data in memory is always serialisable"))
    }
}

/// One compiler command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The command, compiler first.
    pub argv: Vec<Vec<u8>>,
    /// The compiler's program, absolute.
    pub program: Vec<u8>,
    /// Where it runs, absolute; empty where that has no path.
    pub cwd: Vec<u8>,
    /// What `PWD` calls that, where it names it; else the same.
    pub pwd: Vec<u8>,
    /// Its environment.
    pub env: Env,
    /// Permission bits it masks.
    pub umask: u32,
    /// Source read from standard input.
    pub stdin: Option<Vec<u8>>,
    /// Where messages go.
    pub terminal: Terminal,
    /// Identity of the processor, where the command says `native`.
    pub processor: Vec<u8>,
    /// The client's process, by its own count.
    pub pid: u32,
    /// The client's process, by the daemon's count.
    pub process: u32,
    /// Device and inode of the client's program: it passes itself over along PATH.
    pub client: Option<(u64, u64)>,
    /// What its environment says of its place in the build.
    pub parent: Option<v1::Parent>,
    /// Whether its limits leave room for nothing but the compiler.
    pub limited: bool,
    /// Whether it names its own standard output or error, which is no pipe, as a file.
    pub names_stream: bool,
    /// Whether its standard output or error is closed.
    pub lacks_stream: bool,
}

/// Why a request is not an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invocation needs a command no longer than any process's, and absolute paths")]
pub struct Malformed;

impl TryFrom<v1::Invocation> for Invocation {
    type Error = Malformed;

    fn try_from(wire: v1::Invocation) -> Result<Self, Malformed> {
        let absolute = |path: &[u8]| path.first() == Some(&b'/') && !path.contains(&0);
        let strings = wire.argv.iter().chain(&wire.environment).chain([&wire.program, &wire.cwd]);
        let length: usize = strings.map(|string| string.len() + size_of::<usize>()).sum();
        if wire.argv.is_empty()
            || length > COMMAND_MAX
            || !absolute(&wire.program)
            || !(wire.cwd.is_empty() || absolute(&wire.cwd))
        {
            return Err(Malformed);
        }
        Ok(Self {
            argv: wire.argv,
            program: wire.program,
            pwd: wire.cwd.clone(),
            cwd: wire.cwd,
            env: Env::new(wire.environment),
            umask: wire.umask & 0o777,
            stdin: wire.stdin,
            terminal: Terminal {
                streams: wire.terminals,
                columns: wire.columns,
                input_columns: wire.input_columns,
                merged: wire.merged,
            },
            processor: wire.processor,
            pid: wire.pid,
            process: 0,
            client: None,
            parent: wire.parent,
            limited: wire.limited,
            names_stream: wire.names_stream,
            lacks_stream: wire.lacks_stream,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_answers_as_getenv_does() {
        let env = Env::new(vec![b"A=1".into(), b"A=2".into(), b"EMPTY=".into(), b"junk".into(), b"V=a=b".into()]);
        assert_eq!(env.get(b"A"), Some(b"1".as_slice()));
        assert_eq!(env.get(b"EMPTY"), Some(b"".as_slice()));
        assert_eq!(env.get(b"V"), Some(b"a=b".as_slice()));
        assert_eq!(env.get(b"junk"), None);
    }
}
