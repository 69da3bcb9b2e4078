//! Template: text in which a build's own paths are kept by role, to be filled in for another build.
//! Used for arguments, diagnostics, artifact messages and depfiles. Pure.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::fold::{Fold, folded, unfolded};
use crate::roles::{Role, Root, Roots};

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

/// All of them.
pub const SPELLINGS: [Spelling; 3] = [Spelling::Plain, Spelling::Json, Spelling::Make];

/// By which of its two texts a root stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Called {
    Path,
    Name,
}

impl Called {
    fn of(self, root: &Root) -> &[u8] {
        match self {
            Self::Path => &root.path,
            Self::Name => &root.name,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Part {
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
    Root(Role, Called, Spelling),
    /// The output as the command spells it, without extension.
    Given(Spelling),
    /// The directory before the last slash of that.
    GivenDir(Spelling),
}

impl Part {
    /// The bytes that stand for it in a build with these roots, and how they are spelled.
    fn shown<'a>(&'a self, roots: &'a Roots) -> Option<(&'a [u8], Spelling)> {
        match self {
            Self::Text(text) => Some((text, Spelling::Plain)),
            Self::Root(role, called, spelling) => Some((called.of(roots.get(*role)?), *spelling)),
            Self::Given(spelling) => Some((roots.given()?, *spelling)),
            Self::GivenDir(spelling) => {
                let given = roots.given()?;
                Some((&given[..given.iter().rposition(|&b| b == b'/')?], *spelling))
            }
        }
    }
}

/// Text with roots by role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Template {
    parts: Vec<Part>,
    /// How its lines are broken anew for other roots.
    fold: Fold,
}

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
        Self::plain(parts)
    }

    fn plain(parts: Vec<Part>) -> Self {
        Self { parts, fold: Fold::Kept }
    }

    /// An argument that may name the output, or what goes with it, as the command spells it: the name and the directory
    /// of the output are the caller's to choose, like the checkout.
    pub fn of_output_argument(argument: &[u8], roots: &Roots) -> Self {
        Self::after_output(argument, roots, Spelling::Plain).unwrap_or_else(|| Self::of(argument, roots))
    }

    /// A dependency file: its first rule begins with the output as the command spells it, and is broken into lines in
    /// one of the ways that `way` allows.
    pub fn of_depfile(text: &[u8], roots: &Roots, way: Fold) -> Self {
        let (text, fold) = unfolded(text, way);
        let ends = |at: &usize| matches!(text[*at], b':' | b' ' | b'\n') && (*at == 0 || text[*at - 1] != b'\\');
        let end = (0..text.len()).find(ends).unwrap_or(text.len());
        let mut all = Self::after_output(&text[..end], roots, Spelling::Make).map_or(Vec::new(), |target| target.parts);
        all.extend(Self::of(if all.is_empty() { &text } else { &text[end..] }, roots).parts);
        Self { parts: all, fold }
    }

    /// `word`, where it begins with the output as the command spells it or with that one's directory.
    fn after_output(word: &[u8], roots: &Roots, spelling: Spelling) -> Option<Self> {
        let given = spell(roots.given()?, spelling);
        let text = |rest: &[u8]| (!rest.is_empty()).then(|| Part::Text(rest.to_vec()));
        if let Some(rest) = word.strip_prefix(given.as_slice())
            && matches!(rest.first(), None | Some(b'.'))
        {
            return Some(Self::plain([Part::Given(spelling)].into_iter().chain(text(rest)).collect()));
        }
        let dir = &given[..given.iter().rposition(|&b| b == b'/')?];
        let rest = word.strip_prefix(dir).filter(|rest| rest.first() == Some(&b'/') && !dir.is_empty())?;
        Some(Self::plain([Part::GivenDir(spelling)].into_iter().chain(text(rest)).collect()))
    }

    /// What stands between the roots.
    pub fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text.as_slice()) } else { None })
    }

    /// The text for another build; none where it lacks a root, or where no compiler can have written so much.
    pub fn render(&self, roots: &Roots) -> Option<Vec<u8>> {
        let length = self.parts.iter().try_fold(0, |sum: usize, part| sum.checked_add(part.shown(roots)?.0.len()));
        let mut text = Vec::with_capacity(length.filter(|length| *length <= RENDERED_MAX)?);
        for part in &self.parts {
            match part.shown(roots)? {
                (bytes, Spelling::Plain) => text.extend_from_slice(bytes),
                (path, spelling) => text.extend(spell(path, spelling)),
            }
        }
        folded(&text, self.fold)
    }
}

