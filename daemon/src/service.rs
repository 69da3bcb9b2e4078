//! Service: the gRPC calls of `zcache.proto`, turned into calls of the cache and back. No decisions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zcache_proto::v1::lookup_event::Event;
use zcache_proto::v1::{self, cache_server};

use crate::cache::{Asked, Cache};
use crate::callers::Caller;
use crate::flights::Turn;
use crate::inputs::lock;
use crate::invocation::Invocation;
use crate::process::Process;
use crate::status;
use crate::store::Store;

/// Longest silence on a Lookup stream; half of what `zcache.proto` promises. A thousand may wait at a time, and each sign
/// of life costs a change of processes.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    cache: Arc<Cache>,
    about: v1::Daemon,
    started: Instant,
    stop: Arc<Notify>,
}

impl Service {
    /// For `cache`, described by `about`; a Stop call notifies `stop`.
    pub fn new(cache: Arc<Cache>, about: v1::Daemon, stop: Arc<Notify>) -> Self {
        Self { cache, about, started: Instant::now(), stop }
    }

    /// Work on the store, after what was committed before.
    async fn of_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let cache = Arc::clone(&self.cache);
        let done = spawn_blocking(move || {
            cache.drain();
            work(&cache.shelf.store)
        });
        let done = done.await.map_err(|_| Status::internal("the work on the store panicked"))?;
        done.map_err(|error| Status::internal(error.to_string()))
    }
}

/// Who makes a request that may take longer. The daemon waits for its answer to be read then.
fn caller<T>(request: &Request<T>) -> Option<&Caller> {
    request.extensions().get::<Caller>().inspect(|caller| caller.asks())
}

type Events = mpsc::Sender<Result<v1::LookupEvent, Status>>;

fn event(event: Event) -> Result<v1::LookupEvent, Status> {
    Ok(v1::LookupEvent { event: Some(event) })
}

/// Answers, with heartbeats before, and holds what the client was promised until it is gone.
async fn serve(cache: Arc<Cache>, invocation: Invocation, pid: Option<u32>, events: Events) {
    let asked = {
        let cache = Arc::clone(&cache);
        let ask = move || {
            let asked = Arc::new(cache.ask(invocation, pid)?);
            let landed = cache.flights.landed();
            let first = look(&cache, &asked);
            std::io::Result::Ok((asked, first, landed))
        };
        alive(spawn_blocking(ask), &events).await
    };
    let Some(Ok(Ok((asked, first, landed)))) = asked else {
        let _ = events.send(Err(Status::aborted("the client is gone or asked for nothing"))).await;
        return;
    };
    let lease = Lease { cache: Arc::clone(&cache), id: asked.place.id };
    let answer = match first {
        Ok(answer) => Some(answer),
        Err(reason) => alive(decide(Arc::clone(&cache), asked, reason, landed), &events).await,
    };
    if let Some(answer) = answer
        && events.send(event(answer)).await.is_ok()
    {
        events.closed().await;
    }
    drop(lease);
}

/// Waits for `future` while telling the client that the daemon lives; none where the client is gone.
async fn alive<T>(future: impl Future<Output = T>, events: &Events) -> Option<T> {
    tokio::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return Some(done),
            () = events.closed() => return None,
            () = tokio::time::sleep(HEARTBEAT) => events.send(event(Event::Waiting(v1::Waiting {}))).await.ok()?,
        }
    }
}

/// A hit, a bypass, or the reason for a miss.
fn look(cache: &Cache, asked: &Arc<Asked>) -> Result<Event, &'static str> {
    match &asked.command {
        Err(reason) => Ok(Event::Bypass(cache.bypass(asked, *reason))),
        Ok(command) => cache.find(asked, command).map(Event::Hit),
    }
}

