//! What was found out before, for many threads that ask for it at once.

use std::hash::Hash;

pub use papaya::Equivalent;

/// A bounded map. A reader writes nothing that other readers read, so that a second thread takes nothing from the first.
///
/// It knows nothing of who was asked for last: when it is full it begins anew, and what is wanted is found out again.
pub struct Recall<K, V> {
    known: papaya::HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Recall<K, V> {
    /// An empty one that holds at most so many.
    pub fn new(most: usize) -> Self {
        Self { known: papaya::HashMap::new(), most }
    }

    /// What is known.
    pub fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<V> {
        self.read(key, V::clone)
    }

    /// What is made of what is known, without taking a share of it.
    pub fn read<Q: Equivalent<K> + Hash + ?Sized, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R> {
        self.known.pin().get(key).map(read)
    }

    /// Keeps this in the place of what was known.
    pub fn put(&self, key: K, value: V) {
        let known = self.known.pin();
        if known.len() >= self.most && !known.contains_key(&key) {
            known.clear();
        }
        known.insert(key, value);
    }
}

impl<K, V> std::fmt::Debug for Recall<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recall").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_no_more_than_it_may_and_what_was_put_last() {
        let recall = Recall::new(3);
        for number in 0..10 {
            recall.put(number, number * 2);
            assert_eq!(recall.get(&number), Some(number * 2));
            assert!(recall.known.len() <= 3);
        }
        recall.put(9, 7);
        assert_eq!((recall.get(&9), recall.known.len()), (Some(7), 1), "what is replaced takes no place of its own");
        assert_eq!(recall.get(&0), None);
    }
}
