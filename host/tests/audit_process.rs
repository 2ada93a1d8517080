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
        let position = log.append_for_release(&event).await.unwrap();
        println!("\nreleased {} {}", position.seq, position.hash);
    }
}

#[test]
fn in_strict_mode_each_release_is_in_the_log_and_its_copy_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let mut released = BTreeMap::new();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
            .env("CLAWCOIL_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((seq, hash)) = line.strip_prefix("released ").and_then(|rest| rest.split_once(' ')) {
                released.insert(hash.trim_start_matches("sha256:").to_owned(), seq.parse::<u64>().unwrap());
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
    for place in [&audit, &folder.path().join("copy")] {
        verify(place, &key()).unwrap();
        let entries = read(place, &key(), &Filter::default()).unwrap();
        for (hash, seq) in &released {
            let found = entries.iter().any(|entry| entry.seq == *seq && entry.json.contains(hash));
            assert!(found, "{}: entry {seq} with hash {hash}", place.display());
        }
    }
}
