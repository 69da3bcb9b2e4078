//! Cache: lookup and commit, as decisions over the store, the running builds and the compiles under way. Speaks the
//! domain's types; the wire is `service`'s, what a command means is `compilers`', what it did is `distill`'s.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zcache_proto::{Digest, v1};

use crate::builds::{Builds, Place};
use crate::commit::Shelf;
use crate::compiled::{Compiled, Fresh};
use crate::compilers::{self, Bypass, Command};
use crate::declared::{Declarations, declare};
use crate::directories::{View, alias};
use crate::distill::{Scene, distill};
use crate::distilled::Distilled;
use crate::facts::Disk;
use crate::flights::{Flights, Lead, Turn};
use crate::ingest::Ingest;
use crate::inputs::{coarse_now_ns, lock, path};
use crate::invocation::Invocation;
use crate::manifest::{ActionResult, Expectation};
use crate::nested::Nested;
use crate::observation::{TraceError, records};
use crate::occupied;
use crate::places::Places;
use crate::process::{self, Process};
use crate::refusal::Refusal;
use crate::stats::Stats;
use crate::store::now_s;
use crate::unused::Unused;
use crate::vantage::{absolute, argument_file, name_of_cwd, sees_as_we_do};
use crate::{trace, wire};

/// How long the disk's refusals are counted in silence after one was said.
const AGAIN: Duration = Duration::from_secs(60);

/// The daemon's state.
#[derive(Debug)]
pub struct Cache {
    /// Store and inputs.
    pub shelf: Arc<Shelf>,
    /// Compiles under way.
    pub flights: Flights,
    /// Running invocations.
    pub builds: Mutex<Builds>,
    /// Counters.
    pub stats: Arc<Mutex<Stats>>,
    /// Threads that store results.
    pub ingest: Ingest,
    /// Actions whose results nobody asks for again.
    unused: Unused,
    tickets: Mutex<HashMap<u64, Ticket>>,
}

/// An invocation that the daemon answered and that may still report.
#[derive(Debug)]
struct Ticket {
    asked: Arc<Asked>,
    /// Inputs of nested compiles; none where this one does not compile.
    nested: Option<Nested>,
    began_ns: i64,
    lead: Option<Lead>,
    /// Sources that were new when the compile began.
    fresh: Fresh,
    /// What a hit restores.
    restored: Restored,
}

/// Files that a client was told to make, and the time to give them, nanoseconds since 1970.
#[derive(Debug, Default)]
struct Restored {
    mtime_ns: i64,
    files: Vec<(Vec<u8>, Digest, u64)>,
}

/// An invocation that has been placed and understood.
#[derive(Debug)]
pub struct Asked {
    /// Where it stands.
    pub place: Place,
    /// The client's process.
    pub client: Process,
    /// What it was called with.
    pub invocation: Arc<Invocation>,
    /// What that means.
    pub command: Result<Arc<Command>, Bypass>,
}

impl Cache {
    /// Over a store.
    pub fn new(shelf: Shelf, builds: Builds, stats: Stats, threads: usize) -> Self {
        Self {
            shelf: Arc::new(shelf),
            flights: Flights::default(),
            builds: Mutex::new(builds),
            stats: Arc::new(Mutex::new(stats)),
            ingest: Ingest::new(threads),
            unused: Unused::default(),
            tickets: Mutex::default(),
        }
    }

    /// Places and understands an invocation by the process `pid`; none is one that cannot be seen.
    pub fn ask(&self, invocation: Invocation, pid: Option<u32>) -> io::Result<Asked> {
        let client = pid.map_or_else(|| Some(Process::unseen()), Process::get);
        let client = client.ok_or_else(|| io::Error::other("the client is gone"))?;
        let program = fs::metadata(format!("/proc/{}/exe", client.pid)).ok();
        let pwd = name_of_cwd(&invocation);
        let invocation =
            Invocation { process: client.pid, client: program.map(|meta| (meta.dev(), meta.ino())), pwd, ..invocation };
        let command = sees_as_we_do(client.pid, &invocation.cwd)
            .and_then(|()| compilers::parse(&invocation, |file| argument_file(&invocation.cwd, file)))
            .map(|command| Arc::new(self.with_sources(command)));
        let text = |argument: &Vec<u8>| String::from_utf8_lossy(argument).into_owned();
        let summary = match &command {
            Ok(command) => command.summary.clone(),
            Err(_) => invocation.argv.iter().take(3).map(text).collect::<Vec<_>>().join(" "),
        };
        let ancestors = process::ancestors(&client);
        let place = lock(&self.builds).enter(&client, &ancestors, invocation.parent.as_ref(), summary);
        lock(&self.stats).invocation(compiler(&command), place.depth);
        Ok(Asked { place, client, invocation: Arc::new(invocation), command })
    }

