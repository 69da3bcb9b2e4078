//! Daemon: finding, starting and stopping it for people. Knows the socket's surroundings, not what the daemon does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use zcache_client::pulse::is_stopped;
use zcache_client::session::{Session, SessionError};
use zcache_client::start::{By, connect_or_start};
use zcache_client::trouble::Trouble;
use zcache_daemon::address;
use zcache_daemon::config::Config;
use zcache_daemon::process::Process;
use zcache_daemon::server::variable;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::v1;

use crate::failure::Failure;
use crate::holder::Holder;
use crate::links::program_of;
use crate::settings::unheard;
use crate::text;

/// How long `zcache stop` waits for the daemon to finish what it has accepted.
const DRAIN: Duration = Duration::from_secs(60);

/// How long a person waits for an answer, before which the daemon finishes what was committed.
pub const ANSWER: Duration = Duration::from_secs(10);
/// How long a person waits for the store to be emptied.
pub const CLEARED: Duration = Duration::from_secs(60);

/// Where the daemon of this environment listens, or, where there is none, the one that the store says serves it.
pub fn endpoint() -> Endpoint {
    let own = own_endpoint();
    let is_held = |endpoint: &Endpoint| Holder::of(&endpoint.lock()) != Holder::Nobody;
    if is_held(&own) {
        return own;
    }
    let store = Config::load(variable).ok().map(|config| config.dir);
    let other = store.and_then(|dir| address::of(&dir)).map(|socket| Endpoint { socket });
    other.filter(is_held).unwrap_or(own)
}

/// Where clients of this environment look for the daemon.
pub fn own_endpoint() -> Endpoint {
    Endpoint::from_env(variable, nix::unistd::getuid().as_raw())
}

/// What the user decided.
pub fn config() -> Result<Config, Failure> {
    let config = Config::load(variable)?;
    let filter = EnvFilter::try_new(&config.log);
    filter.map_err(|error| Failure::Config(format!("log (ZCACHE_LOG) = {:?}: {error}", config.log)))?;
    Ok(config)
}

/// A connection to the daemon that runs, if one does. Nothing is started: systemd's socket would be enough to do so.
pub fn running(endpoint: &Endpoint) -> Result<Session, SessionError> {
    let holder = Holder::of(&endpoint.lock());
    check_going(holder)?;
    match (holder, fs::symlink_metadata(&endpoint.socket)) {
        // A file in the socket's place is worth more than the news that no daemon runs.
        (Holder::Nobody, Ok(meta)) if meta.is_file() || meta.is_dir() => Session::connect(endpoint),
        (Holder::Nobody, _) => Err(SessionError::Absent),
        _ => Session::connect(endpoint),
    }
}

/// Whether the daemon can answer at all. Behind systemd's socket it is not the peer that a session sees.
fn check_going(holder: Holder) -> Result<(), SessionError> {
    match holder {
        Holder::Process(pid) if is_stopped(pid) => Err(SessionError::Trouble(Trouble::Stopped(pid))),
        _ => Ok(()),
    }
}

/// A connection to the daemon, started where there is none.
pub fn started(endpoint: &Endpoint, by: By) -> Result<Session, Failure> {
    check_going(Holder::of(&endpoint.lock()))?;
    let program = program("zcached");
    connect_or_start(endpoint, by).map_err(|error| match (&error, program) {
        (SessionError::Trouble(Trouble::Unstartable), None) => {
            Failure::new("the daemon did not start: zcached is neither beside zcache nor in PATH")
        }
        (SessionError::Trouble(trouble), _) => Failure::new(explain(*trouble, endpoint)),
        _ => error.into(),
    })
}

/// `zcache start`.
pub fn start() -> Result<(), Failure> {
    let config = config()?;
    let endpoint = endpoint();
    let before = Holder::of(&endpoint.lock());
    let mut session = started(&endpoint, By::Person)?;
    let report = session.ask(ANSWER, async |client| client.status(v1::StatusRequest {}).await)?;
    unheard(&report, &config).iter().for_each(|(_, remark)| text::note(remark));
    let daemon = report.daemon.unwrap_or_default();
    let verb = if before == Holder::Nobody { "started" } else { "already running" };
    text::print(&format!("{verb}: pid {}, {}\n", daemon.pid, daemon.socket))
}

/// `zcache stop`. That there is nothing to stop is no failure, except to those who know sccache.
pub fn stop(as_sccache: bool) -> Result<(), Failure> {
    match halt(&endpoint()) {
        Err(error) if as_sccache => Err(Failure::Config(error.to_string())),
        Ok(None) if as_sccache => Err(Failure::Config("couldn't connect to server: no daemon is running".to_owned())),
        halted => report_halt(halted?),
    }
}

fn report_halt(halted: Option<v1::Daemon>) -> Result<(), Failure> {
    match halted {
        None => text::print("no daemon is running\n"),
        Some(daemon) => {
            let again = match daemon.activation.as_str() {
                "systemd" => "; systemd starts it again for the next compile",
                _ => "",
            };
            text::print(&format!("stopped: pid {}{again}\n", daemon.pid))
        }
    }
}

/// Stops the daemon and waits until it is gone; none where none was running.
pub fn halt(endpoint: &Endpoint) -> Result<Option<v1::Daemon>, Failure> {
    let mut session = match running(endpoint) {
        Err(SessionError::Absent) => return Ok(None),
        session => session?,
    };
    let report = session.ask(ANSWER, async |client| client.status(v1::StatusRequest {}).await)?;
    let daemon = report.daemon.unwrap_or_default();
    let process = Process::get(daemon.pid);
    session.ask(ANSWER, async |client| client.stop(v1::StopRequest {}).await)?;
    drop(session);
    let until = Instant::now() + DRAIN;
    let serves = || Holder::of(&endpoint.lock()) == Holder::Process(daemon.pid);
    while process.as_ref().is_some_and(Process::is_alive) || serves() {
        if Instant::now() >= until {
            let pid = daemon.pid;
            return Err(Failure::new(format!("the daemon (pid {pid}) was asked to stop, but is still working")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some(daemon))
}

/// One of zcache's programs: beside this one, or in PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| program_of(own.parent()?.join(name).as_os_str()));
    beside.or_else(|| std::path::absolute(program_of(name.as_ref())?).ok())
}

/// What the trouble is, and where a daemon did not start, why.
pub fn explain(trouble: Trouble, endpoint: &Endpoint) -> String {
    match (trouble, last_words(&endpoint.log())) {
        (Trouble::Unstartable, Some(words)) => format!("the daemon did not start: {words}"),
        (Trouble::Unstartable, None) => format!("the daemon did not start; see {}", endpoint.log().display()),
        _ => trouble.explain(),
    }
}

/// The last line that a daemon wrote to its log, where it says why it left: one that was started, stopped or killed says
/// no more than that.
fn last_words(log: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(log).ok()?).into_owned();
    let line = text.lines().rfind(|line| !line.trim().is_empty()).filter(|line| !line.contains(" INFO "))?;
    Some(line.strip_prefix("zcached: ").unwrap_or(line).to_owned())
}
