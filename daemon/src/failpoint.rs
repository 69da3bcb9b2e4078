//! Failpoint: the places at which a test has the daemon die as `kill -9` would have it, one process at a time. A release
//! build has none of them.

/// A place between two changes of what is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The socket is bound, its permissions are not set.
    Bound,
    /// The store's format is about to be written.
    BeforeFormat,
    /// It has been.
    AfterFormat,
    /// An output is about to be linked into `tmp/`.
    BeforeHold,
    /// It has been.
    AfterHold,
    /// A copy's file is there and empty.
    CopyBegun,
    /// It is whole.
    CopyEnded,
    /// A blob is about to get its name.
    BeforeRename,
    /// It has it, and the index does not know.
    AfterRename,
    /// The index knows the blob.
    AfterBlobRecord,
    /// The manifest is about to be written.
    BeforeManifest,
    /// It has been.
    AfterManifest,
    /// A client was promised blobs and has no answer yet.
    Promised,
    /// A victim's file is gone, and the index does not know.
    Evicted,
    /// A damaged blob is aside, and the index does not know.
    Quarantined,
    /// The index is empty, the blobs are there.
    IndexCleared,
    /// Some blobs are gone.
    BlobsCleared,
    /// Everything is about to be flushed at the daemon's end.
    BeforeFlush,
    /// It has been.
    AfterFlush,
}

/// All of them, by the name that `ZCACHE_FAILPOINT` takes.
pub const ALL: &[(&str, Point)] = &[
    ("bound", Point::Bound),
    ("before_format", Point::BeforeFormat),
    ("after_format", Point::AfterFormat),
    ("before_hold", Point::BeforeHold),
    ("after_hold", Point::AfterHold),
    ("copy_begun", Point::CopyBegun),
    ("copy_ended", Point::CopyEnded),
    ("before_rename", Point::BeforeRename),
    ("after_rename", Point::AfterRename),
    ("after_blob_record", Point::AfterBlobRecord),
    ("before_manifest", Point::BeforeManifest),
    ("after_manifest", Point::AfterManifest),
    ("promised", Point::Promised),
    ("evicted", Point::Evicted),
    ("quarantined", Point::Quarantined),
    ("index_cleared", Point::IndexCleared),
    ("blobs_cleared", Point::BlobsCleared),
    ("before_flush", Point::BeforeFlush),
    ("after_flush", Point::AfterFlush),
];

/// Ends this process here, where `ZCACHE_FAILPOINT` names this place.
#[cfg(debug_assertions)]
pub fn reached(point: Point) {
    static WANTED: std::sync::OnceLock<Option<Point>> = std::sync::OnceLock::new();
    let named = || {
        let name = std::env::var("ZCACHE_FAILPOINT").ok()?;
        ALL.iter().find(|(known, _)| *known == name).map(|(_, point)| *point)
    };
    if *WANTED.get_or_init(named) == Some(point) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reached(_: Point) {}
