//! Writing records: one call's time, caller and result, its paths made absolute, appended to the shared trace.
//! Does not know which functions there are, nor where the trace comes from.

use crate::{environment, own, session, sys, trace};
use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

/// The mapped trace, and how many bytes of it there are.
static TRACE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
/// The kernel's clock: called without the C library, whose clock a preloaded library may have replaced.
static CLOCK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
const REALTIME_COARSE: c_int = 5;

/// Begins to write to the trace at `path`.
pub unsafe fn open(path: *const c_char) -> bool {
    let fd = sys::openat(sys::AT_FDCWD, path, sys::O_RDWR | sys::O_CLOEXEC);
    if fd < 0 {
        return false;
    }
    let mut room = sys::room::<{ trace::HEADER_LEN }>();
    let header = sys::read(fd, &mut room);
    let mut at = core::ptr::null_mut();
    let mut capacity = 0;
    if header.len() == trace::HEADER_LEN && sys::starts_with(header, &trace::MAGIC) {
        capacity = header.as_ptr().add(trace::CAPACITY_AT).cast::<u64>().read_unaligned() as usize;
        at = sys::map(capacity, fd);
    }
    sys::close(fd);
    CAPACITY.store(capacity, Relaxed);
    TRACE.store(at, Relaxed);
    #[cfg(target_arch = "x86_64")]
    let name = "__vdso_clock_gettime";
    #[cfg(target_arch = "aarch64")]
    let name = "__kernel_clock_gettime";
    let kernel = crate::real::auxiliary(33) as usize;
    let found = if kernel == 0 { None } else { crate::real::find_in_kernel(kernel, name) };
    CLOCK.store(found.unwrap_or(sys::clock_gettime as *const () as usize) as *mut (), Relaxed);
    !at.is_null()
}

unsafe fn now() -> u64 {
    let clock: unsafe extern "C" fn(c_int, *mut [i64; 2]) -> c_int = core::mem::transmute(CLOCK.load(Relaxed));
    let mut time = [0; 2];
    clock(REALTIME_COARSE, &mut time);
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

/// A call about to be made.
pub struct Call {
    /// 0 where nothing is recorded.
    time: u64,
    caller: usize,
}

/// A path as given: to be joined to a directory where it is relative.
#[derive(Clone, Copy)]
pub struct At(pub c_int, pub *const c_char);

/// What happened, without its texts.
pub struct Event<'a> {
    call: &'a Call,
    kind: u16,
    flags: u16,
    errno: u32,
    value: u64,
}

impl Call {
    #[inline(always)]
    pub unsafe fn begin(caller: usize) -> Call {
        Call { time: if session::ready() { now() } else { 0 }, caller }
    }

    /// A start of another program. It is recorded even of a process that is left alone otherwise, because what that
    /// becomes is watched again; unless it hands on a trace of its own.
    pub unsafe fn starting(caller: usize, environment: *const *const c_char) -> Call {
        let recorded = session::ready() || session::is_exempt() && !environment::has_trace(environment);
        Call { time: if recorded { now() } else { 0 }, caller }
    }

    #[inline(always)]
    pub fn recorded(&self) -> bool {
        self.time != 0
    }

    pub fn event(&self, kind: u16) -> Event<'_> {
        Event { call: self, kind, flags: 0, errno: 0, value: 0 }
    }
}

/// The error number of a call that has just been made; 0 where it succeeded.
#[inline(always)]
pub unsafe fn error(failed: bool) -> u32 {
    if failed { sys::errno() } else { 0 }
}

