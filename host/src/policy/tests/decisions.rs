use std::time::Duration;

use super::super::{DenialCode, EffectiveLimits, Linked, Purpose, Rates, Route, Use};
use super::*;
use crate::clock::ManualClock;
use crate::id::Owner;

const SEND: &str = "scopes = [\"mail.send\"]";

#[test]
fn nothing_is_granted_by_default() {
    let effective = effective("", "alice");
    let denied: Vec<_> = effective.denied_services().map(|denial| denial.code).collect();
    assert_eq!(denied, [DenialCode::ServiceNotGranted]);
    assert_eq!(effective.required().count(), 0);
    let denial = effective.route(&post("https://gmail.example/send"), &BTreeMap::new()).unwrap_err();
    assert_eq!(denial.code, DenialCode::ServiceNotGranted);
    let denial = effective.route(&post("https://weather.example/"), &BTreeMap::new()).unwrap_err();
    assert_eq!(denial.code, DenialCode::RequestNotGranted);
}

#[test]
fn a_declared_and_granted_request_gets_a_permit_that_names_its_rule() {
    let effective = effective(&gmail(SEND), "alice");
    let target = post("https://gmail.example/send");
    let Ok(Route::Service { service, rule }) = effective.route(&target, &BTreeMap::new()) else { panic!() };
    assert_eq!((service.as_str(), rule.to_string()), ("gmail", "permissions.toml:1".to_owned()));
    let permit = effective.permit_inject(&service, &target, Some(&account("work")), None, now()).unwrap();
    assert_eq!(permit.owner(), &Owner::User("alice".parse().unwrap()));
    assert_eq!(permit.provider().as_str(), "google");
    assert_eq!(permit.account(), Some(&account("work")));
    assert_eq!(permit.purpose(), &Purpose::Inject { origin: origin("https://gmail.example") });
    assert_eq!(permit.scopes().iter().map(ToString::to_string).collect::<Vec<_>>(), ["mail.send"]);
    assert_eq!(permit.rule(), &rule);
}

#[test]
fn method_and_path_must_be_declared_too() {
    let effective = effective(&gmail(SEND), "alice");
    for uri in ["https://gmail.example/", "https://gmail.example/send/x", "https://gmail.example/drafts/a/b"] {
        let denial = effective.permit_inject(&name("gmail"), &post(uri), None, None, now()).unwrap_err();
        assert_eq!(denial.code, DenialCode::RequestNotGranted, "{uri}");
    }
    let get = Target::parse(&Method::GET, &"https://gmail.example/send".parse().unwrap()).unwrap();
    assert!(effective.permit_inject(&name("gmail"), &get, None, None, now()).is_err());
}

#[test]
fn a_grant_is_for_its_users_and_clients_only() {
    assert!(effective(&gmail(SEND), "alice").service(&name("gmail")).is_ok());
    assert!(effective(&gmail(SEND), "bob").service(&name("gmail")).is_err());
    let other_client = gmail(&format!("{SEND}\nclients = [\"ci-*\"]"));
    assert!(effective(&other_client, "alice").service(&name("gmail")).is_err());
}

#[test]
fn a_manifest_that_names_its_own_origin_gets_nobodys_credential() {
    let evil = MAIL.replace("https://gmail.example", "https://evil.example");
    let effective = effective_of(&evil, &gmail(SEND), "alice");
    let denial = effective.route(&post("https://evil.example/send"), &BTreeMap::new()).unwrap_err();
    assert_eq!(denial.code, DenialCode::RequestNotGranted);
    let denial =
        effective.permit_inject(&name("gmail"), &post("https://evil.example/send"), None, None, now()).unwrap_err();
    assert_eq!(denial.code, DenialCode::RequestNotGranted);
}

#[test]
fn a_manifest_that_rebinds_a_service_to_another_provider_gets_nothing() {
    let rebound = MAIL.replace("name = \"gmail\"\nprovider = \"google\"", "name = \"gmail\"\nprovider = \"other\"");
    let effective = effective_of(&rebound, &gmail(SEND), "alice");
    let denial = effective.service(&name("gmail")).unwrap_err();
    assert_eq!(denial.code, DenialCode::ServiceNotGranted);
    assert!(denial.message.contains("`google`") && denial.message.contains("`other`"), "{denial}");
}

