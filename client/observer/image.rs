//! What the loader would make of a program's file: whether this library can enter it, and whether it would be the worse
//! for it. Reads ELF headers and `#!` lines; does not start anything.

use crate::record::{At, link_to};
use crate::session::here;
use crate::sys;
use core::ffi::c_char;

/// A program's file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The loader takes in what is preloaded.
    Dynamic,
    /// Nothing can be loaded into it.
    Static,
    /// The loader, or what it loads, would complain: another machine's program, or one that has to be loaded first.
    Averse,
    /// Text that another program reads.
    Script,
    /// It cannot be read, or what would run it is not there.
    Unknown,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u8 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u8 = 183;

/// Longest `#!` line that the kernel reads.
const HEAD: usize = 256;
/// Program headers that are looked at: so many fit.
const HEADERS: usize = 40 * HEADER;
const HEADER: usize = 56;

/// What a file is. A script is what its interpreter is, but for [`Image::Dynamic`], which is then a script.
pub unsafe fn of(file: At) -> Image {
    let mut name = sys::room::<HEAD>();
    let (image, is_script) = look(file, &mut name);
    if !is_script {
        return image;
    }
    match look(here(name.as_ptr().cast()), &mut sys::room()) {
        // An interpreter may be a script itself, whose own is not looked for.
        (Image::Dynamic, _) | (_, true) => Image::Script,
        (image, _) => image,
    }
}

/// The file's own kind, or that it names an interpreter, whose path is put into `name`.
unsafe fn look(file: At, name: &mut sys::Room<HEAD>) -> (Image, bool) {
    // Without waiting, should it be a pipe.
    let fd = sys::openat(file.0, file.1, sys::O_CLOEXEC | sys::O_NONBLOCK);
    if fd < 0 {
        return (Image::Unknown, false);
    }
    let mut room = sys::room::<HEAD>();
    let head = sys::pread(fd, &mut room, 0);
    let found = if sys::starts_with(head, b"\x7fELF") { (elf(fd, head), false) } else { text(head, name) };
    sys::close(fd);
    found
}

unsafe fn text(head: &[u8], name: &mut sys::Room<HEAD>) -> (Image, bool) {
    if !sys::starts_with(head, b"#!") {
        // What the kernel refuses is run by a shell.
        return (if head.is_empty() { Image::Unknown } else { Image::Script }, false);
    }
    let line = &head[2..];
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(0);
    let line = &line[start..];
    match line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0)) {
        Some(end) if end > 0 => {
            *sys::append(name.as_mut_ptr().cast(), &line[..end]) = 0;
            (Image::Script, true)
        }
        _ => (Image::Unknown, false),
    }
}

unsafe fn elf(fd: isize, head: &[u8]) -> Image {
    // Class 2 is 64 bits; the machine is a u16, little-endian as ours.
    if head.len() < 64 || head[4] != 2 || head[18] != MACHINE || head[19] != 0 {
        return Image::Averse;
    }
    let mut room = sys::room::<HEADERS>();
    let count = number(head, 56) as u16 as usize;
    let read = sys::pread(fd, &mut room, number(head, 32));
    let headers = &read[..read.len().min(count * HEADER)];
    if find(headers, |header| kind(header) == 3).is_none() {
        return Image::Static;
    }
    if must_be_first(fd, headers) { Image::Averse } else { Image::Dynamic }
}

/// Whether it is linked to AddressSanitizer's library, which ends a program into which anything is preloaded.
unsafe fn must_be_first(fd: isize, headers: &[u8]) -> bool {
    const NEEDED: u64 = 1;
    const STRINGS: u64 = 5;
    let Some(dynamic) = find(headers, |header| kind(header) == 2) else { return false };
    let mut room = sys::room::<2048>();
    let entries = sys::pread(fd, &mut room, number(dynamic, 8));
    let entries = &entries[..entries.len().min(number(dynamic, 32) as usize)];
    let Some(strings) = entries.chunks_exact(16).find(|entry| number(entry, 0) == STRINGS) else { return false };
    let address = number(strings, 8);
    let holds = |header: &[u8]| {
        kind(header) == 1 && number(header, 16) <= address && address - number(header, 16) < number(header, 32)
    };
    let Some(segment) = find(headers, holds) else { return false };
    let strings = address - number(segment, 16) + number(segment, 8);
    let needed = entries.chunks_exact(16).take_while(|entry| number(entry, 0) != 0);
    needed.filter(|entry| number(entry, 0) == NEEDED).any(|entry| {
        let mut room = sys::room::<24>();
        let name = sys::pread(fd, &mut room, strings + number(entry, 8));
        sys::starts_with(name, b"libasan.") || sys::starts_with(name, b"libclang_rt.asan")
    })
}

fn find(headers: &[u8], is: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    headers.chunks_exact(HEADER).find(|header| is(header))
}

fn kind(header: &[u8]) -> u32 {
    number(header, 0) as u32
}

/// Eight bytes; 0 where they are not there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let Some(bytes) = bytes.get(at..) else { return 0 };
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The file that a path really leads to, and which one that is; an empty path where that cannot be told.
pub unsafe fn real(path: *const c_char, room: &mut sys::Room<{ sys::PATH_MAX }>) -> (&[u8], [u64; 2]) {
    let fd = sys::openat(sys::AT_FDCWD, path, sys::O_PATH | sys::O_CLOEXEC);
    if fd < 0 {
        return (&[], [0; 2]);
    }
    let identity = sys::identity(fd as i32, c"".as_ptr());
    let real = sys::readlink(link_to(fd as i32, &mut sys::room()), room);
    sys::close(fd);
    (real, identity)
}
