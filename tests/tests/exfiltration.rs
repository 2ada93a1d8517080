//! What a skill gets to see of a token that it was not given, whatever the server does, and where it can carry one.
//!
//! The guest disguises what it got before it returns it, so that the last look at a result can't hide what the guest had.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use clawcoil::policy::DenialCode;
use clawcoil::runtime::End;
use clawcoil_tests::{GuestAgent, Pieces, Seen, Upstream, canary};
use http::{Response, header};
use serde_json::{Value, json};

const TOKEN: &str = "exfiltrated+canary/51xQ=&\"tok";

fn manifest(name: &str, use_: &str, plain: &str) -> String {
    format!(
        "[skill]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
         [[service]]\nname = \"github\"\nprovider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\nreason = \"to test\"\n\
         [[service.request]]\norigin = \"https://api.github.com\"\n[[request]]\norigin = \"{plain}\"\n"
    )
}

/// An agent whose GitHub is played by `server`, and which may reach `plain` without a credential.
async fn agent(guest: &str, use_: &str, server: &Upstream, plain: &Upstream) -> GuestAgent {
    let plain = plain.origin();
    let permissions = format!(
        "[[grant]]\nskill = \"{guest}\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"github\"\n\
         provider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\n\
         [[grant]]\nskill = \"{guest}\"\napproval = \"none\"\nusers = [\"alice\"]\nrequest = [{{ origin = \"{plain}\" }}]\n"
    );
    let stand_in = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", server.origin());
    let agent = GuestAgent::new(guest, &manifest(guest, use_, &plain), &permissions, &stand_in, &[]).await;
    agent.connect("github", &["repo"], TOKEN).await;
    agent
}

fn escaped(each: impl Fn(u8) -> String) -> String {
    TOKEN.bytes().map(each).collect()
}

/// Only what is no letter or digit.
fn escaped_where_needed(each: impl Fn(u8) -> String) -> String {
    escaped(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { each(byte) })
}

/// The ways in which a server may say a token back.
fn spellings() -> Vec<(&'static str, String)> {
    let mut spellings = vec![
        ("raw", TOKEN.to_owned()),
        ("rendered", format!("Bearer {TOKEN}")),
        ("url", escaped_where_needed(|byte| format!("%{byte:02X}"))),
        ("url, lower", escaped_where_needed(|byte| format!("%{byte:02x}"))),
        ("url, every byte", escaped(|byte| format!("%{byte:02X}"))),
        ("url, every byte, lower", escaped(|byte| format!("%{byte:02x}"))),
        ("json", serde_json::to_string(TOKEN).unwrap()),
        ("json, slashes", serde_json::to_string(TOKEN).unwrap().replace('/', "\\/")),
        ("json, every byte", escaped(|byte| format!("\\u{byte:04x}"))),
        ("json, every byte, upper", escaped(|byte| format!("\\u{byte:04X}"))),
        ("html", escaped_where_needed(|byte| format!("&#{byte};"))),
        ("html, hexadecimal", escaped_where_needed(|byte| format!("&#x{byte:02x};"))),
        ("javascript, every byte", escaped(|byte| format!("\\x{byte:02x}"))),
        ("html, every byte", escaped(|byte| format!("&#{byte};"))),
        ("html, every byte, hexadecimal", escaped(|byte| format!("&#x{byte:02x};"))),
        ("hexadecimal", hex::encode(TOKEN)),
        ("hexadecimal, upper", hex::encode_upper(TOKEN)),
        ("basic", STANDARD.encode(format!("x:{TOKEN}"))),
        ("basic, in json", STANDARD.encode(format!("x:{TOKEN}")).replace('/', "\\/").replace('+', "\\u002b")),
        ("basic, in a query", STANDARD.encode(format!("x:{TOKEN}")).replace('/', "%2F").replace('+', "%2B")),
    ];
    for (standard, url, before) in [
        ("base64, 0", "base64url, 0", ""),
        ("base64, 1", "base64url, 1", "{"),
        ("base64, 2", "base64url, 2", "{\""),
        ("base64, 3", "base64url, 3", "{\"a"),
    ] {
        let text = format!("{before}{TOKEN}\"}}");
        spellings.push((standard, STANDARD.encode(&text)));
        spellings.push((url, URL_SAFE_NO_PAD.encode(text)));
    }
    spellings
}

/// Says it back in a header and in the body, which comes in pieces of the size that the path ends with.
fn said_back(spelling: &str, path: &str) -> Pieces {
    let size: usize = path.rsplit('/').next().unwrap().parse().unwrap();
    let body = format!("before|{spelling}|after");
    let pieces = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
    Response::builder().header("x-echo", format!("before|{spelling}|after")).body(pieces).unwrap()
}

