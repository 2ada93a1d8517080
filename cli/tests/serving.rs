//! `clawcoil serve` as operators have it: how it ends, how it says that it is well, and what slow clients do to others.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clawcoil_tests::GuestAgent;
use clawcoil_tests::guest::{PROBE_GRANT, PROBE_MANIFEST};
use clawcoil_tests::http::{Answer, send};
use http::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use served::Served;

const CALLS: usize = 100;
const USERS: [&str; 2] = ["alice", "bob"];
const TOKEN: &str = "serving-canary-8Wd4-token";

/// A server that holds each request until it is told to answer.
struct Holding {
    origin: String,
    arrived: watch::Receiver<usize>,
    released: watch::Sender<bool>,
}

impl Holding {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (count, arrived) = watch::channel(0);
        let (released, hold) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, mut hold) = (count.clone(), hold.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    count.send_modify(|count| *count += 1);
                    let _ = hold.wait_for(|released| *released).await;
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    // A host that has ended its call does not wait for this.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { origin, arrived, released }
    }

    async fn has(&mut self, requests: usize) {
        self.arrived.wait_for(|count| *count == requests).await.unwrap();
    }
}

/// An agent whose skill asks an API that holds its answers, served.
struct Stage {
    upstream: Holding,
    agent: GuestAgent,
    served: Arc<Served>,
    token: String,
    /// Whoever takes the entries of the audit log.
    sink: JoinHandle<()>,
}

impl Stage {
    async fn new(config: &str) -> Self {
        Self::with(config, "", || tokio::spawn(async {})).await
    }

    /// One whose audit log has these settings; whoever takes its entries comes before it begins.
    async fn with(config: &str, audit: &str, sink: impl FnOnce() -> JoinHandle<()>) -> Self {
        let upstream = Holding::start().await;
        let stand_in = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", upstream.origin);
        let agent = GuestAgent::new("probe", PROBE_MANIFEST, PROBE_GRANT, &stand_in, &[]).await;
        for user in USERS {
            agent.connect_account(user, "default", "github", &["repo"], TOKEN).await;
        }
        let home = agent.host.home().folder().to_owned();
        std::fs::write(home.join("serve.toml"), config).unwrap();
        std::fs::write(home.join("audit.toml"), audit).unwrap();
        let sink = sink();
        let served = Arc::new(Served::start(&home));
        let arguments = ["token", "create", "--agent", "bot", "--act-as", "*", "--scope", "invoke"];
        let token = served::json(&home, &arguments)["token"].as_str().unwrap().to_owned();
        Self { upstream, agent, served, token, sink }
    }

    /// A call for one of two users: each may have fewer at once than there are.
    fn call(&self, number: usize) -> JoinHandle<Answer> {
        let (served, token) = (Arc::clone(&self.served), self.token.clone());
        let user = USERS[number % USERS.len()];
        tokio::spawn(async move {
            let input = json!({ "method": "GET", "url": "https://api.github.com/", "headers": [], "body": "" });
            let body = json!({ "skill": "probe", "tool": "fetch", "input": input });
            let bearer = format!("Bearer {token}");
            let headers =
                [("authorization", bearer.as_str()), ("content-type", "application/json"), ("clawcoil-user", user)];
            send(Method::POST, &served.at("/v1/invocations"), &headers, body.to_string()).await
        })
    }

    /// So many calls, all of which are inside the skill.
    async fn running(&mut self, calls: usize) -> Vec<JoinHandle<Answer>> {
        let mut running: Vec<_> = (0..calls).map(|number| self.call(number)).collect();
        let ended = futures_util::future::select_all(&mut running);
        tokio::select! {
            () = self.upstream.has(calls) => {}
            (answer, ..) = ended => panic!("a call has ended early: {}", answer.unwrap().text()),
        }
        running
    }

    async fn get(&self, path: &str) -> Answer {
        send(Method::GET, &self.served.at(path), &[], "").await
    }

