//! Commit: from what a compile was seen to do to an entry of the store. First, while the client waits, the outputs
//! are taken and the inputs' states noted; the rest, reading and hashing, happens after.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use crate::binding::{Found, Needle, bound, needles};
use crate::cas::{Held, Scanned};
use crate::compiled::{Compiled, Fresh, Input};
use crate::compilers::OutputRule;
use crate::compilers::toolchain::{file_name, is_below, parent};
use crate::directories::{Directories, View};
use crate::expect::{Knowledge, expectations};
use crate::fold;
use crate::inputs::{Inputs, Stamp, path};
use crate::manifest::{ActionResult, Entry, Expectation, Kind, OutputContent, OutputFile};
use crate::occupied::gives_access;
use crate::paths::{is_plain, without_parents};
use crate::plugins::Plugins;
use crate::refusal::Refusal;
use crate::scripts::Scripts;
use crate::sources::Sources;
use crate::store::{Store, now_s};
use crate::system::answer;
use crate::template::{Template, names_root};

/// Inputs no longer than this are read while the client waits, bytes.
const SMALL: u64 = 1 << 20;
/// Longest text output or stream that is kept, bytes.
const TEXT_MAX: u64 = 8 << 20;

/// Where results go and what is known of files.
#[derive(Debug)]
pub struct Shelf {
    /// The store.
    pub store: Store,
    /// Digests of inputs.
    pub inputs: Inputs,
    /// What directories prove of the names in them.
    pub directories: Directories,
    /// What loaded objects import.
    pub plugins: Plugins,
    /// What sources name.
    pub sources: Sources,
    /// What scripts ask their interpreters for.
    pub scripts: Scripts,
    /// Held for writing while our own linking moves a file's change time and that is not noted yet.
    pub linking: RwLock<()>,
}

/// A compile whose outputs are safe in the store's `tmp/`.
#[derive(Debug)]
pub struct Taken {
    compiled: Compiled,
    inputs: Vec<Input>,
    outputs: Vec<(Vec<u8>, u32, TakenOutput)>,
}

#[derive(Debug)]
enum TakenOutput {
    Blob { held: Held, link: bool },
    Text(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
}

impl Shelf {
    /// Those of `sources` that are new.
    pub fn fresh(&self, sources: &[Vec<u8>]) -> Fresh {
        let is_new = |at: &Path| {
            let stamp = fs::metadata(at).ok().map(|meta| Stamp::of(&meta));
            stamp.is_some_and(|stamp| stamp.size <= SMALL && !self.inputs.is_settled(&stamp))
        };
        let digest = |at: &Vec<u8>| Some((at.clone(), self.inputs.digest(path(at)).ok()?.0));
        sources.iter().filter(|at| is_new(path(at))).filter_map(digest).collect()
    }

    /// Takes the outputs and notes the states of the inputs.
    pub fn take(&self, mut compiled: Compiled) -> Result<Taken, Refusal> {
        if let Some(refusal) = compiled.seen.refusals.first() {
            return Err(refusal.clone());
        }
        self.store.admits()?;
        for (question, told) in &mut compiled.seen.system {
            *told = answer(*question, compiled.invocation.process);
            if told.is_none() {
                return Err(Refusal::System("elsewhere"));
            }
        }
        let made = |at: &&Vec<u8>| compiled.seen.outputs.contains(*at) || compiled.seen.directories.contains(*at);
        let absent = compiled.seen.absent.iter().chain(compiled.seen.absent_before.iter().filter(|at| !made(at)));
        let mut names = View::new(&self.directories);
        if let Some(appeared) = absent.into_iter().find(|at| !names.is_absent(at)) {
            return Err(Refusal::Changed(appeared.clone()));
        }
        let (inputs, directories) = self.input_states(&compiled)?;
        compiled.seen.exists.extend(directories.into_iter().map(|at| (at, Some(Kind::Directory))));
        let mut outputs = self.outputs(&compiled)?;
        let variables = declared(&compiled, &outputs)?;
        compiled.seen.env.extend(variables);
        for (at, ..) in &mut outputs {
            *at = straighten(at, &mut compiled)?;
        }
        Ok(Taken { compiled, inputs, outputs })
    }

