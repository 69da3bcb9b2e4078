//! Terminal: a compiler whose messages are kept must still believe that it writes to the user's terminal, for colours and
//! line lengths. It gets a terminal of its own, which passes everything on unchanged.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{cfmakeraw, tcgetattr};

/// One of the compiler's streams: what it gets, and what we read.
pub struct Stream {
    /// The compiler's end.
    pub given: Stdio,
    /// Our end.
    pub read: File,
}

/// A stream like `ours`: a terminal where it is one, else a pipe.
pub fn stream(ours: &(impl AsFd + IsTerminal)) -> io::Result<Stream> {
    if ours.is_terminal() {
        return terminal(ours.as_fd());
    }
    let (read, given) = io::pipe()?;
    Ok(Stream { given: given.into(), read: OwnedFd::from(read).into() })
}

fn terminal(ours: BorrowedFd<'_>) -> io::Result<Stream> {
    let mut settings = tcgetattr(ours)?;
    // Ours adds what it adds when it gets the bytes.
    cfmakeraw(&mut settings);
    let pair = openpty(size_of(ours).as_ref(), Some(&settings))?;
    // No other child of ours may hold it open.
    nix::fcntl::fcntl(&pair.master, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    nix::fcntl::fcntl(&pair.slave, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(Stream { given: pair.slave.into(), read: pair.master.into() })
}

/// The size of the terminal that messages go to.
pub fn size() -> Option<Winsize> {
    size_of(io::stderr().as_fd()).or_else(|| size_of(io::stdout().as_fd()))
}

mod ioctl {
    //! The one call that nix does not wrap.
    use nix::libc;
    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);
}

fn size_of(fd: BorrowedFd<'_>) -> Option<Winsize> {
    use std::os::fd::AsRawFd;
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills the structure that it is given.
    unsafe { ioctl::window_size(fd.as_raw_fd(), &mut size) }.ok().map(|_| size)
}
