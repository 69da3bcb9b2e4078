//! Server: the daemon's life. One per socket, by a lock held from before the socket is probed until after it is
//! removed; drains when told to stop; leaves when it was started by a client and nobody needs it any more.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tonic::transport::Server;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private;
use zcache_proto::v1::cache_server::CacheServer;
use zcache_proto::{MESSAGE_LIMIT, v1};

use crate::address;
use crate::builds::Builds;
use crate::cache::Cache;
use crate::callers::calls;
use crate::claim::{Activation, ServeError, identity, listen, open, take_lock};
use crate::commit::Shelf;
use crate::config::Config;
use crate::directories::Directories;
use crate::failpoint::{self, Point};
use crate::inputs::Inputs;
use crate::plugins::Plugins;
use crate::scripts::Scripts;
use crate::scrub::Patrol;
use crate::service::Service;
use crate::sources::Sources;
use crate::stats::Stats;
use crate::status;
use crate::store::Store;
use crate::wire::now_ns;

/// Longest piece in which a message comes, bytes: most traces need one, where the protocol's usual 16 KiB make many.
const FRAME_MAX: u32 = 1 << 20;
/// How often the daemon saves its counters and shows that it lives.
const TICK: Duration = Duration::from_secs(1);
/// A daemon that a client started leaves after this long without work.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// With nothing to do for this long, it reads its store again.
const QUIET: Duration = Duration::from_secs(60);
/// How long requests under way may take to end once the daemon is to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to stop.
pub async fn serve(config: Config, endpoint: Endpoint, activation: Activation) -> Result<(), ServeError> {
    let name = || endpoint.socket.display().to_string();
    private::make(endpoint.dir())?;
    let lock = take_lock(&endpoint.lock()).await?.ok_or_else(|| ServeError::AlreadyRunning(name()))?;
    let Some(store) = open(&config, &endpoint, activation).await? else {
        return tell_starter().map_err(ServeError::Io);
    };
    let (listener, activation) = listen(&endpoint, activation)?;
    let own = identity(&endpoint.socket);
    if !store.premises.read_only {
        address::write(&config.dir, &endpoint.socket);
    }
    let cache = Arc::new(cache(store));
    let about = v1::Daemon {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: 0,
        socket: name(),
        activation: activation.word().to_owned(),
        log: config.log.clone(),
    };
    let stop = Arc::new(Notify::new());
    let service = CacheServer::new(Service::new(Arc::clone(&cache), about, Arc::clone(&stop)))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    tracing::info!(socket = name(), store = %config.dir.display(), activation = activation.word(), "serving");
    tell_starter()?;
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let uid = nix::unistd::getuid().as_raw();
    let incoming = calls(listener, uid);
    let ended = Arc::new(Notify::new());
    let shutdown = {
        let (ended, cache, endpoint) = (Arc::clone(&ended), Arc::clone(&cache), endpoint.clone());
        async move {
            live(&cache, &endpoint, activation, own, &stop).await;
            if !cache.shelf.store.premises.read_only {
                address::remove(&cache.shelf.store.dir);
            }
            // Whoever connects from now on starts, or waits for, the next daemon.
            if activation != Activation::Systemd && identity(&endpoint.socket) == own {
                let _ = fs::remove_file(&endpoint.socket);
            }
            ended.notify_one();
        }
    };
    let server = Server::builder()
        .max_frame_size(FRAME_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown);
    tokio::select! {
        served = server => served.map_err(io::Error::other)?,
        () = async { ended.notified().await; tokio::time::sleep(GRACE).await } => {}
    }
    cache.drain();
    status::save(&cache);
    failpoint::reached(Point::BeforeFlush);
    let _ = cache.shelf.store.index().flush();
    failpoint::reached(Point::AfterFlush);
    tracing::info!("stopped");
    drop(lock);
    Ok(())
}

