//! Binding: to which of a build's roots a result is bound, so that it serves no other place. Pure.
//!
//! The rule. A root is *knowable* to a run if its path stands in an argument of which the family cannot prove that it
//! never reaches an output, in a variable that was read, in the answer to a question that was asked, or in what a nested
//! run knew. What a run cannot know cannot be in its outputs, and the result serves everywhere. What it can know is in an
//! output only in ways that leave a trace, and each way binds the result to the root:
//!
//! - some output holds the root in a spelling that is searched for ([`needles`]), prefix maps' images among them;
//! - some output is opaque: text may hide in it where no search finds it;
//! - some output leads upwards to another place, as an rpath does, which depends on where the output lies;
//! - code could compute on the path: the project's own programs and macros on what they were told, a source by `__FILE__`
//!   on the paths of sources and include directories, and any source on an argument that the family does not know to be a
//!   path alone (`-DDIR="/w"`).
//!
//! Nothing here guesses from an option that something does *not* happen, except where a family says of an argument that
//! its text reaches no output, which is a list of proofs: an option that is not on it counts as reaching.

use std::collections::BTreeSet;

use crate::distilled::Distilled;
use crate::invocation::Invocation;
use crate::opaque::Look;
use crate::roles::{Role, Root, Roots};
use crate::sources::Marks;
use crate::template::{SPELLINGS, Template, names_root, spell};

/// The arguments of a command by what can become of their text. What reaches no output is in neither list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// Paths of sources, include directories and the like: they reach debug information, messages and `__FILE__`.
    pub paths: Vec<Vec<u8>>,
    /// Anything else: code may compute on it.
    pub values: Vec<Vec<u8>>,
    /// All arguments, those in files among them.
    pub all: Vec<Vec<u8>>,
    /// Whether the compiler makes identifiers and file names of paths, as those for C do.
    pub mangles: bool,
}

/// What was found in a result's outputs and sources.
#[derive(Debug, Default)]
pub struct Found {
    /// Roots of which a spelling stands in an output.
    pub named: BTreeSet<Role>,
    /// An output is opaque.
    pub opaque: bool,
    /// An output leads upwards.
    pub climbs: bool,
    /// What sources name.
    pub words: Marks,
}

impl Found {
    /// Searches a text of which paths are kept by role already.
    pub fn search(&mut self, text: &Template, needles: &[Needle]) {
        let left: Vec<&[u8]> = text.literals().collect();
        self.note(needles, |needle| !needle.by_role && left.iter().any(|text| names_root(text, &needle.bytes)));
    }

    /// Notes the needles that were found.
    pub fn note(&mut self, needles: &[Needle], mut is_found: impl FnMut(&Needle) -> bool) {
        self.named.extend(needles.iter().filter(|needle| is_found(needle)).map(|needle| needle.role));
    }

    /// Notes what a look at an output tells.
    pub fn look(&mut self, look: Look) {
        self.opaque |= look.opaque;
        self.climbs |= look.climbs;
    }
}

/// The roots that a result is bound to.
pub fn bound(roots: &Roots, call: &Invocation, exposed: &Exposed, seen: &Distilled, found: &Found) -> BTreeSet<Role> {
    let all = seen.asks_cwd || found.climbs || found.words.absolute;
    let given = |texts: &[Vec<u8>], root: &Root| texts.iter().any(|text| is_named(text, root));
    let variables = || seen.env_by_role.iter().filter_map(|name| call.env.get(name));
    let computable = |root: &Root| {
        given(&exposed.values, root)
            || variables().any(|value| is_named(value, root))
            || seen.shown.iter().any(|path| is_named(path, root))
            || found.words.own_path && given(&exposed.paths, root)
            // A program of the project's own was given the arguments, and may do with them what it likes.
            || seen.strangers && (given(&exposed.all, root) || is_outputs(root))
    };
    let knowable = |root: &Root| {
        is_named(&call.cwd, root)
            || is_named(&call.pwd, root)
            || given(&exposed.paths, root)
            || seen.told.iter().any(|path| is_named(path, root))
            || is_outputs(root)
    };
    let is_bound =
        |root: &&Root| all || found.named.contains(&root.role) || computable(root) || found.opaque && knowable(root);
    roots.iter().filter(is_bound).map(|root| root.role).collect()
}