    /// The state of each input, none of which may have changed since it was read, and what was opened like an input and
    /// is a directory: a compiler that opened one for a header went on to look elsewhere.
    fn input_states(&self, compiled: &Compiled) -> Result<(Vec<Input>, Vec<Vec<u8>>), Refusal> {
        let _steady = self.linking.read().unwrap_or_else(PoisonError::into_inner);
        let mut states = Vec::with_capacity(compiled.seen.contents.len());
        let mut directories = Vec::new();
        for (at, reading) in &compiled.seen.contents {
            let meta = fs::metadata(path(at));
            match meta {
                Err(_) if was_temporary(at, compiled) => {}
                Ok(meta) if meta.is_dir() => directories.push(at.clone()),
                Ok(meta) if meta.is_file() => {
                    let stamp = Stamp::of(&meta);
                    let other = reading.inode != 0 && reading.inode != stamp.ino;
                    let unsettled = self.inputs.settled_ns(&stamp) >= reading.time_ns as i64;
                    let digest = match self.inputs.known(&stamp) {
                        None if stamp.size <= SMALL => {
                            self.inputs.digest(path(at)).ok().filter(|(_, now)| *now == stamp).map(|(digest, _)| digest)
                        }
                        known => known,
                    };
                    let is_same = || digest.is_some() && compiled.fresh.get(at).copied() == digest;
                    if other || unsettled && !is_same() {
                        return Err(Refusal::Changed(at.clone()));
                    }
                    let small = digest.filter(|_| stamp.size <= SMALL && compiled.seen.sources.contains(at));
                    let marks = small.and_then(|digest| self.sources.marks(path(at), digest).ok());
                    states.push(Input { path: at.clone(), stamp, digest, marks });
                }
                _ => return Err(Refusal::Unreadable(at.clone())),
            }
        }
        Ok((states, directories))
    }

    fn outputs(&self, compiled: &Compiled) -> Result<Vec<(Vec<u8>, u32, TakenOutput)>, Refusal> {
        let seen = &compiled.seen;
        for at in &seen.modified {
            // A file removed and made anew, or made by this compile, is no change of an older one.
            let made_now = fs::symlink_metadata(path(at)).is_ok_and(|meta| is_made_now(&meta, compiled));
            if !made_now && !was_temporary(at, compiled) && (seen.outputs.contains(at) || !path(at).exists()) {
                return Err(Refusal::Modifies(at.clone()));
            }
        }
        let mut taken = Vec::new();
        for at in seen.directories.iter().chain(&seen.outputs) {
            if let Ok(meta) = fs::symlink_metadata(path(at)) {
                let mode = meta.permissions().mode() & 0o7777;
                if !is_made_now(&meta, compiled) && !is_as_if_new(&meta, mode, compiled) {
                    return Err(Refusal::Modifies(at.clone()));
                }
                if gives_access(path(parent(at))) {
                    return Err(Refusal::StrangeOutput(at.clone()));
                }
                taken.push((at.clone(), mode, self.output(at, &meta, compiled)?));
            }
        }
        Ok(taken)
    }

    fn output(&self, at: &[u8], meta: &fs::Metadata, compiled: &Compiled) -> Result<TakenOutput, Refusal> {
        let strange = |_| Refusal::StrangeOutput(at.to_vec());
        if meta.is_dir() {
            return Ok(TakenOutput::Directory);
        }
        if meta.is_symlink() {
            let target = fs::read_link(path(at)).map_err(strange)?;
            return Ok(TakenOutput::Symlink(target.as_os_str().as_bytes().to_vec()));
        }
        if !meta.is_file() {
            return Err(Refusal::StrangeOutput(at.to_vec()));
        }
        let rule = compiled.command.family.output_rule(at);
        if rule == OutputRule::Text && meta.len() <= TEXT_MAX {
            return fs::read(path(at)).map(TakenOutput::Text).map_err(strange);
        }
        let link = rule == OutputRule::Replaced;
        let before = Stamp::of(meta);
        let _moving = self.linking.write().unwrap_or_else(PoisonError::into_inner);
        let held = self.store.cas.hold(path(at), link).map_err(|error| Refusal::Store(error.to_string()))?;
        self.inputs.note_link(&before, &held.taken);
        Ok(TakenOutput::Blob { held, link })
    }