/// A client that starts a daemon waits at the other end of standard output for a byte.
fn tell_starter() -> io::Result<()> {
    let is_pipe = fs::metadata("/proc/self/fd/1").is_ok_and(|meta| meta.file_type().is_fifo());
    if is_pipe {
        // One that has lost patience and gone meanwhile leaves a daemon for those who come later.
        let _ = io::Write::write_all(&mut io::stdout(), b"\n");
        nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    }
    Ok(())
}

fn cache(store: Store) -> Cache {
    let saved = status::saved(&store);
    let builds = Builds::new(saved.builds.clone(), now_ns() as u64 / 1_000_000);
    let records = store.records.clone();
    let shelf = Shelf {
        store,
        inputs: Inputs::new(records),
        directories: Directories::default(),
        plugins: Plugins::default(),
        sources: Sources::default(),
        scripts: Scripts::default(),
        linking: std::sync::RwLock::new(()),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
    Cache::new(shelf, builds, Stats::restore(saved), threads)
}

/// Returns when the daemon is to stop.
async fn live(cache: &Arc<Cache>, endpoint: &Endpoint, activation: Activation, own: Option<(u64, u64)>, stop: &Notify) {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let caught = async {
        match (&mut terminate, &mut interrupt) {
            (Some(terminate), Some(interrupt)) => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            }
            _ => std::future::pending().await,
        }
    };
    let tick = async {
        let mut used = Instant::now();
        let mut saved = lock_stats(cache);
        let mut patrol = Some(Patrol::of(&cache.shelf.store));
        loop {
            // A client that found the daemon hung says so in a file: here is the proof of the contrary.
            let _ = fs::remove_file(endpoint.trouble());
            take_unasked(cache, endpoint);
            tokio::time::sleep(TICK).await;
            let now = lock_stats(cache);
            if now != saved {
                (saved, used) = (now, Instant::now());
                let cache = Arc::clone(cache);
                let _ = tokio::task::spawn_blocking(move || status::save(&cache)).await;
            }
            let store = Arc::clone(&cache.shelf);
            let _ = tokio::task::spawn_blocking(move || store.store.tend()).await;
            if used.elapsed() > QUIET {
                patrol = walk(cache, patrol).await;
            }
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
            let lost = activation != Activation::Systemd && identity(&endpoint.socket) != own;
            let idle = activation == Activation::Client && used.elapsed() > IDLE;
            if cache.shelf.store.premises.is_outgrown() && cache.is_idle() {
                tracing::info!("the store is no longer read-only: the next daemon writes it");
                return;
            }
            if (lost || idle) && cache.is_idle() {
                tracing::info!(lost, idle, "nobody can or does reach this daemon: it leaves");
                return;
            }
        }
    };
    tokio::select! {
        () = caught => tracing::info!("signal: draining"),
        () = stop.notified() => tracing::info!("asked to stop: draining"),
        () = tick => {}
    }
}

/// Counts the compiles that ran without the daemon.
fn take_unasked(cache: &Cache, endpoint: &Endpoint) {
    let at = endpoint.unasked();
    let Ok(meta) = fs::symlink_metadata(&at) else { return };
    // What is not a file of clients' is in nobody's way, and no number.
    if fs::remove_file(at).is_ok() && meta.is_file() && meta.len() > 0 {
        crate::inputs::lock(&cache.stats).unasked(meta.len());
    }
}

/// One step of the patrol, away from the thread that serves.
async fn walk(cache: &Arc<Cache>, patrol: Option<Patrol>) -> Option<Patrol> {
    let cache = Arc::clone(cache);
    let mut patrol = patrol?;
    let step = move || {
        patrol.step(&cache.shelf.store);
        patrol
    };
    tokio::task::spawn_blocking(step).await.ok()
}

fn lock_stats(cache: &Cache) -> Stats {
    crate::inputs::lock(&cache.stats).clone()
}

/// A variable of this process's environment.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
