//! Tests of the manifest's walk, over facts held in memory.

use std::collections::HashMap;

use super::*;
use crate::roles::Root;

#[derive(Default)]
struct Memory {
    roots: Roots,
    files: HashMap<Vec<u8>, Vec<u8>>,
    env: HashMap<Vec<u8>, Vec<u8>>,
}

impl Facts for Memory {
    fn roots(&self) -> &Roots {
        &self.roots
    }
    fn content(&mut self, path: &[u8]) -> Option<Digest> {
        self.files.get(path).map(|bytes| Digest::of(bytes))
    }
    fn look(&mut self, path: &[u8]) -> Option<Look> {
        self.files.contains_key(path).then_some(Look { kind: Kind::File, file: (0, 0), mtime_s: 0 })
    }
    fn listing(&mut self, _: &[u8]) -> Option<Digest> {
        None
    }
    fn leads(&mut self, _: &[u8], _: &[u8]) -> bool {
        false
    }
    fn resolves(&mut self, at: &[u8], target: &[u8]) -> bool {
        at == target
    }
    fn terminal(&self) -> Terminal {
        Terminal::default()
    }
    fn display(&self) -> Digest {
        Digest::of(b"")
    }
    fn called(&self) -> &[u8] {
        b"cc"
    }
    fn env(&self, name: &[u8]) -> Option<&[u8]> {
        self.env.get(name).map(Vec::as_slice)
    }
    fn environment(&mut self) -> Digest {
        Digest::of(b"")
    }
    fn system(&mut self, _: Question) -> Option<Digest> {
        None
    }
    fn library(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn attributes(&mut self, _: &[u8]) -> Option<Attributes> {
        None
    }
    fn which(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        self.files.keys().find(|path| path.ends_with(name)).cloned()
    }
}

fn path(text: &str) -> RolePath {
    RolePath { role: None, rest: text.into() }
}

fn entry(expectations: Vec<Expectation>, exit_code: i32) -> Entry {
    Entry { expectations, result: ActionResult { exit_code, ..ActionResult::default() } }
}

#[test]
fn a_header_that_appears_earlier_in_the_path_is_a_miss() {
    let mut facts = Memory::default();
    facts.files.insert(b"/a/foo.h".into(), b"1".into());
    let mut manifest = Manifest::default();
    manifest.insert(entry(
        vec![Expectation::Absent(path("/b/foo.h")), Expectation::Content(path("/a/foo.h"), Digest::of(b"1"))],
        0,
    ));
    assert_eq!(manifest.find(&mut facts), Ok(0));
    facts.files.insert(b"/b/foo.h".into(), b"2".into());
    assert_eq!(manifest.find(&mut facts), Err(Some(&Expectation::Absent(path("/b/foo.h")))));
}

#[test]
fn each_state_finds_its_own_result_and_the_used_one_moves_up() {
    let mut facts = Memory::default();
    let mut manifest = Manifest::default();
    for (value, code) in [("a", 1), ("b", 2)] {
        manifest.insert(entry(vec![Expectation::Env(b"V".into(), Some(Digest::of(value.as_bytes())))], code));
    }
    manifest.insert(entry(vec![Expectation::Env(b"V".into(), None)], 3));
    for (value, code) in [(Some("a"), 1), (Some("b"), 2), (None, 3)] {
        match value {
            Some(value) => facts.env.insert(b"V".into(), value.into()),
            None => facts.env.remove(b"V".as_slice()),
        };
        let found = manifest.find(&mut facts).unwrap();
        assert_eq!(manifest.entries[found].result.exit_code, code);
        let entry = manifest.entries[found].clone();
        manifest.touch(&entry);
        assert_eq!(manifest.entries[0].result.exit_code, code);
    }
    facts.env.insert(b"V".into(), b"c".into());
    assert!(manifest.find(&mut facts).is_err());
}

#[test]
fn the_number_of_results_is_bounded() {
    let mut manifest = Manifest::default();
    for code in 0..100 {
        manifest.insert(entry(vec![Expectation::Env(code.to_string().into(), None)], code));
    }
    assert_eq!(manifest.entries.len(), ENTRIES_MAX);
    assert_eq!(manifest.entries[0].result.exit_code, 99);
}

#[test]
fn a_checkouts_own_path_binds_the_result_to_it() {
    let expectation = Expectation::Root(Role::Workspace, b"/a/ws".into());
    let mut facts =
        Memory { roots: Roots::new([Root::plain(Role::Workspace, b"/a/ws".to_vec())]), ..Memory::default() };
    assert!(expectation.holds(&mut facts));
    facts.roots = Roots::new([Root::plain(Role::Workspace, b"/b/ws".to_vec())]);
    assert!(!expectation.holds(&mut facts));
}
