//! The environment for a program about to be started: what the caller gives it, and what the observation needs.
//! Does not know the program.

use crate::session::{self, GUIDE, Hidden, PARENT, PRELOAD, TRACE};
use crate::sys;
use core::ffi::c_char;
use core::mem::MaybeUninit;
use core::ptr::null;

const POINTERS: usize = 512;
const TEXT: usize = 1024;

/// A merged environment. It lies on the stack, so that a vforked child leaves nothing behind; only a huge one is mapped.
pub struct Merged {
    pointers: MaybeUninit<[*const c_char; POINTERS]>,
    text: sys::Room<TEXT>,
    array: *const *const c_char,
    mapped: (*mut u8, usize),
}

/// What a program is given of what is kept for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// This library, and the variables that it hides.
    All,
    /// The variables alone: nothing can be loaded into it, or need be.
    Variables,
    /// Nothing: there they would be seen.
    Nothing,
}

/// What merging needs to know first.
struct Survey {
    count: usize,
    has_trace: bool,
    has_parent: bool,
    has_guide: bool,
    /// The last `LD_PRELOAD`, which is the one that the loader heeds.
    preload: Option<usize>,
}

unsafe fn survey(given: *const *const c_char) -> Survey {
    let mut found = Survey { count: 0, has_trace: false, has_parent: false, has_guide: false, preload: None };
    while !given.is_null() && !(*given.add(found.count)).is_null() {
        let variable = sys::bytes(*given.add(found.count));
        found.has_trace |= sys::starts_with(variable, TRACE);
        found.has_parent |= sys::starts_with(variable, PARENT);
        found.has_guide |= sys::starts_with(variable, GUIDE);
        if sys::starts_with(variable, PRELOAD) {
            found.preload = Some(found.count);
        }
        found.count += 1;
    }
    found
}

/// Whether `given` names a trace. Ours is in no environment that the program sees.
pub unsafe fn has_trace(given: *const *const c_char) -> bool {
    survey(given).has_trace
}

impl Merged {
    /// Room for [`Merged::build`], which answers a pointer into it.
    pub const fn empty() -> Merged {
        Merged { pointers: MaybeUninit::uninit(), text: sys::room(), array: null(), mapped: (core::ptr::null_mut(), 0) }
    }

    /// What `given` becomes for a program that gets this share. The answer is valid until `release`.
    #[inline(never)]
    pub unsafe fn build(&mut self, given: *const *const c_char, share: Share) -> *const *const c_char {
        self.array = null();
        self.mapped = (core::ptr::null_mut(), 0);
        if share == Share::Nothing {
            return given;
        }
        let found = survey(given);
        let own = session::hidden();
        let theirs = match found.preload {
            Some(index) => sys::bytes(*given.add(index)),
            None => &[],
        };
        // A trace of its own comes with a preload of its own.
        let set = found.has_trace && found.preload.is_some();
        let preload = share == Share::All && !own.preload.is_null() && !set && session::around_own(theirs).is_none();
        let text_len = if preload { sys::bytes(own.preload).len() + 1 + theirs.len() } else { 0 };
        let Some((array, text)) = self.room(found.count + 5, text_len) else { return given };
        for i in 0..found.count {
            *array.add(i) = *given.add(i);
        }
        let end = add_missing(array.add(found.count), &found, &own);
        match found.preload {
            Some(index) if preload => *array.add(index) = join(text, &own, theirs),
            None if preload => {
                *end = own.preload;
                *end.add(1) = null();
            }
            _ => {}
        }
        self.array = array;
        array
    }

    pub unsafe fn release(&mut self) {
        if !self.mapped.0.is_null() {
            sys::unmap(self.mapped.0, self.mapped.1);
        }
    }

    /// Whether `array` is what was built here.
    pub fn is(&self, array: *const *const c_char) -> bool {
        !array.is_null() && self.array == array
    }

    unsafe fn room(&mut self, pointers: usize, text: usize) -> Option<(*mut *const c_char, *mut u8)> {
        if pointers <= POINTERS && text <= TEXT {
            return Some((self.pointers.as_mut_ptr().cast(), self.text.as_mut_ptr().cast()));
        }
        let length = pointers * size_of::<*const c_char>() + text;
        let at = sys::map(length, -1);
        if at.is_null() {
            return None;
        }
        self.mapped = (at, length);
        let array = at.cast::<*const c_char>();
        Some((array, array.add(pointers).cast()))
    }
}

/// Ends the array at `end` with the variables that it lacks, and a null.
unsafe fn add_missing(mut end: *mut *const c_char, found: &Survey, own: &Hidden) -> *mut *const c_char {
    if !found.has_trace && !own.trace.is_null() {
        *end = own.trace;
        end = end.add(1);
    }
    if !found.has_parent && !own.parent.is_null() {
        *end = own.parent;
        end = end.add(1);
    }
    if !found.has_guide && !own.guide.is_null() {
        *end = own.guide;
        end = end.add(1);
    }
    *end = null();
    end
}

/// This library beside the program's own ones: the observer before them, to see what is called; the guide behind them, to
/// have the last word on what is started. `text` has room for both.
unsafe fn join(text: *mut u8, own: &Hidden, theirs: &[u8]) -> *const c_char {
    let (own, theirs) = (&sys::bytes(own.preload)[PRELOAD.len()..], &theirs[PRELOAD.len()..]);
    let (first, second) = if crate::OBSERVES { (own, theirs) } else { (theirs, own) };
    let mut end = sys::append(sys::append(text, PRELOAD), first);
    // Also where theirs is empty: it was set.
    *end = b':';
    end = sys::append(end.add(1), second);
    *end = 0;
    text.cast()
}
