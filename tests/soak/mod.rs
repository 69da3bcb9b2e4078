//! Soak: workers that compile the units of a small pool, each time in some state of its files, compare every effect with
//! bare's and take the time. Knows the harness, not what disturbs them.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod fault;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::harness::{CLIENT, Effect, World, effect, rustc};

/// Numbers that are enough like chance, and the same for the same seed.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A unit: its command, and each of its files with the states that it may be in. An empty one is not there.
struct Unit {
    line: &'static str,
    files: &'static [(&'static str, &'static [&'static str])],
}

const HEADERS: &[(&str, &[&str])] = &[
    ("x.c", &["#include \"a.h\"\n#include \"b.h\"\nint f(void) { return A + B + N; }\n"]),
    ("i1/a.h", &["#define A 1\n", "#define A 2\n", ""]),
    ("i2/a.h", &["#define A 3\n"]),
    ("i2/b.h", &["#define B 1\n", "#define B 2\n#warning \"of b\"\n", "#define B 1\n", "#define B (A)\n"]),
];

const POOL: &[Unit] = &[
    Unit { line: "gcc -c x.c -o o/x.o -MD -MF o/x.d -Ii1 -Ii2 -DN=1", files: HEADERS },
    Unit { line: "gcc -c x.c -o o/x.o -MMD -MP -O2 -Ii1 -Ii2 -DN=2", files: HEADERS },
    Unit { line: "gcc -c x.c -o o/x.o -g -O1 -MD -Ii1 -Ii2 -DN=3", files: HEADERS },
    Unit { line: "gcc -S x.c -o o/x.s -O1 -Ii1 -Ii2 -DN=4", files: HEADERS },
    Unit {
        line: "gcc -c x.c -o o/x.o -Wall -fstack-usage -I.",
        files: &[
            (
                "x.c",
                &["#if __has_include(\"opt.h\")\n#include \"opt.h\"\n#endif\nint g(int n) { int unused; return n; }\n"],
            ),
            ("opt.h", &["", "static int opt(void) { return 3; }\n", "", "#error not today\n"]),
        ],
    },
    Unit {
        line: "rustc x.rs --crate-name x --crate-type lib --emit link,metadata,dep-info --out-dir o",
        files: &[
            ("x.rs", &["mod m;\npub fn f() -> u8 { m::N }\n"]),
            (
                "m.rs",
                &["pub const N: u8 = 1;\n", "pub const N: u8 = 2;\nfn unused() {}\n", "pub const N: u8 = 3;\n", ""],
            ),
        ],
    },
];

/// One worker's copy of the pool.
struct Yard<'a> {
    world: &'a World,
    worker: usize,
    /// For each unit, the states of its files.
    states: Vec<Vec<usize>>,
    bare: HashMap<(usize, Vec<usize>), Effect>,
}

impl<'a> Yard<'a> {
    fn new(world: &'a World, worker: usize) -> Self {
        let states = POOL.iter().map(|unit| vec![0; unit.files.len()]).collect();
        let yard = Self { world, worker, states, bare: HashMap::new() };
        for (unit, kind) in POOL.iter().enumerate() {
            (0..kind.files.len()).for_each(|file| yard.put(unit, file, ""));
        }
        yard
    }

    fn name(&self, unit: usize) -> String {
        format!("w{}/{unit}", self.worker)
    }

    fn out(&self, unit: usize) -> PathBuf {
        self.world.path(&self.name(unit)).join("o")
    }

    /// Puts a file in its state, with `more` at its end.
    fn put(&self, unit: usize, file: usize, more: &str) {
        let (name, states) = POOL[unit].files[file];
        let at = format!("{}/{name}", self.name(unit));
        match states[self.states[unit][file]] {
            "" => self.world.remove(&at),
            text => self.world.write(&[(&at, &format!("{text}{more}"))]),
        }
    }

    /// Edits, touches or leaves each file. What is unique is in no state of the pool.
    fn change(&mut self, unit: usize, chance: &mut Chance, unique: Option<usize>) {
        for file in 0..POOL[unit].files.len() {
            let states = POOL[unit].files[file].1.len();
            if states > 1 && chance.once_in(8) {
                self.states[unit][file] = chance.below(states);
                self.put(unit, file, "");
            } else if chance.once_in(50) {
                self.put(unit, file, "");
            }
        }
        let comment = unique.map(|number| format!("// unique {number}\nextern int unique_{number};\n"));
        let rust = POOL[unit].line.starts_with("rustc");
        let comment = comment.map(|text| if rust { text.lines().next().unwrap_or_default().to_owned() } else { text });
        if let Some(more) = comment {
            self.put(unit, 0, &more);
        }
    }

    fn command(&self, unit: usize, cached: bool) -> Command {
        let mut words: Vec<String> = POOL[unit].line.split(' ').map(str::to_owned).collect();
        if words[0] == "rustc" {
            words[0] = rustc().display().to_string();
        }
        if cached {
            words.insert(0, CLIENT.to_owned());
        }
        let mut command = self.world.command(&words[0]);
        command.args(&words[1..]).current_dir(self.world.path(&self.name(unit))).env("ZCACHE_LOG", "info");
        command
    }

