//! Load: a thousand clients at the same moment, of one unit and of as many units. Each gets what bare gives, one compile
//! serves all that need the same, and the daemon is afterwards what it was before.

mod faults;
#[path = "fixture/mod.rs"]
mod fixture;
mod harness;
mod soak;
mod storage;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use faults::{daemon, descriptors, memory, until};
use harness::{CLIENT, Counts, Effect, World, assert_same, files, run, rustc};
use soak::fault::{FAULTS, Fault, Seen, disturb, pause};
use soak::{Chance, Soak};

/// How many come at once.
const CLIENTS: usize = 1000;
/// How many compiles bare may run beside each other.
const BARE: usize = 4;
/// Who compiles during a soak.
const WORKERS: usize = 4;
/// What the daemon's memory may grow by from one crowd to the next, KiB.
const GROWTH: u64 = 32 << 10;

/// One crowd at a time: the machine is busy with it.
static ALONE: Mutex<()> = Mutex::new(());

/// A unit as a client compiles it: its directory and the command.
struct Unit {
    dir: String,
    arguments: Vec<String>,
}

/// A source of C whose compile prints a warning.
fn c(world: &World, client: usize, number: usize) -> Unit {
    let dir = format!("c{client}");
    let text = format!("#warning \"number {number}\"\nint f(void) {{ return {number}; }}\n");
    world.write(&[(&format!("{dir}/x.c"), &text), (&format!("{dir}/out/.keep"), "")]);
    Unit { dir, arguments: words("gcc -c x.c -o out/x.o") }
}

fn rust(world: &World, client: usize, number: usize) -> Unit {
    let dir = format!("r{client}");
    let text = format!("pub fn f() -> usize {{ let unused = 0; {number} }}\n");
    world.write(&[(&format!("{dir}/x.rs"), &text), (&format!("{dir}/out/.keep"), "")]);
    // The results of one command line in many checkouts crowd each other out, so each has its own.
    let line = format!("{} x.rs --crate-name x{number} --crate-type lib --emit link,dep-info", rustc().display());
    Unit { dir, arguments: words(&format!("{line} --out-dir out")) }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

impl Unit {
    /// Waits at `gate` until nobody holds its other end, then compiles.
    fn waiting(&self, world: &World, client: Option<&str>, gate: Stdio) -> Command {
        let out = world.path(&self.dir).join("out");
        fs::remove_dir_all(&out).expect("a directory");
        fs::create_dir(&out).expect("a directory");
        let mut command = world.command("sh");
        command.args(["-c", "read _; exec \"$@\" </dev/null >out/stdout 2>out/stderr", "sh"]);
        command.args(client).args(&self.arguments).current_dir(world.path(&self.dir)).stdin(gate);
        command
    }

    /// What it left, its end being `code`.
    fn effect(&self, world: &World, code: Option<i32>) -> Effect {
        let files = files(&world.path(&self.dir).join("out"));
        let text = |name: &str| String::from_utf8_lossy(&files[Path::new(name)].1).into_owned();
        Effect { code, stdout: text("stdout"), stderr: text("stderr"), files }
    }
}

/// Effects of all units, every one of which has been started before the first goes on; and how long each took from then.
fn crowd(world: &World, units: &[Unit], client: Option<&str>) -> (Vec<Effect>, Vec<Duration>) {
    let (gate, open) = std::io::pipe().expect("a pipe");
    let start = |unit: &Unit| {
        let gate = Stdio::from(gate.try_clone().expect("a descriptor"));
        unit.waiting(world, client, gate).spawn().expect("a client")
    };
    let children: Vec<_> = units.iter().map(start).collect();
    let began = Instant::now();
    drop(open);
    std::thread::scope(|scope| {
        let end = |(unit, mut child): (_, std::process::Child)| {
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            let wait = move || {
                let status = child.wait().expect("a status");
                (Unit::effect(unit, world, status.code()), began.elapsed())
            };
            thread.spawn_scoped(scope, wait).expect("a thread")
        };
        let all: Vec<_> = units.iter().zip(children).map(end).collect();
        all.into_iter().map(|thread| thread.join().expect("an effect")).unzip()
    })
}

/// The same, a few at a time.
fn bare(world: &World, units: &[Unit]) -> Vec<Effect> {
    units.chunks(BARE).flat_map(|some| crowd(world, some, None).0).collect()
}

/// The time within which so many in a thousand were done.
fn within(times: &[Duration], per_mille: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * per_mille / 1000).min(sorted.len() - 1)]
}

