use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::super::{Attempt, Attempts, Lesson};
use super::properties::allowed;
use super::*;

fn attempts(all: &[Attempt]) -> Attempts {
    let mut attempts = Attempts::new(BTreeMap::from([(name("records"), origin("https://login.sf.example"))]));
    all.iter().cloned().for_each(|attempt| attempts.note(attempt));
    attempts
}

fn lesson(all: &[Attempt], permissions: &str) -> Lesson {
    let manifest = manifest(MAIL);
    attempts(all).lesson(&manifest, digest(), &"alice".parse().unwrap(), &effective(permissions, "alice"), now())
}

fn pasted(lesson: &Lesson, permissions: &str) -> String {
    let lines: String = lesson.grants.iter().map(|grant| grant.lines() + "\n").collect();
    format!("{permissions}\n{lines}")
}

fn token(service: &str, scopes: &[&str], account: Option<&str>) -> Attempt {
    let scopes = scopes.iter().map(ToString::to_string).collect();
    Attempt::Token { service: service.to_owned(), scopes, account: account.map(ToOwned::to_owned), audience: None }
}

fn request(with: Option<&str>, uri: &str) -> Attempt {
    Attempt::Request { with: with.map(name), target: post(uri) }
}

#[test]
fn the_lines_are_the_least_that_allows_what_was_tried() {
    let all = [token("gmail", &["mail.send"], Some("work")), request(None, "https://gmail.example/send")];
    let lesson = lesson(&all, "");
    assert_eq!(lesson.tried.iter().map(|(_, granted)| *granted).collect::<Vec<_>>(), [false, false]);
    let expected = format!(
        "[[grant]]\nskill = \"mail\"\ndigest = \"{}\"\nusers = [\"alice\"]\nservice = \"gmail\"\nprovider = \"google\"\nscopes = [\"mail.send\"]\n\
         accounts = [\"work\"]\nuse = \"inject\"\n\n[[grant.request]]\norigin = \"https://gmail.example\"\nmethods = [\"POST\"]\npaths = [\"/send\"]\n",
        digest()
    );
    assert_eq!(lesson.grants.iter().map(super::super::NewGrant::lines).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_service_without_which_the_skill_does_not_start_is_granted_although_it_was_not_used() {
    let lesson = lesson(&[request(None, "https://weather.example/today")], "");
    assert_eq!(lesson.unused, [name("gmail")]);
    let after = effective(&pasted(&lesson, ""), "alice");
    assert_eq!(after.denied_services().count(), 0);
    assert!(after.route(&post("https://weather.example/today"), &BTreeMap::new()).is_ok());
    assert!(after.route(&post("https://weather.example/else"), &BTreeMap::new()).is_err());
}

#[test]
fn what_the_manifest_does_not_declare_is_proposed_for_it_and_granted_nobody() {
    let all = [
        token("calendar", &["events"], None),
        token("gmail", &["mail.all"], None),
        request(None, "https://evil.example/x"),
        Attempt::Reveal { service: name("gmail") },
    ];
    let lesson = lesson(&all, "");
    for part in [
        "name = \"calendar\"",
        "scopes = [\"events\"]",
        "# in the [[service]] `gmail`\nscopes = [\"mail.all\", \"mail.read\", \"mail.send\"]",
        "[[request]]\norigin = \"https://evil.example\"\nmethods = [\"POST\"]\npaths = [\"/x\"]",
        "use = \"reveal\"",
    ] {
        assert!(lesson.undeclared.contains(part), "{part} is not in:\n{}", lesson.undeclared);
    }
    let grants = pasted(&lesson, "");
    assert!(!grants.contains("evil") && !grants.contains("mail.all") && !grants.contains("reveal"), "{grants}");
}

#[test]
fn a_path_with_a_star_is_not_granted_as_a_pattern() {
    let lesson = lesson(&[request(None, "https://weather.example/*")], "");
    assert!(!pasted(&lesson, "").contains("weather"));
}

const TRIED: [(&str, &str); 5] = [
    ("", "https://weather.example/"),
    ("", "https://a.cdn.example/x"),
    ("", "https://gmail.example/send"),
    ("records", "https://login.sf.example/x"),
    ("hook", "https://hooks.example/x"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(6)))]

    #[test]
    fn what_was_tried_is_allowed_with_the_lines_and_nothing_that_was_not(
        requests in subsequence(TRIED.to_vec(), 1..=5),
        scopes in subsequence(vec!["mail.send", "mail.read"], 0..=2),
        account in proptest::option::of(Just("work")),
        reveal: bool,
    ) {
        let mut all: Vec<_> = requests.iter().map(|(_, uri)| request(None, uri)).collect();
        all.push(token("gmail", &scopes, account));
        all.push(request(None, "https://gmail.example/send"));
        if reveal {
            all.push(token("hook", &[], None));
            all.push(Attempt::Reveal { service: name("hook") });
            all.push(request(None, "https://hooks.example/x"));
        }
        let lesson = lesson(&all, "");
        let grants = pasted(&lesson, "");
        let again = super::lessons::lesson(&all, &grants);
        prop_assert!(again.tried.iter().all(|(_, granted)| *granted), "{:?}\n{}", again.tried, grants);
        prop_assert!(again.grants.is_empty());

        let tried: BTreeSet<&str> = requests.iter().map(|(_, uri)| *uri).chain(["https://gmail.example/send"])
            .chain(reveal.then_some("https://hooks.example/x")).collect();
        for yes in allowed(std::slice::from_ref(&grants)) {
            prop_assert!(yes.starts_with("alice "), "{}\n{}", yes, grants);
            if let Some((_, target)) = yes.split_once(" POST ") {
                let uri = target.split(' ').next().unwrap_or_default();
                // What was tried at the connection's own origin is granted as such, wherever that is.
                let own = grants.contains("{api_origin}") && uri == "https://acme.my.sf.example/x";
                prop_assert!(tried.contains(uri) || own, "{}\n{}", yes, grants);
            }
            prop_assert!(reveal || !yes.contains("Z reveal hook"), "{}", yes);
            if !scopes.is_empty() {
                prop_assert!(["mail.send", "mail.read"].iter().all(|scope| scopes.contains(scope) || !yes.contains(scope)), "{}", yes);
            }
            if account.is_some() {
                prop_assert!(!(yes.contains("gmail") && yes.contains("home")), "{}", yes);
            }
        }
    }
}
