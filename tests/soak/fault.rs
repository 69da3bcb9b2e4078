//! Fault: what happens to the daemon and its store during a soak, and what is seen of the daemons. Knows the soak, not
//! when it is disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Chance, Soak};
use crate::faults::{descriptors, memory};
use crate::harness::{World, files};
use crate::storage;

/// How long a command about the store may take, whatever has happened to it.
const COMMAND: Duration = Duration::from_secs(30);

/// What disturbs a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    DaemonKilled,
    DaemonStopped,
    Cleared,
    Collected,
    Repaired,
    BlobCut,
    BlobFlipped,
    BlobRemoved,
    FilesLimited,
    StoreReadOnly,
}

/// All of them.
pub const FAULTS: [Fault; 10] = [
    Fault::DaemonKilled,
    Fault::BlobFlipped,
    Fault::DaemonStopped,
    Fault::Collected,
    Fault::BlobCut,
    Fault::Repaired,
    Fault::BlobRemoved,
    Fault::FilesLimited,
    Fault::Cleared,
    Fault::StoreReadOnly,
];

/// What was seen of the daemons.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often each fault came.
    pub faults: BTreeMap<Fault, usize>,
    /// Daemons.
    pub daemons: BTreeSet<u32>,
    /// Memory, KiB, and descriptors, at each look.
    pub samples: Vec<(u64, usize)>,
}

impl Seen {
    /// Looks at the daemons that live.
    pub fn look(&mut self, world: &World) {
        for pid in world.daemons() {
            self.daemons.insert(pid);
            // It may go at any moment.
            let looked = std::panic::catch_unwind(|| (memory(pid.cast_signed()), descriptors(pid.cast_signed())));
            self.samples.extend(looked.ok());
        }
    }
}

/// The present daemon, if there is one.
fn signal(world: &World, signal: Signal) {
    for pid in world.daemons() {
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Waits for less than `most` milliseconds.
pub fn pause(chance: &mut Chance, most: u64) {
    std::thread::sleep(Duration::from_millis(chance.below(most as usize) as u64));
}

/// Lets it happen.
pub fn disturb(soak: &Soak, fault: Fault, chance: &mut Chance) {
    let world = &soak.world;
    let zcache = |verb: &str| {
        let began = Instant::now();
        let _ = world.zcache(verb).output().expect("a command");
        assert!(began.elapsed() < COMMAND, "zcache {verb}: {:?}\n{}", began.elapsed(), world.log());
    };
    match fault {
        Fault::DaemonKilled => signal(world, Signal::SIGKILL),
        Fault::DaemonStopped => {
            signal(world, Signal::SIGSTOP);
            pause(chance, 1500);
            signal(world, Signal::SIGCONT);
        }
        Fault::Cleared => zcache("clear"),
        Fault::Collected => zcache("gc"),
        Fault::Repaired => zcache("verify --repair"),
        Fault::BlobCut | Fault::BlobFlipped | Fault::BlobRemoved => {
            // Nothing helps a client that has begun to read.
            let _between = soak.between.write().expect("no worker failed");
            let blobs: Vec<PathBuf> =
                files(&world.path("store/cas")).into_keys().filter(|at| at.iter().count() == 2).collect();
            for _ in 0..blobs.len().min(10) {
                damage(&world.path("store/cas").join(&blobs[chance.below(blobs.len())]), fault);
            }
        }
        Fault::FilesLimited => {
            let limit = |bytes: &str| {
                for pid in world.daemons() {
                    let pid = format!("--pid={pid}");
                    let _ = world.command("prlimit").args([&pid, &format!("--fsize={bytes}:unlimited")]).output();
                }
            };
            limit("2000");
            pause(chance, 1500);
            limit("unlimited");
        }
        Fault::StoreReadOnly => {
            let _mount = nix::unistd::geteuid().is_root().then(|| storage::Mount::read_only(&world.path("store")));
            pause(chance, 1500);
        }
    }
}

/// Harms a blob, if it is there still.
fn damage(blob: &Path, fault: Fault) {
    let Ok(file) = fs::File::options().read(true).write(true).open(blob) else { return };
    let half = file.metadata().map_or(0, |meta| meta.len() / 2);
    let mut byte = [0];
    let done = match fault {
        Fault::BlobCut => file.set_len(half),
        Fault::BlobRemoved => fs::remove_file(blob),
        _ => file.read_exact_at(&mut byte, half).and_then(|()| file.write_all_at(&[byte[0] ^ 1], half)),
    };
    done.unwrap_or_else(|error| panic!("{}: {error}", blob.display()));
}
