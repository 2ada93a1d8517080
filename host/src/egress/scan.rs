//! Searches a stream for secrets of which any character may be escaped, in one pass.
//!
//! It is the search of Knuth, Morris and Pratt over what a text *reads as*, `%41` as `A`. So the work for a byte does not grow
//! with the length of a secret, however often the secret repeats itself, and nothing is looked at twice when a piece follows
//! another.
//!
//! Where a reading begins matters: `\\x61` is a backslash and three letters, or, from its second byte on, an `a`. Readings that
//! differ are followed side by side until they meet.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::escape::{Escapes, Unescaped};

/// So many readings of a text are followed for one pattern. Text that people or programs write has one or two.
const MOST_READINGS: usize = 8;

/// What is searched for. Wiped when it is dropped.
pub(super) struct Pattern {
    text: Zeroizing<Vec<u8>>,
    escapes: Escapes,
    /// For each beginning of the text, by its length, the length of the longest other beginning that it ends with.
    borders: OnceLock<Vec<usize>>,
}

impl Pattern {
    /// A text, of which each character may be escaped in one of these ways.
    pub(super) fn new(text: Zeroizing<Vec<u8>>, escapes: Escapes) -> Self {
        Self { text, escapes, borders: OnceLock::new() }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    fn may_begin_with(&self, byte: u8) -> bool {
        self.text.first() == Some(&byte) || self.escapes.begin_with(byte)
    }

    fn border(&self, length: usize) -> usize {
        if length < 2 {
            return 0;
        }
        self.borders.get_or_init(|| borders(&self.text)).get(length).copied().unwrap_or_default()
    }
}

fn borders(text: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; 2];
    let mut border = 0;
    for byte in text.iter().skip(1) {
        while border > 0 && text.get(border) != Some(byte) {
            border = borders.get(border).copied().unwrap_or_default();
        }
        border += usize::from(text.get(border) == Some(byte));
        borders.push(border);
    }
    borders
}

/// Places in a stream, in the order in which they end.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Range<usize>>);

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, place: Range<usize>) {
        match self.0.last_mut() {
            Some(last) if (last.start..=last.end).contains(&place.start) => last.end = last.end.max(place.end),
            _ => self.0.push(place),
        }
    }
}

impl IntoIterator for Places {
    type Item = Range<usize>;
    type IntoIter = std::vec::IntoIter<Range<usize>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A search at some point of a stream. It is always given the same patterns.
#[derive(Default)]
pub(super) struct Search {
    at: usize,
    /// The readings of each pattern that are under way.
    readings: Vec<Vec<Reading>>,
    /// How many those are.
    active: usize,
}

impl Search {
    /// How much of the stream was searched.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Where the first place begins that more of the stream could complete, or else the end of what was searched.
    pub(super) fn open(&self) -> usize {
        let begins = self.readings.iter().flatten().map(Reading::begin);
        begins.min().unwrap_or(self.at)
    }

    /// Searches the next piece of the stream. `next` gives the next place in the piece, from one on, where a pattern may begin.
    pub(super) fn feed(
        &mut self,
        patterns: &[Pattern],
        piece: &[u8],
        next: impl Fn(usize) -> Option<usize>,
        found: &mut Places,
    ) {
        let base = self.at;
        let mut from = 0;
        loop {
            if self.active == 0 {
                let Some(place) = next(from) else { break };
                from = place;
            }
            let Some(byte) = piece.get(from) else { break };
            self.at = base + from;
            self.step(patterns, *byte, found);
            from += 1;
        }
        self.at = base + piece.len();
    }

    fn step(&mut self, patterns: &[Pattern], byte: u8, found: &mut Places) {
        self.readings.resize_with(patterns.len(), Vec::new);
        self.active = 0;
        for (pattern, readings) in patterns.iter().zip(&mut self.readings) {
            // A reading that is just between two characters also stands for those that begin here.
            if pattern.may_begin_with(byte) && !readings.iter().any(|reading| reading.pending.is_empty()) {
                readings.push(Reading::from(self.at));
            }
            for reading in readings.iter_mut() {
                reading.push(pattern, byte, found);
            }
            settle(readings);
            self.active += readings.len();
        }
    }

