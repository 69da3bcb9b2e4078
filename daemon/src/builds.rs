//! Builds: which invocations run, inside which others, and to which build they belong. The tree that keeps a nested
//! compile from waiting for its ancestor. Pure: processes come in as data, and whether one lives is asked for.

use std::collections::{BTreeMap, HashMap};

use zcache_proto::v1;

use crate::process::Process;

/// Ended builds that are remembered.
const HISTORY: usize = 50;

/// Programs that run compilers for a person: the outermost of them is the build.
pub const DRIVERS: &[&str] = &["cargo", "make", "gmake", "ninja", "cmake", "meson", "bazel", "just", "scons"];

/// Where an invocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// This invocation.
    pub id: u64,
    /// Its build.
    pub build: u64,
    /// The invocation it runs inside of; 0 where there is none or it is not known.
    pub parent: u64,
    /// How many invocations it runs inside of.
    pub depth: u32,
}

impl Place {
    /// What to hand to the compiler.
    pub fn for_children(&self) -> v1::Parent {
        v1::Parent { build: self.build, invocation: self.id, depth: self.depth.saturating_add(1) }
    }
}

#[derive(Debug)]
struct Running {
    place: Place,
    process: Process,
    command: String,
    /// Its compiler took its process over: only the process's end tells that it is over.
    replaced: bool,
}

#[derive(Debug)]
struct Known {
    root: Process,
    counts: v1::Build,
}

/// All running invocations, and the builds of late.
#[derive(Debug, Default)]
pub struct Builds {
    builds: BTreeMap<u64, Known>,
    running: BTreeMap<u64, Running>,
    by_pid: HashMap<u32, u64>,
    last_id: u64,
}

impl Builds {
    /// Starts with the counts of builds that an earlier daemon saw.
    pub fn new(history: Vec<v1::Build>, now_ms: u64) -> Self {
        let mut builds = Self { last_id: now_ms, ..Self::default() };
        for counts in history {
            let gone = Process { pid: 0, parent: 0, started: 0, name: String::new(), state: 'Z' };
            if let Ok(id) = counts.id.parse() {
                builds.builds.insert(id, Known { root: gone, counts });
            }
        }
        builds
    }

    /// Takes in an invocation by `client`, whose ancestors are `ancestors` (its parent first). `claimed` is what its
    /// environment says; the processes know better.
    pub fn enter(
        &mut self,
        client: &Process,
        ancestors: &[Process],
        claimed: Option<&v1::Parent>,
        command: String,
    ) -> Place {
        self.last_id += 1;
        let id = self.last_id;
        let above = ancestors.iter().find_map(|process| {
            let running = self.running.get(self.by_pid.get(&process.pid)?)?;
            (running.process.started == process.started).then_some(running.place)
        });
        let claimed_place = claimed.and_then(|parent| Some(self.running.get(&parent.invocation)?.place));
        let place = match (above.or(claimed_place), claimed) {
            (Some(above), _) => {
                Place { id, build: above.build, parent: above.id, depth: above.depth.saturating_add(1) }
            }
            (None, Some(claimed)) => {
                Place { id, build: self.build_of(client, ancestors), parent: 0, depth: claimed.depth }
            }
            (None, None) => Place { id, build: self.build_of(client, ancestors), parent: 0, depth: 0 },
        };
        // A process that asks again has nothing else under way.
        if let Some(earlier) = self.by_pid.insert(client.pid, id) {
            self.running.remove(&earlier);
        }
        self.running.insert(id, Running { place, process: client.clone(), command, replaced: false });
        if let Some(build) = self.builds.get_mut(&place.build) {
            let counts = &mut build.counts;
            counts.invocations += 1;
            counts.nested += u64::from(place.depth > 0);
            counts.max_depth = counts.max_depth.max(u64::from(place.depth));
        }
        place
    }

    /// The build: the outermost driver above the client, or else its parent.
    fn build_of(&mut self, client: &Process, ancestors: &[Process]) -> u64 {
        // `zcache run` asks for its own build, whatever runs it.
        let named = |names: &[&str]| ancestors.iter().rfind(|process| names.contains(&process.name.as_str()));
        let driver = named(&["zcache"]).or_else(|| named(DRIVERS));
        let root = driver.or(ancestors.first()).unwrap_or(client);
        let same = |known: &Known| (known.root.pid, known.root.started) == (root.pid, root.started);
        if let Some((id, _)) = self.builds.iter().find(|(_, known)| same(known)) {
            return *id;
        }
        self.last_id += 1;
        let id = self.last_id;
        let counts = v1::Build { id: id.to_string(), command: root.command(), ..v1::Build::default() };
        self.builds.insert(id, Known { root: root.clone(), counts });
        while self.builds.len() > HISTORY {
            self.builds.pop_first();
        }
        id
    }

    /// Changes the counts of a build.
    pub fn count(&mut self, build: u64, change: impl FnOnce(&mut v1::Build)) {
        if let Some(known) = self.builds.get_mut(&build) {
            change(&mut known.counts);
        }
    }

    /// The invocation is over.
    pub fn leave(&mut self, id: u64) {
        if self.running.get(&id).is_some_and(|running| !running.replaced) {
            self.remove(id);
        }
    }

    /// The invocation's compiler takes over its process.
    pub fn replace(&mut self, id: u64) {
        if let Some(running) = self.running.get_mut(&id) {
            running.replaced = true;
        }
    }

