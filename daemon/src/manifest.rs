//! Manifest: for one action, the sets of expectations under which a result is known, and the walk that finds the
//! first set that holds. Pure: what is true now comes through [`Facts`].

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use zcache_proto::Digest;

use crate::paths::is_plain;
use crate::roles::{Role, RolePath, Roots};
use crate::system::Question;
use crate::template::Template;
use crate::twins::{Look, Twin, relate};

/// Most results kept for one action; the least recently used goes first.
pub const ENTRIES_MAX: usize = 16;

/// What kind of thing a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A socket, pipe or device.
    Special,
}

/// What a program learns of a path without reading it. The length follows from the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// Type and permissions.
    pub mode: u32,
    /// Modification time, nanoseconds since 1970, where it was told; that of a directory in which builds make things
    /// moves with every build.
    pub mtime_ns: Option<i64>,
}

impl Attributes {
    /// Whether they are a regular file's.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// Where a compiler's messages go.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Terminal {
    /// Bits 0, 1 and 2: standard input, output, error is a terminal.
    pub streams: u32,
    /// Width of the terminal that is written to.
    pub columns: u32,
    /// Width of the terminal that is read from: gcc goes by that.
    pub input_columns: u32,
    /// Output and error are one place, and what was printed is kept as one stream.
    pub merged: bool,
}