    /// The stream has ended: an escape that has only begun is none.
    pub(super) fn end(&mut self, patterns: &[Pattern], found: &mut Places) {
        for (pattern, readings) in patterns.iter().zip(&mut self.readings) {
            for reading in &mut *readings {
                reading.read_pending(pattern, true, found);
            }
            readings.clear();
        }
        self.active = 0;
    }
}

/// Drops readings that lead to nothing, or to nothing else than another one.
fn settle(readings: &mut Vec<Reading>) {
    readings.retain(|reading| reading.matched > 0 || !reading.pending.is_empty());
    if readings.len() < 2 {
        return;
    }
    readings.sort_unstable_by_key(|reading| {
        (std::cmp::Reverse(reading.matched), std::cmp::Reverse(reading.until), reading.begin())
    });
    readings.dedup_by(|later, first| (later.matched, later.until) == (first.matched, first.until));
    readings.truncate(MOST_READINGS);
}

/// One way to read a stream, and how much of a pattern its last characters are.
#[derive(Default)]
struct Reading {
    /// Up to here the stream has been read.
    until: usize,
    /// What follows, as far as it is known: an escape that has begun.
    pending: Vec<u8>,
    /// How many characters of the pattern the last ones are.
    matched: usize,
    /// The characters that were read, as a number.
    count: usize,
    /// Those of the matched ones that were escaped: which, and by how much they are longer than one byte.
    escaped: VecDeque<(usize, usize)>,
    /// By how much they are longer together.
    longer: usize,
    /// Up to here what was found has been told.
    told: usize,
}

impl Reading {
    fn from(at: usize) -> Self {
        Self { until: at, ..Self::default() }
    }

    /// Where what is matched begins.
    fn begin(&self) -> usize {
        self.until - self.matched - self.longer
    }

    fn push(&mut self, pattern: &Pattern, byte: u8, found: &mut Places) {
        if self.pending.is_empty() && !pattern.escapes.begin_with(byte) {
            return self.read(pattern, byte, 1, found);
        }
        self.pending.push(byte);
        self.read_pending(pattern, false, found);
    }

    fn read_pending(&mut self, pattern: &Pattern, at_end: bool, found: &mut Places) {
        while let Some(first) = self.pending.first() {
            let (character, length) = match pattern.escapes.unescape(&self.pending) {
                Unescaped::Byte(byte, length) => (byte, length),
                Unescaped::Begun if !at_end => return,
                Unescaped::Begun | Unescaped::None => (*first, 1),
            };
            self.pending.drain(..length);
            self.read(pattern, character, length, found);
        }
    }

    fn read(&mut self, pattern: &Pattern, character: u8, length: usize, found: &mut Places) {
        self.until += length;
        self.count += 1;
        if length > 1 {
            self.escaped.push_back((self.count, length - 1));
            self.longer += length - 1;
        }
        while pattern.text.get(self.matched) != Some(&character) {
            if self.matched == 0 {
                return self.forget();
            }
            self.matched = pattern.border(self.matched);
        }
        self.matched += 1;
        self.forget();
        if self.matched == pattern.text.len() {
            found.add(self.begin().max(self.told)..self.until);
            self.told = self.until;
            self.matched = pattern.border(self.matched);
            self.forget();
        }
    }

