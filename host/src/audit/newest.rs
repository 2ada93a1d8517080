//! The reading side from the end: the newest entries first, and of the files no more than they take.
//!
//! A chain's file has its entries in the order in which they were written, which is that of their [`Mark`]s. So where a page
//! begins is found by halving the file, and from there it is read back as far as the page goes.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::clock::Timestamp;
use crate::secret::Key;

use super::folder;
use super::read::{Entry, Filter, Wanted, latest, moment};
use super::verify::LONGEST_LINE;

/// So many bytes are read at first, and at the most at once where lines are not longer.
const FIRST_BLOCK: u64 = 4 << 10;
const LARGEST_BLOCK: u64 = 64 << 10;
/// A part of a file that is smaller is not halved any more.
const NEAR: u64 = 8 << 10;

/// Where an entry stands among all of a log: after those that were written before it. A page of entries begins after one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The latest time that its chain has up to it: its own, unless the clock was set back.
    time: Timestamp,
    chain: String,
    seq: u64,
}

impl Mark {
    /// Of this entry.
    pub fn of(entry: &Entry) -> Self {
        Self { time: entry.latest(), chain: entry.chain.clone(), seq: entry.seq }
    }

    /// Reads what [`Display`](fmt::Display) gave. `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ',');
        let (time, seq, chain) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { time: time.parse().ok()?, seq: seq.parse().ok()?, chain: chain.to_owned() })
    }

    fn key(&self) -> (Timestamp, &str, u64) {
        (self.time, &self.chain, self.seq)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.time, self.seq, self.chain)
    }
}

/// The entries that the filter lets through, the newest first, one by one: of those before this mark, or of all.
///
/// The order is the reverse of that of [`entries`](super::entries()).
pub fn newest(dir: &Path, key: &Key, filter: &Filter, before: Option<&Mark>) -> io::Result<Newest> {
    begin(dir, Wanted::of(key, filter), (filter.since, filter.until), before)
}

/// All entries of this time and later, the newest first.
pub(super) fn newest_since(dir: &Path, since: Timestamp) -> io::Result<Newest> {
    begin(dir, Wanted::any(), (Some(since), None), None)
}

/// All entries before this time, or all, the newest first.
pub(super) fn newest_before(dir: &Path, until: Option<Timestamp>) -> io::Result<Newest> {
    // No entry stands at it: a chain has a name.
    let before = until.map(|time| Mark { time, chain: String::new(), seq: 0 });
    begin(dir, Wanted::any(), (None, None), before.as_ref())
}

fn begin(
    dir: &Path,
    wanted: Wanted,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    before: Option<&Mark>,
) -> io::Result<Newest> {
    let mut chains = Vec::new();
    for (name, path) in folder::chains(dir)? {
        let mut chain = Chain { next: None, name, lines: Backward::open(&path)? };
        if let Some(mark) = before {
            let name = &chain.name;
            chain.lines.skip(|stamp| (stamp.latest(), name.as_str(), stamp.seq) < mark.key())?;
        }
        if let Some(until) = until {
            chain.skip_from(until)?;
        }
        loop {
            chain.advance()?;
            if chain.key().zip(before).is_none_or(|(key, mark)| key < mark.key()) {
                break;
            }
        }
        chains.push(chain);
    }
    Ok(Newest { chains, wanted, since })
}

/// The newest entries that the filter lets through before this mark, the newest first and at most so many; and the mark of the
/// last of them, if there are older ones.
pub fn page(
    dir: &Path,
    key: &Key,
    filter: &Filter,
    before: Option<&Mark>,
    most: usize,
) -> io::Result<(Vec<Entry>, Option<Mark>)> {
    let mut page: Vec<Entry> = Vec::new();
    for entry in newest(dir, key, filter, before)? {
        let entry = entry?;
        if page.len() >= most {
            let last = page.last().map(Mark::of);
            return Ok((page, last));
        }
        page.push(entry);
    }
    Ok((page, None))
}