    async fn figures(&self) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.text().to_owned()
    }

    /// Sends these bytes and reads until the other end closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.served.origin.socket_addrs(|| None).unwrap()[0]).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A call of a skill that is not there.
    async fn call_nothing(&self) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), ("clawcoil-user", "alice")];
        send(Method::POST, &self.served.at("/v1/invocations"), &headers, "{\"skill\":\"none\"}").await
    }

    /// Asks until it says that it stops.
    async fn stops(&self) -> Value {
        loop {
            let answer = self.get("/readyz").await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return answer.json();
            }
        }
    }

    /// How many calls the audit log tells of, however they ended.
    fn invoked(&self) -> usize {
        let home = self.agent.host.home().folder();
        let output = served::run(home, &["audit", "tail", "--json", "--lines", "1000"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().matches("\"invoked\"").count()
    }

    async fn ended(self) -> (GuestAgent, std::process::ExitStatus) {
        let served = Arc::into_inner(self.served).unwrap_or_else(|| panic!("a call still uses it"));
        (self.agent, served.ended().await)
    }
}

async fn answers(calls: Vec<JoinHandle<Answer>>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

/// What a call is told that can't be finished.
fn assert_told(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.headers["retry-after"], "1");
    let problem = answer.json();
    assert_eq!(problem["type"], "/problems/unavailable");
    assert_eq!(problem["request_id"], answer.headers["x-request-id"].to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_a_hundred_running_calls_loses_none_of_them() {
    let mut stage = Stage::new("[limits]\ndrain_seconds = 600\n").await;
    let running = stage.running(CALLS).await;
    stage.served.signal(Signal::TERM);
    let health = stage.stops().await;
    assert_eq!((&health["status"], &health["parts"]["server"]), (&json!("not-ready"), &json!("stopping")));
    assert_eq!(stage.get("/healthz").await.status, StatusCode::OK, "it lives until the last call has ended");
    let late = stage.call(0).await.unwrap();
    assert_told(&late);
    assert!(running.iter().all(|call| !call.is_finished()));

    stage.upstream.released.send_replace(true);
    for answer in answers(running).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.json()["result"]["body"], "ok");
    }
    assert_eq!(*stage.upstream.arrived.borrow(), CALLS, "the late one began nothing");
    assert_eq!(stage.invoked(), CALLS);
    let (_agent, status) = stage.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_don_t_finish_in_time_are_ended_and_each_caller_is_told() {
    let mut stage = Stage::new("[limits]\ndrain_seconds = 0\n").await;
    let running = stage.running(CALLS).await;
    stage.served.signal(Signal::TERM);
    answers(running).await.iter().for_each(assert_told);
    assert_eq!(stage.invoked(), CALLS, "each of them has its entry");
    let (_agent, status) = stage.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_the_calls() {
    for signals in [[Signal::INT, Signal::INT], [Signal::TERM, Signal::INT]] {
        let mut stage = Stage::new("[limits]\ndrain_seconds = 3600\n").await;
        let running = stage.running(4).await;
        stage.served.signal(signals[0]);
        stage.stops().await;
        assert!(running.iter().all(|call| !call.is_finished()));
        stage.served.signal(signals[1]);
        answers(running).await.iter().for_each(assert_told);
        let (_agent, status) = stage.ended().await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_vault_was_replaced_by_another_file_ends_and_says_so() {
    let agent = GuestAgent::new("probe", PROBE_MANIFEST, PROBE_GRANT, "", &[]).await;
    let home = agent.host.home().folder();
    let token = served::token(home, "bot", "alice", &["invoke"]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = served::clawcoil(home, &["serve", "--json", "--listen", "127.0.0.1:0"]);
    let served = Served::of(command.stderr(Stdio::from(log.reopen().unwrap())), home);
    assert_eq!(served.api(Method::GET, "/v1/skills", &token, &Value::Null).await.status, StatusCode::OK);
    let database = agent.host.home().database();
    let other = database.with_extension("other");
    std::fs::copy(&database, &other).unwrap();
    std::fs::rename(&other, &database).unwrap();
    assert_eq!(served.ended().await.code(), Some(1));
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert!(said.contains("was replaced or taken away while it was served"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_to_anybody_by_any_name_and_says_one_word_for_each_part() {
    let stage = Stage::new("").await;
    let health = stage.raw("GET /readyz HTTP/1.1\r\nhost: 10.1.2.3:8418\r\nconnection: close\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let health: Value = serde_json::from_str(health.split_once("\r\n\r\n").unwrap().1).unwrap();
    let parts = json!({
        "datastore": "ok", "key": "ok", "policy": "ok", "audit": "ok", "runtime": "ok", "server": "ok",
    });
    assert_eq!(health, json!({ "status": "ready", "parts": parts }));
    assert_eq!(stage.get("/healthz").await.json(), json!({ "status": "alive" }));
    let elsewhere = stage.raw("GET /v1/skills HTTP/1.1\r\nhost: 10.1.2.3:8418\r\nconnection: close\r\n\r\n").await;
    assert!(elsewhere.starts_with("HTTP/1.1 403 "), "all else is for its own names: {elsewhere}");

    // Permissions with an error leave those before in force.
    std::fs::write(stage.agent.host.home().permissions(), "[[grant]").unwrap();
    let outdated = loop {
        let health = stage.get("/readyz").await;
        assert_eq!(health.status, StatusCode::OK, "it does what it did before");
        if health.json()["parts"]["policy"] != "ok" {
            break health.json();
        }
    };
    assert_eq!(outdated["parts"]["policy"], "outdated");
    assert!(outdated["reasons"][0].as_str().unwrap().contains("clawcoil policy check"), "{outdated}");
    std::fs::write(stage.agent.host.home().permissions(), PROBE_GRANT).unwrap();
    while stage.get("/readyz").await.json()["parts"]["policy"] != "ok" {}
}

/// Somebody who takes the entries of the audit log at this socket, until it is aborted.
fn collector(socket: &Path) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_can_t_work_says_why_in_words_and_without_names_until_it_is_mended() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("entries.sock");
    let stage = Stage::with("", &format!("[[sink]]\nsocket = \"{}\"\n", socket.display()), || collector(&socket)).await;
    let sink = &stage.sink;
    let home = stage.agent.host.home().clone();
    let folder = home.folder().parent().unwrap().to_str().unwrap();
    let clock = stage.agent.host.clock();
    let late = clock.monotonic() + Duration::from_mins(1);
    // Waits until this part is not well, and then until all is.
    let failing = async |part: &str, words: &str| loop {
        assert!(clock.monotonic() < late, "{part} is well all the same");
        let answer = stage.get("/readyz").await;
        let health = answer.json();
        if health["parts"][part] == "failing" {
            assert_eq!((answer.status, &health["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not-ready")));
            let reasons = health["reasons"].as_array().unwrap();
            assert!(reasons.len() == 1 && reasons[0].as_str().unwrap().contains(words), "{health}");
            assert!(reasons[0].as_str().unwrap().contains("clawcoil doctor"), "{health}");
            for name in [folder, socket.to_str().unwrap(), TOKEN, "alice", "vaults", ".db"] {
                assert!(!answer.text().contains(name), "{name} is nobody's business: {health}");
            }
            return;
        }
    };
    let mended = async || {
        while stage.get("/readyz").await.status != StatusCode::OK {
            assert!(clock.monotonic() < late, "it is not well again");
        }
        assert_eq!(stage.get("/readyz").await.json()["reasons"], Value::Null);
    };
    mended().await;
    let database = rusqlite::Connection::open(home.database()).unwrap();

    // A part of the database is gone.
    database.execute_batch("PRAGMA legacy_alter_table = ON; ALTER TABLE vaults RENAME TO lost").unwrap();
    failing("datastore", "database").await;
    assert_eq!(stage.get("/healthz").await.status, StatusCode::OK, "it lives, and may be mended");
    let bearer = format!("Bearer {}", stage.token);
    let shown = send(Method::GET, &stage.served.at("/readyz"), &[("authorization", &bearer)], "").await;
    assert_eq!(shown.json()["status"], "not-ready", "who can't be judged is told all the same: {}", shown.text());
    database.execute_batch("ALTER TABLE lost RENAME TO vaults").unwrap();
    mended().await;

    // The vault's keys are sealed for another identity, or are gone.
    database.execute_batch("CREATE TABLE kept AS SELECT * FROM keys").unwrap();
    for wrong in ["UPDATE keys SET wrapped = randomblob(length(wrapped))", "DELETE FROM keys"] {
        database.execute_batch(wrong).unwrap();
        failing("key", "identity").await;
        database.execute_batch("DELETE FROM keys; INSERT INTO keys SELECT * FROM kept").unwrap();
        mended().await;
    }
    database.execute_batch("DROP TABLE kept").unwrap();

    // Somebody who is to get each entry of the audit log has gone.
    sink.abort();
    std::fs::remove_file(&socket).unwrap();
    // What it has open is closed a moment later.
    while !sink.is_finished() {
        tokio::task::yield_now().await;
    }
    let call = stage.call(0).await.unwrap();
    assert!(!call.text().contains(folder), "{}", call.text());
    assert!(stage.upstream.arrived.borrow().eq(&0), "a token has left that not every log knows");
    failing("audit", "audit log").await;
    let _again = collector(&socket);
    mended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_tell_of_calls_and_requests_and_of_no_user() {
    let mut stage = Stage::new("").await;
    let running = stage.running(2).await;
    assert!(stage.figures().await.contains("clawcoil_under_way 2\n"));
    stage.upstream.released.send_replace(true);
    answers(running).await;
    stage.call_nothing().await;
    let figures = stage.figures().await;
    for line in [
        "clawcoil_invocations_total{skill=\"probe\",tool=\"fetch\",end=\"ok\"} 2",
        "clawcoil_invocations_total{skill=\"\",tool=\"\",end=\"not-found\"} 1",
        "clawcoil_http_requests_total{method=\"POST\",route=\"/v1/invocations\",status=\"200\"} 2",
        "clawcoil_http_requests_total{method=\"POST\",route=\"/v1/invocations\",status=\"404\"} 1",
        "clawcoil_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/invocations\",status=\"404\"} 1",
        "clawcoil_connections{state=\"active\"} 2",
        "clawcoil_tokens_about_to_expire 0",
        "clawcoil_audit_failures_total 0",
    ] {
        assert!(figures.contains(&format!("{line}\n")), "{line} is missing in:\n{figures}");
    }
    assert!(USERS.iter().all(|user| !figures.contains(user)) && !figures.contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_for_this_machine_alone_or_for_an_operators_credential() {
    let stage = Stage::new("").await;
    let rebound = "GET /metrics HTTP/1.1\r\nhost: evil.example.com\r\nconnection: close\r\n\r\n";
    assert!(stage.raw(rebound).await.starts_with("HTTP/1.1 401 "), "a page that calls itself this host is a stranger");
    assert_eq!(stage.get("/metrics").await.status, StatusCode::OK);
    let shown = async |token: &str| {
        let bearer = format!("Bearer {token}");
        send(Method::GET, &stage.served.at("/metrics"), &[("authorization", &bearer)], "").await.status
    };
    assert_eq!(shown("nonsense").await, StatusCode::UNAUTHORIZED, "a credential that is shown is judged");
    assert_eq!(shown(&stage.token).await, StatusCode::FORBIDDEN);
    drop(stage);
    // Behind a proxy everybody seems to be on this machine.
    let stage = Stage::new("public_url = \"https://skills.example.com\"\n").await;
    assert_eq!(stage.get("/metrics").await.status, StatusCode::UNAUTHORIZED);
    let bearer = |token: &str| format!("Bearer {token}");
    let url = stage.served.at("/metrics");
    let refused = send(Method::GET, &url, &[("authorization", &bearer(&stage.token))], "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let home = stage.agent.host.home().folder();
    let made = served::json(home, &["token", "create", "--agent", "prometheus", "--scope", "admin"]);
    let admin = bearer(made["token"].as_str().unwrap());
    assert_eq!(send(Method::GET, &url, &[("authorization", &admin)], "").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_or_half_of_it_keep_nobody_out() {
    let stage = Stage::new("[limits]\nconnections = 16\n").await;
    let place = stage.served.origin.socket_addrs(|| None).unwrap()[0];
    let mut slow = Vec::new();
    for number in 0..64 {
        let mut stream = TcpStream::connect(place).await.unwrap();
        let begun = match number % 3 {
            0 => String::new(),
            1 => format!("GET /v1/skills HTTP/1.1\r\nhost: {place}\r\nx-slow: "),
            _ => format!(
                "POST /v1/invocations HTTP/1.1\r\nhost: {place}\r\nauthorization: Bearer {}\r\nclawcoil-user: alice\r\n\
                 content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{",
                stage.token
            ),
        };
        // One that has been thrown out already can't be written to.
        let _ = stream.write_all(begun.as_bytes()).await;
        slow.push(stream);
        let answer = stage.get("/readyz").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let mut first = slow.swap_remove(0);
    let mut rest = Vec::new();
    // Whether it was closed in order or broken off: it has ended, and got nothing.
    let _ = first.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_does_not_hold_the_others() {
    let stage = Stage::new("").await;
    let place = stage.served.origin.socket_addrs(|| None).unwrap()[0];
    // As many answers as fit into no buffer of the system.
    let request = format!("GET /openapi.json HTTP/1.1\r\nhost: {place}\r\n\r\n");
    let unread: Vec<_> = (0..8)
        .map(|_| {
            let requests = request.repeat(1_000);
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                let mut stream = socket.connect(place).await.unwrap();
                // The server may take all of it, or stop reading; either way the connection stays open and nothing is read.
                let _ = stream.write_all(requests.as_bytes()).await;
                std::future::pending::<()>().await;
            })
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(stage.get("/readyz").await.status, StatusCode::OK);
        assert_eq!(stage.call_nothing().await.status, StatusCode::NOT_FOUND);
    }
    unread.iter().for_each(JoinHandle::abort);
}
