//! Materialize: puts a hit's outputs where the compiler would have. Each is a new inode, so nothing that someone else
//! has linked or mapped is written into; a blob is shared with at most one tree, since touching it moves its time.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::linkat;
use zcache_proto::v1::output::Content;
use zcache_proto::v1::{Hit, Output};

use crate::limits::longest_file;

/// Puts every output of `hit` in place, or none: a compiler that runs instead needs the room, and may fail as well.
pub fn materialize(hit: &Hit) -> io::Result<()> {
    let time = UNIX_EPOCH + Duration::from_nanos(hit.mtime_ns.unsigned_abs());
    let files = hit.outputs.iter().filter(|output| !matches!(output.content, Some(Content::Directory(_))));
    let files: HashSet<&Path> = files.map(|output| path(&output.path)).collect();
    hit.outputs.iter().try_for_each(|output| is_sound(output, &files))?;
    hit.outputs.iter().try_for_each(is_free)?;
    let longest = longest_file();
    hit.outputs.iter().try_for_each(|output| is_allowed(output, longest))?;
    for (placed, output) in hit.outputs.iter().enumerate() {
        if let Err(error) = place(output, time) {
            hit.outputs[..=placed].iter().for_each(withdraw);
            return Err(error);
        }
    }
    Ok(())
}

/// Takes away what was put in place, whole or in part.
fn withdraw(output: &Output) {
    if !matches!(output.content, Some(Content::Directory(_))) {
        let _ = fs::remove_file(Path::new(std::ffi::OsStr::from_bytes(&output.path)));
    }
}

/// Whether an output is where its path says: named from the root without a way around, and not in what another output
/// makes a link or file. Nothing that a store holds may lead anywhere else.
fn is_sound(output: &Output, files: &HashSet<&Path>) -> io::Result<()> {
    let at = path(&output.path);
    let blob = !matches!(&output.content, Some(Content::Blob(blob)) if !is_plain(blob));
    let inside = at.ancestors().skip(1).any(|above| files.contains(above));
    if is_plain(&output.path) && blob && output.mode & !0o7777 == 0 && !inside {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is no place of an output", at.display())))
}

/// An absolute path of names alone.
fn is_plain(path: &[u8]) -> bool {
    let name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    path.strip_prefix(b"/").is_some_and(|rest| rest.split(|&b| b == b'/').all(name))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// What a compiler writes to through a link, or into a pipe or device, only a compiler can write. Where a file with other
/// permissions is, some keep these, some do not, and some refuse.
fn is_free(output: &Output) -> io::Result<()> {
    let at = path(&output.path);
    let free = match (&output.content, fs::symlink_metadata(at)) {
        (_, Err(_)) => true,
        (Some(Content::Directory(_)), Ok(meta)) => meta.is_dir(),
        (Some(Content::Symlink(_)), Ok(meta)) => meta.is_symlink() || meta.is_file(),
        (_, Ok(meta)) => meta.is_file() && meta.mode() & 0o7777 == output.mode,
    };
    if free { Ok(()) } else { Err(io::Error::other(format!("{} is no file of this kind", at.display()))) }
}

/// Beyond the limit on the length of files the kernel ends who writes: the compiler has to be that.
fn is_allowed(output: &Output, longest: u64) -> io::Result<()> {
    let length = match &output.content {
        Some(Content::Inline(bytes)) => bytes.len() as u64,
        _ => output.size,
    };
    if length <= longest { Ok(()) } else { Err(io::Error::other("files may not be that long (ulimit -f)")) }
}

fn place(output: &Output, time: SystemTime) -> io::Result<()> {
    let at = path(&output.path);
    let content = output.content.as_ref().ok_or_else(|| io::Error::other("an output without content"))?;
    if matches!(content, Content::Directory(_)) {
        return DirBuilder::new().recursive(true).mode(output.mode).create(at);
    }
    match content {
        Content::Directory(_) => Ok(()),
        Content::Symlink(target) => {
            vacate(at)?;
            symlink(std::ffi::OsStr::from_bytes(target), at)
        }
        Content::Inline(bytes) => {
            let mut new = Nascent::create(at)?;
            io::Write::write_all(&mut new.file, bytes)?;
            new.publish(output.mode, time)
        }
        Content::Blob(blob) => restore(path(blob), at, output, time),
    }
}

fn restore(blob: &Path, at: &Path, output: &Output, time: SystemTime) -> io::Result<()> {
    // A blob is a file of the user's, never a link to one: it may become the output itself, or lend it its inode.
    let source = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(blob)?;
    let meta = source.metadata()?;
    if !meta.is_file() || meta.uid() != nix::unistd::getuid().as_raw() {
        return Err(io::Error::other("a blob is no file of yours"));
    }
    if meta.size() != output.size {
        return Err(io::Error::other("a blob has another length than it should"));
    }
    let new = Nascent::create(at)?;
    if clone(&source, &new.file).is_ok() {
        return new.publish(output.mode, time);
    }
    if output.link && link(blob, at)? {
        return finish(&source, output.mode, time);
    }
    let new = if output.link { Nascent::create(at)? } else { new };
    if io::copy(&mut &source, &mut &new.file)? != output.size {
        return Err(io::Error::other("a blob ended early"));
    }
    new.publish(output.mode, time)
}

/// A file that gets its name when it is whole, where the file system has nameless ones: of a client that is killed
/// before, nothing is left that looks like an output.
struct Nascent<'a> {
    file: File,
    at: &'a Path,
    named: bool,
}

impl<'a> Nascent<'a> {
    fn create(at: &'a Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let dir = at.parent().unwrap_or(at);
        if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
            return Ok(Self { file, at, named: false });
        }
        vacate(at)?;
        Ok(Self { file: options.create_new(true).open(at)?, at, named: true })
    }

    fn publish(self, mode: u32, time: SystemTime) -> io::Result<()> {
        finish(&self.file, mode, time)?;
        if !self.named {
            vacate(self.at)?;
            let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, self.at, AtFlags::AT_SYMLINK_FOLLOW)?;
        }
        // Some file systems say only now that a write failed.
        Ok(nix::unistd::close(self.file)?)
    }
}

