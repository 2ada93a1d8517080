//! The entries of one call, looked for from its end: the last of them says how long the call took, so that it is known how far
//! back the others may stand.

use std::io;
use std::path::Path;

use jiff::SignedDuration;

use crate::clock::Timestamp;
use crate::id::{InvocationId, UserId};
use crate::secret::Key;

use super::event::EventKind;
use super::newest::{Newest, newest_before};
use super::read::{Entry, Filter, Wanted};

/// So many bytes of the log are read for one call at the most, and somewhat more where the files are many: where to begin is
/// looked for in each.
pub const MOST_FOR_A_CALL: u64 = 32 << 20;

/// So many are read in any case. A machine that slept during a call, or whose clock was set, has more time between the entries
/// than the call took; where little is written, what was written before stands within this all the same.
const LEAST: u64 = 256 << 10;

/// So much before a call began its entries are looked for, and so much after the moment that is said of it.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// What [`of_call()`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct OfCall {
    /// The call's entries, oldest first.
    pub entries: Vec<Entry>,
    /// Reading ended at [`MOST_FOR_A_CALL`]: the call may have entries before these, or all of them.
    pub is_cut: bool,
}

/// The entries of one call: of this user's, where one is given.
///
/// They are looked for from the newest entry of the log backwards, or from shortly after this moment, to before the call began.
/// The moment is that of [`Entry::latest`] of one of them, best of the last.
pub fn of_call(
    dir: &Path,
    key: &Key,
    id: InvocationId,
    user: Option<&UserId>,
    at: Option<Timestamp>,
) -> io::Result<OfCall> {
    let filter = Filter { invocation: Some(id), user: user.cloned(), ..Filter::default() };
    let until = at.map(|at| at.checked_add(MARGIN).unwrap_or(Timestamp::MAX));
    collect(&mut newest_before(dir, until)?, &Wanted::of(key, &filter), MOST_FOR_A_CALL)
}

fn collect(log: &mut Newest, wanted: &Wanted, most: u64) -> io::Result<OfCall> {
    // Of many files the ends alone may be more.
    let opened = log.bytes_read();
    let mut began = None;
    let mut found = OfCall { entries: Vec::new(), is_cut: false };
    while let Some(entry) = log.next().transpose()? {
        let read = log.bytes_read().saturating_sub(opened);
        if read >= LEAST && began.is_some_and(|began| entry.latest() < began) {
            break;
        }
        if wanted.matches(&entry) {
            if entry.kind == EventKind::Invoked.as_str() {
                began = Some(beginning(&entry));
            }
            found.entries.push(entry);
        }
        if read > most {
            found.is_cut = true;
            break;
        }
    }
    found.entries.reverse();
    Ok(found)
}

