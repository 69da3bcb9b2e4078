//! Confine: what the daemon's process takes and gives up when it begins, whoever started it.

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, umask};

/// Heaps of the allocator. With one for each thread that ever answered, a burst of clients would never be forgotten.
const ARENAS: libc::c_int = 4;

/// To be called before the first thread and the first file.
pub fn confine() {
    umask(Mode::from_bits_truncate(0o077));
    // A core would hold what sources and environments say.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Each client is a descriptor, and a shell's limit is meant for programs that have no clients.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    // A limit on the length of files, inherited from a shell, is an error of the write and not the daemon's end.
    // SAFETY: no handler runs.
    let _: Result<SigHandler, _> = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    // SAFETY: sets a number of the allocator's.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
