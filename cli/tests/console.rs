//! The console against a real server: who may have which page, and what operators do there.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use clawcoil_tests::Browser;
use clawcoil_tests::http::{Answer, send};
use http::{Method, StatusCode, header};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use served::run;
use served::stage::{Stage, wants_more};

/// All routes with what they ask for; the program's own tests hold it to be whole.
const ROUTES: &str = include_str!("served/console_routes.txt");

const OPERATOR: &[&str] = &["--operator"];
const AUDITOR: &[&str] = &["--auditor"];
const ALICE: &[&str] = &["--user", "alice"];

const SEND: &str = "https://www.googleapis.com/auth/gmail.send";

/// One request of a browser, without following where it leads.
async fn ask(stage: &Stage, browser: &Browser, method: Method, path: &str, body: &str) -> Answer {
    let url = stage.served.at(path);
    let cookies = browser.cookies_for(&url);
    let origin = stage.served.origin.origin().ascii_serialization();
    let mut headers = vec![("cookie", cookies.as_str())];
    if method == Method::POST {
        headers.extend([("content-type", "application/x-www-form-urlencoded"), ("origin", &origin)]);
    }
    send(method, &url, &headers, body.to_owned()).await
}

/// The head of an answer that goes on for as long as the page is open, and what of it comes until this is in it.
async fn listen(stage: &Stage, browser: &Browser, until: &str) -> (TcpStream, String) {
    let url = stage.served.at("/console/events");
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncookie: {}\r\n\r\n",
        url.path(),
        browser.cookies_for(&url)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = hear(&mut stream, until).await;
    (stream, said)
}

/// What comes until this is in it, or to the end.
async fn hear(stream: &mut TcpStream, until: &str) -> String {
    let mut said = String::new();
    let mut bytes = [0; 4096];
    while !said.contains(until) {
        match stream.read(&mut bytes).await.unwrap() {
            0 => break,
            read => said.push_str(std::str::from_utf8(&bytes[..read]).unwrap()),
        }
    }
    said
}

