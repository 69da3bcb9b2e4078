//! Hooks by which a process becomes another program. Each is recorded before it happens, and handed the environment that
//! keeps the observation going.

use crate::arch::{List, Missing, pass_list};
use crate::environment::Merged;
use crate::hook::hook;
use crate::program::{Program, space};
use crate::real::real;
use crate::record::{At, Call};
use crate::redirect::{self, Redirect, StandIn};
use crate::session::here;
use crate::{modules, sys, trace};
use core::ffi::{c_char, c_int, c_void};
use core::mem::MaybeUninit;

type Texts = *const *const c_char;

/// Runs `attempt`, or the client in a compiler's place; returns only where it failed.
unsafe fn become_program(
    call: &Call,
    program: &Program,
    arguments: Texts,
    environment: Texts,
    attempt: impl Fn(Texts) -> c_int,
) -> c_int {
    let mut redirect = Redirect::empty();
    if let Some(stand_in) = redirect.stand_in(program, arguments) {
        call.event(trace::STAT).path(program.file());
        let mut space = space();
        let client = Program::named(here(stand_in.client), &mut space);
        attempt_with(call, &client, (stand_in.arguments, environment), |merged| become_client(&stand_in, merged));
        redirect.release();
    }
    attempt_with(call, program, (arguments, environment), attempt)
}

/// Returns only where it failed.
pub unsafe fn become_client(stand_in: &StandIn, environment: Texts) -> c_int {
    real_exec(&EXECVE, stand_in.client, stand_in.arguments, environment)
}

/// Runs `attempt` with the merged environment; returns only where it failed.
unsafe fn attempt_with(
    call: &Call,
    program: &Program,
    (arguments, environment): (Texts, Texts),
    attempt: impl Fn(Texts) -> c_int,
) -> c_int {
    modules::scan();
    program.announce(call.event(trace::EXEC), arguments);
    let mut merged = Merged::empty();
    let mut result = attempt(merged.build(environment, redirect::share(program)));
    if sys::errno() == sys::E2BIG {
        // Better unobserved than not at all.
        result = attempt(environment);
    }
    let errno = sys::errno();
    call.event(trace::EXEC_FAILED).errno(errno).texts(&[], &[]);
    merged.release();
    sys::set_errno(errno);
    result
}

real!(EXECVE = "execve");
real!(EXECVPE = "execvpe");

/// `execve`, or `execvpe` of the same arguments.
unsafe fn real_exec(real: &crate::real::Real, file: *const c_char, arguments: Texts, environment: Texts) -> c_int {
    let address = real.get();
    if address.is_null() {
        sys::set_errno(sys::ENOSYS);
        return c_int::MISSING;
    }
    type Function = unsafe extern "C" fn(*const c_char, Texts, Texts) -> c_int;
    core::mem::transmute::<*mut c_void, Function>(address)(file, arguments, environment)
}

#[inline(never)]
unsafe fn execute(caller: usize, file: *const c_char, arguments: Texts, environment: Texts) -> c_int {
    let call = Call::starting(caller, environment);
    let mut space = space();
    let program = Program::named(here(file), &mut space);
    become_program(&call, &program, arguments, environment, |merged| real_exec(&EXECVE, file, arguments, merged))
}

#[inline(never)]
unsafe fn search(caller: usize, file: *const c_char, arguments: Texts, environment: Texts) -> c_int {
    let call = Call::starting(caller, environment);
    let mut space = space();
    let program = Program::searched(&call, file, &mut space);
    become_program(&call, &program, arguments, environment, |merged| real_exec(&EXECVPE, file, arguments, merged))
}

hook!(fn execve(file: *const c_char, arguments: Texts, environment: Texts) -> c_int, _real, caller => {
    execute(caller, file, arguments, environment)
});

hook!(fn execv(file: *const c_char, arguments: Texts) -> c_int, _real, caller => {
    execute(caller, file, arguments, sys::environ)
});

hook!(fn execvp(file: *const c_char, arguments: Texts) -> c_int, _real, caller => {
    search(caller, file, arguments, sys::environ)
});

hook!(fn execvpe(file: *const c_char, arguments: Texts, environment: Texts) -> c_int, _real, caller => {
    search(caller, file, arguments, environment)
});

hook!(fn fexecve(fd: c_int, arguments: Texts, environment: Texts) -> c_int, real, caller => {
    let call = Call::starting(caller, environment);
    let mut space = space();
    let program = Program::open(fd, &mut space);
    become_program(&call, &program, arguments, environment, |merged| real(fd, arguments, merged))
});

hook!(
    fn execveat(dir: c_int, path: *const c_char, arguments: Texts, environment: Texts, flags: c_int) -> c_int,
    real, caller => {
        let itself = flags & sys::AT_EMPTY_PATH != 0 && sys::bytes(path).is_empty();
        let mut space = space();
        let program =
            if itself { Program::open(dir, &mut space) } else { Program::named(At(dir, path), &mut space) };
        let call = Call::starting(caller, environment);
        become_program(&call, &program, arguments, environment, |merged| real(dir, path, arguments, merged, flags))
    }
);

/// How many arguments of a variadic call are gathered on the stack.
const FEW: usize = 128;

/// `execl` and its kin: the file, the arguments, a null and, where `given`, the environment.
unsafe fn listed(
    list: List,
    caller: usize,
    given: bool,
    run: unsafe fn(usize, *const c_char, Texts, Texts) -> c_int,
) -> c_int {
    let mut end = 1;
    while !list.get(end).is_null() {
        end += 1;
    }
    let mut few = MaybeUninit::<[*const c_char; FEW]>::uninit();
    let length = end * size_of::<*const c_char>();
    let array = if end <= FEW { few.as_mut_ptr().cast() } else { sys::map(length, -1).cast::<*const c_char>() };
    if array.is_null() {
        sys::set_errno(sys::E2BIG);
        return c_int::MISSING;
    }
    for i in 1..=end {
        *array.add(i - 1) = list.get(i);
    }
    let environment = if given { list.get(end + 1) as Texts } else { sys::environ };
    let result = run(caller, list.get(0), array, environment);
    if end > FEW {
        sys::unmap(array.cast(), length);
    }
    result
}

macro_rules! list_hook {
    ($name:ident: $given:literal, $run:ident) => {
        const _: () = {
            unsafe extern "C" fn hooked(
                registers: *const [*const c_char; crate::arch::REGISTERS],
                stack: Texts,
                caller: usize,
            ) -> c_int {
                listed(List { registers, stack }, caller, $given, $run)
            }

            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name() -> c_int {
                pass_list!(hooked)
            }
        };
    };
}

list_hook!(execl: false, execute);
list_hook!(execle: true, execute);
list_hook!(execlp: false, search);
