//! Distilled: what one compile read, looked for and made, and how a nested compile's part of it is taken in. Pure.

use std::collections::{BTreeMap, BTreeSet};

use zcache_proto::Digest;

use crate::compilers::toolchain::{is_below, parent};
use crate::manifest::Kind;
use crate::refusal::Refusal;
use crate::system::Question;

/// What a compile read, looked for and made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Distilled {
    /// Files read, with the first reading.
    pub contents: BTreeMap<Vec<u8>, Reading>,
    /// Paths looked for and not found.
    pub absent: BTreeSet<Vec<u8>>,
    /// Paths that the project's code did not find, even if it made them later.
    pub absent_before: BTreeSet<Vec<u8>>,
    /// Paths whose attributes the project's code asked for: permissions and, of a file, its time may be in its answer.
    pub attributes: BTreeSet<Vec<u8>>,
    /// Paths whose permissions the project's code asked for, and nothing more.
    pub permissions: BTreeSet<Vec<u8>>,
    /// Shared libraries, and what the dynamic linker's first search finds for each.
    pub libraries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Paths found and not read.
    pub exists: BTreeMap<Vec<u8>, Option<Kind>>,
    /// Directories listed, with the time of the first listing.
    pub listings: BTreeMap<Vec<u8>, u64>,
    /// Links read and paths resolved, with the answer.
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Variables asked for.
    pub env: BTreeSet<Vec<u8>>,
    /// Variables asked for whose value may name the checkout.
    pub env_by_role: BTreeSet<Vec<u8>>,
    /// Variables asked for that change nothing but what is printed.
    pub env_shown: BTreeSet<Vec<u8>>,
    /// A program ran that may have read any variable.
    pub environment: bool,
    /// Names searched along PATH, and what was found, if anything.
    pub names: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Programs started by path; whoever started them may have searched for them itself.
    pub programs: BTreeSet<Vec<u8>>,
    /// The directory's own path was asked by more than the compiler, or a nested compile's result is bound to its place.
    pub asks_cwd: bool,
    /// Programs ran that are no part of a toolchain: what they do with their arguments is theirs to decide.
    pub strangers: bool,
    /// Paths that the project's code got as answers: where it is, and where links lead.
    pub shown: BTreeSet<Vec<u8>>,
    /// Directories in which the tree's compilers ran, and may have asked for it.
    pub told: BTreeSet<Vec<u8>>,
    /// Objects that the compiler loaded from the project: a look at their imports says whether they read the
    /// environment whole.
    pub plugins: BTreeSet<Vec<u8>>,
    /// Files that the compiler itself read as source.
    pub sources: BTreeSet<Vec<u8>>,
    /// What the project's code asked of the machine, and the answer, once it has been asked again.
    pub system: BTreeMap<Question, Option<Digest>>,
    /// Programs that could not be watched and that tell what they read.
    pub declaring: BTreeSet<Vec<u8>>,
    /// Files and links made.
    pub outputs: BTreeSet<Vec<u8>>,
    /// Directories made.
    pub directories: BTreeSet<Vec<u8>>,
    /// Files opened for writing that may have been there before.
    pub modified: BTreeSet<Vec<u8>>,
    /// Why the result must not be stored.
    pub refusals: BTreeSet<Refusal>,
}

/// One reading of a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it began, nanoseconds since 1970.
    pub time_ns: u64,
    /// The file's inode, 0 where that is not known.
    pub inode: u64,
}

impl Reading {
    /// Takes in another reading of the same path: the earlier one counts, which the later change would spoil.
    pub fn merge(&mut self, other: Self) {
        self.time_ns = self.time_ns.min(other.time_ns);
        self.inode = if self.inode == 0 { other.inode } else { self.inode };
    }
}

impl Distilled {
    /// Takes in what a nested compile read and made. Its `env` names those variables that it got from this compile's
    /// own environment.
    pub fn fold(&mut self, child: Self) {
        for (path, reading) in child.contents {
            self.contents.entry(path).or_insert(reading).merge(reading);
        }
        self.listings.extend(child.listings);
        self.absent.extend(child.absent);
        self.absent_before.extend(child.absent_before);
        self.attributes.extend(child.attributes);
        self.permissions.extend(child.permissions);
        self.libraries.extend(child.libraries);
        self.exists.extend(child.exists);
        self.links.extend(child.links);
        self.env.extend(child.env.into_iter().chain(child.env_by_role).chain(child.env_shown));
        self.sources.extend(child.sources);
        self.environment |= child.environment;
        self.names.extend(child.names);
        self.programs.extend(child.programs);
        self.asks_cwd |= child.asks_cwd;
        self.strangers |= child.strangers;
        self.shown.extend(child.shown);
        self.told.extend(child.told);
        self.system.extend(child.system);
        self.plugins.extend(child.plugins);
        self.outputs.extend(child.outputs);
        self.directories.extend(child.directories);
        self.modified.extend(child.modified);
        self.refusals.extend(child.refusals.into_iter().filter(|refusal| *refusal != Refusal::Failed));
        let made: BTreeSet<_> = self.outputs.iter().chain(&self.directories).cloned().collect();
        self.contents.retain(|path, _| !covers(&made, path));
        self.absent.retain(|path| !covers(&made, path));
        self.exists.retain(|path, _| !covers(&made, path));
        self.links.retain(|path, _| !covers(&made, path));
        self.attributes.retain(|path| !covers(&made, path));
        self.permissions.retain(|path| !covers(&made, path));
        self.listings.retain(|path, _| !covers(&made, path));
    }
}

/// Whether `set` holds `path` or a directory above it.
pub fn covers(set: &BTreeSet<Vec<u8>>, path: &[u8]) -> bool {
    // Most compiles make a file or two.
    const FEW: usize = 8;
    if set.len() <= FEW {
        return set.iter().any(|known| is_below(path, known));
    }
    let mut at = path;
    while !at.is_empty() && at != b"/" {
        if set.contains(at) {
            return true;
        }
        at = parent(at);
    }
    false
}

/// Renames what lies in or is `from`. None where that has been done without end.
pub fn moved(set: &mut BTreeSet<Vec<u8>>, from: &[u8], to: &[u8], movable: &mut usize) -> Option<()> {
    let inside = [from, b"/"].concat();
    let below = set.range(inside.clone()..).take_while(|path| path.starts_with(&inside)).cloned();
    let all: Vec<_> = below.chain(set.get(from).cloned()).collect();
    for path in all {
        *movable = movable.checked_sub(to.len() + path.len())?;
        set.remove(&path);
        set.insert([to, &path[from.len()..]].concat());
    }
    Some(())
}
