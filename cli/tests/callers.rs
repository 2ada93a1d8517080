//! Who may call `clawcoil serve`: with JWTs of a real identity provider, at the Unix socket, for others, and how often.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use std::path::{Path, PathBuf};

use clawcoil_tests::http::{Answer, send};
use clawcoil_tests::{Agent, AuthorizationServer};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use served::Served;

const AUDIENCE: &str = "https://skills.example.com";
const OTHER: &str = "https://other.example.com";

/// An agent with nothing in it, and its home.
async fn agent() -> (AuthorizationServer, Agent, PathBuf) {
    let server = AuthorizationServer::issuing_jwts(&[AUDIENCE, OTHER], &json!({}));
    let agent = Agent::new(&server, &[]).await;
    let home = agent.host.home().folder().to_owned();
    (server, agent, home)
}

/// Serves it with these settings.
fn serve(home: &Path, config: &str) -> Served {
    std::fs::write(home.join("serve.toml"), config).unwrap();
    Served::start(home)
}

/// Settings that take the JWTs of these issuers.
fn trusting(issuers: &[&AuthorizationServer]) -> String {
    let entries = issuers.iter().map(|server| {
        format!(
            "[[identity_provider]]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nclient = \"portal\"\nscopes = [\"invoke\"]\n",
            server.origin()
        )
    });
    entries.collect()
}

async fn skills(served: &Served, token: &str) -> Answer {
    served.api(Method::GET, "/v1/skills", token, &Value::Null).await
}

fn assert_refused(answer: &Answer, why: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    let problem = answer.json();
    assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
    assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
}

