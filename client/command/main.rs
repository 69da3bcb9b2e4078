//! `zcache`: the command for people. Reads the command line and hands each subcommand to the module that knows it;
//! knows nothing of what they do.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod daemon;
mod export;
mod failure;
mod holder;
mod links;
mod mixed_up;
mod report;
mod run;
mod sccache;
mod sccache_settings;
mod service;
mod settings;
mod status;
mod store;
mod surroundings;
mod text;
mod unit;
mod way;

use failure::Failure;
use status::Form;

const RUN: &str = "\
For example: zcache run -- cargo build --release
             zcache run -- make

A guide, a library that is preloaded into the programs of the command, leads the compilers that they start to zcache,
by whatever name or path. PATH, RUSTC_WRAPPER, CC and what build systems write down stay as they are, so a build
directory serves with and without zcache alike. Another cache stays in front of its compilers; ccache is turned off
(CCACHE_DISABLE=1) unless CCACHE_DISABLE or CCACHE_NODISABLE is set.

No guide enters a static program; where the command itself is one, it gets what `zcache env` prints.";

const MIXED_UP: &str = "\
A compiler's command that is no subcommand, as in `zcache gcc -c x.c` or RUSTC_WRAPPER=zcache, runs as it does through
zcache-client.";

/// A compile cache that watches what compilers read instead of guessing.
#[derive(Debug, Parser)]
#[command(name = "zcache", version, arg_required_else_help = true, disable_help_subcommand = false, after_help = MIXED_UP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command with zcache in front of its compilers, and say at its end what that saved
    #[command(after_help = RUN)]
    Run {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print the variables that put zcache in front of every compiler, for eval "$(zcache env)" in a shell
    #[command(after_help = surroundings::help())]
    Env,
    /// Show the daemon, the store, what zcache did and what it is doing
    Status {
        /// Print the report as JSON, whose field names are stable
        #[arg(long)]
        json: bool,
        /// Print the numbers as sccache does, for scripts that ask `sccache` for its JSON
        #[arg(long, hide = true, conflicts_with = "json")]
        as_sccache: bool,
    },
    /// Start the daemon, if none is running; compiles do so by themselves
    Start,
    /// Let the daemon finish what it has accepted, and wait until it is gone
    Stop {
        /// Fail where no daemon is running, as sccache does
        #[arg(long, hide = true)]
        as_sccache: bool,
    },
    /// Set all counters to zero; the store stays as it is
    Zero,
    /// Empty the store; builds that are running go on
    Clear,
    /// Free what is over the limit, and what no result needs any more; builds that are running go on
    Gc,
    /// Read every blob in the store, and fail where one is not what it was
    Verify {
        /// Move damaged blobs to quarantine, and forget the results that need them
        #[arg(long)]
        repair: bool,
    },
    /// Have systemd start the daemon when the first compile needs it
    #[command(subcommand)]
    Service(Service),
    /// Print what is set, where each value comes from, and what the daemon that runs has instead
    #[command(after_long_help = settings::HELP, after_help = "`zcache help config` describes every setting.")]
    Config,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Install and enable the units for your systemd user manager
    Install,
    /// Disable and remove them
    Uninstall,
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let is_verb = |word: &OsStr| word == "help" || Arguments::command().find_subcommand(word).is_some();
    mixed_up::serve(&words, is_verb).and_then(|()| obey(Arguments::parse().verb)).unwrap_or_else(|failure| {
        text::note(&failure.to_string());
        failure.code()
    })
}

fn obey(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Run { command } => run::run(&command),
        Verb::Env => succeeded(export::show()),
        Verb::Status { as_sccache: true, .. } => succeeded(status::show(Form::Sccache)),
        Verb::Status { json: true, .. } => succeeded(status::show(Form::Json)),
        Verb::Status { .. } => succeeded(status::show(Form::Text)),
        Verb::Start => succeeded(daemon::start()),
        Verb::Stop { as_sccache } => succeeded(daemon::stop(as_sccache)),
        Verb::Zero => succeeded(store::zero()),
        Verb::Clear => succeeded(store::clear()),
        Verb::Gc => succeeded(store::gc()),
        Verb::Verify { repair } => store::verify(repair),
        Verb::Service(Service::Install) => succeeded(service::install()),
        Verb::Service(Service::Uninstall) => succeeded(service::uninstall()),
        Verb::Config => succeeded(settings::show()),
    }
}

fn succeeded(done: Result<(), Failure>) -> Result<ExitCode, Failure> {
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_that_follows_the_command_belongs_to_it() {
        for line in ["zcache run -- cargo build --help -j 2", "zcache run cargo build --help -j 2"] {
            let Verb::Run { command } = Arguments::parse_from(line.split(' ')).verb else { panic!("{line}") };
            assert_eq!(command, ["cargo", "build", "--help", "-j", "2"]);
        }
        let words = ["zcache", "run", "--", "a", "--", "b"];
        let Verb::Run { command } = Arguments::parse_from(words).verb else { panic!() };
        assert_eq!(command, ["a", "--", "b"]);
    }
}
