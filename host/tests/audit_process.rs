//! What the audit log promises when its process is killed: each test runs this same binary again as a child.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use clawcoil::audit::{AuditLog, Destination, Event, EventKind, Filter, Opening, Settings, read, verify, verify_with};
use clawcoil::clock::SystemClock;
use clawcoil::secret::Key;

/// The child's orders come in its environment, where the test harness doesn't look.
const CHILD: &str = "child_process";

fn key() -> Key {
    Key::fill_with(|key| key.fill(7))
}

fn settings(folder: &Path) -> Settings {
    Settings {
        strict: true,
        checkpoint_every: 10,
        checkpoints: vec![folder.join("witness")],
        sinks: vec![Destination::Folder(folder.join("copy"))],
    }
}

fn open(folder: &Path) -> AuditLog {
    let (key, settings) = (key(), settings(folder));
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
    AuditLog::open(&folder.join("audit"), &opening, Arc::new(SystemClock::new())).unwrap()
}

/// Not a rule of its own: what the children run.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the child's orders come in its environment")]
async fn child_process() {
    let Ok(folder) = std::env::var("CLAWCOIL_TEST_FOLDER") else { return };
    let log = open(Path::new(&folder));
    for n in 0_u64.. {
        let event = Event { detail: Some(n.to_string()), ..Event::new(EventKind::Released) };
        match log.append_for_release(&event).await {
            Ok(position) => println!("\nreleased {} {}", position.seq, position.hash),
            Err(error) => {
                println!("\nrefused: {error}");
                return;
            }
        }
    }
}

/// Runs this binary's child. Before it a shell command may prepare the process.
fn child(folder: &Path, prepared: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{prepared} exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    command.args([CHILD, "--exact", "--nocapture", "--test-threads=1"]).env("CLAWCOIL_TEST_FOLDER", folder);
    command.stdout(Stdio::piped());
    command
}

/// The number that follows the hash of each entry under which something was released.
fn released(line: &str, into: &mut BTreeMap<String, u64>) -> bool {
    let Some((seq, hash)) = line.strip_prefix("released ").and_then(|rest| rest.split_once(' ')) else { return false };
    into.insert(hash.trim_start_matches("sha256:").to_owned(), seq.parse().unwrap());
    true
}

/// The log and its copy are whole and have each of these entries.
fn check(folder: &Path, released: &BTreeMap<String, u64>) {
    for place in [folder.join("audit"), folder.join("copy")] {
        verify(&place, &key()).unwrap();
        let entries = read(&place, &key(), &Filter::default()).unwrap();
        for (hash, seq) in released {
            let found = entries.iter().any(|entry| entry.seq == *seq && entry.json.contains(hash));
            assert!(found, "{}: entry {seq} with hash {hash}", place.display());
        }
    }
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_line_ends_releases_and_spoils_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    // No file may grow beyond so many blocks: what is written last is written in part. Odd sizes hit log, copy and checkpoints.
    for blocks in [0, 1, 9, 14, 23, 33] {
        let limit = format!("trap '' XFSZ; ulimit -f {blocks};");
        let output = child(folder.path(), &limit).stderr(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let _ = text.lines().filter(|line| released(line, &mut all)).count();
        if blocks > 1 {
            assert!(text.contains("\nrefused: "), "{blocks}: {text}");
        }
        // Not even what was never begun looks like damage.
        if folder.path().join("audit").is_dir() {
            let verified = verify(&folder.path().join("audit"), &key());
            assert!(verified.is_ok(), "after {blocks} blocks: {verified:?}");
        }
    }
    assert!(all.len() > 10, "only {} releases", all.len());
    drop(open(folder.path()));
    check(folder.path(), &all);
}

#[test]
fn in_strict_mode_each_release_is_in_the_log_and_its_copy_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let mut all = BTreeMap::new();
    for round in 0..4 {
        let mut child = child(folder.path(), "").spawn().unwrap();
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if released(&line, &mut all) {
                count += 1;
                if count == 30 + 7 * round {
                    // SIGKILL. What was told before it is read on, up to the end of the pipe.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(count >= 30, "round {round}: only {count} releases");
        let summary = verify_with(&audit, &key(), &settings(folder.path()).witnesses()).unwrap();
        assert!(summary.checkpoints > 0, "{summary:?}");
    }
    // The next process brings up the copy: what was killed may have had no time for the last line.
    drop(open(folder.path()));
    check(folder.path(), &all);
}
