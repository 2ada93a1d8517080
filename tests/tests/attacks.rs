//! What a skill must not get, tried by a guest that does what it is told, through the whole host and over real sockets.

#![expect(clippy::panic, reason = "a test ends where something is not as it should be")]

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use clawcoil::audit::{self, EventKind, Filter};
use clawcoil::host::{Host, InvokeError, Outcome};
use clawcoil::id::ExplanationId;
use clawcoil::policy::DenialCode;
use clawcoil::runtime::{CallError, End, LinkError, NotLinked};
use clawcoil_tests::{GuestAgent, Upstream};
use serde_json::{Value, json};

const TOKEN: &str = "attacked-token-canary-51xQ";
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A manifest whose service `github` goes to this provider and origin.
fn manifest(provider: &str, origin: &str, use_: &str) -> String {
    format!(
        "[skill]\nname = \"probe\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
         [[service]]\nname = \"github\"\nprovider = \"{provider}\"\nscopes = [\"repo\", \"gist\"]\nuse = \"{use_}\"\n\
         reason = \"to test\"\n[[service.request]]\norigin = \"{origin}\"\n"
    )
}

/// Lets the skill use the service at GitHub, by injection and with the scope `repo`; `more` may add to it.
fn granted(more: &str) -> String {
    format!(
        "[network]\nprivate = [\"127.0.0.0/8\"]\n[[grant]]\nskill = \"probe\"\napproval = \"none\"\nusers = [\"alice\"]\n\
         service = \"github\"\nprovider = \"github\"\nscopes = [\"repo\"]\nuse = \"inject\"\n{more}\n"
    )
}

/// GitHub, played by a server of the test.
fn stand_in(server: &Upstream) -> String {
    format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", server.origin())
}

fn fetch(url: &str) -> Value {
    json!({ "method": "GET", "url": url, "headers": [], "body": "" })
}

/// The guest's words for what was refused, and the only refusal's id, which stands in them and in the audit log.
fn refused(agent: &GuestAgent, outcome: Result<Outcome, InvokeError>) -> (String, DenialCode) {
    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    let End::ToolError(Value::String(words)) = outcome.end else { panic!("it got {:?}", outcome.end) };
    let [denial] = &outcome.denials[..] else { panic!("{words}: {:?}", outcome.denials) };
    assert!(words.contains(&denial.id.to_string()), "{words} does not name {}", denial.id);
    assert_explained(agent, denial.id);
    (words, denial.code)
}

fn assert_explained(agent: &GuestAgent, id: ExplanationId) {
    let entry = agent.explained(id);
    assert_eq!((entry.kind.as_str(), entry.decision.as_deref()), ("denied", Some("denied")), "{}", entry.json);
    assert_eq!(entry.skill.as_deref(), Some("probe"));
}

#[tokio::test]
async fn the_probe_reaches_what_is_granted_with_the_token_on_its_request() {
    let server = Upstream::plain().await;
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), &stand_in(&server), &[]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let outcome = agent.call("fetch", &fetch("https://api.github.com/user")).await.unwrap();
    assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    let bound = json!({
        "service": "github", "method": "POST", "url": "https://api.github.com/user", "body": "{}",
        "header": ["authorization", "Bearer {placeholder}"],
    });
    let outcome = agent.call("placeholder", &bound).await.unwrap();
    assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.authorization(), Some(format!("Bearer {TOKEN}").as_str()));
    }
}