impl Event<'_> {
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub fn errno(mut self, errno: u32) -> Self {
        self.errno = errno;
        self
    }

    pub fn value(mut self, value: u64) -> Self {
        self.value = value;
        self
    }

    /// Records a path. An empty one names nothing, nor does one that the kernel could not read, or in no directory.
    pub unsafe fn path(&self, a: At) {
        self.path_and(a, &[]);
    }

    /// Records a path and, in parts, what belongs to it.
    #[inline(never)]
    pub unsafe fn path_and(&self, a: At, b: &[&[u8]]) {
        if self.call.time == 0 || matches!(self.errno, sys::EBADF | sys::EFAULT) {
            return;
        }
        let path = sys::bytes(a.1);
        match path.first() {
            None => {}
            Some(b'/') if own::may_be(path) => self.through_own(path, b),
            Some(b'/') => self.write(&[path], b),
            Some(_) => self.relative(a.0, path, b),
        }
    }

    #[inline(never)]
    unsafe fn through_own(&self, path: &[u8], b: &[&[u8]]) {
        let mut room = sys::room();
        // Who reads a link, or looks at it, does not follow it.
        let looks = self.kind == trace::READLINK || self.flags & trace::NOFOLLOW != 0;
        let (directory, rest) = own::resolved(path, looks, &mut room);
        self.write(&[directory, slash(directory, rest), rest], b);
    }

    #[inline(never)]
    unsafe fn relative(&self, dir: c_int, path: &[u8], b: &[&[u8]]) {
        let mut room = sys::room();
        let dir = directory(dir, &mut room);
        self.write(&[dir, slash(dir, path), path], b);
    }

    /// Records an open descriptor's path.
    pub unsafe fn descriptor(&self, fd: c_int) {
        self.descriptor_and(fd, &[]);
    }

    /// Records an open descriptor's path and, in parts, what belongs to it.
    #[inline(never)]
    pub unsafe fn descriptor_and(&self, fd: c_int, b: &[&[u8]]) {
        let mut room = sys::room();
        let path = directory(fd, &mut room);
        if self.call.time != 0 && !path.is_empty() {
            self.write(&[path], b);
        }
    }

    /// Records two paths.
    #[inline(never)]
    pub unsafe fn paths(&self, a: At, b: At) {
        if self.call.time == 0 {
            return;
        }
        let (mut a_room, mut b_room) = (sys::room(), sys::room());
        let (a, a_path) = parts(a, &mut a_room);
        let (b, b_path) = parts(b, &mut b_room);
        self.write(&[a, slash(a, a_path), a_path], &[b, slash(b, b_path), b_path]);
    }

    pub unsafe fn texts(&self, a: &[u8], b: &[u8]) {
        self.text_and(a, &[b]);
    }

    #[inline(never)]
    pub unsafe fn text_and(&self, a: &[u8], b: &[&[u8]]) {
        if self.call.time != 0 {
            self.write(&[a], b);
        }
    }

    #[inline(never)]
    unsafe fn write(&self, a: &[&[u8]], b: &[&[u8]]) {
        let a_len: usize = a.iter().map(|part| part.len()).sum();
        let b_len: usize = b.iter().map(|part| part.len()).sum();
        let length = (trace::RECORD_LEN + a_len + b_len + 7) & !7;
        let base = TRACE.load(Relaxed);
        let capacity = CAPACITY.load(Relaxed);
        let cursor = &*base.add(trace::CURSOR_AT).cast::<AtomicU64>();
        let at = cursor.fetch_add(length as u64, Relaxed) as usize;
        if at > capacity || capacity - at < length {
            (*base.add(trace::LOST_AT).cast::<AtomicU64>()).store(1, Relaxed);
            return;
        }
        let record = base.add(at);
        record.add(4).cast::<u16>().write(self.kind);
        record.add(6).cast::<u16>().write(self.flags);
        // What becomes of a process is told by its own number, even where it runs in its parent's memory.
        let lives = matches!(self.kind, trace::START | trace::EXEC | trace::EXEC_FAILED | trace::SPAWN | trace::EXIT);
        record.add(8).cast::<u32>().write(if lives { sys::getpid() } else { session::pid() });
        record.add(12).cast::<u32>().write(self.errno);
        record.add(16).cast::<u64>().write(self.call.time);
        record.add(24).cast::<u64>().write(self.call.caller as u64);
        record.add(32).cast::<u64>().write(self.value);
        record.add(40).cast::<u32>().write(a_len as u32);
        record.add(44).cast::<u32>().write(b_len as u32);
        let mut end = record.add(trace::RECORD_LEN);
        for part in a.iter().chain(b) {
            end = sys::append(end, part);
        }
        (*record.cast::<AtomicU32>()).store(length as u32, Release);
    }
}

type Room = sys::Room<{ sys::PATH_MAX }>;

/// A directory's path; empty where it cannot be known, so that the record's path stays relative.
#[inline(never)]
unsafe fn directory(fd: c_int, room: &mut Room) -> &[u8] {
    let path = if fd == sys::AT_FDCWD { sys::getcwd(room) } else { sys::readlink(link_to(fd, &mut sys::room()), room) };
    // A directory outside the root reads "(unreachable)/…", a pipe "pipe:[1]".
    if path.first() == Some(&b'/') { path } else { &[] }
}

/// The name under which a process finds its own descriptor.
pub unsafe fn link_to(fd: c_int, room: &mut sys::Room<32>) -> *const c_char {
    let start = room.as_mut_ptr().cast::<u8>();
    let mut end = sys::append(start, b"/proc/self/fd/");
    let mut unit = 1_000_000_000;
    while unit > 1 && fd < unit {
        unit /= 10;
    }
    while unit > 0 {
        *end = b'0' + (fd / unit % 10) as u8;
        end = end.add(1);
        unit /= 10;
    }
    *end = 0;
    start.cast()
}

/// A path as what makes it absolute, without the slash, and the rest.
unsafe fn parts<'a>(path: At, room: &'a mut Room) -> (&'a [u8], &'a [u8]) {
    let text = sys::bytes(path.1);
    if text.first() == Some(&b'/') { own::resolved(text, true, room) } else { (directory(path.0, room), text) }
}

fn slash(prefix: &[u8], path: &[u8]) -> &'static [u8] {
    if prefix.len() > 1 && !path.is_empty() { b"/" } else { b"" }
}
