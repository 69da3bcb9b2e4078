//! Callers: who may connect to the socket, and for how long one who asks for nothing may stay. Does not know what can
//! be asked for.

use std::fs;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::process::are_shown;

/// How long a caller may take over its first request, to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be taken, for want of descriptors as a rule.
const RETRY: Duration = Duration::from_millis(50);
/// Descriptors for the files that are read and written for callers; where there are few, two for each.
const FILES: usize = 80;

/// What a request has to know of who makes it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its process; none where that cannot be seen from here.
    pub pid: Option<u32>,
    asked: Arc<AtomicBool>,
}

impl Caller {
    /// It has asked for something: from now on it may stay.
    pub fn asks(&self) {
        self.asked.store(true, Relaxed);
    }
}

/// A caller's connection.
#[derive(Debug)]
pub struct Call {
    stream: UnixStream,
    caller: Caller,
    patience: Pin<Box<Sleep>>,
    _turn: OwnedSemaphorePermit,
}

/// The calls of the user `uid`. Others are refused. No more are taken at a time than there are descriptors for: the rest
/// wait, or lose patience, and what cannot be read for want of descriptors would look like something else.
pub fn calls(listener: UnixListener, uid: u32) -> impl Stream<Item = io::Result<Call>> {
    let turns = Arc::new(Semaphore::new(most_callers()));
    let accepted = UnixListenerStream::new(listener).then(move |accepted| {
        let turns = Arc::clone(&turns);
        async move {
            if let Err(error) = &accepted {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(RETRY).await;
            }
            Some((accepted.ok()?, turns.acquire_owned().await.ok()?))
        }
    });
    accepted.filter_map(move |accepted| accepted.and_then(|(stream, turn)| Call::from(stream, turn, uid)).map(Ok))
}

fn most_callers() -> usize {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let left = most.saturating_sub(open);
    let callers = (left - FILES.min(left / 3 * 2)).clamp(1, Semaphore::MAX_PERMITS);
    if left < 2 * FILES {
        tracing::warn!(
            descriptors = most,
            callers,
            "few descriptors (ulimit -n): so many callers are served at a time"
        );
    }
    callers
}

impl Call {
    fn from(stream: UnixStream, turn: OwnedSemaphorePermit, uid: u32) -> Option<Self> {
        let peer = stream.peer_cred().ok()?;
        if peer.uid() != uid {
            tracing::warn!(uid = peer.uid(), "another user connected: refused");
            return None;
        }
        // 0 is one in another namespace of processes.
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0 && are_shown());
        let caller = Caller { pid, asked: Arc::default() };
        Some(Self { stream, caller, patience: Box::pin(sleep(PATIENCE)), _turn: turn })
    }

    /// Ends in an error once the caller has been silent for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.caller.asked.load(Relaxed) {
            return Poll::Pending;
        }
        ready!(self.patience.as_mut().poll(context));
        if self.caller.asked.load(Relaxed) {
            return Poll::Pending;
        }
        tracing::info!(pid = self.caller.pid, "connected and asked for nothing: hung up");
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl Connected for Call {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Call {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.poll_patience(context) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Pin::new(&mut self.stream).poll_read(context, to),
        }
    }
}

impl AsyncWrite for Call {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
