//! Images: which program each record of an observation belongs to, what is mapped in it, and whether every program
//! that the tree ran was seen from beginning to end. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use zcache_proto::trace;

use crate::compilers::toolchain::{is_tool, owns};
use crate::observation::Record;

/// One program in one process: a process that calls `exec` has several in turn.
#[derive(Debug, Default)]
pub struct Image {
    /// The executable.
    pub program: Vec<u8>,
    /// Whether that is a compiler, assembler or linker.
    pub is_tool: bool,
    modules: Vec<Module>,
    /// By the first address: one past the last, and which of `modules` it is.
    mapped: BTreeMap<u64, (u64, usize)>,
    /// A zcache client, which reports its doings itself.
    exempt: bool,
}

/// An object mapped in an image.
#[derive(Debug)]
pub struct Module {
    /// Its file.
    pub path: Vec<u8>,
    /// Whether it is part of the toolchain that the program belongs to.
    pub is_own: bool,
}

impl Image {
    fn new(program: &[u8]) -> Self {
        Self { program: program.to_vec(), is_tool: is_tool(program), ..Self::default() }
    }

    /// The mapped object that an address lies in.
    pub fn module_at(&self, address: u64) -> Option<&Module> {
        let (_, (end, module)) = self.mapped.range(..=address).next_back()?;
        (address < *end).then(|| &self.modules[*module])
    }

    /// Objects that were mapped in it, the program among them.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    /// Takes in an object. What is mapped where another one was before answers for no
    /// address.
    fn map(&mut self, start: u64, end: u64, path: &[u8]) {
        let overlaps = self.mapped.range(..end).next_back().is_some_and(|(_, (known, _))| *known > start);
        if !overlaps && start < end {
            self.mapped.insert(start, (end, self.modules.len()));
        }
        self.modules.push(Module { path: path.to_vec(), is_own: owns(&self.program, path) });
    }
}

/// All images of one observation.
#[derive(Debug, Default)]
pub struct Images {
    images: Vec<Image>,
    of_record: Vec<Option<usize>>,
    unobserved: Vec<Vec<u8>>,
    away: Vec<Vec<u8>>,
    /// For each `exec` that did not happen, its error.
    failed: HashMap<usize, u32>,
    /// Records that start a zcache client.
    clients: HashSet<usize>,
}

impl Images {
    /// Sorts `records` by image. `client` started the first program, `program`.
    pub fn of(records: &[Record<'_>], client: u32, program: &[u8]) -> Self {
        let mut images = Self::default();
        let mut current: HashMap<u32, usize> = HashMap::new();
        for record in records {
            if record.kind == trace::START {
                current.insert(record.pid, images.images.len());
                images.images.push(Image::new(record.a));
            }
            let index = current.get(&record.pid).copied();
            images.of_record.push(index);
            let Some(index) = index else { continue };
            let image = &mut images.images[index];
            match record.kind {
                trace::MODULE => image.map(record.caller, record.value, record.a),
                kind => image.exempt |= kind == trace::EXEMPT,
            }
        }
        images.unobserved = unobserved(records);
        if !records.iter().any(|r| r.kind == trace::START && r.value == u64::from(client)) {
            images.unobserved.push(program.to_vec());
        }
        images.away = records.iter().filter(|record| record.has(trace::AWAY)).map(|record| record.a.to_vec()).collect();
        images.failed = failed(records);
        images.clients = images.clients(records);
        images
    }

    fn clients(&self, records: &[Record<'_>]) -> HashSet<usize> {
        if !self.images.iter().any(|image| image.exempt) {
            return HashSet::new();
        }
        let mut begun: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate().filter(|(_, record)| record.kind == trace::START) {
            begun.entry(record.pid).or_default().push(index);
        }
        let starts = |index: usize, record: &Record<'_>| {
            let pid = if record.kind == trace::SPAWN { record.value as u32 } else { record.pid };
            // A spawned program may have begun before the call that started it ended.
            let from = if record.kind == trace::SPAWN { 0 } else { index };
            let starts = begun.get(&pid).map_or(&[][..], Vec::as_slice);
            starts.get(starts.partition_point(|start| *start < from)).is_some_and(|start| self.is_exempt(*start))
        };
        let starting = records.iter().enumerate().filter(|(_, r)| matches!(r.kind, trace::EXEC | trace::SPAWN));
        starting.filter(|(index, record)| starts(*index, record)).map(|(index, _)| index).collect()
    }

    /// The image of the record at `index`; none for a process that was forked and never became a program.
    pub fn of_record(&self, index: usize) -> Option<&Image> {
        self.of_record[index].map(|image| &self.images[image])
    }

    /// Whether the record at `index` is a zcache client's own doing.
    pub fn is_exempt(&self, index: usize) -> bool {
        self.of_record(index).is_some_and(|image| image.exempt)
    }

    /// Whether the program that the record at `index` starts is a zcache client.
    pub fn starts_client(&self, index: usize) -> bool {
        self.clients.contains(&index)
    }

    /// The error of the `exec` at `index`, where it failed.
    pub fn failure(&self, index: usize) -> Option<u32> {
        self.failed.get(&index).copied()
    }

    /// Programs that were not seen, or not to their end.
    pub fn unobserved(&self) -> &[Vec<u8>] {
        &self.unobserved
    }

    /// Programs to which paths mean other files than to those before.
    pub fn away(&self) -> impl Iterator<Item = &[u8]> {
        self.away.iter().map(Vec::as_slice)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().filter(|image| !image.exempt)
    }
}

fn failed(records: &[Record<'_>]) -> HashMap<usize, u32> {
    let mut last: HashMap<u32, usize> = HashMap::new();
    let mut failed = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        match record.kind {
            trace::EXEC => drop(last.insert(record.pid, index)),
            trace::EXEC_FAILED => failed.extend(last.remove(&record.pid).map(|exec| (exec, record.errno))),
            _ => {}
        }
    }
    failed
}

/// Every program that was started must have reported its start and its end.
fn unobserved(records: &[Record<'_>]) -> Vec<Vec<u8>> {
    let mut awaited: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut running: HashMap<u32, Vec<u8>> = HashMap::new();
    // What ran in a process that is becoming another program.
    let mut before: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut begun: HashSet<u32> = HashSet::new();
    let mut spawned: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut gaps = Vec::new();
    for record in records {
        match record.kind {
            trace::START => {
                awaited.remove(&record.pid);
                begun.insert(record.pid);
                running.insert(record.pid, record.a.to_vec());
            }
            trace::EXEC | trace::SPAWN if record.has(trace::FOREIGN | trace::AWAY) => gaps.push(record.a.to_vec()),
            trace::EXEC => {
                awaited.insert(record.pid, record.a.to_vec());
                before.extend(running.remove(&record.pid).map(|program| (record.pid, program)));
            }
            trace::EXEC_FAILED => {
                awaited.remove(&record.pid);
                running.extend(before.remove(&record.pid).map(|program| (record.pid, program)));
            }
            trace::SPAWN => spawned.push((record.value as u32, record.a.to_vec())),
            trace::EXIT | trace::EXEMPT => {
                running.remove(&record.pid);
            }
            _ => {}
        }
    }
    gaps.extend(spawned.into_iter().filter(|(pid, _)| !begun.contains(pid)).map(|(_, program)| program));
    gaps.extend(awaited.into_values());
    gaps.extend(running.into_values());
    gaps
}
