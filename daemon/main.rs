//! `zcached`: the daemon's program. Reads its configuration, then serves until it is told to stop.

use std::process::ExitCode;

use zcache_daemon::claim::{Activation, ServeError};
use zcache_daemon::config::Config;
use zcache_daemon::confine::confine;
use zcache_daemon::server::{self, variable};
use zcache_proto::endpoint::Endpoint;

const USAGE: &str = "usage: zcached [--activation client|manual]

The daemon of zcache: remembers what compilers read and wrote. Clients start it when they need it; `zcache start` and
systemd's socket activation start it too. Its settings are described in `zcache help config`.";

/// Threads that read files for look-ups and commits. More of them would only wait for the same disk.
const BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let activation = match words[..] {
        [] | ["--activation", "manual"] => Activation::Manual,
        ["--activation", "client"] => Activation::Client,
        ["--version" | "-V"] => {
            println!("zcached {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    confine();
    match run(activation) {
        Ok(()) | Err(ServeError::AlreadyRunning(_)) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zcached: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(activation: Activation) -> Result<(), ServeError> {
    let config = Config::load(variable).map_err(std::io::Error::other)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).map_err(std::io::Error::other)?;
    // A log that cannot be written is no reason to panic.
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).log_internal_errors(false);
    log.with_env_filter(filter).init();
    let endpoint = Endpoint::from_env(variable, nix::unistd::getuid().as_raw());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let served = runtime.block_on(server::serve(config, endpoint, activation));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}
