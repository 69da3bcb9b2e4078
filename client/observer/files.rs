//! Hooks that open files. Knows how each says what it opens for, not what becomes of it.

use crate::hook::{hook, hooks};
use crate::real::real;
use crate::record::{At, Call, error};
use crate::session::here;
use crate::{sys, trace};
use core::ffi::{c_char, c_int, c_void};

type File = *mut c_void;

/// Records an open with these `O_` flags, which answered with `fd`.
#[inline(never)]
unsafe fn opened(call: &Call, path: At, flags: c_int, fd: c_int) {
    if !call.recorded() {
        return;
    }
    let errno = error(fd < 0);
    if flags & sys::O_TMPFILE_BIT != 0 {
        return;
    }
    if flags & sys::O_PATH != 0 {
        return call.event(trace::STAT).errno(errno).path(path);
    }
    let (kind, what) = match if errno == 0 { sys::opened(fd) } else { sys::Opened::File(0) } {
        sys::Opened::File(inode) => (0, inode),
        sys::Opened::Stream(inode) => (trace::STREAM, inode),
        sys::Opened::Device(major, minor) => (trace::DEVICE, trace::device(major, minor)),
    };
    if flags & (sys::O_ACCMODE | sys::O_CREAT | sys::O_TRUNC) == 0 {
        let directory = if flags & sys::O_DIRECTORY != 0 { trace::DIRECTORY } else { 0 };
        crate::process::has_read();
        call.event(trace::READ).flags(directory | kind).errno(errno).value(what).path(path);
    } else {
        let create = if flags & sys::O_CREAT != 0 { trace::CREATE } else { 0 };
        let exclusive = if flags & sys::O_EXCL != 0 { trace::EXCLUSIVE } else { 0 };
        let truncate = if flags & sys::O_TRUNC != 0 { trace::TRUNCATE } else { 0 };
        let reads = if matches!(flags & sys::O_ACCMODE, 0 | sys::O_RDWR) { trace::READS } else { 0 };
        let event = call.event(trace::WRITE).flags(create | exclusive | truncate | reads | kind);
        event.errno(errno).value(what).path(path);
    }
}

hooks!([open open64](path: *const c_char, flags: c_int, mode: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path, flags, mode);
    opened(&call, here(path), flags, fd);
    fd
});

hooks!([__open_2 __open64_2](path: *const c_char, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path, flags);
    opened(&call, here(path), flags, fd);
    fd
});

hooks!([openat openat64](dir: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(dir, path, flags, mode);
    opened(&call, At(dir, path), flags, fd);
    fd
});

hooks!([__openat_2 __openat64_2](dir: c_int, path: *const c_char, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(dir, path, flags);
    opened(&call, At(dir, path), flags, fd);
    fd
});

hooks!([creat creat64](path: *const c_char, mode: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path, mode);
    opened(&call, here(path), 1 | sys::O_CREAT | sys::O_TRUNC, fd);
    fd
});

/// What `fopen` makes of its mode.
unsafe fn flags_of(mode: *const c_char) -> c_int {
    let mode = sys::bytes(mode);
    let access = if sys::contains(mode, b'+') { sys::O_RDWR } else { (mode.first() != Some(&b'r')) as c_int };
    let exclusive = if sys::contains(mode, b'x') { sys::O_EXCL } else { 0 };
    access
        | match mode.first() {
            Some(b'w') => sys::O_CREAT | sys::O_TRUNC | exclusive,
            Some(b'a') => sys::O_CREAT | exclusive,
            _ => 0,
        }
}

real!(FILENO = "fileno");

/// The descriptor of a stream, which only the C library knows.
unsafe fn descriptor(file: File) -> c_int {
    let real = FILENO.get();
    if file.is_null() {
        -1
    } else if real.is_null() {
        c_int::MAX
    } else {
        core::mem::transmute::<*mut c_void, unsafe extern "C" fn(File) -> c_int>(real)(file)
    }
}

hooks!([fopen fopen64](path: *const c_char, mode: *const c_char) -> File, real, caller => {
    let call = Call::begin(caller);
    let file = real(path, mode);
    opened(&call, here(path), flags_of(mode), descriptor(file));
    file
});

hooks!([freopen freopen64](path: *const c_char, mode: *const c_char, old: File) -> File, real, caller => {
    let call = Call::begin(caller);
    let file = real(path, mode, old);
    opened(&call, here(path), flags_of(mode), descriptor(file));
    file
});

/// Records the file whose name the call has just made up.
unsafe fn made(call: &Call, path: *const c_char, fd: c_int) {
    if fd >= 0 {
        let flags = trace::CREATE | trace::EXCLUSIVE | trace::READS;
        call.event(trace::WRITE).flags(flags).path(here(path));
    }
}

hooks!([mkstemp mkstemp64](path: *mut c_char) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path);
    made(&call, path, fd);
    fd
});

// The number is `mkostemp`'s flags, `mkstemps`'s length of the suffix.
hooks!([mkostemp mkostemp64 mkstemps mkstemps64](path: *mut c_char, number: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path, number);
    made(&call, path, fd);
    fd
});

hooks!([mkostemps mkostemps64](path: *mut c_char, suffix: c_int, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let fd = real(path, suffix, flags);
    made(&call, path, fd);
    fd
});

hook!(fn mkdtemp(path: *mut c_char) -> *mut c_char, real, caller => {
    let call = Call::begin(caller);
    let answer = real(path);
    if !answer.is_null() {
        call.event(trace::MKDIR).path(here(path));
    }
    answer
});

hooks!([truncate truncate64](path: *const c_char, length: i64) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, length);
    if result == 0 {
        call.event(trace::WRITE).flags(trace::READS).path(here(path));
    }
    result
});