    /// Forgets the escapes of what is no longer matched.
    fn forget(&mut self) {
        while let Some((which, longer)) = self.escaped.front()
            && *which + self.matched <= self.count
        {
            self.longer -= longer;
            self.escaped.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str, escapes: Escapes) -> [Pattern; 1] {
        [Pattern::new(Zeroizing::new(text.as_bytes().to_vec()), escapes)]
    }

    fn places(patterns: &[Pattern], text: &[u8]) -> Vec<(usize, usize)> {
        let (mut search, mut found) = (Search::default(), Places::default());
        for piece in text.chunks(3) {
            let before = search.open();
            search.feed(patterns, piece, Some, &mut found);
            assert!(before <= search.open(), "what was let go is asked for again");
        }
        search.end(patterns, &mut found);
        found.into_iter().map(|place| (place.start, place.end)).collect()
    }

    /// Tries each beginning by itself.
    fn tried(pattern: &Pattern, text: &[u8]) -> Vec<(usize, usize)> {
        let whole = |begin: usize| {
            let mut at = begin;
            for expected in pattern.text() {
                let (character, length) = match pattern.escapes.unescape(&text[at..]) {
                    Unescaped::Byte(byte, length) => (byte, length),
                    Unescaped::Begun | Unescaped::None => (*text.get(at)?, 1),
                };
                if character != *expected {
                    return None;
                }
                at += length;
            }
            Some((begin, at))
        };
        (0..text.len()).filter_map(whole).collect()
    }

    #[test]
    fn any_character_may_be_escaped_in_any_way() {
        for text in [
            "a+/\"b",
            "a%2b/\"b",
            "a%2B%2f%22b",
            "a\\u002b\\/\\\"b",
            "a&#43;&#x2F;&quot;b",
            "\\x61+/\"%62",
            "a\\u002B/&#34;b",
        ] {
            let patterns = pattern("a+/\"b", Escapes::ALL);
            let around = format!("a%{text}\\a");
            assert_eq!(places(&patterns, around.as_bytes()), [(2, 2 + text.len())], "{text}");
            for end in 1..text.len() {
                let mut search = Search::default();
                search.feed(&patterns, &text.as_bytes()[..end], Some, &mut Places::default());
                assert_eq!(search.open(), 0, "{text} {end}");
            }
        }
        assert!(places(&pattern("a+/b", Escapes::ALL), b"a%2c/b").is_empty());
    }

    #[test]
    fn a_secret_with_escapes_of_its_own_is_found_both_ways() {
        for text in ["a%2525b", "a%%32%35b"] {
            assert_eq!(places(&pattern("a%25b", Escapes::ALL), text.as_bytes()), [(0, text.len())], "{text}");
        }
        assert_eq!(places(&pattern("a%25b", Escapes::NONE), b"a%25b"), [(0, 5)]);
        assert_eq!(places(&pattern("a\"%25b", Escapes::EACH[1]), b"a\\\"%25b"), [(0, 7)]);
    }

    #[test]
    fn places_that_overlap_are_all_found() {
        assert_eq!(places(&pattern("abcab", Escapes::ALL), b"abcabcab abcab"), [(0, 8), (9, 14)]);
    }

    proptest! {
        #[test]
        fn each_place_is_found_that_trying_every_beginning_finds(secret in "[ab%\\\\4]{1,6}", text in "[ab%\\\\x461]{0,40}", all in any::<bool>()) {
            let patterns = pattern(&secret, if all { Escapes::ALL } else { Escapes::NONE });
            let cover = |places: Vec<(usize, usize)>| {
                let mut covered = vec![false; text.len()];
                for (begin, end) in places {
                    covered[begin..end].fill(true);
                }
                covered
            };
            let covered = cover(places(&patterns, text.as_bytes()));
            let expected = cover(tried(&patterns[0], text.as_bytes()));
            prop_assert_eq!(covered, expected);
        }

        #[test]
        fn a_secret_is_found_in_itself(secret in prop::collection::vec(any::<u8>(), 1..12), before in prop::collection::vec(any::<u8>(), 0..12)) {
            let patterns = [Pattern::new(Zeroizing::new(secret.clone()), Escapes::NONE)];
            let text = [&before[..], &secret].concat();
            prop_assert!(places(&patterns, &text).iter().any(|place| place.1 == text.len()));
        }
    }
}
