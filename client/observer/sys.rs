//! The kernel and C as seen from here: raw system calls, constants, errno, strings without an allocator.
//! Knows nothing of traces, hooks or programs.

use core::arch::asm;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const PREAD: usize = 17;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const GETPID: usize = 39;
    pub const GETCWD: usize = 79;
    pub const GETPPID: usize = 110;
    pub const MADVISE: usize = 28;
    pub const PRCTL: usize = 157;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
    pub const STATX: usize = 332;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const GETCWD: usize = 17;
    pub const FACCESSAT: usize = 48;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const PREAD: usize = 67;
    pub const READLINKAT: usize = 78;
    pub const EXIT_GROUP: usize = 94;
    pub const CLOCK_GETTIME: usize = 113;
    pub const GETPID: usize = 172;
    pub const GETPPID: usize = 173;
    pub const PRCTL: usize = 167;
    pub const MADVISE: usize = 233;
    pub const MUNMAP: usize = 215;
    pub const MMAP: usize = 222;
    pub const STATX: usize = 291;
}

pub const AT_FDCWD: c_int = -100;
pub const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
pub const AT_EMPTY_PATH: c_int = 0x1000;
pub const O_ACCMODE: c_int = 3;
pub const O_RDWR: c_int = 2;
pub const O_CREAT: c_int = 0o100;
pub const O_EXCL: c_int = 0o200;
pub const O_TRUNC: c_int = 0o1000;
pub const O_NONBLOCK: c_int = 0o4000;
pub const O_CLOEXEC: c_int = 0o2000000;
pub const O_PATH: c_int = 0o10000000;
/// The bit of `O_TMPFILE` that is its own.
pub const O_TMPFILE_BIT: c_int = 0o20000000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: c_int = 0o200000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: c_int = 0o40000;
/// Where `st_mode` lies in `struct stat`.
#[cfg(target_arch = "x86_64")]
pub const STAT_MODE_AT: usize = 24;
#[cfg(target_arch = "aarch64")]
pub const STAT_MODE_AT: usize = 16;
/// Where `stx_mode`, 16 bits, lies in `struct statx`.
pub const STATX_MODE_AT: usize = 28;

pub const EBADF: u32 = 9;
pub const EACCES: u32 = 13;
pub const EFAULT: u32 = 14;
pub const EINVAL: u32 = 22;
pub const E2BIG: u32 = 7;
pub const ENOSYS: u32 = 38;
pub const ENOTSOCK: u32 = 88;
pub const X_OK: usize = 1;
pub const R_OK: usize = 4;
pub const PATH_MAX: usize = 4096;

/// Memory that the kernel or [`append`] fills.
pub type Room<const N: usize> = [MaybeUninit<u8>; N];

pub const fn room<const N: usize>() -> Room<N> {
    [MaybeUninit::uninit(); N]
}

unsafe extern "C" {
    pub static mut environ: *mut *const c_char;
    fn __errno_location() -> *mut c_int;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    asm!("syscall", inlateout("rax") number as isize => result,
        in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
        lateout("rcx") _, lateout("r11") _, options(nostack));
    result
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn syscall(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => result,
        in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    result
}

pub unsafe fn getpid() -> u32 {
    syscall(number::GETPID, [0; 6]) as u32
}

pub unsafe fn getppid() -> u32 {
    syscall(number::GETPPID, [0; 6]) as u32
}

/// Ends this process when its parent ends.
pub unsafe fn die_with_parent() {
    const PR_SET_PDEATHSIG: usize = 1;
    const SIGKILL: usize = 9;
    syscall(number::PRCTL, [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0]);
}

pub unsafe fn exit_group(status: c_int) -> ! {
    loop {
        syscall(number::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]);
    }
}

/// A descriptor, or a negative error number.
pub unsafe fn openat(dir: c_int, path: *const c_char, flags: c_int) -> isize {
    syscall(number::OPENAT, [dir as usize, path as usize, flags as usize, 0, 0, 0])
}