/// A daemon under crowds, and what it was after the first.
struct Served {
    world: World,
    first: Option<(i32, usize, u64)>,
}

impl Served {
    fn new() -> Self {
        let world = World::new();
        run(&mut world.zcache("start"));
        Self { world, first: None }
    }

    /// Sends a crowd, compares it with bare, and says how it was answered.
    fn crowd(&mut self, what: &str, units: &[Unit], bare: &[Effect]) -> Counts {
        let world = &self.world;
        let before = world.status();
        let (effects, times) = crowd(world, units, Some(CLIENT));
        let counts = world.since(&before);
        let [half, most, all] = [500, 990, 999].map(|share| within(&times, share));
        let pid = daemon(world);
        println!(
            "{what}: {} clients, p50 {half:?}, p99 {most:?}, last {all:?}; {counts:?}; {} KiB",
            units.len(),
            memory(pid)
        );
        for ((unit, want), got) in units.iter().zip(bare).zip(&effects) {
            assert_same(want, got, &format!("{what}: {}", unit.dir));
        }
        assert_eq!(world.total("errors"), 0, "{what}: {}", world.log());
        let (first, open, occupied) = *self.first.get_or_insert_with(|| (pid, descriptors(pid), memory(pid)));
        assert_eq!(pid, first, "{what}: it is the same daemon still");
        until("all is given back", world, || descriptors(pid) <= open);
        assert!(memory(pid) < occupied + GROWTH, "{what}: {} KiB, {occupied} after the first", memory(pid));
        counts
    }
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_thousand_clients_of_one_unit() {
    let _alone = alone();
    let mut served = Served::new();
    let units: Vec<_> = (0..CLIENTS).map(|client| c(&served.world, client, 7)).collect();
    let bare = vec![bare(&served.world, &units[..1]).remove(0); units.len()];
    let cold = served.crowd("one unit, cold", &units, &bare);
    assert_eq!(cold.misses, 1, "{cold:?}");
    assert_served(cold, units.len());
    for round in 0..3 {
        let warm = served.crowd(&format!("one unit, warm {round}"), &units, &bare);
        assert_eq!(warm.misses, 0, "{warm:?}");
        assert_served(warm, units.len());
    }
}

#[test]
fn a_thousand_clients_of_a_thousand_units() {
    let _alone = alone();
    let mut served = Served::new();
    let mut units: Vec<_> = (0..CLIENTS).map(|client| c(&served.world, client, client)).collect();
    units.extend((0..CLIENTS / 50).map(|client| rust(&served.world, client, client)));
    let began = Instant::now();
    let bare = bare(&served.world, &units);
    println!("bare: {:?}", began.elapsed());
    let cold = served.crowd("many units, cold", &units, &bare);
    assert_eq!(cold.hits, 0, "{cold:?}");
    let warm = served.crowd("many units, warm", &units, &bare);
    assert_eq!(warm.misses, 0, "{}", served.world.status());
    assert_served(warm, units.len());
}

/// Where the machine is busy with others as well, some clients give up waiting and compile by themselves.
fn assert_served(counts: Counts, clients: usize) {
    assert!(counts.hits as usize * 2 >= clients, "{counts:?}");
}

/// `ZCACHE_SOAK_COMPILES`, or few enough for every day.
fn compiles(few: usize) -> usize {
    std::env::var("ZCACHE_SOAK_COMPILES").map_or(few, |many| many.parse().expect("a number"))
}

/// Runs a soak to its end, disturbed or not, and says what came of it.
fn endure(soak: &Soak, mut meanwhile: impl FnMut(&mut Seen)) -> Seen {
    println!("{} compiles, seed {}", soak.compiles, soak.seed);
    let mut seen = Seen::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || soak.work(worker))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            seen.look(&soak.world);
            meanwhile(&mut seen);
        }
    });
    let (took, status, tally) = (began.elapsed(), soak.world.status(), soak.tally.lock().expect("a tally"));
    let [half, most, last] = [500, 990, 999].map(|share| within(&tally.times, share));
    println!(
        "{took:?}; per compile p50 {half:?}, p99 {most:?}, p99.9 {last:?}; {} differences",
        tally.differences.len()
    );
    println!("daemon {}", status["daemon"]);
    println!("faults {:?}, clients killed {}, daemons {}", seen.faults, tally.killed, seen.daemons.len());
    println!(
        "totals {}\nmisses {}\nrefused {}\ncache {}",
        status["totals"], status["miss_reasons"], status["refusal_reasons"], status["cache"]
    );
    if let Ok(at) = std::env::var("ZCACHE_SOAK_LOG") {
        fs::write(at, soak.world.log()).expect("a log");
    }
    let mut memories: Vec<u64> = seen.samples.iter().map(|sample| sample.0).collect();
    memories.sort_unstable();
    let most = seen.samples.iter().map(|sample| sample.1).max();
    println!(
        "daemon: {} to {} KiB, half of the time below {}; descriptors up to {most:?}",
        memories[0],
        memories[memories.len() - 1],
        memories[memories.len() / 2]
    );
    assert_eq!(tally.differences, [""; 0], "seed {}", soak.seed);
    assert!(!soak.world.log().contains("panicked"), "{}", soak.world.log());
    seen
}

