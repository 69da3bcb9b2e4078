//! Shim: one compiler command from beginning to end. Every way through ends in the compiler's own effect, from the
//! store or from the compiler, which is run at most once.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use zcache_proto::endpoint::Endpoint;
use zcache_proto::v1::lookup_event::Event;
use zcache_proto::v1::{Hit, Outcome, Parent};

use crate::command::{Call, Command, CommandError, NAME};
use crate::compile::{compile, end_like};
use crate::invocation::{Unasked, describe};
use crate::materialize::materialize;
use crate::output::{is_unread, write_all};
use crate::parent;
use crate::session::{Session, SessionError};
use crate::start::{By, connect_or_start, is_nested};
use crate::trouble::{Trouble, count_unasked};

/// Deeper than this is a circle: no build nests so.
const DEPTH_MAX: u32 = 200;

/// Runs the command that `arguments` are and ends this process as its compiler would have.
pub fn run(arguments: Vec<OsString>) -> ! {
    let above = parent::find();
    let command = match Call::from_args(arguments) {
        Ok(Call::Compile(command)) => command,
        Ok(Call::Manage(command)) => execute(&command, None, above),
        Ok(Call::About(text)) => about(&text),
        Err(error) => refuse(&error),
    };
    end_circle(&command, above.as_ref());
    if is_disabled() {
        execute(&command, None, above);
    }
    let own = || Endpoint::from_env(|name| std::env::var_os(name), nix::unistd::getuid().as_raw());
    let endpoint = command.endpoint().unwrap_or_else(own);
    let asked = catch_unwind(AssertUnwindSafe(|| ask(&command, &endpoint, above)));
    match asked {
        Ok((stdin, Some((session, answer)))) => follow(&command, stdin, &endpoint, session, answer, above),
        Ok((stdin, None)) => execute(&command, stdin, above),
        Err(_) => execute(&command, None, above),
    }
}

/// Ends a compiler that calls back into itself for ever. The depth comes from the environment, or from the daemon, which
/// sees the processes.
fn end_circle(command: &Command, above: Option<&Parent>) {
    if above.is_some_and(|above| above.depth > DEPTH_MAX) {
        let program = command.program.display();
        eprintln!(
            "{NAME}: {program} calls {NAME} again without end ({DEPTH_MAX} deep); make it call the real compiler"
        );
        exit(2);
    }
}

fn about(text: &str) -> ! {
    match write_all(&io::stdout(), format!("{text}\n").as_bytes()) {
        Err(error) if !is_unread(&error) => refuse_output(&error),
        _ => exit(0),
    }
}

fn refuse(error: &CommandError) -> ! {
    eprintln!("{NAME}: {error}");
    exit(if matches!(error, CommandError::NotFound(_)) { 127 } else { 2 })
}

