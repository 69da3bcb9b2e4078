//! Made: what a compile leaves behind, and what it does to what was there: files written, moved, removed. Part of
//! `distill`, and pure as that is.

use zcache_proto::trace;

use super::Distiller;
use crate::distilled::moved;
use crate::observation::Record;
use crate::refusal::Refusal;

impl Distiller<'_, '_> {
    pub(super) fn written(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool) {
        if self.family.is_state(&path) {
            return;
        }
        if self.out.contents.contains_key(&path) && !self.is_made(&path) {
            self.out.refusals.insert(Refusal::RewritesInput(path.clone()));
        }
        let fresh = record.has(trace::TRUNCATE) || record.has(trace::EXCLUSIVE) || self.is_made(&path);
        // It may append to what is there: only where nothing is, the result is all that there will be.
        if !fresh && self.out.modified.insert(path.clone()) {
            self.out.absent_before.insert(path.clone());
        }
        if record.has(trace::EXCLUSIVE) {
            return self.make_new(path, own);
        }
        self.make(path);
    }

    /// Makes what cannot have been there before.
    pub(super) fn make_new(&mut self, path: Vec<u8>, own: bool) {
        if !own && !self.is_internal(&path) {
            self.out.absent_before.insert(path.clone());
        }
        self.make(path);
    }

    fn make(&mut self, path: Vec<u8>) {
        if !self.family.is_state(&path) {
            self.made.insert(path.clone());
            self.out.outputs.insert(path);
        }
    }

    pub(super) fn directory(&mut self, path: Vec<u8>, own: bool) {
        if !own && !self.is_internal(&path) {
            self.out.absent_before.insert(path.clone());
        }
        if !self.family.is_state(&path) {
            self.made.insert(path.clone());
            self.out.directories.insert(path);
        }
    }

    pub(super) fn renamed(&mut self, from: Vec<u8>, to: Vec<u8>) {
        if self.family.is_state(&from) && self.family.is_state(&to) {
            return;
        }
        if !self.is_made(&from) {
            self.out.refusals.insert(Refusal::Moves(from.clone()));
        }
        let outputs = moved(&mut self.out.outputs, &from, &to, &mut self.movable);
        if outputs.and_then(|()| moved(&mut self.out.directories, &from, &to, &mut self.movable)).is_none() {
            self.out.refusals.insert(Refusal::Moves(from));
        }
        self.made.insert(to);
    }

    pub(super) fn removed(&mut self, path: Vec<u8>) {
        self.out.outputs.remove(&path);
        self.out.directories.remove(&path);
        if !self.is_internal(&path) {
            // Often an old output, about to be replaced.
            self.out.modified.insert(path);
        }
    }
}
