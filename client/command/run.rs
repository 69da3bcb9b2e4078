//! Run: one command with zcache in front of its compilers. The command runs whatever is wrong with zcache, and its end
//! is this process's end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use zcache_client::command::NAME;
use zcache_client::session::{Session, SessionError};
use zcache_client::start::By;
use zcache_client::trouble::Trouble;
use zcache_daemon::premises::Room;
use zcache_daemon::process::{Process, ancestors};
use zcache_daemon::server::variable;
use zcache_proto::v1;

use crate::daemon::{ANSWER, config, endpoint, explain, own_endpoint, running, started};
use crate::failure::Failure;
use crate::links::identity;
use crate::report::{counts, problem};
use crate::surroundings::client;
use crate::{sccache_settings, text, way};

/// Signals that belong to the command.
const PASSED_ON: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// `zcache run`: the command's exit code, as a shell tells it.
pub fn run(command: &[OsString]) -> Result<ExitCode, Failure> {
    let client = client()?;
    let is_disabled = variable("ZCACHE_DISABLE").is_some_and(|value| !value.is_empty() && value != "0");
    let ready = if is_disabled { Err(Failure::new("ZCACHE_DISABLE is set")) } else { prepare(&client) };
    if let Err(failure) = &ready {
        text::note(&format!("running without the cache: {}", text::one_line(&failure.to_string())));
    }
    if let Some(remark) = sccache_settings::remark(std::env::vars_os()) {
        text::note(&remark);
    }
    let Some(name) = command.first() else { return Err(Failure::new("nothing to run")) };
    let mut led = match is_disabled {
        true => way::bare(command),
        false => way::lead(&client, command),
    };
    let status = match supervise(&mut led) {
        Ok(status) => status,
        Err(error) => return Ok(refuse(name, &error)),
    };
    if ready.is_ok() {
        text::note(&summary());
    }
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Makes sure that a daemon is there. Inside a compile none is started: what runs there must not outlive it.
fn prepare(client: &Path) -> Result<(), Failure> {
    config()?;
    let client = identity(client);
    // A client that was called through a link goes by the link's name.
    let is_client = |process: &Process| {
        let program = identity(Path::new(&format!("/proc/{}/exe", process.pid)));
        process.name == NAME || program.is_some() && program == client
    };
    let above = Process::get(std::process::id()).map(|own| ancestors(&own)).unwrap_or_default();
    if above.iter().any(is_client) {
        return Ok(Session::connect(&own_endpoint()).map(drop)?);
    }
    // By the way that the command's clients go: a daemon to which none leads would be of no use to them.
    started(&own_endpoint(), By::Build).map(drop)
}

fn refuse(name: &OsStr, error: &io::Error) -> ExitCode {
    let (code, words) = match error.kind() {
        io::ErrorKind::NotFound => (127, "command not found".to_owned()),
        _ => (126, error.to_string()),
    };
    text::note(&format!("{}: {words}", name.display()));
    ExitCode::from(code)
}

/// Runs the command to its end. What the terminal sends reaches it and this process alike, and this process stays to
/// the end; what is sent to this process alone is passed on.
fn supervise(command: &mut Command) -> io::Result<ExitStatus> {
    let caught: SigSet = PASSED_ON.into_iter().collect();
    let before = SigSet::thread_get_mask()?;
    caught.thread_block()?;
    // SAFETY: between fork and exec only the signal mask is set, by a system call.
    unsafe { command.pre_exec(move || Ok(before.thread_set_mask()?)) };
    let ended = listen(&caught, SfdFlags::empty()).and_then(|signals| {
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        // The thread inherits the mask and ends with the process.
        std::thread::spawn(move || pass_on(&signals, pid));
        child.wait()
    });
    // What ended the command has done its work; from here on an interrupt ends this process.
    let rest = listen(&caught, SfdFlags::SFD_NONBLOCK)?;
    while let Ok(Some(_)) = rest.read_signal() {}
    before.thread_set_mask()?;
    ended
}

fn listen(signals: &SigSet, flags: SfdFlags) -> io::Result<SignalFd> {
    Ok(SignalFd::with_flags(signals, flags | SfdFlags::SFD_CLOEXEC)?)
}

fn pass_on(signals: &SignalFd, pid: Pid) {
    while let Ok(Some(signal)) = signals.read_signal() {
        let number = i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        if signal.ssi_code != libc::SI_KERNEL {
            let _ = kill(pid, number);
        }
    }
}

/// What the build came to.
fn summary() -> String {
    let endpoint = endpoint();
    let own = own_endpoint();
    if let Some(trouble) = Trouble::find(&own) {
        return explain(trouble, &own);
    }
    let pid = std::process::id();
    let asked = running(&endpoint)
        .and_then(|mut session| session.ask(ANSWER, async |client| client.summary(v1::SummaryRequest { pid }).await));
    // The daemon's own word on this waits until all is stored, which a build need not.
    let refusal = config().ok().and_then(|config| Room::of(&config.dir).refusal());
    let problem = refusal.and_then(|refusal| problem(&refusal.to_string()));
    match asked {
        Ok(build) => {
            let came_to = if build.invocations == 0 { way::unseen() } else { counts(&build) };
            [came_to].into_iter().chain(problem).collect::<Vec<_>>().join("; ")
        }
        Err(SessionError::Absent) => {
            "the daemon ended before the command did; what it counted is in `zcache status`".into()
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> ExitStatus {
        supervise(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(ended("exit 7").code(), Some(7));
        assert_eq!(ended("kill -TERM $$").signal(), Some(15));
        assert_eq!(supervise(&mut Command::new("/no/such")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
