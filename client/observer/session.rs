//! One process's part in an observation: how it begins, what of the environment is hidden from the program and kept for
//! the programs it starts, and whether anything is recorded. Does not know the functions that are watched.

use crate::record::{At, Call};
use crate::{modules, real, record, redirect, sys, trace};
use core::ffi::c_char;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

const NEW: u32 = 0;
const BEGINNING: u32 = 1;
const RECORDING: u32 = 2;
const SILENT: u32 = 3;
/// As silent, but for the programs that it starts.
const EXEMPT: u32 = 4;
static STATE: AtomicU32 = AtomicU32::new(NEW);

/// The process that began; a forked child has another number.
static PID: AtomicU32 = AtomicU32::new(0);

static OWN_PID: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

pub const TRACE: &[u8] = b"ZCACHE_TRACE=";
pub const PARENT: &[u8] = b"ZCACHE_PARENT=";
pub const GUIDE: &[u8] = b"ZCACHE_GUIDE=";
pub const PRELOAD: &[u8] = b"LD_PRELOAD=";

/// What programs started from here are to be given: whole variables, or null.
pub struct Hidden {
    pub trace: *const c_char,
    pub parent: *const c_char,
    pub guide: *const c_char,
    /// `LD_PRELOAD` with nothing but this library.
    pub preload: *const c_char,
}

static HIDDEN: [AtomicPtr<c_char>; 4] = [const { AtomicPtr::new(null_mut()) }; 4];

pub fn hidden() -> Hidden {
    let [trace, parent, guide, preload] = &HIDDEN;
    Hidden {
        trace: trace.load(Relaxed),
        parent: parent.load(Relaxed),
        guide: guide.load(Relaxed),
        preload: preload.load(Relaxed),
    }
}

/// Whether calls are recorded. Begins where nothing has begun yet, since other libraries' constructors may run first.
#[inline(always)]
pub unsafe fn ready() -> bool {
    match STATE.load(Acquire) {
        RECORDING => true,
        NEW => {
            begin(null_mut());
            STATE.load(Acquire) == RECORDING
        }
        _ => false,
    }
}

/// Whether starts of programs are recorded, and nothing else.
pub fn is_exempt() -> bool {
    STATE.load(Acquire) == EXEMPT
}

/// Stops recording in this process and its forks.
unsafe fn exempt() {
    if ready() {
        STATE.store(EXEMPT, Release);
    }
}

/// This process's number, kept where a fork finds it wiped. A vforked child gets its parent's, whose program it runs.
pub unsafe fn pid() -> u32 {
    let page = OWN_PID.load(Relaxed);
    if page.is_null() {
        return sys::getpid();
    }
    let known = (*page).load(Relaxed);
    if known != 0 {
        return known;
    }
    let pid = sys::getpid();
    (*page).store(pid, Relaxed);
    pid
}

/// Whether this is the process that began, not a fork of it.
pub unsafe fn is_first() -> bool {
    PID.load(Relaxed) == sys::getpid()
}

/// Where paths began when this program did.
static ROOT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Whether paths lead to other files by now: the process has gone to another root or mount namespace.
pub unsafe fn is_away() -> bool {
    let first = [ROOT[0].load(Relaxed), ROOT[1].load(Relaxed)];
    first[0] != 0 && sys::root() != first
}

/// `environment` serves where the C library has none yet.
#[cold]
#[inline(never)]
pub unsafe fn begin(environment: *mut *const c_char) {
    if STATE.compare_exchange(NEW, BEGINNING, AcqRel, Relaxed).is_err() {
        return;
    }
    let errno = sys::errno();
    real::find_all();
    let environment = if sys::environ.is_null() { environment } else { sys::environ };
    if environment.is_null() {
        STATE.store(NEW, Release);
        sys::set_errno(errno);
        return;
    }
    let mut own: *const c_char = null();
    real::dl_iterate_phdr(find_own_path, (&raw mut own).cast());
    keep_preload(sys::bytes(own));
    match crate::OBSERVES {
        true => hide(environment),
        // A build's programs may look at what the kernel shows, which compilers do not.
        false => take_out(environment, clear),
    }
    let trace = hidden().trace;
    let recording = !trace.is_null() && record::open(trace.add(TRACE.len()));
    PID.store(sys::getpid(), Relaxed);
    redirect::begin(sys::bytes(hidden().guide));
    if recording {
        OWN_PID.store(sys::map_wiped_on_fork().cast(), Relaxed);
    }
    if recording || redirect::is_on() {
        let [inode, mount] = sys::root();
        ROOT[0].store(inode, Relaxed);
        ROOT[1].store(mount, Relaxed);
    }
    STATE.store(if recording { RECORDING } else { SILENT }, Release);
    if recording {
        let mut room = sys::room::<{ sys::PATH_MAX }>();
        let program = sys::readlink(c"/proc/self/exe".as_ptr(), &mut room);
        end_with_parent(program, sys::bytes(trace.add(TRACE.len())));
        let identity = trace::identity_bytes(sys::identity(sys::AT_FDCWD, c"/proc/self/exe".as_ptr()));
        Call::begin(0).event(trace::START).value(sys::getppid() as u64).texts(program, &identity);
        modules::scan();
    }
    sys::set_errno(errno);
}

