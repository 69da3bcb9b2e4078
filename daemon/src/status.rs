//! Status: the report that `zcache status --json` prints, of a running daemon or of a store at rest.

use prost::Message;
use zcache_proto::v1::{Daemon, StatusReport, Store as StoreReport};

use crate::cache::Cache;
use crate::config::Config;
use crate::inputs::lock;
use crate::process::Process;
use crate::store::{OpenError, Store};

/// Name of the counters' record in the index.
pub const STATS: &str = "stats";

/// The report of a running daemon.
pub fn report(cache: &Cache, daemon: Daemon) -> StatusReport {
    StatusReport { daemon: Some(daemon), ..kept(cache, true) }
}

/// Writes the counters and the history of builds to the index.
pub fn save(cache: &Cache) {
    if cache.shelf.store.admits().is_err() {
        return;
    }
    let record = kept(cache, false).encode_to_vec();
    let store = &cache.shelf.store;
    let saved = store.index().put_meta(STATS, &record).and_then(|()| store.index().save_totals());
    if let Err(error) = saved {
        tracing::warn!(%error, "the counters could not be saved");
    }
}

/// The report of the store that no daemon has open.
pub fn at_rest(config: &Config) -> Result<StatusReport, OpenError> {
    if !config.dir.join("FORMAT").exists() {
        let dir = config.dir.display().to_string();
        let cache = StoreReport { dir, max_bytes: config.max_size, ..StoreReport::default() };
        return Ok(StatusReport { cache: Some(cache), totals: Some(Default::default()), ..StatusReport::default() });
    }
    let store = Store::open(&config.dir, config.max_size)?;
    let mut report = saved(&store);
    report.cache = Some(describe(&store));
    report.totals.get_or_insert_default();
    Ok(report)
}

/// The counters as they were saved.
pub fn saved(store: &Store) -> StatusReport {
    let record = store.index().meta(STATS).unwrap_or_default();
    StatusReport::decode(record.as_slice()).unwrap_or_default()
}

fn kept(cache: &Cache, live: bool) -> StatusReport {
    let is_alive = |process: &Process| live && process.is_alive();
    let mut builds = {
        let mut builds = lock(&cache.builds);
        builds.prune(Process::is_alive);
        builds.list(is_alive)
    };
    if !live {
        builds.iter_mut().for_each(|build| build.running.clear());
    }
    StatusReport { cache: Some(describe(&cache.shelf.store)), builds, ..lock(&cache.stats).report() }
}

fn describe(store: &Store) -> StoreReport {
    StoreReport {
        dir: store.dir.display().to_string(),
        bytes: store.bytes(),
        max_bytes: store.max_bytes,
        blobs: store.index().blob_count(),
        results: store.index().action_count(),
        evicted_bytes: store.evicted_bytes(),
        quarantined: store.quarantined(),
        problem: store.admits().err().map(|refusal| refusal.to_string()).unwrap_or_default(),
    }
}
