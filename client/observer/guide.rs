//! The guide: a library preloaded into a build's programs, which leads the compilers that they start to zcache's client
//! and hands itself on, hidden. Owns which modules there are; they are the observer's, as far as they start programs.
//!
//! It is a library of its own because it is in every program of a build, also in those that the build made: there it
//! stands before a dozen functions, not before every one that opens a file.

#![no_std]
#![no_builtins]
// Everything here is pointers from C; marking each use of one would hide the rest.
#![allow(unsafe_op_in_unsafe_fn)]
// What records is there and idle: there is no trace to write to.
#![allow(dead_code, unused_imports, unused_macros)]

mod arch;
#[path = "../../proto/src/driver.rs"]
mod driver;
mod entrance;
mod environment;
mod exec;
mod hook;
mod image;
mod modules;
mod own;
mod program;
mod real;
mod record;
mod redirect;
mod session;
mod spawn;
mod sys;
#[path = "../../proto/src/trace.rs"]
mod trace;

/// Whether what programs do is recorded.
const OBSERVES: bool = false;

unsafe extern "C" fn start(_: i32, _: *const *const core::ffi::c_char, environment: *mut *const core::ffi::c_char) {
    session::begin(environment);
    entrance::give_way();
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: unsafe extern "C" fn(i32, *const *const core::ffi::c_char, *mut *const core::ffi::c_char) = start;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    arch::abort()
}