/// Removes what is at a place.
fn vacate(at: &Path) -> io::Result<()> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Links `at` to the blob unless another tree has: whether it is linked.
fn link(blob: &Path, at: &Path) -> io::Result<bool> {
    vacate(at)?;
    if fs::symlink_metadata(blob)?.nlink() != 1 || fs::hard_link(blob, at).is_err() {
        return Ok(false);
    }
    // Another client may have linked the same blob at the same time: at most one of us keeps it.
    Ok(fs::symlink_metadata(at)?.nlink() == 2)
}

fn finish(file: &File, mode: u32, time: SystemTime) -> io::Result<()> {
    if file.metadata()?.mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    // To the kernel's watchers one time alone is a write, and the daemon would read the blob again.
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
}

mod ioctl {
    //! The one call that std does not have.
    nix::ioctl_write_int!(ficlone, 0x94, 9);
}

fn clone(source: &File, target: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the whole call; FICLONE takes the source's as its argument.
    let cloned = unsafe { ioctl::ficlone(target.as_raw_fd(), source.as_raw_fd() as u64) };
    Ok(cloned.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(at: &Path, blob: &Path, mode: u32, link: bool) -> Output {
        Output {
            path: at.as_os_str().as_bytes().into(),
            content: Some(Content::Blob(blob.as_os_str().as_bytes().into())),
            mode,
            size: 5,
            link,
        }
    }

    #[test]
    fn two_trees_never_share_an_inode() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "bytes").unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let hit = |at: &Path, ns| Hit { outputs: vec![output(at, &blob, 0o644, true)], mtime_ns: ns, ..Hit::default() };
        materialize(&hit(&a, 1_000_000_000)).unwrap();
        materialize(&hit(&b, 2_000_000_000)).unwrap();
        assert_ne!(fs::metadata(&a).unwrap().ino(), fs::metadata(&b).unwrap().ino());
        assert_eq!((fs::metadata(&a).unwrap().mtime(), fs::metadata(&b).unwrap().mtime()), (1, 2));
        fs::remove_file(&a).unwrap();
        materialize(&hit(&a, 3_000_000_000)).unwrap();
        assert_eq!(fs::read(&a).unwrap(), b"bytes");
    }

    #[test]
    fn what_may_be_written_into_is_a_copy_with_its_own_mode() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "bytes").unwrap();
        let at = dir.path().join("x");
        fs::write(&at, "an older one").unwrap();
        fs::set_permissions(&at, Permissions::from_mode(0o750)).unwrap();
        materialize(&Hit { outputs: vec![output(&at, &blob, 0o750, false)], mtime_ns: 1, ..Hit::default() }).unwrap();
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o750);
        fs::write(&at, "wrote").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"bytes");
    }

    #[test]
    fn a_blob_of_another_length_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "cut").unwrap();
        let hit = Hit { outputs: vec![output(&dir.path().join("x"), &blob, 0o644, false)], ..Hit::default() };
        assert!(materialize(&hit).is_err());
    }

    #[test]
    fn nothing_is_written_outside_of_the_places_that_outputs_name() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, "bytes").unwrap();
        let linked = dir.path().join("linked");
        symlink(&blob, &linked).unwrap();
        let refused = |outputs: Vec<Output>| {
            assert!(materialize(&Hit { outputs, ..Hit::default() }).is_err());
            let made = [&inside, &outside].map(|dir| fs::read_dir(dir).unwrap().count());
            assert_eq!(made, [0, 0], "nothing is made at all");
        };
        let place = |at: &str| output(&inside.join(at), &blob, 0o644, false);
        for at in ["../out/x", "a/../../out/x", "./x", "x/", "x\0y", "//x/..//y"] {
            refused(vec![place("first"), place(at)]);
        }
        refused(vec![output(Path::new("relative"), &blob, 0o644, false)]);
        refused(vec![output(Path::new("/"), &blob, 0o644, false)]);
        refused(vec![output(&inside.join("x"), &blob, 0o100_644, false)]);
        for blob in ["blob".into(), inside.join("../blob")] {
            refused(vec![output(&inside.join("x"), &blob, 0o644, false)]);
        }
        let link = Content::Symlink(outside.as_os_str().as_bytes().into());
        refused(vec![Output { content: Some(link), ..place("l") }, place("l/x")]);
        refused(vec![place("l/x"), place("l")]);
        assert!(
            materialize(&Hit { outputs: vec![output(&inside.join("x"), &linked, 0o644, true)], ..Hit::default() })
                .is_err()
        );
    }
}
