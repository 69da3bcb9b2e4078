//! Load: a thousand clients at the same moment, of one unit and of as many units. Each gets what bare gives, one compile
//! serves all that need the same, and the daemon is afterwards what it was before.

mod crowd;
mod faults;
#[path = "fixture/mod.rs"]
mod fixture;
mod harness;
mod soak;
mod storage;

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crowd::{Unit, bare, c, crowd, rust, within};
use faults::{daemon, descriptors, memory, until};
use harness::{CLIENT, Counts, Effect, World, assert_same, run};
use soak::fault::{FAULTS, Fault, Seen, disturb, pause};
use soak::{Chance, Soak};

/// How many come at once.
const CLIENTS: usize = 1000;
/// Who compiles during a soak.
const WORKERS: usize = 4;
/// What the daemon's memory may grow by from one crowd to the next, KiB.
const GROWTH: u64 = 32 << 10;

/// What the daemon's memory may differ by once it is warm, KiB.
const FLAT: u64 = 4 << 10;

/// One crowd at a time: the machine is busy with it.
static ALONE: Mutex<()> = Mutex::new(());

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
    let unknown = units.len() as u64 - served.world.total("stored");
    let warm = served.crowd("many units, warm", &units, &bare);
    assert!(warm.misses <= unknown, "{unknown} were compiled without the daemon: {}", served.world.status());
    assert_served(warm, units.len());
}

/// They race to start the one that is to serve them.
#[test]
fn a_thousand_clients_without_a_daemon() {
    let _alone = alone();
    let world = World::new();
    let units: Vec<_> = (0..CLIENTS).map(|client| c(&world, client, client % 10)).collect();
    let few = bare(&world, &units[..10]);
    let (effects, times) = crowd(&world, &units, Some(CLIENT));
    println!("p50 {:?}, last {:?}; {}", within(&times, 500), within(&times, 999), world.status()["totals"]);
    for (client, got) in effects.iter().enumerate() {
        assert_same(&few[client % 10], got, &format!("client {client}"));
    }
    daemon(&world);
    assert_eq!(world.log().matches(" serving ").count(), 1, "{}", world.log());
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
    soak.world.write(&[("config/zcache/config.toml", "max_size = \"64 KiB\"\n")]);
    let mut chance = Chance(seed | 1);
    // In a long run there is time to become warm in between.
    let rest = (soak.compiles as u64 / 50).clamp(600, 4000);
    let (mut next, mut evicted) = (0, 0);
    let seen = endure(&soak, |seen| {
        let fault = FAULTS[next % FAULTS.len()];
        pause(&mut chance, rest);
        // Each daemon counts its own.
        evicted = evicted.max(soak.world.status()["cache"]["evicted_bytes"].as_u64().unwrap_or(0));
        disturb(&soak, fault, &mut chance);
        (*seen.faults.entry(fault).or_default(), next) = (next / FAULTS.len() + 1, next + 1);
    });
    println!("up to {evicted} bytes evicted by one daemon");
    assert!(evicted > 0, "the store is small enough for the results to crowd each other out");
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
    let mut tenths: [Vec<(u64, usize)>; 10] = Default::default();
    let seen = endure(&soak, |seen| {
        std::thread::sleep(Duration::from_millis(50));
        let done = soak.done.load(std::sync::atomic::Ordering::Relaxed);
        tenths[(done * 10 / soak.compiles).min(9)].extend(seen.samples.last());
    });
    assert_eq!(seen.daemons.len(), 1, "{}", soak.world.log());
    let tenths = tenths.map(median);
    println!("KiB and descriptors by tenths of the way: {tenths:?}");
    let (_, warm) = tenths.split_at(2);
    let (usual, last) = (median(warm.to_vec()), warm[warm.len() - 1]);
    assert!(last.0 < usual.0 + FLAT && last.1 < usual.1 + 5, "flat once the daemon is warm: {tenths:?}");
}

/// The one in the middle, by memory and by descriptors.
fn median(samples: Vec<(u64, usize)>) -> (u64, usize) {
    let (mut memory, mut descriptors): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    memory.sort_unstable();
    descriptors.sort_unstable();
    (memory[memory.len() / 2], descriptors[descriptors.len() / 2])
}
