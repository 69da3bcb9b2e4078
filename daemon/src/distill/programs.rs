//! Programs: which ones a compile ran, how each was found, and which of them could not be watched. Pure.

use zcache_proto::trace::Target;

use super::Distiller;
use crate::compilers::toolchain::file_name;
use crate::compilers::zig::{is_launcher, is_zig};
use crate::distilled::Reading;
use crate::observation::Record;
use crate::paths::tidy;
use crate::places::Place;
use crate::refusal::Refusal;
use crate::starts::Starts;

impl Distiller<'_, '_> {
    pub(super) fn programs(&mut self) {
        self.unobserved();
        self.out.clients = self.images.clients();
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

    /// Programs that were not watched, but for zig, which tells by itself what it reads: then its children may begin
    /// without anybody's asking.
    fn unobserved(&mut self) {
        let Starts { unseen, displaced, strangers, .. } = &self.images.starts;
        let is_expected = |program: &[u8]| self.family.zig().is_some() && (is_zig(program) || is_launcher(program));
        let (declaring, unseen): (Vec<_>, Vec<_>) = unseen.iter().cloned().partition(|at| is_expected(at));
        let displaced = displaced.iter().filter(|at| self.family.zig().is_none() || !is_launcher(at));
        let strangers = strangers.iter().filter(|_| declaring.is_empty());
        let all = displaced.chain(strangers).cloned().chain(unseen);
        self.out.refusals.extend(all.map(Refusal::Unobserved));
        self.out.declaring.extend(declaring);
    }

    /// Takes in the way to the program that began at `start`, as its caller asked for it at `asked`.
    pub(super) fn started(&mut self, asked: &Record<'_>, start: &Record<'_>) {
        let Target { file: [_, inode], interpreter, .. } = asked.target();
        let (called, runs) = (tidy(asked.a), tidy(start.a));
        if asked.is_relative() || (self.scene.place)(&called) != Place::Disk {
            return;
        }
        if interpreter.is_empty() {
            return self.leads(called, Some(runs));
        }
        // Whoever replaced it before the interpreter began has changed the inode.
        self.reads(called.clone(), Reading { time_ns: start.time_ns, inode });
        self.leads(called, None);
        self.leads(tidy(interpreter), Some(runs));
    }

    /// What was called at a path led to a file.
    fn leads(&mut self, called: Vec<u8>, runs: Option<Vec<u8>>) {
        if self.is_internal(&called) {
            return;
        }
        let known = self.out.started.entry(called.clone()).or_insert_with(|| runs.clone());
        if *known != runs {
            self.out.refusals.insert(Refusal::Changed(called));
        }
    }

    /// Whether a record starts a zcache client. That is no input: the client finds the program that it stands for along
    /// the same PATH, and reports what that does by itself.
    pub(super) fn calls_back(&mut self, index: usize, record: &Record<'_>) -> bool {
        let calls = self.images.starts_client(index);
        let name = record.target().name;
        if calls && !name.is_empty() {
            self.out.names.insert(name.to_vec(), Some(tidy(record.a)));
        }
        calls
    }

    pub(super) fn program(&mut self, path: Vec<u8>, record: &Record<'_>) {
        match record.target().name {
            b"" => drop(self.out.programs.insert(path)),
            name => drop(self.out.names.insert(name.to_vec(), Some(path))),
        }
    }
}
