//! Twins: paths that a C compiler may take for one file or directory. gcc and clang include a file once (`#pragma once`,
//! `#import`) and search a directory once (`-I`), and judge which is which by the inode, or, in the case of gcc's files, by
//! time to the second, length and content. So of two files of one content it is an input whether they are one, and whether
//! they are of one time; files of different contents are never taken for each other. Of directories, whose contents
//! nobody compares, it is an input of all that were looked at which of them are one. Pure.

use serde::{Deserialize, Serialize};

use crate::manifest::Kind;
use crate::roles::RolePath;

/// What a look at a path, links followed, tells of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What it is.
    pub kind: Kind,
    /// Device and inode.
    pub file: (u64, u64),
    /// When it was last changed, seconds since 1970.
    pub mtime_s: i64,
}

/// One of several paths, and the first of them that is the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Twin {
    /// Where.
    pub path: RolePath,
    /// The first that is the same file or directory.
    file: u32,
    /// The first file of the same time; a directory's time changes with whatever is put into it.
    time: Option<u32>,
}

/// How `paths` relate to each other, which are at least two, by what a look at each says.
pub fn twins(paths: Vec<(RolePath, Look)>) -> Vec<Twin> {
    let looks: Vec<Look> = paths.iter().map(|(_, look)| *look).collect();
    let twin = |(path, look): (RolePath, Look)| Twin { path, file: file(&looks, &look), time: time(&looks, &look) };
    paths.into_iter().map(twin).collect()
}

/// Whether they relate as they did, by what a look at each says now.
pub fn relate(twins: &[Twin], looks: &[Look]) -> bool {
    let same = |(twin, look): (&Twin, &Look)| (twin.file, twin.time) == (file(looks, look), time(looks, look));
    twins.len() == looks.len() && twins.iter().zip(looks).all(same)
}

fn file(looks: &[Look], look: &Look) -> u32 {
    first(looks, |other| other.file == look.file)
}

fn time(looks: &[Look], look: &Look) -> Option<u32> {
    (look.kind == Kind::File).then(|| first(looks, |other| other.mtime_s == look.mtime_s))
}

fn first(looks: &[Look], is: impl FnMut(&Look) -> bool) -> u32 {
    looks.iter().position(is).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(file: u64, mtime_s: i64) -> Look {
        Look { kind: Kind::File, file: (1, file), mtime_s }
    }

    #[test]
    fn what_parts_or_meets_is_noticed_and_what_moves_together_is_not() {
        let path = RolePath { role: None, rest: b"/x".into() };
        let of = |looks: &[Look]| twins(looks.iter().map(|look| (path.clone(), *look)).collect());
        let (one, apart, copies) = ([look(1, 5), look(1, 5)], [look(1, 5), look(2, 6)], [look(1, 5), look(2, 5)]);
        for state in [one, apart, copies] {
            for now in [one, apart, copies] {
                assert_eq!(relate(&of(&state), &now), state == now, "{state:?} {now:?}");
            }
        }
        assert!(relate(&of(&one), &[look(7, 9), look(7, 9)]), "a fresh checkout");
        let directory = |file| Look { kind: Kind::Directory, ..look(file, file as i64) };
        assert!(relate(&of(&[directory(1), directory(2)]), &[directory(4), Look { mtime_s: 4, ..directory(3) }]));
    }
}
