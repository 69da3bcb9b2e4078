//! Mixed up: a compiler's command given to `zcache`, as by `RUSTC_WRAPPER=zcache` or `zcache gcc -c x.c`. What is called
//! decides what this program is: it becomes the client. Subcommands go before compilers of the same name.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use zcache_client::command::NAME;
use zcache_daemon::builds::DRIVERS;
use zcache_proto::driver::Driver;

use crate::daemon::program;
use crate::failure::Failure;
use crate::links::program_of;

/// What the words after `zcache` are, that are no subcommand's.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// A compiler's command.
    Compile,
    /// The command of a program that calls compilers.
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
    match meant(first, rest, |name| program_of(name).is_some()) {
        Meant::Nothing => Ok(()),
        Meant::Build => Err(Failure::Config(format!(
            "{0} is no subcommand of zcache's; `zcache run -- {0} …` runs it with the cache in front of its compilers",
            first.display()
        ))),
        Meant::Compile => Err(become_client(first, rest)),
    }
}

fn meant(first: &OsStr, rest: &[OsString], is_there: impl Fn(&OsStr) -> bool) -> Meant {
    let name = Path::new(first).file_name().unwrap_or(first);
    let has_options = rest.iter().any(|argument| argument.as_encoded_bytes().starts_with(b"-"));
    match name.to_str() {
        _ if first.as_encoded_bytes().starts_with(b"-") || !is_there(first) => Meant::Nothing,
        Some(name) if DRIVERS.contains(&name) => Meant::Build,
        // cargo names its compiler by a path, which may have any name.
        _ if first.as_encoded_bytes().contains(&b'/') || Driver::of(name.as_encoded_bytes()).is_some() => {
            Meant::Compile
        }
        // So may others: nobody compiles without an option. A mistyped subcommand may be a program's name as well.
        _ if has_options => Meant::Compile,
        _ => Meant::Nothing,
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
        for (line, there, expected) in [
            ("/usr/bin/rustc", true, Meant::Compile),
            ("./my-compiler x.c", true, Meant::Compile),
            ("./my-compiler", false, Meant::Nothing),
            ("gcc", true, Meant::Compile),
            ("x86_64-linux-gnu-g++-12", true, Meant::Compile),
            ("clippy-driver", true, Meant::Compile),
            ("gcc", false, Meant::Nothing),
            ("emcc -c x.c", true, Meant::Compile),
            ("stat", true, Meant::Nothing),
            ("test all", true, Meant::Nothing),
            ("cargo build --release", true, Meant::Build),
            ("/usr/bin/make -j2", true, Meant::Build),
            ("statu", false, Meant::Nothing),
            ("--json -c", true, Meant::Nothing),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(meant(&words[0], &words[1..], |_| there), expected, "{line}");
        }
    }
}
