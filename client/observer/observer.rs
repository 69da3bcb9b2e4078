//! The observer: a library preloaded into a compiler's whole process tree, which records what is read, looked for,
//! executed and written, and changes nothing. Owns which modules there are; the work is theirs.
//!
//! It is built without any dependency, so that it loads under every C library, and keeps to what is safe in a signal
//! handler, a forked child and a program that has barely started: no allocation, no locks, no errno of its own.

#![no_std]
#![no_builtins]
// Everything here is pointers from C; marking each use of one would hide the rest.
#![allow(unsafe_op_in_unsafe_fn)]

mod arch;
mod attributes;
mod environment;
mod exec;
mod files;
mod hook;
mod links;
mod lists;
mod modules;
mod own;
mod process;
mod program;
mod real;
mod record;
mod session;
mod spawn;
mod sys;
mod system;
#[path = "../../proto/src/trace.rs"]
#[allow(dead_code)]
mod trace;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    arch::abort()
}