#[test]
fn a_version_other_than_the_pinned_one_waits_for_approval() {
    let pinned = |digest: Digest| gmail(SEND).replace("approval = \"none\"", &format!("digest = \"{digest}\""));
    assert!(effective(&pinned(digest()), "alice").service(&name("gmail")).is_ok());
    let denial = effective(&pinned(Digest::of(b"another")), "alice").service(&name("gmail")).unwrap_err().clone();
    assert_eq!(denial.code, DenialCode::ApprovalPending);
    assert_eq!(denial.allow[0].lines, format!("digest = \"{}\"\n", digest()));
}

#[test]
fn a_grant_holds_through_the_day_on_which_it_expires() {
    let text = gmail(&format!("{SEND}\nexpires = 2027-06-30"));
    let effective = effective(&text, "alice");
    let permit = |at: &str| {
        effective.permit_inject(&name("gmail"), &post("https://gmail.example/send"), None, None, at.parse().unwrap())
    };
    assert!(permit("2027-06-30T23:59:59Z").is_ok());
    assert_eq!(permit("2027-07-01T00:00:00Z").unwrap_err().code, DenialCode::Expired);
    let manifest = manifest(MAIL);
    let skill = Skill { manifest: &manifest, digest: digest() };
    let later = policy(&text).effective(&skill, &caller("alice"), "2027-07-01T00:00:00Z".parse().unwrap());
    assert_eq!(later.service(&name("gmail")).unwrap_err().code, DenialCode::Expired);
}

#[test]
fn a_forbid_beats_every_grant_and_says_why() {
    let text =
        format!("{}{}", gmail(SEND), "[[forbid]]\nusers = [\"ali*\"]\nprovider = \"google\"\nreason = \"not here\"\n");
    let denial = effective(&text, "alice").service(&name("gmail")).unwrap_err().clone();
    assert_eq!(denial.code, DenialCode::Forbidden);
    assert_eq!(denial.reason.as_deref(), Some("not here"));
    assert_eq!(denial.rule.unwrap().to_string(), "permissions.toml:8");
    let other = text.replace("ali*", "bob");
    assert!(effective(&other, "alice").service(&name("gmail")).is_ok());
}

#[test]
fn an_origin_can_be_forbidden_for_credentials_and_without() {
    let plain = "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"*\"]\nrequest = [{ origin = \"https://weather.example\" }]\n";
    let allowed = format!("{}{plain}", gmail(SEND));
    let forbidden = format!(
        "{allowed}[[forbid]]\norigin = \"https://*.example.com\"\n[[forbid]]\norigin = \"https://gmail.example\"\n[[forbid]]\norigin = \"https://weather.example\"\n"
    );
    for uri in ["https://gmail.example/send", "https://weather.example/"] {
        assert!(effective(&allowed, "alice").route(&post(uri), &BTreeMap::new()).is_ok());
        let denial = effective(&forbidden, "alice").route(&post(uri), &BTreeMap::new()).unwrap_err();
        assert_eq!(denial.code, DenialCode::Forbidden);
    }
}

#[test]
fn scopes_are_declared_and_granted_and_not_forbidden() {
    let ask = |text: &str, scopes: &[&str]| {
        let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
        effective(text, "alice").token("gmail", &scopes, None, None, now()).map_err(|denial| denial.code)
    };
    let both = gmail("scopes = [\"mail.send\", \"mail.read\", \"mail.all\"]");
    assert!(ask(&gmail(SEND), &[]).is_ok());
    assert!(ask(&gmail(SEND), &["mail.send"]).is_ok());
    assert_eq!(ask(&gmail(SEND), &["mail.read"]), Err(DenialCode::ScopeNotGranted));
    assert_eq!(ask(&both, &["mail.all"]), Err(DenialCode::ScopeNotGranted));
    assert!(ask(&both, &["mail.send", "mail.read"]).is_ok());
    let forbid = format!("{both}[[forbid]]\nscopes = [\"mail.read\"]\n");
    assert!(ask(&forbid, &["mail.send"]).is_ok());
    assert_eq!(ask(&forbid, &["mail.read"]), Err(DenialCode::ScopeNotGranted));
    assert_eq!(ask(&gmail("scopes = [\"mail.all\"]"), &[]), Err(DenialCode::ScopeNotGranted));
    assert_eq!(ask(&format!("{}[[forbid]]\nscopes = [\"mail.send\"]\n", gmail(SEND)), &[]), Err(DenialCode::Forbidden));
}

