//! Failure: why a subcommand did not do what it was asked, in words for people, and the exit code that goes with it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use zcache_client::session::SessionError;
use zcache_daemon::config::ConfigError;
use zcache_daemon::store::OpenError;

/// Why it failed.
#[derive(Debug)]
pub enum Failure {
    /// The user's words or settings are at fault, or the caller expects to be told as if they were.
    Config(String),
    /// It did not work.
    Failed(String),
}

impl Failure {
    /// A failure in these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self::Failed(words.into())
    }

    /// 2 where the user's words are at fault, as for a wrong command line; else 1.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) => 2,
            Self::Failed(_) => 1,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(words) | Self::Failed(words) => f.write_str(words),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}
