//! Output: writing to our own streams as the compiler would, so that a full disk or a closed descriptor is an error and
//! not silence. (Rust's own streams take a closed descriptor for success.)

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// Writes all of `bytes`.
pub fn write_all(to: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let to = to.as_fd();
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(to)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether nobody reads any more, which many a writer takes for the end of its work.
pub fn is_unread(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Waits until a descriptor that somebody made non-blocking takes more.
fn wait(to: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
