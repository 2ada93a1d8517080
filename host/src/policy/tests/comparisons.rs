use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Comparison, Side};
use super::properties::{a_forbid, allowed, rules};
use super::*;

fn compare_versions(old: (&str, &str), new: (&str, &str)) -> Comparison {
    let (was, is) = (manifest(old.0), manifest(new.0));
    let (before, after) = (policy(old.1), policy(new.1));
    Comparison::between(
        Side { policy: &before, skills: &[Skill { manifest: &was, digest: digest() }] },
        Side { policy: &after, skills: &[Skill { manifest: &is, digest: digest() }] },
        now(),
    )
}

fn compare(old: &str, new: &str) -> Comparison {
    compare_versions((MAIL, old), (MAIL, new))
}

fn for_whom(more: &str, users: &str, clients: &str) -> String {
    gmail(more).replace("users = [\"alice\"]", &format!("users = {users}\n{clients}"))
}

const SEND: &str = "scopes = [\"mail.send\"]";

#[test]
fn what_a_new_grant_gives_is_said_in_full() {
    let text = compare("", &gmail(SEND)).to_string();
    let expected = "allows more:\n  mail, service gmail, for alice\n    scope mail.send\n    POST https://gmail.example/drafts/*, /send";
    assert_eq!(text, expected);
    let text = compare(&gmail(SEND), "").to_string();
    assert_eq!(text, expected.replace("more", "less"));
}

#[test]
fn each_thing_that_a_change_gives_is_named_and_nothing_else() {
    let both = "scopes = [\"mail.send\", \"mail.read\"]";
    let accounts = |list: &str| format!("{SEND}\naccounts = {list}");
    let one = |old: &str, new: &str| {
        let found = compare(old, new);
        assert!(found.less.is_empty() && !found.incomplete, "{found}");
        let [reach] = &*found.more else { panic!("{found}") };
        (reach.users.join(" "), reach.clients.join(" "), reach.what.join("; "))
    };
    let says = |users: &str, clients: &str, what: &str| (users.to_owned(), clients.to_owned(), what.to_owned());
    assert_eq!(one(&gmail(SEND), &gmail(both)), says("alice", "", "scope mail.read"));
    assert_eq!(
        one(&gmail(&accounts("[\"work\"]")), &gmail(&accounts("[\"work\", \"home\"]"))),
        says("alice", "", "account home")
    );
}

#[test]
fn where_the_token_of_another_account_may_go_after_a_reveal_is_compared_by_account() {
    let hook = |account: &str, more: &str| {
        grant("hook", "hooks", &format!("use = \"reveal\"\naccounts = [\"{account}\"]\n{more}"))
    };
    let sign = "reveal_with = [\"https://sign.example\"]";
    let old = format!("{}{}", hook("home", sign), hook("work", ""));
    let new = format!("{}{}", hook("home", sign), hook("work", sign));
    let found = compare(&old, &new);
    let said = "requests to https://sign.example after the skill has seen the token, with account work";
    assert_eq!(found.more[0].what, [said]);
    assert!(found.less.is_empty() && compare(&new, &old).more.is_empty());

    // That requests of another account go there says nothing of this token.
    let wide = MAIL
        .replace("\"https://hooks.example\" }", "\"https://hooks.example\" }, { origin = \"https://sign.example\" }");
    let request = "request = [{ origin = \"https://hooks.example\" }, { origin = \"https://sign.example\" }]";
    let (old, new) = (
        format!("{}{}", hook("home", request), hook("work", "")),
        format!("{}{}", hook("home", request), hook("work", sign)),
    );
    assert_eq!(compare_versions((&wide, &old), (&wide, &new)).more[0].what, [said]);
}

#[test]
fn what_a_reveal_opens_is_said_also_where_some_of_it_was_open() {
    // Requests go there only with the connection that has its API there.
    let reveals =
        MAIL.replace("provider = \"salesforce\"", "provider = \"salesforce\"\nuse = \"reveal\"\nreason = \"to sign\"");
    let records = |more: &str| grant("records", "salesforce", &format!("use = \"reveal\"\n{more}"));
    let (old, new) = (records(""), records("reveal_with = [\"https://else.my.sf.example\"]"));
    let said = |place: &str| format!("requests to https://{place} after the skill has seen the token");
    assert_eq!(compare_versions((&reveals, &old), (&reveals, &new)).more[0].what, [said("else.my.sf.example")]);

    let hook = |more: &str| {
        let request = "request = [{ origin = \"https://hooks.example\", methods = [\"GET\"], paths = [\"/mine\"] }]";
        grant("hook", "hooks", &format!("use = \"reveal\"\n{request}\n{more}"))
    };
    let found = compare(&hook(""), &hook("reveal_with = [\"https://hooks.example\"]"));
    assert_eq!(found.more[0].what, [said("hooks.example")]);
}

