//! Special: what a compile does to that which is no file of a disk: what the kernel makes up, devices, pipes, and what a
//! process was given open. Part of `distill`, and pure as that is.
//!
//! None of these can be looked at again later, so none can be an input or an output that is restored. What is left is to
//! tell the harmless from the rest, by who does what:
//! - A compiler reads sources. What it reads of the kernel is one (`#include "/proc/version"`), a pipe likewise.
//! - The other programs of a toolchain, and rustc, ask the kernel for their own purposes, which are known by name.
//! - What the project's own code asks may be in its answer.
//! - What is written is an effect on something outside the result, unless it is the stream that zcache keeps anyway, or
//!   nothing at all, as with `/dev/null`.

use zcache_proto::trace;

use super::{Distiller, is_absence};
use crate::compilers::toolchain::{is_below, plain_name};
use crate::images::Image;
use crate::manifest::Kind;
use crate::observation::Record;
use crate::places::Place;
use crate::refusal::Refusal;
use crate::system::{LOCALE, Meaning, meaning, of_file};

const NULL: u64 = trace::device(1, 3);
const ZERO: u64 = trace::device(1, 5);
const FULL: u64 = trace::device(1, 7);
const RANDOM: [u64; 2] = [trace::device(1, 8), trace::device(1, 9)];
const TERMINAL: u64 = trace::device(5, 0);

/// What the programs of a toolchain read for themselves: how much memory and how many processors there are, and what is
/// mapped where.
const FOR_TOOLS: &[&[u8]] = &[
    b"/proc/cpuinfo",
    b"/proc/filesystems",
    b"/proc/meminfo",
    b"/proc/mounts",
    b"/proc/self",
    b"/proc/stat",
    b"/proc/sys/vm/overcommit_memory",
    b"/sys/devices/system/cpu",
    b"/sys/devices/system/node",
    b"/sys/fs/cgroup",
    b"/sys/kernel/mm/transparent_hugepage",
];

/// What shows in nothing that the project's code makes: a library by which tools ask whether SELinux is there, and what a
/// process has open.
const FOR_ALL: &[&[u8]] = &[b"/proc/filesystems", b"/proc/self/fd", b"/sys/fs/selinux"];

/// What a process may tell the kernel of itself.
const OF_ITSELF: &[&[u8]] = &[b"/proc/self/comm", b"/proc/self/oom_score_adj", b"/proc/self/task"];

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A program that reads sources.
    Compiler,
    /// Another part of the toolchain.
    Tool,
    /// An interpreter, which seeds its tables by chance.
    Interpreter,
    /// Anything else of the project's.
    Project,
}

fn is_in(path: &[u8], list: &[&[u8]]) -> bool {
    list.iter().any(|known| is_below(path, known))
}

impl Distiller<'_, '_> {
    fn who(&self, own: bool, image: Option<&Image>) -> Who {
        let program = image.map(|image| image.program.as_slice()).unwrap_or_default();
        let is_interpreter =
            [b"perl".as_slice(), b"python", b"ruby"].iter().any(|name| plain_name(program).starts_with(name));
        match own {
            true if self.family.is_compiler(program) => Who::Compiler,
            true => Who::Tool,
            false if is_interpreter => Who::Interpreter,
            false => Who::Project,
        }
    }

