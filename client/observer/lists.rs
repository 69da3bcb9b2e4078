//! Hooks that read directories. Of a walk down a tree only its roots are known here.

use crate::hook::{hook, hooks};
use crate::record::{Call, error};
use crate::session::here;
use crate::{sys, trace};
use core::ffi::{c_char, c_int, c_void};

hook!(fn opendir(path: *const c_char) -> *mut c_void, real, caller => {
    let call = Call::begin(caller);
    let directory = real(path);
    if call.recorded() {
        call.event(trace::LIST).errno(error(directory.is_null())).path(here(path));
    }
    directory
});

hook!(fn fdopendir(fd: c_int) -> *mut c_void, real, caller => {
    let call = Call::begin(caller);
    let directory = real(fd);
    if !directory.is_null() {
        call.event(trace::LIST).descriptor(fd);
    }
    directory
});

hooks!(
    [scandir scandir64]
    (path: *const c_char, names: *mut c_void, filter: usize, order: usize) -> c_int, real, caller => {
        let call = Call::begin(caller);
        let count = real(path, names, filter, order);
        if call.recorded() {
            call.event(trace::LIST).errno(error(count < 0)).path(here(path));
        }
        count
    }
);

hooks!([ftw ftw64](path: *const c_char, each: usize, descriptors: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    if call.recorded() {
        // The walk's own answer is the callback's.
        call.event(trace::LIST).errno(sys::access(path, 0)).path(here(path));
    }
    real(path, each, descriptors)
});

hooks!([nftw nftw64](path: *const c_char, each: usize, descriptors: c_int, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    if call.recorded() {
        // The walk's own answer is the callback's.
        call.event(trace::LIST).errno(sys::access(path, 0)).path(here(path));
    }
    real(path, each, descriptors, flags)
});

hooks!([fts_open fts64_open](paths: *const *const c_char, flags: c_int, order: usize) -> *mut c_void, real, caller => {
    let call = Call::begin(caller);
    let walk = real(paths, flags, order);
    let mut root = paths;
    while call.recorded() && !walk.is_null() && !(*root).is_null() {
        call.event(trace::LIST).path(here(*root));
        root = root.add(1);
    }
    walk
});

hooks!([glob glob64](pattern: *const c_char, flags: c_int, failed: usize, names: *mut c_void) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(pattern, flags, failed, names);
    if call.recorded() {
        globbed(&call, sys::bytes(pattern));
    }
    result
});

/// Records the directory in which a pattern's first wildcard is looked for.
unsafe fn globbed(call: &Call, pattern: &[u8]) {
    let Some(wild) = pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[')) else { return };
    let slash = pattern[..wild].iter().rposition(|&byte| byte == b'/');
    let mut room = sys::room::<{ sys::PATH_MAX }>();
    let base: &[u8] = match slash {
        None => b".",
        Some(0) => b"/",
        Some(slash) => &pattern[..slash],
    };
    if base.len() < room.len() {
        *sys::append(room.as_mut_ptr().cast(), base) = 0;
        call.event(trace::LIST).path(here(room.as_ptr().cast()));
    }
}