#[tokio::test]
async fn a_manifest_that_names_its_own_origin_for_somebody_elses_credential_gets_nothing() {
    let thief = Upstream::plain().await;
    let origin = format!("https://thief.example:{}", thief.port());
    let manifest = manifest("github", &origin, "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), "", &[LOOPBACK]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let (_, code) = refused(&agent, agent.call("fetch", &fetch(&format!("{origin}/take"))).await);
    assert_eq!(code, DenialCode::RequestNotGranted);
    thief.assert_untouched().await;
}

#[tokio::test]
async fn only_an_operator_who_writes_an_origin_sends_a_credential_there() {
    let server = Upstream::plain().await;
    let origin = format!("https://other.example:{}", server.port());
    let manifest = manifest("github", &origin, "inject");
    let written = granted(&format!("request = [{{ origin = \"{origin}\" }}]"));
    let agent = GuestAgent::new("probe", &manifest, &written, "", &[LOOPBACK]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let outcome = agent.call("fetch", &fetch(&origin)).await.unwrap();
    // The server speaks no TLS: that it was dialled is what shows that the counter counts.
    assert!(matches!(outcome.end, End::ToolError(_)), "{:?}", outcome.end);
    assert!(outcome.denials.is_empty(), "{:?}", outcome.denials);
    assert!(server.accepted() > 0);
}

#[tokio::test]
async fn a_manifest_that_rebinds_a_granted_service_to_another_provider_gets_nothing() {
    let thief = Upstream::plain().await;
    let origin = format!("https://thief.example:{}", thief.port());
    let provider = format!("[provider.thief]\nname = \"Thief\"\nkind = \"api-key\"\napi-origins = [\"{origin}\"]\n");
    let manifest = manifest("thief", &origin, "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), &provider, &[LOOPBACK]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let denied = agent.call("fetch", &fetch(&format!("{origin}/take"))).await;
    let Err(InvokeError::Denied(denials)) = denied else { panic!("{denied:?}") };
    assert_eq!(denials.len(), 1);
    assert_eq!(denials[0].code, DenialCode::ServiceNotGranted);
    assert!(InvokeError::Denied(denials.clone()).to_string().contains(&denials[0].id.to_string()));
    assert_explained(&agent, denials[0].id);
    thief.assert_untouched().await;
}

#[tokio::test]
async fn a_placeholder_in_the_text_of_an_issue_gets_nothing() {
    let server = Upstream::plain().await;
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), &stand_in(&server), &[]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    for header in [Value::Null, json!(["authorization", "Bearer {placeholder}"])] {
        let issue = json!({
            "service": "github", "method": "POST", "url": "https://api.github.com/repos/octo/hello/issues",
            "body": "{\"title\":\"Broken\",\"body\":\"the token is {placeholder}\"}", "header": header,
        });
        refused(&agent, agent.call("placeholder", &issue).await);
    }
    server.assert_untouched().await;
}

#[tokio::test]
async fn a_component_that_imports_reveal_without_the_grant_is_refused_before_any_of_it_runs() {
    let manifest = manifest("github", "https://api.github.com", "reveal");
    let agent = GuestAgent::new("probe-reveal", &manifest, &granted(""), "", &[]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    // An `Outcome` would have come with what the guest printed, which it does first.
    let refused = agent.call("show", &json!({ "service": "github" })).await;
    let Err(InvokeError::Call(CallError::Link(LinkError::NotLinked { import, why }))) = refused else {
        panic!("{refused:?}")
    };
    assert!(import.starts_with("clawcoil:skill/reveal@"), "{import}");
    assert_eq!(why, NotLinked::RevealNotGranted);
}

#[tokio::test]
async fn an_undeclared_service_and_more_scopes_than_granted_are_typed_refusals() {
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), "", &[]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    for (service, scopes, kind, code) in [
        ("google", json!([]), "Undeclared(", DenialCode::Undeclared),
        ("github", json!(["gist"]), "ScopeNotGranted", DenialCode::ScopeNotGranted),
        ("github", json!(["repo", "admin:org"]), "ScopeNotGranted", DenialCode::ScopeNotGranted),
    ] {
        let asked = json!({ "service": service, "scopes": scopes, "account": null });
        let outcome = agent.call("ask", &asked).await.unwrap();
        let End::ToolError(Value::String(words)) = outcome.end else { panic!("it got {:?}", outcome.end) };
        assert!(words.contains(kind), "{words}");
        assert_eq!(outcome.denials.len(), 1, "{words}");
        assert_eq!(outcome.denials[0].code, code, "{words}");
        assert_explained(&agent, outcome.denials[0].id);
    }
}

#[tokio::test]
async fn no_spelling_of_an_address_reaches_a_private_one() {
    let server = Upstream::plain().await;
    let port = server.port();
    // Even the operator's own range opens no address that no rule names.
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), "", &[LOOPBACK]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    for authority in [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "017700000001",
        "0x7f000001",
        "0x7f.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "169.254.169.254",
        "metadata.google.internal",
        "api.github.com@127.0.0.1",
        "api.github.com%40127.0.0.1",
        "127.0.0.1%00.api.github.com",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{authority}:{port}/");
            let outcome = agent.call("fetch", &fetch(&url)).await.unwrap();
            let End::ToolError(Value::String(words)) = outcome.end else { panic!("{url}: {:?}", outcome.end) };
            match &outcome.denials[..] {
                // What is no authority at all does not get as far as the policy.
                [] => assert_eq!(words, "the host refused the authority of the request", "{url}"),
                [denial] => {
                    assert!(words.contains(&denial.id.to_string()), "{url}: {words}");
                    assert_explained(&agent, denial.id);
                }
                more => panic!("{url}: {more:?}"),
            }
        }
    }
    server.assert_untouched().await;
}