    fn clean(&self, unit: usize) {
        let _ = fs::remove_dir_all(self.out(unit));
        fs::create_dir(self.out(unit)).expect("a directory");
    }

    /// What bare makes of the present state, learnt once.
    fn learn(&mut self, unit: usize, unique: bool) -> Effect {
        let key = (unit, self.states[unit].clone());
        if !unique && let Some(known) = self.bare.get(&key) {
            return known.clone();
        }
        self.clean(unit);
        let bare = effect(&mut self.command(unit, false), &self.out(unit));
        self.clean(unit);
        if !unique {
            self.bare.insert(key, bare.clone());
        }
        bare
    }

    /// Compiles and kills the client in the midst of it. What is left of it may be anything.
    fn kill(&self, unit: usize, chance: &mut Chance) {
        let mut command = self.command(unit, true);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a client");
        std::thread::sleep(Duration::from_micros(chance.below(30_000) as u64));
        let _ = child.kill();
        let _ = child.wait();
        let here = self.world.path(&self.name(unit));
        let at_work = || {
            let mut all = fs::read_dir("/proc").expect("/proc").flatten();
            all.any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == here))
        };
        while at_work() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.clean(unit);
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long each compile took.
    pub times: Vec<Duration>,
    /// Each effect that was not bare's.
    pub differences: Vec<String>,
    /// Clients that were killed.
    pub killed: usize,
}

/// A soak under way.
pub struct Soak {
    /// Where.
    pub world: World,
    /// How many compiles there are to be.
    pub compiles: usize,
    /// What chance begins with.
    pub seed: u64,
    /// Whether clients are killed.
    pub kills: bool,
    /// One compile in so many is of what nobody has compiled before.
    pub new_in: usize,
    /// How many there have been.
    pub done: AtomicUsize,
    /// Held for writing while what a client may be about to read is damaged.
    pub between: RwLock<()>,
    /// What came of it so far.
    pub tally: Mutex<Tally>,
}

impl Soak {
    /// So many compiles, and things that are new as often as `ZCACHE_SOAK_NEW_IN` says, or now and then.
    pub fn new(compiles: usize, seed: u64, kills: bool) -> Self {
        let new_in = std::env::var("ZCACHE_SOAK_NEW_IN").map_or(200, |often| often.parse().expect("a number"));
        let (done, between, tally) = (AtomicUsize::new(0), RwLock::default(), Mutex::default());
        Self { world: World::new(), compiles, seed, kills, new_in, done, between, tally }
    }

    /// Whether all are done.
    pub fn is_over(&self) -> bool {
        self.done.load(Relaxed) >= self.compiles
    }

    /// One worker: compiles until all are done.
    pub fn work(&self, worker: usize) {
        let mut chance = Chance(self.seed.wrapping_add(1 + worker as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut yard = Yard::new(&self.world, worker);
        let mut own = Tally::default();
        loop {
            let number = self.done.fetch_add(1, Relaxed);
            if number >= self.compiles {
                break;
            }
            self.once(number, &mut yard, &mut chance, &mut own);
        }
        let mut tally = self.tally.lock().expect("a tally");
        tally.times.append(&mut own.times);
        tally.differences.append(&mut own.differences);
        tally.killed += own.killed;
    }

    fn once(&self, number: usize, yard: &mut Yard<'_>, chance: &mut Chance, tally: &mut Tally) {
        // rustc takes ten times as long as gcc.
        let unit = chance.below(2 * POOL.len() - 1) / 2;
        let unique = chance.once_in(self.new_in).then_some(number);
        yard.change(unit, chance, unique);
        let want = yard.learn(unit, unique.is_some());
        // What a failing compile leaves of what was there before is not looked at.
        if want.code != Some(0) || chance.once_in(2) {
            yard.clean(unit);
        }
        let _between = self.between.read().expect("no worker failed");
        if self.kills && chance.once_in(500) {
            yard.kill(unit, chance);
            tally.killed += 1;
        }
        let began = Instant::now();
        let got = effect(&mut yard.command(unit, true), &yard.out(unit));
        tally.times.push(began.elapsed());
        if got != want {
            let state = &yard.states[unit];
            let (line, want, got) = (POOL[unit].line, show(&want), show(&got));
            tally.differences.push(format!("compile {number}, {line} in {state:?}: {got} instead of {want}"));
        }
        if unique.is_some() {
            yard.put(unit, 0, "");
        }
        if want.code != Some(0) {
            yard.clean(unit);
        }
    }
}

/// An effect in a few words.
fn show(effect: &Effect) -> String {
    let files = effect.files.iter().map(|(name, (mode, bytes))| {
        let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        format!("{} {mode:o} {} {sum:x}", name.display(), bytes.len())
    });
    format!("{:?} {:?} {:?} {:?}", effect.code, effect.stdout, effect.stderr, files.collect::<Vec<_>>())
}
