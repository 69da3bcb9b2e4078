//! Roles: which absolute paths belong to the place where a build stands, so that an entry can serve another place.
//! Pure: knows no file system and no compiler.
//!
//! A root has a path, by which files are found, and a name, by which the command or the environment calls it: `PWD` may
//! name the current directory through a link, and `--out-dir ../t` the target directory through its neighbour. Text that
//! a compiler makes follows the name, files follow the path, and an entry that is bound to a root is bound to both.
//!
//! The output's place needs more than a root. Where the output goes (`-o build/x.o`) is the caller's to choose, and
//! `x.d`, `x.dwo` and `x.su` go with it; yet what the compiler *reads* from below that directory it found by other means,
//! if it lies in another root as well. So outputs are placed by [`Roots::place_of`] and inputs by [`Roots::role_of`],
//! which passes over the output's directory where it is nested; [`Roots::nesting`] says how, and an entry with an input
//! there expects the same nesting.

use serde::{Deserialize, Serialize};

/// A directory whose place differs from build to build. Where two have one path, the first in this order is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Where the build puts what it makes: cargo's target directory.
    Target,
    /// The directory the compiler runs in, where it is not the workspace by definition.
    Cwd,
    /// What holds sources and current directory: the workspace, or the unpacked package of a registry.
    Workspace,
    /// The directory that the output goes to, where the command names the output.
    OutDir,
    /// The output's path without its last extension.
    Output,
    /// The last component of that path.
    OutName,
    /// A source with a random name that asks a compiler what it is.
    Probe,
}

/// A path, relative to a role's root where it lies below one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RolePath {
    /// The root it is below; none where the path is absolute.
    pub role: Option<Role>,
    /// The rest, from the root's end (empty, or beginning with a slash, or behind [`Role::Output`] with a dot), or the
    /// whole path.
    #[serde(with = "serde_bytes")]
    pub rest: Vec<u8>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// What it is.
    pub role: Role,
    /// Its path.
    pub path: Vec<u8>,
    /// What command or environment call it.
    pub name: Vec<u8>,
}

impl Root {
    /// A root that is called by its path.
    pub fn plain(role: Role, path: Vec<u8>) -> Self {
        Self { role, name: path.clone(), path }
    }

    /// A root with a name of its own.
    pub fn named(role: Role, path: Vec<u8>, name: Vec<u8>) -> Self {
        Self { role, path, name }
    }

    /// Its texts, as they are searched for. A relative directory and a bare name count with what follows them where they
    /// are written: a few letters alone stand anywhere.
    pub fn texts(&self) -> impl Iterator<Item = Vec<u8>> {
        let with = |text: &[u8], end: &[u8]| [text, end].concat();
        let (path, name) = match self.role {
            Role::OutName => (with(&self.path, b"."), Vec::new()),
            Role::OutDir if !self.name.starts_with(b"/") && !self.name.is_empty() => {
                (self.path.clone(), with(&self.name, b"/"))
            }
            _ => (self.path.clone(), self.name.clone()),
        };
        let is_other = !name.is_empty() && name != path;
        std::iter::once(path).chain(is_other.then_some(name))
    }

    /// What an entry that is bound to this root is bound to.
    pub fn identity(&self) -> Vec<u8> {
        if self.name == self.path { self.path.clone() } else { [&self.path[..], b"\0", &self.name].concat() }
    }
}

/// The place of the one output that a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Output {
    /// Absolute, without the last extension.
    stem: Vec<u8>,
    /// The same as the command spells it.
    given: Vec<u8>,
    /// Where the output's directory lies by the other roots, if it lies in one.
    nesting: Option<RolePath>,
}

/// One build's roots, the longest first, so that a target inside its workspace is found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    roots: Vec<Root>,
    output: Option<Output>,
}