#[tokio::test]
async fn a_granted_name_that_resolves_to_a_private_address_is_not_dialled() {
    let server = Upstream::plain().await;
    let port = server.port();
    let manifest = format!(
        "{}[[request]]\norigin = \"https://*.rebound.example:{port}\"\n",
        manifest("github", "https://api.github.com", "inject")
    );
    let plain = format!(
        "{}[[grant]]\nskill = \"probe\"\napproval = \"none\"\nusers = [\"alice\"]\n\
         request = [{{ origin = \"https://*.rebound.example:{port}\" }}]\n",
        granted("")
    )
    .replace("[network]\nprivate = [\"127.0.0.0/8\"]\n", "");
    let public: IpAddr = "1.1.1.1".parse().unwrap();
    for addresses in [
        &["10.0.0.5".parse().unwrap()][..],
        &[LOOPBACK],
        &["::ffff:127.0.0.1".parse().unwrap()],
        &["169.254.169.254".parse().unwrap()],
        // One bad address is enough, whatever stands beside it.
        &[public, LOOPBACK],
    ] {
        let agent = GuestAgent::new("probe", &manifest, &plain, "", addresses).await;
        agent.connect("github", &["repo", "gist"], TOKEN).await;
        let outcome = agent.call("fetch", &fetch(&format!("https://a.rebound.example:{port}/"))).await.unwrap();
        let End::ToolError(Value::String(words)) = outcome.end else { panic!("{:?}", outcome.end) };
        assert!(words.contains("an address that may not be reached from here"), "{addresses:?}: {words}");
        for address in addresses {
            assert!(!words.contains(&address.to_string()), "the guest is told an address: {words}");
        }
    }
    server.assert_untouched().await;
}

#[tokio::test]
async fn a_grant_that_is_revoked_while_a_call_runs_holds_no_more_from_its_next_request() {
    let host: Arc<OnceLock<Arc<Host>>> = Arc::default();
    let server = Upstream::start({
        let host = Arc::clone(&host);
        move |_| {
            let host = host.get().unwrap();
            std::fs::write(host.home().permissions(), "").unwrap();
            host.reload_policy().unwrap();
            (200, "{}".to_owned())
        }
    })
    .await;
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), &stand_in(&server), &[]).await;
    assert!(host.set(Arc::clone(&agent.host)).is_ok());
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let outcome =
        agent.call("fetch-twice", &json!({ "method": "GET", "url": "https://api.github.com/user" })).await.unwrap();
    let End::Value(Value::Array(answers)) = outcome.end else { panic!("{:?}", outcome.end) };
    let words: Vec<_> = answers.iter().map(ToString::to_string).collect();
    assert_eq!(server.requests().len(), 1, "{words:?}");
    assert!(words[0].contains("200"), "{words:?}");
    assert_eq!(outcome.denials.len(), 1, "{words:?}");
    assert!(words[1].contains(&outcome.denials[0].id.to_string()), "{words:?}");
    assert_explained(&agent, outcome.denials[0].id);
}

