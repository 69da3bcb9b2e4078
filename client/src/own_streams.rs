//! Own streams: whether a command names this process's own standard output or error as a file to write
//! (`-o /dev/stdout > x.o`). On a miss the compiler gets a pipe in the place of these, which it can neither seek in nor
//! truncate, and which appends; where ours are a pipe or a terminal, that is what it would have had anyway.
//!
//! What counts is where a path leads, not how it is spelled: through `/dev/fd`, a link of somebody's, or the directory that
//! the compiler runs in. Looked at are the arguments that can be a file to write, those in argument files, and the two
//! variables that name one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::libc::{S_IFIFO, S_IFMT};
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

/// Longest argument file that is looked at, bytes.
const FILE_MAX: u64 = 1 << 20;
/// How deep argument files are followed.
const DEPTH_MAX: u32 = 8;
/// Most links on the way to one file: the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// Device and inode.
type Identity = (u64, u64);

/// Whether `arguments` do.
pub fn are_named(arguments: &[OsString]) -> bool {
    let streams: Vec<Identity> = [own(&io::stdout()), own(&io::stderr())].into_iter().flatten().collect();
    let is_one = |path: &[u8]| is_stream(path, &streams);
    let of_variables = || {
        let values = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"].iter().filter_map(std::env::var_os);
        values.into_iter().any(|value| value.as_bytes().split(|&b| b == b' ').next().is_some_and(is_one))
    };
    !streams.is_empty()
        && (arguments.iter().any(|word| any_path(word.as_bytes(), DEPTH_MAX, &is_one)) || of_variables())
}

/// One of our streams, where a pipe in its place makes a difference.
fn own(stream: &(impl AsFd + IsTerminal)) -> Option<Identity> {
    let stat = fstat(stream).ok().filter(|stat| stat.st_mode & S_IFMT != S_IFIFO && !stream.is_terminal())?;
    Some((stat.st_dev, stat.st_ino))
}

/// Whether a file that an argument may tell a compiler to write passes `test`.
fn any_path(argument: &[u8], depth: u32, test: &dyn Fn(&[u8]) -> bool) -> bool {
    match argument {
        [b'@', file @ ..] => depth > 0 && words(file).iter().any(|word| any_path(word, depth - 1, test)),
        [b'-', b'o', file @ ..] => test(file),
        [b'-', b'M', _, file @ ..] if !file.is_empty() => test(file),
        [b'-', b'D' | b'I' | b'U' | b'L', ..] => false,
        [b'-', ..] => {
            let ends = |part: &[u8]| part.iter().enumerate().any(|(at, byte)| *byte == b'=' && test(&part[at + 1..]));
            let mut parts = argument.split(|&b| b == b',');
            let first = parts.next().is_some_and(ends);
            first || parts.any(|part| test(part) || ends(part))
        }
        file => test(file) || file.iter().rposition(|&b| b == b'=').is_some_and(|at| test(&file[at + 1..])),
    }
}

/// The words of an argument file, without their quotes. What is no file of a disk may be read only once.
fn words(file: &[u8]) -> Vec<Vec<u8>> {
    let at = Path::new(OsStr::from_bytes(file));
    let mut text = Vec::new();
    if fs::metadata(at).is_ok_and(|meta| meta.is_file()) && !leads_through_descriptor(at) {
        let _ = File::open(at).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    }
    let plain = |word: &[u8]| word.iter().copied().filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\')).collect();
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(plain).collect()
}

fn is_stream(path: &[u8], streams: &[Identity]) -> bool {
    if path.is_empty() {
        return false;
    }
    let at = Path::new(OsStr::from_bytes(path));
    let is_same = fs::metadata(at).is_ok_and(|meta| streams.contains(&(meta.dev(), meta.ino())));
    // Whoever names the file itself (`-o f > f`) opens that, with or without us.
    is_same && leads_through_descriptor(at)
}

/// Whether the way to a file goes by what a process has open.
fn leads_through_descriptor(path: &Path) -> bool {
    let Ok(whole) = std::path::absolute(path) else { return false };
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut at, mut pending, mut links) = (PathBuf::from("/"), VecDeque::from(parts(&whole)), LINKS_MAX);
    while let Some(part) = pending.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(name)) => match fs::read_link(at.join(name)) {
                Err(_) => at.push(name),
                Ok(_) if links == 0 => return false,
                Ok(target) => {
                    let is_number = name.as_bytes().iter().all(u8::is_ascii_digit);
                    if is_number && statfs(&at).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) {
                        return true;
                    }
                    links -= 1;
                    parts(&target).into_iter().rev().for_each(|part| pending.push_front(part));
                }
            },
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_to_write_are_found_in_arguments() {
        let rows: &[(&str, &[&str])] = &[
            ("x.o", &["x.o"]),
            ("-ox.o", &["x.o"]),
            ("-MFx.d", &["x.d"]),
            ("-DX=x", &[]),
            ("-Wall", &[]),
            ("-Wp,-MD,x.d", &["-MD", "x.d"]),
            ("-Wl,-Map=x", &["-Map=x", "x"]),
            ("-fopt-info-all=x", &["x"]),
            ("--emit=asm=x", &["asm=x", "x"]),
            ("link-arg=-Map=x", &["link-arg=-Map=x", "x"]),
        ];
        for (argument, want) in rows {
            let found = RefCell::new(Vec::new());
            let note = |path: &[u8]| {
                found.borrow_mut().push(String::from_utf8_lossy(path).into_owned());
                false
            };
            any_path(argument.as_bytes(), 1, &note);
            assert_eq!(*found.borrow(), *want, "{argument}");
        }
    }

    #[test]
    fn a_way_by_a_descriptor_is_one_however_it_is_spelled() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/proc/self/fd", dir.path().join("fds")).unwrap();
        let at = dir.path().display();
        for path in ["/dev/fd/0", "//dev/../dev/./fd/0", "/proc/self/fd/0", &format!("{at}/fds/0")] {
            assert!(leads_through_descriptor(Path::new(path)), "{path}");
        }
        for path in ["/dev/null", "/proc/self/cwd", "/proc/self/exe", &format!("{at}/x")] {
            assert!(!leads_through_descriptor(Path::new(path)), "{path}");
        }
    }
}
