//! Given: descriptors that this process was started with and hands on, and whether a compile used one. What it reads there
//! is an input, and what it writes an effect, that have no name and that nobody watches; but a file's length, time and
//! position tell. Pipes tell nothing: among them is the jobserver's, which every compile may use.

use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{S_IFMT, S_IFREG};
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};

/// The numbers that a shell lets its user give, and standard input.
const NUMBERS: [i32; 8] = [0, 3, 4, 5, 6, 7, 8, 9];

/// What tells of a file that it was used: length, times of modification, position.
type State = (i64, i64, i64, i64);

/// The files among the descriptors, as they are.
#[derive(Debug, PartialEq, Eq)]
pub struct Given(Vec<(i32, State)>);

impl Given {
    /// As of now.
    pub fn now() -> Self {
        Self(NUMBERS.into_iter().filter_map(|number| Some((number, state(number)?))).collect())
    }

    /// Whether one has been used since.
    pub fn is_used(&self) -> bool {
        *self != Self::now()
    }
}

fn state(number: i32) -> Option<State> {
    // SAFETY: nothing is done to the descriptor, and one that is not open answers with an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_truncate(fcntl(descriptor, FcntlArg::F_GETFD).ok()?);
    let stat = fstat(descriptor).ok()?;
    // What ends with this program is its own.
    let is_handed_on = !flags.contains(FdFlag::FD_CLOEXEC) && stat.st_mode & S_IFMT == S_IFREG;
    let position = lseek(descriptor, 0, Whence::SeekCur).ok()?;
    is_handed_on.then_some((stat.st_size, stat.st_mtime, stat.st_mtime_nsec, position))
}
