//! Store: emptying it and its counters, through the daemon that has it, or at rest where none runs.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use zcache_client::session::SessionError;
use zcache_daemon::address;
use zcache_daemon::status::STATS;
use zcache_daemon::store::{OpenError, Store};
use zcache_proto::v1;

use crate::daemon::{ANSWER, CLEARED, config, endpoint, running};
use crate::failure::Failure;
use crate::holder::Holder;
use crate::text::{self, count};

/// How long a person waits while the whole store is read.
const READ: Duration = Duration::from_secs(24 * 3600);

/// `zcache zero`.
pub fn zero() -> Result<(), Failure> {
    let config = config()?;
    match running(&endpoint()) {
        Ok(mut session) => drop(session.ask(ANSWER, async |client| client.zero(v1::ZeroRequest {}).await)?),
        Err(SessionError::Absent) => at_rest(&config.dir, config.max_size, |store| {
            store.index().put_meta(STATS, &[])?;
            Ok(store.index().flush()?)
        })
        .map(Option::unwrap_or_default)?,
        Err(error) => return Err(error.into()),
    }
    text::print("all counters are zero\n")
}

/// `zcache clear`.
pub fn clear() -> Result<(), Failure> {
    let config = config()?;
    let freed = match running(&endpoint()) {
        Ok(mut session) => session.ask(CLEARED, async |client| client.clear(v1::ClearRequest {}).await)?.bytes,
        Err(SessionError::Absent) => {
            at_rest(&config.dir, config.max_size, |store| Ok(store.clear()?))?.unwrap_or_default()
        }
        Err(error) => return Err(error.into()),
    };
    text::print(&format!("the store is empty; {} freed\n", text::size(freed)))
}

/// `zcache gc`.
pub fn gc() -> Result<(), Failure> {
    let config = config()?;
    let reply = match running(&endpoint()) {
        Ok(mut session) => session.ask(READ, async |client| client.collect(v1::CollectRequest {}).await)?,
        Err(SessionError::Absent) => {
            at_rest(&config.dir, config.max_size, |store| Ok(store.collect()?.into()))?.unwrap_or_default()
        }
        Err(error) => return Err(error.into()),
    };
    let (results, blobs) = (count(reply.results, "result", "results"), count(reply.blobs, "blob", "blobs"));
    text::print(&format!("{} freed; {results} led nowhere, nothing needed {blobs}\n", text::size(reply.bytes)))
}

/// `zcache verify`: an exit code of its own where something is damaged and stays so.
pub fn verify(repair: bool) -> Result<ExitCode, Failure> {
    let config = config()?;
    let request = v1::VerifyRequest { repair };
    let reply = match running(&endpoint()) {
        Ok(mut session) => session.ask(READ, async |client| client.verify(request).await)?,
        Err(SessionError::Absent) => {
            at_rest(&config.dir, config.max_size, |store| Ok(store.verify(repair)?.into()))?.unwrap_or_default()
        }
        Err(error) => return Err(error.into()),
    };
    let v1::VerifyReply { blobs, bytes, damaged, missing } = reply;
    let bad = damaged + missing;
    let remedy = match (bad, repair) {
        (0, _) => "",
        (_, true) => "; they are out of the store now",
        (_, false) => "; `zcache verify --repair` takes them out of the store",
    };
    let read = count(blobs, "blob", "blobs");
    text::print(&format!("{read}, {}: {damaged} damaged, {missing} missing{remedy}\n", text::size(bytes)))?;
    Ok(if bad > 0 && !repair { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Does something to the store that no daemon has; none where there is no store.
fn at_rest<T>(
    dir: &Path,
    max_size: u64,
    change: impl FnOnce(&Store) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    if !dir.join("FORMAT").exists() {
        return Ok(None);
    }
    let store = Store::open(dir, max_size).map_err(|error| explain(&error, dir))?;
    change(&store).map(Some)
}

/// Why the store at `dir` does not open, with the process that has it.
pub fn explain(error: &OpenError, dir: &Path) -> Failure {
    match error {
        OpenError::InUse(_) => {
            let holder = Holder::of(&dir.join("LOCK")).remark();
            let at = address::of(dir).map(|socket| format!("; its socket is {}", socket.display())).unwrap_or_default();
            Failure::new(format!("{error}{holder}{at}"))
        }
        _ => Failure::new(error.to_string()),
    }
}

/// What can be seen of a store without opening it: the size and number of its blobs.
pub fn look(dir: &Path, max_bytes: u64) -> v1::Store {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let blobs = entries(&dir.join("cas")).flat_map(|shard| entries(&shard.path()));
    let sizes = blobs.filter_map(|blob| Some(blob.metadata().ok()?.len()));
    let (blobs, bytes) = sizes.fold((0, 0), |(blobs, bytes), size| (blobs + 1, bytes + size));
    v1::Store { dir: dir.display().to_string(), bytes, max_bytes, blobs, ..v1::Store::default() }
}
