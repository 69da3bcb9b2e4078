//! Distilled: what one compile read, looked for and made, and how a nested compile's part of it is taken in. Pure.

use std::collections::{BTreeMap, BTreeSet};

use zcache_proto::Digest;

use crate::compilers::toolchain::{is_below, parent};
use crate::manifest::Kind;
use crate::refusal::Refusal;
use crate::scripts::Interpreter;
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
    /// Programs by the path that was called, with the file that ran where that is not the interpreter of a script.
    pub started: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Processes of zcache clients that ran below and have to report by themselves.
    pub clients: BTreeSet<u32>,
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
    /// Those among them that were read while no variable held the date.
    pub undated: BTreeSet<Vec<u8>>,
    /// Those among them of which it is not known what else was looked for because of them.
    pub unprobed: BTreeSet<Vec<u8>>,
    /// Files read by interpreters that asked for the time when they began: a look at them says whether they use it.
    pub scripts: BTreeMap<Vec<u8>, Interpreter>,
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
    ///
    /// The child is taken apart without `..`: whoever adds a fact decides here what it means to a compile around it. What
    /// the child is refused for after its outputs were taken, this one has to be refused for by the same facts, because
    /// nobody tells it of that any more.
    pub fn fold(&mut self, child: Self) {
        let Self {
            contents,
            absent,
            absent_before,
            attributes,
            permissions,
            libraries,
            exists,
            listings,
            links,
            env,
            env_by_role,
            env_shown,
            environment,
            names,
            programs,
            started,
            clients: _,
            asks_cwd,
            strangers,
            shown,
            told,
            plugins,
            sources,
            undated,
            unprobed,
            scripts,
            system,
            declaring,
            outputs,
            directories,
            modified,
            refusals,
        } = child;
        for (path, reading) in contents {
            self.contents.entry(path).or_insert(reading).merge(reading);
        }
        for (path, time_ns) in listings {
            let first = self.listings.entry(path).or_insert(time_ns);
            *first = time_ns.min(*first);
        }
        for (path, kind) in exists {
            let known = self.exists.entry(path).or_insert(kind);
            *known = known.or(kind);
        }
        self.absent.extend(absent);
        self.absent_before.extend(absent_before);
        self.attributes.extend(attributes);
        self.permissions.extend(permissions);
        self.libraries.extend(libraries);
        agree(&mut self.links, links, &mut self.refusals);
        agree(&mut self.started, started, &mut self.refusals);
        // What its messages followed from, its parent may have read.
        self.env.extend(env.into_iter().chain(env_by_role).chain(env_shown));
        self.environment |= environment;
        self.names.extend(names);
        self.programs.extend(programs);
        self.asks_cwd |= asks_cwd;
        self.strangers |= strangers;
        self.shown.extend(shown);
        self.told.extend(told);
        self.system.extend(system);
        self.plugins.extend(plugins);
        self.sources.extend(sources);
        self.undated.extend(undated);
        self.unprobed.extend(unprobed);
        self.scripts.extend(scripts);
        self.declaring.extend(declaring);
        self.outputs.extend(outputs);
        self.directories.extend(directories);
        self.modified.extend(modified);
        // A compile that fails is an answer like any other.
        self.refusals.extend(refusals.into_iter().filter(|refusal| *refusal != Refusal::Failed));
        self.settle();
    }

    /// Takes out what the compile made itself.
    fn settle(&mut self) {
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

/// Puts `known` into `map`. What was found to be two things changed meanwhile.
fn agree<T: PartialEq>(map: &mut BTreeMap<Vec<u8>, T>, known: BTreeMap<Vec<u8>, T>, refusals: &mut BTreeSet<Refusal>) {
    for (path, found) in known {
        match map.get(&path) {
            Some(other) if *other != found => drop(refusals.insert(Refusal::Changed(path))),
            _ => drop(map.insert(path, found)),
        }
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
