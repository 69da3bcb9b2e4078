//! Redirection: a compiler that a program of the build is about to start gives way to zcache's client, which gets the
//! compiler's file, the name it was called by and its arguments. Decides what is a compiler and what its start becomes;
//! does not start it.
//!
//! Why here: whoever names a compiler, by PATH or by an absolute path that a build system wrote down, ends in one of a
//! few functions of the C library. What the build sees (PATH, CC, RUSTC_WRAPPER, the files it configures) stays as it
//! is, so it decides as it would without zcache, and what it writes down names nothing of ours.
//!
//! Whatever is in doubt is left alone: the program then starts as it would have, and is not cached.

use crate::driver::{self, Driver};
use crate::environment::Share;
use crate::image::{self, Image};
use crate::program::Program;
use crate::record::{At, link_to};
use crate::{session, sys};
use core::ffi::c_char;
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

type Texts = *const *const c_char;

/// The client's path; null where nothing is redirected.
static CLIENT: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

/// The client's own name, by which it knows that it is called in another program's place.
const NAME: &core::ffi::CStr = c"zcache-client";
/// What it is told then, before the program's file.
const IN_PLACE_OF: &core::ffi::CStr = c"--in-place-of";
/// zcache's own programs.
const OWN: [&[u8]; 3] = [b"zcache", b"zcached", b"zcache-client"];

/// Takes in the variable: the client's path, and more lines that are the client's business.
pub unsafe fn begin(variable: &[u8]) {
    if variable.len() <= session::GUIDE.len() {
        return;
    }
    let value = &variable[session::GUIDE.len()..];
    let client = value.split(|&byte| byte == b'\n').next().unwrap_or_default();
    CLIENT.store(session::keep(&[client]), Relaxed);
}

/// This process starts compilers itself.
pub fn end() {
    CLIENT.store(null_mut(), Relaxed);
}

pub fn is_on() -> bool {
    !CLIENT.load(Relaxed).is_null()
}

/// Room for the arguments of most starts, and for the path of a program that is named by a descriptor. It lies on the
/// stack, so that a vforked child leaves nothing behind; only very many arguments are mapped.
pub struct Redirect {
    pointers: MaybeUninit<[*const c_char; FEW]>,
    path: Room,
    mapped: (*mut u8, usize),
}

const FEW: usize = 512;

type Room = sys::Room<{ sys::PATH_MAX }>;

/// What is started in a compiler's place.
pub struct StandIn {
    pub client: *const c_char,
    pub arguments: Texts,
}

impl Redirect {
    /// Room for [`Redirect::stand_in`].
    pub const fn empty() -> Redirect {
        Redirect { pointers: MaybeUninit::uninit(), path: sys::room(), mapped: (null_mut(), 0) }
    }

    /// What to start in the place of `program`; none where that is to be started itself. Valid until `release`.
    #[inline(never)]
    pub unsafe fn stand_in(&mut self, program: &Program, arguments: Texts) -> Option<StandIn> {
        let client = CLIENT.load(Relaxed);
        if client.is_null() || !program.is_entered() || arguments.is_null() || (*arguments).is_null() {
            return None;
        }
        let path = path_of(program.file(), &mut self.path)?;
        let driver = Driver::of(driver::file_name(sys::bytes(path)))?;
        if !is_called_as(driver, path, arguments) || !is_compiler(path, client) || sys::access(client, sys::X_OK) != 0 {
            return None;
        }
        Some(StandIn { client, arguments: self.arguments(path, arguments)? })
    }

    pub unsafe fn release(&mut self) {
        if !self.mapped.0.is_null() {
            sys::unmap(self.mapped.0, self.mapped.1);
        }
    }

    /// `zcache-client --in-place-of FILE NAME ARGUMENT…`
    unsafe fn arguments(&mut self, path: *const c_char, given: Texts) -> Option<Texts> {
        let mut count = 0;
        while !(*given.add(count)).is_null() {
            count += 1;
        }
        let length = (count + 4) * size_of::<*const c_char>();
        let array = if count + 4 <= FEW {
            self.pointers.as_mut_ptr().cast::<*const c_char>()
        } else {
            self.mapped = (sys::map(length, -1), length);
            self.mapped.0.cast()
        };
        if array.is_null() {
            return None;
        }
        *array = NAME.as_ptr();
        *array.add(1) = IN_PLACE_OF.as_ptr();
        *array.add(2) = path;
        for i in 0..=count {
            *array.add(3 + i) = *given.add(i);
        }
        Some(array)
    }
}

