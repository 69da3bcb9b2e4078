//! Evict: what goes when the store is over its limit. Pure.

use std::collections::HashSet;

use zcache_proto::Digest;

/// Eviction makes this share of the limit free, a twentieth, so that it runs now and then rather than always.
const ROOM: u64 = 20;

/// What takes room in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A blob.
    Blob(Digest),
    /// What is known of an action.
    Manifest(Digest),
}

/// One item as eviction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What.
    pub item: Item,
    /// Length in bytes.
    pub size: u64,
    /// Last use, seconds since 1970.
    pub used_s: u64,
}

/// The least recently used items whose removal brings `total` bytes under `limit` with some room, without blobs that
/// were `promised` to a client. None while `total` is within the limit.
pub fn victims(mut items: Vec<Candidate>, total: u64, limit: u64, promised: &HashSet<Digest>) -> Vec<Candidate> {
    if total <= limit {
        return Vec::new();
    }
    let goal = limit - limit / ROOM;
    items.retain(|candidate| !matches!(&candidate.item, Item::Blob(digest) if promised.contains(digest)));
    items.sort_unstable_by_key(|candidate| (candidate.used_s, candidate.item));
    let mut left = total;
    let needed = items.iter().take_while(|candidate| {
        let goes = left > goal;
        left = left.saturating_sub(candidate.size);
        goes
    });
    let needed = needed.count();
    items.truncate(needed);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: u8, size: u64, used_s: u64) -> Candidate {
        Candidate { item: Item::Blob(Digest([name; 32])), size, used_s }
    }

    fn gone(total: u64, limit: u64, promised: &[u8]) -> Vec<u8> {
        let manifest = Candidate { item: Item::Manifest(Digest([9; 32])), ..blob(9, 10, 15) };
        let items = vec![blob(1, 100, 30), blob(2, 100, 10), blob(3, 100, 20), manifest];
        let promised = promised.iter().map(|name| Digest([*name; 32])).collect();
        let name = |candidate: &Candidate| match candidate.item {
            Item::Blob(digest) | Item::Manifest(digest) => digest.0[0],
        };
        victims(items, total, limit, &promised).iter().map(name).collect()
    }

    #[test]
    fn the_least_recently_used_go_first_and_only_as_many_as_needed() {
        assert_eq!(gone(310, 310, &[]), [0u8; 0]);
        assert_eq!(gone(310, 250, &[]), [2]);
        assert_eq!(gone(310, 200, &[]), [2, 9, 3]);
        assert_eq!(gone(310, 0, &[]), [2, 9, 3, 1]);
    }

    #[test]
    fn a_promised_blob_stays() {
        assert_eq!(gone(310, 250, &[2]), [9, 3]);
        assert_eq!(gone(310, 0, &[1, 2, 3]), [9]);
    }
}
