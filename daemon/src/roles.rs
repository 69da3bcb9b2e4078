//! Roles: which absolute paths belong to the checkout being built, so that an entry can serve another one.
//! Pure: knows no file system and no compiler.

use serde::{Deserialize, Serialize};

/// A directory whose place differs from checkout to checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Where the build puts what it makes: cargo's target directory.
    Target,
    /// The directory the compiler runs in: the workspace, or the unpacked package of a registry.
    Workspace,
    /// A source with a random name that asks a compiler what it is.
    Probe,
}

/// A path, relative to a role's root where it lies below one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RolePath {
    /// The root it is below; none where the path is absolute.
    pub role: Option<Role>,
    /// The rest, from the root's end (empty, or beginning with a slash), or the whole path.
    #[serde(with = "serde_bytes")]
    pub rest: Vec<u8>,
}

/// One checkout's roots, the longest first, so that a target inside its workspace is found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots(Vec<(Role, Vec<u8>)>);

impl Roots {
    /// Roots from absolute directories. A root of one component or less would match too much, and is none.
    pub fn new(roots: impl IntoIterator<Item = (Role, Vec<u8>)>) -> Self {
        let mut roots: Vec<_> = roots
            .into_iter()
            .map(|(role, path)| (role, trim(path)))
            .filter(|(_, path)| path.first() == Some(&b'/') && path.iter().filter(|&&b| b == b'/').count() > 1)
            .collect();
        roots.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.cmp(b)));
        Self(roots)
    }

    /// Each root with its path, the longest path first.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &[u8])> {
        self.0.iter().map(|(role, path)| (*role, path.as_slice()))
    }

    /// The directory that plays `role`.
    pub fn get(&self, role: Role) -> Option<&[u8]> {
        self.iter().find(|(r, _)| *r == role).map(|(_, path)| path)
    }

    /// `path` by role.
    pub fn role_of(&self, path: &[u8]) -> RolePath {
        for (role, root) in self.iter() {
            if let Some(rest) = path.strip_prefix(root)
                && (rest.is_empty() || rest[0] == b'/')
            {
                return RolePath { role: Some(role), rest: rest.to_vec() };
            }
        }
        RolePath { role: None, rest: path.to_vec() }
    }

    /// The absolute path in this checkout; none where it has no such root.
    pub fn path_of(&self, path: &RolePath) -> Option<Vec<u8>> {
        match path.role {
            None => Some(path.rest.clone()),
            Some(role) => Some([self.get(role)?, &path.rest].concat()),
        }
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
        Roots::new([(Role::Workspace, workspace.into()), (Role::Target, target.into())])
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
        assert_eq!(
            here.role_of(b"/a/ws/target2/x"),
            RolePath { role: Some(Role::Workspace), rest: b"/target2/x".into() }
        );
        assert_eq!(here.role_of(b"a/ws/x").role, None);
    }

    #[test]
    fn a_root_that_would_match_everything_is_none() {
        assert_eq!(roots("/", "/home").get(Role::Workspace), None);
        assert_eq!(roots("/", "/a/b").get(Role::Target), None);
    }
}