/// Whether `bytes` contain the path of a root: these bytes are right in that checkout only. A longer name that begins
/// alike counts too, since literals stand in a program without anything between them.
pub fn names_root(bytes: &[u8], root: &[u8]) -> bool {
    memmem::find(bytes, root).is_some()
}

struct Needle {
    part: Part,
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
    for root in roots.iter().filter(|root| root.role != Role::OutName) {
        for called in [Called::Path, Called::Name] {
            for spelling in SPELLINGS {
                let bytes = spell(called.of(root), spelling);
                if bytes.first() == Some(&b'/') && needles.iter().all(|needle| needle.bytes != bytes) {
                    needles.push(Needle { part: Part::Root(root.role, called, spelling), bytes, found: None });
                }
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
        .map(|(at, needle)| (at, needle.bytes.len(), needle.part.clone()))
}

/// Whether a directory's name ends before `rest`, rather than going on as another directory's.
fn ends_here(rest: &[u8]) -> bool {
    !matches!(rest.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'+' | b'\\' | 0x80..))
}

/// A path in a spelling.
pub fn spell(path: &[u8], spelling: Spelling) -> Vec<u8> {
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
        let target = format!("{workspace}/target").into();
        Roots::new([Root::plain(Role::Workspace, workspace.into()), Root::plain(Role::Target, target)])
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
        let target = Root::plain(Role::Target, b"/never/there".into());
        let roots = Roots::new([Root::plain(Role::Workspace, b"/a/ws".into()), target]);
        let text = b"/a/ws ".repeat(500_000);
        let began = std::time::Instant::now();
        assert_eq!(Template::of(&text, &roots).render(&roots).unwrap(), text);
        assert!(began.elapsed().as_secs() < 30, "it takes minutes where each root is searched to the end each time");
    }

    #[test]
    fn what_grows_without_bounds_is_not_rendered() {
        let parts = vec![Part::Root(Role::Workspace, Called::Path, Spelling::Plain); 100_000];
        let long = Roots::new([Root::plain(Role::Workspace, [b"/a/".to_vec(), vec![b'x'; 4000]].concat())]);
        assert_eq!(Template::plain(parts).render(&long), None);
    }

    #[test]
    fn a_depfile_names_the_output_as_the_command_does() {
        let roots = |path: &str, given: &str| Roots::new([]).with_output(path.as_bytes(), given.as_bytes());
        let here = roots("/w/b/x y.c", "b/x y.c");
        for (text, want) in [
            (r"b/x\ y.c.o: x.c \\", r"c/z.o: x.c \\"),
            (r"b/other.o: x.c", r"c/other.o: x.c"),
            ("named: b/x.c", "named: b/x.c"),
        ] {
            let got = Template::of_depfile(text.as_bytes(), &here, Fold::Either);
            assert_eq!(got.render(&here).unwrap(), text.as_bytes());
            assert_eq!(String::from_utf8(got.render(&roots("/w/c/z", "c/z")).unwrap()).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn bytes_are_searched_as_paths() {
        assert!(names_root(b"\0/a/ws\0", b"/a/ws"));
        assert!(names_root(b"/a/wshello", b"/a/ws"));
        assert!(!names_root(b"/a/w/s", b"/a/ws"));
    }
}