/// What the guest got, headers first, then an empty line and the body.
async fn got(agent: &GuestAgent, url: &str) -> Result<String, String> {
    let input = json!({ "method": "GET", "url": url, "headers": [] });
    match agent.call("fetch-disguised", &input).await.unwrap().end {
        End::Value(Value::String(text)) => {
            let bytes = hex::decode(text).unwrap().into_iter().map(|byte| !byte).collect();
            Ok(String::from_utf8(bytes).unwrap())
        }
        End::ToolError(Value::String(words)) => Err(words),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_says_the_token_back_in_any_spelling_and_any_pieces_does_not_tell_the_guest() {
    for (name, spelling) in spellings() {
        let server = Upstream::answering({
            let spelling = spelling.clone();
            move |request| said_back(&spelling, &request.path)
        })
        .await;
        let plain = Upstream::plain().await;
        let agent = agent("probe", "inject", &server, &plain).await;
        for size in [1, 2, 3, 7, 1000] {
            let answer = got(&agent, &format!("https://api.github.com/{size}")).await.unwrap();
            let place = format!("{name}, pieces of {size}: {answer}");
            assert_eq!(canary::find(answer.as_bytes(), TOKEN), None, "{place}");
            assert!(!answer.contains(&spelling), "{place}");
            let (head, body) = answer.split_once("\n\n").unwrap();
            let echo = head.lines().find_map(|line| line.strip_prefix("x-echo: ")).unwrap();
            for text in [echo, body] {
                // What stands around it stays as it was, and the length tells nothing.
                let inner = text.strip_prefix("before|").and_then(|text| text.strip_suffix("|after"));
                let inner = inner.unwrap_or_else(|| panic!("{place}"));
                assert_eq!(inner.len(), spelling.len(), "{place}");
                assert!(inner.contains("****"), "{place}");
            }
        }
        assert!(server.requests().iter().all(is_injected), "{name}: the token went out");
    }
}

fn is_injected(request: &Seen) -> bool {
    request.authorization() == Some(&format!("Bearer {TOKEN}"))
}

#[tokio::test]
async fn the_guests_own_credentials_are_replaced_by_the_hosts() {
    let (server, plain) = (Upstream::plain().await, Upstream::plain().await);
    let agent = agent("probe", "inject", &server, &plain).await;
    let own = [
        ["authorization", "Bearer attackers-own"],
        ["cookie", "session=attackers-own"],
        ["x-api-key", "attackers-own"],
    ];
    for headers in [json!(own), json!([own[0], own[0]]), json!([["Authorization", "token attackers-own"]])] {
        let url = "https://api.github.com/user";
        let input = json!({ "method": "GET", "url": url, "headers": headers, "body": "" });
        let outcome = agent.call("fetch", &input).await.unwrap();
        assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        let sent: Vec<_> = request.headers.get_all(header::AUTHORIZATION).iter().collect();
        assert_eq!(sent, [&format!("Bearer {TOKEN}")]);
        assert!(!format!("{:?}", request.headers).contains("attackers-own"), "{:?}", request.headers);
    }
    // This one is not even taken.
    let proxy = json!([["proxy-authorization", "Basic YXR0YWNrZXI6b3du"]]);
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": proxy, "body": "" });
    assert!(matches!(agent.call("fetch", &input).await.unwrap().end, End::ToolError(_)));
    assert_eq!(server.requests().len(), requests.len());
}

#[tokio::test]
async fn a_redirect_is_the_guests_to_see_and_nobodys_to_follow() {
    let thief = Upstream::plain().await;
    let server = Upstream::answering({
        let thief = thief.origin();
        move |request| {
            let status: u16 = request.path.trim_start_matches('/').parse().unwrap();
            let to = format!("{thief}/take?token={}", escaped_where_needed(|byte| format!("%{byte:02X}")));
            Response::builder().status(status).header(header::LOCATION, to).body(Vec::new()).unwrap()
        }
    })
    .await;
    let plain = Upstream::plain().await;
    let agent = agent("probe", "inject", &server, &plain).await;
    for status in [301, 302, 303, 307, 308] {
        let input =
            json!({ "method": "GET", "url": format!("https://api.github.com/{status}"), "headers": [], "body": "" });
        let End::Value(answer) = agent.call("fetch", &input).await.unwrap().end else {
            panic!("no answer to {status}")
        };
        assert_eq!(answer["status"], status);
        let seen = got(&agent, &format!("https://api.github.com/{status}")).await.unwrap();
        assert!(seen.contains(&format!("location: {}/take?token=***", thief.origin())), "{seen}");
        // Going there is another request, which nobody granted.
        let input = json!({ "method": "GET", "url": thief.origin(), "headers": [], "body": "" });
        let outcome = agent.call("fetch", &input).await.unwrap();
        assert_eq!(outcome.denials.len(), 1, "{:?}", outcome.end);
        assert_eq!(outcome.denials[0].code, DenialCode::RequestNotGranted);
    }
    thief.assert_untouched().await;
}

#[tokio::test]
async fn an_answer_brings_the_guest_no_session_and_no_way_to_sign_in() {
    let server = Upstream::answering(|_| {
        let answer = Response::builder()
            .header(header::SET_COOKIE, "session=of-the-server; HttpOnly")
            .header(header::SET_COOKIE, "second=of-the-server")
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"of-the-server\"")
            .header(header::PROXY_AUTHENTICATE, "Basic realm=\"of-the-server\"")
            .header("x-kept", "yes");
        answer.body(vec![Bytes::from_static(b"{}")]).unwrap()
    })
    .await;
    let plain = Upstream::plain().await;
    let agent = agent("probe", "inject", &server, &plain).await;
    let seen = got(&agent, "https://api.github.com/user").await.unwrap();
    assert!(seen.contains("x-kept: yes"), "{seen}");
    assert!(!seen.contains("of-the-server"), "{seen}");
}

#[tokio::test]
async fn a_compressed_answer_is_refused_where_a_credential_went_out_and_only_there() {
    let compressed = |_: &Seen| {
        let answer = Response::builder().header(header::CONTENT_ENCODING, "gzip");
        // An empty member (RFC 1952): what it holds does not matter.
        let gzip = [31, 139, 8, 0, 0, 0, 0, 0, 2, 255, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        answer.body(vec![Bytes::copy_from_slice(&gzip)]).unwrap()
    };
    let (server, plain) = (Upstream::answering(compressed).await, Upstream::answering(compressed).await);
    let agent = agent("probe", "inject", &server, &plain).await;
    let words = got(&agent, "https://api.github.com/user").await.unwrap_err();
    assert!(words.contains("Content-Encoding"), "{words}");
    let input = json!({ "method": "GET", "url": plain.origin(), "headers": [], "body": "" });
    let outcome = agent.call("fetch", &input).await.unwrap();
    assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    let asked = [server.requests(), plain.requests()].concat();
    assert_eq!(asked.len(), 2);
    for request in asked {
        assert_eq!(request.headers.get(header::ACCEPT_ENCODING).unwrap(), "identity");
    }
    assert_eq!(plain.requests()[0].authorization(), None);
}

#[tokio::test]
async fn a_placeholder_of_an_earlier_call_and_a_forged_one_get_nothing() {
    let (server, plain) = (Upstream::plain().await, Upstream::plain().await);
    let agent = agent("probe", "inject", &server, &plain).await;
    let End::Value(Value::String(earlier)) = agent.call("stand-in", &json!({ "service": "github" })).await.unwrap().end
    else {
        panic!("no placeholder was given")
    };
    let last = if earlier.ends_with('0') { '1' } else { '0' };
    let forged = format!("{}{last}", &earlier[..earlier.len() - 1]);
    for stand_in in [&earlier, &forged] {
        for url in ["https://api.github.com/user".to_owned(), format!("{}/take", plain.origin())] {
            for (header, body) in
                [(json!([["authorization", format!("Bearer {stand_in}")]]), ""), (json!([]), stand_in)]
            {
                let input = json!({ "method": "POST", "url": url, "headers": header, "body": body });
                let outcome = agent.call("fetch", &input).await.unwrap();
                let End::ToolError(Value::String(words)) = outcome.end else { panic!("{url}: {:?}", outcome.end) };
                assert_eq!(outcome.denials.len(), 1, "{url}: {words}");
                assert!(words.contains(&outcome.denials[0].id.to_string()), "{url}: {words}");
                assert_eq!(agent.explained(outcome.denials[0].id).kind, "denied");
            }
        }
    }
    assert!(server.requests().is_empty() && plain.requests().is_empty(), "a placeholder went out");
}

#[tokio::test]
async fn a_call_that_was_given_the_token_reaches_nothing_but_its_service() {
    let (server, plain) = (Upstream::plain().await, Upstream::plain().await);
    let agent = agent("probe-reveal", "reveal", &server, &plain).await;
    let between = |url: String| {
        let input = json!({ "service": "github", "url": url });
        let agent = &agent;
        async move { agent.call("show-between", &input).await.unwrap() }
    };
    let outcome = between(plain.origin()).await;
    let End::Value(Value::Array(ends)) = outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(ends[0], json!({ "ok": 200 }), "{ends:?}");
    assert_eq!(outcome.denials.len(), 1, "{ends:?}");
    let mut words = String::new();
    write!(words, "{}", ends[1]).unwrap();
    assert!(words.contains(&outcome.denials[0].id.to_string()), "{words}");
    assert_eq!(plain.requests().len(), 1, "the call went on after it had the token");

    let outcome = between("https://api.github.com/user".to_owned()).await;
    let End::Value(ends) = outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(ends, json!([{ "ok": 200 }, { "ok": 200 }]));
    let sent: Vec<_> = server.requests().iter().map(is_injected).collect();
    // Who has seen the token says how it goes.
    assert_eq!(sent, [true, false]);
}

#[tokio::test]
async fn a_revealed_token_is_blotted_out_of_result_and_log() {
    let (server, plain) = (Upstream::plain().await, Upstream::plain().await);
    let agent = agent("probe-reveal", "reveal", &server, &plain).await;
    let outcome = agent.call("show", &json!({ "service": "github" })).await.unwrap();
    assert!(outcome.logs.text.contains("started"), "{}", outcome.logs.text);
    let End::Value(Value::String(result)) = outcome.end else { panic!("{:?}", outcome.end) };
    for told in [result, outcome.logs.text] {
        assert_eq!(canary::find(told.as_bytes(), TOKEN), None, "{told}");
        assert!(told.contains("****"), "{told}");
    }
}
