//! The shim that stands in front of the compiler, and what the people's command shares with it. Whatever is wrong
//! with zcache, the compiler runs as if it were not there: every error here ends in running it, once.
//!
//! `shim` → `session`, `start` (the daemon) and `materialize` (a hit) or `compile` (a miss, under `observe`).

pub mod command;
pub mod compile;
pub mod given;
pub mod guide;
pub mod interrupt;
pub mod invocation;
pub mod limits;
pub mod materialize;
pub mod observe;
pub mod output;
pub mod own_streams;
pub mod parent;
pub mod pulse;
pub mod sccache;
pub mod session;
pub mod shim;
pub mod start;
pub mod terminal;
pub mod trouble;