    /// Reads and hashes all, and writes the entry.
    pub fn put(&self, taken: Taken) -> Result<(), Refusal> {
        let Taken { compiled, inputs, outputs } = taken;
        let Self { inputs: known, plugins, sources, scripts, .. } = self;
        let knows = Knowledge { inputs: known, plugins, sources, scripts };
        let (mut expectations, words) = expectations(&compiled, &inputs, &knows)?;
        let Compiled { invocation, command, seen, .. } = &compiled;
        let exposed = command.family.exposed();
        let needles = needles(&command.roots, exposed, seen.strangers);
        // `-M` prints the rule that `-MD` writes.
        let way = fold::of_programs(seen.contents.keys().map(Vec::as_slice));
        let stdout = Template::of_depfile(&compiled.stdout, &command.roots, way);
        let stderr = Template::of(&compiled.stderr, &command.roots);
        let mut found = Found { words, ..Found::default() };
        [&stdout, &stderr].into_iter().for_each(|text| found.search(text, &needles));
        let files = self.adopt(outputs, &compiled, (&needles, way), &mut found)?;
        for role in bound(&command.roots, invocation, exposed, seen, &found) {
            expectations.extend(command.roots.identity(role).map(|identity| Expectation::Root(role, identity)));
        }
        expectations.sort_unstable();
        expectations.dedup();
        let (exit_code, duration_ms) = (compiled.exit_code, compiled.duration_ms);
        let result = ActionResult { exit_code, stdout, stderr, outputs: files, duration_ms };
        if !result.is_sound() {
            return Err(Refusal::StrangeOutput(b"one is in another".to_vec()));
        }
        let action = &compiled.command.action;
        let entry = Entry { expectations, result };
        let kept = self.store.amend(action, now_s(), |manifest| manifest.insert(entry));
        kept.map_err(|error| Refusal::Store(error.to_string()))?;
        self.store.evict();
        Ok(())
    }

    /// Makes the outputs blobs, and notes what is `found` in their bytes.
    fn adopt(
        &self,
        outputs: Vec<(Vec<u8>, u32, TakenOutput)>,
        compiled: &Compiled,
        (needles, way): (&[Needle], fold::Fold),
        found: &mut Found,
    ) -> Result<Vec<OutputFile>, Refusal> {
        let failed = |error: std::io::Error| Refusal::Store(error.to_string());
        let roots = &compiled.command.roots;
        let bytes: Vec<&[u8]> = needles.iter().map(|needle| needle.bytes.as_slice()).collect();
        let mut files = Vec::new();
        for (at, mode, output) in outputs {
            let content = match output {
                TakenOutput::Directory => OutputContent::Directory,
                TakenOutput::Text(text) => {
                    let text = Template::of_depfile(&text, roots, way);
                    found.search(&text, needles);
                    OutputContent::Text(text)
                }
                TakenOutput::Symlink(target) => {
                    found.climbs |= !target.starts_with(b"/") && target.windows(2).any(|pair| pair == b"..");
                    found.note(needles, |needle| names_root(&target, &needle.bytes));
                    OutputContent::Symlink(target)
                }
                TakenOutput::Blob { mut held, link } => {
                    let read = state(&at);
                    self.store.cas.separate(&mut held).map_err(failed)?;
                    let scanned = self.store.cas.scan(&held, &bytes).map_err(failed)?;
                    let mut hits = scanned.found.iter();
                    found.note(needles, |_| hits.next() == Some(&true));
                    found.look(self.store.cas.look(&held).map_err(failed)?);
                    self.adopt_blob(&at, held, &scanned, read).map_err(failed)?;
                    OutputContent::Blob { digest: scanned.digest, size: scanned.size, link }
                }
            };
            files.push(OutputFile { path: roots.place_of(&at), content, mode });
        }
        Ok(files)
    }

