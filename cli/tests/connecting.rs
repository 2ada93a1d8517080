//! Connecting accounts in a browser, against a real server and a real authorization server: a person is asked, and nobody
//! else can answer.
#![expect(clippy::similar_names, reason = "a stage has states")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use clawcoil_tests::http::send;
use clawcoil_tests::{Browser, Page};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use served::action;
use served::stage::Stage;

fn id(session: &Value) -> &str {
    session["id"].as_str().unwrap()
}

fn text(page: &Page) -> &str {
    page.answer.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_session_is_made_for_the_user_who_was_asked_and_for_nobody_else() {
    let stage = Stage::new().await;
    let session = stage.ask().await;
    let link = |user: &str, session: &str| {
        let made = served::run(&stage.home(), &["console", "--print", "--user", user, "--connect", session]);
        (made.status.code(), String::from_utf8(made.stderr).unwrap())
    };
    let (code, told) = link("bob", id(&session));
    assert!(code == Some(2) && told.contains("alice is asked to connect an account, not bob"), "{told}");
    for nothing in ["cs_nope", "../sign-in", "cs_a?b", ""] {
        let (code, told) = link("alice", nothing);
        assert!(code == Some(2) && told.contains("there is no such connect session"), "{nothing}: {told}");
    }
    assert_eq!(link("alice", id(&session)).0, Some(0));
    for role in ["--operator", "--auditor"] {
        let made = served::run(&stage.home(), &["console", "--print", role, "--connect", id(&session)]);
        assert_eq!(made.status.code(), Some(2), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_the_person_connects_and_then_the_skill_can_act() {
    let stage = Stage::new().await;
    assert_eq!(stage.call().await.status, StatusCode::CONFLICT, "no account is connected yet");
    let session = stage.ask().await;
    let mut alice = stage.signed_in(&["--user", "alice", "--connect", id(&session)]).await;

    // The page says who asks, for what, and what the skill can and can't do.
    let page = stage.open(&mut alice, &session).await;
    for words in [
        "bot",
        "gmail-send",
        "Send mail in your name",
        "POST only",
        "/gmail/v1/users/me/messages/send",
        "see the token",
    ] {
        assert!(text(&page).contains(words), "{words:?} is missing: {}", text(&page));
    }
    let page = alice.send(&page, &action(&session, "continue"), &[]).await;
    assert_eq!(stage.state(id(&session)).await["state"], "at-provider");
    let page = alice.consent_from(page, stage.provider.origin(), "alice@mail.example").await;

    // Until she has seen which account it was, nothing can use it.
    assert!(text(&page).contains("Is this your account?") && text(&page).contains("alice@mail.example"));
    assert_eq!(page.url.query(), None, "the provider's code does not stay in the address");
    let state = stage.state(id(&session)).await;
    assert_eq!(
        (&state["state"], &state["connection"]["account_label"]),
        (&json!("unconfirmed"), &json!("alice@mail.example"))
    );
    assert_eq!(stage.call().await.status, StatusCode::CONFLICT);

    let page = alice.send(&page, &action(&session, "confirm"), &[]).await;
    assert!(text(&page).contains("You can close this window"), "{}", text(&page));
    let state = stage.state(id(&session)).await;
    assert_eq!((&state["state"], &state["settled"]), (&json!("connected"), &json!(true)));
    let answer = stage.call().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(stage.provider.requests().await[0]["subject"], "alice@mail.example");
    let audit = stage.audit();
    for kind in ["signed-in", "connect-asked", "connect-opened", "connected", "confirmed", "released"] {
        assert!(audit.contains(&format!("\"{kind}\"")), "{kind} is missing: {audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_makes_one_session_and_its_answer_is_given_again() {
    let mut stage = Stage::new().await;
    let ask_as = async |stage: &Stage, token: &str, key: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
        send(Method::POST, &stage.served.at("/v1/connect-sessions"), &headers, body.to_string()).await
    };
    let ask = async |stage: &Stage, key: &str, body: &Value| ask_as(stage, &stage.token, key, body).await;
    let asked = |stage: &Stage| stage.audit().matches("\"connect-asked\"").count();
    let body = json!({ "provider": "google", "skill": "gmail-send" });
    let first = ask(&stage, "once", &body).await;
    assert_eq!((first.status, first.headers.get("idempotent-replayed")), (StatusCode::CREATED, None));
    for restarted in [false, true] {
        if restarted {
            stage.served = stage.served.killed_and_started_again();
        }
        let again = ask(&stage, "\"once\"", &body).await;
        assert_eq!((again.status, again.text()), (StatusCode::CREATED, first.text()));
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.headers[header::LOCATION], first.headers[header::LOCATION]);
        let other = ask(&stage, "once", &json!({ "provider": "google", "skill": "gmail-send", "account": "b" })).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text());
        assert_eq!(asked(&stage), 1);
    }

    // What has come of the session since changes no answer; it is asked for at its own address.
    let session = first.json();
    let decline = format!("/v1/connect-sessions/{}/decline", id(&session));
    assert_eq!(stage.served.api(Method::POST, &decline, &stage.token, &json!({})).await.status, StatusCode::OK);
    assert_eq!(ask(&stage, "once", &body).await.text(), first.text());
    assert_eq!(stage.state(id(&session)).await["state"], "declined");

    // Of another user, of another program, and for a call it is another key.
    for (client, user) in [("bot", "bob"), ("other", "alice")] {
        let token = served::token(&stage.home(), client, user, &["connect"]);
        let answer = ask_as(&stage, &token, "once", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        assert_ne!(answer.json()["id"], session["id"], "{client} {user}");
    }

    // Of many that come at once, one makes a session.
    let before = asked(&stage);
    let answers = futures_util::future::join_all((0..8).map(|_| ask(&stage, "at once", &body))).await;
    let ids: std::collections::BTreeSet<String> = answers.iter().map(|answer| id(&answer.json()).to_owned()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert!(asked(&stage) > before);

    // What was refused leaves its key free.
    let answer = ask(&stage, "free", &json!({ "provider": "nowhere" })).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
    assert_eq!(ask(&stage, "free", &body).await.status, StatusCode::CREATED);
    assert_eq!(ask(&stage, "\"open", &body).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_link_is_refused_and_nothing_is_begun() {
    let stage = Stage::new().await;
    let session = stage.ask().await;
    for who in [&["--user", "bob"][..], &["--operator"], &["--auditor"]] {
        let mut other = stage.signed_in(who).await;
        let page = stage.open(&mut other, &session).await;
        assert_eq!(page.answer.status, StatusCode::FORBIDDEN, "{who:?}");
        assert!(text(&page).contains("somebody else") && !text(&page).contains("alice"), "{}", text(&page));
        // Whoever makes the request by hand gets no further.
        let home = other.visit(stage.served.at("/")).await;
        let csrf = clawcoil_tests::Form::sent_to(text(&home), "/sign-out").unwrap().fields["csrf"].clone();
        for what in ["continue", "confirm", "decline"] {
            let url = stage.served.at(&action(&session, what));
            let cookies = other.cookies_for(&url);
            let origin = stage.served.origin.origin().ascii_serialization();
            let headers = [
                ("cookie", cookies.as_str()),
                ("origin", &origin),
                ("content-type", "application/x-www-form-urlencoded"),
            ];
            let answer = send(Method::POST, &url, &headers, format!("csrf={csrf}")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{who:?} {what}: {}", answer.text());
        }
    }
    // Who is not signed in has to be first.
    let page = stage.open(&mut Browser::new(), &session).await;
    assert_eq!(page.url.path(), "/sign-in");
    assert_eq!(stage.state(id(&session)).await["state"], "waiting");
    assert!(stage.provider.events_of("token").await.is_empty());
    assert!(stage.audit().contains("\"connect-refused\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_is_not_asked_again_by_the_same_link() {
    let stage = Stage::new().await;
    let session = stage.ask().await;
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    let asked = stage.open(&mut alice, &session).await;
    let page = alice.send(&asked, &action(&session, "decline"), &[]).await;
    assert!(text(&page).contains("Declined"), "{}", text(&page));
    assert_eq!(stage.state(id(&session)).await["state"], "declined");
    for what in ["continue", "decline"] {
        let page = alice.send(&asked, &action(&session, what), &[]).await;
        assert_eq!(page.answer.status, StatusCode::CONFLICT, "{what}");
    }
    assert!(stage.provider.events().await.is_empty(), "the provider was never asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_theirs_is_disconnected_here_and_at_the_provider() {
    let stage = Stage::new().await;
    let session = stage.ask().await;
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    let page = stage.consent(&mut alice, &session, "somebody@mail.example").await;
    let page = alice.send(&page, &action(&session, "decline"), &[]).await;
    assert!(text(&page).contains("Nothing was connected"), "{}", text(&page));
    assert_eq!(stage.state(id(&session)).await["state"], "declined");
    assert!(stage.agent.host.vault().connections(None).unwrap().is_empty());
    assert_eq!(stage.provider.events_of("grant-revoked").await.len(), 1);
    assert_eq!(stage.call().await.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_provider_counts_only_in_the_browser_in_which_it_was_asked_for() {
    let stage = Stage::new().await;
    let session = stage.ask().await;
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    let page = stage.open(&mut alice, &session).await;
    let page = alice.send(&page, &action(&session, "continue"), &[]).await;
    let back = stage.served.at("/callback/google");
    let answer = alice.consent(page.url, "alice@mail.example", &back).await;

    // Another browser of hers, somebody else's, and one in which nobody is signed in.
    for who in [&["--user", "alice"][..], &["--user", "bob"]] {
        let page = stage.signed_in(who).await.visit(answer.clone()).await;
        assert_eq!(page.answer.status, StatusCode::NOT_FOUND, "{}", text(&page));
    }
    assert_eq!(Browser::new().visit(answer.clone()).await.answer.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.state(id(&session)).await["state"], "at-provider");

    let page = alice.visit(answer.clone()).await;
    assert!(text(&page).contains("alice@mail.example"), "{}", text(&page));
    // It is good once.
    assert_eq!(alice.visit(answer).await.answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_forgets_no_session_and_no_sign_in() {
    let mut stage = Stage::new().await;
    let session = stage.ask().await;
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    stage.served = stage.served.killed_and_started_again();
    let page = stage.open(&mut alice, &session).await;
    let page = alice.send(&page, &action(&session, "continue"), &[]).await;
    stage.served = stage.served.killed_and_started_again();
    let page = alice.consent_from(page, stage.provider.origin(), "alice@mail.example").await;
    stage.served = stage.served.killed_and_started_again();
    alice.send(&page, &action(&session, "confirm"), &[]).await;
    assert_eq!(stage.state(id(&session)).await["state"], "connected");
    assert_eq!(stage.call().await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_knows_its_user_confirms_with_the_code_that_its_browser_brings_back() {
    let back = "http://127.0.0.1:9/connected";
    let stage = Stage::with(&format!("return_urls = [\"{back}\"]\n"), &["--listen", "127.0.0.1:0"]).await;
    let mut body = json!({ "provider": "google", "skill": "gmail-send", "return_url": "http://127.0.0.1:9/elsewhere" });
    let refused = stage.served.api(Method::POST, "/v1/connect-sessions", &stage.token, &body).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text());
    body["return_url"] = json!(back);
    let session = stage.served.api(Method::POST, "/v1/connect-sessions", &stage.token, &body).await.json();

    // Nobody signs in; the browser goes back to the app.
    let mut browser = Browser::new();
    let page = stage.open(&mut browser, &session).await;
    let page = browser.send(&page, &action(&session, "continue"), &[]).await;
    let callback = browser.consent(page.url, "alice@mail.example", &stage.served.at("/callback/google")).await;
    let cookies = browser.cookies_for(&callback);
    let answer = send(Method::GET, &callback, &[("cookie", cookies.as_str())], "").await;
    let location: url::Url = answer.headers[header::LOCATION].to_str().unwrap().parse().unwrap();
    assert!(location.as_str().starts_with(back), "{location}");
    let code = location.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    assert_eq!(stage.state(id(&session)).await["state"], "unconfirmed");

    // The browser alone confirms nothing, and neither does another caller or another code.
    let page = stage.open(&mut browser, &session).await;
    assert!(clawcoil_tests::Form::sent_to(text(&page), &action(&session, "confirm")).is_none());
    let path = format!("/v1/connect-sessions/{}/confirm", id(&session));
    let bob = served::token(&stage.home(), "bot", "bob", &["connect"]);
    let other = served::token(&stage.home(), "other", "alice", &["connect"]);
    let confirm = async |token: &str, code: &str| {
        stage.served.api(Method::POST, &path, token, &json!({ "code": code })).await.status
    };
    assert_eq!(confirm(&bob, &code).await, StatusCode::NOT_FOUND);
    assert_eq!(confirm(&other, &code).await, StatusCode::NOT_FOUND);
    assert_eq!(confirm(&stage.token, "wrong").await, StatusCode::FORBIDDEN);
    assert_eq!(stage.call().await.status, StatusCode::CONFLICT);
    assert_eq!(confirm(&stage.token, &code).await, StatusCode::OK);
    assert_eq!(confirm(&stage.token, &code).await, StatusCode::CONFLICT, "a code is good once");
    assert_eq!(stage.call().await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_could_not_know_its_openers_makes_no_link() {
    let stage = Stage::with("", &["--listen", "127.0.0.1:0", "--public-url", "https://skills.example.com"]).await;
    let body = json!({ "provider": "google", "skill": "gmail-send" });
    let answer = stage.served.api(Method::POST, "/v1/connect-sessions", &stage.token, &body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(answer.text().contains("return_urls"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_signs_in_is_good_once_and_its_form_is_sent_from_our_page() {
    let stage = Stage::new().await;
    let link: url::Url = stage.link(&["--user", "alice"]).parse().unwrap();
    // Whoever previews it uses nothing up, and a page of another site can't use it.
    for _ in 0..2 {
        assert_eq!(Browser::new().visit(link.clone()).await.answer.status, StatusCode::OK);
    }
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        let answer = send(Method::POST, &link, &headers, "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
    }
    let mut alice = Browser::new();
    let page = alice.visit(link.clone()).await;
    let page = alice.send(&page, "", &[]).await;
    assert!(text(&page).contains("Waiting for you"), "{}", text(&page));
    assert_eq!(Browser::new().visit(link.clone()).await.answer.status, StatusCode::NOT_FOUND);

    // A form needs the value of this very session.
    let origin = stage.served.origin.origin().ascii_serialization();
    let url = stage.served.at("/sign-out");
    let cookies = alice.cookies_for(&url);
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (body, origin) in [("csrf=wrong", origin.as_str()), ("", &origin), ("csrf=wrong", "https://evil.example")] {
        let answer = send(Method::POST, &url, &[("cookie", &cookies), ("origin", origin), form], body).await;
        assert!(answer.status.is_client_error(), "{body:?} {origin}: {}", answer.status);
    }
    assert_eq!(alice.visit(stage.served.at("/")).await.url.path(), "/");
    let home = alice.visit(stage.served.at("/")).await;
    alice.send(&home, "/sign-out", &[]).await;
    assert_eq!(alice.visit(stage.served.at("/")).await.url.path(), "/sign-in");
    // The session itself is over, not just the cookie.
    let answer = send(Method::GET, &stage.served.at("/"), &[("cookie", &cookies)], "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_at_their_identity_provider_and_are_who_it_says() {
    let config = "[console]\nissuer = \"PROVIDER\"\nclient_id = \"console\"\noperators = [\"ops-*\"]\nauditors = [\"audit-*\"]\n";
    let stage = Stage::with(config, &["--listen", "127.0.0.1:0"]).await;
    let session = stage.ask().await;
    let start = |browser: &'static str| (browser, stage.served.at("/sign-in/provider?next=%2F"));
    for (who, expected) in [("ops-1", "operator"), ("audit-1", "auditor"), ("alice", "alice")] {
        let mut browser = Browser::new();
        let page = browser.visit(start(who).1).await;
        let page = browser.consent_from(page, stage.provider.origin(), who).await;
        assert_eq!(page.answer.status, StatusCode::OK, "{}", text(&page));
        assert!(text(&page).contains(&format!("Signed in as {expected}")), "{who}: {}", text(&page));
    }
    // The link of a session leads there and back, and another person than the one who was asked is refused.
    let mut bob = Browser::new();
    let page = stage.open(&mut bob, &session).await;
    assert!(text(&page).contains("Sign in with"), "{}", text(&page));
    let next = stage.served.at(&format!("/sign-in/provider?next=%2Fconnect%2F{}", id(&session)));
    let page = bob.visit(next.clone()).await;
    let page = bob.consent_from(page, stage.provider.origin(), "bob").await;
    assert_eq!(page.answer.status, StatusCode::FORBIDDEN, "{}", text(&page));
    let mut alice = Browser::new();
    let page = alice.visit(next).await;
    let page = alice.consent_from(page, stage.provider.origin(), "alice").await;
    assert_eq!(page.url.path(), format!("/connect/{}", id(&session)));
    assert!(text(&page).contains("gmail-send"), "{}", text(&page));

    // An answer in another browser signs nobody in.
    let mut mallory = Browser::new();
    let page = mallory.visit(start("mallory").1).await;
    let answer = mallory.consent(page.url, "mallory", &stage.served.at("/sign-in/callback")).await;
    let mut bobs = Browser::new();
    bobs.visit(start("bob").1).await;
    for mut other in [Browser::new(), bobs, stage.signed_in(&["--user", "bob"]).await] {
        let page = other.visit(answer.clone()).await;
        assert_eq!(page.answer.status, StatusCode::FORBIDDEN, "{}", text(&page));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_tells_the_browser_to_be_strict() {
    let stage = Stage::new().await;
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    let session = stage.ask().await;
    for path in [
        "/",
        "/sign-in",
        "/sign-in/link/none",
        "/connect/none",
        &format!("/connect/{}", id(&session)),
        "/callback/google",
    ] {
        let page = alice.visit(stage.served.at(path)).await;
        let headers = &page.answer.headers;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin", "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        let html = text(&page);
        assert!(!html.contains("style=") && !html.contains("<style") && !html.contains("onclick"), "{path}");
        assert!(html.matches("<script").count() == html.matches("<script src=\"/static/").count(), "{path}");
    }
    // The files of the pages are kept for long, under addresses that change with them.
    let page = alice.visit(stage.served.at("/sign-in")).await;
    let (_, rest) = text(&page).split_once("<link rel=\"stylesheet\" href=\"").unwrap();
    let sheet = alice.visit(stage.served.at(rest.split_once('"').unwrap().0)).await;
    assert!(sheet.answer.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    assert_eq!(
        alice.visit(stage.served.at("/static/0000000000000000/clawcoil.css")).await.answer.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_comes_by_another_name_of_this_machine_is_led_to_ours() {
    let stage = Stage::new().await;
    let address = stage.served.origin.socket_addrs(|| None).unwrap()[0];
    // The harness names hosts by their address, so the requests are written by hand.
    let asked = async |method: &str, host: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} /callback/google?state=x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let other = format!("localhost:{}", address.port());
    let led = asked("GET", &other).await;
    let to = format!("location: {}\r\n", stage.served.at("/callback/google?state=x"));
    assert!(led.starts_with("HTTP/1.1 303 ") && led.to_ascii_lowercase().contains(&to), "{led}");
    // What is at its own address already, or would lose its body on the way, is led nowhere.
    for (method, host) in [("GET", address.to_string()), ("POST", other)] {
        let answer = asked(method, &host).await;
        assert!(!answer.contains("HTTP/1.1 3"), "{method} {host}: {answer}");
    }
}
