//! Distilled: what one compile read, looked for and made, and how a nested compile's part of it is taken in. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::compilers::toolchain::parent;
use crate::manifest::Kind;
use crate::refusal::Refusal;

/// What a compile read, looked for and made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Distilled {
    /// Files read, with the time of the first reading, nanoseconds since 1970.
    pub contents: BTreeMap<Vec<u8>, u64>,
    /// Paths looked for and not found.
    pub absent: BTreeSet<Vec<u8>>,
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
    /// A program ran that may have read any variable.
    pub environment: bool,
    /// Names searched along PATH, and what was found, if anything.
    pub names: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The directory's own path was asked by more than the compiler.
    pub asks_cwd: bool,
    /// Objects that the compiler loaded from the project: a look at their imports says whether they read the
    /// environment whole.
    pub plugins: BTreeSet<Vec<u8>>,
    /// Files and links made.
    pub outputs: BTreeSet<Vec<u8>>,
    /// Directories made.
    pub directories: BTreeSet<Vec<u8>>,
    /// Files opened for writing that may have been there before.
    pub modified: BTreeSet<Vec<u8>>,
    /// Why the result must not be stored.
    pub refusals: BTreeSet<Refusal>,
}

impl Distilled {
    /// Takes in what a nested compile read and made. Its `env` names those variables that it got from this compile's
    /// own environment.
    pub fn fold(&mut self, child: Self) {
        for (path, time) in child.contents {
            let first = self.contents.entry(path).or_insert(time);
            *first = time.min(*first);
        }
        self.listings.extend(child.listings);
        self.absent.extend(child.absent);
        self.exists.extend(child.exists);
        self.links.extend(child.links);
        self.env.extend(child.env.into_iter().chain(child.env_by_role));
        self.environment |= child.environment;
        self.names.extend(child.names);
        self.asks_cwd |= child.asks_cwd;
        self.plugins.extend(child.plugins);
        self.outputs.extend(child.outputs);
        self.directories.extend(child.directories);
        self.modified.extend(child.modified);
        self.refusals.extend(child.refusals.into_iter().filter(|refusal| *refusal != Refusal::Failed));
        let made: BTreeSet<_> = self.outputs.iter().chain(&self.directories).cloned().collect();
        self.contents.retain(|path, _| !covers(&made, path));
        self.absent.retain(|path| !covers(&made, path));
        self.exists.retain(|path, _| !covers(&made, path));
    }
}

/// Whether `set` holds `path` or a directory above it.
pub fn covers(set: &BTreeSet<Vec<u8>>, path: &[u8]) -> bool {
    let mut at = path;
    while !at.is_empty() && at != b"/" {
        if set.contains(at) {
            return true;
        }
        at = parent(at);
    }
    false
}
