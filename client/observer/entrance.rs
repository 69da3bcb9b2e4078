//! A compiler that was started past the guide, by a static program or from a directory that was not known: the guide
//! finds itself in it, before it has begun, and has the client take its place. Decides nothing that `redirect` does not decide.

use crate::driver::{self, Driver};
use crate::environment::{Merged, Share};
use crate::exec::become_client;
use crate::program::{Program, space};
use crate::redirect::{self, Redirect};
use crate::session::here;
use crate::{image, real, sys};
use core::ffi::c_char;

/// Returns where this program is no compiler, or cannot be led.
#[cold]
#[inline(never)]
pub unsafe fn give_way() {
    let mut room = sys::room::<{ sys::PATH_MAX }>();
    let length = sys::readlink(c"/proc/self/exe".as_ptr(), &mut room).len();
    if !redirect::is_on() || length == 0 || length == room.len() {
        return;
    }
    let start = room.as_mut_ptr().cast::<u8>();
    *start.add(length) = 0;
    let program = core::slice::from_raw_parts(start, length);
    if Driver::of(driver::file_name(program)).is_none() {
        return;
    }
    let Some(arguments) = arguments() else { return };
    let mut space = space();
    let program = Program::named(here(called(program)), &mut space);
    let mut redirect = Redirect::empty();
    if let Some(stand_in) = redirect.stand_in(&program, arguments) {
        let mut merged = Merged::empty();
        become_client(&stand_in, merged.build(sys::environ, Share::Variables));
        merged.release();
        redirect.release();
    }
}

/// The path by which this program was started, where that still leads to it: a link's name counts.
unsafe fn called(program: &[u8]) -> *const c_char {
    const AT_EXECFN: usize = 31;
    let path = real::auxiliary(AT_EXECFN) as *const c_char;
    let mut room = sys::room();
    let is_it = !path.is_null() && {
        let (real, _) = image::real(path, &mut room);
        real.len() == program.len() && sys::starts_with(real, program)
    };
    if is_it { path } else { program.as_ptr().cast() }
}

/// The arguments, as the kernel left them below the environment: not every C library tells a constructor.
unsafe fn arguments() -> Option<*const *const c_char> {
    let environment = sys::environ;
    if environment.is_null() || !(*environment.sub(1)).is_null() {
        return None;
    }
    let end = environment.sub(1);
    // The number of arguments stands before the first of them.
    let first = (1..1 << 20).find(|&count| *end.sub(count + 1) as usize == count)?;
    Some(end.sub(first).cast_const())
}
