//! Settings: what is set, where each value comes from, what can be set, and what of it the daemon that runs does not have.
//! Reading it is the daemon's business (`zcache_daemon::config`).

use std::fs;
use std::path::Path;

use toml::Table;
use zcache_client::shim::is_disabled;
use zcache_daemon::config::Config;
use zcache_daemon::server::variable;
use zcache_proto::v1::{self, StatusReport};

use crate::daemon::{ANSWER, config, endpoint, own_endpoint, running};
use crate::failure::Failure;
use crate::text;

/// The text of `zcache help config`.
pub const HELP: &str = r#"The file is $XDG_CONFIG_HOME/zcache/config.toml, by default ~/.config/zcache/config.toml:

    dir = "/home/me/.cache/zcache"   # the store; an absolute path
    max_size = "20 GiB"              # its limit: bytes, or with KiB, MiB, GiB, TiB
    log = "info"                     # error, warn, info, debug, trace, or a filter

What the environment says goes over the file. An empty variable says nothing.

    ZCACHE_DIR       as dir; such a store has a daemon of its own
    ZCACHE_MAX_SIZE  as max_size
    ZCACHE_LOG       as log
    ZCACHE_SOCKET    the daemon's socket: an absolute path in a directory that is
                     yours alone (mode 0700)
    ZCACHE_DISABLE   where it is set to anything but 0, compilers run as if zcache
                     were not there

The daemon reads all this when it starts: after a change, `zcache stop`. Until then
`zcache config` says what the one that runs has instead. A daemon
that systemd starts (`zcache service install`) sees the file, not your shell's
variables. zcache sets ZCACHE_PARENT for its own use."#;

/// What the daemon that made `report` has otherwise than `config`: it read its settings when it started, and a command's
/// environment is not its own. The key, and a remark.
pub fn unheard(report: &StatusReport, config: &Config) -> Vec<(&'static str, String)> {
    let (Some(daemon), Some(store)) = (&report.daemon, &report.cache) else { return Vec::new() };
    let real = |dir: &Path| fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let (limit, now) = (text::size(config.max_size), text::size(store.max_bytes));
    let mut unheard = Vec::new();
    let mut note = |is_same: bool, key: &'static str, has: &str, set: &str| {
        if !is_same {
            let pid = daemon.pid;
            let remark = format!(
                "the daemon that runs (pid {pid}) has {key} {has}, not {set}; `zcache stop` makes way for one that has"
            );
            unheard.push((key, remark));
        }
    };
    let (has, set) = (Path::new(&store.dir), config.dir.as_path());
    note(real(has) == real(set), "dir", &store.dir, &set.display().to_string());
    note(store.max_bytes == config.max_size, "max_size", &now, &limit);
    // An older daemon does not say.
    note(daemon.log.is_empty() || daemon.log == config.log, "log", &daemon.log, &config.log);
    unheard
}

/// `zcache config`.
pub fn show() -> Result<(), Failure> {
    let config = config()?;
    let asked = running(&endpoint())
        .and_then(|mut session| session.ask(ANSWER, async |client| client.status(v1::StatusRequest {}).await));
    let unheard = asked.map(|report| unheard(&report, &config)).unwrap_or_default();
    let file = Config::file(&variable);
    let table = file.as_deref().and_then(read).unwrap_or_default();
    let there = if file.as_deref().is_some_and(Path::exists) { "" } else { "  (absent)" };
    let file = file.map_or("none: neither XDG_CONFIG_HOME nor HOME is set".into(), |file| file.display().to_string());
    let row = |name: &str, value: String, source: &str| {
        let remarks = unheard.iter().filter(|(key, _)| *key == name).map(|(_, remark)| remark);
        let remarks: Vec<String> = remarks.flat_map(|remark| text::wrap(remark, 70)).collect();
        let remarks: String = remarks.iter().map(|line| format!("{:<9} {line}\n", "")).collect();
        format!("{name:<9} {value:<44} {source}\n{remarks}")
    };
    let from = |key: &str, name: &'static str| source(is_set(name), name, table.contains_key(key));
    let deciding = ["ZCACHE_SOCKET", "ZCACHE_DIR", "XDG_RUNTIME_DIR"].into_iter().find(|name| is_set(name));
    let mut text = format!("{:<9} {file}{there}\n", "file");
    text += &row("dir", config.dir.display().to_string(), from("dir", "ZCACHE_DIR"));
    text += &row("max_size", text::size(config.max_size), from("max_size", "ZCACHE_MAX_SIZE"));
    text += &row("log", config.log, from("log", "ZCACHE_LOG"));
    text += &row("socket", own_endpoint().socket.display().to_string(), deciding.unwrap_or("default"));
    if is_disabled() {
        text += &row("disabled", "yes".to_owned(), "ZCACHE_DISABLE");
    }
    text::print(&text)
}

fn read(file: &Path) -> Option<Table> {
    fs::read_to_string(file).ok()?.parse().ok()
}

fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|value| !value.is_empty())
}

fn source(in_env: bool, name: &'static str, in_file: bool) -> &'static str {
    match (in_env, in_file) {
        (true, _) => name,
        (false, true) => "config.toml",
        (false, false) => "default",
    }
}
