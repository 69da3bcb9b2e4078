//! Expect: what has to hold for a compile's result to be right again, from what it was seen to read and ask. Looks at the
//! disk for what an observation does not tell: contents, listings, and where names lead.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use memchr::memmem;
use zcache_proto::Digest;

use crate::compiled::{Compiled, Input};
use crate::compilers::toolchain::{file_name, is_compilers_header};
use crate::distill::DATE;
use crate::facts::{self, library, listing, look, which};
use crate::inputs::{Inputs, Stamp, path};
use crate::manifest::{Attributes, Expectation, Kind, by_role};
use crate::plugins::Plugins;
use crate::refusal::Refusal;
use crate::roles::{Role, RolePath};
use crate::scripts::Scripts;
use crate::sources::{Marks, Sources};
use crate::twins::{Look, twins};

/// How often a file is read that is not the same afterwards.
const READINGS: usize = 3;

/// What is known of files.
#[derive(Debug)]
pub struct Knowledge<'a> {
    /// Digests.
    pub inputs: &'a Inputs,
    /// What loaded objects import.
    pub plugins: &'a Plugins,
    /// What sources name.
    pub sources: &'a Sources,
    /// What scripts ask their interpreters for.
    pub scripts: &'a Scripts,
}

/// All that has to hold, in no order, and what the project's sources name.
pub fn expectations(
    compiled: &Compiled,
    inputs: &[Input],
    knows: &Knowledge<'_>,
) -> Result<(Vec<Expectation>, Marks), Refusal> {
    let marks = Marks::of_arguments(&compiled.command.family.exposed().all);
    let mut all = Expectations { compiled, all: Vec::new(), marks };
    all.contents(inputs, knows)?;
    all.listings()?;
    all.names();
    all.variables();
    all.paths();
    all.places();
    Ok((all.all, all.marks))
}

struct Expectations<'a> {
    compiled: &'a Compiled,
    all: Vec<Expectation>,
    marks: Marks,
}

