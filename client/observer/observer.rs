//! The observer: a library preloaded into a compiler's whole process tree, which records what is read, looked for,
//! executed and written, and changes nothing. Owns which modules there are; the work is theirs.
//!
//! Where a guide led to it (`redirect`), compilers that a compiler's own script starts are led to the client too.
//!
//! It is built without any dependency, so that it loads under every C library, and keeps to what is safe in a signal
//! handler, a forked child and a program that has barely started: no allocation, no locks, no errno of its own.

#![no_std]
#![no_builtins]
// Everything here is pointers from C; marking each use of one would hide the rest.
#![allow(unsafe_op_in_unsafe_fn)]

mod arch;
mod attributes;
#[path = "../../proto/src/driver.rs"]
#[allow(dead_code)]
mod driver;
mod environment;
mod exec;
mod files;
mod hook;
mod image;
mod links;
mod lists;
mod modules;
mod own;
mod process;
mod program;
mod real;
mod record;
mod redirect;
mod session;
mod spawn;
mod sys;
mod system;
#[path = "../../proto/src/trace.rs"]
#[allow(dead_code)]
mod trace;

/// Whether what programs do is recorded.
const OBSERVES: bool = true;

unsafe extern "C" fn start(_: i32, _: *const *const core::ffi::c_char, environment: *mut *const core::ffi::c_char) {
    session::begin(environment);
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: unsafe extern "C" fn(i32, *const *const core::ffi::c_char, *mut *const core::ffi::c_char) = start;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    arch::abort()
}
