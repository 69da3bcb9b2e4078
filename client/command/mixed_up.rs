//! Mixed up: a compiler's command given to `zcache`, as by `RUSTC_WRAPPER=zcache` or `zcache gcc -c x.c`. What is called
//! decides what this program is: it becomes the client. Subcommands go before compilers of the same name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use zcache_client::command::NAME;
use zcache_daemon::compilers::is_compiler;

use crate::daemon::{in_path, program};
use crate::failure::Failure;
use crate::links::is_program;

/// What the words after `zcache` are, that are no subcommand's.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// A compiler's command.
    Compile,
    /// The command of a program that calls compilers, perhaps.
    Build,
    /// Neither.
    Nothing,
}

/// Becomes the client where `words`, which follow this program's name, are a compiler's command; returns where they are
/// to be read as `zcache`'s own.
pub fn serve(words: &[OsString], is_verb: impl Fn(&OsStr) -> bool) -> Result<(), Failure> {
    let [first, rest @ ..] = words else { return Ok(()) };
    if is_verb(first) {
        return Ok(());
    }
    let is_there = |name: &OsStr| match name.as_encoded_bytes().contains(&b'/') {
        true => fs::metadata(name).is_ok_and(|meta| is_program(&meta)),
        false => in_path(name).is_some(),
    };
    match meant(first, is_there) {
        Meant::Nothing => Ok(()),
        Meant::Build => Err(Failure::Config(format!(
            "{0} is no subcommand of zcache's; `zcache run -- {0} …` runs it with the cache in front of its compilers",
            first.display()
        ))),
        Meant::Compile => Err(become_client(first, rest)),
    }
}

fn meant(first: &OsStr, is_there: impl Fn(&OsStr) -> bool) -> Meant {
    let name = Path::new(first).file_name().unwrap_or(first);
    match first.as_encoded_bytes().contains(&b'/') {
        _ if first.as_encoded_bytes().starts_with(b"-") || !is_there(first) => Meant::Nothing,
        // cargo names its compiler by a path, which may have any name.
        true => Meant::Compile,
        false if is_compiler(name.as_encoded_bytes()) => Meant::Compile,
        false => Meant::Build,
    }
}

/// Without the client the compiler runs all the same.
fn become_client(first: &OsStr, rest: &[OsString]) -> Failure {
    let mut command = match program(NAME) {
        Some(client) => Command::new(client),
        None => Command::new(first),
    };
    if command.get_program() != first {
        command.arg(first);
    }
    let error = command.args(rest).exec();
    Failure::new(format!("{}: {error}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_decides() {
        for (first, there, expected) in [
            ("/usr/bin/rustc", true, Meant::Compile),
            ("./my-compiler", true, Meant::Compile),
            ("./my-compiler", false, Meant::Nothing),
            ("gcc", true, Meant::Compile),
            ("x86_64-linux-gnu-g++-12", true, Meant::Compile),
            ("clippy-driver", true, Meant::Compile),
            ("gcc", false, Meant::Nothing),
            ("cargo", true, Meant::Build),
            ("statu", false, Meant::Nothing),
            ("--json", true, Meant::Nothing),
        ] {
            assert_eq!(meant(OsStr::new(first), |_| there), expected, "{first}");
        }
    }
}
