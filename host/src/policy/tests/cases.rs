use super::super::{Cases, Verdict};
use super::*;

const PERMISSIONS: &str = r#"
[[grant]]
skill = "mail"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
users = ["alice", "contractor-*"]
service = "gmail"
provider = "google"
scopes = ["mail.send"]
accounts = ["work"]
expires = 2027-06-30

[[grant]]
skill = "mail"
approval = "none"
users = ["alice"]
clients = ["cli"]
service = "hook"
provider = "hooks"
use = "reveal"

[[forbid]]
users = ["contractor-*"]
provider = "google"
"#;

fn verdict(lines: &str) -> Verdict {
    let text = format!("[[case]]\nmanifest = \"skill.toml\"\n{lines}\n");
    let cases = Cases::parse(&Source::new("cases.toml", text)).unwrap_or_else(|error| panic!("{error}"));
    let case = cases.iter().next().unwrap();
    case.run(&policy(PERMISSIONS), &manifest(MAIL), None, now())
}

#[test]
fn a_case_is_answered_as_a_call_would_be() {
    for lines in [
        "user = \"alice\"\nservice = \"gmail\"\nscopes = [\"mail.send\"]\nexpect = \"allowed\"\nrule = \"permissions.toml:2\"",
        "user = \"alice\"\nservice = \"gmail\"\nscopes = [\"mail.read\"]\nexpect = \"denied\"\ncode = \"scope-not-granted\"",
        "user = \"alice\"\nservice = \"gmail\"\naccount = \"home\"\nexpect = \"denied\"\ncode = \"account-not-granted\"",
        "user = \"alice\"\nservice = \"gmail\"\nmethod = \"POST\"\nurl = \"https://gmail.example/send\"\nexpect = \"allowed\"",
        "user = \"alice\"\nservice = \"gmail\"\nurl = \"https://gmail.example/send\"\nexpect = \"denied\"\ncode = \"request-not-granted\"",
        "user = \"alice\"\nservice = \"gmail\"\nat = 2027-06-30\nexpect = \"allowed\"",
        "user = \"alice\"\nservice = \"gmail\"\nat = 2027-07-01\nexpect = \"denied\"\ncode = \"expired\"",
        "user = \"alice\"\nservice = \"hook\"\nreveal = true\nexpect = \"allowed\"",
        "user = \"alice\"\nclient = \"ci\"\nservice = \"hook\"\nreveal = true\nexpect = \"denied\"",
        "user = \"contractor-1\"\nservice = \"gmail\"\nexpect = \"denied\"\ncode = \"forbidden\"\nrule = \"permissions.toml:21\"",
        "user = \"bob\"\nexpect = \"denied\"\ncode = \"service-not-granted\"",
        "user = \"alice\"\nexpect = \"allowed\"",
        "user = \"alice\"\nurl = \"https://weather.example/\"\nexpect = \"denied\"",
    ] {
        let verdict = verdict(lines);
        assert!(verdict.is_as_expected(), "{lines}: {:?}", verdict.unexpected);
    }
}

#[test]
fn what_is_not_as_expected_is_said_with_what_is() {
    for (lines, said) in [
        ("user = \"bob\"\nexpect = \"allowed\"", "expected to be allowed, and is denied: no grant lets skill `mail`"),
        (
            "user = \"alice\"\nservice = \"gmail\"\nexpect = \"denied\"",
            "expected to be denied, and is allowed by permissions.toml:2",
        ),
        (
            "user = \"bob\"\nservice = \"gmail\"\nexpect = \"denied\"\ncode = \"forbidden\"",
            "expected to be denied as forbidden, and is denied as service-not-granted",
        ),
        (
            "user = \"alice\"\nservice = \"gmail\"\nexpect = \"allowed\"\nrule = \"permissions.toml:12\"",
            "expected to be decided by permissions.toml:12, and is decided by permissions.toml:2",
        ),
    ] {
        let unexpected = verdict(lines).unexpected.unwrap_or_default();
        assert!(unexpected.starts_with(said), "{unexpected}");
    }
}

#[test]
fn an_installed_version_is_held_to_the_pin_and_a_manifest_alone_is_not() {
    let text = "[[case]]\nskill = \"mail\"\nuser = \"alice\"\nservice = \"gmail\"\nexpect = \"denied\"\ncode = \"approval-pending\"\n";
    let cases = Cases::parse(&Source::new("cases.toml", text)).unwrap();
    let case = cases.iter().next().unwrap();
    let (policy, manifest) = (policy(PERMISSIONS), manifest(MAIL));
    assert!(case.run(&policy, &manifest, Some(digest()), now()).is_as_expected());
    assert!(case.run(&policy, &manifest, None, now()).answer.is_ok());
}

#[test]
fn cases_with_errors_show_all_of_them() {
    let text = "[[case]]\nusr = \"alice\"\nskill = \"mail\"\nexpect = \"alowed\"\n[[case]]\nuser = \"bob\"\nscopes = [\"a\"]\nmethod = \"POST\"\n";
    let errors = Cases::parse(&Source::new("cases.toml", text)).unwrap_err().to_string();
    for part in [
        "cases.toml:2:1",
        "did you mean `user`?",
        "did you mean \"allowed\"?",
        "`skill` is missing",
        "`expect` is missing",
        "`scopes` says nothing without `service`",
        "`method` says nothing without `url`",
    ] {
        assert!(errors.contains(part), "{part} is not in:\n{errors}");
    }
    let none = Cases::parse(&Source::new("cases.toml", "")).unwrap_err().to_string();
    assert!(none.contains("[[case]]"), "{none}");
}

#[test]
fn a_misspelled_name_is_an_error_and_no_refusal_that_was_expected() {
    let manifest = manifest(MAIL);
    let wrong = |lines: &str, known: bool| {
        let text = format!("[[case]]\nuser = \"alice\"\nexpect = \"denied\"\n{lines}\n");
        let cases = Cases::parse(&Source::new("cases.toml", text)).unwrap();
        cases.check(&["mail".parse().unwrap()], |_| known.then_some(&manifest)).unwrap_err().to_string()
    };
    assert!(wrong("skill = \"mial\"", false).contains("did you mean `mail`?"));
    assert!(wrong("skill = \"mail\"\nservice = \"gmial\"", true).contains("did you mean `gmail`?"));
    let scope = wrong("skill = \"mail\"\nservice = \"gmail\"\nscopes = [\"mail.sned\"]", true);
    assert!(scope.contains("did you mean \"mail.send\"?"), "{scope}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_as_cases_without_panic(
        text in "(\\[\\[case\\]\\]\n((name|user|client|skill|manifest|service|scopes|account|url|method|reveal|at|expect|code|rule|api_origin) = (\"[a-z:/.]{0,10}\"|\\[\"[a-z]{0,3}\"\\]|true|2027-01-0[0-9]|.{0,6})\n){0,8}){0,3}"
    ) {
        if let Err(errors) = Cases::parse(&Source::new("cases.toml", text)) {
            let _ = errors.to_string();
        }
    }
}