/// What [`newest()`] gives.
#[derive(Debug)]
pub struct Newest {
    chains: Vec<Chain>,
    wanted: Wanted,
    since: Option<Timestamp>,
}

impl Newest {
    /// How many bytes of the log's files have been read for it so far.
    pub fn bytes_read(&self) -> u64 {
        self.chains.iter().map(|chain| chain.lines.read).fold(0, u64::saturating_add)
    }

    fn give(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let newest = self.chains.iter_mut().filter(|chain| chain.next.is_some());
            let Some(chain) = newest.max_by(|a, b| a.key().cmp(&b.key())) else { return Ok(None) };
            let Some(entry) = chain.next.take() else { return Ok(None) };
            if self.since.is_some_and(|since| entry.latest() < since) {
                // So is whatever was written before.
                return Ok(None);
            }
            chain.advance()?;
            if self.wanted.matches(&entry) {
                return Ok(Some(entry));
            }
        }
    }
}

impl Iterator for Newest {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.give().transpose();
        if !matches!(entry, Some(Ok(_))) {
            self.chains.iter_mut().for_each(|chain| chain.next = None);
        }
        entry
    }
}

#[derive(Debug)]
struct Chain {
    name: String,
    lines: Backward,
    /// The newest entry that was not given yet, whatever is asked for.
    next: Option<Entry>,
}

impl Chain {
    fn key(&self) -> Option<(Timestamp, &str, u64)> {
        self.next.as_ref().map(|entry| (entry.latest(), self.name.as_str(), entry.seq))
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = None;
        while let Some(line) = self.lines.next()? {
            self.next = Entry::parse(&self.name, &line);
            if self.next.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Leaves out entries of this time and later. Where the clock was set back there may be earlier ones among those, so that
    /// nothing can be left out.
    fn skip_from(&mut self, until: Timestamp) -> io::Result<()> {
        let end = self.lines.start;
        let last = self.lines.next()?.and_then(|line| Stamp::of(&line));
        self.lines.go_to(end);
        if last.is_some_and(|last| last.after.is_none()) {
            self.lines.skip(|stamp| stamp.latest() < until)?;
        }
        Ok(())
    }
}

/// What tells where an entry stands.
struct Stamp {
    seq: u64,
    time: Timestamp,
    after: Option<Timestamp>,
}

impl Stamp {
    fn of(line: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Line {
            seq: u64,
            time: String,
            after: Option<String>,
        }
        let Line { seq, time, after } = serde_json::from_slice(line).ok()?;
        Some(Self { seq, time: time.parse().ok()?, after: moment(after)? })
    }

    fn latest(&self) -> Timestamp {
        latest(self.time, self.after)
    }
}

/// A line in the middle of a file.
struct Probe {
    stamp: Stamp,
    begin: u64,
    end: u64,
}

/// The lines of a file from the last to the first. What has no line feed at its end is none, and what is longer than a line may
/// be is passed over.
#[derive(Debug)]
struct Backward {
    file: File,
    /// Where in the file `bytes` begins.
    start: u64,
    /// What was read and not given yet.
    bytes: Vec<u8>,
    /// So many bytes are read next.
    block: u64,
    /// So many have been read.
    read: u64,
}

impl Backward {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let start = file.metadata()?.len();
        Ok(Self { file, start, bytes: Vec::new(), block: FIRST_BLOCK, read: 0 })
    }

    /// Goes on with the line that ends here.
    fn go_to(&mut self, end: u64) {
        (self.start, self.block) = (end, FIRST_BLOCK);
        self.bytes.clear();
    }

    fn read(&mut self, begin: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, begin)?;
        self.read = self.read.saturating_add(length);
        Ok(bytes)
    }

