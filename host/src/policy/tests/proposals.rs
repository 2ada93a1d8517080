use super::super::{Denial, Explanation};
use super::*;

/// The permissions with the proposed new rule at their end.
fn pasted(permissions: &str, denial: &Denial) -> String {
    let new_rules = denial.allow.iter().filter(|proposal| proposal.file.starts_with("the permissions, as a new rule"));
    let lines: String = new_rules.map(|proposal| proposal.lines.clone()).collect();
    assert!(!lines.is_empty(), "{}", denial.explain());
    format!("{permissions}\n{lines}")
}

#[test]
fn pasting_the_proposed_grant_allows_what_was_denied() {
    let denial = effective("", "alice").service(&name("gmail")).unwrap_err().clone();
    let allowed = effective(&pasted("", &denial), "alice");
    assert!(allowed.service(&name("gmail")).is_ok());
    assert!(allowed.token("gmail", &["mail.send".to_owned(), "mail.read".to_owned()], None, None, now()).is_ok());
    assert!(effective(&pasted("", &denial), "bob").service(&name("gmail")).is_err());
}

#[test]
fn pasting_the_proposed_request_allows_it_and_no_other() {
    let (wanted, other) = (post("https://weather.example/today"), post("https://weather.example/else"));
    let denial = effective("", "alice").route(&wanted, &BTreeMap::new()).unwrap_err();
    let allowed = effective(&pasted("", &denial), "alice");
    assert!(allowed.route(&wanted, &BTreeMap::new()).is_ok());
    assert!(allowed.route(&other, &BTreeMap::new()).is_err());
}

#[test]
fn an_undeclared_request_is_proposed_for_the_manifest_and_the_permissions() {
    let wanted = post("https://new.example/x");
    let denial = effective("", "alice").route(&wanted, &BTreeMap::new()).unwrap_err();
    let [manifest, _] = &*denial.allow else { panic!("{:?}", denial.allow) };
    assert_eq!(manifest.file, "the manifest of `mail`");
    let manifest = format!("{MAIL}\n{}", manifest.lines);
    assert!(effective_of(&manifest, &pasted("", &denial), "alice").route(&wanted, &BTreeMap::new()).is_ok());
}

#[test]
fn each_value_that_a_grant_lacks_is_proposed_with_what_it_has() {
    let text = gmail("scopes = [\"mail.send\"]\naccounts = [\"work\"]\naudiences = [\"a\"]");
    let effective = effective(&text, "alice");
    let lines = |denial: Denial| {
        let [proposal] = &*denial.allow else { panic!("{:?}", denial.allow) };
        format!("{}: {}", proposal.place(), proposal.lines)
    };
    let grant = "the permissions, in the [[grant]] at permissions.toml:1: ";
    let account = effective.token("gmail", &[], Some("home"), None, now()).unwrap_err();
    assert_eq!(lines(account), format!("{grant}accounts = [\"work\", \"home\"]\n"));
    let audience = effective.token("gmail", &[], None, Some("b"), now()).unwrap_err();
    assert_eq!(lines(audience), format!("{grant}audiences = [\"a\", \"b\"]\n"));
    let scope = effective.token("gmail", &["mail.read".to_owned()], None, None, now()).unwrap_err();
    assert!(lines(scope).ends_with("scopes = [\"mail.read\", \"mail.send\"]\n"));
}

#[test]
fn a_destination_that_the_grant_lacks_is_proposed_with_those_that_it_has() {
    let manifest = MAIL.replace(
        "[{ origin = \"https://gmail.example\", methods",
        "[{ origin = \"https://new.example\" }, { origin = \"https://gmail.example\", methods",
    );
    let denial = effective_of(&manifest, &gmail("scopes = [\"mail.send\"]"), "alice")
        .route(&post("https://new.example/x"), &BTreeMap::new());
    let lines = &denial.unwrap_err().allow[0].lines;
    let permissions = gmail("scopes = [\"mail.send\"]") + lines;
    let allowed = effective_of(&manifest, &permissions, "alice");
    assert!(allowed.route(&post("https://new.example/x"), &BTreeMap::new()).is_ok());
    assert!(allowed.route(&post("https://gmail.example/send"), &BTreeMap::new()).is_ok());
}

#[test]
fn an_explanation_names_the_rule_and_the_way_out() {
    let denied = effective("", "alice").explain(&name("gmail"));
    let text = denied.to_string();
    assert!(matches!(denied, Explanation::Denied(_)));
    for part in [
        "denied: ",
        "decided by the default",
        "explanation why_",
        "[[grant]]",
        "users = [\"alice\"]",
        "provider = \"google\"",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let granted = effective(&gmail("scopes = [\"mail.send\"]"), "alice").explain(&name("gmail"));
    assert_eq!(
        granted.to_string(),
        "granted: service `gmail` of provider `google`\n  decided by permissions.toml:1\n  account: any of the user's\n  \
         scope: mail.send\n  scope declared, not granted: mail.read\n  use: the host puts the token on requests, the skill \
         can't see it\n  may go to: POST https://gmail.example/send, /drafts/*"
    );
}