#[test]
fn two_grants_never_add_up_to_what_neither_gives() {
    let send = gmail(&format!("{SEND}\naccounts = [\"work\"]"));
    let read = gmail("scopes = [\"mail.read\"]\naccounts = [\"home\"]");
    let effective = effective(&format!("{send}{read}"), "alice");
    let ask = |scopes: &[&str], account| {
        let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
        effective.token("gmail", &scopes, account, None, now()).map_err(|denial| denial.code)
    };
    assert_eq!(ask(&["mail.send"], Some("work")).unwrap().rule.number(), 1);
    assert_eq!(ask(&["mail.read"], Some("home")).unwrap().rule.number(), 9);
    assert_eq!(ask(&["mail.send", "mail.read"], None), Err(DenialCode::ScopeNotGranted));
    assert_eq!(ask(&["mail.send"], Some("home")), Err(DenialCode::AccountNotGranted));
}

#[test]
fn an_account_that_the_grant_does_not_name_is_refused_and_the_first_is_the_default() {
    let effective = effective(&gmail(&format!("{SEND}\naccounts = [\"work\", \"club\"]")), "alice");
    let ask = |account| effective.token("gmail", &[], account, None, now());
    assert_eq!(ask(None).unwrap().accounts, [Some(account("work")), Some(account("club"))]);
    assert_eq!(ask(Some("club")).unwrap().accounts, [Some(account("club"))]);
    assert_eq!(ask(Some("home")).unwrap_err().code, DenialCode::AccountNotGranted);
    assert_eq!(ask(Some("no such/../account")).unwrap_err().code, DenialCode::AccountNotGranted);
    let free = super::effective(&gmail(SEND), "alice");
    assert_eq!(free.token("gmail", &[], None, None, now()).unwrap().accounts, [None]);
    assert_eq!(
        free.token("gmail", &[], Some("bad name"), None, now()).unwrap_err().code,
        DenialCode::AccountNotGranted
    );
}

#[test]
fn after_a_reveal_an_account_goes_where_its_own_grants_say_and_not_where_anothers_do() {
    let sign = "use = \"reveal\"\nreveal_with = [\"https://sign.example\"]\naccounts = [\"home\"]";
    let other = "use = \"reveal\"\naccounts = [\"work\"]\nexpires = 2027-06-30";
    let effective = effective(&format!("{}{}", grant("hook", "hooks", sign), grant("hook", "hooks", other)), "alice");
    let reach = |alias: &str, at| {
        let uris = ["https://hooks.example/x", "https://sign.example/x"];
        uris.map(|uri| effective.reveal_confinement(&name("hook"), Some(&account(alias)), &post(uri), None, at).is_ok())
    };
    assert_eq!(reach("home", now()), [true, true]);
    assert_eq!(reach("work", now()), [true, false]);
    assert_eq!(reach("club", now()), [false, false]);
    let later = "2027-07-01T00:00:00Z".parse().unwrap();
    assert_eq!((reach("home", later), reach("work", later)), ([true, true], [false, false]));
}

#[test]
fn of_several_grants_the_one_that_may_be_used_most_often_counts() {
    let target = post("https://gmail.example/send");
    let rate = |rates: &[&str]| {
        let grants: String = rates.iter().map(|rate| gmail(&format!("{SEND}\n{rate}"))).collect();
        let permit = effective(&grants, "alice").permit_inject(&name("gmail"), &target, None, None, now()).unwrap();
        permit.rate().map(|rate| rate.to_string())
    };
    let (minute, hour, day) = ("rate = \"1/min\"", "rate = \"30/h\"", "rate = \"1440/day\"");
    for (rates, expected) in [
        (vec![""], None),
        (vec![minute, ""], None),
        (vec![hour, ""], None),
        (vec![minute, hour], Some("1/min")),
        // As often in a day, and more at once.
        (vec![minute, day, hour], Some("1440/day")),
    ] {
        assert_eq!(rate(&rates).as_deref(), expected, "{rates:?}");
        let turned: Vec<_> = rates.iter().rev().copied().collect();
        assert_eq!(rate(&turned).as_deref(), expected, "{turned:?}");
    }
}

#[test]
fn an_audience_must_be_named_by_the_grant() {
    let with = effective(&gmail(&format!("{SEND}\naudiences = [\"https://a.example\"]")), "alice");
    assert!(with.token("gmail", &[], None, Some("https://a.example"), now()).is_ok());
    let without = effective(&gmail(SEND), "alice");
    let denial = without.token("gmail", &[], None, Some("https://a.example"), now()).unwrap_err();
    assert_eq!(denial.code, DenialCode::AudienceNotGranted);
}

