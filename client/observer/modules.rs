//! Which objects the loader has mapped, recorded again whenever that has changed.
//! Does not know when to look: the hooks say.

use crate::real::{Object, dl_iterate_phdr};
use crate::record::Call;
use crate::{session, sys, trace};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How many objects the loader had ever mapped when they were last recorded: never yet. (musl counts from 0.)
static RECORDED: AtomicU64 = AtomicU64::new(u64::MAX);
/// The process that last called the loader itself.
static LOADER: AtomicU32 = AtomicU32::new(0);

/// This process uses the loader, so the loader's lock is no relic from before a fork.
pub unsafe fn uses_loader() {
    LOADER.store(sys::getpid(), Relaxed);
}

/// Records the mapped objects where there are new ones. Nothing is looked at in a forked child that has not used the
/// loader itself: it has what its parent records, and the loader's lock may have been held when it was forked.
pub unsafe fn scan() {
    if !session::ready() || !(session::is_first() || LOADER.load(Relaxed) == sys::getpid()) {
        return;
    }
    let errno = sys::errno();
    let mut adds = 0;
    dl_iterate_phdr(count, (&raw mut adds).cast());
    if RECORDED.swap(adds, Relaxed) != adds {
        let mut first = true;
        dl_iterate_phdr(record, (&raw mut first).cast());
    }
    sys::set_errno(errno);
}

unsafe extern "C" fn count(object: *const Object, _: usize, adds: *mut c_void) -> c_int {
    *adds.cast::<u64>() = (*object).adds;
    1
}

unsafe extern "C" fn record(object: *const Object, _: usize, first: *mut c_void) -> c_int {
    let object = &*object;
    let first = &mut *first.cast::<bool>();
    let (low, high) = object.range();
    let call = Call::begin(low);
    let event = call.event(trace::MODULE).value(high as u64);
    let name = sys::bytes(object.name);
    if *first {
        *first = false;
        let mut room = sys::room::<{ sys::PATH_MAX }>();
        let program = sys::readlink(c"/proc/self/exe".as_ptr(), &mut room);
        event.texts(program, &[]);
    } else if sys::contains(name, b'/') && !object.is_this() {
        event.path(session::here(object.name));
    }
    0
}
