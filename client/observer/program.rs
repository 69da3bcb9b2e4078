//! The file that a start of a program names: where PATH leads, and whether this library can enter it.
//! Does not start anything.

use crate::record::{At, Call};
use crate::session::{self, here};
use crate::{sys, trace};
use core::ffi::c_char;
use core::ptr::null;

/// What is to be started.
pub struct Program<'a> {
    /// Without a path where it was searched and not found.
    pub file: At,
    /// The name, where it was searched in PATH.
    pub name: &'a [u8],
    /// Why it is not observed, as flags of its record; 0 where it is.
    pub flags: u16,
}

/// Room for a path of PATH's and its NUL.
pub type Candidate = sys::Room<{ sys::PATH_MAX + 256 }>;

impl Program<'_> {
    pub unsafe fn named(file: At) -> Program<'static> {
        Program { file, name: &[], flags: flags(file) }
    }

    /// The program that a search along PATH finds, recording each place where it is not.
    pub unsafe fn searched<'a>(call: &Call, name: *const c_char, room: &'a mut Candidate) -> Program<'a> {
        let text = sys::bytes(name);
        if text.is_empty() || sys::contains(text, b'/') {
            return Program::named(here(name));
        }
        let path = session::variable(b"PATH").unwrap_or(b"/bin:/usr/bin");
        for part in path.split(|&byte| byte == b':') {
            if part.len() + 1 + text.len() >= room.len() {
                continue;
            }
            let mut end = sys::append(room.as_mut_ptr().cast(), part);
            if !part.is_empty() {
                *end = b'/';
                end = end.add(1);
            }
            *sys::append(end, text) = 0;
            let file = here(room.as_ptr().cast());
            let errno = runnable(file.1);
            if errno == 0 {
                return Program { file, name: text, flags: flags(file) };
            }
            call.event(trace::STAT).errno(errno).path(file);
        }
        Program { file: here(null()), name: text, flags: 0 }
    }

    /// Whether it is to be observed.
    pub fn is_entered(&self) -> bool {
        self.flags == 0
    }
}

unsafe fn flags(file: At) -> u16 {
    let foreign = if is_foreign(file) { trace::FOREIGN } else { 0 };
    foreign | if session::is_away() { trace::AWAY } else { 0 }
}

unsafe fn runnable(path: *const c_char) -> u32 {
    match sys::access(path, sys::X_OK) {
        0 if sys::is_directory(path) => sys::EACCES,
        errno => errno,
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u8 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u8 = 183;

/// Whether the loader would complain of this library: an ELF file of another kind, or a script run by one.
#[inline(never)]
unsafe fn is_foreign(file: At) -> bool {
    let mut room = sys::room();
    let head = head_of(file, &mut room);
    if !sys::starts_with(head, b"#!") {
        return is_foreign_elf(head);
    }
    let line = &head[2..];
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(0);
    let line = &line[start..];
    let Some(end) = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0)) else { return false };
    let mut name = sys::room::<256>();
    *sys::append(name.as_mut_ptr().cast(), &line[..end]) = 0;
    is_foreign_elf(head_of(here(name.as_ptr().cast()), &mut sys::room()))
}

fn is_foreign_elf(head: &[u8]) -> bool {
    // Class 2 is 64 bits; the machine is a u16, little-endian as ours.
    sys::starts_with(head, b"\x7fELF") && head.len() >= 20 && (head[4] != 2 || head[18] != MACHINE || head[19] != 0)
}

/// The first bytes of a file; none where it cannot be read.
unsafe fn head_of(file: At, room: &mut sys::Room<256>) -> &[u8] {
    // Without waiting, should it be a pipe.
    let fd = sys::openat(file.0, file.1, sys::O_CLOEXEC | sys::O_NONBLOCK);
    if fd < 0 {
        return &[];
    }
    let head = sys::read(fd, room);
    sys::close(fd);
    head
}
