//! Lent: blobs whose file an output shares. A compiler replaces such an output and never writes into it, but others may
//! (`strip`, `dd conv=notrunc`), and then write into the blob.
//!
//! Times do not tell. The modification time can be put back (`touch -r`), and the change time, which cannot, also moves with
//! every link that a hit makes and with every target directory that is removed: to read a blob again for each of these would
//! be to read nearly every blob for every hit. So the kernel is asked to say when somebody writes: it watches the file
//! itself, by whatever name it is opened, and has noted a write before the writer can go on. What is watched without a break
//! since its bytes were compared with its name still holds them.
//!
//! Where the kernel watches no more (its limit is reached), a blob is read each time: slow, and right.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use zcache_proto::Digest;

use crate::inputs::lock;

/// Watches over blobs.
#[derive(Debug)]
pub struct Lent {
    inotify: Option<Inotify>,
    watched: Mutex<HashMap<Digest, WatchDescriptor>>,
}

impl Default for Lent {
    fn default() -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        Self { inotify: inotify.ok(), watched: Mutex::default() }
    }
}

impl Lent {
    /// Watches the blob at `at` from now on: whether it has been watched all along, and nobody has written into it.
    pub fn watch(&self, digest: &Digest, at: &Path) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut watched = lock(&self.watched);
        settle(inotify, &mut watched);
        let known = watched.remove(digest);
        // The same file has the same number.
        let Ok(now) = inotify.add_watch(at, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE) else {
            return false;
        };
        watched.insert(*digest, now);
        known == Some(now)
    }
}

/// Takes out what was written into since the last time.
fn settle(inotify: &Inotify, watched: &mut HashMap<Digest, WatchDescriptor>) {
    loop {
        match inotify.read_events() {
            Ok(events) => {
                for event in events {
                    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                        watched.clear();
                    }
                    watched.retain(|_, number| *number != event.wd);
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(_) => return watched.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_write_by_any_name_is_noticed_and_a_link_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (blob, output) = (dir.path().join("blob"), dir.path().join("output"));
        fs::write(&blob, "bytes").unwrap();
        let (lent, digest) = (Lent::default(), Digest::of(b"bytes"));
        assert!(!lent.watch(&digest, &blob), "nothing is known of before");
        fs::hard_link(&blob, &output).unwrap();
        let file = File::open(&blob).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        let times = FileTimes::new().set_accessed(time).set_modified(time);
        file.set_times(times).unwrap();
        assert!(lent.watch(&digest, &blob), "a link is no change");
        let file = File::options().write(true).open(&output).unwrap();
        file.write_at(b"B", 0).unwrap();
        file.set_times(times).unwrap();
        assert!(!lent.watch(&digest, &blob), "a write is, before the file is closed");
        drop(file);
        assert!(!lent.watch(&digest, &blob) && lent.watch(&digest, &blob));
        fs::remove_file(&output).unwrap();
        assert!(lent.watch(&digest, &blob), "another name that goes is no change");
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "bytes").unwrap();
        assert!(!lent.watch(&digest, &blob), "another file is");
    }
}
