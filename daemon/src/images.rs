//! Images: which program each record of an observation belongs to, and what is mapped in it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use zcache_proto::trace;

use crate::compilers::toolchain::{is_tool, owns};
use crate::observation::Record;
use crate::starts::Starts;

/// One program in one process: a process that calls `exec` has several in turn.
#[derive(Debug, Default)]
pub struct Image {
    /// The process.
    pub pid: u32,
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
    fn new(start: &Record<'_>) -> Self {
        Self { pid: start.pid, program: start.a.to_vec(), is_tool: is_tool(start.a), ..Self::default() }
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
    /// How they came to run.
    pub starts: Starts,
    away: Vec<Vec<u8>>,
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
                images.images.push(Image::new(record));
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
        images.starts = Starts::of(records, client, program);
        images.away = records.iter().filter(|record| record.has(trace::AWAY)).map(|record| record.a.to_vec()).collect();
        images.clients = images.starts.asking_for(|start| images.is_exempt(start));
        images
    }

    /// The image of the record at `index`; none for a process that was forked and never became a program.
    pub fn of_record(&self, index: usize) -> Option<&Image> {
        self.of_record[index].map(|image| &self.images[image])
    }

    /// The number of the image of the record at `index`.
    pub fn number_of(&self, index: usize) -> Option<usize> {
        self.of_record[index]
    }

    /// The image of a number.
    pub fn number(&self, number: usize) -> &Image {
        &self.images[number]
    }

    /// Whether the record at `index` is a zcache client's own doing.
    pub fn is_exempt(&self, index: usize) -> bool {
        self.of_record(index).is_some_and(|image| image.exempt)
    }

    /// Whether the program that the record at `index` starts is a zcache client.
    pub fn starts_client(&self, index: usize) -> bool {
        self.clients.contains(&index)
    }

    /// Programs to which paths mean other files than to those before.
    pub fn away(&self) -> impl Iterator<Item = &[u8]> {
        self.away.iter().map(Vec::as_slice)
    }

    /// Processes of zcache clients that became no other program: they have to report by themselves.
    pub fn clients(&self) -> BTreeSet<u32> {
        let asked: HashSet<usize> = self.starts.asking_for(|_| true);
        let became: HashSet<usize> = asked.into_iter().filter_map(|asking| self.of_record[asking]).collect();
        let all = self.images.iter().enumerate();
        all.filter(|(number, image)| image.exempt && !became.contains(number)).map(|(_, image)| image.pid).collect()
    }

    /// All of them but zcache clients.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().filter(|image| !image.exempt)
    }
}
