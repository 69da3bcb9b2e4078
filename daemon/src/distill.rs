//! Distill: what the records of an observation mean. Out come the inputs of a compile, what it leaves behind, and
//! the reasons for which it must not be stored. Pure: paths are taken as seen, nothing is looked up on disk.

use std::collections::BTreeSet;

use zcache_proto::trace;

use crate::clocks::{Beginnings, tells_time};
use crate::compilers::toolchain::owns;
use crate::compilers::zig::is_launcher;
use crate::compilers::{EnvRule, Family};
use crate::distilled::{Distilled, Reading, covers};
use crate::images::{Image, Images};
use crate::invocation::{Env, Invocation};
use crate::manifest::Kind;
use crate::observation::Record;
use crate::paths::{Alias, tidy};
use crate::places::Place;
use crate::refusal::Refusal;

/// Most renaming that is followed, bytes of paths. No compile renames so much.
const MOVABLE: usize = 64 << 20;
/// The variable that stands for the date where sources ask for it.
pub const DATE: &[u8] = b"SOURCE_DATE_EPOCH";
const ENOENT: u32 = 2;
const ENXIO: u32 = 6;
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
    let beginnings = Beginnings::of(records, &images);
    for (index, record) in records.iter().enumerate() {
        if let Some(asked) = images.starts.asked_by(index).filter(|_| !images.is_exempt(index)) {
            distiller.started(&records[asked], record);
        }
        if !images.is_exempt(index) && !beginnings.covers(index) && !distiller.calls_back(index, record) {
            distiller.record(record, images.of_record(index), images.starts.failure(index));
        }
    }
    distiller.out.scripts = beginnings.scripts;
    distiller.finish()
}

mod programs;

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
                self.out.names.insert(record.target().name.to_vec(), None);
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
            trace::STAT => self.stat(path, record, own, image),
            trace::LIST => self.listed(path, record, own || launches),
            trace::READLINK => self.link(path, record, own),
            trace::GETENV => self.variable(record, own),
            trace::EXEC | trace::SPAWN => self.program(path, record),
            trace::RENAME => self.renamed(path, self.as_made(tidy(record.b))),
            trace::LINK => self.make_new(tidy(record.b), own),
            trace::SYMLINK => self.make_new(path, own),
            trace::REMOVE => self.removed(path),
            trace::MKDIR => self.directory(path, own),
            trace::CLOCK if tells_time(record, image, own, self.family) && !launches => {
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
        let inode = match record.kind {
            trace::READ => record.value,
            trace::START => record.identity()[1],
            _ => 0,
        };
        self.reads(path, Reading { time_ns: record.time_ns, inode });
    }

    fn reads(&mut self, path: Vec<u8>, reading: Reading) {
        if !self.is_internal(&path) {
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
            if self.env.get(DATE).is_none() {
                self.out.undated.insert(path.clone());
            }
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
        } else if !(errno == ENXIO && path == b"/dev/tty") {
            // A process without a terminal is told so; what would have been said there is a message.
            self.out.refusals.insert(Refusal::Unreadable(path));
        }
    }

    fn stat(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool, image: Option<&Image>) {
        if record.errno != 0 {
            return self.missed(path, record.errno, own);
        }
        let kind = match record.value & S_IFMT {
            0o100_000 => Some(Kind::File),
            0o040_000 => Some(Kind::Directory),
            _ => None,
        };
        // A shell looks at directories for their inodes, and builds make things in them all the time; a macro may use it.
        let is_script = image.is_none_or(|image| !image.is_tool);
        let is_timeless = record.has(trace::TIMELESS) || kind == Some(Kind::Directory) && is_script;
        if !own && is_timeless && !self.is_internal(&path) {
            self.out.permissions.insert(path.clone());
        } else if !own && !self.is_internal(&path) {
            self.out.attributes.insert(path.clone());
            // Its length may have been used, which its content decides.
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

#[path = "made.rs"]
mod made;
#[path = "special.rs"]
mod special;

#[cfg(test)]
#[path = "distill_tests.rs"]
mod tests;
