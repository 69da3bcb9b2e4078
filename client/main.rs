//! `zcache-client`: the shim's program, named in RUSTC_WRAPPER. It starts without the standard library's own beginning,
//! which reads the process's whole map to learn where its stack ends: a tenth of what a hit takes.

#![no_main]

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

/// Called by the C library.
///
/// # Safety
/// `argv` holds `argc` strings.
// SAFETY: no other function of this program has the name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    prepare();
    let text = |at| {
        // SAFETY: the system hands over so many strings, which stay.
        let text = unsafe { CStr::from_ptr(*argv.add(at)) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    };
    let arguments: Vec<OsString> = (0..argc.unsigned_abs() as usize).map(text).collect();
    zcache_client::shim::run(arguments)
}

/// What the standard library sees to otherwise: the standard streams are open, so that nothing else takes their
/// numbers (but the program that is started finds them closed, as it would without us), and writing to a reader that is gone is an error and not the end.
fn prepare() {
    while let Ok(stream) = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        if stream.as_raw_fd() > 2 {
            break;
        }
        let _ = stream.into_raw_fd();
    }
    // SAFETY: ignoring a signal needs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}