/// Whether the caller wants compilers to run as if zcache were not there.
pub fn is_disabled() -> bool {
    std::env::var_os("ZCACHE_DISABLE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether this process was started without standard output or error: what stands there now ends with it.
fn lacks_stream() -> bool {
    let ends = |flags| FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC);
    let is_ours = |stream: BorrowedFd<'_>| fcntl(stream, FcntlArg::F_GETFD).is_ok_and(ends);
    is_ours(io::stdout().as_fd()) || is_ours(io::stderr().as_fd())
}

/// Asks the daemon. What was read of standard input comes back whatever the answer.
fn ask(command: &Command, endpoint: &Endpoint, above: Option<Parent>) -> (Option<File>, Option<(Session, Event)>) {
    let in_trouble = Trouble::find(endpoint).is_some_and(|trouble| trouble != Trouble::Tight);
    // A daemon that this environment started would not be the build's.
    let may_start = command.endpoint().is_none();
    let session = if in_trouble { None } else { connect(endpoint, above, may_start).ok() };
    let Some(mut session) = session else {
        count_unasked(endpoint);
        return (None, None);
    };
    let asking = match describe(command, above, lacks_stream()) {
        Ok(asking) => asking,
        Err(Unasked { stdin }) => return (stdin, None),
    };
    match session.lookup(asking.message) {
        Ok(answer) => (asking.stdin, Some((session, answer))),
        Err(error) => {
            note(&error, endpoint);
            (asking.stdin, None)
        }
    }
}

fn connect(endpoint: &Endpoint, above: Option<Parent>, may_start: bool) -> Result<Session, SessionError> {
    let nested = above.is_some_and(|above| above.depth > 0);
    let session = match Session::connect(endpoint) {
        Err(SessionError::Absent) if may_start && !nested && !is_nested() => connect_or_start(endpoint, By::Client),
        answer => answer,
    };
    session.inspect_err(|error| note(error, endpoint))
}

fn note(error: &SessionError, endpoint: &Endpoint) {
    if let SessionError::Trouble(trouble) = error {
        trouble.note(endpoint);
    }
}

/// Does what the daemon answered.
fn follow(
    command: &Command,
    stdin: Option<File>,
    endpoint: &Endpoint,
    mut session: Session,
    answer: Event,
    above: Option<Parent>,
) -> ! {
    match answer {
        Event::Hit(hit) => {
            let problem = match catch_unwind(AssertUnwindSafe(|| materialize(&hit))) {
                Ok(Ok(())) => replay(&hit),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "restoring panicked".to_owned(),
            };
            let _ = session.commit(Outcome { ticket: hit.ticket, problem, ..Outcome::default() });
            execute(command, stdin, above)
        }
        Event::Miss(miss) => {
            end_circle(command, miss.parent.as_ref());
            let spare = stdin.as_ref().and_then(|stdin| stdin.try_clone().ok());
            let Ok(compiled) = compile(command, stdin, endpoint, &miss) else {
                // It did not start; trying as if we were not there gives the error that bare gives.
                execute(command, spare, above)
            };
            if compiled.interrupted {
                // Nothing of it is to be kept, and nobody waits for it any more.
                drop(session);
                end_like(compiled.status);
            }
            let report = AssertUnwindSafe(|| session.commit(compiled.outcome));
            if let Ok(Err(error)) = catch_unwind(report) {
                note(&error, endpoint);
            }
            if let Some(error) = compiled.unwritten.filter(|error| compiled.status.success() && !is_unread(error)) {
                refuse_output(&error);
            }
            end_like(compiled.status)
        }
        Event::Bypass(bypass) => {
            drop(session);
            end_circle(command, bypass.parent.as_ref());
            execute_below(command, stdin, bypass.parent)
        }
        Event::Waiting(_) => execute(command, stdin, above),
    }
}

/// Prints what the compiler printed, and ends as it ended.
fn replay(hit: &Hit) -> ! {
    let written = write_all(&io::stdout(), &hit.stdout);
    // A compiler does not fail because nobody hears its warnings.
    let _ = write_all(&io::stderr(), &hit.stderr);
    match written {
        // A reader that is gone is no reason to fail where everything else is done.
        Err(error) if !is_unread(&error) => refuse_output(&error),
        _ => exit(hit.exit_code),
    }
}

/// Ends as a compiler does that cannot print.
fn refuse_output(error: &io::Error) -> ! {
    let _ =
        write_all(&io::stderr(), format!("{NAME}: what the compiler printed cannot be written: {error}\n").as_bytes());
    exit(1)
}

/// Becomes the compiler, one level below whatever this client is below.
fn execute(command: &Command, stdin: Option<File>, above: Option<Parent>) -> ! {
    let next = above.map_or(Parent { depth: 1, ..Parent::default() }, |above| Parent {
        depth: above.depth.saturating_add(1),
        ..above
    });
    execute_below(command, stdin, Some(next))
}

/// Becomes the compiler.
fn execute_below(command: &Command, stdin: Option<File>, above: Option<Parent>) -> ! {
    let mut process = command.process();
    if let Some(above) = above {
        process.env(parent::VARIABLE, parent::value(&above));
    }
    if let Some(stdin) = stdin {
        process.stdin(stdin);
    }
    let mut error = process.exec();
    if error.kind() == io::ErrorKind::ArgumentListTooLong {
        // Without our variable it may just fit.
        process.env_remove(parent::VARIABLE);
        error = process.exec();
    }
    eprintln!("{NAME}: {}: {error}", command.program.display());
    exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}
