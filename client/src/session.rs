//! Session: one client's conversation with the daemon, each step of it in bounded time. Knows the wire and the
//! clock, not what the answers are for.

use std::fs::FileType;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::Streaming;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use zcache_proto::endpoint::Endpoint;
use zcache_proto::private::{self, NotPrivate, Others};
use zcache_proto::v1::cache_client::CacheClient;
use zcache_proto::v1::lookup_event::Event;
use zcache_proto::{MESSAGE_LIMIT, v1};

use crate::pulse::{Doing, Pulse};
use crate::trouble::Trouble;

/// How often a silent daemon is looked at.
const LOOK: Duration = Duration::from_millis(225);
/// How long a daemon may be silent and idle during a look-up, after the first look. It promises a sign every 500 ms.
const SILENCE: Duration = Duration::from_millis(675);
/// How long it may be silent because it works, or waits for a processor: a thousand others may be before us.
const BUSY: Duration = Duration::from_secs(60);
/// How long a daemon may be idle over a commit: the outputs may have to be copied, by another of its threads.
const COMMIT: Duration = Duration::from_secs(20);

/// Why the daemon is of no use now.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens at the socket.
    #[error("no daemon is running")]
    Absent,
    /// There is no program to start.
    #[error("zcached is neither beside this program nor in PATH; install it there")]
    NotInstalled,
    /// Something else is at the socket's path.
    #[error("{0} is not a socket; remove it, or set ZCACHE_SOCKET to another path")]
    NotASocket(String),
    /// Another user could be behind the socket.
    #[error(transparent)]
    Unsafe(#[from] NotPrivate),
    /// There is no place for its socket.
    #[error("{0} cannot be made: {1}; set ZCACHE_SOCKET or XDG_RUNTIME_DIR to another path")]
    NoPlace(String, io::Error),
    /// It was reached, and then it was not.
    #[error("{0}")]
    Lost(String),
    /// It does not answer.
    #[error("{}", .0.explain())]
    Trouble(Trouble),
}

impl SessionError {
    /// Why the socket has no place where it should be.
    pub fn of_place(why: NotPrivate) -> Self {
        match why {
            NotPrivate::Io { dir, error } => Self::NoPlace(dir.display().to_string(), error),
            foreign => Self::Unsafe(foreign),
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Session {
    runtime: Runtime,
    client: CacheClient<Wire>,
    lookup: Option<Streaming<v1::LookupEvent>>,
    daemon: u32,
}

impl Session {
    /// Connects to the daemon at `endpoint`.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, SessionError> {
        let lost = |error: io::Error| SessionError::Lost(error.to_string());
        let socket = socket(endpoint)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(lost)?;
        let stream = runtime.block_on(async {
            let connecting = UnixStream::connect(&socket);
            match tokio::time::timeout(SILENCE, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SessionError::Absent,
                    io::ErrorKind::WouldBlock => SessionError::Trouble(Trouble::Silent),
                    _ => SessionError::Lost(error.to_string()),
                }),
                Err(_) => Err(SessionError::Trouble(Trouble::Silent)),
            }
        })?;
        let daemon = trusted_peer(&stream).ok_or(NotPrivate::Foreign(socket))?;
        let wire = runtime.block_on(Wire::over(stream)).map_err(|error| SessionError::Lost(error.to_string()))?;
        // The address is for the protocol's headers.
        let client = CacheClient::with_origin(wire, http::Uri::from_static("http://zcached"));
        let client = client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
        Ok(Self { runtime, client, lookup: None, daemon })
    }

    /// Asks about an invocation and waits for the answer. The question stays open until the session ends.
    pub fn lookup(&mut self, invocation: v1::Invocation) -> Result<Event, SessionError> {
        let mut client = self.client.clone();
        let stream = async move { client.lookup(invocation).await };
        let mut stream = within(&self.runtime, self.daemon, SILENCE, stream)?.into_inner();
        loop {
            let next = within(&self.runtime, self.daemon, SILENCE, stream.message())?;
            let event = next.and_then(|event| event.event);
            match event.ok_or_else(|| SessionError::Lost("the daemon ended the question".to_owned()))? {
                Event::Waiting(_) => {}
                answer => {
                    self.lookup = Some(stream);
                    return Ok(answer);
                }
            }
        }
    }