pub unsafe fn close(fd: isize) {
    syscall(number::CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
}

/// The part of `room` that was filled; empty on failure.
pub unsafe fn read<const N: usize>(fd: isize, room: &mut Room<N>) -> &[u8] {
    let n = syscall(number::READ, [fd as usize, room.as_mut_ptr() as usize, N, 0, 0, 0]);
    filled(room, n)
}

/// The part of `room` that was filled from so far into the file; empty on failure.
pub unsafe fn pread<const N: usize>(fd: isize, room: &mut Room<N>, at: u64) -> &[u8] {
    let n = syscall(number::PREAD, [fd as usize, room.as_mut_ptr() as usize, N, at as usize, 0, 0]);
    filled(room, n)
}

/// Empty on failure.
pub unsafe fn readlink<const N: usize>(path: *const c_char, room: &mut Room<N>) -> &[u8] {
    let n = syscall(number::READLINKAT, [AT_FDCWD as usize, path as usize, room.as_mut_ptr() as usize, N, 0, 0]);
    filled(room, n)
}

/// Empty on failure. The kernel's length counts the NUL.
pub unsafe fn getcwd<const N: usize>(room: &mut Room<N>) -> &[u8] {
    let n = syscall(number::GETCWD, [room.as_mut_ptr() as usize, N, 0, 0, 0, 0]);
    filled(room, n - 1)
}

unsafe fn filled<const N: usize>(room: &Room<N>, n: isize) -> &[u8] {
    core::slice::from_raw_parts(room.as_ptr().cast(), n.clamp(0, N as isize) as usize)
}

/// The error number of asking for `mode`; 0 where it is granted.
pub unsafe fn access(path: *const c_char, mode: usize) -> u32 {
    -syscall(number::FACCESSAT, [AT_FDCWD as usize, path as usize, mode, 0, 0, 0]) as u32
}

/// What the kernel tells of a file; none where it tells nothing.
unsafe fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: usize) -> Option<Room<256>> {
    let mut told = room();
    let at = [dir as usize, path as usize, flags as usize, mask, told.as_mut_ptr() as usize, 0];
    (syscall(number::STATX, at) == 0).then_some(told)
}

unsafe fn number_at(told: &Room<256>, at: usize) -> u64 {
    told.as_ptr().add(at).cast::<u64>().read_unaligned()
}

const STX_INO: usize = 0x100;
const INODE_AT: usize = 32;
const DEVICE_AT: usize = 136;

/// What was opened.
pub enum Opened {
    /// A file or directory, with the number of its inode; 0 where that is not known.
    File(u64),
    /// A pipe or socket, with the number of its inode.
    Stream(u64),
    /// A device, with its number.
    Device(u32, u32),
}

pub unsafe fn opened(fd: c_int) -> Opened {
    const STX_TYPE: usize = 1;
    const DEVICE_AT: usize = 128;
    let Some(told) = statx(fd, c"".as_ptr(), AT_EMPTY_PATH, STX_TYPE | STX_INO) else { return Opened::File(0) };
    let inode = number_at(&told, INODE_AT);
    match mode_of(&told) & 0o170000 {
        0o010000 | 0o140000 => Opened::Stream(inode),
        0o020000 | 0o060000 => {
            let device = number_at(&told, DEVICE_AT);
            Opened::Device(device as u32, (device >> 32) as u32)
        }
        _ => Opened::File(inode),
    }
}

/// Which file is open, or the one at `path` in `dir` where that is not empty; zeros where there is none.
pub unsafe fn identity(dir: c_int, path: *const c_char) -> [u64; 2] {
    let Some(told) = statx(dir, path, AT_EMPTY_PATH, STX_INO) else { return [0; 2] };
    // The device's two halves, joined as C libraries do for `st_dev`.
    let halves = number_at(&told, DEVICE_AT);
    let (major, minor) = (halves & 0xffff_ffff, halves >> 32);
    let device = (major & !0xfff) << 32 | (major & 0xfff) << 8 | (minor & !0xff) << 12 | minor & 0xff;
    [device, number_at(&told, INODE_AT)]
}