#[test]
fn where_no_token_is_revealed_nothing_is_said_of_what_follows_a_reveal() {
    let sends = |paths: &str| {
        let request =
            format!("request = [{{ origin = \"https://gmail.example\", methods = [\"POST\"], paths = [{paths}] }}]");
        for_whom(&format!("{SEND}\n{request}"), "[\"*\"]", "")
    };
    let forbid = "[[forbid]]\nusers = [\"contractor-*\"]\norigin = \"https://gmail.example\"\n";
    let (old, new) = (sends("\"/send\""), sends("\"/send\", \"/drafts/*\""));
    let found = compare(&format!("{old}{forbid}"), &format!("{new}{forbid}"));
    assert_eq!((found.more.len(), &*found.more[0].what), (1, &["POST https://gmail.example/drafts/*".to_owned()][..]));

    // The manifest does not ask for the token itself.
    let reveals = |more: &str| gmail(&format!("{SEND}\nuse = \"reveal\"\n{more}"));
    let found = compare(&reveals(""), &reveals("reveal_with = [\"https://gmail.example\"]"));
    assert!(found.is_empty(), "{found}");
}

#[test]
fn a_rate_is_compared_by_what_it_lets_through() {
    let with = |rate: &str| gmail(&format!("{SEND}\n{rate}"));
    // As often in an hour, and more at once.
    assert_eq!(compare(&with("rate = \"1/min\""), &with("rate = \"60/h\"")).more[0].what, ["up to 60/h"]);
    assert_eq!(compare(&with("rate = \"1/min\""), &with("rate = \"61/h\"")).more[0].what, ["up to 61/h"]);
    assert_eq!(compare(&with("rate = \"1/min\""), &with("")).more[0].what, ["as often as wanted"]);
    assert_eq!(compare(&with(""), &with("rate = \"1/min\"")).less[0].what, ["as often as wanted"]);
}

#[test]
fn users_and_programs_are_told_by_the_patterns_of_the_rules() {
    let old = for_whom(SEND, "[\"alice\", \"team:*\"]", "clients = [\"cli\"]\n");
    let new = for_whom(SEND, "[\"*\"]", "clients = [\"cli\"]\n");
    let found = compare(&old, &new);
    assert_eq!(
        (&*found.more[0].users, &*found.more[0].clients),
        (&["everybody else".to_owned()][..], &["cli".to_owned()][..])
    );
    let forbid = "[[forbid]]\nusers = [\"team:sales/*\"]\nprovider = \"google\"\n";
    let found = compare(&new, &format!("{new}{forbid}"));
    assert!(found.more.is_empty());
    assert_eq!(found.less[0].users, ["team:sales/*"]);
}

#[test]
fn a_grant_that_ends_later_gives_more_from_then_on() {
    let with = |day: &str| gmail(&format!("{SEND}\nexpires = {day}"));
    let found = compare(&with("2027-06-30"), &with("2027-12-31"));
    assert!(found.less.is_empty());
    let text = found.to_string();
    assert!(text.contains("for alice, from 2027-07-01T00:00:00Z on\n    scope mail.send"), "{text}");
}

#[test]
fn what_a_new_version_of_a_skill_would_get_is_a_difference_too() {
    let wide = gmail("scopes = [\"mail.send\", \"mail.read\"]");
    let before = MAIL.replace("scopes = [\"mail.send\", \"mail.read\"]", "scopes = [\"mail.send\"]");
    let found = compare_versions((&before, &wide), (MAIL, &wide));
    assert_eq!(found.more[0].what, ["scope mail.read"], "{found}");
    assert!(found.less.is_empty());
}

#[test]
fn addresses_limits_and_skills_that_nobody_knows_are_told() {
    let found =
        compare("[limits]\ntime = \"3s\"\n", "[network]\nprivate = [\"10.1.0.0/16\"]\n[limits]\ntime = \"9s\"\n");
    let text = found.to_string();
    assert!(text.contains("all skills, for everybody\n    addresses in 10.1.0.0/16"), "{text}");
    assert!(text.contains("time up to 5s"), "the skill wishes for no more: {text}");
    let found = compare("", &gmail(SEND).replace("\"mail\"", "\"chat\""));
    assert!(found.is_empty() && found.to_string().contains("Skill chat is not installed"), "{found}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(10)))]

    /// The questions of the other properties were written without regard to how a comparison asks.
    #[test]
    fn where_a_comparison_finds_nothing_all_decisions_are_equal(old in rules(), which: Index, other in rules()) {
        let mut fewer = old.clone();
        fewer.remove(which.index(old.len()));
        for new in [fewer, other] {
            let found = compare(&old.concat(), &new.concat());
            prop_assert!(!found.incomplete);
            let (had, has) = (allowed(&old), allowed(&new));
            if found.is_empty() {
                prop_assert_eq!(&had, &has);
            }
            if found.more.is_empty() {
                prop_assert!(has.is_subset(&had), "{:#?}", has.difference(&had).collect::<Vec<_>>());
            }
            if found.less.is_empty() {
                prop_assert!(had.is_subset(&has), "{:#?}", had.difference(&has).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_policy_allows_the_same_as_itself_whatever_the_order_and_what_one_gains_the_other_loses(
        (old, shuffled) in rules().prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())), new in rules()
    ) {
        prop_assert!(compare(&old.concat(), &shuffled.concat()).is_empty());
        let (there, back) = (compare(&old.concat(), &new.concat()), compare(&new.concat(), &old.concat()));
        prop_assert_eq!(there.more, back.less);
        prop_assert_eq!(there.less, back.more);
    }

    #[test]
    fn a_forbid_gives_nobody_more(rules in rules(), forbid in a_forbid()) {
        let after = [rules.clone(), vec![forbid]].concat();
        let found = compare(&rules.concat(), &after.concat());
        prop_assert!(found.more.is_empty(), "{}", found);
    }
}