#[test]
fn a_service_that_the_manifest_does_not_declare_is_undeclared_whatever_is_granted() {
    let text = gmail(SEND).replace("\"gmail\"", "\"calendar\"");
    let denial = effective(&text, "alice").token("calendar", &[], None, None, now()).unwrap_err();
    assert_eq!(denial.code, DenialCode::Undeclared);
    let hostile = effective("", "alice").token(&"\u{1b}[2J".repeat(1000), &[], None, None, now()).unwrap_err();
    assert!(hostile.message.len() < 1200 && !hostile.message.contains('\u{1b}'));
}

#[test]
fn reveal_is_declared_and_granted_or_it_is_not_even_linked() {
    let inject = grant("hook", "hooks", "");
    let reveal = grant("hook", "hooks", "use = \"reveal\"");
    let forbidden = format!("{reveal}[[forbid]]\nuse = \"reveal\"\n");
    let check = |text: &str| {
        let effective = effective(text, "alice");
        (
            effective.linked().reveal,
            effective.permit_reveal(&name("hook"), None, now()).map(drop).map_err(|denial| denial.code),
        )
    };
    assert_eq!(check(&inject), (false, Err(DenialCode::RevealNotGranted)));
    assert_eq!(check(&reveal), (true, Ok(())));
    assert_eq!(check(&forbidden), (false, Err(DenialCode::Forbidden)));
    let undeclared = effective(&gmail(&format!("{SEND}\nuse = \"reveal\"")), "alice");
    assert!(!undeclared.linked().reveal);
    assert_eq!(undeclared.permit_reveal(&name("gmail"), None, now()).unwrap_err().code, DenialCode::RevealNotGranted);
    assert_eq!(undeclared.service(&name("gmail")).unwrap().use_, Use::Inject);
}

#[test]
fn a_token_that_may_no_longer_be_seen_goes_nowhere_with_who_has_seen_it() {
    let reveal = grant("hook", "hooks", "use = \"reveal\"");
    let forbid = "[[forbid]]\nuse = \"reveal\"\n";
    for (rules, expected) in [
        (reveal.clone(), true),
        (grant("hook", "hooks", "use = \"inject\""), false),
        (format!("{reveal}{forbid}"), false),
    ] {
        let effective = effective(&rules, "alice");
        let confined = effective.reveal_confinement(&name("hook"), None, &post("https://hooks.example/x"), None, now());
        assert_eq!(confined.is_ok(), expected, "{rules}");
    }
}

#[test]
fn after_a_reveal_only_the_service_and_what_the_grant_names_can_be_reached() {
    let plain = "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"*\"]\nrequest = [{ origin = \"https://weather.example\" }]\n";
    let reveal = grant("hook", "hooks", "use = \"reveal\"\nreveal_with = [\"https://sign.example\"]");
    let effective = effective(&format!("{reveal}{plain}"), "alice");
    let reach = |uri: &str| effective.reveal_confinement(&name("hook"), None, &post(uri), None, now()).is_ok();
    assert!(reach("https://hooks.example/x"));
    assert!(reach("https://sign.example/x"));
    assert!(effective.route(&post("https://weather.example/"), &BTreeMap::new()).is_ok());
    assert!(!reach("https://weather.example/"));
}

#[test]
fn a_placeholder_service_is_not_chosen_by_destination() {
    let effective = effective(&grant("sdk", "google", ""), "alice");
    let get = Target::parse(&Method::GET, &"https://gmail.example/x".parse().unwrap()).unwrap();
    assert!(effective.route(&get, &BTreeMap::new()).is_err());
    assert!(effective.permit_inject(&name("sdk"), &get, None, None, now()).is_ok());
    let evil = post("https://evil.example/");
    assert_eq!(
        effective.permit_inject(&name("sdk"), &evil, None, None, now()).unwrap_err().code,
        DenialCode::RequestNotGranted
    );
}

#[test]
fn a_connections_own_origin_counts_only_where_the_catalogue_admits_it() {
    let effective = effective(&grant("records", "salesforce", ""), "alice");
    let route = |uri: &str, api: &str| {
        let known = BTreeMap::from([(name("records"), origin(api))]);
        effective.route(&post(uri), &known).map_err(|denial| denial.code)
    };
    assert!(route("https://acme.my.sf.example/x", "https://acme.my.sf.example").is_ok());
    assert!(route("https://acme.my.sf.example/x", "https://other.my.sf.example").is_err());
    assert_eq!(route("https://evil.example/x", "https://evil.example"), Err(DenialCode::RequestNotGranted));
    let api = origin("https://evil.example");
    let denial = effective.permit_inject(&name("records"), &post("https://evil.example/x"), None, Some(&api), now());
    assert_eq!(denial.unwrap_err().code, DenialCode::RequestNotGranted);
}

