//! New versions of a skill, which wait for an approval.

use super::*;

/// A skill that an author works on, in a folder.
struct Author(tempfile::TempDir);

impl Author {
    fn of_gmail_send() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["component.wasm", "skill.toml"] {
            std::fs::copy(skills().join("gmail-send").join(file), folder.path().join(file)).unwrap();
        }
        Self(folder)
    }

    fn folder(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.0.path().join("skill.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_new_version_waits_while_the_old_one_stays_in_use_until_it_is_approved() {
    let (agent, author) = (Agent::new(), Author::of_gmail_send());
    let old = agent.json(&["skill", "add", author.folder()], 0)["digest"].as_str().unwrap().to_owned();
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    let permissions = agent.folder().join("permissions.toml");
    let before = std::fs::read_to_string(&permissions).unwrap();

    author.edit("0.1.0", "0.2.0");
    author.edit("scopes = [", "scopes = [\"https://mail.google.com/\", ");
    let waits = agent.succeeds(&["skill", "add", author.folder()]);
    assert!(waits.contains("0.2.0 waits for approval; 0.1.0 stays in use"), "{waits}");
    assert!(waits.contains("wants more:\n  service `gmail`: scope https://mail.google.com/"), "{waits}");
    assert!(agent.succeeds(&["skill", "list"]).contains("A new version of gmail-send waits"));
    let explain = ["policy", "explain", "--skill", "gmail-send", "--user", "alice"];
    assert_eq!(agent.json(&explain, 0)["services"][0]["granted"], true, "the old one stays in use");
    assert_eq!(std::fs::read_to_string(&permissions).unwrap(), before);

    let pending = agent.json(&["skill", "pending"], 0)["pending"][0].clone();
    assert_eq!((&pending["wants_more"], &pending["more"][0]["kind"]), (&true.into(), &"scope".into()));
    let new = pending["digest"].as_str().unwrap();
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(agent.fails(&["skill", "approve", "gmail-send", "--digest", &other], 1).contains("another version"));
    let approved = agent.succeeds(&["skill", "approve", "gmail-send", "--digest", new]);
    assert!(approved.contains(&old) && approved.contains(new), "the lines that changed: {approved}");
    assert_eq!(
        std::fs::read_to_string(&permissions).unwrap(),
        before.replace(&old, new),
        "the pin moved, and nothing else"
    );
    let explained = agent.json(&explain, 0);
    assert_eq!(explained["services"][0]["granted"], true);
    assert_eq!(explained["services"][0]["missing_scopes"][0], "https://mail.google.com/", "approved is not granted");
    agent.fails(&["skill", "approve", "gmail-send"], 1);
    let log = agent.succeeds(&["audit", "tail", "--lines", "10"]);
    assert!(log.contains("skill-proposed") && log.contains("skill-approved"), "{log}");
}

#[test]
fn a_new_version_that_is_rejected_changes_nothing_and_one_that_nobody_pinned_is_installed_at_once() {
    let (agent, author) = (Agent::new(), Author::of_gmail_send());
    agent.succeeds(&["skill", "add", author.folder()]);
    author.edit("0.1.0", "0.2.0");
    let replaced = agent.succeeds(&["skill", "add", author.folder()]);
    assert!(replaced.contains("replaces version 0.1.0"), "{replaced}");
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    author.edit("0.2.0", "0.3.0");
    let waits = agent.succeeds(&["skill", "add", author.folder()]);
    assert!(waits.contains("declares the same: only its code is another"), "{waits}");
    agent.succeeds(&["skill", "reject", "gmail-send"]);
    agent.fails(&["skill", "reject", "gmail-send"], 1);
    assert_eq!(agent.json(&["skill", "list"], 0)["skills"][0]["skill_version"], "0.2.0");
    assert!(agent.succeeds(&["skill", "pending"]).contains("No new version"));
}
