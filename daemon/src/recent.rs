//! Recent: what was asked for of late. A map that forgets what nobody has needed for long, so that it stays as long as it
//! may be however many keys come.

use std::collections::HashMap;
use std::hash::Hash;

/// At most so many entries, and the half of them that was needed last at least.
#[derive(Debug)]
pub struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    /// What was young when there was half of what may be.
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// An empty one for at most `max` entries.
    pub fn new(max: usize) -> Self {
        Self { half: max.div_ceil(2), young: HashMap::new(), old: HashMap::new() }
    }

    /// What is known of a key, which stays.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Replaces what is known of a key.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::new(self.half * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_needed() {
        let mut recent = Recent::new(10);
        for n in 0..1000 {
            recent.insert(n, n);
            assert_eq!(recent.get(&0), Some(&0), "asked for all the time");
            assert!(recent.young.len() + recent.old.len() <= 10);
        }
        let kept = |recent: &mut Recent<_, _>, n| recent.get(&n).is_some();
        assert!((996..1000).all(|n| kept(&mut recent, n)) && !kept(&mut recent, 900));
    }

    #[test]
    fn the_last_word_on_a_key_counts() {
        let mut recent = Recent::new(4);
        recent.insert(1, 'a');
        (2..4).for_each(|n| recent.insert(n, 'x'));
        recent.insert(1, 'b');
        assert_eq!(recent.get(&1), Some(&'b'));
        recent.remove(&1);
        assert_eq!(recent.get(&1), None);
        recent.clear();
        assert_eq!(recent.get(&3), None);
    }
}
