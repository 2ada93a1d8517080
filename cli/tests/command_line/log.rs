//! The audit log, and what operators do that it tells of.

use std::path::PathBuf;

use serde_json::Value;

use super::{Agent, Sandbox, skills};

#[test]
fn a_new_agent_has_a_sound_and_empty_log() {
    let agent = Agent::new();
    agent.succeeds(&["audit", "verify"]);
    agent.succeeds(&["audit", "tail"]);
    agent.succeeds(&["doctor"]);
}

#[test]
fn the_log_is_shown_without_its_openings_unless_all_is_wanted() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    // It opens the log, and does nothing that stands there.
    agent.succeeds(&["doctor"]);
    let tail = agent.succeeds(&["audit", "tail", "--lines", "1"]);
    assert!(tail.contains("skill-added") && !tail.contains("opened"), "{tail}");
    assert!(agent.succeeds(&["audit", "tail", "--all"]).contains("opened"));
}

#[test]
fn tokens_that_are_made_and_ended_stand_in_the_log_without_the_token_and_the_users_name() {
    let agent = Agent::new();
    let made = agent.json(&["token", "create", "--agent", "mail-agent", "--user", "alice"], 0);
    let acting = agent.json(&["token", "create", "--agent", "hub", "--act-as", "team-a/*", "--expires", "never"], 0);
    let one = agent.json(&["token", "create", "--agent", "hub", "--act-as", "alice"], 0);
    let name = |token: &Value| token["name"].as_str().unwrap().to_owned();
    agent.succeeds(&["token", "revoke", &name(&made)]);
    let exported = agent.succeeds(&["audit", "export"]);
    let entries: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |kind: &str, token: &Value| {
        let of = |entry: &&Value| entry["kind"] == kind && entry["credential"] == token["name"];
        entries.iter().find(of).unwrap_or_else(|| panic!("no {kind} in {exported}")).clone()
    };
    let (created, revoked) = (told("token-created", &made), told("token-revoked", &made));
    assert!(created["user"].is_string() && created["user"] == revoked["user"], "{created} {revoked}");
    assert_eq!(created["client"], "mail-agent");
    let created = told("token-created", &acting);
    assert_eq!(created["detail"], "invoke, act-as team-a/*, until it is revoked");
    assert!(created["user"].is_null());
    assert_eq!(told("token-created", &one)["user"], revoked["user"]);
    assert!(!exported.contains("alice"), "{exported}");
    for token in [&made, &acting, &one] {
        assert!(!exported.contains(token["token"].as_str().unwrap()));
    }
}

#[test]
fn a_token_that_can_not_be_told_to_the_log_is_not_given_and_one_is_revoked_all_the_same() {
    let agent = Agent::new();
    let made = agent.json(&["token", "create", "--agent", "mail-agent", "--user", "alice"], 0);
    std::fs::write(agent.folder().join("audit.toml"), "checkpoint_every = \"often\"").unwrap();
    agent.fails(&["token", "create", "--agent", "mail-agent", "--user", "alice"], 1);
    assert_eq!(agent.json(&["token", "list"], 0)["tokens"].as_array().unwrap().len(), 1);
    agent.fails(&["token", "revoke", made["name"].as_str().unwrap()], 1);
    assert_eq!(agent.json(&["token", "list"], 0)["tokens"], serde_json::json!([]));
}

#[test]
fn an_export_has_each_entry_that_was_asked_for_on_a_line() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    let all = agent.succeeds(&["audit", "export"]);
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["file"].is_string()), "{all}");
    let one = agent.succeeds(&["audit", "export", "--kind", "skill-added", "--since", "1h", "--skill", "gmail-send"]);
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(agent.succeeds(&["audit", "export", "--until", "2020-01-01"]).is_empty());
    agent.fails_usage(&["audit", "export", "--kind", "sent"], "released");
    agent.fails_usage(&["audit", "export", "--since", "yesterday"], "2026-11-24");
}

