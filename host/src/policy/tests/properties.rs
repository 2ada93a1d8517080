use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::super::Rate;
use super::*;

/// Every question that a call can ask, for every caller and at two moments, that gets a yes.
pub(super) fn allowed(rules: &[String]) -> BTreeSet<String> {
    let manifest = manifest(MAIL);
    let policy = policy(&rules.concat());
    let mut yes = BTreeSet::new();
    for (user, client) in [("alice", "cli"), ("bob", "ci"), ("contractor-1", "cli")] {
        let caller = Caller::new(client.parse().unwrap(), user.parse().unwrap());
        for at in [now(), "2027-07-01T00:00:00Z".parse().unwrap()] {
            let effective = policy.effective(&Skill { manifest: &manifest, digest: digest() }, &caller, at);
            let mut note = |allowed: bool, question: String| {
                if allowed {
                    yes.insert(format!("{user} {client} {at} {question}"));
                }
            };
            note(effective.linked().reveal, "link reveal".to_owned());
            let api_origins = BTreeMap::from([(name("records"), origin("https://acme.my.sf.example"))]);
            let targets = TARGETS.map(post);
            for target in &targets {
                note(effective.route(target, &api_origins).is_ok(), format!("route {target}"));
            }
            for service in ["gmail", "records", "hook", "sdk", "undeclared"] {
                note(effective.service(&name(service)).is_ok(), format!("service {service}"));
                for alias in [None, Some("work"), Some("home")] {
                    for scopes in [&[][..], &["mail.send"], &["mail.read"], &["mail.send", "mail.read"], &["mail.all"]]
                    {
                        let asked: Vec<_> = scopes.iter().map(ToString::to_string).collect();
                        let token = effective.token(service, &asked, alias, None, at).is_ok();
                        note(token, format!("token {service} {scopes:?} {alias:?}"));
                    }
                    let alias = alias.map(account);
                    note(
                        effective.permit_reveal(&name(service), alias.as_ref(), at).is_ok(),
                        format!("reveal {service} {alias:?}"),
                    );
                    for target in &targets {
                        let api_origin = api_origins.get(&name(service));
                        let permit = effective.permit_inject(&name(service), target, alias.as_ref(), api_origin, at);
                        note(permit.is_ok(), format!("inject {service} {target} {alias:?}"));
                        let confined =
                            effective.reveal_confinement(&name(service), alias.as_ref(), target, api_origin, at);
                        note(confined.is_ok(), format!("after reveal {service} {target} {alias:?}"));
                    }
                }
            }
        }
    }
    yes
}

const TARGETS: [&str; 8] = [
    "https://gmail.example/send",
    "https://gmail.example/other",
    "https://acme.my.sf.example/x",
    "https://hooks.example/x",
    "https://weather.example/",
    "https://a.cdn.example/x",
    "https://evil.example/",
    "https://undeclared.example/",
];

fn some(list: &'static [&'static str]) -> impl Strategy<Value = String> {
    subsequence(list.to_vec(), 1..=list.len()).prop_map(|chosen| format!("{chosen:?}"))
}

fn line(key: &'static str, values: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::option::of(values)
        .prop_map(move |value| value.map_or(String::new(), |value| format!("{key} = {value}\n")))
}

const USERS: &[&str] = &["alice", "bob", "*", "contractor-*"];
const REVEAL_WITH: &str = "\"reveal\"\nreveal_with = [\"https://hooks.example\", \"https://evil.example\"]";
const CLIENTS: &[&str] = &["cli", "c*"];

