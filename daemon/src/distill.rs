//! Distill: what the records of an observation mean. Out come the inputs of a compile, what it leaves behind, and
//! the reasons for which it must not be stored. Pure: paths are taken as seen, nothing is looked up on disk.

use std::collections::BTreeSet;

use zcache_proto::trace;

use crate::compilers::rustc::is_rustc;
use crate::compilers::toolchain::{file_name, is_terminal_library, owns};
use crate::compilers::zig::{is_launcher, is_zig};
use crate::compilers::{EnvRule, Family};
use crate::distilled::{Distilled, Reading, covers, moved};
use crate::images::{Image, Images};
use crate::invocation::{Env, Invocation};
use crate::manifest::Kind;
use crate::observation::Record;
use crate::paths::{Alias, tidy};
use crate::places::Place;
use crate::refusal::Refusal;

/// Most renaming that is followed, bytes of paths. No compile renames so much.
const MOVABLE: usize = 64 << 20;
const ENOENT: u32 = 2;
const ENOTDIR: u32 = 20;
const ENAMETOOLONG: u32 = 36;
const S_IFMT: u64 = 0o170_000;

/// What is known of the world in which a compile ran.
pub struct Scene<'a> {
    /// Where it puts its outputs.
    pub alias: Option<&'a Alias>,
    /// What a path leads to.
    pub place: &'a mut dyn FnMut(&[u8]) -> Place,
    /// Inodes of the pipes by which its output and messages are kept.
    pub streams: &'a [u64],
}