impl Roots {
    /// Roots from absolute directories. A root of one component or less would match too much, and is none.
    pub fn new(roots: impl IntoIterator<Item = Root>) -> Self {
        let long_enough = |path: &[u8]| path.first() == Some(&b'/') && path.iter().filter(|&&b| b == b'/').count() > 1;
        let trimmed = |root: Root| Root { path: trim(root.path), name: trim(root.name), ..root };
        let mut roots: Vec<_> = roots.into_iter().map(trimmed).filter(|root| long_enough(&root.path)).collect();
        roots.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then(a.role.cmp(&b.role)));
        Self { roots, output: None }
    }

    /// With the output that the command spells `given` and that is at `path`, both without extension.
    pub fn with_output(mut self, path: &[u8], given: &[u8]) -> Self {
        let (directory, name) = split(path);
        if directory.len() < 2 {
            return self;
        }
        let nested = self.role_of(directory);
        let stem = path.to_vec();
        let output = Output { stem, given: given.to_vec(), nesting: nested.role.is_some().then_some(nested) };
        let dir = Root::named(Role::OutDir, trim(directory.to_vec()), trim(split(given).0.to_vec()));
        let name = Root::plain(Role::OutName, name.to_vec());
        self.roots.extend([dir, name]);
        self.roots.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then(a.role.cmp(&b.role)));
        self.output = Some(output);
        self
    }

    /// Each root, the longest path first.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    /// The root that plays `role`.
    pub fn get(&self, role: Role) -> Option<&Root> {
        self.iter().find(|root| root.role == role)
    }

    /// What an entry that is bound to the root of this role is bound to.
    pub fn identity(&self, role: Role) -> Option<Vec<u8>> {
        self.get(role).map(Root::identity)
    }

    /// Where the output's directory lies by the other roots: none where it lies in none of them, or there is no output.
    pub fn nesting(&self) -> Option<&RolePath> {
        self.output.as_ref()?.nesting.as_ref()
    }

    /// Whether `path` lies in the directory that the output goes to.
    pub fn is_beside_output(&self, path: &[u8]) -> bool {
        self.get(Role::OutDir).is_some_and(|dir| below(path, &dir.path).is_some())
    }

    /// Whether `path` is named after the output.
    pub fn is_after_output(&self, path: &[u8]) -> bool {
        self.output.as_ref().is_some_and(|output| after(path, &output.stem).is_some_and(|rest| !rest.is_empty()))
    }

    /// The output's path as the command spells it, without extension.
    pub fn given(&self) -> Option<&[u8]> {
        self.output.as_ref().map(|output| output.given.as_slice())
    }

    /// An input's `path` by role.
    pub fn role_of(&self, path: &[u8]) -> RolePath {
        let is_nested = self.nesting().is_some();
        self.by(path, |role| role != Role::OutName && !(role == Role::OutDir && is_nested))
    }

    /// An output's `path` by role.
    pub fn place_of(&self, path: &[u8]) -> RolePath {
        if let Some(rest) = self.output.as_ref().and_then(|output| after(path, &output.stem)) {
            return RolePath { role: Some(Role::Output), rest: rest.to_vec() };
        }
        self.by(path, |role| role != Role::OutName)
    }

    fn by(&self, path: &[u8], counts: impl Fn(Role) -> bool) -> RolePath {
        for root in self.iter().filter(|root| counts(root.role)) {
            let rest = below(path, &root.path).or_else(|| below(path, &root.name).filter(|_| root.name.len() > 1));
            if let Some(rest) = rest {
                return RolePath { role: Some(root.role), rest: rest.to_vec() };
            }
        }
        RolePath { role: None, rest: path.to_vec() }
    }

    /// The absolute path in this build; none where it has no such root.
    pub fn path_of(&self, path: &RolePath) -> Option<Vec<u8>> {
        match path.role {
            None => Some(path.rest.clone()),
            Some(Role::Output) => Some([&self.output.as_ref()?.stem, &path.rest[..]].concat()),
            Some(role) => Some([&self.get(role)?.path, &path.rest[..]].concat()),
        }
    }
}

/// What follows `root` in a path in or at it.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(root).filter(|rest| rest.is_empty() || rest[0] == b'/')
}

/// What follows `stem` in the path of a file that is named after it.
fn after<'a>(path: &'a [u8], stem: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(stem)?;
    (rest.is_empty() || rest[0] == b'.' && !rest.contains(&b'/')).then_some(rest)
}

