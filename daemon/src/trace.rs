//! Trace: the observer's file, read where the client holds it open. Trusts neither: any process of this user may say that
//! it has a trace.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use zcache_proto::trace::{CAPACITY_MAX, CURSOR_AT, HEADER_LEN};

/// What has been written to the trace that is `descriptor` in the process `pid`.
pub fn read(pid: u32, descriptor: u32) -> io::Result<Vec<u8>> {
    // Something else than a file might keep this from going on.
    let options = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let at = format!("/proc/{pid}/fd/{descriptor}");
    let mut file = File::options().read(true).custom_flags(options.bits()).open(at)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut header = [0; HEADER_LEN];
    file.read_exact(&mut header)?;
    let written = header[CURSOR_AT..].first_chunk::<8>().map_or(0, |cursor| u64::from_le_bytes(*cursor));
    if written > CAPACITY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.rewind()?;
    let mut trace = Vec::with_capacity(written as usize);
    file.take(written).read_to_end(&mut trace)?;
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::process::id;

    use super::*;
    use crate::observation::records;
    use crate::observation::tests::written;

    fn number(file: &impl AsRawFd) -> u32 {
        file.as_raw_fd().cast_unsigned()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        let trace = written(&[]);
        file.write_all_at(&trace, 0).unwrap();
        file.set_len(CAPACITY_MAX).unwrap();
        let read = read(id(), number(&file)).unwrap();
        assert_eq!((records(&read), &read), (Ok(vec![]), &trace));
    }

    #[test]
    fn what_is_no_trace_is_an_error_at_once() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(id(), number(&file)).is_err(), "it is empty");
        file.write_all_at(&[0xff; HEADER_LEN], 0).unwrap();
        assert!(read(id(), number(&file)).is_err(), "it says that it has no end");
        let (end, _other) = nix::unistd::pipe().unwrap();
        assert!(read(id(), number(&end)).is_err(), "it is a pipe");
        assert!(read(id(), number(&File::open("/dev/zero").unwrap())).is_err(), "it is a device");
        assert!(read(id(), 1 << 30).is_err(), "it is not there");
    }
}
