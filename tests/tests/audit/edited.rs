//! A real log, and what is said of it once somebody has changed it.

use super::*;

/// The log of two hosts after calls that were allowed and calls that were refused.
async fn real_log() -> (GuestAgent, Upstream) {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    for _ in 0..4 {
        assert!(matches!(fetch(&agent.host).await.unwrap(), End::Value(_)));
        let input = json!({ "method": "GET", "url": "https://elsewhere.example/", "headers": [], "body": "" });
        words(call(&agent.host, "probe", "fetch", &input).await.unwrap().end);
    }
    // The second one writes down where the first one's log ends.
    let other = agent.another_host().await;
    assert!(matches!(fetch(&other).await.unwrap(), End::Value(_)));
    drop(other);
    (agent, server)
}

/// A copy of a log, to be edited.
struct Copied {
    _folder: tempfile::TempDir,
    audit: PathBuf,
    /// The file of the first host.
    file: PathBuf,
    lines: Vec<String>,
}

impl Copied {
    fn of(audit: &Path, chain: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(audit).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let audit = folder.path().to_owned();
        let file = audit.join(chain).with_extension("jsonl");
        let lines = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        Self { _folder: folder, audit, file, lines }
    }

    fn write(&self, lines: &[String]) {
        fs::write(&self.file, [lines.join("\n").as_str(), "\n"].concat()).unwrap();
    }

    #[track_caller]
    fn assert_bad(&self, key: &Key, entry: usize, fault: impl Fn(&Fault) -> bool) {
        let bad = match verify(&self.audit, key) {
            Err(VerifyError::Bad(bad)) => bad,
            other => panic!("{other:?}"),
        };
        let FirstBad { file, entry: found, fault: why } = &bad;
        assert_eq!((file, *found), (&self.file, entry as u64), "{bad}");
        assert!(fault(why), "{bad}");
    }
}

#[tokio::test]
async fn the_first_bad_entry_of_a_real_log_is_named_after_any_edit() {
    let (agent, _server) = real_log().await;
    let (audit, key, chain) = (agent.host.home().audit(), agent.host.vault().audit_key(), agent.host.audit().chain());
    let copied = || Copied::of(&audit, chain);
    let summary = verify(&copied().audit, &key).unwrap();
    let lines = copied().lines;
    assert!(summary.chains == 2 && lines.len() > 12, "{summary:?}");

    for at in [0, 1, 5, lines.len() - 1] {
        // Who did it, and what was decided, each told otherwise.
        let other = lines[at].replacen("\"allowed\"", "\"denied\"", 1).replacen("\"kind\":\"", "\"kind\":\"un", 1);
        let log = copied();
        log.write(&[&lines[..at], &[other], &lines[at + 1..]].concat());
        log.assert_bad(&key, at, |fault| *fault == Fault::Edited);
        // One character of the seal.
        let sealed = lines[at].trim_end_matches("\"}");
        let (kept, last) = sealed.split_at(sealed.len() - 1);
        let other = format!("{kept}{}\"}}", if last == "0" { '1' } else { '0' });
        let log = copied();
        log.write(&[&lines[..at], &[other], &lines[at + 1..]].concat());
        log.assert_bad(&key, at, |fault| matches!(fault, Fault::Edited | Fault::OtherKey));
    }
    for at in [1, 5, lines.len() - 2] {
        let log = copied();
        log.write(&[&lines[..at], &lines[at + 1..]].concat());
        log.assert_bad(&key, at, |fault| *fault == Fault::Missing { until: at as u64 });

        let log = copied();
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        log.write(&swapped);
        log.assert_bad(&key, at, |fault| *fault == Fault::Missing { until: at as u64 });

        let log = copied();
        log.write(&[&lines[..=at], &lines[at..]].concat());
        log.assert_bad(&key, at + 1, |fault| *fault == Fault::Repeated { number: at as u64 });
    }

    let log = copied();
    log.write(&lines[..lines.len() - 3]);
    log.assert_bad(&key, lines.len() - 3, |fault| matches!(fault, Fault::CutOff { .. }));

    let log = copied();
    let text = fs::read(&log.file).unwrap();
    fs::write(&log.file, &text[..text.len() - 20]).unwrap();
    log.assert_bad(&key, lines.len() - 1, |fault| *fault == Fault::Torn);

    let log = copied();
    fs::remove_file(&log.file).unwrap();
    log.assert_bad(&key, 0, |fault| matches!(fault, Fault::Deleted { .. }));

    let log = copied();
    fs::write(&log.file, "").unwrap();
    log.assert_bad(&key, 0, |fault| matches!(fault, Fault::CutOff { .. } | Fault::Empty));
}

#[tokio::test]
async fn the_log_of_one_vault_does_not_check_for_another() {
    let (agent, _server) = real_log().await;
    let other = self::agent("probe", "inject", &Upstream::plain().await).await;
    let log = Copied::of(&agent.host.home().audit(), agent.host.audit().chain());
    match verify(&log.audit, &other.host.vault().audit_key()) {
        Err(VerifyError::Bad(FirstBad { entry: 0, fault: Fault::OtherKey, .. })) => {}
        verified => panic!("{verified:?}"),
    }
}

#[tokio::test]
async fn no_user_is_named_in_the_log() {
    let (agent, _server) = real_log().await;
    let mut searched = BTreeSet::new();
    for entry in fs::read_dir(agent.host.home().audit()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("alice"), "{}", path.display());
        if path.extension().is_some_and(|extension| extension == "checkpoint") {
            continue;
        }
        assert!(text.contains("\"user\":\"usr_"));
        searched.insert(path);
    }
    assert_eq!(searched.len(), 2);
}
