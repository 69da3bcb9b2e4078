//! Hooks that ask whether a file is there and what it is. Knows where each leaves the mode, and which cannot tell a time.
//!
//! What a program makes of the answer cannot be seen. `stat` fills in everything, and so does `statx` as Rust's library
//! calls it for `Path::exists` as for `Metadata::modified`: it copies the whole structure, so that even a watch on its
//! memory would see every field read. Who called that library is no help: a macro holds its own copy of it, whose
//! functions are merged with the macro's. So the time counts wherever it was handed over. It does not where it was not:
//! with `access` and its kin, and with a `statx` whose mask leaves it out.

use crate::hook::{hook, hooks};
use crate::record::{At, Call, error};
use crate::session::here;
use crate::{sys, trace};
use core::ffi::{c_char, c_int};

/// The result of `stat`, as bytes.
type Buffer = *mut u8;

#[inline(never)]
unsafe fn asked(call: &Call, path: At, nofollow: bool, failed: bool, mode: u64) {
    told(call, path, if nofollow { trace::NOFOLLOW } else { 0 }, failed, mode);
}

#[inline(never)]
unsafe fn told(call: &Call, path: At, flags: u16, failed: bool, mode: u64) {
    if call.recorded() {
        call.event(trace::STAT).flags(flags).errno(error(failed)).value(mode).path(path);
    }
}

unsafe fn mode_of(buffer: Buffer, failed: bool) -> u64 {
    if failed { 0 } else { buffer.add(sys::STAT_MODE_AT).cast::<u32>().read() as u64 }
}

hooks!([stat stat64](path: *const c_char, buffer: Buffer) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, buffer);
    asked(&call, here(path), false, result != 0, mode_of(buffer, result != 0));
    result
});

hooks!([lstat lstat64](path: *const c_char, buffer: Buffer) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, buffer);
    asked(&call, here(path), true, result != 0, mode_of(buffer, result != 0));
    result
});

hooks!([__xstat __xstat64](version: c_int, path: *const c_char, buffer: Buffer) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(version, path, buffer);
    asked(&call, here(path), false, result != 0, mode_of(buffer, result != 0));
    result
});

hooks!([__lxstat __lxstat64](version: c_int, path: *const c_char, buffer: Buffer) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(version, path, buffer);
    asked(&call, here(path), true, result != 0, mode_of(buffer, result != 0));
    result
});

hooks!(
    [fstatat fstatat64]
    (dir: c_int, path: *const c_char, buffer: Buffer, flags: c_int) -> c_int, real, caller => {
        let call = Call::begin(caller);
        let result = real(dir, path, buffer, flags);
        let nofollow = flags & sys::AT_SYMLINK_NOFOLLOW != 0;
        asked(&call, At(dir, path), nofollow, result != 0, mode_of(buffer, result != 0));
        result
    }
);

hooks!(
    [__fxstatat __fxstatat64]
    (version: c_int, dir: c_int, path: *const c_char, buffer: Buffer, flags: c_int) -> c_int, real, caller => {
        let call = Call::begin(caller);
        let result = real(version, dir, path, buffer, flags);
        let nofollow = flags & sys::AT_SYMLINK_NOFOLLOW != 0;
        asked(&call, At(dir, path), nofollow, result != 0, mode_of(buffer, result != 0));
        result
    }
);

hook!(
    fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: u32, buffer: Buffer) -> c_int, real, caller => {
        let call = Call::begin(caller);
        let result = real(dir, path, flags, mask, buffer);
        let mode = if result == 0 { buffer.add(sys::STATX_MODE_AT).cast::<u16>().read() } else { 0 };
        // Length, and the times of access, change, birth and modification.
        const LENGTH_AND_TIMES: u32 = 0x200 | 0x20 | 0x80 | 0x800 | 0x40;
        let nofollow = if flags & sys::AT_SYMLINK_NOFOLLOW != 0 { trace::NOFOLLOW } else { 0 };
        let timeless = if mask & LENGTH_AND_TIMES == 0 { trace::TIMELESS } else { 0 };
        told(&call, At(dir, path), nofollow | timeless, result != 0, mode as u64);
        result
    }
);

hooks!([access eaccess euidaccess](path: *const c_char, mode: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, mode);
    told(&call, here(path), trace::TIMELESS, result != 0, 0);
    result
});

hook!(fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(dir, path, mode, flags);
    let nofollow = if flags & sys::AT_SYMLINK_NOFOLLOW != 0 { trace::NOFOLLOW } else { 0 };
    told(&call, At(dir, path), nofollow | trace::TIMELESS, result != 0, 0);
    result
});