impl Expectations<'_> {
    fn by(&self, at: &[u8]) -> RolePath {
        self.compiled.command.roots.role_of(at)
    }

    fn variable(&self, name: &[u8]) -> Expectation {
        Expectation::Env(name.to_vec(), self.compiled.invocation.env.get(name).map(Digest::of))
    }

    fn contents(&mut self, inputs: &[Input], knows: &Knowledge<'_>) -> Result<(), Refusal> {
        let seen = &self.compiled.seen;
        let mut environment = seen.environment;
        let mut sources: HashMap<Digest, Vec<&Input>> = HashMap::new();
        for input in inputs {
            let (at, digest) = (&input.path, digest(input, knows.inputs)?);
            environment |= seen.plugins.contains(at) && knows.plugins.reads_environment(path(at), digest);
            if seen.sources.contains(at) {
                let marks = input.marks.map_or_else(|| knows.sources.marks(path(at), digest), Ok);
                let marks = marks.map_err(|_| Refusal::Changed(at.clone()))?;
                self.words(at, marks)?;
                sources.entry(digest).or_default().push(input);
            }
            if let Some(reader) = seen.scripts.get(at) {
                let tells = knows.scripts.tells_time(path(at), digest, *reader);
                if tells.map_err(|_| Refusal::Changed(at.clone()))? {
                    return Err(Refusal::Clock);
                }
            }
            self.all.push(Expectation::Content(self.by(at), digest));
        }
        if environment {
            self.all.push(Expectation::Environment(facts::environment(&self.compiled.invocation)));
        }
        self.twins(sources);
        Ok(())
    }

    /// Which sources and directories the compiler may have taken for one: `sources` by content.
    fn twins(&mut self, sources: HashMap<Digest, Vec<&Input>>) {
        let seen = &self.compiled.seen;
        if seen.sources.is_empty() {
            return;
        }
        let looked = seen.exists.iter().filter(|(_, kind)| **kind != Some(Kind::Special));
        let found: Vec<(RolePath, Look)> = looked.filter_map(|(at, _)| Some((self.by(at), look(at)?))).collect();
        let (directories, files): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, at)| at.kind == Kind::Directory);
        let mut groups = vec![directories];
        for inputs in sources.values() {
            let of = |input: &&Input| {
                let Stamp { dev, ino, mtime_ns, .. } = input.stamp;
                let mtime_s = mtime_ns.div_euclid(1_000_000_000);
                (self.by(&input.path), Look { kind: Kind::File, file: (dev, ino), mtime_s })
            };
            let mut group: Vec<_> = inputs.iter().map(of).collect();
            // One that is known already need not be read again.
            let is_known = |(_, look): &&(RolePath, Look)| group.iter().any(|(_, known)| known.file == look.file);
            let unread: Vec<_> = files.iter().filter(is_known).cloned().collect();
            group.extend(unread);
            group.sort_by(|a, b| a.0.cmp(&b.0));
            groups.push(group);
        }
        let several = groups.into_iter().filter(|group| group.len() > 1);
        self.all.extend(several.map(|group| Expectation::Twins(twins(group))));
    }

    /// What follows from the words of a source.
    fn words(&mut self, at: &[u8], marks: Marks) -> Result<(), Refusal> {
        // What lies in a root is the project's, whatever its directories are called.
        if self.by(at).role.is_some() || !is_compilers_header(at) {
            self.marks = self.marks.and(marks);
        }
        let seen = &self.compiled.seen;
        if marks.timestamp || marks.date && seen.undated.contains(at) {
            return Err(Refusal::TimeMacro(at.to_vec()));
        }
        if marks.probes && seen.unprobed.contains(at) {
            return Err(Refusal::Undeclarable(at.to_vec()));
        }
        if marks.date {
            self.all.push(self.variable(DATE));
        }
        Ok(())
    }

    fn listings(&mut self) -> Result<(), Refusal> {
        for (at, time) in &self.compiled.seen.listings {
            let changed = || Refusal::Changed(at.clone());
            let meta = fs::metadata(path(at)).map_err(|_| changed())?;
            if Stamp::of(&meta).mtime_ns >= *time as i64 {
                return Err(changed());
            }
            let now = listing(at).map_err(|_| changed())?;
            self.all.push(Expectation::Listing(self.by(at), now));
        }
        Ok(())
    }

    fn names(&mut self) {
        let Compiled { seen, invocation, .. } = self.compiled;
        for (called, runs) in &seen.started {
            self.all.push(Expectation::Runs(self.by(called), runs.as_deref().map(|at| self.by(at))));
        }
        for program in &seen.programs {
            // gcc looks along PATH for its assembler and linker: one that appears there would be taken.
            let name = file_name(program);
            if which(name, invocation).as_ref() == Some(program) {
                self.all.push(Expectation::Which(name.to_vec(), Some(self.by(program))));
            }
        }
        let identity = |at: &Vec<u8>| fs::metadata(path(at)).ok().map(|meta| (meta.dev(), meta.ino()));
        for (name, found) in &seen.names {
            let now = which(name, invocation);
            let is_client = || invocation.client.is_some() && found.as_ref().and_then(identity) == invocation.client;
            self.all.push(if now == *found || is_client() {
                Expectation::Which(name.clone(), now.as_deref().map(|at| self.by(at)))
            } else {
                // It was searched along another PATH than the build's, which follows from the build's.
                self.variable(b"PATH")
            });
        }
        for name in seen.libraries.keys() {
            let found = library(name, invocation);
            self.all.push(Expectation::Library(name.clone(), found.as_deref().map(|at| self.by(at))));
        }
    }

    fn variables(&mut self) {
        let Compiled { seen, invocation, command, .. } = self.compiled;
        let printed = [&self.compiled.stdout, &self.compiled.stderr];
        // gcc -v prints by what name it was called, and with it by what path.
        let called = &invocation.argv[0];
        if printed.iter().any(|text| memmem::find(text, called).is_some()) {
            self.all.push(Expectation::Called(called.clone()));
        }
        let prints = command.family.prints(printed[0], printed[1]);
        if prints || !printed[0].is_empty() {
            self.all.push(Expectation::Terminal(invocation.terminal));
        }
        if prints {
            self.all.extend((!command.family.display().is_empty()).then(|| Expectation::Display(command.display())));
            self.all.extend(seen.env_shown.iter().map(|name| self.variable(name)).collect::<Vec<_>>());
        }
        let known = seen.system.iter().filter_map(|(question, answer)| Some((*question, (*answer)?)));
        self.all.extend(known.map(|(question, answer)| Expectation::System(question, answer)));
        self.all.extend(seen.env.iter().map(|name| self.variable(name)).collect::<Vec<_>>());
        self.all.extend(seen.env_by_role.iter().map(|name| {
            let value = invocation.env.get(name).map(|value| by_role(value, &command.roots));
            Expectation::EnvByRole(name.clone(), value)
        }));
    }

    /// Whether a directory's time stays from build to build: it is none that a build makes things in.
    fn is_steady(&self, at: &[u8]) -> bool {
        let Compiled { command, began_ns, .. } = self.compiled;
        let is_target = command.roots.role_of(at).role == Some(Role::Target);
        !is_target && fs::metadata(path(at)).is_ok_and(|meta| Stamp::of(&meta).mtime_ns < *began_ns)
    }

    fn paths(&mut self) {
        let Compiled { seen, command, .. } = self.compiled;
        let by = |at: &[u8]| command.roots.role_of(at);
        let attributes = |at: &Vec<u8>| {
            let told = facts::attributes(at)?;
            let is_steady = told.is_file() || self.is_steady(at);
            let mtime_ns = told.mtime_ns.filter(|_| is_steady);
            Some(Expectation::Attributes(by(at), Attributes { mtime_ns, ..told }))
        };
        // clang compares the times of what it looks at and reads with those that its precompiled header keeps.
        let is_file = |at: &&Vec<u8>| facts::attributes(at).is_some_and(|told| told.is_file());
        let looked = seen.exists.keys().chain(&seen.sources).filter(|at| !seen.attributes.contains(*at));
        let dated = looked.filter(|_| self.marks.dates_inputs).filter(is_file);
        let told: Vec<_> = seen.attributes.iter().chain(dated).filter_map(attributes).collect();
        self.all.extend(told);
        let permissions = |at: &Vec<u8>| Some(Attributes { mtime_ns: None, ..facts::attributes(at)? });
        self.all
            .extend(seen.permissions.iter().filter_map(|at| Some(Expectation::Attributes(by(at), permissions(at)?))));
        self.all.extend(seen.absent.iter().chain(&seen.absent_before).map(|at| Expectation::Absent(by(at))));
        self.all.extend(seen.exists.iter().map(|(at, kind)| Expectation::Exists(by(at), *kind)));
        self.all.extend(seen.links.iter().map(|(at, target)| Expectation::Link(by(at), by(target))));
    }

    /// What lies beside the output, or is named after it, was found there because the output is where it is.
    fn places(&mut self) {
        let Compiled { seen, command, .. } = self.compiled;
        let roots = &command.roots;
        let absent = seen.absent.iter().chain(&seen.absent_before);
        let others = seen.exists.keys().chain(seen.listings.keys()).chain(seen.links.keys());
        let mut all = seen.contents.keys().chain(absent).chain(others).chain(&seen.attributes);
        let (mut beside, mut after) = (false, false);
        let nesting = roots.nesting();
        while let Some(at) = all.next().filter(|_| !after) {
            beside |= nesting.is_some() && roots.is_beside_output(at);
            after |= roots.is_after_output(at);
        }
        self.all.extend(nesting.filter(|_| beside || after).cloned().map(Expectation::Nesting));
        let name = roots.identity(Role::OutName).filter(|_| after);
        self.all.extend(name.map(|name| Expectation::Root(Role::OutName, name)));
        // A compiler makes no directory for its output.
        if roots.get(Role::OutDir).is_some() && !seen.outputs.is_empty() {
            let dir = RolePath { role: Some(Role::OutDir), rest: Vec::new() };
            self.all.push(Expectation::Exists(dir, Some(Kind::Directory)));
        }
    }
}