fn a_grant() -> impl Strategy<Value = String> {
    let services = vec![
        ("gmail", "google"),
        ("records", "salesforce"),
        ("hook", "hooks"),
        ("sdk", "google"),
        ("gmail", "other"),
        ("undeclared", "google"),
    ];
    let service = (
        select(services),
        line("scopes", some(&["mail.send", "mail.read", "mail.all"])),
        line("accounts", some(&["work", "home"])),
        line("use", select(vec!["\"inject\"".to_owned(), "\"reveal\"".to_owned(), REVEAL_WITH.to_owned()])),
        line(
            "request",
            select(vec![
                "[{ origin = \"https://gmail.example\", methods = [\"POST\"] }]".to_owned(),
                "[{ origin = \"https://evil.example\" }, { origin = \"{api_origin}\" }]".to_owned(),
            ]),
        ),
    )
        .prop_map(|((service, provider), scopes, accounts, use_, request)| {
            format!("service = \"{service}\"\nprovider = \"{provider}\"\n{scopes}{accounts}{use_}{request}")
        });
    let plain = select(vec![
        "request = [{ origin = \"https://weather.example\" }, { origin = \"https://undeclared.example\" }]\n"
            .to_owned(),
        "request = [{ origin = \"https://*.cdn.example\" }, { origin = \"https://gmail.example\" }]\n".to_owned(),
    ]);
    let approval = select(vec![
        "approval = \"none\"\n".to_owned(),
        format!("digest = \"{}\"\n", digest()),
        format!("digest = \"{}\"\n", Digest::of(b"another")),
    ]);
    let expires = line("expires", select(vec!["2026-06-30".to_owned(), "2027-06-30".to_owned()]));
    let rate = line("rate", a_rate());
    (approval, some(USERS), line("clients", some(CLIENTS)), expires, rate, prop_oneof![4 => service, 1 => plain])
        .prop_map(|(approval, users, clients, expires, rate, what)| {
            format!("[[grant]]\nskill = \"mail\"\n{approval}users = {users}\n{clients}{expires}{rate}{what}")
        })
}

fn of_gmail() -> impl Strategy<Value = String> {
    (line("rate", a_rate()), line("accounts", some(&["work", "default", "home"])))
        .prop_map(|(rate, accounts)| gmail(&format!("scopes = [\"mail.send\"]\n{rate}{accounts}")))
}

fn a_rate() -> impl Strategy<Value = String> {
    select(["\"1/min\"", "\"90/h\"", "\"1440/day\"", "\"3/day\""].map(ToOwned::to_owned).to_vec())
}

pub(super) fn a_forbid() -> impl Strategy<Value = String> {
    let what = prop_oneof![
        3 => Just(String::new()),
        1 => select(TARGETS.to_vec()).prop_map(|target| format!("origin = \"{}\"\n", post(target).origin())),
        1 => some(&["mail.send", "mail.read"]).prop_map(|scopes| format!("scopes = {scopes}\n")),
        1 => Just("use = \"reveal\"\n".to_owned()),
    ];
    let texts = |list: &'static [&'static str]| select(list.to_vec()).prop_map(|text| format!("\"{text}\""));
    (
        some(USERS),
        line("clients", some(CLIENTS)),
        line("skill", texts(&["mail", "m*", "other"])),
        line("service", texts(&["gmail", "hook"])),
        line("provider", texts(&["google", "salesforce"])),
        what,
    )
        .prop_map(|(users, clients, skill, service, provider, what)| {
            format!("[[forbid]]\nusers = {users}\n{clients}{skill}{service}{provider}{what}")
        })
}

