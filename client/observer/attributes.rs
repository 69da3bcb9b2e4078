//! Hooks that ask whether a file is there and what it is. Knows where each leaves the mode.

use crate::hook::{hook, hooks};
use crate::record::{At, Call, error};
use crate::session::here;
use crate::{sys, trace};
use core::ffi::{c_char, c_int};

/// The result of `stat`, as bytes.
type Buffer = *mut u8;

#[inline(never)]
unsafe fn asked(call: &Call, path: At, nofollow: bool, failed: bool, mode: u64) {
    if call.recorded() {
        let flags = if nofollow { trace::NOFOLLOW } else { 0 };
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
        asked(&call, At(dir, path), flags & sys::AT_SYMLINK_NOFOLLOW != 0, result != 0, mode as u64);
        result
    }
);

hooks!([access eaccess euidaccess](path: *const c_char, mode: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, mode);
    asked(&call, here(path), false, result != 0, 0);
    result
});

hook!(fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(dir, path, mode, flags);
    asked(&call, At(dir, path), flags & sys::AT_SYMLINK_NOFOLLOW != 0, result != 0, 0);
    result
});
