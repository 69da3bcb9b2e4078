//! Tests of what leaves the store, over a store on disk.

use std::fs;

use super::*;
use crate::manifest::{ActionResult, Entry, Manifest, OutputContent, OutputFile};
use crate::roles::RolePath;
use crate::scrub::Patrol;
use crate::store::tests::stored;

fn result(digest: Digest, size: u64) -> Manifest {
    let content = OutputContent::Blob { digest, size, link: false };
    let path = RolePath { role: None, rest: b"/x".into() };
    let outputs = vec![OutputFile { path, content, mode: 0o644 }];
    Manifest { entries: vec![Entry { expectations: vec![], result: ActionResult { outputs, ..Default::default() } }] }
}

#[test]
fn the_limit_holds_and_promises_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 100).unwrap();
    let kept = stored(&store, dir.path(), &[1; 60]);
    assert!(store.promise(&[(kept, 60)], &[], 7));
    let other = stored(&store, dir.path(), &[2; 60]);
    store.evict();
    assert_eq!(store.bytes(), 60);
    assert!(store.cas.path(&kept).exists() && !store.cas.path(&other).exists());
}

#[test]
fn results_count_and_go_like_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 200).unwrap();
    let digest = stored(&store, dir.path(), &[1; 60]);
    let actions: Vec<Digest> = (0..20u8).map(|n| Digest::of(&[n])).collect();
    for (used_s, action) in actions.iter().enumerate() {
        store.amend(action, used_s as u64, |known| *known = result(digest, 60)).unwrap();
    }
    assert!(store.bytes() > 200);
    store.evict();
    let left: Vec<u64> = store.index().results().map(|(_, record)| record.used_s).collect();
    assert!(store.bytes() <= 200 && !left.is_empty() && left.iter().all(|&used_s| used_s > 0), "{left:?}");
    assert!(store.cas.path(&digest).exists(), "it was used last");
    for action in &actions {
        store.index().remove_manifest(action).unwrap();
    }
    assert_eq!(store.bytes(), 60);
}

#[test]
fn a_collection_drops_what_leads_nowhere_and_what_nothing_needs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 10_000).unwrap();
    let (needed, lost, idle) = (Digest::of(&[1; 60]), Digest::of(&[2; 60]), Digest::of(&[3; 60]));
    for n in 1..4 {
        stored(&store, dir.path(), &[n; 60]);
    }
    store.amend(&Digest::of(b"a"), 7, |known| *known = result(needed, 60)).unwrap();
    store.amend(&Digest::of(b"b"), 7, |known| *known = result(lost, 60)).unwrap();
    store.forget(&lost);
    assert_eq!(store.collect().unwrap().results, 1);
    assert_eq!(store.index().blob_count(), 2, "it may be needed by what is just being stored");
    let record = store.index().blob(&idle).unwrap();
    store.index().put_blob(&idle, &BlobRecord { used_s: 7, ..record }).unwrap();
    let collected = store.collect().unwrap();
    assert_eq!((collected.results, collected.blobs), (0, 1));
    assert_eq!(store.index().blobs().map(|(digest, _)| digest).collect::<Vec<_>>(), [needed]);
}

#[test]
fn a_damaged_and_a_missing_blob_are_found_and_with_repair_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 10_000).unwrap();
    let digests: Vec<Digest> = (1..4).map(|n| stored(&store, dir.path(), &[n; 60])).collect();
    store.amend(&Digest::of(b"a"), 7, |known| *known = result(digests[0], 60)).unwrap();
    fs::write(store.cas.path(&digests[0]), [9; 60]).unwrap();
    fs::remove_file(store.cas.path(&digests[1])).unwrap();
    for repair in [false, false, true] {
        let found = store.verify(repair).unwrap();
        assert_eq!((found.blobs, found.bytes, found.damaged, found.missing), (3, 60, 1, 1));
    }
    let found = store.verify(false).unwrap();
    assert_eq!((found.blobs, found.damaged, found.missing), (1, 0, 0));
    assert_eq!((store.quarantined(), store.index().action_count()), (1, 0));
    let mut steps = Default::default();
    let end = store.scrub(&Digest([0; 32]), 1, true, &mut steps).unwrap().unwrap();
    assert_eq!(store.scrub(&end, 1, true, &mut steps).unwrap(), None);
}

#[test]
fn a_patrol_reads_all_once_in_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s"), 10_000).unwrap();
    let damage = |n: u8| {
        let digest = stored(&store, dir.path(), &[n; 60]);
        fs::write(store.cas.path(&digest), [9; 60]).unwrap();
    };
    damage(1);
    let mut patrol = Patrol::of(&store);
    for _ in 0..3 {
        patrol.step(&store);
    }
    assert_eq!(store.quarantined(), 1);
    damage(2);
    Patrol::of(&store).step(&store);
    assert_eq!(store.quarantined(), 1, "it has just been read");
}

#[test]
#[ignore = "takes a minute: how long a million blobs take, in a release build"]
fn a_million_blobs() {
    // A debug build only shows that it works.
    const BLOBS: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("s");
    let store = Store::open(&at, u64::MAX).unwrap();
    for n in 0..BLOBS {
        let record = BlobRecord { size: 1000, mtimes_ns: [7; 2], used_s: n };
        store.index().put_blob(&Digest::of(&n.to_le_bytes()), &record).unwrap();
    }
    store.index().flush().unwrap();
    drop(store);
    let took = |what: &str, work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        println!("{what}: {:?}", began.elapsed());
    };
    let open = || Store::open(&at, BLOBS * 1000 - 1).unwrap();
    took("opening and counting", &mut || {
        let store = open();
        store.index().save_totals().unwrap();
    });
    let mut store = None;
    took("opening", &mut || store = Some(open()));
    let store = store.unwrap();
    took("evicting a twentieth", &mut || store.evict());
    assert_eq!(store.bytes(), BLOBS * 950);
    assert_eq!(store.index().blobs().map(|(_, record)| record.used_s).min(), Some(BLOBS / 20));
    took("evicting nothing", &mut || store.evict());
}