    /// Drops the invocations whose process is gone.
    pub fn prune(&mut self, is_alive: impl Fn(&Process) -> bool) {
        let gone: Vec<u64> = self.running.values().filter(|r| !is_alive(&r.process)).map(|r| r.place.id).collect();
        gone.into_iter().for_each(|id| self.remove(id));
    }

    fn remove(&mut self, id: u64) {
        if let Some(running) = self.running.remove(&id)
            && self.by_pid.get(&running.process.pid) == Some(&id)
        {
            self.by_pid.remove(&running.process.pid);
        }
    }

    /// The nearest invocation above `place` that is still being compiled for: the ones between gave their process away.
    pub fn compiling_above(&self, place: &Place) -> Option<u64> {
        let mut above = place.parent;
        while let Some(running) = self.running.get(&above) {
            if !running.replaced {
                return Some(above);
            }
            above = running.place.parent;
        }
        None
    }

    /// Whether nothing runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Counts of the build whose root is this process.
    pub fn of_root(&self, root: &Process) -> Option<v1::Build> {
        let same = |known: &&Known| (known.root.pid, known.root.started) == (root.pid, root.started);
        self.builds.values().rfind(same).map(|known| known.counts.clone())
    }

    /// All builds with what runs in them, the newest last.
    pub fn list(&self, is_alive: impl Fn(&Process) -> bool) -> Vec<v1::Build> {
        let running = |build: u64| {
            let of_build = self.running.values().filter(move |running| running.place.build == build);
            of_build.map(|running| v1::Running {
                id: running.place.id,
                parent: running.place.parent,
                depth: running.place.depth,
                command: running.command.clone(),
            })
        };
        let build = |(id, known): (&u64, &Known)| v1::Build {
            active: is_alive(&known.root),
            running: running(*id).collect(),
            ..known.counts.clone()
        };
        self.builds.iter().map(build).collect()
    }

    /// Forgets the builds of the past.
    pub fn zero(&mut self) {
        let active: Vec<u64> = self.running.values().map(|running| running.place.build).collect();
        self.builds.retain(|id, _| active.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, name: &str) -> Process {
        Process { pid, parent, started: 1, name: name.into(), state: 'S' }
    }

    fn enter(builds: &mut Builds, chain: &[(u32, &str)], claimed: Option<v1::Parent>) -> Place {
        let processes: Vec<_> = chain
            .iter()
            .enumerate()
            .map(|(i, (pid, name))| process(*pid, chain.get(i + 1).map_or(1, |p| p.0), name))
            .collect();
        builds.enter(&processes[0], &processes[1..], claimed.as_ref(), String::new())
    }

    #[test]
    fn depth_follows_the_processes_whatever_the_environment_says() {
        let mut builds = Builds::default();
        let outer = enter(&mut builds, &[(30, "zcache-client"), (20, "cargo"), (10, "bash")], None);
        assert_eq!((outer.depth, outer.parent), (0, 0));
        let chain = [(60, "zcache-client"), (50, "sh"), (40, "rustc"), (30, "zcache-client"), (20, "cargo")];
        let inner = enter(&mut builds, &chain, None);
        assert_eq!((inner.depth, inner.parent, inner.build), (1, outer.id, outer.build));
        builds.leave(inner.id);
        builds.leave(outer.id);
        assert!(builds.is_idle());
        let later = enter(&mut builds, &chain, None);
        assert_eq!(later.depth, 0);
    }

    #[test]
    fn the_environment_serves_where_the_processes_do_not_tell() {
        let mut builds = Builds::default();
        let outer = enter(&mut builds, &[(30, "zcache-client"), (20, "cargo")], None);
        let inner = enter(&mut builds, &[(60, "zcache-client")], Some(outer.for_children()));
        assert_eq!((inner.depth, inner.parent, inner.build), (1, outer.id, outer.build));
        let stranger = v1::Parent { build: 999, invocation: 999, depth: 3 };
        assert_eq!(enter(&mut builds, &[(70, "zcache-client"), (20, "cargo")], Some(stranger)).depth, 3);
    }

    #[test]
    fn a_build_is_its_outermost_driver() {
        let mut builds = Builds::default();
        let a = enter(&mut builds, &[(30, "zcache-client"), (21, "cargo"), (20, "make"), (10, "bash")], None);
        let b = enter(&mut builds, &[(31, "zcache-client"), (22, "cargo"), (20, "make"), (10, "bash")], None);
        let c = enter(&mut builds, &[(32, "zcache-client"), (10, "bash")], None);
        assert_eq!(a.build, b.build);
        assert_ne!(a.build, c.build);
        assert_eq!(builds.of_root(&process(20, 10, "make")).unwrap().invocations, 2);
    }

    #[test]
    fn inputs_go_to_the_nearest_compile_above() {
        let mut builds = Builds::default();
        let outer = enter(&mut builds, &[(30, "zcache-client"), (20, "cargo")], None);
        let bypassed = enter(&mut builds, &[(40, "zcache-client"), (30, "zcache-client")], None);
        builds.replace(bypassed.id);
        builds.leave(bypassed.id);
        let inner = enter(&mut builds, &[(50, "zcache-client"), (40, "sh"), (30, "zcache-client")], None);
        assert_eq!(inner.depth, 2);
        assert_eq!(builds.compiling_above(&inner), Some(outer.id));
        builds.prune(|process| process.pid != 40);
        assert_eq!(builds.running.len(), 2);
    }
}
