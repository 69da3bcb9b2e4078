//! Declared: what a compile did whose compiler cannot be watched, by its own list of headers. Where that list lies, and
//! what follows from it; what the compiler has to be told for it is for `compilers::zig`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::compilers::Command;
use crate::compilers::zig::{self, Zig};
use crate::distill::DATE;
use crate::distilled::{Distilled, Reading};
use crate::inputs::path;
use crate::invocation::Invocation;
use crate::refusal::Refusal;
use crate::sources::Marks;

/// Longest list, bytes.
const LIST_MAX: u64 = 16 << 20;

/// The lists of running compiles, in the store at this directory.
#[derive(Debug)]
pub struct Declarations<'a>(pub &'a Path);

impl Declarations<'_> {
    fn list(&self, ticket: u64) -> PathBuf {
        self.0.join("tmp").join(format!("headers-{ticket}"))
    }

    fn cache(&self, ticket: u64) -> PathBuf {
        self.0.join("tmp").join(format!("zig-{ticket}"))
    }

    /// Variables that make the compiler write its list.
    pub fn variables(&self, ticket: u64) -> Vec<Vec<u8>> {
        zig::variables(self.list(ticket).as_os_str().as_bytes(), self.cache(ticket).as_os_str().as_bytes())
    }

    /// The list; empty where there is none.
    pub fn of(&self, ticket: u64) -> Vec<u8> {
        let list = self.list(ticket);
        let whole = fs::symlink_metadata(&list).is_ok_and(|meta| meta.is_file() && meta.len() <= LIST_MAX);
        if whole { fs::read(list).unwrap_or_default() } else { Vec::new() }
    }

    /// Removes what the compile left of it.
    pub fn remove(&self, ticket: u64) {
        let _ = fs::remove_file(self.list(ticket));
        let _ = fs::remove_dir_all(self.cache(ticket));
    }
}

/// Takes what the compiler listed for what it read since `began_ns`.
pub fn declare(seen: &mut Distilled, command: &Command, invocation: &Invocation, list: &[u8], began_ns: i64) {
    let Some((zig, outputs)) = command.family.zig() else { return };
    if let Some(argument) = zig.unknown() {
        seen.refusals.insert(Refusal::Undeclarable(argument.to_vec()));
    }
    let words = Marks::of(&invocation.argv.join(&b' '));
    if words != Marks::default() {
        seen.refusals.insert(Refusal::TimeMacro(b"the command line".to_vec()));
    }
    // A device would be read for ever.
    let names_others = |at: &Vec<u8>| !path(at).is_file() || fs::read(path(at)).map_or(true, |text| includes(&text));
    if list.is_empty() && command.family.sources().iter().any(names_others) {
        // This zig does not list its headers.
        seen.refusals.insert(Refusal::Undeclarable(b"no list of headers".to_vec()));
    }
    let inputs = zig.inputs(list);
    let exists = |at: &[u8]| fs::symlink_metadata(path(at)).is_ok();
    match zig.candidates(&inputs) {
        Some(candidates) => seen.absent.extend(candidates.into_iter().filter(|at| !exists(at))),
        None => drop(seen.refusals.insert(Refusal::Undeclarable(b"too many headers".to_vec()))),
    }
    let reading = Reading { time_ns: began_ns.unsigned_abs(), inode: 0 };
    let programs: Vec<_> = seen.declaring.iter().cloned().collect();
    seen.sources.extend(inputs.iter().cloned());
    if invocation.env.get(DATE).is_none() {
        seen.undated.extend(inputs.iter().cloned());
    }
    // What else was looked for is known of what zig brings, where nobody adds any.
    let brought = |at: &&Vec<u8>| programs.iter().any(|program| Zig::brings(program, at));
    seen.unprobed.extend(inputs.iter().filter(|at| !brought(at)).cloned());
    for program in &programs {
        // It finds what it brings from where it really lies.
        let real = fs::canonicalize(path(program)).map(|real| real.as_os_str().as_bytes().to_vec());
        seen.started.insert(program.clone(), real.ok());
    }
    for at in inputs.into_iter().chain(programs).filter(|at| exists(at)) {
        seen.contents.entry(at).or_insert(reading).merge(reading);
    }
    seen.outputs.extend(outputs.into_iter().filter(|at| path(at).is_file()));
    // A program that nobody watched may have read any variable, and a native compile asks the system's compiler.
    seen.environment = true;
    if zig.is_native() {
        seen.names.entry(b"cc".to_vec()).or_insert_with(|| crate::facts::which(b"cc", invocation));
    }
}

/// Whether a source may take in other files.
fn includes(text: &[u8]) -> bool {
    [b"include".as_slice(), b"import"].iter().any(|word| memchr::memmem::find(text, word).is_some())
}
