//! Compile: runs the compiler, once, under observation, passing its output through as it comes and keeping a copy.
//! From here on nothing about zcache can change what the build sees.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::time::Instant;

use nix::libc::{S_IFIFO, S_IFMT};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::v1::{Miss, Outcome};

use crate::command::Command;
use crate::given::Given;
use crate::interrupt::Watch;
use crate::observe::{self, Entry, Trace};
use crate::output::{is_unread, write_all};
use crate::parent;
use crate::terminal::{Streams, streams};

/// Longest stream that is kept, bytes.
const STREAM_MAX: usize = 4 << 20;

/// How a compile ended.
#[derive(Debug)]
pub struct Compiled {
    /// The compiler's end, to be this process's own.
    pub status: ExitStatus,
    /// What to tell the daemon.
    pub outcome: Outcome,
    /// Why not all of its output could be passed on.
    pub unwritten: Option<io::Error>,
    /// Somebody wanted it to end before its time.
    pub interrupted: bool,
    /// Held open for the daemon.
    _trace: Option<Trace>,
}

/// Runs `command`. An error means that it did not start.
pub fn compile(command: &Command, stdin: Option<File>, endpoint: &Endpoint, miss: &Miss) -> io::Result<Compiled> {
    let mut outcome = Outcome { ticket: miss.ticket, ..Outcome::default() };
    let mut process = command.process();
    process.envs(miss.environment.iter().filter_map(|variable| variable_of(variable)));
    let entry = observe::entry(&command.program);
    let trace = match observed(command, entry, endpoint) {
        Ok((trace, variables)) => {
            process.envs(variables);
            Some(trace)
        }
        Err(error) => {
            outcome.problem = format!("not observed: {error}");
            None
        }
    };
    if let Some(above) = &miss.parent {
        process.env(parent::VARIABLE, parent::value(above));
    }
    if let Some(stdin) = stdin {
        process.stdin(stdin);
    }
    let Streams { stdout, stderr, from_stdout, from_stderr } = streams()?;
    let pipe = |stream: &OwnedFd| fstat(stream).ok().filter(|stat| stat.st_mode & S_IFMT == S_IFIFO);
    outcome.streams = [&stdout, &stderr].into_iter().filter_map(pipe).map(|stat| stat.st_ino).collect();
    process.stdout(stdout).stderr(stderr);
    // The observer sees to it by itself; without a closure the compiler starts in less time.
    if trace.is_none() || entry != Entry::Certain {
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe { process.pre_exec(die_with_parent(std::process::id())) };
    }
    let given = Given::now();
    let watch = Watch::begin();
    let began = Instant::now();
    let mut child = process.spawn()?;
    watch.started(child.id());
    // The ends that the compiler got would keep its streams open.
    drop(process);
    let unwritten = relay(from_stdout, from_stderr, &mut outcome);
    // It has started, so it must not be started again, whatever goes wrong from here on.
    watch.until_ended();
    let status = child.wait().unwrap_or_else(|_| std::process::exit(1));
    outcome.duration_ms = began.elapsed().as_millis() as u64;
    match status.code() {
        Some(code) => outcome.exit_code = code,
        None => outcome.problem = "the compiler was killed".to_owned(),
    }
    outcome.uses_given = given.is_used();
    outcome.trace = trace.as_ref().map(Trace::descriptor);
    Ok(Compiled { status, outcome, unwritten, interrupted: watch.is_interrupted(), _trace: trace })
}

/// Ends this process as the compiler ended.
pub fn end_like(status: ExitStatus) -> ! {
    if let Some(number) = status.signal() {
        if let Ok(signal) = Signal::try_from(number) {
            // SAFETY: the default action needs no handler.
            let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
            let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            let _ = nix::sys::signal::raise(signal);
        }
        std::process::exit(128 + number);
    }
    std::process::exit(status.code().unwrap_or(1))
}

fn variable_of(variable: &[u8]) -> Option<(&OsStr, &OsStr)> {
    let at = variable.iter().position(|&b| b == b'=')?;
    Some((OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..])))
}

type Variables = [(&'static str, std::ffi::OsString); 2];

fn observed(command: &Command, entry: Entry, endpoint: &Endpoint) -> io::Result<(Trace, Variables)> {
    if entry == Entry::Foreign {
        return Err(io::Error::other("the compiler is a program of another machine"));
    }
    let observer = observe::OBSERVER.install(endpoint)?;
    let trace = Trace::new()?;
    trace.announce(command)?;
    let variables = trace.variables(&observer);
    Ok((trace, variables))
}

/// A compiler must not outlive the client that stands for it: cargo believes it gone.
fn die_with_parent(client: u32) -> impl FnMut() -> io::Result<()> + Send + Sync {
    move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid().as_raw().unsigned_abs() != client {
            return Err(io::Error::other("the client is gone"));
        }
        Ok(())
    }
}

/// Passes the streams through until they end. What is wrong with our own stream makes the record incomplete; that of
/// standard output, a compiler's result, is an error as well.
fn relay(stdout: File, mut stderr: Option<File>, outcome: &mut Outcome) -> Option<io::Error> {
    let mut stdout = Some(stdout);
    let mut buffer = [0; 8 << 10];
    let mut unwritten = None;
    while stdout.is_some() || stderr.is_some() {
        let (out, err) = ready(&stdout, &stderr);
        if out && let Err(problem) = pass(&mut stdout, io::stdout().as_fd(), &mut buffer, &mut outcome.stdout) {
            outcome.problem = problem.to_string();
            unwritten = problem.error().or(unwritten);
        }
        if err && let Err(problem) = pass(&mut stderr, io::stderr().as_fd(), &mut buffer, &mut outcome.stderr) {
            outcome.problem = problem.to_string();
        }
    }
    unwritten
}

/// Why what was printed is not kept.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error("it printed more than is kept")]
    TooLong,
    #[error("what it printed could not be passed on: {0}")]
    Unwritten(io::Error),
}

impl Unkept {
    fn error(self) -> Option<io::Error> {
        match self {
            Self::TooLong => None,
            Self::Unwritten(error) => Some(error),
        }
    }
}

/// Which of the streams have something, or have ended.
fn ready(stdout: &Option<impl AsFd>, stderr: &Option<impl AsFd>) -> (bool, bool) {
    let mut fds = Vec::with_capacity(2);
    fds.extend(stdout.as_ref().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)));
    fds.extend(stderr.as_ref().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)));
    if poll(&mut fds, PollTimeout::NONE).is_err() {
        return (false, false);
    }
    let mut any = fds.iter().map(|fd| fd.any().unwrap_or(true));
    let out = stdout.is_some() && any.next().unwrap_or(false);
    (out, stderr.is_some() && any.next().unwrap_or(false))
}

/// Moves what is there from the compiler to our own stream.
fn pass(from: &mut Option<File>, to: BorrowedFd<'_>, buffer: &mut [u8], kept: &mut Vec<u8>) -> Result<(), Unkept> {
    let read = match from.as_mut().map(|stream| stream.read(buffer)) {
        Some(Ok(read)) if read > 0 => read,
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        _ => {
            *from = None;
            return Ok(());
        }
    };
    if let Err(error) = write_all(&to, &buffer[..read]) {
        // That nobody reads any more the compiler is to notice as it would without us.
        if is_unread(&error) {
            *from = None;
        }
        return Err(Unkept::Unwritten(error));
    }
    if kept.len() + read > STREAM_MAX {
        return Err(Unkept::TooLong);
    }
    kept.extend_from_slice(&buffer[..read]);
    Ok(())
}
