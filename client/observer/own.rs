//! The links in `/proc` that lead each process to its own directory and root. Where they lead only the process itself
//! can tell, and only now; whoever reads the trace finds the plain path in it. Other spellings of the same (`//proc`, a
//! link to one of these) are left as they are: the reader takes them for what they are, a path that it cannot follow.

use crate::sys;

/// Whether a path may be one of these.
#[inline(always)]
pub fn may_be(path: &[u8]) -> bool {
    path.len() > 6 && path[1] == b'p' && sys::starts_with(path, b"/proc/")
}

/// Where an absolute path leads: a directory, and the rest without a slash before it. `looks`: at the link, should the
/// path be one.
pub unsafe fn resolved<'a>(
    path: &'a [u8],
    looks: bool,
    room: &'a mut sys::Room<{ sys::PATH_MAX }>,
) -> (&'a [u8], &'a [u8]) {
    let Some(end) = end_of_link(path).filter(|&end| !(looks && end == path.len())) else { return (&[], path) };
    let mut link = sys::room::<64>();
    if end >= link.len() {
        return (&[], path);
    }
    *sys::append(link.as_mut_ptr().cast(), &path[..end]) = 0;
    let target = sys::readlink(link.as_ptr().cast(), room);
    if target.first() != Some(&b'/') {
        return (&[], path);
    }
    let rest = &path[end..];
    (target, if rest.is_empty() { rest } else { &rest[1..] })
}

/// The length of the link that a path begins with.
unsafe fn end_of_link(path: &[u8]) -> Option<usize> {
    if !may_be(path) {
        return None;
    }
    let part = |from: usize| {
        let rest = path.get(from..)?;
        Some(&rest[..rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())])
    };
    let process = part(6)?;
    let is_own = matches!(process, b"self" | b"thread-self") || number(process) == Some(sys::getpid());
    let name_at = 6 + process.len() + 1;
    let name = part(name_at)?;
    (is_own && matches!(name, b"cwd" | b"root")).then_some(name_at + name.len())
}

fn number(text: &[u8]) -> Option<u32> {
    let digit = |number: u32, byte: &u8| number.checked_mul(10)?.checked_add(u32::from(byte.checked_sub(b'0')?));
    text.iter().try_fold(0, |number, byte| digit(number, byte).filter(|_| *byte <= b'9'))
}
