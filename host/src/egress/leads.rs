//! What the spellings of a secret begin with, and the quick search for the next place in a text that begins so.

use std::sync::OnceLock;

use aho_corasick::packed;

/// How much of each spelling is a lead. Leads are not wiped, so they hold no more than the search needs to be quick.
const LEAD: usize = 8;
/// So many letters and digits are rare enough by themselves.
const TELLING: usize = 3;
/// From this length on a text is looked through with a searcher.
pub(super) const LONG: usize = 4096;

/// The beginnings of some spellings.
pub(super) struct Leads {
    list: Vec<Vec<u8>>,
    longest: usize,
    /// For long texts; building it takes longer than looking through a short one without.
    searcher: OnceLock<Searcher>,
    /// Which bytes a lead begins with.
    first: Vec<bool>,
}

enum Searcher {
    Nothing,
    /// Many at once with SIMD.
    Packed(packed::Searcher),
    /// Where the processor has none of it, or the leads are too many for it.
    Plain(aho_corasick::AhoCorasick),
}

impl Leads {
    /// These, as [`lead_partly`] and [`lead_wholly`] gather them.
    pub(super) fn new(mut list: Vec<Vec<u8>>) -> Self {
        // A lead that begins with another one is found with it.
        list.sort_unstable();
        list.dedup_by(|later, earlier| later.starts_with(earlier));
        let first = (0..=u8::MAX).map(|byte| list.iter().any(|lead| lead.first() == Some(&byte))).collect();
        let longest = list.iter().map(Vec::len).max().unwrap_or_default();
        Self { list, longest, searcher: OnceLock::new(), first }
    }

    /// The next place, from one on, where a spelling may begin, or has begun when the text ends.
    pub(super) fn next(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut from = from;
        if text.len().saturating_sub(from) >= LONG {
            let found = self.searcher.get_or_init(|| Searcher::new(&self.list)).find(text, from);
            if found.is_some() {
                return found;
            }
            from = text.len().saturating_sub(self.longest.saturating_sub(1));
        }
        let rest = text.get(from..)?;
        let begins = |(at, byte): (usize, &u8)| {
            self.first.get(usize::from(*byte)).copied().unwrap_or_default()
                && rest
                    .get(at..)
                    .is_some_and(|here| self.list.iter().any(|lead| here.starts_with(lead) || lead.starts_with(here)))
        };
        rest.iter().enumerate().position(begins).map(|at| from + at)
    }
}

impl Searcher {
    fn new(leads: &[Vec<u8>]) -> Self {
        let packed = packed::Config::new().builder().extend(leads).build();
        packed.map_or_else(|| Self::plain(leads), Self::Packed)
    }

    fn plain(leads: &[Vec<u8>]) -> Self {
        if leads.is_empty() {
            return Self::Nothing;
        }
        aho_corasick::AhoCorasick::builder()
            // The lead that begins first, not the one that ends first: the search goes on from where it begins.
            .match_kind(aho_corasick::MatchKind::LeftmostFirst)
            .kind(Some(aho_corasick::AhoCorasickKind::NoncontiguousNFA))
            .build(leads)
            .map_or(Self::Nothing, Self::Plain)
    }

    fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::Packed(searcher) => {
                let span = aho_corasick::Span { start: from, end: text.len() };
                (from <= text.len()).then(|| searcher.find_in(text, span))?.map(|found| found.start())
            }
            Self::Plain(searcher) => searcher.find(text.get(from..)?).map(|found| from + found.start()),
        }
    }
}

/// What the spellings begin with in which no letter and no digit is escaped, and of the other characters any.
pub(super) fn lead_partly(text: &[u8], leads: &mut Vec<Vec<u8>>) {
    let Some((first, rest)) = text.split_first() else { return };
    let mut start = vec![*first];
    start.extend(rest.iter().take(LEAD - 1).take_while(|byte| byte.is_ascii_alphanumeric()));
    match text.get(start.len()) {
        // One letter alone is everywhere: what comes next belongs to it, as it is or escaped.
        Some(next) if start.len() < TELLING => {
            leads.extend([*next, b'%', b'\\', b'&'].map(|next| [&start[..], &[next]].concat()));
        }
        _ => leads.push(start),
    }
    if !first.is_ascii_alphanumeric() {
        lead_wholly(text, leads);
        leads.push(vec![b'\\', *first]);
        leads.extend(["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"].map(|name| name.as_bytes().to_vec()));
    }
}

/// What the spellings begin with in which the first character is escaped.
pub(super) fn lead_wholly(text: &[u8], leads: &mut Vec<Vec<u8>>) {
    let Some(first) = text.first() else { return };
    for introducer in ["%", "\\x", "\\u00"] {
        leads.push(format!("{introducer}{first:02x}").into_bytes());
        leads.push(format!("{introducer}{first:02X}").into_bytes());
    }
    leads.push(b"&#".to_vec());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leads that a text begins with at each place, tried one by one.
    fn tried(leads: &Leads, text: &[u8], from: usize) -> Option<usize> {
        (from..text.len()).find(|at| leads.list.iter().any(|lead| text[*at..].starts_with(lead)))
    }

    proptest! {
        #[test]
        fn each_searcher_gives_the_lead_that_begins_first(
            list in prop::collection::vec("[abc%]{1,6}", 0..24),
            text in "[abc%x]{0,60}",
            from in 0_usize..60,
        ) {
            let leads = Leads::new(list.into_iter().map(String::into_bytes).collect());
            let from = from.min(text.len());
            let expected = tried(&leads, text.as_bytes(), from);
            prop_assert_eq!(Searcher::new(&leads.list).find(text.as_bytes(), from), expected);
            prop_assert_eq!(Searcher::plain(&leads.list).find(text.as_bytes(), from), expected);
        }

        #[test]
        fn a_long_text_has_the_leads_of_a_short_one(before in "[ -~]{0,40}", secret in "[!-~]{4,20}") {
            let mut list = Vec::new();
            lead_partly(secret.as_bytes(), &mut list);
            lead_wholly(secret.as_bytes(), &mut list);
            let leads = Leads::new(list);
            let text = format!("{before}{secret}");
            let short = leads.next(text.as_bytes(), 0);
            let long = format!("{text}{}", " ".repeat(LONG));
            prop_assert!(short.is_some_and(|at| at <= before.len()));
            prop_assert_eq!(leads.next(long.as_bytes(), 0), short);
        }
    }
}
