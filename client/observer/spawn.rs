//! Hooks that start a program as a child, by `posix_spawn` or a shell command line.

use crate::arch::Missing;
use crate::environment::{Merged, Share};
use crate::hook::hook;
use crate::program::{Program, space};
use crate::real::real;
use crate::record::Call;
use crate::redirect::{self, Redirect};
use crate::session::{self, here};
use crate::{modules, sys, trace};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, Ordering::*};

type Texts = *const *const c_char;

real!(POSIX_SPAWN = "posix_spawn");

/// What a child does and is before it becomes the program.
struct Preparation(*const c_void, *const c_void);

impl Preparation {
    /// Whether the child may find another file than is found here: it may go to another directory first.
    unsafe fn moves(&self, program: &Program) -> bool {
        !self.0.is_null() && sys::bytes(program.file().1).first() != Some(&b'/')
    }

    /// What is not here is most likely a program like most where the child goes.
    unsafe fn share(&self, program: &Program) -> Share {
        let is_there = sys::access(program.file().1, 0) == 0;
        if self.moves(program) && !is_there { Share::All } else { redirect::share(program) }
    }
}

/// Starts the client in a compiler's place; answers an error number, also where that is not to be.
unsafe fn start_client(
    call: &Call,
    program: &Program,
    child: *mut c_int,
    preparation: &Preparation,
    arguments: Texts,
    environment: Texts,
) -> c_int {
    type Function =
        unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const c_void, Texts, Texts) -> c_int;
    let &Preparation(actions, attributes) = preparation;
    let address = POSIX_SPAWN.get();
    if address.is_null() || preparation.moves(program) {
        return c_int::MISSING;
    }
    let spawn = core::mem::transmute::<*mut c_void, Function>(address);
    let mut redirect = Redirect::empty();
    let Some(stand_in) = redirect.stand_in(program, arguments) else { return c_int::MISSING };
    call.event(trace::STAT).path(program.file());
    let mut space = space();
    let client = Program::named(here(stand_in.client), &mut space);
    let result = start_program(
        call,
        &client,
        redirect::share(&client),
        child,
        (stand_in.arguments, environment),
        |child, merged| spawn(child, stand_in.client, actions, attributes, stand_in.arguments, merged),
    );
    redirect.release();
    result
}

/// Runs `start` (place for the child's number, environment), which answers an error number.
unsafe fn start_program(
    call: &Call,
    program: &Program,
    share: Share,
    child: *mut c_int,
    (arguments, environment): (Texts, Texts),
    start: impl Fn(*mut c_int, Texts) -> c_int,
) -> c_int {
    let mut merged = Merged::empty();
    let mut own = 0;
    let child = if child.is_null() { &raw mut own } else { child };
    let mut result = start(child, merged.build(environment, share));
    if result as u32 == sys::E2BIG {
        // Better unobserved than not at all.
        result = start(child, environment);
    }
    merged.release();
    if result == 0 {
        program.announce(call.event(trace::SPAWN).value(*child as u64), arguments);
    }
    result
}

hook!(
    fn posix_spawn(
        child: *mut c_int,
        file: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Texts,
        environment: Texts
    ) -> c_int, real, caller => {
        let call = Call::starting(caller, environment);
        let mut space = space();
        let program = Program::named(here(file), &mut space);
        let preparation = Preparation(actions, attributes);
        if start_client(&call, &program, child, &preparation, arguments, environment) == 0 {
            return 0;
        }
        let share = preparation.share(&program);
        start_program(&call, &program, share, child, (arguments, environment), |child, merged| {
            real(child, file, actions, attributes, arguments, merged)
        })
    }
);

hook!(
    fn posix_spawnp(
        child: *mut c_int,
        file: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Texts,
        environment: Texts
    ) -> c_int, real, caller => {
        let call = Call::starting(caller, environment);
        let mut space = space();
        let program = Program::searched(&call, file, &mut space);
        let preparation = Preparation(actions, attributes);
        if start_client(&call, &program, child, &preparation, arguments, environment) == 0 {
            return 0;
        }
        let share = preparation.share(&program);
        start_program(&call, &program, share, child, (arguments, environment), |child, merged| {
            real(child, file, actions, attributes, arguments, merged)
        })
    }
);

/// What C libraries give a command line to.
const SHELL: &CStr = c"/bin/sh";

/// The C library starts a shell with the program's own environment, so that has to be the merged one for as long.
/// All such calls that overlap share one; the last puts the program's back.
struct Lent {
    users: usize,
    own: *mut *const c_char,
    merged: Merged,
}

struct Shared(AtomicBool, UnsafeCell<Lent>);
// SAFETY: used under the flag only.
unsafe impl Sync for Shared {}
static LENT: Shared =
    Shared(AtomicBool::new(false), UnsafeCell::new(Lent { users: 0, own: null_mut(), merged: Merged::empty() }));

/// Runs `change` alone. Gives up where a fork may have left the flag set: better unobserved than hanging.
unsafe fn alone(change: impl FnOnce(&mut Lent)) -> bool {
    for _ in 0..1_000_000 {
        if LENT.0.compare_exchange_weak(false, true, Acquire, Relaxed).is_ok() {
            change(&mut *LENT.1.get());
            LENT.0.store(false, Release);
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

unsafe fn lend(lent: &mut Lent) {
    if lent.users == 0 {
        lent.own = sys::environ;
        let mut space = space();
        let shell = Program::named(here(SHELL.as_ptr()), &mut space);
        sys::environ = lent.merged.build(lent.own, redirect::share(&shell)).cast_mut();
    }
    lent.users += 1;
}

unsafe fn take_back(lent: &mut Lent) {
    lent.users -= 1;
    if lent.users > 0 {
        return;
    }
    if lent.merged.is(sys::environ) {
        sys::environ = lent.own;
        lent.merged.release();
    } else if !sys::environ.is_null() {
        // Another thread has set a variable meanwhile, in a copy of the merged environment.
        session::hide(sys::environ);
    }
}

/// Runs what starts a shell.
unsafe fn with_lent<T>(caller: usize, run: impl FnOnce() -> T) -> T {
    modules::scan();
    let call = Call::starting(caller, sys::environ);
    Program::named(here(SHELL.as_ptr()), &mut space()).announce(call.event(trace::SPAWN), null());
    let lent = !session::hidden().preload.is_null() && alone(|lent| lend(lent));
    let result = run();
    if lent {
        alone(|lent| take_back(lent));
    }
    result
}

hook!(fn system(command: *const c_char) -> c_int, real, caller => {
    with_lent(caller, || real(command))
});

hook!(fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void, real, caller => {
    with_lent(caller, || real(command, mode))
});
