//! The contract between zcache's programs: the messages of `zcache.proto`, digests, the trace's records, and the rules
//! that say where the socket is, which directories are a user's alone and which programs are compilers. Knows neither
//! the daemon nor the client.

pub mod digest;
pub mod driver;
pub mod endpoint;
pub mod private;
pub mod trace;

pub use digest::Digest;

/// The generated messages and service, as documented in `zcache.proto`.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("zcache.v1");
}

/// Largest message either side accepts, bytes: a trace of 20 MiB and two streams of 4 MiB, or a source of 16 MiB with the
/// longest command line and environment that the kernel lets through.
pub const MESSAGE_LIMIT: usize = 32 << 20;