/// No entry of the call that ended with this one is of an earlier time.
fn beginning(ended: &Entry) -> Timestamp {
    let took = SignedDuration::from_millis(ended.took_ms.and_then(|took| i64::try_from(took).ok()).unwrap_or(0));
    let began = ended.time.checked_sub(took).and_then(|began| began.checked_sub(MARGIN));
    began.unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LINES: i64 = 6_000;

    fn key() -> Key {
        Key::fill_with(|key| key.fill(7))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn id(n: u8) -> InvocationId {
        InvocationId::from_bytes([n; 16])
    }

    /// One of many entries: every third second there is one.
    fn line(second: i64, invocation: InvocationId, more: &str) -> String {
        let (time, detail) = (at(second), "x".repeat(300));
        format!(
            "{{\"seq\":{second},\"time\":\"{time}\",\"invocation\":\"{invocation}\"{more},\"detail\":\"{detail}\"}}\n"
        )
    }

    /// Two chains of some megabytes. In one there is a call that takes a third of the log's time, and has an entry at its beginning
    /// and one at its end; and one that a machine slept through.
    fn log() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (n, chain) in ["a", "b"].iter().enumerate() {
            let lines = (0..LINES).map(|number| match (n, number) {
                (0, 2_000 | 4_500) => line(number * 3, id(1), ",\"kind\":\"released\""),
                (0, 5_000) => line(number * 3, id(1), ",\"kind\":\"invoked\",\"took_ms\":9000000"),
                (1, 1_000) => line(number * 3, id(2), ",\"kind\":\"released\""),
                (1, 1_150) => line(number * 3, id(2), ",\"kind\":\"invoked\",\"took_ms\":5"),
                (1, 3_000) => line(number * 3, id(3), ",\"kind\":\"released\""),
                _ => line(number * 3, id(9), ",\"kind\":\"requested\""),
            });
            fs::write(dir.path().join(chain).with_extension("jsonl"), lines.collect::<String>()).unwrap();
        }
        dir
    }

    /// The numbers of the entries found, whether the rest is not known, and what it cost.
    fn of(dir: &Path, n: u8, near: Option<i64>, most: u64) -> (Vec<u64>, bool, u64) {
        let wanted = Wanted::of(&key(), &Filter { invocation: Some(id(n)), ..Filter::default() });
        let mut log = newest_before(dir, near.map(|second| at(second).checked_add(MARGIN).unwrap())).unwrap();
        let found = collect(&mut log, &wanted, most).unwrap();
        (found.entries.iter().map(|entry| entry.seq / 3).collect(), found.is_cut, log.bytes_read())
    }

    #[test]
    fn of_the_log_no_more_is_read_than_from_a_call_s_end_to_its_beginning() {
        let dir = log();
        let per_line = fs::metadata(dir.path().join("a.jsonl")).unwrap().len() / u64::try_from(LINES).unwrap();
        // In both files, and what is read ahead, to find where to begin, and in any case.
        let lines = |number: u64| number * 2 * per_line + (400 << 10);
        let (entries, is_cut, cost) = of(dir.path(), 1, None, MOST_FOR_A_CALL);
        assert_eq!((entries, is_cut), (vec![2_000, 4_500, 5_000], false));
        assert!(cost < lines(4_000), "{cost} bytes from the newest entry");
        let (entries, is_cut, cost) = of(dir.path(), 1, Some(15_000), MOST_FOR_A_CALL);
        assert_eq!((entries, is_cut), (vec![2_000, 4_500, 5_000], false));
        assert!(cost < lines(3_000), "{cost} bytes from where it ended");
        let (entries, is_cut, cost) = of(dir.path(), 2, Some(3_450), MOST_FOR_A_CALL);
        assert_eq!((entries, is_cut), (vec![1_000, 1_150], false), "the machine slept meanwhile");
        assert!(cost < lines(0), "{cost} bytes for a short call");
    }

    #[test]
    fn a_call_that_is_not_found_costs_no_more_than_the_bound_and_that_is_said() {
        let dir = log();
        let most = 1 << 20;
        for (call, near, expected) in
            [(4, None, vec![]), (1, None, vec![5_000]), (2, None, vec![]), (3, Some(9_000), vec![3_000])]
        {
            let (entries, is_cut, cost) = of(dir.path(), call, near, most);
            assert_eq!((entries, is_cut), (expected, true), "call {call}");
            assert!(cost < most + (256 << 10), "{cost} bytes for call {call}");
        }
        // Where the whole log was read, there is nothing more to be known.
        let (entries, is_cut, _) = of(dir.path(), 3, None, MOST_FOR_A_CALL);
        assert_eq!((entries, is_cut), (vec![3_000], false));
    }

    #[test]
    fn a_call_s_entries_are_those_of_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let (alice, bob): (UserId, UserId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let more = format!(",\"kind\":\"invoked\",\"user\":\"{}\"", super::super::user_tag(&key(), &alice));
        fs::write(dir.path().join("a.jsonl"), line(0, id(1), &more)).unwrap();
        for (user, expected) in [(None, 1), (Some(&alice), 1), (Some(&bob), 0)] {
            assert_eq!(of_call(dir.path(), &key(), id(1), user, None).unwrap().entries.len(), expected, "{user:?}");
        }
    }
}
