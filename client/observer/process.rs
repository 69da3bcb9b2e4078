//! Hooks on what a process asks or does that is no file: its environment, the time, sockets, the loader, its end.
//! Does not know how programs are started.

use crate::hook::{hook, hooks};
use crate::real::real;
use crate::record::{Call, error};
use crate::session::here;
use crate::{arch, modules, session, sys, trace};
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

hooks!([getenv secure_getenv __secure_getenv](name: *const c_char) -> *mut c_char, real, caller => {
    let call = Call::begin(caller);
    let answer = real(name);
    if call.recorded() {
        let found = if answer.is_null() { 0 } else { trace::FOUND };
        let hash = if answer.is_null() { 0 } else { trace::hash(sys::bytes(answer)) };
        call.event(trace::GETENV).flags(found).value(hash).texts(sys::bytes(name), &[]);
    }
    answer
});

/// Pages of code already known to read the time: one record for each is enough until the program has read something else,
/// since the time is read often.
type Pages = [AtomicUsize; 256];
static CLOCK_CALLERS: Pages = [const { AtomicUsize::new(0) }; 256];
static TIME_CALLERS: Pages = [const { AtomicUsize::new(0) }; 256];
static LOCAL_CALLERS: Pages = [const { AtomicUsize::new(0) }; 256];

/// How many files have been opened for reading. What asks for the time after the next one may be another script.
static READ: AtomicUsize = AtomicUsize::new(0);

/// A file was opened for reading.
#[inline(always)]
pub fn has_read() {
    READ.fetch_add(1, Relaxed);
}

#[inline(always)]
unsafe fn clock_read(caller: usize, known: &Pages, function: u64) {
    let page = caller >> 12;
    let place = &known[page & 255];
    // Addresses have 48 bits, so a page's number leaves room for a count.
    let known = page | READ.load(Relaxed) << 36;
    if place.load(Relaxed) != known {
        place.store(known, Relaxed);
        Call::begin(caller).event(trace::CLOCK).value(function).texts(&[], &[]);
    }
}

hook!(fn clock_gettime(clock: c_int, time: *mut c_void) -> c_int, real, caller => {
    // The clocks that tell the date: real time, the same read coarsely, and atomic time.
    if matches!(clock, 0 | 5 | 11) {
        clock_read(caller, &CLOCK_CALLERS, 0);
    }
    real(clock, time)
});

hook!(fn gettimeofday(time: *mut c_void, zone: *mut c_void) -> c_int, real, caller => {
    clock_read(caller, &CLOCK_CALLERS, 0);
    real(time, zone)
});

hook!(fn time(time: *mut i64) -> isize, real, caller => {
    clock_read(caller, &TIME_CALLERS, trace::TIME);
    real(time)
});

hook!(fn localtime(time: *const i64) -> *mut c_void, real, caller => {
    clock_read(caller, &LOCAL_CALLERS, trace::LOCAL);
    real(time)
});

hook!(fn mktime(fields: *mut c_void) -> isize, real, caller => {
    clock_read(caller, &LOCAL_CALLERS, trace::LOCAL);
    real(fields)
});

hook!(fn localtime_r(time: *const i64, fields: *mut c_void) -> *mut c_void, real, caller => {
    clock_read(caller, &LOCAL_CALLERS, trace::LOCAL);
    real(time, fields)
});

/// Local, and the two of the Internet.
fn is_watched(family: c_int) -> bool {
    matches!(family, 1 | 2 | 10)
}

hook!(fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(family, kind, protocol);
    if call.recorded() && is_watched(family) {
        call.event(trace::SOCKET).errno(error(fd < 0)).value(family as u64).texts(&[], &[]);
    }
    fd
});

hook!(fn connect(fd: c_int, address: *const u16, length: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(fd, address, length);
    let errno = error(result != 0);
    // With these the kernel has not read the address, or could not.
    let unread = matches!(errno, sys::EBADF | sys::EFAULT | sys::EINVAL | sys::ENOTSOCK);
    if call.recorded() && !unread && length >= 2 && is_watched(address.read_unaligned() as c_int) {
        let family = address.read_unaligned() as u64;
        call.event(trace::SOCKET).errno(errno).value(family).texts(&[], &[]);
    }
    result
});

real!(DLOPEN = "dlopen");

/// Before `dlopen`: answers where the real one is.
unsafe extern "C" fn loading(name: *const c_char, caller: usize) -> *mut c_void {
    let call = Call::begin(caller);
    modules::uses_loader();
    modules::scan();
    if call.recorded() && sys::contains(sys::bytes(name), b'/') {
        call.event(trace::STAT).errno(sys::access(name, 0)).path(here(name));
    }
    let real = DLOPEN.get();
    if real.is_null() { cannot_load as *const () as *mut c_void } else { real }
}

unsafe extern "C" fn cannot_load() -> *mut c_void {
    core::ptr::null_mut()
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn dlopen(_: *const c_char, _: c_int) -> *mut c_void {
    arch::pass_through!(loading)
}

hook!(fn dlclose(object: *mut c_void) -> c_int, real, _caller => {
    // What is unloaded now would be missing at the end.
    modules::uses_loader();
    modules::scan();
    real(object)
});

/// The process is about to end by its own will.
pub unsafe fn exiting(caller: usize) {
    if session::ready() {
        modules::scan();
        Call::begin(caller).event(trace::EXIT).texts(&[], &[]);
    }
}

unsafe extern "C" fn finish() {
    exiting(0);
}

#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: unsafe extern "C" fn() = finish;

real!(EXIT_NOW = "_exit");
real!(QUICK_EXIT = "quick_exit");

unsafe fn end_by(real: *mut c_void, status: c_int) -> ! {
    if real.is_null() {
        sys::exit_group(status);
    }
    core::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> !>(real)(status)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _exit(status: c_int) -> ! {
    exiting(0);
    end_by(EXIT_NOW.get(), status)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn _Exit(status: c_int) -> ! {
    exiting(0);
    end_by(EXIT_NOW.get(), status)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn quick_exit(status: c_int) -> ! {
    exiting(0);
    end_by(QUICK_EXIT.get(), status)
}
