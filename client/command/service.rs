//! Service: zcached under the user's systemd, started by the first compile that connects. Knows systemctl and where
//! units go; their text is `unit`'s.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use zcache_daemon::address;
use zcache_daemon::config::Config;
use zcache_daemon::server::variable;
use zcache_proto::endpoint::Endpoint;

use crate::daemon::{config, halt, program};
use crate::failure::Failure;
use crate::text;
use crate::unit;

const SOCKET: &str = "zcached.socket";
const SERVICE: &str = "zcached.service";

/// Settings that a shell has and the service does not see, with the key of `config.toml` that it sees instead.
const UNSEEN: [(&str, &str); 4] =
    [("ZCACHE_DIR", "dir"), ("ZCACHE_MAX_SIZE", "max_size"), ("ZCACHE_LOG", "log"), ("ZCACHE_SOCKET", "")];

/// `zcache service install`. Again it brings the units up to date.
pub fn install() -> Result<(), Failure> {
    config()?;
    let program = program("zcached").ok_or_else(|| Failure::new("zcached is neither beside zcache nor in PATH"))?;
    let service = program.to_str().and_then(unit::service);
    let service =
        service.ok_or_else(|| Failure::new(format!("{}: systemd cannot name this path", program.display())))?;
    let units = units()?;
    let endpoint = endpoint()?;
    answers()?;
    // While this is held no client starts a daemon in the way of systemd's.
    let turn = turn(&endpoint)?;
    release()?;
    halt(&endpoint)?;
    // Nor may one that others started have the service's store.
    if let Some(socket) = Config::load(seen).ok().and_then(|config| address::of(&config.dir)) {
        halt(&Endpoint { socket })?;
    }
    fs::create_dir_all(&units)?;
    fs::write(units.join(SOCKET), unit::SOCKET)?;
    fs::write(units.join(SERVICE), service)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", SOCKET])?;
    drop(turn);
    explain_unseen();
    text::print(&format!(
        "installed {SOCKET} and {SERVICE} in {}\nlistening on {}; the next compile starts the daemon\n",
        units.display(),
        endpoint.socket.display()
    ))
}

/// `zcache service uninstall`.
pub fn uninstall() -> Result<(), Failure> {
    let units = units()?;
    let files = [SOCKET, SERVICE].map(|name| units.join(name));
    if !files.iter().any(|file| file.exists()) {
        return text::print("the service is not installed\n");
    }
    answers()?;
    systemctl(&["disable", SOCKET])?;
    release()?;
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    systemctl(&["daemon-reload"])?;
    text::print("removed; compiles start a daemon by themselves again\n")
}

/// Stops what an earlier install has running, and has systemd forget how often it failed.
fn release() -> Result<(), Failure> {
    let loaded = systemctl(&["show", "--property=LoadState", "--value", SOCKET])?;
    if loaded.trim() == "loaded" {
        systemctl(&["stop", SOCKET, SERVICE])?;
        // Units that have not failed may be gone already, and then there is nothing to forget.
        let _ = systemctl(&["reset-failed", SOCKET, SERVICE]);
    }
    Ok(())
}

/// Where the user's own units are.
fn units() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".config"));
    let config = absolute("XDG_CONFIG_HOME").or_else(home);
    let config = config.ok_or_else(|| Failure::new("set HOME or XDG_CONFIG_HOME: the units need a place"))?;
    Ok(config.join("systemd/user"))
}

/// Where clients look for the daemon when no variable of zcache's is set: where the socket's unit listens.
fn endpoint() -> Result<Endpoint, Failure> {
    let runtime = variable("XDG_RUNTIME_DIR").filter(|dir| PathBuf::from(dir).is_absolute());
    let runtime = runtime.ok_or_else(|| {
        Failure::new("XDG_RUNTIME_DIR is not set, so there is no user session: log in on a terminal or by ssh, not by su or sudo")
    })?;
    let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
    Ok(Endpoint::from_env(env, nix::unistd::getuid().as_raw()))
}

fn turn(endpoint: &Endpoint) -> Result<Flock<File>, Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(endpoint.dir())?;
    let file = File::options().create(true).append(true).mode(0o600).open(endpoint.starting())?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| Failure::new(error.desc()))
}

/// Whether there is a user manager to talk to.
fn answers() -> Result<(), Failure> {
    systemctl(&["show", "--property=Version"]).map(drop).map_err(|failure| {
        Failure::new(format!(
            "{failure}\nsystemd's user manager does not answer. Log in on a terminal or by ssh, not by su or sudo; on a \
             machine that nobody logs in to, `loginctl enable-linger` keeps one running. Without systemd there is \
             nothing to install: compiles start the daemon by themselves."
        ))
    })
}

fn systemctl(words: &[&str]) -> Result<String, Failure> {
    let asked = Command::new("systemctl").arg("--user").args(words).stdin(Stdio::null()).output();
    let output = asked.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new("systemctl is not in PATH"),
        _ => Failure::new(format!("systemctl: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("systemctl --user {}: {}", words.join(" "), said.trim())))
}

/// A variable, where the service sees it.
fn seen(name: &str) -> Option<OsString> {
    let is_unseen = UNSEEN.iter().any(|(unseen, _)| *unseen == name);
    if is_unseen { None } else { variable(name) }
}

fn explain_unseen() {
    for (name, key) in UNSEEN {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
        let (value, then) = (value.display(), "compiles that see it use a daemon of their own, not the service");
        match (name, key) {
            ("ZCACHE_SOCKET", _) => text::note(&format!("{name}={value} is set: {then}")),
            ("ZCACHE_DIR", _) => text::note(&format!(
                "{name}={value} is set: {then}; to move the service's store, unset it and set {key} in config.toml"
            )),
            _ => text::note(&format!("{name}={value} is set: the service does not see it; set {key} in config.toml")),
        }
    }
}
