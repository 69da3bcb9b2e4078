//! Hooks that resolve names and that change which names there are. That a change failed tells what was there.

use crate::hook::{hook, hooks};
use crate::record::{At, Call, error};
use crate::session::here;
use crate::{sys, trace};
use core::ffi::{c_char, c_int};

type Text = *const c_char;

unsafe fn answered(call: &Call, path: At, buffer: *const c_char, length: isize) {
    if call.recorded() {
        let answer: &[u8] = core::slice::from_raw_parts(buffer.cast(), length.max(0) as usize);
        call.event(trace::READLINK).errno(error(length < 0)).path_and(path, &[answer]);
    }
}

hook!(fn readlink(path: Text, buffer: *mut c_char, size: usize) -> isize, real, caller => {
    let call = Call::begin(caller);
    let length = real(path, buffer, size);
    answered(&call, here(path), buffer, length);
    length
});

hook!(fn readlinkat(dir: c_int, path: Text, buffer: *mut c_char, size: usize) -> isize, real, caller => {
    let call = Call::begin(caller);
    let length = real(dir, path, buffer, size);
    answered(&call, At(dir, path), buffer, length);
    length
});

/// `resolve` may write its answer over the path.
unsafe fn resolved(caller: usize, path: Text, into: *mut c_char, resolve: impl FnOnce() -> *mut c_char) -> *mut c_char {
    let call = Call::begin(caller);
    let mut room = sys::room::<{ sys::PATH_MAX }>();
    let mut asked = path;
    if call.recorded() && path == into.cast_const() {
        let text = sys::bytes(path);
        let text = &text[..text.len().min(sys::PATH_MAX - 1)];
        *sys::append(room.as_mut_ptr().cast(), text) = 0;
        asked = room.as_ptr().cast();
    }
    let answer = resolve();
    if call.recorded() {
        call.event(trace::READLINK).errno(error(answer.is_null())).path_and(here(asked), &[sys::bytes(answer)]);
    }
    answer
}

hook!(fn realpath(path: Text, into: *mut c_char) -> *mut c_char, real, caller => {
    resolved(caller, path, into, || real(path, into))
});

hook!(fn __realpath_chk(path: Text, into: *mut c_char, size: usize) -> *mut c_char, real, caller => {
    resolved(caller, path, into, || real(path, into, size))
});

hook!(fn canonicalize_file_name(path: Text) -> *mut c_char, real, caller => {
    resolved(caller, path, core::ptr::dangling_mut(), || real(path))
});

hook!(fn getcwd(into: *mut c_char, size: usize) -> *mut c_char, real, caller => {
    let call = Call::begin(caller);
    let answer = real(into, size);
    if call.recorded() {
        call.event(trace::GETCWD).errno(error(answer.is_null())).texts(sys::bytes(answer), &[]);
    }
    answer
});

hook!(fn get_current_dir_name() -> *mut c_char, real, caller => {
    let call = Call::begin(caller);
    let answer = real();
    if call.recorded() {
        call.event(trace::GETCWD).errno(error(answer.is_null())).texts(sys::bytes(answer), &[]);
    }
    answer
});

hook!(fn rename(old: Text, new: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(old, new);
    if call.recorded() {
        call.event(trace::RENAME).errno(error(result != 0)).paths(here(old), here(new));
    }
    result
});

hook!(fn renameat(old_dir: c_int, old: Text, new_dir: c_int, new: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(old_dir, old, new_dir, new);
    if call.recorded() {
        call.event(trace::RENAME).errno(error(result != 0)).paths(At(old_dir, old), At(new_dir, new));
    }
    result
});

hook!(fn renameat2(old_dir: c_int, old: Text, new_dir: c_int, new: Text, flags: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(old_dir, old, new_dir, new, flags);
    if call.recorded() {
        call.event(trace::RENAME).errno(error(result != 0)).value(flags as u64).paths(At(old_dir, old), At(new_dir, new));
    }
    result
});

hook!(fn link(old: Text, new: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(old, new);
    if call.recorded() {
        call.event(trace::LINK).errno(error(result != 0)).paths(here(old), here(new));
    }
    result
});

hook!(fn linkat(old_dir: c_int, old: Text, new_dir: c_int, new: Text, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(old_dir, old, new_dir, new, flags);
    if call.recorded() {
        call.event(trace::LINK).errno(error(result != 0)).paths(At(old_dir, old), At(new_dir, new));
    }
    result
});

hook!(fn symlink(target: Text, path: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(target, path);
    if call.recorded() {
        call.event(trace::SYMLINK).errno(error(result != 0)).path_and(here(path), &[sys::bytes(target)]);
    }
    result
});

hook!(fn symlinkat(target: Text, dir: c_int, path: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(target, dir, path);
    if call.recorded() {
        call.event(trace::SYMLINK).errno(error(result != 0)).path_and(At(dir, path), &[sys::bytes(target)]);
    }
    result
});

hooks!([unlink remove rmdir](path: Text) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path);
    if call.recorded() {
        call.event(trace::REMOVE).errno(error(result != 0)).path(here(path));
    }
    result
});

hook!(fn unlinkat(dir: c_int, path: Text, flags: c_int) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(dir, path, flags);
    if call.recorded() {
        call.event(trace::REMOVE).errno(error(result != 0)).path(At(dir, path));
    }
    result
});

hook!(fn mkdir(path: Text, mode: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(path, mode);
    if call.recorded() {
        call.event(trace::MKDIR).errno(error(result != 0)).value(mode as u64).path(here(path));
    }
    result
});

hook!(fn mkdirat(dir: c_int, path: Text, mode: u32) -> c_int, real, caller => {
    let call = Call::begin(caller);
    let result = real(dir, path, mode);
    if call.recorded() {
        call.event(trace::MKDIR).errno(error(result != 0)).value(mode as u64).path(At(dir, path));
    }
    result
});