#[test]
fn a_grants_requests_narrow_the_manifests_and_never_widen_them() {
    let narrow =
        gmail(&format!("{SEND}\nrequest = [{{ origin = \"https://gmail.example\", paths = [\"/send\", \"/all\"] }}]"));
    let effective = effective(&narrow, "alice");
    let reach = |uri: &str| effective.permit_inject(&name("gmail"), &post(uri), None, None, now()).is_ok();
    assert!(reach("https://gmail.example/send"));
    assert!(!reach("https://gmail.example/drafts/1"));
    assert!(!reach("https://gmail.example/all"));
}

#[test]
fn a_request_that_a_declared_service_claims_never_leaves_without_its_grant() {
    let manifest = format!("{MAIL}\n");
    let manifest = manifest.replace("origin = \"https://weather.example\"", "origin = \"https://gmail.example\"");
    let plain = "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"*\"]\nrequest = [{ origin = \"https://gmail.example\" }]\n";
    let effective = effective_of(&manifest, plain, "alice");
    let denial = effective.route(&post("https://gmail.example/send"), &BTreeMap::new()).unwrap_err();
    assert_eq!(denial.code, DenialCode::ServiceNotGranted);
    assert!(matches!(effective.route(&post("https://gmail.example/else"), &BTreeMap::new()), Ok(Route::Plain { .. })));
}

#[test]
fn a_request_that_two_services_claim_is_refused() {
    let text = format!("{}{}", gmail(SEND), grant("records", "salesforce", ""));
    let known = BTreeMap::from([(name("records"), origin("https://gmail.example"))]);
    let denial = effective(&text, "alice").route(&post("https://gmail.example/send"), &known).unwrap_err();
    assert_eq!(denial.code, DenialCode::Ambiguous);
}

#[test]
fn origins_without_a_credential_are_declared_and_granted() {
    let plain = "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"alice\"]\nrequest = [{ origin = \"https://*.cdn.example\", methods = [\"POST\"] }, { origin = \"https://undeclared.example\" }]\n";
    let effective = effective(plain, "alice");
    let reach = |uri: &str| effective.route(&post(uri), &BTreeMap::new()).map_err(|denial| denial.code);
    assert!(matches!(reach("https://a.cdn.example/x"), Ok(Route::Plain { rule }) if rule.number() == 1));
    assert_eq!(reach("https://weather.example/"), Err(DenialCode::RequestNotGranted));
    assert_eq!(reach("https://undeclared.example/"), Err(DenialCode::RequestNotGranted));
    assert!(super::effective(plain, "bob").route(&post("https://a.cdn.example/x"), &BTreeMap::new()).is_err());
}

#[test]
fn an_address_literal_is_reached_only_where_the_grant_wrote_it() {
    let manifest = MAIL.replace("https://weather.example", "https://10.1.2.3:8443");
    let ask = |grant: &str| {
        effective_of(&manifest, grant, "alice").route(&post("https://10.1.2.3:8443/"), &BTreeMap::new()).is_ok()
    };
    assert!(!ask(""));
    assert!(ask(
        "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"*\"]\nrequest = [{ origin = \"https://10.1.2.3:8443\" }]\n"
    ));
}

#[test]
fn the_agents_own_connection_is_used_only_where_the_grant_says_so() {
    let effective = effective(&gmail(&format!("{SEND}\nas = \"agent\"")), "alice");
    assert_eq!(effective.service(&name("gmail")).unwrap().owner, Owner::Agent);
    let permit =
        effective.permit_inject(&name("gmail"), &post("https://gmail.example/send"), None, None, now()).unwrap();
    assert_eq!(permit.owner(), &Owner::Agent);
    assert_eq!(permit.caller().user.as_str(), "alice");
}

#[test]
fn a_provider_that_the_catalogue_does_not_have_is_refused() {
    let manifest = MAIL.replace("\"hooks\"", "\"nowhere\"");
    let denial =
        effective_of(&manifest, &grant("hook", "nowhere", ""), "alice").service(&name("hook")).unwrap_err().clone();
    assert!(denial.message.contains("catalogue"), "{denial}");
}

