//! Wire: a stored result as a reply for one checkout, and as what a compile around it would have seen. No decisions.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use zcache_proto::v1::output::Content;
use zcache_proto::{Digest, MESSAGE_LIMIT, v1};

use crate::cas::Cas;
use crate::distilled::{Distilled, Reading};
use crate::gc::Collected;
use crate::manifest::{ActionResult, Attributes, Expectation, OutputContent, OutputFile};
use crate::paths::is_plain;
use crate::roles::Roots;
use crate::scrub::Scrubbed;
use crate::template::Template;

impl From<Collected> for v1::CollectReply {
    fn from(Collected { results, blobs, bytes }: Collected) -> Self {
        Self { results, blobs, bytes }
    }
}

impl From<Scrubbed> for v1::VerifyReply {
    fn from(Scrubbed { blobs, bytes, damaged, missing }: Scrubbed) -> Self {
        Self { blobs, bytes, damaged, missing }
    }
}

/// Now, nanoseconds since 1970.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// The reply; none where this checkout lacks a root that the result needs, or where it is more than a message holds.
pub fn hit(result: &ActionResult, roots: &Roots, cas: &Cas, mtime_ns: i64, ticket: u64) -> Option<v1::Hit> {
    let mut left = MESSAGE_LIMIT;
    let mut render = |text: &Template| {
        let text = text.render(roots)?;
        left = left.checked_sub(text.len())?;
        Some(text)
    };
    let mut outputs = Vec::with_capacity(result.outputs.len());
    for file in &result.outputs {
        let (content, size, link) = match &file.content {
            OutputContent::Blob { digest, size, link } => {
                (Content::Blob(cas.path(digest).as_os_str().as_bytes().to_vec()), *size, *link)
            }
            OutputContent::Text(text) => (Content::Inline(render(text)?), 0, false),
            OutputContent::Directory => (Content::Directory(true), 0, false),
            OutputContent::Symlink(target) => (Content::Symlink(target.clone()), 0, false),
        };
        let path = roots.path_of(&file.path).filter(|path| is_plain(path))?;
        outputs.push(v1::Output { path, content: Some(content), mode: file.mode, size, link });
    }
    Some(v1::Hit {
        ticket,
        outputs,
        stdout: render(&result.stdout)?,
        stderr: render(&result.stderr)?,
        exit_code: result.exit_code,
        mtime_ns,
    })
}

/// The files that a client makes from blobs: path, digest and length.
pub fn blobs(result: &ActionResult, roots: &Roots) -> Vec<(Vec<u8>, Digest, u64)> {
    let blob = |file: &OutputFile| match file.content {
        OutputContent::Blob { digest, size, .. } => Some((roots.path_of(&file.path)?, digest, size)),
        _ => None,
    };
    result.outputs.iter().filter_map(blob).collect()
}

/// What the compile that a hit stands for would have been seen to do.
pub fn as_seen(expectations: &[Expectation], result: &ActionResult, roots: &Roots, time_ns: u64) -> Distilled {
    let mut seen = Distilled::default();
    let at = |path| roots.path_of(path).unwrap_or_default();
    let made: BTreeSet<_> = result.outputs.iter().map(|file| &file.path).collect();
    for expectation in expectations {
        match expectation {
            Expectation::Root(..) | Expectation::Nesting(_) => seen.asks_cwd = true,
            // What it prints is not what it leaves for the compile around it.
            Expectation::Terminal(_) | Expectation::Display(_) | Expectation::Called(_) => {}
            Expectation::Env(name, _) => drop(seen.env.insert(name.clone())),
            Expectation::EnvByRole(name, _) => drop(seen.env_by_role.insert(name.clone())),
            Expectation::Environment(_) => seen.environment = true,
            Expectation::System(question, _) => drop(seen.system.insert(*question, None)),
            Expectation::Which(name, path) => drop(seen.names.insert(name.clone(), path.as_ref().map(at))),
            Expectation::Library(name, path) => drop(seen.libraries.insert(name.clone(), path.as_ref().map(at))),
            Expectation::Attributes(path, Attributes { mtime_ns: None, .. }) => drop(seen.permissions.insert(at(path))),
            Expectation::Attributes(path, _) => drop(seen.attributes.insert(at(path))),
            Expectation::Runs(path, file) => drop(seen.started.insert(at(path), file.as_ref().map(at))),
            Expectation::Exists(path, kind) => drop(seen.exists.insert(at(path), *kind)),
            // What is there afterwards was not before: whoever asked may have been told so.
            Expectation::Absent(path) if made.contains(path) => drop(seen.absent_before.insert(at(path))),
            // Its files are sources, and whose they are is asked again for the compile around it.
            Expectation::Twins(all) => seen.sources.extend(all.iter().map(|twin| at(&twin.path))),
            Expectation::Absent(path) => drop(seen.absent.insert(at(path))),
            Expectation::Link(path, target) => drop(seen.links.insert(at(path), at(target))),
            Expectation::Listing(path, _) => drop(seen.listings.insert(at(path), time_ns)),
            Expectation::Content(path, _) => drop(seen.contents.insert(at(path), Reading { time_ns, inode: 0 })),
        }
    }
    for file in &result.outputs {
        let set = if file.content == OutputContent::Directory { &mut seen.directories } else { &mut seen.outputs };
        set.insert(at(&file.path));
    }
    seen
}