/// Sends these bytes and reads until the other end closes.
async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_another_process_revokes_is_refused_from_the_next_request_on() {
    let (_server, _agent, home) = agent().await;
    let served = serve(&home, "");
    let made = served::json(&home, &["token", "create", "--agent", "bot", "--user", "alice"]);
    let (token, name) = (made["token"].as_str().unwrap(), made["name"].as_str().unwrap());
    for _ in 0..3 {
        // From now on the server keeps in mind whose it is.
        assert_eq!(skills(&served, token).await.status, StatusCode::OK);
    }
    served::run(&home, &["token", "revoke", name]);
    assert_refused(&skills(&served, token).await, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_counts_that_its_issuer_made_for_this_host_and_no_other() {
    let (issuer, _agent, home) = agent().await;
    let (stranger, late) = (
        AuthorizationServer::issuing_jwts(&[AUDIENCE], &json!({})),
        // What it issues has expired by the clock of everybody else.
        AuthorizationServer::issuing_jwts(&[AUDIENCE], &json!({ "clock_offset_seconds": -7200 })),
    );
    let served = serve(&home, &trusting(&[&issuer, &late]));
    let good = issuer.jwt(AUDIENCE).await;
    assert_eq!(skills(&served, &good).await.status, StatusCode::OK);
    assert_refused(&skills(&served, &issuer.jwt(OTHER).await).await, "another audience");
    assert_refused(&skills(&served, &late.jwt(AUDIENCE).await).await, "expired");
    assert_refused(&skills(&served, &stranger.jwt(AUDIENCE).await).await, "not known");

    // Somebody else's signature under the right words.
    let foreign = stranger.jwt(AUDIENCE).await;
    let [head, body] = [0, 1].map(|part| good.split('.').nth(part).unwrap());
    let forged = format!("{head}.{body}.{}", foreign.rsplit('.').next().unwrap());
    clawcoil_tests::canary::plant(clawcoil_tests::canary::Kind::AccessToken, &forged);
    assert_refused(&skills(&served, &forged).await, "signature");

    // It may do what its issuer's entry says, and for whom it was issued.
    let body = json!({ "provider": "google" });
    let connect = served.api(Method::POST, "/v1/connect-sessions", &good, &body).await;
    assert_eq!(connect.status, StatusCode::FORBIDDEN);
    assert!(connect.headers["www-authenticate"].to_str().unwrap().contains("insufficient_scope"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_issuer_has_replaced_count_at_once_and_the_old_ones_no_more() {
    let (issuer, _agent, home) = agent().await;
    let served = serve(&home, &trusting(&[&issuer]));
    let old = issuer.jwt(AUDIENCE).await;
    assert_eq!(skills(&served, &old).await.status, StatusCode::OK);
    let issuer = issuer.with_new_keys();
    let new = issuer.jwt(AUDIENCE).await;
    assert_eq!(skills(&served, &old).await.status, StatusCode::OK, "nobody has said yet that there are other keys");
    assert_eq!(skills(&served, &new).await.status, StatusCode::OK);
    assert_refused(&skills(&served, &old).await, "no such key");
    // An issuer that is away takes back none of its keys by that.
    drop(issuer);
    assert_eq!(skills(&served, &new).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_at_the_unix_socket_is_known_by_whose_it_is() {
    let (_server, _agent, home) = agent().await;
    let own = rustix::process::getuid().as_raw();
    let socket = home.join("clawcoil.sock");
    let place = format!("unix:{}", socket.display());
    let get = |authorization: &str| {
        format!("GET /v1/skills HTTP/1.1\r\nhost: localhost\r\n{authorization}connection: close\r\n\r\n")
    };
    let config =
        |uid: u32| format!("[[unix]]\nuid = {uid}\nclient = \"mail-agent\"\nuser = \"alice\"\nscopes = [\"invoke\"]\n");

    std::fs::write(home.join("serve.toml"), config(own)).unwrap();
    let served = Served::with(&home, &["--listen", &place]);
    let (status, answer) = raw(UnixStream::connect(&socket).await.unwrap(), &get("")).await;
    assert_eq!(status, 200, "{answer}");
    let (status, _) =
        raw(UnixStream::connect(&socket).await.unwrap(), &get("authorization: Bearer nonsense\r\n")).await;
    assert_eq!(status, 401, "a token that is shown is looked at");
    served.signal(rustix::process::Signal::TERM);
    assert!(served.ended().await.success());
    assert!(!socket.exists(), "nothing is left of it");

    std::fs::write(home.join("serve.toml"), config(own + 1)).unwrap();
    let _served = Served::with(&home, &["--listen", &place]);
    let (status, answer) = raw(UnixStream::connect(&socket).await.unwrap(), &get("")).await;
    assert_eq!(status, 401, "{answer}");
    assert!(answer.contains(&format!("processes of user {own} are not known here")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back_and_nobody_else_is() {
    let (_server, _agent, home) = agent().await;
    let served = serve(&home, "[limits]\nrequests_per_minute = 3\n");
    let [often, seldom] = ["often", "seldom"].map(|client| served::token(&home, client, "alice", &["invoke"]));
    for _ in 0..3 {
        assert_eq!(skills(&served, &often).await.status, StatusCode::OK);
    }
    let refused = skills(&served, &often).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "one is allowed every 20 s: {wait}");
    assert_eq!(refused.json()["type"], "/problems/too-many");
    assert_eq!(skills(&served, &seldom).await.status, StatusCode::OK);
    // Who guesses tokens is no caller.
    assert_eq!(skills(&served, "claw_guess").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_hosts_and_of_other_pages_are_refused() {
    let (_server, _agent, home) = agent().await;
    let served = serve(&home, "");
    let token = served::token(&home, "bot", "alice", &["invoke"]);
    let place = served.origin.socket_addrs(|| None).unwrap()[0];
    let own = place.to_string();
    for (headers, wanted) in [
        (format!("host: {own}\r\n"), 200),
        (format!("host: localhost:{}\r\norigin: http://{own}\r\n", place.port()), 200),
        // A name that its owner lets resolve to this machine.
        ("host: rebound.example.com\r\n".to_owned(), 403),
        (format!("host: {own}\r\norigin: https://evil.example.com\r\n"), 403),
        (format!("host: {own}\r\norigin: null\r\n"), 403),
        (format!("host: {own}\r\nhost: evil.example.com\r\n"), 400),
        (String::new(), 400),
    ] {
        let request =
            format!("GET /v1/skills HTTP/1.1\r\n{headers}authorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        let (status, answer) = raw(TcpStream::connect(place).await.unwrap(), &request).await;
        assert_eq!(status, wanted, "{headers}: {answer}");
        assert_eq!(answer.contains("/problems/foreign-request"), wanted == 403, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_act_for_others_names_the_user_within_its_pattern() {
    let (_server, _agent, home) = agent().await;
    let served = serve(&home, "");
    let made =
        served::json(&home, &["token", "create", "--agent", "desk", "--act-as", "team-a/*", "--scope", "invoke"]);
    let acting = made["token"].as_str().unwrap().to_owned();
    let own = served::token(&home, "bot", "team-a/alice", &["invoke"]);
    let ask = async |token: &str, user: Option<&str>| {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(user.map(|user| ("clawcoil-user", user)));
        send(Method::GET, &served.at("/v1/skills"), &headers, "").await.status
    };
    assert_eq!(ask(&acting, Some("team-a/alice")).await, StatusCode::OK);
    assert_eq!(ask(&acting, Some("team-b/bob")).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(&acting, None).await, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&acting, Some("no user at all")).await, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&own, None).await, StatusCode::OK);
    assert_eq!(ask(&own, Some("team-a/alice")).await, StatusCode::OK);
    assert_eq!(ask(&own, Some("team-a/bob")).await, StatusCode::FORBIDDEN);
    // Together with anything that changes something it is not given out at all.
    let wide = served::run(&home, &["token", "create", "--agent", "desk", "--act-as", "*", "--scope", "connect"]);
    assert!(!wide.status.success());
}
