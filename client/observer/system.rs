//! Hooks on what a program asks of the machine and of itself: which one it is, how many processors it has, who runs it, what
//! it may. Each is one number of the trace's; what the answer was is asked again by whoever reads that.

use crate::hook::{hook, hooks};
use crate::record::Call;
use crate::trace;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Pages of code already known to ask something: one record for each is enough.
static CALLERS: [AtomicUsize; 512] = [const { AtomicUsize::new(0) }; 512];

#[inline(never)]
unsafe fn asks(caller: usize, what: u64) {
    let known = (caller >> 12) << 4 | what as usize;
    let place = &CALLERS[(known ^ known >> 9) & 511];
    if place.load(Relaxed) != known {
        place.store(known, Relaxed);
        Call::begin(caller).event(trace::SYSTEM).value(what).texts(&[], &[]);
    }
}

/// A function of these arguments that asks `$what`.
macro_rules! asking {
    ($what:ident: [$($name:ident)*] ($($arg:ident: $kind:ty),*) -> $answer:ty) => {
        hooks!([$($name)*] ($($arg: $kind),*) -> $answer, real, caller => {
            asks(caller, trace::$what);
            real($($arg),*)
        });
    };
}

asking!(HOST: [gethostname getdomainname](name: *mut c_char, length: usize) -> c_int);
asking!(HOST: [__gethostname_chk __getdomainname_chk](name: *mut c_char, length: usize, room: usize) -> c_int);
asking!(HOST: [uname](answer: *mut c_void) -> c_int);

asking!(PROCESSORS: [sched_getaffinity](process: c_int, size: usize, mask: *mut c_void) -> c_int);
asking!(PROCESSORS: [pthread_getaffinity_np](thread: usize, size: usize, mask: *mut c_void) -> c_int);
asking!(PROCESSORS: [get_nprocs get_nprocs_conf]() -> c_int);

asking!(LIMITS: [getrlimit getrlimit64](resource: c_int, answer: *mut c_void) -> c_int);
asking!(LIMITS: [prlimit prlimit64](process: c_int, resource: c_int, new: *const c_void, old: *mut c_void) -> c_int);

asking!(USER: [getuid geteuid getgid getegid]() -> c_int);
asking!(USER: [getresuid getresgid](real_: *mut u32, effective: *mut u32, saved: *mut u32) -> c_int);
asking!(USER: [getgroups](count: c_int, groups: *mut u32) -> c_int);

asking!(USERS: [getpwuid getgrgid](id: u32) -> *mut c_void);
asking!(USERS: [getpwnam getgrnam](name: *const c_char) -> *mut c_void);
asking!(USERS: [getpwuid_r getgrgid_r]
    (id: u32, entry: *mut c_void, room: *mut c_char, length: usize, answer: *mut *mut c_void) -> c_int);
asking!(USERS: [getpwnam_r getgrnam_r]
    (name: *const c_char, entry: *mut c_void, room: *mut c_char, length: usize, answer: *mut *mut c_void) -> c_int);
asking!(USERS: [getpwent getgrent]() -> *mut c_void);

asking!(PROCESS: [getpid getppid gettid getpgrp]() -> c_int);
asking!(PROCESS: [getsid getpgid](process: c_int) -> c_int);

asking!(MOMENT: [getlogin]() -> *mut c_char);
asking!(MOMENT: [getlogin_r](name: *mut c_char, length: usize) -> c_int);
asking!(MOMENT: [sysinfo times](answer: *mut c_void) -> isize);
asking!(MOMENT: [getrusage](who: c_int, answer: *mut c_void) -> c_int);
asking!(MOMENT: [getloadavg](answer: *mut f64, count: c_int) -> c_int);
asking!(MOMENT: [clock]() -> isize);
asking!(MOMENT: [sched_getcpu]() -> c_int);

asking!(LOCALE: [setlocale](category: c_int, name: *const c_char) -> *mut c_char);
asking!(LOCALE: [newlocale](mask: c_int, name: *const c_char, base: *mut c_void) -> *mut c_void);

hook!(fn sysconf(name: c_int) -> isize, real, caller => {
    // As both C libraries number them; the others never change.
    match name {
        // The arguments' room, processes, open files.
        0 | 1 | 4 => asks(caller, trace::LIMITS),
        83 | 84 => asks(caller, trace::PROCESSORS),
        85 => asks(caller, trace::MEMORY),
        // Free memory, and the processor's caches.
        86 | 185..=199 => asks(caller, trace::MOMENT),
        _ => {}
    }
    real(name)
});

// How much room there is on a disk. Of what is none, the kernel's own, the answer stays.
hooks!([statfs statfs64 statvfs statvfs64](path: *const c_char, answer: *mut c_void) -> c_int, real, caller => {
    let result = real(path, answer);
    if result == 0 {
        asks(caller, trace::MOMENT);
    }
    result
});