#[tokio::test]
async fn a_disconnect_by_another_host_holds_from_the_next_release() {
    let server = Upstream::plain().await;
    let manifest = manifest("github", "https://api.github.com", "inject");
    let agent = GuestAgent::new("probe", &manifest, &granted(""), &stand_in(&server), &[]).await;
    let id = agent.connect("github", &["repo", "gist"], TOKEN).await;
    let url = fetch("https://api.github.com/user");
    assert!(matches!(agent.call("fetch", &url).await.unwrap().end, End::Value(_)));
    let other = agent.another_host().await;
    other.connector().disconnect(id).await.unwrap();
    let refused = agent.call("fetch", &url).await;
    assert!(matches!(refused, Err(InvokeError::ActionRequired(_))), "{refused:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_skill_that_is_refused_without_end_writes_a_bounded_number_of_entries() {
    let manifest = manifest("github", "https://api.github.com", "reveal");
    // The guest's other attacks need it.
    let granted = granted("").replace("inject", "reveal");
    let agent = GuestAgent::new("attacks", &manifest, &granted, "", &[]).await;
    agent.connect("github", &["repo", "gist"], TOKEN).await;
    let outcome = agent.call("flood-requests", &json!({ "count": 1500 })).await.unwrap();
    assert_eq!(outcome.end, End::Value(json!(0)));
    let log = |kind| {
        let filter = Filter { kind: Some(kind), ..Filter::default() };
        audit::read(&agent.host.home().audit(), &agent.host.vault().audit_key(), &filter).unwrap()
    };
    let denied = log(EventKind::Denied);
    assert_eq!(denied.len(), 101);
    let last: Value = serde_json::from_str(&denied[100].json).unwrap();
    assert_eq!(
        last["detail"],
        "1400 more refusals of this call have no entry of their own: 1400 request-not-granted to https://api.test"
    );
    assert_eq!((&last["decision"], &last["invocation"]), (&json!("denied"), &json!(outcome.invocation.to_string())));
    // The call's own entry is the last word on it.
    assert!(log(EventKind::Invoked)[0].seq > denied[100].seq);
}

#[test]
fn every_guest_and_each_of_its_functions_is_named_in_a_test() {
    let root = clawcoil_tests::skills::root();
    let mut tests = String::new();
    for folder in ["tests/tests", "cli/tests", "host/src/runtime/tests", "host/benches/hot"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut guests = 0;
    for entry in std::fs::read_dir(root.join("tests/guests")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("Cargo.toml").is_file() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Ok(wit) = std::fs::read_to_string(path.join("wit/world.wit")) else {
                // No skill: a component that another host runs beside ours.
                let load = std::fs::read_to_string(root.join("xtask/src/prove/load/servers.rs")).unwrap();
                assert!(load.contains(&format!("/{name}.wasm\"")), "nothing runs {name}");
                continue;
            };
            assert!(tests.contains(&format!("\"{name}\"")), "no test names the guest {name}");
            let functions: Vec<_> = wit
                .lines()
                .filter_map(|line| Some(line.trim().split_once(": func(")?.0.trim_start_matches('%')))
                .collect();
            assert!(!functions.is_empty(), "{name} exports nothing");
            for function in functions {
                // Agents see a tool's name without hyphens.
                let named = [function.to_owned(), function.replace('-', "_")];
                let named = named.iter().any(|name| tests.contains(&format!("\"{name}\"")));
                assert!(named, "no test names {function} of the guest {name}");
            }
            guests += 1;
        }
    }
    assert!(guests >= 4, "{guests} guests were found");
}
