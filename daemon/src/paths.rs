//! Paths: what a path says of itself, whatever is there, and how it is written plainly.
//! Pure.

/// Without `//` and `/./`, which name the same thing; `..` stays, since a link may stand before it.
pub fn tidy(path: &[u8]) -> Vec<u8> {
    // Nearly all are; a name that begins with a dot is looked at more closely.
    let is_tidy = path.len() > 1 && path[0] == b'/' && !path.ends_with(b"/");
    if is_tidy && !path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.')) {
        return path.to_vec();
    }
    let mut tidy = Vec::with_capacity(path.len());
    for component in path.split(|&b| b == b'/').filter(|component| !component.is_empty() && *component != b".") {
        tidy.push(b'/');
        tidy.extend_from_slice(component);
    }
    if tidy.is_empty() { b"/".to_vec() } else { tidy }
}

/// Longest path, bytes: the kernel takes none that is longer.
const PATH_MAX: usize = 4095;

/// Whether a path leads from the root to a file or directory by names alone.
pub fn is_plain(path: &[u8]) -> bool {
    let name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    path.strip_prefix(b"/").is_some_and(|rest| rest.len() < PATH_MAX && rest.split(|&b| b == b'/').all(name))
}

/// `path` without `..` and the names before them: the same directory, where none of those is a link.
pub fn without_parents(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".") {
        match name {
            b".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    [b"/", names.join(&b'/').as_slice()].concat()
}

/// A directory that has two names: the one by which a command calls it, and the one without links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// As the command calls it.
    pub named: Vec<u8>,
    /// Where that leads.
    pub real: Vec<u8>,
}

impl Alias {
    /// What lies below the directory, by the command's name; none for what does not.
    pub fn name(&self, path: &[u8]) -> Option<Vec<u8>> {
        let rest = path.strip_prefix(self.real.as_slice()).filter(|rest| rest.first() == Some(&b'/'))?;
        Some([&self.named, rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_way_from_the_root_is_told() {
        for path in ["/a", "/a/b.c", "/...", "/a/..b"] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
        for path in ["", "/", "a", "a/b", "/a/", "//a", "/a/../b", "/..", "/a/.", "/a\0b"] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn parents_are_taken_away_with_what_they_undo() {
        assert_eq!(without_parents(b"/a/b/../../c"), b"/c");
        assert_eq!(without_parents(b"/a/../../../c"), b"/c");
        assert_eq!(without_parents(b"/a/.."), b"/");
    }

    #[test]
    fn one_place_has_one_plain_name() {
        assert_eq!(tidy(b"//a/./b//c/"), b"/a/b/c");
        assert_eq!(tidy(b"/a/../b"), b"/a/../b");
        assert_eq!(tidy(b"/"), b"/");
    }
}
