//! Limits: what the caller allows its processes (`ulimit`). A compile must not fail for what watching it takes.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// With less address space than this the compiler gets all of it, bytes.
const SPACE_MIN: u64 = 512 << 20;
/// What a trace may take of a limited address space: one part in so many.
const SPACE_PARTS: u64 = 64;
/// With fewer processes than this the compiler gets all of them.
const PROCESSES_MIN: u64 = 64;

/// Whether there is no room for anything but the compiler.
pub fn are_tight() -> bool {
    of(Resource::RLIMIT_AS) < SPACE_MIN
        || of(Resource::RLIMIT_NPROC) < PROCESSES_MIN && !nix::unistd::geteuid().is_root()
}

/// Longest file that may be written, bytes. Beyond it the kernel ends a process that writes.
pub fn longest_file() -> u64 {
    of(Resource::RLIMIT_FSIZE)
}

/// Longest trace that a compiler has room for, bytes.
pub fn longest_trace() -> u64 {
    match of(Resource::RLIMIT_AS) {
        RLIM_INFINITY => longest_file(),
        space => longest_file().min(space / SPACE_PARTS),
    }
}

fn of(resource: Resource) -> u64 {
    getrlimit(resource).map_or(RLIM_INFINITY, |(soft, _)| soft)
}