#[test]
fn a_cut_of_the_log_is_noticed_by_a_checkpoint_in_another_place() {
    let agent = Agent::new();
    let witness = tempfile::tempdir().unwrap();
    let settings = format!("strict = true\ncheckpoints = [{:?}]\n", witness.path().to_str().unwrap());
    std::fs::write(agent.folder().join("audit.toml"), settings).unwrap();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    assert!(agent.succeeds(&["audit", "verify"]).contains("signed checkpoints agree"));
    let kept = agent.succeeds(&["audit", "checkpoints"]);
    assert!(kept.contains("\n— clawcoil/audit/"), "{kept}");
    let folder = agent.folder().join("audit");
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let log = files.iter().find(|path| {
        path.extension().is_some_and(|ending| ending == "jsonl")
            && std::fs::read_to_string(path).unwrap().contains("skill-added")
    });
    let log = log.unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    let kept_lines: Vec<_> = text.lines().take_while(|line| !line.contains("skill-added")).collect();
    std::fs::write(log, kept_lines.join("\n") + "\n").unwrap();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "checkpoint")) {
        std::fs::remove_file(path).unwrap();
    }
    let bad = agent.fails(&["audit", "verify"], 1);
    assert!(bad.contains(log.to_str().unwrap()) && bad.contains(witness.path().to_str().unwrap()), "{bad}");
    // The same with what somebody has kept, where audit.toml says nothing.
    std::fs::remove_file(agent.folder().join("audit.toml")).unwrap();
    let file = witness.path().join("mine");
    std::fs::write(&file, kept).unwrap();
    let bad = agent.fails(&["audit", "verify", "--against", file.to_str().unwrap()], 1);
    assert!(bad.contains("ends too early"), "{bad}");
}

#[test]
fn a_mistake_in_audit_toml_is_told_with_its_place() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    std::fs::write(agent.folder().join("audit.toml"), "strickt = true\n").unwrap();
    let told = agent.fails(&["run", "gmail-send", "--user", "alice"], 1);
    assert!(told.contains("audit.toml:1") && told.contains("did you mean `strict`?"), "{told}");
    // What takes away works all the same.
    agent.succeeds(&["connections", "list"]);
    agent.succeeds(&["revoke", "gmail-send", "--user", "alice"]);
}

#[test]
fn a_mistake_in_audit_toml_leaves_no_half_made_agent() {
    let agent = Agent::without_home();
    std::fs::create_dir_all(agent.folder()).unwrap();
    std::fs::write(agent.folder().join("audit.toml"), "strickt = true\n").unwrap();
    assert!(agent.fails(&["init", "--no-recovery"], 1).contains("audit.toml:1"));
    assert!(!agent.folder().join("identity.key").exists());
    std::fs::remove_file(agent.folder().join("audit.toml")).unwrap();
    agent.succeeds(&["init", "--no-recovery"]);
}