/// Waits for others that compile the same, or gives the client its turn. `landed`: how many flights had when it was
/// looked for a result in vain.
async fn decide(cache: Arc<Cache>, asked: Arc<Asked>, reason: &'static str, mut landed: u64) -> Event {
    loop {
        let Ok(command) = &asked.command else { unreachable!("only commands miss") };
        let lead = match cache.turn(&asked, command) {
            Turn::Alone => return Event::Miss(cache.miss(&asked, None, reason)),
            Turn::Wait(other) => match other.over().await {
                true => None,
                false => return Event::Miss(cache.miss(&asked, None, reason)),
            },
            Turn::Lead(lead) if cache.flights.landed() == landed => {
                return Event::Miss(cache.miss(&asked, Some(lead), reason));
            }
            Turn::Lead(lead) => Some(lead),
        };
        landed = cache.flights.landed();
        let again = {
            let (cache, asked) = (Arc::clone(&cache), Arc::clone(&asked));
            spawn_blocking(move || look(&cache, &asked)).await
        };
        // Why it missed first is what counts: an entry whose blob was lost is gone by now.
        if let Ok(Ok(event)) = again {
            return event;
        }
        if lead.is_some() {
            return Event::Miss(cache.miss(&asked, lead, reason));
        }
    }
}

/// Gives back what an invocation holds, however it ends.
struct Lease {
    cache: Arc<Cache>,
    id: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cache.abandon(self.id);
    }
}

#[tonic::async_trait]
impl cache_server::Cache for Service {
    type LookupStream = ReceiverStream<Result<v1::LookupEvent, Status>>;

    async fn lookup(&self, request: Request<v1::Invocation>) -> Result<Response<Self::LookupStream>, Status> {
        let pid = caller(&request).and_then(|caller| caller.pid);
        let invocation = Invocation::try_from(request.into_inner());
        let invocation = invocation.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (events, stream) = mpsc::channel(4);
        tokio::spawn(serve(Arc::clone(&self.cache), invocation, pid, events));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn commit(&self, request: Request<v1::Outcome>) -> Result<Response<v1::Committed>, Status> {
        let (cache, outcome) = (Arc::clone(&self.cache), request.into_inner());
        let committed = spawn_blocking(move || cache.commit(outcome)).await;
        let committed = committed.map_err(|_| Status::internal("commit panicked"))?;
        let committed = committed.ok_or_else(|| Status::not_found("no such ticket"))?;
        let refusal = committed.err().map(|refusal| refusal.to_string()).unwrap_or_default();
        Ok(Response::new(v1::Committed { refusal }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReport>, Status> {
        caller(&request);
        let about = v1::Daemon { uptime_s: self.started.elapsed().as_secs(), ..self.about.clone() };
        let cache = Arc::clone(&self.cache);
        let report = spawn_blocking(move || {
            // What was committed before the question is in the answer.
            cache.drain();
            status::report(&cache, about)
        });
        report.await.map(Response::new).map_err(|_| Status::internal("status panicked"))
    }

    async fn summary(&self, request: Request<v1::SummaryRequest>) -> Result<Response<v1::Build>, Status> {
        let build = Process::get(request.into_inner().pid).and_then(|root| lock(&self.cache.builds).of_root(&root));
        Ok(Response::new(build.unwrap_or_default()))
    }

    async fn zero(&self, _: Request<v1::ZeroRequest>) -> Result<Response<v1::ZeroReply>, Status> {
        *lock(&self.cache.stats) = Default::default();
        lock(&self.cache.builds).zero();
        status::save(&self.cache);
        Ok(Response::new(v1::ZeroReply {}))
    }

    async fn clear(&self, request: Request<v1::ClearRequest>) -> Result<Response<v1::ClearReply>, Status> {
        caller(&request);
        let bytes = self.of_store(Store::clear).await?;
        Ok(Response::new(v1::ClearReply { bytes }))
    }

    async fn collect(&self, request: Request<v1::CollectRequest>) -> Result<Response<v1::CollectReply>, Status> {
        caller(&request);
        let collected = self.of_store(|store| store.collect()).await?;
        Ok(Response::new(collected.into()))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyReply>, Status> {
        caller(&request);
        let repair = request.into_inner().repair;
        let scrubbed = self.of_store(move |store| store.verify(repair)).await?;
        Ok(Response::new(scrubbed.into()))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        self.stop.notify_one();
        Ok(Response::new(v1::StopReply {}))
    }
}