async fn get(stage: &Stage, browser: &Browser, path: &str) -> String {
    let answer = ask(stage, browser, Method::GET, path, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    answer.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_has_the_pages_that_are_for_it_and_no_other() {
    let stage = Stage::new().await;
    let bobs = stage.agent.connect("bob", "google", &[SEND]).await.id.to_string();
    let alices = stage.agent.connect("alice", "google", &[SEND]).await.id.to_string();
    let mut cells = 0;
    for (who, arguments) in
        [("nobody", None), ("operator", Some(OPERATOR)), ("auditor", Some(AUDITOR)), ("user", Some(ALICE))]
    {
        let browser = match arguments {
            Some(arguments) => stage.signed_in(arguments).await,
            None => Browser::new(),
        };
        for line in ROUTES.lines().filter(|line| !line.starts_with('#')) {
            let [method, path, access] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            if access == "open" {
                continue;
            }
            if path == "/console/events" {
                let (_, said) = listen(&stage, &browser, "\n\n").await;
                let expected = if who == "nobody" { "HTTP/1.1 303" } else { "HTTP/1.1 200" };
                assert!(said.starts_with(expected), "{who} {line}: {said}");
                cells += 1;
                continue;
            }
            let path = path.replace("{connection}", &alices).replace("{skill}", "gmail-send");
            let path = path.replace("{invocation}", &format!("inv_{}", "0".repeat(32)));
            let may = match (access, who) {
                (_, "nobody") => false,
                ("signed-in", _) => true,
                ("staff", _) => who != "user",
                ("user", _) => who == "user",
                ("ending", _) => who != "auditor",
                ("operator", _) => who == "operator",
                _ => panic!("{access} is none that this test knows"),
            };
            // A form without what only our pages have: it is refused after the gate, and changes nothing.
            let answer = ask(&stage, &browser, method.parse().unwrap(), &path, "").await;
            let told = format!("{who} {line}: {}", answer.status);
            if who == "nobody" {
                assert_eq!(answer.status, StatusCode::SEE_OTHER, "{told}");
                let to = answer.headers.get(header::LOCATION).unwrap().to_str().unwrap();
                assert!(to.starts_with("/sign-in"), "{told} {to}");
            } else if !may {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{told}");
                assert!(!answer.text().contains("bob"), "{told}");
            } else if method == "GET" {
                let found = answer.status == StatusCode::OK
                    || (path.contains("inv_") && answer.status == StatusCode::NOT_FOUND);
                assert!(found, "{told} {}", answer.text());
                assert!(answer.headers.contains_key(header::CONTENT_SECURITY_POLICY), "{told}");
            } else {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{told} {}", answer.text());
            }
            cells += 1;
        }
        if who == "user" {
            // What is another's is not there.
            for path in [format!("/connections/{bobs}"), format!("/connections/{bobs}/disconnect")] {
                let answer = ask(&stage, &browser, Method::GET, &path, "").await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
            }
            assert!(!get(&stage, &browser, "/").await.contains(&bobs));
        }
    }
    assert!(cells >= 32, "{cells}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_sees_no_form_or_link_that_acts() {
    let stage = Stage::new().await;
    let id = stage.agent.connect("alice", "google", &[SEND]).await.id.to_string();
    stage.propose(wants_more);
    let (auditor, operator) = (stage.signed_in(AUDITOR).await, stage.signed_in(OPERATOR).await);
    let acts = ["/disconnect", "/approve", "/reject"];
    for path in ["/", "/connections", &format!("/connections/{id}"), "/skills", "/skills/gmail-send"] {
        let page = get(&stage, &auditor, path).await;
        let found: Vec<_> = acts.iter().filter(|act| page.contains(*act)).collect();
        assert!(found.is_empty(), "{path}: {found:?}");
        // Signing out is the one form that is sent.
        assert_eq!(page.matches("method=\"post\"").count(), 1, "{path}");
    }
    let page = get(&stage, &operator, "/skills/gmail-send").await
        + &get(&stage, &operator, &format!("/connections/{id}")).await;
    assert!(acts.iter().all(|act| page.contains(act)), "an operator has them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_ends_their_own_connection_after_being_asked_and_the_log_says_who() {
    let stage = Stage::new().await;
    let id = stage.agent.connect("alice", "google", &[SEND]).await.id.to_string();
    let mut alice = stage.signed_in(ALICE).await;
    let path = format!("/connections/{id}/disconnect");
    // A foreign page can't send the form: it does not know what is in it.
    let refused = ask(&stage, &alice, Method::POST, &path, "csrf=guessed").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let page = alice.visit(stage.served.at(&path)).await;
    assert!(page.answer.text().contains("Disconnect Google?"));
    let page = alice.send(&page, &path, &[]).await;
    assert!(page.answer.text().contains("Google has ended its tokens"), "{}", page.answer.text());
    let gone = ask(&stage, &alice, Method::GET, &format!("/connections/{id}"), "").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let audit = stage.audit();
    assert!(audit.contains("disconnect-asked") && audit.contains("user alice at the console"), "{audit}");
    assert!(audit.contains("\"disconnected\""), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_approves_the_version_that_was_looked_at_and_no_other() {
    let stage = Stage::new().await;
    stage.propose(wants_more);
    let mut operator = stage.signed_in(OPERATOR).await;
    assert!(get(&stage, &operator, "/").await.contains("waits for approval"));
    let looked_at = operator.visit(stage.served.at("/skills/gmail-send")).await;
    for words in ["It wants more", "gmail.readonly", "9.9.9"] {
        assert!(looked_at.answer.text().contains(words), "{words}: {}", looked_at.answer.text());
    }
    // Meanwhile another version waits.
    stage.propose(|manifest| wants_more(manifest).replace("9.9.9", "9.9.10"));
    let page = operator.send(&looked_at, "/skills/gmail-send/approve", &[]).await;
    assert_eq!(page.answer.status, StatusCode::CONFLICT, "{}", page.answer.text());
    let looked_at = operator.visit(stage.served.at("/skills/gmail-send")).await;
    let page = operator.send(&looked_at, "/skills/gmail-send/approve", &[]).await;
    assert!(page.answer.text().contains("9.9.10 is in use"), "{}", page.answer.text());
    // The host looks at the files of a skill every tenth of a second.
    let mut page = get(&stage, &operator, "/skills/gmail-send").await;
    for _ in 0..1000 {
        if page.contains("9.9.10") {
            break;
        }
        page = get(&stage, &operator, "/skills/gmail-send").await;
    }
    assert!(page.contains("9.9.10") && !page.contains("/approve"), "{page}");
    let audit = stage.audit();
    assert!(audit.contains("skill-approved") && audit.contains("approved by the operator at the console"), "{audit}");

    stage.propose(|manifest| wants_more(manifest).replace("9.9.9", "9.9.11"));
    let looked_at = operator.visit(stage.served.at("/skills/gmail-send")).await;
    let page = operator.send(&looked_at, "/skills/gmail-send/reject", &[]).await;
    assert!(page.answer.text().contains("stays in use"), "{}", page.answer.text());
    assert!(stage.audit().contains("skill-rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skills_and_providers_bring_stays_text() {
    const HOSTILE: &str = "<script>alert(1)</script>\u{202e}\"'><img src=x onerror=alert(2)>";
    let stage = Stage::new().await;
    let alice = stage.agent.connect("alice", "google", &[SEND]).await;
    let session = stage.ask().await;
    let mut browser = stage.signed_in(ALICE).await;
    let page = stage.consent(&mut browser, &session, HOSTILE).await;
    let mut pages = vec![page.answer.text().to_owned()];
    stage.propose(|manifest| {
        let description = manifest.lines().find(|line| line.starts_with("description")).unwrap().to_owned();
        let hostile = HOSTILE.replace('"', "\\\"").replace('\u{202e}', "\\u202e");
        wants_more(manifest).replace(&description, &format!("description = \"{hostile}\""))
    });
    let operator = stage.signed_in(OPERATOR).await;
    for path in ["/", "/connections", "/skills", "/skills/gmail-send", &format!("/connections/{}", alice.id)] {
        pages.push(get(&stage, &operator, path).await);
    }
    let all = pages.concat();
    assert!(all.contains("alert(1)") && all.contains("onerror"), "the texts are shown");
    assert!(!all.contains("<script>alert") && !all.contains("<img src=x") && !all.contains('\u{202e}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_told_of_what_its_reader_may_see_until_they_sign_out() {
    let stage = Stage::new().await;
    let (mut alice, bob, operator) =
        (stage.signed_in(ALICE).await, stage.signed_in(&["--user", "bob"]).await, stage.signed_in(OPERATOR).await);
    let (mut alices, greeting) = listen(&stage, &alice, "event: hello").await;
    assert!(greeting.contains("text/event-stream"), "{greeting}");
    let (mut bobs, _) = listen(&stage, &bob, "event: hello").await;
    let (mut operators, _) = listen(&stage, &operator, "event: hello").await;

    // An account of alice's: she is told, and so is the operator.
    stage.agent.connect("alice", "google", &[SEND]).await;
    let heard = hear(&mut alices, "connections").await;
    assert!(heard.contains("event: changed"), "{heard}");
    assert!(hear(&mut operators, "connections").await.contains("event: changed"));
    // Signing in is of the log, but is none of her calls; a skill that is added is none of hers either.
    stage.propose(wants_more);
    assert!(hear(&mut operators, "skills").await.contains("skills"));

    // Bob hears of none of this: the first that he hears is of what is his own.
    stage.agent.connect("bob", "google", &[SEND]).await;
    let heard = hear(&mut bobs, "connections").await;
    assert!(!heard.contains("skills") && !heard.contains("activity"), "{heard}");

    // Whoever signs out is told nothing any more.
    let page = alice.visit(stage.served.at("/")).await;
    alice.send(&page, "/sign-out", &[]).await;
    let rest = hear(&mut alices, "never").await;
    assert!(!rest.contains("skills") && !rest.contains("activity"), "{rest}");
    // A user's token is in none of it, nor anybody's name.
    assert!(!heard.contains("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_looked_through_checked_and_taken_along_and_a_user_has_their_own_calls() {
    let stage = Stage::new().await;
    stage.agent.connect("alice", "google", &[SEND]).await;
    stage.agent.connect("bob", "google", &[SEND]).await;
    let mail = serde_json::json!({ "to": ["grace@example.com"], "subject": "Hi", "body": "Hello" });
    let alices = stage.agent.call("alice", "gmail-send", "send", &mail).await.unwrap().invocation.to_string();
    let bobs = stage.agent.call("bob", "gmail-send", "send", &mail).await.unwrap().invocation.to_string();

    let auditor = stage.signed_in(AUDITOR).await;
    let all = get(&stage, &auditor, "/audit").await;
    assert!(all.contains(&alices) && all.contains(&bobs) && all.contains("gmail-send.send"), "{all}");
    let of_alice = get(&stage, &auditor, "/audit?user=alice&kind=invoked").await;
    assert!(of_alice.contains(&alices) && !of_alice.contains(&bobs), "{of_alice}");
    assert!(get(&stage, &auditor, "/audit?user=nobody").await.contains("No entry is like that"));
    let wrong = ask(&stage, &auditor, Method::GET, "/audit?kind=nonsense", "").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text().contains("the log knows no such kind"));

    let receipt = get(&stage, &auditor, &format!("/audit/calls/{alices}")).await;
    for words in ["Receipt", "https://gmail.googleapis.com", "generation 1", "sha256:", "released"] {
        assert!(receipt.contains(words), "{words}: {receipt}");
    }
    assert!(get(&stage, &auditor, "/audit/verify").await.contains("The log is whole"));
    let (settings, place) = (stage.home().join("audit.toml"), tempfile::tempdir().unwrap());
    std::fs::write(&settings, format!("checkpoints = [{:?}]\n", place.path().to_str().unwrap())).unwrap();
    assert!(get(&stage, &auditor, "/audit/verify").await.contains("has no checkpoint of this log"));
    std::fs::remove_file(settings).unwrap();

    let exported = ask(&stage, &auditor, Method::GET, "/audit/export?user=alice", "").await;
    assert_eq!(exported.headers[header::CONTENT_TYPE], "application/x-ndjson");
    assert!(exported.headers[header::CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment"));
    let lines: Vec<serde_json::Value> =
        exported.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["file"].is_string()), "{lines:?}");
    let command = run(&stage.home(), &["audit", "export", "--user", "alice"]);
    assert_eq!(exported.text(), String::from_utf8(command.stdout).unwrap(), "the command says the same");

    let alice = stage.signed_in(ALICE).await;
    let own = get(&stage, &alice, "/calls").await;
    assert!(own.contains(&alices) && !own.contains(&bobs), "{own}");
    assert!(get(&stage, &alice, &format!("/calls/{alices}")).await.contains("https://gmail.googleapis.com"));
    let foreign = ask(&stage, &alice, Method::GET, &format!("/calls/{bobs}"), "").await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_call_reads_a_part_of_the_log_and_says_so_where_that_is_not_enough() {
    let stage = Stage::new().await;
    let auditor = stage.signed_in(AUDITOR).await;
    // A call of long ago, a second one, and more since then than is read for a page.
    let call = |name: char| format!("inv_{}", name.to_string().repeat(32));
    let entry = |seq: u8, kind: &str, name: char| {
        let id = call(name);
        format!("{{\"seq\":{seq},\"time\":\"2026-01-01T08:0{seq}:00Z\",\"kind\":\"{kind}\",\"invocation\":\"{id}\"}}\n")
    };
    let old = [entry(0, "released", 'a'), entry(1, "invoked", 'a'), entry(2, "released", 'b')].concat();
    let since = format!("{}\n", "x".repeat(1 << 20)).repeat(33);
    let last = entry(3, "released", 'b').replace("2026", "2050");
    std::fs::write(stage.agent.host.home().audit().join("old.jsonl"), [old, since, last].concat()).unwrap();

    let page = ask(&stage, &auditor, Method::GET, &format!("/audit/calls/{}", call('a')), "").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND, "{}", page.text());
    assert!(page.text().contains("32 MiB of the log were looked through"), "{}", page.text());
    // The list says where it stands.
    let found = get(&stage, &auditor, "/audit?kind=invoked&until=2026-01-02").await;
    let link = format!("/audit/calls/{}?at=2026-01-01T08:01:00Z", call('a'));
    assert!(found.contains(&link), "{found}");
    let page = get(&stage, &auditor, &link).await;
    assert!(page.contains("released") && !page.contains("Not all may be here"), "{page}");
    // One that goes on from there to now.
    let page = get(&stage, &auditor, &format!("/audit/calls/{}", call('b'))).await;
    assert!(page.contains("after 32 MiB of the log no more was read"), "{page}");
    assert!(page.contains("entry 3 of old") && !page.contains("entry 2 of old"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_is_told_of_with_the_first_bad_entry() {
    let stage = Stage::new().await;
    stage.agent.connect("alice", "google", &[SEND]).await;
    let operator = stage.signed_in(OPERATOR).await;
    let folder = stage.agent.host.home().audit();
    let longest = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let text = std::fs::read_to_string(&longest).unwrap();
    std::fs::write(&longest, text.replacen("\"decision\":\"allowed\"", "\"decision\":\"denied\"", 1)).unwrap();
    let page = get(&stage, &operator, "/audit/verify").await;
    assert!(page.contains("not what was written") && page.contains("the entry was changed"), "{page}");
}