#[test]
fn a_change_of_tokens_that_could_not_be_told_is_an_error_of_the_log_to_the_doctor() {
    let agent = Agent::new();
    agent.succeeds(&["doctor"]);
    // Rows that can't be opened with any key of the vault: as if somebody had written to the database.
    let sql = rusqlite::Connection::open(agent.folder().join("vault.db")).unwrap();
    for lookup in [[1_u8; 32], [2; 32]] {
        sql.execute(
            "INSERT INTO documents (vault, kind, lookup, owner, revision, record)
             SELECT vault, 'audit-outbox', ?1, 'agent', 1, zeroblob(200) FROM vaults",
            [lookup],
        )
        .unwrap();
    }
    // Whoever has something to tell sets aside what can't be told.
    let sandbox = Sandbox::start(&agent);
    agent.succeeds(&["provider", "add", "google", "--sandbox", &sandbox.origin]);
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    agent.connect();
    let findings = agent.json(&["doctor"], 1);
    let bad: Vec<_> = findings["findings"].as_array().unwrap().iter().filter(|one| one["health"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{findings}");
    assert_eq!(bad[0]["about"], "audit");
    assert!(bad[0]["text"].as_str().unwrap().starts_with("2 changes of tokens are missing"), "{findings}");
}

#[test]
fn a_token_that_nobody_was_shown_is_ended_and_one_that_is_shown_for_revoking_is_not_said_back() {
    let agent = Agent::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut create = agent.command(&["token", "create", "--agent", "bot", "--user", "alice"]);
    assert!(!create.stdout(full).status().unwrap().success());
    assert_eq!(agent.json(&["token", "list"], 0)["tokens"], serde_json::json!([]));
    let made = agent.json(&["token", "create", "--agent", "bot", "--user", "alice"], 0);
    let token = made["token"].as_str().unwrap();
    let told = agent.fails(&["token", "revoke", token], 2);
    assert!(told.contains("tok_") && !told.contains(token), "{told}");
}

#[test]
fn a_token_is_good_for_ten_years_at_the_most_or_until_it_is_revoked() {
    let agent = Agent::new();
    for wrong in ["0s", "3651d", "99999999d", "4294967295d"] {
        agent.fails_usage(&["token", "create", "--agent", "bot", "--user", "alice", "--expires", wrong], "3650d");
    }
    for good in ["1s", "3650d", "never"] {
        agent.succeeds(&["token", "create", "--agent", "bot", "--user", "alice", "--expires", good]);
    }
}

#[test]
fn a_place_without_a_checkpoint_of_this_log_proves_nothing() {
    let (agent, other) = (Agent::new(), Agent::new());
    for agent in [&agent, &other] {
        agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    }
    let place = tempfile::tempdir().unwrap();
    let kept = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = kept("own.checkpoint", &agent.succeeds(&["audit", "checkpoints"]));
    agent.succeeds(&["audit", "verify", "--against", &own]);
    let anothers = kept("another.checkpoint", &other.succeeds(&["audit", "checkpoints"]));
    let (empty, folder) = (kept("empty.checkpoint", ""), tempfile::tempdir().unwrap());
    let missing = place.path().join("missing");
    for silent in [anothers.as_str(), &empty, folder.path().to_str().unwrap(), missing.to_str().unwrap()] {
        let told = agent.fails(&["audit", "verify", "--against", silent], 1);
        assert!(told.contains("has no checkpoint of this log"), "{told}");
    }
    // Where audit.toml names a place, it may be new.
    for new in [folder.path(), &missing] {
        std::fs::write(agent.folder().join("audit.toml"), format!("checkpoints = [{new:?}]\n")).unwrap();
        assert!(agent.succeeds(&["audit", "verify"]).contains("has no checkpoint of this log"));
        assert!(agent.succeeds(&["doctor"]).contains("has no checkpoint of this log"));
    }
    // Nor does what is no file keep anybody waiting.
    let pipe = folder.path().join("7.checkpoint");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let told = agent.fails(&["audit", "verify", "--against", folder.path().to_str().unwrap()], 1);
    assert!(told.contains("7.checkpoint: this is no file"), "{told}");
    std::fs::remove_file(pipe).unwrap();
    // What is there and can't be read is called by what it is: a link that leads nowhere hides nothing.
    std::fs::write(folder.path().join("5.checkpoint"), std::fs::read(&own).unwrap()).unwrap();
    agent.succeeds(&["audit", "verify", "--against", folder.path().to_str().unwrap()]);
    for name in ["0.checkpoint", "9.checkpoint"] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let told = agent.fails(&["audit", "verify", "--against", folder.path().to_str().unwrap()], 1);
        assert!(told.contains("can't be read"), "{told}");
        std::fs::remove_file(link).unwrap();
    }
    let unreadable = format!("{own}/below");
    let told = agent.fails(&["audit", "verify", "--against", &unreadable], 1);
    assert!(told.contains(&format!("the checkpoints at {unreadable} can't be read")), "{told}");
}

#[test]
fn a_sink_that_can_take_nothing_is_named_by_the_doctor() {
    let agent = Agent::new();
    let socket = agent.folder().join("nobody.sock");
    for sink in ["command = [\"/nope/collector\"]".to_owned(), format!("socket = {:?}", socket.to_str().unwrap())] {
        std::fs::write(agent.folder().join("audit.toml"), format!("[[sink]]\n{sink}\n")).unwrap();
        let findings = agent.json(&["doctor"], 1);
        let bad = findings["findings"].as_array().unwrap().iter().find(|one| one["health"] == "bad");
        let told = bad.unwrap_or_else(|| panic!("{findings}"))["text"].as_str().unwrap();
        assert!(told.contains("takes no entries, so no token is released"), "{told}");
    }
}
