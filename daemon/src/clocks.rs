//! Clocks: whether a reading of the clock may show in a result. Who asked tells, when, and for what; the time itself never
//! does. Pure.
//!
//! Interpreters ask for the time when they begin, whatever they are to run: bash for `$SECONDS` and `$RANDOM`, perl for
//! `$^T`, Python for its zone. That is no doing of the script, whose first line has not been read, so it is passed over,
//! and the script is looked at for the words by which it could get at that time (`scripts`). For this to be certain, the
//! script has to be a file that the interpreter was started for, by the kernel or as its first argument behind nothing
//! but plain options, and has to be read by it afterwards: code on a command line (`bash -c`) may have asked itself.
//! git asks before it has looked at anything, for a trace of its own. `date` does the same for its answer: a program that
//! is none of these is not passed over.

use std::collections::{BTreeMap, HashMap, HashSet};

use zcache_proto::trace;

use crate::compilers::Family;
use crate::compilers::rustc::is_rustc;
use crate::compilers::toolchain::{file_name, is_terminal_library};
use crate::images::{Image, Images};
use crate::observation::Record;
use crate::paths::tidy;
use crate::scripts::Interpreter;

/// Whether the time that `record` says was read may show in the result. `own`: the code that asked is the toolchain's.
pub fn tells_time(record: &Record<'_>, image: Option<&Image>, own: bool, family: &dyn Family) -> bool {
    // Who asks for a date writes it down: `__TIMESTAMP__`, however it is spelled, or an assembler's listing.
    let Some(image) = image.filter(|_| record.value != trace::LOCAL) else { return true };
    if own && family.is_compiler(&image.program) {
        // A random seed is no date.
        let asks = image.module_at(record.caller);
        return record.value == trace::TIME && !asks.is_some_and(|module| is_terminal_library(&module.path));
    }
    !own && !is_tool_of(image, record)
}

/// The linker and its like ask for the time, and it shows in nothing they make; what they load for the project may.
fn is_tool_of(image: &Image, record: &Record<'_>) -> bool {
    image.is_tool && !is_rustc(&image.program) && image.module_at(record.caller).is_some()
}

/// How the interpreters of an observation began.
#[derive(Debug, Default)]
pub struct Beginnings {
    /// Readings of the clock, by the numbers of their records.
    clocks: HashSet<usize>,
    /// Files that were read by an interpreter that had asked for the time, and which one.
    pub scripts: BTreeMap<Vec<u8>, Interpreter>,
}

/// A program that may be about to read its script.
#[derive(Default)]
struct Beginning {
    script: Vec<u8>,
    clocks: Vec<usize>,
    reads: Vec<Vec<u8>>,
    has_begun: bool,
}

impl Beginnings {
    /// Those in `records`, which `images` sorts.
    pub fn of(records: &[Record<'_>], images: &Images) -> Self {
        let mut all = Self::default();
        // Most compiles run no program that asks for the time.
        if !records.iter().any(|record| record.kind == trace::CLOCK) {
            return all;
        }
        let mut running: HashMap<usize, Beginning> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            let Some(image) = images.number_of(index).filter(|image| !images.number(*image).is_tool) else { continue };
            let beginning = running.entry(image).or_default();
            match record.kind {
                trace::START => {
                    let asked = images.starts.asked_by(index).map(|asked| &records[asked]);
                    beginning.script = asked.map(script).unwrap_or_default();
                    beginning.has_begun = false;
                }
                trace::CLOCK if !beginning.has_begun => beginning.clocks.push(index),
                trace::READ if record.errno == 0 && !record.has(trace::DIRECTORY) => beginning.read(&tidy(record.a)),
                _ => {}
            }
            if is_look(record) && images.of_record(index).is_some_and(|image| is_git(&image.program)) {
                beginning.has_begun = true;
            }
        }
        for (image, beginning) in running.into_iter().filter(|(_, beginning)| beginning.has_begun) {
            all.take(beginning, images.number(image));
        }
        all
    }

    fn take(&mut self, beginning: Beginning, image: &Image) {
        if !beginning.clocks.is_empty() && !is_git(&image.program) {
            let reader = Interpreter::of(&image.program);
            self.scripts.extend(beginning.reads.into_iter().map(|at| (at, reader)));
        }
        self.clocks.extend(beginning.clocks);
    }

    /// Whether the record at `index` is a reading of the clock by which an interpreter began.
    pub fn covers(&self, index: usize) -> bool {
        self.clocks.contains(&index)
    }
}

impl Beginning {
    fn read(&mut self, at: &[u8]) {
        if !self.clocks.is_empty() {
            self.has_begun |= !self.script.is_empty() && is_named(at, &self.script);
            self.reads.push(at.to_vec());
        }
    }
}

/// The script that a program is started for, as it was named.
fn script(asked: &Record<'_>) -> Vec<u8> {
    let target = asked.target();
    if target.interpreter.is_empty() { target.argument.to_vec() } else { asked.a.to_vec() }
}

/// Whether `at` is the file that is called `script` in some directory.
fn is_named(at: &[u8], script: &[u8]) -> bool {
    if script.starts_with(b"/") {
        return at == tidy(script);
    }
    at.ends_with(&tidy(&[b"/", script].concat()))
}

/// Whether a program learns or changes something by it.
fn is_look(record: &Record<'_>) -> bool {
    !matches!(record.kind, trace::START | trace::MODULE | trace::CLOCK | trace::GETENV | trace::EXIT)
}

fn is_git(program: &[u8]) -> bool {
    file_name(program) == b"git"
}
