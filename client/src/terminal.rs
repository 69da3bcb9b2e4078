//! Terminal: a compiler whose messages are kept must still believe that it writes to the user's terminal, for colours and
//! line lengths. It gets a terminal of its own, which passes everything on unchanged.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::stat::fstat;
use nix::sys::termios::{cfmakeraw, tcgetattr};

/// The compiler's streams: what it gets, and what we read.
pub struct Streams {
    /// The compiler's standard output.
    pub stdout: OwnedFd,
    /// The compiler's standard error.
    pub stderr: OwnedFd,
    /// What comes from its standard output, and from its standard error where both go to one place.
    pub from_stdout: File,
    /// What comes from its standard error alone.
    pub from_stderr: Option<File>,
}

/// Streams like our own: terminals where they are, else pipes; one where they are one, so that what is printed keeps its
/// order.
pub fn streams() -> io::Result<Streams> {
    let (from_stdout, stdout) = stream(&io::stdout())?;
    if is_one_place() {
        return Ok(Streams { stderr: stdout.try_clone()?, stdout, from_stdout, from_stderr: None });
    }
    let (from_stderr, stderr) = stream(&io::stderr())?;
    Ok(Streams { stdout, stderr, from_stdout, from_stderr: Some(from_stderr) })
}

/// Whether standard output and error are the same file, pipe or terminal.
pub fn is_one_place() -> bool {
    let place = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let stdout = place(io::stdout().as_fd());
    stdout.is_some() && stdout == place(io::stderr().as_fd())
}

fn stream(ours: &(impl AsFd + IsTerminal)) -> io::Result<(File, OwnedFd)> {
    if ours.is_terminal() {
        return terminal(ours.as_fd());
    }
    let (read, given) = io::pipe()?;
    Ok((OwnedFd::from(read).into(), given.into()))
}

fn terminal(ours: BorrowedFd<'_>) -> io::Result<(File, OwnedFd)> {
    let mut settings = tcgetattr(ours)?;
    // Ours adds what it adds when it gets the bytes.
    cfmakeraw(&mut settings);
    let pair = openpty(window(ours).as_ref(), Some(&settings))?;
    // No other child of ours may hold it open.
    nix::fcntl::fcntl(&pair.master, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    nix::fcntl::fcntl(&pair.slave, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok((pair.master.into(), pair.slave))
}

/// The width of the terminal that messages go to; 0 where there is none.
pub fn columns() -> u32 {
    let columns = columns_of(io::stderr().as_fd());
    if columns == 0 { columns_of(io::stdout().as_fd()) } else { columns }
}

/// The width of the terminal that standard input is, which gcc goes by; 0 where it is none.
pub fn input_columns() -> u32 {
    columns_of(io::stdin().as_fd())
}

fn columns_of(fd: BorrowedFd<'_>) -> u32 {
    window(fd).map_or(0, |window| window.ws_col.into())
}

mod ioctl {
    //! The one call that nix does not wrap.
    use nix::libc;
    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);
}

fn window(fd: BorrowedFd<'_>) -> Option<Winsize> {
    use std::os::fd::AsRawFd;
    let mut window = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills the structure that it is given.
    unsafe { ioctl::window_size(fd.as_raw_fd(), &mut window) }.ok().map(|_| window)
}
