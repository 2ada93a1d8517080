//! Reading what is added to the files of the audit log.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clawcoil::audit::Entry;
use clawcoil::clock::Timestamp;

use super::is_chain;

/// How far back a file is of interest.
const DAY: Duration = Duration::from_hours(24);
/// So many bytes of each file's end are read at first, and so many of all files together.
const AT_FIRST: u64 = 16 << 20;
const ALL_AT_FIRST: u64 = 64 << 20;
/// So many bytes of a file are read at once; the rest is for the next time.
const AT_ONCE: u64 = 4 << 20;

/// Follows the files of a folder.
#[derive(Debug)]
pub(super) struct Follower {
    folder: PathBuf,
    /// How far each file was read: to the end of a line.
    read: HashMap<PathBuf, u64>,
    first: bool,
}

impl Follower {
    /// Nothing of this folder was read yet.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self { folder, read: HashMap::new(), first: true }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entries that were added since the last time; the first time, those of the last day. What is too much to be read then
    /// is left out, the oldest first.
    pub(super) fn read(&mut self, now: Timestamp) -> io::Result<Vec<Entry>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_chain(&path) {
                let metadata = fs::metadata(&path)?;
                files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
            }
        }
        files.sort();
        self.read.retain(|known, _| files.iter().any(|(.., path)| path == known));
        let first = std::mem::replace(&mut self.first, false);
        let mut left = ALL_AT_FIRST;
        let mut found = Vec::new();
        let since = now.checked_sub(DAY).unwrap_or(Timestamp::MIN);
        let seconds = u64::try_from(since.as_second()).unwrap_or(0);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (modified, length, path) in files.into_iter().rev() {
            let begin = match self.read.get(&path) {
                // A file that became shorter is not the one that was read.
                Some(&read) => read.min(length),
                None if first => {
                    let old = modified < long_ago;
                    let wanted = if old { 0 } else { length.min(AT_FIRST).min(left) };
                    left -= wanted;
                    length - wanted
                }
                None => 0,
            };
            let most = if first { AT_FIRST } else { AT_ONCE };
            let (end, entries) = lines(&path, begin, length, most)?;
            found.extend(entries.into_iter().filter(|entry| entry.time >= since));
            self.read.insert(path, end);
        }
        Ok(found)
    }
}

/// The entries from here on, and where the last whole line ends. A beginning within a line is moved to the next.
fn lines(path: &Path, begin: u64, length: u64, most: u64) -> io::Result<(u64, Vec<Entry>)> {
    if begin >= length {
        return Ok((length, Vec::new()));
    }
    let mut file = File::open(path)?;
    // With the byte before, one can see whether a line begins here.
    let from = begin.saturating_sub(1);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    let skip = match begin {
        0 => 0,
        _ => bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1),
    };
    let rest = bytes.get(skip..).unwrap_or_default();
    let Some(whole) = rest.iter().rposition(|byte| *byte == b'\n') else {
        // A line that is longer than what is read at once is passed over.
        let full = bytes.len() as u64 > most;
        return Ok((if full { from + bytes.len() as u64 } else { begin }, Vec::new()));
    };
    let chain = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let whole = whole + 1;
    let lines = rest.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    let entries = lines.filter(|line| !line.is_empty()).filter_map(|line| Entry::parse(chain, line));
    Ok((from + (skip + whole) as u64, entries.collect()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn line(seq: u64) -> String {
        format!(
            "{{\"seq\":{seq},\"time\":\"2026-11-24T11:59:00.000000Z\",\"kind\":\"invoked\",\"decision\":\"allowed\"}}\n"
        )
    }

    fn sequence(found: &[Entry]) -> Vec<u64> {
        found.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn each_entry_is_read_once_and_only_when_its_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let add = |text: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        add(&line(0));
        let mut follower = Follower::of(folder.path().to_owned());
        assert_eq!(sequence(&follower.read(now()).unwrap()), [0]);
        let next = line(1);
        let (half, rest) = next.split_at(20);
        add(half);
        assert!(follower.read(now()).unwrap().is_empty());
        add(&format!("{rest}{}", line(2)));
        assert_eq!(sequence(&follower.read(now()).unwrap()), [1, 2]);
        assert!(follower.read(now()).unwrap().is_empty());
        // Another process begins a file of its own; what is no entry is passed over.
        fs::write(folder.path().join("b.jsonl"), format!("nothing\n{}", line(7))).unwrap();
        fs::write(folder.path().join("b.checkpoint"), line(8)).unwrap();
        assert_eq!(sequence(&follower.read(now()).unwrap()), [7]);
    }

    #[test]
    fn of_a_long_log_the_end_is_read_from_the_beginning_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, [line(0), line(1), line(2)].concat()).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        let one = line(0).len() as u64;
        let from = |begin: u64, most: u64| {
            let (end, entries) = lines(&path, begin, length, most).unwrap();
            (end, sequence(&entries))
        };
        assert_eq!(from(one, length), (length, vec![1, 2]));
        assert_eq!(from(one + 1, length), (length, vec![2]));
        assert_eq!(from(one - 1, length), (length, vec![1, 2]));
        assert_eq!(from(0, one + 5), (one, vec![0]), "the rest is for the next time");
    }

    #[test]
    fn a_day_ago_is_long_ago() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jsonl"), line(0)).unwrap();
        let late = now().checked_add(Duration::from_hours(30)).unwrap();
        assert!(Follower::of(folder.path().to_owned()).read(late).unwrap().is_empty());
    }
}