/// One observed fact. The order of the variants is the order of checking: what costs nothing first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Expectation {
    /// The result is right only where this root is the same: see `binding`.
    Root(Role, #[serde(with = "serde_bytes")] Vec<u8>),
    /// The output's directory lies there: an input does as well.
    Nesting(RolePath),
    /// What was printed was printed for these descriptors being terminals, as wide as this.
    Terminal(Terminal),
    /// What was printed was printed for arguments that say how it is to look.
    Display(Digest),
    /// What was printed names the program as it was called.
    Called(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A variable's value, or that it is unset.
    Env(#[serde(with = "serde_bytes")] Vec<u8>, Option<Digest>),
    /// A variable whose value names the checkout, by role.
    EnvByRole(#[serde(with = "serde_bytes")] Vec<u8>, Option<Digest>),
    /// All variables: a program read that could have read any.
    Environment(Digest),
    /// What the machine answers.
    System(Question, Digest),
    /// What a name resolves to along the caller's PATH.
    Which(#[serde(with = "serde_bytes")] Vec<u8>, Option<RolePath>),
    /// What a shared library's name leads to along LD_LIBRARY_PATH, which the dynamic linker searches first.
    Library(#[serde(with = "serde_bytes")] Vec<u8>, Option<RolePath>),
    /// The program at the path may be executed, and is this file where it is no script.
    Runs(RolePath, Option<RolePath>),
    /// The path exists, of that kind where it was seen.
    Exists(RolePath, Option<Kind>),
    /// Which of these paths are one file or directory, and which files are of one time.
    Twins(Vec<Twin>),
    /// Nothing is at the path.
    Absent(RolePath),
    /// What the project's code may have learnt from a path's attributes.
    Attributes(RolePath, Attributes),
    /// A link's target, or the path that another resolves to.
    Link(RolePath, RolePath),
    /// A directory's names.
    Listing(RolePath, Digest),
    /// A file's bytes.
    Content(RolePath, Digest),
}

/// What is true now, asked one fact at a time.
pub trait Facts {
    /// The checkout's roots.
    fn roots(&self) -> &Roots;
    /// Digest of a file's bytes.
    fn content(&mut self, path: &[u8]) -> Option<Digest>;
    /// A look at a path, links followed.
    fn look(&mut self, path: &[u8]) -> Option<Look>;
    /// What is at a path, links followed.
    fn kind(&mut self, path: &[u8]) -> Option<Kind> {
        self.look(path).map(|look| look.kind)
    }
    /// Whether nothing is at a path, or a link that leads nowhere.
    fn is_absent(&mut self, path: &[u8]) -> bool {
        self.kind(path).is_none()
    }
    /// Digest of a directory's sorted names.
    fn listing(&mut self, path: &[u8]) -> Option<Digest>;
    /// Whether `path` is a link to `target`, or resolves to it.
    fn leads(&mut self, path: &[u8], target: &[u8]) -> bool;
    /// Whether links lead from `path` to `target`, which is none.
    fn resolves(&mut self, path: &[u8], target: &[u8]) -> bool;
    /// Where messages go.
    fn terminal(&self) -> Terminal;
    /// Digest of the arguments that say how messages look.
    fn display(&self) -> Digest;
    /// By what name the program is called.
    fn called(&self) -> &[u8];
    /// A variable's value.
    fn env(&self, name: &[u8]) -> Option<&[u8]>;
    /// Digest of the whole environment.
    fn environment(&mut self) -> Digest;
    /// What the machine answers to the one who asks.
    fn system(&mut self, question: Question) -> Option<Digest>;
    /// Where PATH leads for a name.
    fn which(&mut self, name: &[u8]) -> Option<Vec<u8>>;
    /// Where LD_LIBRARY_PATH leads for a name.
    fn library(&mut self, name: &[u8]) -> Option<Vec<u8>>;
    /// Attributes of what is at a path, links followed.
    fn attributes(&mut self, path: &[u8]) -> Option<Attributes>;
}

impl Expectation {
    /// Whether it holds now.
    pub fn holds(&self, facts: &mut impl Facts) -> bool {
        fn place(path: &RolePath, facts: &impl Facts) -> Option<Vec<u8>> {
            facts.roots().path_of(path)
        }
        match self {
            Self::Root(role, identity) => facts.roots().identity(*role).as_ref() == Some(identity),
            Self::Nesting(path) => facts.roots().nesting() == Some(path),
            Self::Terminal(terminal) => facts.terminal() == *terminal,
            Self::Display(digest) => facts.display() == *digest,
            Self::Called(name) => facts.called() == name,
            Self::Env(name, value) => facts.env(name).map(Digest::of) == *value,
            Self::EnvByRole(name, value) => facts.env(name).map(|v| by_role(v, facts.roots())) == *value,
            Self::Environment(digest) => facts.environment() == *digest,
            Self::System(question, answer) => facts.system(*question) == Some(*answer),
            Self::Which(name, path) => facts.which(name).map(|found| facts.roots().role_of(&found)) == *path,
            Self::Library(name, path) => facts.library(name).map(|found| facts.roots().role_of(&found)) == *path,
            Self::Attributes(path, then) => {
                let now = place(path, facts).and_then(|at| facts.attributes(&at));
                now.is_some_and(|now| {
                    now.mode == then.mode && then.mtime_ns.is_none_or(|time| now.mtime_ns == Some(time))
                })
            }
            Self::Runs(path, file) => place(path, facts).is_some_and(|at| {
                let file = file.as_ref().map(|file| place(file, facts));
                file.is_none_or(|file| file.is_some_and(|file| facts.resolves(&at, &file)))
                    && facts.attributes(&at).is_some_and(|attributes| attributes.mode & 0o111 != 0)
            }),
            Self::Exists(path, kind) => {
                place(path, facts).and_then(|at| facts.kind(&at)).is_some_and(|now| kind.is_none_or(|kind| kind == now))
            }
            Self::Twins(all) => {
                let looks = all.iter().map(|twin| place(&twin.path, facts).and_then(|at| facts.look(&at)));
                looks.collect::<Option<Vec<_>>>().is_some_and(|looks| relate(all, &looks))
            }
            Self::Absent(path) => place(path, facts).is_some_and(|at| facts.is_absent(&at)),
            Self::Link(path, target) => {
                place(path, facts).zip(place(target, facts)).is_some_and(|(at, target)| facts.leads(&at, &target))
            }
            Self::Listing(path, digest) => place(path, facts).and_then(|at| facts.listing(&at)) == Some(*digest),
            Self::Content(path, digest) => place(path, facts).and_then(|at| facts.content(&at)) == Some(*digest),
        }
    }

    /// One word for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Root(..) | Self::Nesting(..) => "other_checkout",
            Self::Terminal(..) | Self::Display(..) => "other_terminal",
            Self::Called(..) => "called_otherwise",
            Self::Env(..) | Self::EnvByRole(..) | Self::Environment(..) => "environment_changed",
            Self::System(..) => "system_changed",
            Self::Which(..) => "program_resolved_elsewhere",
            Self::Library(..) => "library_resolved_elsewhere",
            Self::Runs(..) => "program_changed",
            Self::Attributes(..) => "attributes_changed",
            Self::Exists(..) => "file_missing",
            Self::Twins(..) => "same_files_changed",
            Self::Absent(..) => "file_appeared",
            Self::Link(..) => "link_changed",
            Self::Listing(..) => "directory_changed",
            Self::Content(..) => "content_changed",
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let by_role = |path: &RolePath| match path.role {
            Some(role) => format!("{{{role:?}}}{}", show(&path.rest)).to_lowercase(),
            None => show(&path.rest),
        };
        let subject = match self {
            Self::Root(_, path) | Self::Called(path) => show(path),
            Self::Env(name, _) | Self::EnvByRole(name, _) | Self::Which(name, _) | Self::Library(name, _) => show(name),
            Self::Terminal(_) | Self::Display(_) => "terminal".to_owned(),
            Self::Environment(_) => "environment".to_owned(),
            Self::System(question, _) => format!("{question:?}").to_lowercase(),
            Self::Nesting(path)
            | Self::Runs(path, _)
            | Self::Exists(path, _)
            | Self::Absent(path)
            | Self::Attributes(path, _)
            | Self::Link(path, _)
            | Self::Listing(path, _)
            | Self::Content(path, _) => by_role(path),
            Self::Twins(all) => all.iter().map(|twin| by_role(&twin.path)).collect::<Vec<_>>().join(" "),
        };
        write!(f, "{}: {subject}", self.word())
    }
}

/// Digest of a value in which the checkout's paths are kept by role.
pub fn by_role(value: &[u8], roots: &Roots) -> Digest {
    Digest::of(&postcard::to_stdvec(&Template::of(value, roots)).unwrap_or_default())
}

/// What an output is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputContent {
    /// Bytes in the CAS. `link`: the compiler replaces such a file, so a hard link is safe.
    Blob {
        /// Name in the CAS.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Whether a hard link is safe.
        link: bool,
    },
    /// Text with the checkout's paths by role.
    Text(Template),
    /// A directory.
    Directory,
    /// A symbolic link's target.
    Symlink(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// One thing that the compile leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Where.
    pub path: RolePath,
    /// What.
    pub content: OutputContent,
    /// Permission bits; the action's umask is in its digest.
    pub mode: u32,
}

/// The effect of a successful compile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActionResult {
    /// 0, except for a question about the compiler: a compile that fails runs every time.
    pub exit_code: i32,
    /// Standard output.
    pub stdout: Template,
    /// Standard error.
    pub stderr: Template,
    /// Files, directories and links.
    pub outputs: Vec<OutputFile>,
    /// How long the compile took, milliseconds.
    pub duration_ms: u64,
}

impl ActionResult {
    /// Whether its outputs are places as a compile leaves them: each named from a root without a way around, with
    /// permission bits, and in nothing that is not a directory. Else it is damaged, or it leads somewhere else.
    pub fn is_sound(&self) -> bool {
        let at_root = |path: &RolePath| path.role.is_some() && path.rest.is_empty();
        // Behind the output's own name only an extension may follow.
        let is_extension = |rest: &[u8]| rest.first() == Some(&b'.') && !rest.contains(&b'/') && !rest.contains(&0);
        let named = |RolePath { role, rest }: &RolePath| {
            if *role == Some(Role::Output) { is_extension(rest) } else { is_plain(rest) }
        };
        let named = |file: &OutputFile| at_root(&file.path) || named(&file.path);
        let all = || self.outputs.iter();
        let files = all().filter(|file| file.content != OutputContent::Directory).map(|file| &file.path);
        let files: BTreeSet<_> = files.map(|path| (path.role, path.rest.as_slice())).collect();
        let is_in_one = |path: &RolePath| {
            let ends = path.rest.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            ends.into_iter().any(|end| files.contains(&(path.role, &path.rest[..end])))
        };
        all().all(|file| file.mode & !0o7777 == 0 && named(file) && !is_in_one(&file.path))
    }

    /// Those of its blobs whose file an output may share.
    pub fn lent(&self) -> Vec<Digest> {
        let lent = self.outputs.iter().filter_map(|output| match output.content {
            OutputContent::Blob { digest, link: true, .. } => Some(digest),
            _ => None,
        });
        lent.collect()
    }

    /// The blobs it needs.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.outputs.iter().filter_map(|output| match output.content {
            OutputContent::Blob { digest, size, .. } => Some((digest, size)),
            _ => None,
        })
    }
}

