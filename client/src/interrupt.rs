//! Interrupt: a signal that is to end this client ends its compiler, which does so in its own way: gcc removes what it
//! has half written. The client lives until then, and ends as the compiler did. Knows signals, not compilers.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// What people and build tools end a compile with.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// The compiler's process; 0 where there is none.
static COMPILER: AtomicI32 = AtomicI32::new(0);
/// The signal that came; 0 where none did.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// While this lives, signals go to the compiler.
#[derive(Debug)]
pub struct Watch {
    before: Vec<(Signal, SigAction)>,
}

impl Watch {
    /// To be called before the compiler starts. What the caller ignores stays ignored, here and in the compiler.
    pub fn begin() -> Self {
        let flags = SaFlags::SA_RESTART | SaFlags::SA_SIGINFO;
        let action = SigAction::new(SigHandler::SigAction(pass_on), flags, SigSet::empty());
        let mut before = Vec::new();
        for signal in ENDING {
            // SAFETY: the handler touches atomics and makes one system call; `old` is what was there before.
            unsafe {
                match sigaction(signal, &action) {
                    Ok(old) if matches!(old.handler(), SigHandler::SigIgn) => _ = sigaction(signal, &old),
                    Ok(old) => before.push((signal, old)),
                    Err(_) => {}
                }
            }
        }
        Self { before }
    }

    /// The compiler has started. It gets what came in the meantime.
    pub fn started(&self, compiler: u32) {
        COMPILER.store(compiler.cast_signed(), SeqCst);
        let caught = CAUGHT.load(SeqCst);
        if caught != 0 {
            send(caught);
        }
    }

    /// Waits until the compiler has ended, and leaves it to be collected: its number is not another's until then.
    pub fn until_ended(&self) {
        let compiler = Pid::from_raw(COMPILER.load(SeqCst));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(compiler), flags) == Err(Errno::EINTR) {}
        COMPILER.store(0, SeqCst);
    }

    /// Whether a signal came.
    pub fn is_interrupted(&self) -> bool {
        CAUGHT.load(SeqCst) != 0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (signal, old) in &self.before {
            // SAFETY: this was in place before.
            let _ = unsafe { sigaction(*signal, old) };
        }
    }
}

extern "C" fn pass_on(signal: libc::c_int, about: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    CAUGHT.store(signal, SeqCst);
    // SAFETY: the kernel fills the structure for a handler of this kind.
    let from_terminal = unsafe { about.as_ref() }.is_some_and(|about| about.si_code == libc::SI_KERNEL);
    // What a terminal sends, the compiler has got as well.
    if !from_terminal {
        send(signal);
    }
    Errno::set_raw(errno);
}

fn send(signal: libc::c_int) {
    let compiler = COMPILER.load(SeqCst);
    if compiler > 0 {
        // SAFETY: a system call without memory. The number is our child's, which nobody has collected.
        let _ = unsafe { libc::kill(compiler, signal) };
    }
}