/// The path by which another process finds the file: it may be a descriptor, or relative to one.
unsafe fn path_of(file: At, room: &mut Room) -> Option<*const c_char> {
    let At(dir, path) = file;
    let text = sys::bytes(path);
    if text.first() == Some(&b'/') || dir == sys::AT_FDCWD {
        return (!text.is_empty()).then_some(path);
    }
    let length = sys::readlink(link_to(dir, &mut sys::room()), room).len();
    let start = room.as_mut_ptr().cast::<u8>();
    if length == 0 || *start != b'/' || length + 1 + text.len() >= room.len() {
        return None;
    }
    let mut end = start.add(length);
    if !text.is_empty() {
        *end = b'/';
        end = sys::append(end.add(1), text);
    }
    *end = 0;
    let path = start.cast::<c_char>().cast_const();
    // What was open may have lost its name.
    let is_there = !text.is_empty() || sys::identity(dir, c"".as_ptr()) == sys::identity(sys::AT_FDCWD, path);
    is_there.then_some(path)
}

/// Whether the name and the arguments that it is given are those of a compiler of this family. zig does much else.
unsafe fn is_called_as(driver: Driver, path: *const c_char, arguments: Texts) -> bool {
    let called = Driver::of(driver::file_name(sys::bytes(*arguments)));
    let is_zig = sys::starts_with(driver::file_name(sys::bytes(path)), b"zig");
    let verb = sys::bytes(*arguments.add(1));
    called.is_none_or(|called| called == driver) && (!is_zig || is(verb, b"cc") || is(verb, b"c++"))
}

/// Whether the file is a program that runs, and neither zcache's own nor one that stands before compilers: another
/// cache's link is left to that cache, whose own start of the compiler comes here, and rustup's to rustup.
unsafe fn is_compiler(path: *const c_char, client: *const c_char) -> bool {
    if sys::access(path, sys::X_OK) != 0 {
        return false;
    }
    let mut room = sys::room();
    let (real, identity) = image::real(path, &mut room);
    let name = driver::file_name(real);
    let stands_before = driver::is_cache(name) || is(name, b"rustup") || is(name, b"zcache-client");
    if name.is_empty() || stands_before || is_client(identity, client) {
        return false;
    }
    matches!(image::of(At(sys::AT_FDCWD, path)), Image::Dynamic | Image::Static | Image::Script)
}

/// Whether a file is the client under another name.
unsafe fn is_client(identity: [u64; 2], client: *const c_char) -> bool {
    identity == sys::identity(sys::AT_FDCWD, client)
}

fn is(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && sys::starts_with(name, other)
}

/// What of ours `program` is given. The observer is in every program that it can be in, the guide only where it has
/// something to do and does no harm.
#[inline(never)]
pub unsafe fn share(program: &Program) -> Share {
    if crate::OBSERVES {
        return if program.is_entered() { Share::All } else { Share::Variables };
    }
    let client = CLIENT.load(Relaxed);
    if client.is_null() || !program.is_entered() {
        return Share::Nothing;
    }
    let (mut path, mut room) = (sys::room(), sys::room());
    let Some(path) = path_of(program.file(), &mut path) else { return Share::Nothing };
    let (real, identity) = image::real(path, &mut room);
    let name = driver::file_name(real);
    if OWN.iter().any(|own| is(name, own)) || is_client(identity, client) {
        return Share::Variables;
    }
    // A server outlives the build, and would go on for other builds.
    if driver::is_served(name) || !is_loadable() {
        return Share::Nothing;
    }
    match image::of(At(sys::AT_FDCWD, path)) {
        // A static program shows what it is given, and hands it on to programs that can be entered again.
        Image::Dynamic | Image::Script | Image::Static => Share::All,
        Image::Averse | Image::Unknown => Share::Nothing,
    }
}

/// Whether the loader could open this library: as another user it might not, and would say so. What a process may do by
/// a capability that the next program does not have, `access` leaves out.
unsafe fn is_loadable() -> bool {
    let preload = session::hidden().preload;
    if preload.is_null() {
        return false;
    }
    let own = preload.add(session::PRELOAD.len());
    let fd = sys::openat(sys::AT_FDCWD, own, sys::O_CLOEXEC);
    if fd >= 0 {
        sys::close(fd);
    }
    fd >= 0 && sys::access(own, sys::R_OK) == 0
}

/// What a client that was loaded with this library in it needs to know of the guide: the variable's value, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn zcache_observer_guide() -> *const c_char {
    let guide = session::hidden().guide;
    if guide.is_null() { null() } else { guide.add(session::GUIDE.len()) }
}
