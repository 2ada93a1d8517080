//! The Merkle tree over a chain's entries (RFC 6962 section 2.1), as far as its root is needed.

use sha2::{Digest as _, Sha256};

/// A tree that only grows: of the entries before, only the roots of its full subtrees are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    size: u64,
    /// The roots of the full subtrees, the largest first.
    peaks: Vec<[u8; 32]>,
}

impl Tree {
    /// Adds an entry: the hash that its line carries.
    pub(super) fn push(&mut self, entry: &[u8; 32]) {
        let mut hash: [u8; 32] = Sha256::new().chain_update([0]).chain_update(entry).finalize().into();
        let mut full = self.size;
        while full & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
            full >>= 1;
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// How many entries it has.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The root hash.
    pub(super) fn root(&self) -> [u8; 32] {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
            None => Sha256::digest([]).into(),
        }
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 6962 section 2.1 defines it, from the whole list.
    fn defined(entries: &[[u8; 32]]) -> [u8; 32] {
        match entries {
            [] => Sha256::digest([]).into(),
            [one] => Sha256::new().chain_update([0]).chain_update(one).finalize().into(),
            many => {
                let split = (many.len() - 1).ilog2();
                let (left, right) = many.split_at(1 << split);
                node(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn the_tree_of_nothing_is_the_hash_of_nothing() {
        assert_eq!(
            hex::encode(Tree::default().root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    proptest! {
        #[test]
        fn a_tree_that_grew_has_the_root_that_the_rfc_defines(entries in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            let mut tree = Tree::default();
            for entry in &entries {
                tree.push(entry);
            }
            prop_assert_eq!(tree.root(), defined(&entries));
            prop_assert_eq!(tree.size(), entries.len() as u64);
        }
    }
}