pub(super) fn rules() -> impl Strategy<Value = Vec<String>> {
    let grants = proptest::collection::vec(a_grant(), 1..8);
    let forbids = proptest::collection::vec(a_forbid(), 0..2);
    (grants, forbids).prop_map(|(grants, forbids)| grants.into_iter().chain(forbids).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(6)))]

    #[test]
    fn adding_a_forbid_never_allows_more(rules in rules(), forbid in a_forbid()) {
        let before = allowed(&rules);
        let after = allowed(&[rules, vec![forbid]].concat());
        prop_assert!(after.is_subset(&before), "{:#?}", after.difference(&before).collect::<Vec<_>>());
    }

    #[test]
    fn removing_a_grant_never_allows_more(rules in rules(), which: Index) {
        let before = allowed(&rules);
        let mut fewer = rules.clone();
        let grants = rules.iter().filter(|rule| rule.starts_with("[[grant]]")).count();
        fewer.remove(which.index(grants));
        let after = allowed(&fewer);
        prop_assert!(after.is_subset(&before), "{:#?}", after.difference(&before).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_rules_does_not_matter(
        (rules, shuffled) in rules().prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle()))
    ) {
        prop_assert_eq!(allowed(&rules), allowed(&shuffled));
    }

    #[test]
    fn nothing_undeclared_is_ever_allowed(rules in rules()) {
        for yes in allowed(&rules) {
            let undeclared = yes.contains("service undeclared") || yes.contains("token undeclared") || yes.contains("inject undeclared")
                || yes.contains("mail.all") || yes.contains("https://undeclared.example")
                || yes.contains("reveal gmail None") || yes.contains("reveal sdk None") || yes.contains("reveal records None")
                || (yes.contains("inject gmail") && !yes.contains("POST https://gmail.example/send"))
                || yes.contains("route POST https://gmail.example/other") || yes.contains("route POST https://evil.example/");
            prop_assert!(!undeclared, "{}", yes);
        }
    }

    #[test]
    fn any_text_is_read_as_manifest_and_permissions_without_panic(
        text in "((\\[{1,2}(skill|service|service.request|request|tool.a|limits|grant|grant.request|forbid|network)\\]{1,2}|(name|skill|origin|scopes|users|digest|approval|expires|rate|use|methods|paths|memory|private) = (\"[a-z*/{}.:-]{0,10}\"|\\[\"[a-z*/.]{0,6}\"(, \"a\")?\\]|[0-9]{1,4}(-0[1-9]-[0-9]{2})?|true|\\{ ?\\}|.{0,6}))\n){0,12}"
    ) {
        let source = Source::new("f.toml", text);
        if let Err(diagnostics) = Manifest::parse(&source) {
            let _ = diagnostics.to_string();
        }
        if let Err(diagnostics) = Permissions::parse(&[source]) {
            let _ = diagnostics.to_string();
        }
    }
}

proptest! {
    #[test]
    fn with_one_more_grant_nothing_is_rarer_and_no_account_takes_the_place_of_the_default(
        grants in proptest::collection::vec(of_gmail(), 2..5), which: Index
    ) {
        let mut fewer = grants.clone();
        fewer.remove(which.index(grants.len()));
        let target = post("https://gmail.example/send");
        for asked in [None, Some(account("work")), Some(account("default"))] {
            let used = |grants: &[String]| {
                let effective = effective(&grants.concat(), "alice");
                let permit = effective.permit_inject(&name("gmail"), &target, asked.as_ref(), None, now()).ok()?;
                Some((permit.account().cloned(), Rate::generosity(permit.rate())))
            };
            if let Some((before, often)) = used(&fewer) {
                let (after, now_often) = used(&grants).unwrap();
                // Where no account is named, one that is for any account means the owner's default.
                let of_default = |used: &Option<AccountAlias>| used.as_ref().is_none_or(AccountAlias::is_default);
                prop_assert!(of_default(&after) || !of_default(&before), "{:?} after {:?}", after, before);
                prop_assert!(now_often >= often || after != before, "{:?}: {:?} after {:?}", asked, now_often, often);
            }
        }
    }
}

#[test]
fn the_generated_rules_allow_and_deny_in_good_measure() {
    // Otherwise the properties above would hold of nothing.
    let open = [
        gmail("scopes = [\"mail.send\", \"mail.read\"]"),
        grant("hook", "hooks", "use = \"reveal\""),
        grant("records", "salesforce", ""),
        "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"*\"]\nrequest = [{ origin = \"https://weather.example\" }]\n".to_owned(),
    ];
    let yes = allowed(&open);
    for part in [
        "route POST https://gmail.example/send",
        "inject records POST https://acme.my.sf.example/x",
        "reveal hook None",
        "route POST https://weather.example/",
        "link reveal",
    ] {
        assert!(yes.iter().any(|question| question.contains(part)), "{part}");
    }
}
