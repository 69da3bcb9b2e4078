//! The macros that make a function of ours stand before the C library's. Knows no function by name.

/// Exports `$name`. `$real` is the function that the program would have called, `$caller` the address it called from.
macro_rules! hook {
    (fn $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty, $real:ident, $caller:ident => $body:block) => {
        const _: () = {
            $crate::real::real!(REAL = stringify!($name));

            unsafe extern "C" fn hooked($($arg: $kind,)* $caller: usize) -> $answer {
                let address = REAL.get();
                if address.is_null() {
                    $crate::sys::set_errno($crate::sys::ENOSYS);
                    return <$answer as $crate::arch::Missing>::MISSING;
                }
                type Function = unsafe extern "C" fn($($kind),*) -> $answer;
                let $real = core::mem::transmute::<*mut core::ffi::c_void, Function>(address);
                $body
            }

            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($(_: $kind),*) -> $answer {
                $crate::arch::pass_caller!(hooked: $($arg)*)
            }
        };
    };
}
pub(crate) use hook;

/// Several hooks that differ in the name alone.
macro_rules! hooks {
    ([$($name:ident)*] $arguments:tt -> $answer:ty, $real:ident, $caller:ident => $body:block) => {
        $($crate::hook::hook!(fn $name $arguments -> $answer, $real, $caller => $body);)*
    };
}
pub(crate) use hooks;
