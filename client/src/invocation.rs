//! Invocation: this process and its command as the daemon wants to know them.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::sys::stat::{Mode, umask};
use zcache_proto::trace;
use zcache_proto::v1::{self, Parent};

use crate::command::Command;
use crate::guide;
use crate::limits;
use crate::own_streams;
use crate::parent;
use crate::terminal;

/// Longest source read from standard input, bytes.
const STDIN_MAX: u64 = 16 << 20;

/// What this client asks about.
#[derive(Debug)]
pub struct Asking {
    /// The message.
    pub message: v1::Invocation,
    /// Standard input, where it has been read: the compiler gets it from here.
    pub stdin: Option<File>,
}

/// Why the daemon cannot be asked. Nothing has been taken from standard input then that `stdin` does not hold.
#[derive(Debug)]
pub struct Unasked {
    /// What has been read of standard input, followed by the rest.
    pub stdin: Option<File>,
}

/// Describes `command`, run by this process.
pub fn describe(command: &Command, parent: Option<Parent>, lacks_stream: bool) -> Result<Asking, Unasked> {
    let limited = limits::are_tight();
    let stdin = if !limited && reads_stdin(&command.argv[1..]) {
        Some(source().map_err(|stdin| Unasked { stdin })?)
    } else {
        None
    };
    let (source, stdin) = stdin.unzip();
    let bytes = |text: &OsString| text.as_bytes().to_vec();
    let message = v1::Invocation {
        argv: command.argv.iter().map(bytes).collect(),
        program: command.program.as_os_str().as_bytes().to_vec(),
        cwd: env::current_dir().unwrap_or_default().into_os_string().into_vec(),
        environment: environment(command),
        umask: current_umask(),
        stdin: source,
        terminals: terminals(),
        columns: terminal::columns(),
        input_columns: terminal::input_columns(),
        merged: terminal::is_one_place(),
        processor: processor(command),
        pid: std::process::id(),
        parent,
        limited,
        lacks_stream,
        names_stream: own_streams::are_named(&command.argv[1..]),
    };
    Ok(Asking { message, stdin })
}

/// Whether the source comes from standard input: `-` is one, unless it is the value of an option.
fn reads_stdin(arguments: &[OsString]) -> bool {
    const NAMES_A_FILE: [&str; 5] = ["-o", "-MF", "-MT", "-MQ", "-MJ"];
    let mut before = None;
    arguments.iter().any(|argument| {
        let named = before.replace(argument).is_some_and(|before| NAMES_A_FILE.iter().any(|name| before == name));
        argument == "-" && !named
    })
}

/// The environment that the compiler gets, without what we add.
fn environment(command: &Command) -> Vec<Vec<u8>> {
    let ours = |name: &OsString| name == parent::VARIABLE || name == guide::VARIABLE;
    let join = |(name, value): (OsString, OsString)| {
        let value = command.path.as_ref().filter(|_| name == "PATH").unwrap_or(&value);
        [name.as_bytes(), b"=", value.as_bytes()].concat()
    };
    env::vars_os().filter(|(name, _)| !ours(name)).map(join).collect()
}

fn current_umask() -> u32 {
    // Reading it means setting it; no other thread runs yet.
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

fn terminals() -> u32 {
    let is = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    is.into_iter().enumerate().map(|(fd, terminal)| u32::from(terminal) << fd).sum()
}

/// Reads the source that the compiler would read. What was read is kept in a file in memory for it.
fn source() -> Result<(Vec<u8>, File), Option<File>> {
    let mut bytes = Vec::new();
    let whole = io::stdin().lock().take(STDIN_MAX).read_to_end(&mut bytes).is_ok_and(|n| (n as u64) < STDIN_MAX);
    let file = in_memory(&bytes, !whole);
    match file {
        Ok(file) if whole => Ok((bytes, file)),
        Ok(file) => Err(Some(file)),
        Err(_) => Err(None),
    }
}

/// A file that reads as `bytes`, and as the rest of standard input where asked.
fn in_memory(bytes: &[u8], and_rest: bool) -> io::Result<File> {
    use std::io::Seek;
    let memory = nix::sys::memfd::memfd_create(c"zcache-stdin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    if and_rest {
        io::copy(&mut io::stdin().lock(), &mut file)?;
    }
    file.rewind()?;
    Ok(file)
}

/// The processor, where the command may leave the choice of instructions to it: no argument names it then. zig does so
/// by default.
fn processor(command: &Command) -> Vec<u8> {
    let native =
        |argument: &OsString| argument.as_bytes().ends_with(b"native") || argument.as_bytes().starts_with(b"@");
    let zig = command.argv[0].as_bytes().windows(3).any(|word| word == b"zig");
    if !zig && !command.argv.iter().any(native) {
        return Vec::new();
    }
    let text = fs::read("/proc/cpuinfo").unwrap_or_default();
    let first = text.split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    // Speed and load change from moment to moment.
    let steady = first.filter(|line| !line.starts_with(b"cpu MHz") && !line.starts_with(b"bogomips"));
    let identity: Vec<u8> = steady.flatten().copied().collect();
    trace::hash(&identity).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_that_is_a_value_is_no_source() {
        for (line, reads) in
            [("-c -", true), ("-c x.c -o -", false), ("-S - -o -", true), ("-M x.c -MF -", false), ("x.rs", false)]
        {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(reads_stdin(&arguments), reads, "{line}");
        }
    }
}
