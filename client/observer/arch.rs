//! Machine code: how an exported function hands its caller's address on, and the few other things Rust cannot say.
//! Does not know what any function means.

use core::ffi::{c_char, c_int};

/// The register after those that hold the given arguments.
#[cfg(target_arch = "x86_64")]
macro_rules! next_register {
    () => {
        "rdi"
    };
    ($a:ident) => {
        "rsi"
    };
    ($a:ident $b:ident) => {
        "rdx"
    };
    ($a:ident $b:ident $c:ident) => {
        "rcx"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "r8"
    };
    ($a:ident $b:ident $c:ident $d:ident $e:ident) => {
        "r9"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! next_register {
    () => {
        "x0"
    };
    ($a:ident) => {
        "x1"
    };
    ($a:ident $b:ident) => {
        "x2"
    };
    ($a:ident $b:ident $c:ident) => {
        "x3"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "x4"
    };
    ($a:ident $b:ident $c:ident $d:ident $e:ident) => {
        "x5"
    };
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident) => {
        "x6"
    };
}
pub(crate) use next_register;

/// The body of an exported function: goes on to `$to` with the return address as one more argument.
#[cfg(target_arch = "x86_64")]
macro_rules! pass_caller {
    // No register is left: the seventh argument is on the stack.
    ($to:ident: $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident) => {
        core::arch::naked_asm!("endbr64", "push qword ptr [rsp]", "call {to}", "add rsp, 8", "ret", to = sym $to)
    };
    ($to:ident: $($arg:ident)*) => {
        core::arch::naked_asm!(
            "endbr64",
            concat!("mov ", $crate::arch::next_register!($($arg)*), ", [rsp]"),
            "jmp {to}",
            to = sym $to
        )
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! pass_caller {
    ($to:ident: $($arg:ident)*) => {
        core::arch::naked_asm!(
            "hint #34", // bti c
            concat!("mov ", $crate::arch::next_register!($($arg)*), ", x30"),
            "b {to}",
            to = sym $to
        )
    };
}
pub(crate) use pass_caller;

/// How many arguments come in registers.
#[cfg(target_arch = "x86_64")]
pub const REGISTERS: usize = 6;
#[cfg(target_arch = "aarch64")]
pub const REGISTERS: usize = 8;

/// The body of an exported variadic function: calls `$to` with (register arguments, stack arguments, return address).
#[cfg(target_arch = "x86_64")]
macro_rules! pass_list {
    ($to:path) => {
        core::arch::naked_asm!(
            "endbr64",
            "mov r10, [rsp]",
            "lea r11, [rsp + 8]",
            "sub rsp, 56",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "mov rdi, rsp",
            "mov rsi, r11",
            "mov rdx, r10",
            "call {to}",
            "add rsp, 56",
            "ret",
            to = sym $to
        )
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! pass_list {
    ($to:path) => {
        core::arch::naked_asm!(
            "hint #34", // bti c
            "stp x29, x30, [sp, #-80]!",
            "mov x29, sp",
            "stp x0, x1, [sp, #16]",
            "stp x2, x3, [sp, #32]",
            "stp x4, x5, [sp, #48]",
            "stp x6, x7, [sp, #64]",
            "add x0, sp, #16",
            "add x1, sp, #80",
            "mov x2, x30",
            "bl {to}",
            "ldp x29, x30, [sp], #80",
            "ret",
            to = sym $to
        )
    };
}
pub(crate) use pass_list;

/// The body of `dlopen`: asks `$to` (name, return address) for the real one and jumps there as if it had been called
/// directly, since the loader looks at the caller's own search path.
#[cfg(target_arch = "x86_64")]
macro_rules! pass_through {
    ($to:path) => {
        core::arch::naked_asm!(
            "endbr64",
            "push rdi",
            "push rsi",
            "sub rsp, 8",
            "mov rsi, [rsp + 24]",
            "call {to}",
            "add rsp, 8",
            "pop rsi",
            "pop rdi",
            "jmp rax",
            to = sym $to
        )
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! pass_through {
    ($to:path) => {
        core::arch::naked_asm!(
            "hint #34", // bti c
            "stp x29, x30, [sp, #-32]!",
            "mov x29, sp",
            "stp x0, x1, [sp, #16]",
            "mov x1, x30",
            "bl {to}",
            "mov x16, x0",
            "ldp x0, x1, [sp, #16]",
            "ldp x29, x30, [sp], #32",
            "br x16",
            to = sym $to
        )
    };
}
pub(crate) use pass_through;

/// Asks an indirect function's resolver.
#[cfg(target_arch = "x86_64")]
pub unsafe fn choose(resolver: usize) -> usize {
    core::mem::transmute::<usize, unsafe extern "C" fn() -> usize>(resolver)()
}
#[cfg(target_arch = "aarch64")]
pub unsafe fn choose(resolver: usize) -> usize {
    // The processor's abilities: what the loader itself would pass.
    let (first, second) = (crate::real::auxiliary(16), crate::real::auxiliary(26));
    let all = [24u64, first, second];
    let resolver: unsafe extern "C" fn(u64, *const [u64; 3]) -> usize = core::mem::transmute(resolver);
    resolver(first | 1 << 62, &all)
}

pub fn abort() -> ! {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("brk #1", options(noreturn))
    }
}

/// The arguments of a variadic call, as pointers.
pub struct List {
    pub registers: *const [*const c_char; REGISTERS],
    pub stack: *const *const c_char,
}

impl List {
    pub unsafe fn get(&self, index: usize) -> *const c_char {
        if index < REGISTERS { (*self.registers)[index] } else { *self.stack.add(index - REGISTERS) }
    }
}

/// What a function answers that the C library does not have.
pub trait Missing {
    const MISSING: Self;
}
impl Missing for c_int {
    const MISSING: c_int = -1;
}
impl Missing for isize {
    const MISSING: isize = -1;
}
impl<T> Missing for *mut T {
    const MISSING: *mut T = core::ptr::null_mut();
}