/// A result and when it is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Sorted, so that the cheap ones are checked first.
    pub expectations: Vec<Expectation>,
    /// The result.
    pub result: ActionResult,
}

/// All that is known of one action, the most recently used first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The known results.
    pub entries: Vec<Entry>,
}

impl Manifest {
    /// The first entry that holds, or the first expectation of the newest entry that does not.
    pub fn find(&self, facts: &mut impl Facts) -> Result<usize, Option<&Expectation>> {
        let mut failed = None;
        for (index, entry) in self.entries.iter().enumerate() {
            match entry.expectations.iter().find(|expectation| !expectation.holds(facts)) {
                None => return Ok(index),
                Some(expectation) => failed = failed.or(Some(expectation)),
            }
        }
        Err(failed)
    }

    /// Puts a new entry first, in place of one with the same expectations.
    pub fn insert(&mut self, entry: Entry) {
        self.entries.retain(|known| known.expectations != entry.expectations);
        self.entries.insert(0, entry);
        self.entries.truncate(ENTRIES_MAX);
    }

    /// Marks an entry as the most recently used, if it is still there.
    pub fn touch(&mut self, entry: &Entry) {
        if let Some(index) = self.entries.iter().position(|known| known == entry) {
            self.entries[..=index].rotate_right(1);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, entry: &Entry) {
        self.entries.retain(|known| known != entry);
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
