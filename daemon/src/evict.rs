//! Evict: which blobs go when the store is over its limit. Pure.

use std::collections::HashSet;

use zcache_proto::Digest;

/// Eviction makes this share of the limit free, a tenth, so that it runs now and then rather than always.
const ROOM: u64 = 10;

/// One blob as eviction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Last use, seconds since 1970.
    pub used_s: u64,
}

/// The least recently used blobs whose removal brings `total` bytes under `limit` with some room, without those that
/// were `promised` to a client. None while `total` is within the limit.
pub fn victims(mut blobs: Vec<Candidate>, total: u64, limit: u64, promised: &HashSet<Digest>) -> Vec<Candidate> {
    if total <= limit {
        return Vec::new();
    }
    let goal = limit - limit / ROOM;
    blobs.retain(|blob| !promised.contains(&blob.digest));
    blobs.sort_unstable_by_key(|blob| (blob.used_s, blob.digest));
    let mut left = total;
    let needed = blobs.iter().take_while(|blob| {
        let goes = left > goal;
        left = left.saturating_sub(blob.size);
        goes
    });
    let needed = needed.count();
    blobs.truncate(needed);
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: u8, size: u64, used_s: u64) -> Candidate {
        Candidate { digest: Digest([name; 32]), size, used_s }
    }

    fn gone(total: u64, limit: u64, promised: &[u8]) -> Vec<u8> {
        let blobs = vec![blob(1, 100, 30), blob(2, 100, 10), blob(3, 100, 20)];
        let promised = promised.iter().map(|name| Digest([*name; 32])).collect();
        victims(blobs, total, limit, &promised).iter().map(|blob| blob.digest.0[0]).collect()
    }

    #[test]
    fn the_least_recently_used_go_first_and_only_as_many_as_needed() {
        assert_eq!(gone(300, 300, &[]), [0u8; 0]);
        assert_eq!(gone(300, 250, &[]), [2]);
        assert_eq!(gone(300, 200, &[]), [2, 3]);
        assert_eq!(gone(300, 0, &[]), [2, 3, 1]);
    }

    #[test]
    fn a_promised_blob_stays() {
        assert_eq!(gone(300, 250, &[2]), [3]);
        assert_eq!(gone(300, 0, &[1, 2, 3]), [0u8; 0]);
    }
}