    /// What the sources hold is part of the question: a configure script asks thousands with one command line.
    fn with_sources(&self, command: Command) -> Command {
        let digest = |at: &Vec<u8>| self.shelf.inputs.digest(path(at)).ok().map(|(digest, _)| digest.0);
        let sources: Vec<_> = command.family.sources().iter().map(digest).collect();
        if sources.is_empty() {
            return command;
        }
        let known = postcard::to_stdvec(&(command.action, sources)).unwrap_or_default();
        Command { action: Digest::of(&known), ..command }
    }

    /// The result of an action, if one holds now; else why not.
    pub fn find(&self, asked: &Arc<Asked>, command: &Command) -> Result<v1::Hit, &'static str> {
        let store = &self.shelf.store;
        let mut manifest = store.index().manifest(&command.action).ok_or("new")?;
        let mtime_ns = wire::now_ns();
        let mut lost = None;
        loop {
            let invocation = &asked.invocation;
            let mut facts = Disk::new(&self.shelf.inputs, &self.shelf.directories, invocation, command);
            let index = match manifest.find(&mut facts) {
                Ok(index) => index,
                Err(failed) => {
                    let expectation = failed.map(ToString::to_string);
                    tracing::debug!(command = command.summary, expectation, "no known result holds");
                    self.unused.missed(&command.action, failed);
                    return Err(lost.or(failed.map(Expectation::word)).unwrap_or("new"));
                }
            };
            let blobs: Vec<_> = manifest.entries[index].result.blobs().collect();
            if !store.promise(&blobs, &manifest.entries[index].result.lent(), mtime_ns) {
                let gone = manifest.entries.remove(index);
                let _ = store.amend(&command.action, now_s(), |known| known.remove(&gone));
                lost = Some("blob_lost");
                continue;
            }
            let entry = &manifest.entries[index];
            let hit = wire::hit(&entry.result, &command.roots, &store.cas, mtime_ns, asked.place.id).ok_or("new")?;
            if let Some(place) = occupied::first(&hit.outputs, &store.dir.join("tmp")) {
                tracing::debug!(command = command.summary, at = %place.display(), "an output's place is taken");
                return Err("output_occupied");
            }
            let _ = match index {
                0 => store.index().use_manifest(&command.action, now_s()),
                _ => store.amend(&command.action, now_s(), |known| known.touch(entry)),
            };
            self.unused.used(&command.action);
            self.fold_hit(asked, command, &entry.expectations, &entry.result);
            let restored = Restored { mtime_ns, files: wire::blobs(&entry.result, &command.roots) };
            self.count_hit(asked, entry.result.duration_ms, restored);
            return Ok(hit);
        }
    }

    fn count_hit(&self, asked: &Arc<Asked>, saved_ms: u64, restored: Restored) {
        lock(&self.stats).hit(compiler(&asked.command), saved_ms);
        lock(&self.builds).count(asked.place.build, |build| {
            build.hits += 1;
            build.saved_ms = build.saved_ms.saturating_add(saved_ms);
        });
        self.issue(asked, None, None, restored);
    }

    /// The answer to an invocation that is none of zcache's business.
    pub fn bypass(&self, asked: &Asked, reason: Bypass) -> v1::Bypass {
        lock(&self.stats).bypass(compiler(&asked.command), &reason.to_string());
        let mut builds = lock(&self.builds);
        builds.replace(asked.place.id);
        builds.count(asked.place.build, |build| build.bypasses += 1);
        drop(builds);
        // Its doings are seen, but not how the client found it.
        self.fold(asked, Distilled::default(), coarse_now_ns());
        v1::Bypass { parent: Some(asked.place.for_children()), reason: reason.to_string() }
    }

    /// Whose turn it is to compile.
    pub fn turn(&self, asked: &Asked, command: &Command) -> Turn {
        self.flights.enter(command.action, &asked.client, asked.place.depth == 0)
    }

    /// The answer to an invocation that has to compile.
    pub fn miss(&self, asked: &Arc<Asked>, lead: Option<Lead>, reason: &'static str) -> v1::Miss {
        lock(&self.stats).miss(compiler(&asked.command), reason);
        lock(&self.builds).count(asked.place.build, |build| build.misses += 1);
        self.issue(asked, Some(Nested::default()), lead, Restored::default());
        let lists = |command: &Arc<Command>| command.family.zig().is_some_and(|(zig, _)| zig.unknown().is_none());
        let zig = asked.command.as_ref().is_ok_and(lists);
        v1::Miss {
            ticket: asked.place.id,
            parent: Some(asked.place.for_children()),
            reason: reason.to_owned(),
            environment: if zig { self.declarations().variables(asked.place.id) } else { Vec::new() },
        }
    }

    fn issue(&self, asked: &Arc<Asked>, nested: Option<Nested>, lead: Option<Lead>, restored: Restored) {
        let fresh = match (&asked.command, &nested) {
            (Ok(command), Some(_)) => self.shelf.fresh(&command.family.sources()),
            _ => Fresh::new(),
        };
        let ticket = Ticket { asked: Arc::clone(asked), nested, began_ns: coarse_now_ns(), lead, fresh, restored };
        lock(&self.tickets).insert(asked.place.id, ticket);
    }

    fn declarations(&self) -> Declarations<'_> {
        Declarations(&self.shelf.store.dir)
    }

    /// The client is gone: a compile that it did not report is lost.
    pub fn abandon(&self, id: u64) {
        let ticket = lock(&self.tickets).remove(&id);
        match ticket {
            Some(Ticket { asked, nested: Some(_), began_ns, .. }) => {
                self.fold(&asked, Distilled { refusals: [Refusal::Nested].into(), ..Distilled::default() }, began_ns);
                lock(&self.stats).refused("abandoned");
                self.declarations().remove(id);
            }
            // The next compile reads these: they need not be hashed for it.
            Some(Ticket { restored: Restored { mtime_ns, files }, .. }) => {
                files.iter().for_each(|(at, digest, size)| self.shelf.inputs.vouch(path(at), *digest, *size, mtime_ns));
            }
            None => {}
        }
        lock(&self.builds).leave(id);
    }

    /// Takes a finished compile, or the news that a hit could not be used. None where the ticket is unknown.
    pub fn commit(&self, outcome: v1::Outcome) -> Option<Result<(), Refusal>> {
        let ticket = lock(&self.tickets).remove(&outcome.ticket)?;
        let Ticket { asked, nested, began_ns, lead, fresh, .. } = ticket;
        let name = compiler(&asked.command);
        let (Ok(command), Some(nested)) = (&asked.command, nested) else {
            lock(&self.stats).error(name);
            tracing::warn!(problem = outcome.problem, "a hit could not be used");
            self.fold(&asked, Distilled { refusals: [Refusal::Nested].into(), ..Distilled::default() }, began_ns);
            return Some(Ok(()));
        };
        let seen = self.seen(&asked, command, nested, &outcome, began_ns);
        if asked.place.parent != 0 {
            self.fold(&asked, seen.clone(), began_ns);
        }
        let compiled = Compiled {
            invocation: Arc::clone(&asked.invocation),
            command: Arc::clone(command),
            seen,
            stdout: outcome.stdout,
            stderr: outcome.stderr,
            exit_code: outcome.exit_code,
            duration_ms: outcome.duration_ms,
            began_ns,
            fresh,
        };
        // What is refused anyway says so.
        let is_sound = compiled.seen.refusals.is_empty();
        let admitted = if is_sound { self.unused.admits(&command.action) } else { Ok(()) };
        let taken = admitted.and_then(|()| self.shelf.take(compiled));
        let refusal = taken.as_ref().err().cloned();
        if let Some(refusal) = &refusal {
            refuse(&self.stats, &command.summary, refusal);
        }
        let (shelf, stats) = (Arc::clone(&self.shelf), Arc::clone(&self.stats));
        let summary = command.summary.clone();
        if let Ok(taken) = taken {
            self.ingest.push(move || {
                match shelf.put(taken) {
                    Ok(()) => lock(&stats).stored(name),
                    Err(refusal) => refuse(&stats, &summary, &refusal),
                }
                drop(lead);
            });
        }
        Some(refusal.map_or(Ok(()), Err))
    }

    /// What the compile did, as the observer, the client and its nested compiles tell.
    fn seen(
        &self,
        asked: &Asked,
        command: &Command,
        nested: Nested,
        outcome: &v1::Outcome,
        began_ns: i64,
    ) -> Distilled {
        let trace = outcome.trace.and_then(|descriptor| trace::read(asked.client.pid, descriptor).ok());
        let mut seen = match trace.as_ref().ok_or(TraceError::Unreadable).and_then(|trace| records(trace)) {
            Ok(records) => {
                let alias = command.family.out_dir().and_then(alias);
                let mut places = Places::new(View::new(&self.shelf.directories));
                let place = &mut |at: &[u8]| places.of(at);
                let scene = Scene { alias: alias.as_ref(), place, streams: &outcome.streams };
                distill(&records, &*command.family, &asked.invocation, scene)
            }
            Err(error) => Distilled { refusals: [Refusal::Trace(error)].into(), ..Distilled::default() },
        };
        if !seen.declaring.is_empty() {
            let list = self.declarations().of(outcome.ticket);
            declare(&mut seen, command, &asked.invocation, &list, began_ns);
        }
        if command.family.zig().is_some() {
            self.declarations().remove(outcome.ticket);
        }
        nested.tell(&mut seen);
        for file in &command.argument_files {
            seen.contents.remove(&absolute(&asked.invocation.cwd, file));
        }
        if outcome.exit_code != 0 && !command.family.keeps_failure() {
            seen.refusals.insert(Refusal::Failed);
        }
        if outcome.uses_given {
            seen.refusals.insert(Refusal::Given);
        }
        if !outcome.problem.is_empty() {
            seen.refusals.insert(Refusal::Client(outcome.problem.clone()));
        }
        seen
    }

    /// A nested result's inputs are inputs of what it is nested in.
    fn fold(&self, asked: &Asked, seen: Distilled, began_ns: i64) {
        let Some(above) = lock(&self.builds).compiling_above(&asked.place) else { return };
        let mut tickets = lock(&self.tickets);
        let Some(Ticket { asked: outer, nested: Some(nested), .. }) = tickets.get_mut(&above) else { return };
        nested.take(asked.client.pid, &asked.invocation, &outer.invocation, seen, began_ns.unsigned_abs());
    }

    fn fold_hit(&self, asked: &Asked, command: &Command, expectations: &[Expectation], result: &ActionResult) {
        if asked.place.parent != 0 {
            let now_ns = coarse_now_ns();
            self.fold(asked, wire::as_seen(expectations, result, &command.roots, now_ns as u64), now_ns);
        }
    }

    /// Waits until all that was committed is stored.
    pub fn drain(&self) {
        self.ingest.drain();
    }

    /// Whether nobody is being served.
    pub fn is_idle(&self) -> bool {
        let mut builds = lock(&self.builds);
        builds.prune(Process::is_alive);
        builds.is_idle() && lock(&self.tickets).is_empty()
    }
}

/// Counts a refusal and says it. What the disk says to every compile alike is said now and then.
fn refuse(stats: &Mutex<Stats>, command: &str, refusal: &Refusal) {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    lock(stats).refused(refusal.word());
    let is_said = match refusal {
        Refusal::Failed => true,
        Refusal::Store(_) | Refusal::StoreFull | Refusal::StoreReadOnly => {
            let mut said = lock(&SAID);
            let recent = said.is_some_and(|when| when.elapsed() < AGAIN);
            *said = said.filter(|_| recent).or_else(|| Some(Instant::now()));
            recent
        }
        _ => false,
    };
    if !is_said {
        tracing::info!(command, %refusal, "not stored");
    }
}

fn compiler(command: &Result<Arc<Command>, Bypass>) -> &'static str {
    command.as_ref().map_or("other", |command| command.family.name())
}