/// Whether `text` holds the root's path or name.
fn is_named(text: &[u8], root: &Root) -> bool {
    root.role != Role::OutName
        && (names_root(text, &root.path)
            || root.name.len() > 1 && root.name != root.path && names_root(text, &root.name))
}

/// Whether a root is the output's place: a compiler is always told that.
fn is_outputs(root: &Root) -> bool {
    matches!(root.role, Role::OutDir | Role::OutName)
}

/// A spelling of a root to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// The root.
    pub role: Role,
    /// The spelling.
    pub bytes: Vec<u8>,
    /// Whether it is one that stored text keeps by role.
    pub by_role: bool,
}

/// Every spelling of every root that a run with such arguments may write. `strangers`: programs of the project's own ran in
/// it, which may have called the compiler with other arguments.
pub fn needles(roots: &Roots, exposed: &Exposed, strangers: bool) -> Vec<Needle> {
    let mut needles: Vec<Needle> = Vec::new();
    for root in roots.iter() {
        for text in &root.texts().collect::<Vec<_>>() {
            let kept = SPELLINGS.map(|spelling| (spell(text, spelling), true));
            let images = images(text, &exposed.all).into_iter().map(|image| (image, false));
            let is_path = root.role != Role::OutName;
            let mangled = [b'#', b'_'].map(|slash| (mangled(text, slash), false));
            let mangled = mangled.into_iter().filter(|_| exposed.mangles && is_path);
            let escaped = [escaped(text, false), escaped(text, true)].map(|text| (text, false));
            let tails = tails(text).into_iter().filter(|_| (exposed.mangles || strangers) && is_path);
            let others = images.chain(mangled).chain(escaped).chain(tails.map(|tail| (tail, false)));
            for (bytes, by_role) in kept.into_iter().chain(others) {
                let is_new = needles.iter().all(|known| known.role != root.role || known.bytes != bytes);
                if is_new && !bytes.is_empty() {
                    // Where the output is named, only a depfile's target is kept by role.
                    let by_role = by_role && bytes[0] == b'/' && is_path;
                    needles.push(Needle { role: root.role, bytes, by_role });
                }
            }
        }
    }
    needles
}

/// The last name of a path, as it stands at the end of whatever a prefix map made of the rest: a map may come from a file
/// of specs or a wrapper, where no argument tells of it.
fn tails(path: &[u8]) -> Vec<Vec<u8>> {
    let name = path.iter().rposition(|&b| b == b'/').map_or(&path[..0], |at| &path[at..]);
    let ends = [b"\0".as_slice(), b"/", b"\""];
    ends.iter().filter(|_| name.len() > 1).map(|end| [name, end].concat()).collect()
}

/// What prefix maps make of a path: of every `OLD=NEW` in an argument where the path lies in or at `OLD`, `NEW` and the
/// rest. Without a rest the image says nothing of the path.
fn images(path: &[u8], arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut images = Vec::new();
    for argument in arguments {
        let parts: Vec<&[u8]> = argument.split(|&b| b == b'=').collect();
        for pair in parts.windows(2) {
            let old = pair[0].rsplit(|&b| b == b',').next().unwrap_or_default();
            let old = old.strip_suffix(b"/").unwrap_or(old);
            let new = pair[1].split(|&b| b == b',').next().unwrap_or_default();
            if let Some(rest) = path.strip_prefix(old).filter(|rest| old.starts_with(b"/") && !rest.is_empty()) {
                // The map may have had the slash on one side only.
                images.push([new.strip_suffix(b"/").unwrap_or(new), rest].concat());
            }
        }
    }
    images
}

/// A path as one name: `#a#b` as gcov calls its files, `_a_b_c` as gcc does in symbols.
fn mangled(path: &[u8], slash: u8) -> Vec<u8> {
    let other = |b: u8| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'$'));
    let name = |&b: &u8| if b == b'/' || slash == b'_' && other(b) { slash } else { b };
    path.iter().map(name).collect()
}

/// A path inside a string of C and assembler, with octal numbers for what is no ASCII, or of LLVM, with hexadecimal ones.
fn escaped(path: &[u8], llvm: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'"' | b'\\' if !llvm => text.extend([b'\\', byte]),
            b' '..=b'~' if !(llvm && matches!(byte, b'"' | b'\\')) => text.push(byte),
            _ if llvm => text.extend(format!("\\{byte:02X}").bytes()),
            _ => text.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    text
}

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;