#[test]
#[ignore = "takes as long as ZCACHE_SOAK_COMPILES says"]
fn soak_among_faults() {
    let _alone = alone();
    let seed = std::env::var("ZCACHE_SOAK_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let soak = Soak::new(compiles(2000), seed, true);
    soak.world.write(&[("config/zcache/config.toml", "max_size = \"256 KiB\"\n")]);
    let mut chance = Chance(seed | 1);
    // In a long run there is time to become warm in between.
    let rest = (soak.compiles as u64 / 50).clamp(600, 4000);
    let mut next = 0;
    let seen = endure(&soak, |seen| {
        let fault = FAULTS[next % FAULTS.len()];
        pause(&mut chance, rest);
        disturb(&soak, fault, &mut chance);
        (*seen.faults.entry(fault).or_default(), next) = (next / FAULTS.len() + 1, next + 1);
    });
    // Only who was killed, or served what could only be read, was replaced.
    let ended =
        [Fault::DaemonKilled, Fault::StoreReadOnly].iter().filter_map(|fault| seen.faults.get(fault)).sum::<usize>();
    assert!(seen.daemons.len() <= 1 + ended, "{seen:?}\n{}", soak.world.log());
}

#[test]
#[ignore = "takes as long as ZCACHE_SOAK_COMPILES says"]
fn soak_undisturbed() {
    let _alone = alone();
    let soak = Soak::new(compiles(3000), 1, false);
    let mut tenths: Vec<(u64, usize)> = Vec::new();
    let seen = endure(&soak, |seen| {
        std::thread::sleep(Duration::from_millis(50));
        let done = soak.done.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(sample) = seen.samples.last()
            && done * 10 / soak.compiles > tenths.len()
        {
            tenths.push(*sample);
        }
    });
    println!("KiB and descriptors by tenths of the way: {tenths:?}");
    assert_eq!(seen.daemons.len(), 1, "{}", soak.world.log());
}