    /// Takes in a record whose path leads to `place`, or that opened a device or a pipe.
    pub(super) fn special(
        &mut self,
        path: Vec<u8>,
        record: &Record<'_>,
        own: bool,
        image: Option<&Image>,
        place: Place,
    ) {
        let who = self.who(own, image);
        let changes = !matches!(record.kind, trace::READ | trace::STAT | trace::LIST | trace::READLINK);
        match place {
            Place::Astray if record.kind == trace::READLINK && path.ends_with(b"/cwd") => {
                // As good as to ask for the directory itself.
                let _ = if own {
                    self.out.told.insert(record.b.to_vec())
                } else {
                    std::mem::replace(&mut self.out.asks_cwd, true)
                };
            }
            Place::Astray => self.refuse(Refusal::KernelFile(path)),
            _ if record.errno != 0 => self.nothing_there(path, record, own, place),
            _ if record.has(trace::DEVICE) => self.device(path, record, who),
            _ if matches!(record.kind, trace::EXEC | trace::SPAWN | trace::MODULE) => {
                // What is run by another name is told by its start.
                if place == Place::Given || record.kind == trace::MODULE {
                    self.refuse(Refusal::KernelFile(path));
                }
            }
            _ if changes => self.poured(path, record, place),
            Place::Disk | Place::Given => self.drawn(path, record, who, place),
            Place::Kernel => self.asked_kernel(path, record, who),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.out.refusals.insert(refusal);
    }

    /// That the kernel has no such file may be an answer to the project.
    fn nothing_there(&mut self, path: Vec<u8>, record: &Record<'_>, own: bool, place: Place) {
        let asks = place == Place::Kernel && !own && !is_in(&path, FOR_ALL) && !is_below(&path, b"/proc/self");
        if asks && is_absence(record.errno) {
            self.out.absent_before.insert(path);
        }
    }

    fn device(&mut self, path: Vec<u8>, record: &Record<'_>, who: Who) {
        let writes = record.kind == trace::WRITE;
        match record.value {
            // By another name than its own, something else may be there one day.
            NULL | ZERO | FULL if !is_below(&path, b"/dev") => {
                self.out.exists.insert(path, Some(Kind::Special));
            }
            NULL | ZERO | FULL => {}
            random if RANDOM.contains(&random) && who != Who::Project && !writes => {}
            // A shell opens it to see whether there is one.
            TERMINAL if record.has(trace::READS) && who != Who::Compiler => {}
            _ if writes => self.refuse(Refusal::Stream(path)),
            _ if self.is_source(&path, who) || who != Who::Tool => self.refuse(Refusal::KernelFile(path)),
            _ => {}
        }
    }

    /// Something goes into a pipe, or to wherever a descriptor leads.
    fn poured(&mut self, path: Vec<u8>, record: &Record<'_>, place: Place) {
        let is_pipe = record.kind == trace::WRITE && record.has(trace::STREAM);
        let is_kept = is_pipe && self.scene.streams.contains(&record.value);
        let is_of_itself = place == Place::Kernel && is_in(&path, OF_ITSELF);
        if !(is_kept || is_of_itself || is_pipe && self.is_jobserver(&path)) {
            self.refuse(Refusal::Stream(path));
        }
    }

    /// Something comes out of a pipe, or from wherever a descriptor leads.
    fn drawn(&mut self, path: Vec<u8>, record: &Record<'_>, who: Who, place: Place) {
        let is_tool = matches!(who, Who::Compiler | Who::Tool);
        let is_looked_at = record.kind == trace::STAT || record.kind == trace::READLINK && is_tool;
        let is_list = record.kind == trace::LIST || record.has(trace::DIRECTORY);
        // A program of the project's draws from a descriptor what another of its programs pours into it.
        let is_inner = place == Place::Given || self.is_made(&path) || self.is_jobserver(&path);
        if !is_looked_at && (is_list || !is_inner || record.kind == trace::READLINK || self.is_source(&path, who)) {
            self.refuse(Refusal::KernelFile(path));
        }
    }

    /// Whether a path is that of the pipe by which make hands out leave to run.
    fn is_jobserver(&self, path: &[u8]) -> bool {
        [b"CARGO_MAKEFLAGS".as_slice(), b"MAKEFLAGS", b"MFLAGS"].iter().filter_map(|name| self.env.get(name)).any(
            |flags| {
                let words = flags.split(|&b| b == b' ');
                let values = words.filter_map(|word| {
                    let word = word.strip_prefix(b"--jobserver-")?;
                    word.strip_prefix(b"auth=").or_else(|| word.strip_prefix(b"fds="))
                });
                let mut named = values.flat_map(|value| match value.strip_prefix(b"fifo:") {
                    Some(fifo) => vec![fifo.to_vec()],
                    None => value.split(|&b| b == b',').map(|number| [b"/fd/", number].concat()).collect(),
                });
                named.any(|named| if named.starts_with(b"/fd/") { path.ends_with(&named) } else { path == named })
            },
        )
    }

    /// Whether a stream that the tree was given is read as source: it may hold anything.
    fn is_source(&self, path: &[u8], who: Who) -> bool {
        who == Who::Compiler || self.argv.iter().any(|argument| argument.ends_with(path))
    }

    /// The project's code asked something of the machine.
    pub(super) fn asked_system(&mut self, what: u64, image: Option<&Image>) {
        let is_plugin = image.is_some_and(|image| image.is_tool);
        match meaning(what) {
            Meaning::Input(question) => drop(self.out.system.insert(question, None)),
            Meaning::Refused(what) => self.refuse(Refusal::System(what)),
            Meaning::RefusedToPlugins(what) if is_plugin => self.refuse(Refusal::System(what)),
            // Of other programs all variables are.
            Meaning::Locale if is_plugin => self.out.env.extend(LOCALE.iter().map(|name| name.to_vec())),
            Meaning::RefusedToPlugins(_) | Meaning::Locale => {}
        }
    }

    fn asked_kernel(&mut self, path: Vec<u8>, record: &Record<'_>, who: Who) {
        let is_tool = matches!(who, Who::Compiler | Who::Tool);
        let is_own_exe = record.kind == trace::READLINK && path.ends_with(b"/exe");
        match record.kind {
            trace::STAT if !is_tool && !is_in(&path, FOR_ALL) && !is_below(&path, b"/proc/self") => {
                self.out.exists.entry(path).or_insert(None);
            }
            trace::STAT => {}
            _ if is_own_exe || is_in(&path, FOR_ALL) => {}
            _ if who == Who::Tool && is_in(&path, FOR_TOOLS) => {}
            trace::READ if !is_tool && of_file(&path).is_some() => {
                self.out.system.extend(of_file(&path).map(|question| (question, None)));
            }
            // To find out where it is installed, and how far away the end of its stack is.
            _ if who == Who::Compiler && record.kind != trace::READ => {}
            _ => self.refuse(Refusal::KernelFile(path)),
        }
    }
}
