//! Several parts in one record: each with its length before it.

use zeroize::Zeroizing;

pub(super) fn encode(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    // With room for all of it the buffer never moves, so no copy stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum()));
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The parts as texts; `None` unless there are exactly this many and each is UTF-8.
pub(super) fn decode<const N: usize>(mut bytes: &[u8]) -> Option<[&str; N]> {
    let mut parts = [""; N];
    for part in &mut parts {
        let (length, rest) = bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        *part = std::str::from_utf8(text).ok()?;
        bytes = rest;
    }
    bytes.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_come_back_and_a_cut_is_noticed(a in ".*", b in ".*", cut in 1_usize..16) {
            let bytes = encode(&[a.as_bytes(), b.as_bytes()]);
            prop_assert_eq!(decode(&bytes), Some([&*a, &*b]));
            prop_assert_eq!(decode::<3>(&bytes), None);
            prop_assert_eq!(decode::<2>(&bytes[..bytes.len() - cut]), None);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode::<2>(&bytes);
        }
    }
}