/// Where this process's paths begin: inode and mount.
pub unsafe fn root() -> [u64; 2] {
    const STX_MNT_ID: usize = 0x1000;
    const MOUNT_AT: usize = 144;
    let told = statx(AT_FDCWD, c"/".as_ptr(), 0, STX_INO | STX_MNT_ID);
    told.map_or([0; 2], |told| [number_at(&told, INODE_AT), number_at(&told, MOUNT_AT)])
}

unsafe fn mode_of(told: &Room<256>) -> u16 {
    told.as_ptr().add(STATX_MODE_AT).cast::<u16>().read_unaligned()
}

pub unsafe fn is_directory(path: *const c_char) -> bool {
    statx(AT_FDCWD, path, 0, 1).is_some_and(|told| mode_of(&told) & 0o170000 == 0o040000)
}

/// Readable and writable memory: of a file, shared, or fresh where `fd` is negative. Null on failure.
pub unsafe fn map(length: usize, fd: isize) -> *mut u8 {
    let flags = if fd < 0 { 0x22 } else { 0x01 };
    let at = syscall(number::MMAP, [0, length, 3, flags, fd as usize, 0]);
    if (-4095..0).contains(&at) { core::ptr::null_mut() } else { at as *mut u8 }
}

/// Fresh memory of one page that reads as zeros in a forked child. Null where the kernel has no such thing.
pub unsafe fn map_wiped_on_fork() -> *mut u8 {
    const MADV_WIPEONFORK: usize = 18;
    const PAGE: usize = 4096;
    let at = map(PAGE, -1);
    if !at.is_null() && syscall(number::MADVISE, [at as usize, PAGE, MADV_WIPEONFORK, 0, 0, 0]) != 0 {
        unmap(at, PAGE);
        return core::ptr::null_mut();
    }
    at
}

pub unsafe fn unmap(at: *mut u8, length: usize) {
    syscall(number::MUNMAP, [at as usize, length, 0, 0, 0, 0]);
}

/// Seconds and nanoseconds.
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int {
    syscall(number::CLOCK_GETTIME, [clock as usize, time as usize, 0, 0, 0, 0]) as c_int
}

pub unsafe fn errno() -> u32 {
    *__errno_location() as u32
}

pub unsafe fn set_errno(value: u32) {
    *__errno_location() = value as c_int;
}

/// A C string's bytes; none for null.
#[inline(never)]
pub unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    let mut length = 0;
    // Byte by byte up to a word's boundary, then by words: those never reach into a page that the string does not.
    while !(text as usize + length).is_multiple_of(8) && *text.add(length) != 0 {
        length += 1;
    }
    if (text as usize + length).is_multiple_of(8) {
        const LOW: u64 = u64::from_ne_bytes([1; 8]);
        loop {
            let word = text.add(length).cast::<u64>().read();
            let zeros = word.wrapping_sub(LOW) & !word & (LOW << 7);
            if zeros != 0 {
                length += zeros.trailing_zeros() as usize / 8;
                break;
            }
            length += 8;
        }
    }
    core::slice::from_raw_parts(text.cast(), length)
}

#[inline(never)]
pub fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.len() >= prefix.len() && text.iter().zip(prefix).all(|(a, b)| a == b)
}

#[inline(never)]
pub fn contains(text: &[u8], byte: u8) -> bool {
    text.iter().any(|&b| b == byte)
}

/// Copies and returns the end of the copy. No `memcpy`: the crate is built without builtins to need no such symbol.
#[inline(never)]
pub unsafe fn append(to: *mut u8, text: &[u8]) -> *mut u8 {
    let (mut i, n) = (0, text.len());
    while i + 8 <= n {
        to.add(i).cast::<u64>().write_unaligned(text.as_ptr().add(i).cast::<u64>().read_unaligned());
        i += 8;
    }
    while i < n {
        *to.add(i) = text[i];
        i += 1;
    }
    to.add(n)
}

/// Makes bytes zero.
#[inline(never)]
pub unsafe fn clear(at: *mut u8, length: usize) {
    for i in 0..length {
        *at.add(i) = 0;
    }
}