    /// The line before, without its line feed.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let whole = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.bytes.truncate(whole);
            let before = self.bytes.split_last().map_or(&[][..], |(_, before)| before);
            let begin = before.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            match begin.or((self.start == 0).then_some(0)) {
                Some(_) if self.bytes.is_empty() => return Ok(None),
                Some(begin) => {
                    let mut line = self.bytes.split_off(begin);
                    line.pop();
                    return Ok(Some(line));
                }
                None => self.read_on()?,
            }
        }
    }

    fn read_on(&mut self) -> io::Result<()> {
        let have = self.bytes.len() as u64;
        if have > LONGEST_LINE {
            self.bytes.clear();
        }
        let length = self.block.max(have).min(LONGEST_LINE).min(self.start);
        let begin = self.start.saturating_sub(length);
        let mut bytes = self.read(begin, length)?;
        bytes.append(&mut self.bytes);
        (self.bytes, self.start) = (bytes, begin);
        self.block = self.block.saturating_mul(2).min(LARGEST_BLOCK);
        Ok(())
    }

    /// Goes to where lines can be left out that don't come before something. Which ones do is asked of a few; it must be the
    /// first ones of the file.
    fn skip(&mut self, is_before: impl Fn(&Stamp) -> bool) -> io::Result<()> {
        let (mut low, mut high) = (0, self.start);
        while high.saturating_sub(low) > NEAR {
            let Some(probe) = self.probe(low.midpoint(high), high)? else { break };
            if is_before(&probe.stamp) {
                low = probe.end;
            } else {
                high = probe.begin;
            }
        }
        self.go_to(high);
        Ok(())
    }

    /// The first entry that begins after one position and before another. `None` where there is none nearby.
    fn probe(&mut self, from: u64, high: u64) -> io::Result<Option<Probe>> {
        let mut length = FIRST_BLOCK;
        loop {
            let length_here = length.min(high.saturating_sub(from));
            let bytes = self.read(from, length_here)?;
            let mut begin = from;
            for (n, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let end = begin.saturating_add(line.len() as u64);
                // The first one is the rest of a line.
                let stamp = line.strip_suffix(b"\n").filter(|_| n > 0).and_then(Stamp::of);
                if let Some(stamp) = stamp {
                    return Ok(Some(Probe { stamp, begin, end }));
                }
                begin = end;
            }
            if length_here < length || length >= LONGEST_LINE {
                return Ok(None);
            }
            length = length.saturating_mul(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::{AuditLog, Decision, Event, EventKind, Opening, Settings, entries, tail};
    use crate::clock::{Clock, ManualClock};

    fn key() -> Key {
        Key::fill_with(|key| key.fill(7))
    }

    /// A clock that can be set back.
    struct Wall {
        seconds: AtomicI64,
        other: ManualClock,
    }

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.seconds.load(Ordering::SeqCst)).unwrap()
        }

        fn monotonic(&self) -> Duration {
            self.other.monotonic()
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            self.other.sleep(duration)
        }

        fn fill_random(&self, bytes: &mut [u8]) {
            self.other.fill_random(bytes);
        }
    }

    fn line(seq: usize, second: usize, decision: &str) -> String {
        let time = Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap();
        let detail = "x".repeat(200);
        format!(
            "{{\"seq\":{seq},\"time\":\"{time}\",\"kind\":\"invoked\",\"decision\":\"{decision}\",\"detail\":\"{detail}\"}}\n"
        )
    }

    /// Three chains whose times overlap, of more than a megabyte each.
    fn large() -> (tempfile::TempDir, u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut length = 0;
        for (n, chain) in ["a", "b", "c"].iter().enumerate() {
            let lines = (0..5_000).map(|seq| line(seq, seq * 10 + n, if seq % 2 == 0 { "allowed" } else { "denied" }));
            let text: String = lines.collect();
            length += text.len() as u64;
            fs::write(dir.path().join(chain).with_extension("jsonl"), text).unwrap();
        }
        (dir, length)
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(1_800_000_000 + second).ok()
    }

    #[test]
    fn a_page_costs_what_it_shows_wherever_it_is() {
        let (dir, length) = large();
        assert!(length > 3 << 20, "{length}");
        let newest = |filter: &Filter, before: Option<&Mark>| newest(dir.path(), &key(), filter, before).unwrap();
        let cost = |filter: &Filter, before: Option<&Mark>| {
            let mut newest = newest(filter, before);
            let found: Vec<_> = newest.by_ref().take(50).map(Result::unwrap).collect();
            (newest.bytes_read(), found)
        };
        let denied = Filter { decision: Some(Decision::Denied), ..Filter::default() };
        for filter in [&Filter::default(), &denied] {
            let all: Vec<_> = newest(filter, None).map(|entry| Mark::of(&entry.unwrap())).collect();
            assert!(all.is_sorted_by(|a, b| a > b));
            for begin in [0, 1, 700, all.len() / 2, all.len() - 50] {
                let before = begin.checked_sub(1).map(|last| &all[last]);
                let (cost, found) = cost(filter, before);
                assert_eq!(found.iter().map(Mark::of).collect::<Vec<_>>(), all[begin..begin + 50], "from {begin}");
                assert!(cost < 400 << 10, "{cost} bytes for the page that begins at {begin}");
            }
        }
        let (first, _) = cost(&Filter::default(), None);
        assert!(first < 64 << 10, "{first} bytes for the newest page");
        for span in [(at(49_900), None), (None, at(25_000)), (at(20_000), at(20_100))] {
            let filter = Filter { since: span.0, until: span.1, ..Filter::default() };
            let (cost, found) = cost(&filter, None);
            assert!(!found.is_empty() && cost < 400 << 10, "{cost} bytes for {filter:?}");
        }
        let of_none = Filter { since: at(60_000), ..Filter::default() };
        let (cost, found) = cost(&of_none, None);
        assert!(found.is_empty() && cost < 16 << 10, "{cost} bytes for nothing");
    }

    #[test]
    fn the_end_of_the_log_is_not_read_from_its_beginning() {
        let (dir, _) = large();
        let last = tail(dir.path(), &key(), &Filter::default(), 3).unwrap();
        assert_eq!(
            last.iter().map(|entry| (entry.chain.as_str(), entry.seq)).collect::<Vec<_>>(),
            [("a", 4_999), ("b", 4_999), ("c", 4_999)]
        );
    }

    #[test]
    fn what_is_no_mark_is_none() {
        for text in ["", "x", "2026-11-24T11:00:00Z", "2026-11-24T11:00:00Z,x,a"] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
        let mark = Mark { time: at(1).unwrap(), chain: "a,b".to_owned(), seq: 4 };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Entry { log: usize, denied: bool },
        Clock(i64),
        Again(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_usize..3, any::<bool>()).prop_map(|(log, denied)| Step::Entry { log, denied }),
            3 => (0_i64..5).prop_map(Step::Clock),
            1 => (-20_i64..0).prop_map(Step::Clock),
            1 => (0_usize..3).prop_map(Step::Again),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(3)))]

        #[test]
        fn pages_have_every_entry_once_and_filters_are_exact_also_where_the_clock_was_set_back(
            steps in prop::collection::vec(step(), 0..120),
            most in 1_usize..9,
            since in prop::option::of(-20_i64..60),
            until in prop::option::of(-20_i64..60),
            denied: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let other = ManualClock::at(at(0).unwrap());
            let clock = Arc::new(Wall { seconds: AtomicI64::new(1_800_000_000), other });
            let (key, settings) = (key(), Settings { checkpoint_every: 1_000, ..Settings::default() });
            let open = || {
                let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
                AuditLog::open(dir.path(), &opening, Arc::clone(&clock) as Arc<dyn Clock>).unwrap()
            };
            let mut logs = [Some(open()), Some(open()), Some(open())];
            for step in steps {
                match step {
                    Step::Clock(by) => drop(clock.seconds.fetch_add(by, Ordering::SeqCst)),
                    Step::Entry { log, denied } => {
                        let decision = if denied { Decision::Denied } else { Decision::Allowed };
                        let event = Event { decision, ..Event::new(EventKind::Released) };
                        logs[log].as_ref().unwrap().append(&event).unwrap();
                    }
                    Step::Again(log) => {
                        logs[log] = None;
                        logs[log] = Some(open());
                    }
                }
            }
            let all: Vec<_> = entries(dir.path(), &key, &Filter::default()).unwrap().map(Result::unwrap).collect();
            let filter = Filter {
                since: since.and_then(at),
                until: until.and_then(at),
                decision: denied.then_some(Decision::Denied),
                ..Filter::default()
            };
            let mut expected: Vec<_> = all
                .iter()
                .filter(|entry| filter.since.is_none_or(|since| entry.time >= since))
                .filter(|entry| filter.until.is_none_or(|until| entry.time < until))
                .filter(|entry| !denied || entry.decision.as_deref() == Some("denied"))
                .map(Mark::of)
                .collect();
            expected.sort_by(|a, b| b.cmp(a));
            let (mut found, mut before) = (Vec::new(), None);
            loop {
                let (entries, older) = page(dir.path(), &key, &filter, before.as_ref(), most).unwrap();
                prop_assert!(entries.len() == most || older.is_none(), "only the last page may have fewer");
                found.extend(entries.iter().map(Mark::of));
                // What is written while somebody reads may come too, where the clock was set back; of what was there
                // before, nothing is lost or comes again.
                logs[found.len() % 3].as_ref().unwrap().append(&Event::new(EventKind::Invoked)).unwrap();
                match older {
                    Some(older) => before = Mark::parse(&older.to_string()),
                    None => break,
                }
            }
            found.retain(|mark| all.iter().any(|entry| Mark::of(entry) == *mark));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_read_back_as_the_lines_that_they_are(
            bytes in prop::collection::vec(prop_oneof![1 => Just(b'\n'), 12 => any::<u8>()], 0..400), block in 1_u64..40,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.jsonl");
            fs::write(&path, &bytes).unwrap();
            let mut lines = Backward { block, ..Backward::open(&path).unwrap() };
            let mut found = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                found.push(line);
                lines.block = block;
            }
            found.reverse();
            let expected: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")).collect();
            prop_assert_eq!(found, expected);
            let mark = Mark { time: Timestamp::UNIX_EPOCH, chain: "a".to_owned(), seq: 0 };
            let filter = Filter { until: at(0), ..Filter::default() };
            prop_assert!(page(dir.path(), &key(), &filter, Some(&mark), 3).is_ok());
        }

        #[test]
        fn lines_of_any_length_among_what_is_none_are_found_from_any_mark(
            lengths in prop::collection::vec((0_usize..20_000, any::<bool>()), 1..40), begin: prop::sample::Index,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut seq = 0;
            let text: String = lengths
                .into_iter()
                .map(|(length, is_entry)| {
                    let pad = "y".repeat(length);
                    if is_entry {
                        seq += 1;
                        line(seq, seq / 3, &pad)
                    } else {
                        format!("{pad}\n")
                    }
                })
                .collect();
            fs::write(dir.path().join("a.jsonl"), text).unwrap();
            let newest = |before: Option<&Mark>| -> Vec<_> {
                newest(dir.path(), &key(), &Filter::default(), before).unwrap().map(|entry| Mark::of(&entry.unwrap())).collect()
            };
            let all = newest(None);
            prop_assert_eq!(all.len(), seq);
            if !all.is_empty() {
                let begin = begin.index(all.len());
                prop_assert_eq!(newest(Some(&all[begin])), &all[begin + 1..]);
            }
        }
    }
}
