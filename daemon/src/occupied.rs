//! Occupied: what stands in the place of an output and cannot be replaced as a compiler would deal with it. Some write
//! into what is there, some replace it, some refuse, and which does what no entry says. Only where all come to the same may a
//! hit put a new file there: where nothing is, or a plain file of the user's own that has no other name and nothing of
//! its own but bytes. For everything else the compiler runs, and does whatever it does.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::unistd::{AccessFlags, access, getuid};
use zcache_proto::v1::Output;
use zcache_proto::v1::output::Content;

use crate::inputs::path;

/// The first place among those of `outputs` that is. What lies there may have names of ours in `holding` for a moment.
pub fn first<'a>(outputs: &'a [Output], holding: &Path) -> Option<&'a Path> {
    let mut plain = HashSet::new();
    let mut is_ruled = |at: &Path| {
        let directory = at.parent().unwrap_or(at).to_owned();
        !plain.contains(&directory) && (gives_access(&directory) || !plain.insert(directory))
    };
    let occupied = outputs.iter().find(|output| is_occupied(output, holding) || is_ruled(path(&output.path)));
    occupied.map(|output| path(&output.path))
}

/// Whether a directory gives what is made in it an access list, whatever the umask says.
pub fn gives_access(directory: &Path) -> bool {
    let Ok(directory) = CString::new(directory.as_os_str().as_bytes()) else { return true };
    let name = c"system.posix_acl_default";
    // SAFETY: both texts end with a NUL, and a buffer of no length is not written to.
    unsafe { libc::getxattr(directory.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

fn is_occupied(output: &Output, holding: &Path) -> bool {
    let at = path(&output.path);
    let Ok(meta) = fs::symlink_metadata(at) else { return false };
    match output.content {
        Some(Content::Directory(_)) => !meta.is_dir(),
        Some(Content::Symlink(_)) if meta.is_symlink() => false,
        // What is replaced may have other names, which keep what they have.
        _ => {
            let is_plain = meta.is_file() && meta.uid() == getuid().as_raw() && meta.mode() & 0o7777 == output.mode;
            !is_plain
                || !(output.link || meta.nlink() == 1 + held(&meta, holding))
                || has_attributes(at)
                || !is_in_writable(at)
        }
    }
}

/// How many names of ours a file has, which is being stored.
fn held(meta: &fs::Metadata, holding: &Path) -> u64 {
    if meta.nlink() == 1 {
        return 0;
    }
    let is_same = |other: fs::Metadata| (other.dev(), other.ino()) == (meta.dev(), meta.ino());
    let all = fs::read_dir(holding).into_iter().flatten().flatten();
    all.filter(|entry| entry.metadata().is_ok_and(is_same)).count() as u64
}

fn is_in_writable(at: &Path) -> bool {
    at.parent().is_some_and(|directory| access(directory, AccessFlags::W_OK).is_ok())
}

/// Whether a file has an access list, or anything else that a new file would not have.
fn has_attributes(at: &Path) -> bool {
    const OF_THE_SYSTEM: &[u8] = b"security.selinux\0";
    let Ok(name) = CString::new(at.as_os_str().as_bytes()) else { return true };
    let mut names = [0_u8; 64];
    // SAFETY: the path ends with a NUL, and the kernel fills no more of the buffer than its length.
    let length = unsafe { libc::llistxattr(name.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    match usize::try_from(length) {
        Ok(length) => !matches!(&names[..length], b"" | OF_THE_SYSTEM),
        // The file system has none.
        Err(_) => io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP),
    }
}