/// A compiler must not outlive the client that stands for it, since the build believes it gone, nor the driver that waits
/// for it. `trace` is `/proc/<client>/fd/<number>`.
unsafe fn end_with_parent(program: &[u8], trace: &[u8]) {
    let digits = trace.split(|&byte| byte == b'/').nth(2).unwrap_or_default();
    let client =
        digits.iter().fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(digit.wrapping_sub(b'0') as u32));
    let name = program.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    // An assembler that is fed through a pipe takes the end of a killed compiler for the end of its source.
    let assembler = name.split(|&byte| byte == b'-').next_back() == Some(b"as");
    if sys::getppid() == client || sys::starts_with(name, b"cc1") || assembler {
        sys::die_with_parent();
    }
}

unsafe extern "C" fn find_own_path(
    object: *const real::Object,
    _: usize,
    found: *mut core::ffi::c_void,
) -> core::ffi::c_int {
    let is_this = (*object).is_this();
    if is_this {
        *found.cast::<*const c_char>() = (*object).name;
    }
    is_this as _
}

unsafe fn keep_preload(own: &[u8]) {
    if !own.is_empty() {
        HIDDEN[3].store(keep(&[PRELOAD, own]), Relaxed);
    }
}

/// Takes our variables out of `environment`, in place, as if they had never been there, and keeps them.
pub unsafe fn hide(environment: *mut *const c_char) {
    take_out(environment, |_, _| {});
}

/// The same, with `wipe` for each variable, and how much of it was there without us.
unsafe fn take_out(environment: *mut *const c_char, wipe: impl Fn(&[u8], usize)) {
    let (mut from, mut to) = (environment, environment);
    while !(*from).is_null() {
        let variable = sys::bytes(*from);
        *to = *from;
        from = from.add(1);
        let place = [TRACE, PARENT, GUIDE].iter().position(|name| sys::starts_with(variable, name));
        if let Some(place) = place {
            keep_first(&HIDDEN[place], variable);
            wipe(variable, 0);
        } else if let Some((before, after)) = around_own(variable) {
            // Where this library stands first, the separator behind it goes with it.
            let is_first = before.len() == PRELOAD.len() && !is_separator(variable[before.len()]);
            if is_first && after.is_empty() {
                wipe(variable, 0);
                continue;
            }
            let after = if is_first { &after[1..] } else { after };
            *to = keep(&[before, after]);
            to = to.add(1);
            wipe(variable, if after.is_empty() { before.len() } else { variable.len() });
        } else {
            to = to.add(1);
        }
    }
    *to = null();
}

/// Clears what `/proc/self/environ` would show of a variable, which stands where the kernel put it.
fn clear(variable: &[u8], from: usize) {
    // SAFETY: the kernel made it writable, and nobody else looks at it before the program has begun.
    unsafe { sys::clear(variable.as_ptr().cast_mut().add(from), variable.len() - from) }
}

unsafe fn keep_first(place: &AtomicPtr<c_char>, variable: &[u8]) {
    if place.load(Relaxed).is_null() {
        place.store(keep(&[variable]), Relaxed);
    }
}

/// What stands before and after this library in an `LD_PRELOAD` that has it: the variable up to the separator before
/// it, and the rest from the separator after it.
pub unsafe fn around_own(variable: &[u8]) -> Option<(&[u8], &[u8])> {
    let preload = sys::bytes(hidden().preload);
    if preload.is_empty() || !sys::starts_with(variable, PRELOAD) {
        return None;
    }
    let own = &preload[PRELOAD.len()..];
    let mut start = PRELOAD.len();
    loop {
        let rest = &variable[start..];
        let end = rest.iter().position(|&byte| is_separator(byte)).unwrap_or(rest.len());
        if end == own.len() && sys::starts_with(rest, own) {
            let before = if start == PRELOAD.len() { start } else { start - 1 };
            return Some((&variable[..before], &rest[end..]));
        }
        if end == rest.len() {
            return None;
        }
        start += end + 1;
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b' ')
}

/// Texts that live as long as the process. Copies, because programs that rewrite their title overwrite the originals.
struct Store(core::cell::UnsafeCell<[u8; 2048]>);
// SAFETY: every part of it is handed out once.
unsafe impl Sync for Store {}
static STORE: Store = Store(core::cell::UnsafeCell::new([0; 2048]));
static STORED: AtomicUsize = AtomicUsize::new(0);

/// A C string of these parts; null where there is no memory.
pub unsafe fn keep(parts: &[&[u8]]) -> *mut c_char {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + 1;
    let at = STORED.fetch_add(length, Relaxed);
    let start = if at + length <= 2048 {
        STORE.0.get().cast::<u8>().add(at)
    } else {
        STORED.fetch_sub(length, Relaxed);
        sys::map(length, -1)
    };
    if !start.is_null() {
        let end = parts.iter().fold(start, |end, part| sys::append(end, part));
        *end = 0;
    }
    start.cast()
}

/// A variable of the program's present environment.
pub unsafe fn variable(name: &[u8]) -> Option<&'static [u8]> {
    let mut at = sys::environ;
    while !at.is_null() && !(*at).is_null() {
        let text = sys::bytes(*at);
        if sys::starts_with(text, name) && text.get(name.len()) == Some(&b'=') {
            return Some(&text[name.len() + 1..]);
        }
        at = at.add(1);
    }
    None
}

/// A zcache client's first word to us: it reports by itself.
#[unsafe(no_mangle)]
unsafe extern "C" fn zcache_observer_exempt() -> *const c_char {
    let call = Call::begin(0);
    call.event(trace::EXEMPT).texts(&[], &[]);
    exempt();
    redirect::end();
    let parent = hidden().parent;
    if parent.is_null() { null() } else { parent.add(PARENT.len()) }
}

/// The directory-relative form of a path relative to the current directory.
pub const fn here(path: *const c_char) -> At {
    At(sys::AT_FDCWD, path)
}