/// The directory of a path and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at.max(1)], &path[at + 1..]),
        None => (b"", path),
    }
}

fn trim(mut path: Vec<u8>) -> Vec<u8> {
    while path.len() > 1 && path.last() == Some(&b'/') {
        path.pop();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(target: &str, workspace: &str) -> Roots {
        Roots::new([Root::plain(Role::Workspace, workspace.into()), Root::plain(Role::Target, target.into())])
    }

    fn rest(role: Role, rest: &str) -> RolePath {
        RolePath { role: Some(role), rest: rest.into() }
    }

    #[test]
    fn the_longest_root_wins_and_paths_come_back() {
        let here = roots("/a/ws/target/", "/a/ws");
        let there = roots("/b/ws/target", "/b/ws");
        let path = here.role_of(b"/a/ws/target/debug/x");
        assert_eq!(path.role, Some(Role::Target));
        assert_eq!(there.path_of(&path).unwrap(), b"/b/ws/target/debug/x");
        assert_eq!(here.role_of(b"/a/ws").role, Some(Role::Workspace));
    }

    #[test]
    fn neighbours_stay_absolute() {
        let here = roots("/a/ws/target", "/a/ws");
        assert_eq!(here.role_of(b"/a/ws2/x").role, None);
        assert_eq!(here.role_of(b"/a/ws/target2/x"), rest(Role::Workspace, "/target2/x"));
        assert_eq!(here.role_of(b"a/ws/x").role, None);
    }

    #[test]
    fn a_root_that_would_match_everything_is_none() {
        assert_eq!(roots("/", "/home").get(Role::Workspace), None);
        assert_eq!(roots("/", "/a/b").get(Role::Target), None);
    }

    #[test]
    fn a_name_leads_to_the_same_place_as_the_path() {
        let target = Root::named(Role::Target, b"/w/t".into(), b"/w/a/../t".into());
        let here = Roots::new([target, Root::plain(Role::Workspace, b"/w/a".into())]);
        for path in ["/w/t/debug/x", "/w/a/../t/debug/x"] {
            assert_eq!(here.role_of(path.as_bytes()), rest(Role::Target, "/debug/x"), "{path}");
        }
        assert_eq!(here.identity(Role::Target).unwrap(), b"/w/t\0/w/a/../t");
    }

    #[test]
    fn outputs_follow_the_output_and_inputs_beside_it_do_not() {
        let here = Roots::new([Root::plain(Role::Cwd, b"/w/p".into())]).with_output(b"/w/p/b/x.c", b"b/x.c");
        for (path, place, input) in [
            ("/w/p/b/x.c.o", rest(Role::Output, ".o"), rest(Role::Cwd, "/b/x.c.o")),
            ("/w/p/b/x.c", rest(Role::Output, ""), rest(Role::Cwd, "/b/x.c")),
            ("/w/p/b/y.o", rest(Role::OutDir, "/y.o"), rest(Role::Cwd, "/b/y.o")),
            ("/w/p/y.h", rest(Role::Cwd, "/y.h"), rest(Role::Cwd, "/y.h")),
        ] {
            assert_eq!((here.place_of(path.as_bytes()), here.role_of(path.as_bytes())), (place, input), "{path}");
        }
        assert_eq!(here.nesting(), Some(&rest(Role::Cwd, "/b")));
        let there = Roots::new([Root::plain(Role::Cwd, b"/v".into())]).with_output(b"/t/o/y", b"/t/o/y");
        assert_eq!(there.path_of(&rest(Role::Output, ".o")).unwrap(), b"/t/o/y.o");
        assert_eq!((there.nesting(), there.role_of(b"/t/o/h")), (None, rest(Role::OutDir, "/h")));
    }

    #[test]
    fn what_is_named_after_the_output_is_told() {
        let here = Roots::new([]).with_output(b"/w/p/x", b"x");
        assert!(here.is_after_output(b"/w/p/x.gcda") && here.is_beside_output(b"/w/p/y"));
        assert!(!here.is_after_output(b"/w/p/xy.c") && !here.is_beside_output(b"/w/q"));
    }
}