#[test]
fn a_message_for_the_skill_names_neither_the_user_nor_the_operators_files() {
    let texts = ["", "[[forbid]]\nusers = [\"wilhelmina\"]\n"].map(str::to_owned);
    let expired = gmail(&format!("{SEND}\nexpires = 2020-01-01")).replace("alice", "wilhelmina");
    for text in texts.into_iter().chain([expired]) {
        let effective = effective(&text, "wilhelmina");
        let route = effective.route(&post("https://gmail.example/send"), &BTreeMap::new()).unwrap_err();
        let plain = effective.route(&post("https://weather.example/"), &BTreeMap::new()).unwrap_err();
        for denial in effective.denied_services().chain([route, plain]) {
            let shown = denial.to_string();
            assert!(
                !shown.contains("wilhelmina") && !shown.contains("cli ") && !shown.contains("permissions.toml"),
                "{shown}"
            );
        }
    }
}

#[test]
fn the_same_question_under_the_same_policy_has_the_same_explanation() {
    let ask = |text: &str, user: &str| effective(text, user).service(&name("gmail")).unwrap_err().id;
    assert_eq!(ask("", "alice"), ask("", "alice"));
    assert_ne!(ask("", "alice"), ask("", "bob"));
    assert_ne!(ask("", "alice"), ask("[[forbid]]\nusers = [\"eve\"]\n", "alice"));
}

#[test]
fn interfaces_are_linked_by_what_is_granted() {
    let none = effective_of("[skill]\nname = \"mail\"\nversion = \"1.0.0\"\ndescription = \"Nothing\"\n", "", "alice");
    assert_eq!(none.linked(), Linked { tokens: false, reveal: false, http: false });
    let only = "[skill]\nname = \"mail\"\nversion = \"1.0.0\"\ndescription = \"Send\"\n[[service]]\nname = \"gmail\"\nprovider = \"google\"\nrequest = [{ origin = \"https://gmail.example\" }]\n";
    assert!(!effective_of(only, "", "alice").linked().tokens);
    assert!(effective_of(only, &gmail(""), "alice").linked().tokens);
}

#[test]
fn a_rate_is_counted_by_user_and_grant_and_refills() {
    let text = gmail(&format!("{SEND}\nrate = \"3/min\"")).replace("\"alice\"", "\"*\"");
    let clock = ManualClock::at(now());
    let rates = Rates::new();
    let take = |user: &str| {
        let effective = effective(&text, user);
        let target = post("https://gmail.example/send");
        let permit = effective.permit_inject(&name("gmail"), &target, None, None, now()).unwrap();
        rates.take(&permit, &clock)
    };
    for _ in 0..3 {
        take("alice").unwrap();
    }
    let denial = take("alice").unwrap_err();
    assert_eq!((denial.code, denial.retry_after), (DenialCode::RateExceeded, Some(Duration::from_secs(20))));
    take("bob").unwrap();
    clock.advance(Duration::from_secs(20));
    take("alice").unwrap();
    assert!(take("alice").is_err());
    clock.advance(Duration::from_hours(1));
    for _ in 0..3 {
        take("alice").unwrap();
    }
    assert!(take("alice").is_err());
}

#[test]
fn the_operators_limits_win() {
    assert_eq!(
        effective("", "alice").limits(),
        EffectiveLimits { time: Duration::from_secs(5), ..EffectiveLimits::default() }
    );
    let strict = effective("[limits]\ntime = \"1s\"\nmemory = \"16MiB\"\n", "alice").limits();
    assert_eq!((strict.time, strict.memory), (Duration::from_secs(1), 16 << 20));
}

#[test]
fn the_hash_changes_with_the_permissions_and_with_the_catalogue() {
    let base = policy("");
    assert_eq!(base.hash(), policy("").hash());
    assert_ne!(base.hash(), policy(&gmail(SEND)).hash());
    assert_ne!(base.hash(), Policy::new(Permissions::default(), BTreeMap::new()).hash());
}

#[test]
fn several_files_are_taken_together() {
    let sources = [Source::new("a.toml", gmail(SEND)), Source::new("b.toml", "[[forbid]]\nservice = \"gmail\"\n")];
    let policy = Policy::new(Permissions::parse(&sources).unwrap(), facts());
    let manifest = manifest(MAIL);
    let effective = policy.effective(&Skill { manifest: &manifest, digest: digest() }, &caller("alice"), now());
    assert_eq!(effective.service(&name("gmail")).unwrap_err().rule.as_ref().unwrap().to_string(), "b.toml:1");
    let broken = [Source::new("a.toml", "[[grants]]"), Source::new("b.toml", "[[forbids]]")];
    assert_eq!(Permissions::parse(&broken).unwrap_err().len(), 2);
}