    /// Reports how it went.
    pub fn commit(&mut self, outcome: v1::Outcome) -> Result<v1::Committed, SessionError> {
        self.call(COMMIT, async |client| client.commit(outcome).await)
    }

    /// Any other call, made for a person who waits `patience` for the answer.
    pub fn ask<T>(
        &mut self,
        patience: Duration,
        call: impl AsyncFnOnce(&mut CacheClient<Wire>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, SessionError> {
        self.call(patience, call)
    }

    fn call<T>(
        &mut self,
        patience: Duration,
        call: impl AsyncFnOnce(&mut CacheClient<Wire>) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, SessionError> {
        let client = &mut self.client;
        within(&self.runtime, self.daemon, patience, async move { call(client).await }).map(tonic::Response::into_inner)
    }
}

/// Runs one step. A daemon that is seen to be stopped is given up at once, one that idles after `patience`. That counts
/// looks and not the clock: who looks may be the one that got no processor.
fn within<T>(
    runtime: &Runtime,
    daemon: u32,
    patience: Duration,
    step: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, SessionError> {
    let look = LOOK.min(patience);
    runtime.block_on(async {
        tokio::pin!(step);
        let until = Instant::now() + BUSY.max(patience);
        let (mut pulse, mut idle) = (Pulse::of(daemon), Duration::ZERO);
        loop {
            match tokio::time::timeout(look, &mut step).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(status)) => return Err(SessionError::Lost(status.message().to_owned())),
                Err(_) => {}
            }
            match pulse.feel() {
                Doing::Stopped => return Err(SessionError::Trouble(Trouble::Stopped(daemon))),
                Doing::Ended => return Err(SessionError::Lost("the daemon ended".to_owned())),
                Doing::Works => idle = Duration::ZERO,
                Doing::Idles => idle += look,
            }
            if idle >= patience || Instant::now() >= until {
                return Err(SessionError::Trouble(Trouble::Silent));
            }
        }
    })
}

/// HTTP/2 over a stream that is connected already. There is one daemon and one connection to it, so what tonic's own
/// channel does (balance, buffer, connect again) would only take time.
#[derive(Debug, Clone)]
pub struct Wire(SendRequest<Body>);

impl Wire {
    async fn over(stream: UnixStream) -> hyper::Result<Self> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Whether a daemon could have its socket there: the directory is this user's alone, or his to make.
pub fn check_place(endpoint: &Endpoint) -> Result<(), SessionError> {
    private::check_place(endpoint.dir()).map_err(SessionError::of_place)
}

/// The socket to connect to, which nobody else can have put there: the endpoint's, or the one to which a daemon that found
/// the store served left a link in its place.
fn socket(endpoint: &Endpoint) -> Result<PathBuf, SessionError> {
    let trusted = |socket: &Path| -> Result<FileType, SessionError> {
        match private::check(socket.parent().unwrap_or(Path::new("/")), Others::Nothing) {
            Err(NotPrivate::Io { .. }) => return Err(SessionError::Absent),
            checked => checked?,
        }
        let meta = std::fs::symlink_metadata(socket).map_err(|_| SessionError::Absent)?;
        let ours = meta.uid() == nix::unistd::getuid().as_raw();
        if ours { Ok(meta.file_type()) } else { Err(NotPrivate::Foreign(socket.to_owned()).into()) }
    };
    let own = &endpoint.socket;
    match trusted(own)? {
        kind if kind.is_socket() => Ok(own.clone()),
        kind if kind.is_symlink() => {
            // A link that leads nowhere, or where nothing is to be trusted, makes way for a daemon.
            let leads = std::fs::read_link(own).ok().filter(|leads| leads.is_absolute()).ok_or(SessionError::Absent)?;
            let is_socket = trusted(&leads).is_ok_and(|kind| kind.is_socket());
            if is_socket { Ok(leads) } else { Err(SessionError::Absent) }
        }
        _ => Err(SessionError::NotASocket(own.display().to_string())),
    }
}

/// The daemon's pid, if it runs as this user; 0 where systemd listens for it still.
fn trusted_peer(stream: &UnixStream) -> Option<u32> {
    let peer = getsockopt(&stream.as_fd(), PeerCredentials).ok()?;
    (peer.uid() == nix::unistd::getuid().as_raw()).then(|| peer.pid().unsigned_abs())
}
