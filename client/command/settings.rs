//! Settings: the configuration in effect, where each value comes from, and what can be set. Reading it is the daemon's
//! business (`zcache_daemon::config`).

use std::fs;
use std::path::Path;

use toml::Table;
use zcache_daemon::config::Config;
use zcache_daemon::server::variable;

use crate::daemon::{config, endpoint};
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

The daemon reads all this when it starts: after a change, `zcache stop`. A daemon
that systemd starts (`zcache service install`) sees the file, not your shell's
variables. zcache sets ZCACHE_PARENT for its own use."#;

/// `zcache config`.
pub fn show() -> Result<(), Failure> {
    let config = config()?;
    let file = Config::file(&variable);
    let table = file.as_deref().and_then(read).unwrap_or_default();
    let there = if file.as_deref().is_some_and(Path::exists) { "" } else { "  (absent)" };
    let file = file.map_or("none: neither XDG_CONFIG_HOME nor HOME is set".into(), |file| file.display().to_string());
    let row = |name: &str, value: String, source: &str| format!("{name:<9} {value:<44} {source}\n");
    let from = |key: &str, name: &'static str| source(is_set(name), name, table.contains_key(key));
    let deciding = ["ZCACHE_SOCKET", "ZCACHE_DIR", "XDG_RUNTIME_DIR"].into_iter().find(|name| is_set(name));
    let disabled = variable("ZCACHE_DISABLE").is_some_and(|value| !value.is_empty() && value != "0");
    let mut text = format!("{:<9} {file}{there}\n", "file");
    text += &row("dir", config.dir.display().to_string(), from("dir", "ZCACHE_DIR"));
    text += &row("max_size", text::size(config.max_size), from("max_size", "ZCACHE_MAX_SIZE"));
    text += &row("log", config.log, from("log", "ZCACHE_LOG"));
    text += &row("socket", endpoint().socket.display().to_string(), deciding.unwrap_or("default"));
    if disabled {
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
