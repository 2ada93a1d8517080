//! What the tests of pages stand on: an agent whose accounts are at a real authorization server, served.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clawcoil::clock::{Clock, SystemClock};
use clawcoil_tests::http::Answer;
use clawcoil_tests::{Agent, AuthorizationServer, Browser, Page, skills};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Served, run};

/// An agent with the mail skill granted to everyone, served, and a program's token for alice.
pub(crate) struct Stage {
    pub(crate) provider: AuthorizationServer,
    pub(crate) agent: Agent,
    pub(crate) served: Served,
    pub(crate) token: String,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with("", &["--listen", "127.0.0.1:0"]).await
    }

    pub(crate) async fn with(config: &str, arguments: &[&str]) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self::lived(config, arguments, clock, async |_| {}).await
    }

    /// One on which something has happened, by its own clock, before it is served.
    pub(crate) async fn lived(
        config: &str,
        arguments: &[&str],
        clock: Arc<dyn Clock>,
        life: impl AsyncFnOnce(&Agent),
    ) -> Self {
        let provider = AuthorizationServer::start(3600, &json!({}));
        let agent = Agent::with_clock(&provider, &["gmail-send"], clock).await;
        agent.grant("gmail-send", "*");
        life(&agent).await;
        let home = agent.host.home().folder().to_owned();
        std::fs::write(home.join("serve.toml"), config.replace("PROVIDER", provider.origin())).unwrap();
        let served = Served::with(&home, arguments);
        let token = super::token(&home, "bot", "alice", &["invoke", "connect"]);
        Self { provider, agent, served, token }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.agent.host.home().folder().to_owned()
    }

    pub(crate) async fn ask(&self) -> Value {
        let body = json!({ "provider": "google", "skill": "gmail-send" });
        let answer = self.served.api(Method::POST, "/v1/connect-sessions", &self.token, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn state(&self, id: &str) -> Value {
        self.served.api(Method::GET, &format!("/v1/connect-sessions/{id}"), &self.token, &Value::Null).await.json()
    }

    pub(crate) async fn call(&self) -> Answer {
        let input = json!({ "to": ["grace@example.com"], "subject": "Hi", "body": "Hello" });
        let body = json!({ "skill": "gmail-send", "tool": "send", "input": input });
        self.served.api(Method::POST, "/v1/invocations", &self.token, &body).await
    }

    /// A browser in which somebody is signed in by a link of the command line.
    pub(crate) async fn signed_in(&self, who: &[&str]) -> Browser {
        let mut browser = Browser::new();
        let link = self.link(who);
        let page = browser.visit(link.parse().unwrap()).await;
        let page = browser.send(&page, "", &[]).await;
        assert_eq!(page.answer.status, StatusCode::OK, "{}", page.answer.text());
        browser
    }

    pub(crate) fn link(&self, who: &[&str]) -> String {
        let base = self.served.origin.as_str();
        let made = super::json(&self.home(), &[&["console", "--print", "--url", base], who].concat());
        made["url"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn open(&self, browser: &mut Browser, session: &Value) -> Page {
        browser.visit(session["url"].as_str().unwrap().parse().unwrap()).await
    }

    /// From the connect page to the question whether it was the right account.
    pub(crate) async fn consent(&self, browser: &mut Browser, session: &Value, account: &str) -> Page {
        let page = self.open(browser, session).await;
        let page = browser.send(&page, &super::action(session, "continue"), &[]).await;
        browser.consent_from(page, self.provider.origin(), account).await
    }

    /// Adds a new version of the mail skill, which waits: grants are pinned to the old one.
    pub(crate) fn propose(&self, manifest: impl Fn(&str) -> String) {
        let component = skills::component("gmail-send");
        let folder = self.agent.folder().join("new-version");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&component, folder.join("gmail-send.wasm")).unwrap();
        let text = fs::read_to_string(component.with_file_name("skill.toml")).unwrap();
        fs::write(folder.join("skill.toml"), manifest(&text)).unwrap();
        let output = run(&self.home(), &["skill", "add", folder.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn audit(&self) -> String {
        let output = run(&self.home(), &["audit", "tail", "--json"]);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The mail skill's manifest in a new version, which wants to read mail as well.
pub(crate) fn wants_more(manifest: &str) -> String {
    let version = manifest.lines().find(|line| line.starts_with("version")).unwrap().to_owned();
    let send = "\"https://www.googleapis.com/auth/gmail.send\"";
    manifest
        .replace(&version, "version = \"9.9.9\"")
        .replace(send, &format!("{send}, \"https://www.googleapis.com/auth/gmail.readonly\""))
}
