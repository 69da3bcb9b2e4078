//! Template: text in which the checkout's own paths are kept by role, to be filled in for another checkout.
//! Used for arguments, diagnostics, artifact messages and depfiles. Pure.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::roles::{Role, Roots};

/// Longest text that is rendered, bytes: longer than any that is kept.
const RENDERED_MAX: usize = 64 << 20;

/// How a path is spelled in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Spelling {
    /// As it is.
    Plain,
    /// Inside a JSON string.
    Json,
    /// In a makefile rule, spaces escaped.
    Make,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Part {
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
    Root(Role, Spelling),
}

/// Text with roots by role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Template(Vec<Part>);

impl Template {
    /// Takes the paths of `roots` out of `text`. Rendering with the same roots gives `text` back.
    pub fn of(text: &[u8], roots: &Roots) -> Self {
        let mut needles = needles(roots);
        let mut parts = Vec::new();
        let mut from = 0;
        while let Some((at, len, part)) = first(text, from, &mut needles) {
            if at > from {
                parts.push(Part::Text(text[from..at].to_vec()));
            }
            parts.push(part);
            from = at + len;
        }
        if from < text.len() {
            parts.push(Part::Text(text[from..].to_vec()));
        }
        Self(parts)
    }

    /// The text for another checkout; none where it lacks a root, or where no compiler can have written so much.
    pub fn render(&self, roots: &Roots) -> Option<Vec<u8>> {
        let length = |part: &Part| match part {
            Part::Text(bytes) => Some(bytes.len()),
            Part::Root(role, _) => Some(roots.get(*role)?.len()),
        };
        let length = self.0.iter().try_fold(0, |sum: usize, part| sum.checked_add(length(part)?));
        let mut text = Vec::with_capacity(length.filter(|length| *length <= RENDERED_MAX)?);
        for part in &self.0 {
            match part {
                Part::Text(bytes) => text.extend_from_slice(bytes),
                Part::Root(role, spelling) => text.extend_from_slice(&spell(roots.get(*role)?, *spelling)),
            }
        }
        Some(text)
    }
}

/// Whether `bytes` contain the path of a root: these bytes are right in that checkout only. A longer name that begins
/// alike counts too, since literals stand in a program without anything between them.
pub fn names_root(bytes: &[u8], root: &[u8]) -> bool {
    memmem::find(bytes, root).is_some()
}

struct Needle {
    role: Role,
    spelling: Spelling,
    bytes: Vec<u8>,
    /// Where it was found last, if it was searched for: each part of a text is searched once.
    found: Option<Option<usize>>,
}

impl Needle {
    /// The first place from `from` on.
    fn find(&mut self, text: &[u8], from: usize) -> Option<usize> {
        if self.found.is_none_or(|found| found.is_some_and(|at| at < from)) {
            let len = self.bytes.len();
            let mut places = memmem::find_iter(&text[from..], &self.bytes).map(|at| from + at);
            self.found = Some(places.find(|at| ends_here(&text[at + len..])));
        }
        self.found?
    }
}

fn needles(roots: &Roots) -> Vec<Needle> {
    let mut needles: Vec<Needle> = Vec::new();
    for (role, root) in roots.iter() {
        for spelling in [Spelling::Plain, Spelling::Json, Spelling::Make] {
            let bytes = spell(root, spelling);
            if needles.iter().all(|needle| needle.bytes != bytes) {
                needles.push(Needle { role, spelling, bytes, found: None });
            }
        }
    }
    needles
}

/// The earliest root in `text` from `from` on, the longest where two begin at one place.
fn first(text: &[u8], from: usize, needles: &mut [Needle]) -> Option<(usize, usize, Part)> {
    needles
        .iter_mut()
        .filter_map(|needle| Some((needle.find(text, from)?, needle)))
        .min_by_key(|(at, needle)| (*at, std::cmp::Reverse(needle.bytes.len())))
        .map(|(at, needle)| (at, needle.bytes.len(), Part::Root(needle.role, needle.spelling)))
}

/// Whether a directory's name ends before `rest`, rather than going on as another directory's.
fn ends_here(rest: &[u8]) -> bool {
    !matches!(rest.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'+' | b'\\' | 0x80..))
}

fn spell(path: &[u8], spelling: Spelling) -> Vec<u8> {
    let mut spelled = Vec::with_capacity(path.len());
    for &byte in path {
        match (spelling, byte) {
            (Spelling::Json, b'"' | b'\\') | (Spelling::Make, b' ' | b'#') => spelled.extend([b'\\', byte]),
            (Spelling::Make, b'$') => spelled.extend(b"$$"),
            (Spelling::Json, 0..=0x1f) => spelled.extend(format!("\\u{byte:04x}").bytes()),
            _ => spelled.push(byte),
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(workspace: &str) -> Roots {
        Roots::new([(Role::Workspace, workspace.into()), (Role::Target, format!("{workspace}/target").into())])
    }

    fn moved(text: &str, from: &str, to: &str) -> String {
        let template = Template::of(text.as_bytes(), &roots(from));
        assert_eq!(template.render(&roots(from)).unwrap(), text.as_bytes(), "the same roots give the same text");
        String::from_utf8(template.render(&roots(to)).unwrap()).unwrap()
    }

    #[test]
    fn paths_move_with_the_checkout() {
        let text = "/a/ws/target/d/x.d: /a/ws/src/lib.rs /a/ws-2/y /etc\n# env-dep:OUT_DIR=/a/ws/target/o";
        let want = "/b/c/target/d/x.d: /b/c/src/lib.rs /a/ws-2/y /etc\n# env-dep:OUT_DIR=/b/c/target/o";
        assert_eq!(moved(text, "/a/ws", "/b/c"), want);
        assert_eq!(moved("-L/a/ws", "/a/ws", "/b/c"), "-L/b/c");
        assert_eq!(moved("", "/a/ws", "/b/c"), "");
    }

    #[test]
    fn each_spelling_is_kept() {
        assert_eq!(moved(r"/a/w\ s/x: y", "/a/w s", "/b/c d"), r"/b/c\ d/x: y");
        assert_eq!(moved(r#"{"p":"/a/w\"s/x"}"#, r#"/a/w"s"#, r#"/b/"d"#), r#"{"p":"/b/\"d/x"}"#);
        assert_eq!(moved("/a/w s/x", "/a/w s", "/b/cd"), "/b/cd/x");
    }

    #[test]
    fn a_long_text_is_read_once() {
        let roots = Roots::new([(Role::Workspace, b"/a/ws".into()), (Role::Target, b"/never/there".into())]);
        let text = b"/a/ws ".repeat(500_000);
        let began = std::time::Instant::now();
        assert_eq!(Template::of(&text, &roots).render(&roots).unwrap(), text);
        assert!(began.elapsed().as_secs() < 30, "it takes minutes where each root is searched to the end each time");
    }

    #[test]
    fn what_grows_without_bounds_is_not_rendered() {
        let parts = vec![Part::Root(Role::Workspace, Spelling::Plain); 100_000];
        let long = Roots::new([(Role::Workspace, [b"/a/".to_vec(), vec![b'x'; 4000]].concat())]);
        assert_eq!(Template(parts).render(&long), None);
    }

    #[test]
    fn bytes_are_searched_as_paths() {
        assert!(names_root(b"\0/a/ws\0", b"/a/ws"));
        assert!(names_root(b"/a/wshello", b"/a/ws"));
        assert!(!names_root(b"/a/w/s", b"/a/ws"));
    }
}