/// The digest of what the compiler read.
fn digest(input: &Input, inputs: &Inputs) -> Result<Digest, Refusal> {
    if let Some(digest) = input.digest.or_else(|| inputs.recalled(&input.stamp)) {
        return Ok(digest);
    }
    // Our own links may have been noted meanwhile, which settles a file earlier than it seemed.
    let same = |now: &Stamp| *now == input.stamp || inputs.settled_ns(now) <= inputs.settled_ns(&input.stamp);
    // One that is made while the file is read looks like a change, and is over when it is read again.
    let mut readings = (0..READINGS).map(|_| inputs.digest(path(&input.path)).ok().filter(|(_, now)| same(now)));
    let read = readings.find_map(|read| read.map(|(digest, _)| digest));
    read.ok_or_else(|| Refusal::Changed(input.path.clone()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::index::Index;

    #[test]
    fn our_own_link_to_a_file_that_is_being_read_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let inputs = Inputs::new(Index::open(&dir.path().join("index")).unwrap());
        let at = dir.path().join("f");
        fs::write(&at, vec![7; 64 << 20]).unwrap();
        let state = || Stamp::of(&fs::metadata(&at).unwrap());
        let input = Input { path: at.as_os_str().as_bytes().to_vec(), stamp: state(), digest: None, marks: None };
        thread::sleep(Duration::from_millis(50));
        let read = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                let before = state();
                fs::hard_link(&at, dir.path().join("g")).unwrap();
                inputs.note_link(&before, &state());
            });
            digest(&input, &inputs).unwrap()
        });
        assert_ne!(state(), input.stamp);
        // Once it has been read, nothing that becomes of it matters.
        fs::remove_file(&at).unwrap();
        assert_eq!(digest(&input, &inputs), Ok(read));
        fs::write(&at, vec![8; 64 << 20]).unwrap();
        assert_eq!(digest(&input, &inputs), Ok(read));
        let unread = Inputs::new(Index::open(&dir.path().join("another")).unwrap());
        assert_eq!(digest(&input, &unread), Err(Refusal::Changed(input.path.clone())));
    }
}