/// Reads `records`, which a compile of `family` for `call` left.
pub fn distill(records: &[Record<'_>], family: &dyn Family, call: &Invocation, scene: Scene<'_>) -> Distilled {
    let images = Images::of(records, call.pid, &call.program);
    let Invocation { env, argv, .. } = call;
    let (made, out) = (BTreeSet::new(), Distilled::default());
    let mut distiller = Distiller { family, env, argv, scene, images: &images, made, movable: MOVABLE, out };
    distiller.programs();
    for (index, record) in records.iter().enumerate() {
        if !images.is_exempt(index) && !distiller.calls_back(index, record) {
            distiller.record(record, images.of_record(index), images.failure(index));
        }
    }
    distiller.finish()
}

struct Distiller<'a, 's> {
    family: &'a dyn Family,
    env: &'a Env,
    argv: &'a [Vec<u8>],
    scene: Scene<'s>,
    images: &'a Images,
    /// Whatever the tree itself made, kept or not: what is read from there follows from other inputs.
    made: BTreeSet<Vec<u8>>,
    /// How much renaming is followed yet, bytes of paths.
    movable: usize,
    out: Distilled,
}

impl Distiller<'_, '_> {
    fn programs(&mut self) {
        for program in self.images.unobserved() {
            let _ = match self.family.zig().is_some() && (is_zig(program) || is_launcher(program)) {
                true => self.out.declaring.insert(program.clone()),
                false => self.out.refusals.insert(Refusal::Unobserved(program.clone())),
            };
        }
        self.out.refusals.extend(self.images.away().map(|program| Refusal::OtherNamespace(program.to_vec())));
        for image in self.images.iter() {
            self.out.environment |= !image.is_tool;
            self.out.strangers |= !image.is_tool;
            let libraries = image.modules().filter(|module| module.path != image.program);
            self.out.libraries.extend(libraries.map(|module| (file_name(&module.path).to_vec(), None)));
        }
        // The dynamic linker asks for these before anyone can watch.
        self.out.env.extend([b"LD_PRELOAD".to_vec(), b"LD_AUDIT".to_vec(), b"GLIBC_TUNABLES".to_vec()]);
        for name in self.family.unseen_env() {
            self.asked(name, self.family.env_rule(name));
        }
    }

    /// Whether a record starts a zcache client. That is no input: the client finds the program that it stands for along
    /// the same PATH, and reports what that does by itself.
    fn calls_back(&mut self, index: usize, record: &Record<'_>) -> bool {
        let calls = self.images.starts_client(index);
        if calls && !record.b.is_empty() {
            self.out.names.insert(record.b.to_vec(), Some(tidy(record.a)));
        }
        calls
    }

    fn record(&mut self, record: &Record<'_>, image: Option<&Image>, failure: Option<u32>) {
        let caller = image.and_then(|image| image.module_at(record.caller));
        let own = caller.is_some_and(|module| module.is_own);
        let launches = image.is_some_and(|image| !self.out.declaring.is_empty() && is_launcher(&image.program));
        if record.is_relative() {
            // The directory it is relative to is gone.
            self.out.refusals.insert(Refusal::Unreadable(record.a.to_vec()));
            return;
        }
        let path = self.as_made(tidy(record.a));
        let place = if names_file(record.kind) { (self.scene.place)(&path) } else { Place::Disk };
        if place != Place::Disk || record.has(trace::DEVICE | trace::STREAM) {
            return self.special(path, record, own, image, place);
        }
        match record.kind {
            trace::EXEC | trace::SPAWN if record.a.is_empty() => {
                self.out.names.insert(record.b.to_vec(), None);
            }
            trace::EXEC if failure.is_some_and(|errno| errno != 0) => self.failed(path, failure.unwrap_or(0), own),
            trace::WRITE | trace::RENAME | trace::LINK | trace::SYMLINK | trace::REMOVE | trace::MKDIR
                if record.errno != 0 =>
            {
                self.failed(
                    if record.b.is_empty() || record.kind == trace::SYMLINK { path } else { tidy(record.b) },
                    record.errno,
                    own,
                );
            }
            trace::START => self.read(path, record),
            trace::MODULE => self.module(path, record, image),
            trace::READ => self.opened(path, record, own, image),
            trace::WRITE => self.written(path, record, own),
            trace::STAT => self.stat(path, record, own),
            trace::LIST => self.listed(path, record, own || launches),
            trace::READLINK => self.link(path, record, own),
            trace::GETENV => self.variable(record, own),
            trace::EXEC | trace::SPAWN => self.program(path, record),
            trace::RENAME => self.renamed(path, self.as_made(tidy(record.b))),
            trace::LINK => self.make_new(tidy(record.b), own),
            trace::SYMLINK => self.make_new(path, own),
            trace::REMOVE => self.removed(path),
            trace::MKDIR => self.directory(path, own),
            trace::CLOCK if self.tells_time(record, image, own) && !launches => {
                self.out.refusals.insert(Refusal::Clock);
            }
            trace::SOCKET => {
                self.out.refusals.insert(Refusal::Socket);
            }
            trace::GETCWD if own => drop(self.out.told.insert(path)),
            trace::SYSTEM if !own => self.asked_system(record.value, image),
            trace::GETCWD => self.out.asks_cwd = true,
            _ => {}
        }
    }

    /// Whether a reading of the clock may show in the result.
    fn tells_time(&self, record: &Record<'_>, image: Option<&Image>, own: bool) -> bool {
        // Who asks for a date writes it down: `__TIMESTAMP__`, however it is spelled, or an assembler's listing.
        let Some(image) = image.filter(|_| record.value != trace::LOCAL) else { return true };
        if own && self.family.is_compiler(&image.program) {
            // A random seed is no date.
            let asks = image.module_at(record.caller);
            return record.value == trace::TIME && !asks.is_some_and(|module| is_terminal_library(&module.path));
        }
        !own && !is_tool_of(image, record)
    }

    /// Whether `path` is no input, whatever is done to it.
    fn is_internal(&self, path: &[u8]) -> bool {
        self.family.is_state(path) || self.is_made(path)
    }

    fn is_made(&self, path: &[u8]) -> bool {
        covers(&self.made, path)
    }

    /// The name by which the tree made `path` or the compiler keeps it: a directory that is open goes by where links lead.
    fn as_made(&self, path: Vec<u8>) -> Vec<u8> {
        let named = self.scene.alias.and_then(|alias| alias.name(&path));
        named.filter(|named| self.is_internal(named)).unwrap_or(path)
    }

    fn read(&mut self, path: Vec<u8>, record: &Record<'_>) {
        let inode = if record.kind == trace::READ { record.value } else { 0 };
        if !self.is_internal(&path) {
            let reading = Reading { time_ns: record.time_ns, inode };
            self.out.contents.entry(path).or_insert(reading).merge(reading);
        }
    }

    fn module(&mut self, path: Vec<u8>, record: &Record<'_>, image: Option<&Image>) {
        if image.is_some_and(|image| image.is_tool && !owns(&image.program, &path)) {
            self.out.plugins.insert(path.clone());
        }
        self.read(path, record);
    }

    fn opened(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool, reader: Option<&Image>) {
        if own && record.errno == 0 && reader.is_some_and(|image| self.family.is_compiler(&image.program)) {
            self.out.sources.insert(path.clone());
        }
        if record.errno != 0 {
            self.missed(path, record.errno, own);
        } else if record.has(trace::DIRECTORY) {
            self.listed(path, record, own);
        } else {
            self.read(path, record);
        }
    }

    /// A change or a start that did not come about tells what was there.
    fn failed(&mut self, path: Vec<u8>, errno: u32, own: bool) {
        const EEXIST: u32 = 17;
        if errno != EEXIST {
            self.missed(path, errno, own);
        } else if !self.is_internal(&path) {
            self.out.exists.entry(path).or_insert(None);
        }
    }

    fn missed(&mut self, path: Vec<u8>, errno: u32, own: bool) {
        if self.is_internal(&path) {
            return;
        }
        if is_absence(errno) {
            let absent = if own { &mut self.out.absent } else { &mut self.out.absent_before };
            absent.insert(path);
        } else {
            self.out.refusals.insert(Refusal::Unreadable(path));
        }
    }

    fn stat(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool) {
        if record.errno != 0 {
            return self.missed(path, record.errno, own);
        }
        let kind = match record.value & S_IFMT {
            0o100_000 => Some(Kind::File),
            0o040_000 => Some(Kind::Directory),
            _ => None,
        };
        // A macro may use a file's length, which its content decides.
        if !own && record.has(trace::TIMELESS) && !self.is_internal(&path) {
            self.out.permissions.insert(path.clone());
        } else if !own && !self.is_internal(&path) {
            self.out.attributes.insert(path.clone());
            if kind == Some(Kind::File) {
                return self.read(path, record);
            }
        }
        if !self.is_internal(&path) {
            let known = self.out.exists.entry(path).or_insert(kind);
            *known = known.or(kind);
        }
    }

    fn listed(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool) {
        if record.errno != 0 {
            return self.missed(path, record.errno, own);
        }
        if self.is_internal(&path) || (own && self.family.lists_for_candidates(&path)) {
            return;
        }
        let first = self.out.listings.entry(path).or_insert(record.time_ns);
        *first = record.time_ns.min(*first);
    }

    fn link(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool) {
        const EINVAL: u32 = 22;
        match record.errno {
            _ if self.is_internal(&path) => {}
            0 => {
                if !own {
                    self.out.shown.insert(record.b.to_vec());
                }
                self.out.links.insert(path, record.b.to_vec());
            }
            EINVAL => {
                self.out.exists.entry(path).or_insert(None);
            }
            errno => self.missed(path, errno, own),
        }
    }

    fn variable(&mut self, record: &Record<'_>, own: bool) {
        let (name, found) = (record.a, record.has(trace::FOUND));
        let ours = name.starts_with(b"ZCACHE_");
        let given = self.env.get(name);
        // A value that the tree set itself follows from other inputs.
        let derived = found != given.is_some() || given.is_some_and(|value| trace::hash(value) != record.value);
        if !ours && !derived {
            self.asked(name, if own { self.family.env_rule(name) } else { EnvRule::Exact });
        }
    }

    fn asked(&mut self, name: &[u8], rule: EnvRule) {
        match rule {
            EnvRule::Ignore => {}
            EnvRule::Messages => {
                self.out.env_shown.insert(name.to_vec());
            }
            EnvRule::ByRole => {
                self.out.env_by_role.insert(name.to_vec());
            }
            EnvRule::Exact => {
                self.out.env.insert(name.to_vec());
            }
        }
    }

    fn program(&mut self, path: Vec<u8>, record: &Record<'_>) {
        if record.b.is_empty() {
            self.out.programs.insert(path.clone());
        } else {
            self.out.names.insert(record.b.to_vec(), Some(path.clone()));
        }
        self.read(path, record);
    }

    fn written(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool) {
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
    fn make_new(&mut self, path: Vec<u8>, own: bool) {
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

    fn directory(&mut self, path: Vec<u8>, own: bool) {
        if !own && !self.is_internal(&path) {
            self.out.absent_before.insert(path.clone());
        }
        if !self.family.is_state(&path) {
            self.made.insert(path.clone());
            self.out.directories.insert(path);
        }
    }

    fn renamed(&mut self, from: Vec<u8>, to: Vec<u8>) {
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

    fn removed(&mut self, path: Vec<u8>) {
        self.out.outputs.remove(&path);
        self.out.directories.remove(&path);
        if !self.is_internal(&path) {
            // Often an old output, about to be replaced.
            self.out.modified.insert(path);
        }
    }

    fn finish(mut self) -> Distilled {
        let made = std::mem::take(&mut self.made);
        self.out.absent.retain(|path| !covers(&made, path));
        self.out.exists.retain(|path, _| !covers(&made, path));
        self.out.links.retain(|path, _| !covers(&made, path));
        self.out.attributes.retain(|path| !covers(&made, path));
        self.out.permissions.retain(|path| !covers(&made, path));
        let contents = &self.out.contents;
        self.out.exists.retain(|path, _| !contents.contains_key(path));
        let appeared = self.out.absent.iter().find(|path| contents.contains_key(*path)).cloned();
        self.out.refusals.extend(appeared.map(Refusal::Changed));
        self.out
    }
}

/// Whether a record's first operand is the path of a file that something is done to.
fn names_file(kind: u16) -> bool {
    !matches!(
        kind,
        trace::START | trace::GETENV | trace::CLOCK | trace::SOCKET | trace::GETCWD | trace::EXIT | trace::SYSTEM
    )
}

/// Whether a look-up that failed so tells that nothing is there.
fn is_absence(errno: u32) -> bool {
    matches!(errno, ENOENT | ENOTDIR | ENAMETOOLONG)
}

/// The linker and its like ask for the time, and it shows in nothing they make; what they load for the project may.
fn is_tool_of(image: &Image, record: &Record<'_>) -> bool {
    image.is_tool && !is_rustc(&image.program) && image.module_at(record.caller).is_some()
}

#[path = "special.rs"]
mod special;

#[cfg(test)]
#[path = "distill_tests.rs"]
mod tests;