    /// Taking our link to the output away, or elsewhere, moves its change time: the content is what it was. `read` is
    /// the output's state before it was read.
    fn adopt_blob(&self, at: &[u8], held: Held, scanned: &Scanned, read: Option<Stamp>) -> std::io::Result<()> {
        let _moving = self.linking.write().unwrap_or_else(PoisonError::into_inner);
        let before = state(at).filter(|state| state.ino == held.taken.ino);
        self.store.adopt(held, scanned)?;
        if let (Some(before), Some(after)) = (before, state(at)) {
            self.inputs.note_link(&before, &after);
            if read == Some(before) && after.ino == before.ino {
                self.inputs.remember(&after, scanned.digest);
            }
        }
        Ok(())
    }
}

/// The place of an output without `..`, which would lead somewhere else in another checkout, or where a link came to stand
/// before it. That none stands there now becomes part of what has to hold.
fn straighten(at: &[u8], compiled: &mut Compiled) -> Result<Vec<u8>, Refusal> {
    if is_plain(at) {
        return Ok(at.to_vec());
    }
    let (directory, name) = (parent(at), file_name(at));
    let straight = without_parents(directory);
    let place = [straight.strip_suffix(b"/").unwrap_or(&straight), b"/", name].concat();
    let is_same = fs::canonicalize(path(directory)).is_ok_and(|real| real.as_os_str().as_bytes() == straight);
    if !is_same || !is_plain(&place) {
        return Err(Refusal::StrangeOutput(at.to_vec()));
    }
    // Outside of the checkout, another one's would be somewhere else.
    compiled.seen.asks_cwd |= compiled.command.roots.role_of(&place).role.is_none();
    compiled.seen.links.insert(directory.to_vec(), straight);
    Ok(place)
}

fn identity(at: &Path) -> Option<(u64, u64)> {
    fs::metadata(at).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn state(at: &[u8]) -> Option<Stamp> {
    fs::symlink_metadata(path(at)).ok().map(|meta| Stamp::of(&meta))
}

/// Whether `at` was where programs put what they need for a moment, rather than a place of this build. What stays there
/// is a result: the command may have asked for it.
fn was_temporary(at: &[u8], compiled: &Compiled) -> bool {
    let temporary = compiled.invocation.env.get(b"TMPDIR").filter(|dir| dir.starts_with(b"/")).unwrap_or(b"/tmp");
    let there = is_plain(at) && is_below(at, temporary) && compiled.command.roots.role_of(at).role.is_none();
    there && fs::symlink_metadata(path(at)).is_err()
}

/// Every input that a dependency file names must have been seen; else observation failed. The variables that it names.
fn declared(compiled: &Compiled, outputs: &[(Vec<u8>, u32, TakenOutput)]) -> Result<Vec<Vec<u8>>, Refusal> {
    let seen = &compiled.seen;
    let mut variables = Vec::new();
    let read: OnceCell<HashSet<(u64, u64)>> = OnceCell::new();
    for (at, _, output) in outputs {
        let TakenOutput::Text(text) = output else { continue };
        variables.extend(compiled.command.family.declared_variables(at, text));
        for name in compiled.command.family.declared_inputs(at, text) {
            let full = path(&compiled.invocation.cwd).join(path(&name));
            let bytes = full.as_os_str().as_bytes();
            if seen.contents.contains_key(bytes) || seen.outputs.contains(bytes) {
                continue;
            }
            // The same file by another name, through `..` or a link.
            let read = read.get_or_init(|| seen.contents.keys().filter_map(|known| identity(path(known))).collect());
            if identity(&full).is_none_or(|wanted| !read.contains(&wanted)) {
                return Err(Refusal::Undeclared(bytes.to_vec()));
            }
        }
    }
    Ok(variables)
}

/// Whether what is there was made by this compile, rather than written into.
fn is_made_now(meta: &fs::Metadata, compiled: &Compiled) -> bool {
    meta.created().is_ok_and(|time| since_1970_ns(time) >= compiled.began_ns)
}

/// Whether an older thing that a compile wrote into is what it would have made where nothing was: no link that leads to
/// what was written, and with the permissions that a new file gets.
fn is_as_if_new(meta: &fs::Metadata, mode: u32, compiled: &Compiled) -> bool {
    let new = 0o666 & !compiled.invocation.umask;
    meta.is_dir() || meta.is_file() && (mode == new || mode == 0o777 & !compiled.invocation.umask)
}

fn since_1970_ns(time: std::time::SystemTime) -> i64 {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}
