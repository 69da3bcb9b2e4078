//! The file that a start of a program names: where PATH leads, which file's code will run, and whether this library can
//! enter it. Does not start anything.

use crate::record::{At, Call, Event, link_to};
use crate::session::{self, here};
use crate::trace::{HEAD_LEN, Identity};
use crate::{sys, trace};
use core::ffi::{c_char, c_int};
use core::ptr::null;

/// What is to be started.
pub struct Program<'a> {
    /// Without a path where it was searched and not found.
    pub file: At,
    /// The name, where it was searched in PATH.
    name: &'a [u8],
    /// Why it is not observed, as flags of its record; 0 where it is.
    flags: u16,
    /// What runs a script, which its first bytes name; a C library gives what is neither script nor program to a shell.
    interpreter: &'a [u8],
    /// The file, and the one whose code will run.
    identities: [Identity; 2],
}

/// Room for what is found out about a program. Moved about, it would take a `memcpy` that we do not have.
pub struct Space {
    /// A path of PATH's and its NUL.
    path: sys::Room<{ sys::PATH_MAX + 256 }>,
    head: sys::Room<HEAD_LEN>,
}

pub const fn space() -> Space {
    Space { path: sys::room(), head: sys::room() }
}

impl Program<'_> {
    /// The program at a path.
    pub unsafe fn named(file: At, space: &mut Space) -> Program<'_> {
        look(file, &mut space.head, false)
    }

    /// The program that an open file is.
    pub unsafe fn open(fd: c_int, space: &mut Space) -> Program<'_> {
        let mut room = sys::room();
        let mut program = Program::named(here(link_to(fd, &mut room)), space);
        program.file = At(fd, null());
        program
    }

    /// The program that a search along PATH finds, recording each place where it is not.
    pub unsafe fn searched<'a>(call: &Call, name: *const c_char, space: &'a mut Space) -> Program<'a> {
        let text = sys::bytes(name);
        let Space { path: room, head } = space;
        if text.is_empty() || sys::contains(text, b'/') {
            return look(here(name), head, true);
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
                let mut program = look(file, head, true);
                program.name = text;
                return program;
            }
            call.event(trace::STAT).errno(errno).path(file);
        }
        Program { file: here(null()), name: text, flags: 0, interpreter: &[], identities: [[0; 2]; 2] }
    }

    /// Where it is: a path, or a descriptor and none.
    pub fn file(&self) -> At {
        self.file
    }

    /// Whether it is to be observed.
    pub fn is_entered(&self) -> bool {
        self.flags == 0
    }

    /// Records that it is to be started, with these arguments where they are known.
    pub unsafe fn announce(&self, event: Event<'_>, arguments: *const *const c_char) {
        let [file, executable] = [trace::identity_bytes(self.identities[0]), trace::identity_bytes(self.identities[1])];
        let parts = trace::target_parts(&file, &executable, [self.interpreter, self.name, script(arguments)]);
        let event = event.flags(self.flags);
        let At(dir, path) = self.file;
        if !sys::bytes(path).is_empty() {
            event.path_and(self.file, &parts);
        } else if dir != sys::AT_FDCWD {
            event.descriptor_and(dir, &parts);
        } else {
            event.text_and(&[], &parts);
        }
    }
}

/// Looks at `file`, which a C library may fall back to a shell for.
#[inline(never)]
unsafe fn look(file: At, head: &mut sys::Room<HEAD_LEN>, falls_back: bool) -> Program<'_> {
    let away = if session::is_away() { trace::AWAY } else { 0 };
    let (head, identity) = look_at(file, head);
    let interpreter = match trace::interpreter(head) {
        Some(named) => named,
        None if falls_back && !is_elf(head) => b"/bin/sh",
        None => {
            let flags = foreign(head) | away;
            return Program { file, name: &[], flags, interpreter: &[], identities: [identity; 2] };
        }
    };
    let mut name = sys::room::<{ HEAD_LEN + 8 }>();
    *sys::append(name.as_mut_ptr().cast(), interpreter) = 0;
    let mut room = sys::room();
    let (head, runs) = look_at(here(name.as_ptr().cast()), &mut room);
    // An interpreter that is a script itself, or found from where we happen to be, is more than is told.
    let is_told = is_elf(head) && interpreter.first() == Some(&b'/');
    let identities = [identity, if is_told { runs } else { [0; 2] }];
    Program { file, name: &[], flags: foreign(head) | away, interpreter, identities }
}

/// The argument that would be an interpreter's script.
unsafe fn script<'a>(arguments: *const *const c_char) -> &'a [u8] {
    if arguments.is_null() || (*arguments).is_null() {
        return &[];
    }
    let mut at = arguments.add(1);
    while trace::is_plain_option(sys::bytes(*at)) {
        at = at.add(1);
    }
    match sys::bytes(*at) {
        [b'-', ..] => &[],
        script if script.len() < sys::PATH_MAX => script,
        _ => &[],
    }
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

/// Whether the loader would complain of this library: an ELF file of another kind.
fn foreign(head: &[u8]) -> u16 {
    // Class 2 is 64 bits; the machine is a u16, little-endian as ours.
    let is_ours = || head.len() >= 20 && head[4] == 2 && head[18] == MACHINE && head[19] == 0;
    if is_elf(head) && !is_ours() { trace::FOREIGN } else { 0 }
}

fn is_elf(head: &[u8]) -> bool {
    sys::starts_with(head, b"\x7fELF")
}

/// The first bytes of a file, and which file it is; nothing where it cannot be read.
unsafe fn look_at(file: At, room: &mut sys::Room<HEAD_LEN>) -> (&[u8], Identity) {
    // Without waiting, should it be a pipe.
    let fd = sys::openat(file.0, file.1, sys::O_CLOEXEC | sys::O_NONBLOCK);
    if fd < 0 {
        return (&[], [0; 2]);
    }
    let head = sys::read(fd, room);
    let identity = sys::identity(fd as c_int, c"".as_ptr());
    sys::close(fd);
    (head, identity)
}
