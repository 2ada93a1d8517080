//! The audit log of real calls: nothing is released without it, what takes away works without it, and no edit of it stays
//! unseen.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod edited;
mod hanging;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use clawcoil::audit::{
    self, Destination, Entry, EventKind, Fault, FileSink, Filter, FirstBad, Settings, Sink, VerifyError, read, verify,
};
use clawcoil::clock::{Clock as _, SystemClock};
use clawcoil::connect::ConnectError;
use clawcoil::host::{Host, InvokeError, OpenError, Outcome, ReloadError};
use clawcoil::id::{Caller, ConnectionId, Owner};
use clawcoil::runtime::End;
use clawcoil::secret::{AccessToken, ClientSecret, Key, RefreshToken};
use clawcoil::vault::{ClaimOutcome, ClientRegistration, Kind, NewConnection, State, TokenSet};
use clawcoil_tests::{GuestAgent, Seen, Upstream};
use serde_json::{Value, json};

const TOKEN: &str = "audited-canary-51xQ-token";

fn manifest(name: &str, use_: &str) -> String {
    format!(
        "[skill]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
         [[service]]\nname = \"github\"\nprovider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\nreason = \"to test\"\n\
         [[service.request]]\norigin = \"https://api.github.com\"\n"
    )
}

fn granted(skill: &str, use_: &str) -> String {
    format!(
        "[[grant]]\nskill = \"{skill}\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"github\"\n\
         provider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\n"
    )
}

async fn agent(guest: &str, use_: &str, server: &Upstream) -> GuestAgent {
    let server = server.origin();
    let providers = format!(
        "[provider.github]\nrevoke = \"{server}/revoke\"\nrevoke-style = \"form\"\n\
         [provider.github.override]\n\"https://api.github.com\" = \"{server}\"\n"
    );
    let agent = GuestAgent::new(guest, &manifest(guest, use_), &granted(guest, use_), &providers, &[]).await;
    agent.connect("github", &["repo"], TOKEN).await;
    agent
}

/// A file that takes entries, until it is told to take no more.
struct Valve {
    file: FileSink,
    closed: Arc<AtomicBool>,
}

impl Sink for Valve {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(line)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A host on this home whose log can be closed.
async fn with_valve(agent: &GuestAgent) -> (Arc<Host>, Arc<AtomicBool>) {
    let home = agent.host.home().clone();
    let file = FileSink::open(&home.audit().join("valve.jsonl")).unwrap().unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let valve = Valve { file, closed: Arc::clone(&closed) };
    (Arc::new(Host::builder(home).audit_sink("valve", valve).open().await.unwrap()), closed)
}

async fn call(host: &Host, skill: &str, tool: &str, input: &Value) -> Result<Outcome, InvokeError> {
    let caller = Caller::new("tests".parse().unwrap(), "alice".parse().unwrap());
    host.invoke(&caller, &skill.parse().unwrap(), Some(tool), input).await
}

async fn fetch(host: &Host) -> Result<End, InvokeError> {
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    call(host, "probe", "fetch", &input).await.map(|outcome| outcome.end)
}

/// The words of a guest that was given none.
fn words(end: End) -> String {
    match end {
        End::ToolError(Value::String(words)) => words,
        other => panic!("it got {other:?}"),
    }
}

#[tokio::test]
async fn no_token_is_attached_while_the_log_takes_no_entry() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let (host, closed) = with_valve(&agent).await;
    assert!(matches!(fetch(&host).await.unwrap(), End::Value(_)));
    closed.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let words = words(fetch(&host).await.unwrap());
        assert!(words.contains("audit"), "{words}");
    }
    assert_eq!(server.requests().len(), 1, "a request went out unrecorded");
    closed.store(false, Ordering::SeqCst);
    assert!(matches!(fetch(&host).await.unwrap(), End::Value(_)));
    assert_eq!(server.requests().len(), 2);
    let key = host.vault().audit_key();
    verify(&host.home().audit(), &key).unwrap();
}

#[tokio::test]
async fn a_log_that_fails_during_a_call_stops_its_next_request() {
    let valve: Arc<OnceLock<Arc<AtomicBool>>> = Arc::default();
    let server = Upstream::start({
        let valve = Arc::clone(&valve);
        move |_| {
            valve.get().unwrap().store(true, Ordering::SeqCst);
            (200, "{}".to_owned())
        }
    })
    .await;
    let agent = agent("probe", "inject", &server).await;
    let (host, closed) = with_valve(&agent).await;
    assert!(valve.set(closed).is_ok());
    let input = json!({ "method": "GET", "url": "https://api.github.com/user" });
    let outcome = call(&host, "probe", "fetch-twice", &input).await.unwrap();
    let End::Value(Value::Array(ends)) = outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(ends[0]["ok"]["status"], 200, "{ends:?}");
    assert!(ends[1]["err"].as_str().is_some_and(|words| words.contains("audit")), "{ends:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn no_token_is_revealed_while_the_log_takes_no_entry() {
    let server = Upstream::plain().await;
    let agent = agent("probe-reveal", "reveal", &server).await;
    let (host, closed) = with_valve(&agent).await;
    let shown = call(&host, "probe-reveal", "show", &json!({ "service": "github" })).await.unwrap();
    assert!(matches!(shown.end, End::Value(_)), "{:?}", shown.end);
    closed.store(true, Ordering::SeqCst);
    let refused = call(&host, "probe-reveal", "show", &json!({ "service": "github" })).await.unwrap();
    // It prints the token as soon as it has one.
    assert_eq!(refused.logs.text.trim(), "started", "{}", words(refused.end));
}

#[tokio::test]
async fn a_grant_is_taken_back_although_the_log_takes_no_entry() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let (host, closed) = with_valve(&agent).await;
    closed.store(true, Ordering::SeqCst);
    fs::write(host.home().permissions(), "").unwrap();
    let noted = host.reload_policy();
    assert!(matches!(noted, Err(ReloadError::Audit(_))), "{noted:?}");
    // Also when the log is well again.
    closed.store(false, Ordering::SeqCst);
    let refused = fetch(&host).await;
    assert!(matches!(refused, Err(InvokeError::Denied(_))), "{refused:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn permissions_with_errors_leave_the_policy_before_in_force() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    fs::write(agent.host.home().permissions(), "[[grant]]\nskil = \"probe\"\n").unwrap();
    let refused = agent.host.reload_policy();
    assert!(matches!(refused, Err(ReloadError::Permissions(_))), "{refused:?}");
    assert!(matches!(fetch(&agent.host).await.unwrap(), End::Value(_)));
    // The log tells of it, with the place, and with the policy that stays.
    let entries = entries(&agent.host, EventKind::PolicyLoaded);
    let refused = entries.last().unwrap();
    assert_eq!(refused.decision.as_deref(), Some("failed"));
    assert!(refused.rule.as_deref().is_some_and(|rule| rule.contains("permissions.toml:")), "{refused:?}");
    assert!(refused.json.contains(&agent.host.policy().hash().to_string()), "{refused:?}");
    assert!(
        refused.detail.as_deref().is_some_and(|detail| detail.contains("those before stay in force")),
        "{refused:?}"
    );
}

/// Stores the operator's client, with which tokens are ended.
async fn with_client(agent: &GuestAgent) {
    let client_secret = Some(ClientSecret::new("secret".to_owned()));
    let registration = ClientRegistration { client_id: "known".to_owned(), client_secret };
    agent.host.vault().put_client(&"github".parse().unwrap(), registration).await.unwrap();
}

/// A connection as it is after the consent and before its owner has seen whose account it is.
async fn unconfirmed(host: &Host, token: &str, label: Option<&str>) -> ConnectionId {
    let new = NewConnection {
        owner: Owner::User("alice".parse().unwrap()),
        provider: "github".parse().unwrap(),
        account: "default".parse().unwrap(),
        kind: Kind::AuthorizationCode,
        scopes: BTreeSet::from(["repo".parse().unwrap()]),
    };
    let tokens = TokenSet {
        access: AccessToken::new(format!("{token}-access")),
        refresh: Some(RefreshToken::new(token.to_owned())),
        token_type: "Bearer".to_owned(),
        expires_in: None,
        requested_at: SystemClock::new().now(),
        scopes: None,
        api_origin: None,
        account_label: label.map(str::to_owned),
        grant_ends_at: None,
    };
    host.vault().connect(new, tokens, false).await.unwrap().0.id
}

/// Which tokens the server was asked to end.
fn ended(server: &Upstream) -> Vec<String> {
    let of = |request: Seen| {
        let form: Vec<_> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        form.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
    };
    server.requests().into_iter().filter(|request| request.path == "/revoke").filter_map(of).collect()
}

/// The entries of one kind.
fn entries(host: &Host, kind: EventKind) -> Vec<Entry> {
    let filter = Filter { kind: Some(kind), ..Filter::default() };
    audit::read(&host.home().audit(), &host.vault().audit_key(), &filter).unwrap()
}

#[tokio::test]
async fn another_account_that_is_replaced_at_its_confirmation_is_ended_at_its_provider() {
    for (before, after, ends) in [
        (Some("octocat"), Some("hubot"), true),
        // Ending the old tokens of the same account could end the new ones.
        (Some("octocat"), Some("octocat"), false),
        (None, Some("hubot"), false),
        (Some("octocat"), None, false),
    ] {
        let server = Upstream::plain().await;
        let agent = agent("probe", "inject", &server).await;
        with_client(&agent).await;
        let connector = agent.host.connector();
        let first = unconfirmed(&agent.host, "first", before).await;
        // What it takes the place of is a key, of which nobody knows whose it is.
        assert!(connector.confirm(first).await.unwrap().replaced.ended.is_empty());
        let second = unconfirmed(&agent.host, "second", after).await;
        assert_eq!(ended(&server), [""; 0], "an account that works on was ended");
        let confirmed = connector.confirm(second).await.unwrap();
        assert_eq!(confirmed.connection.id, second);
        let told: Vec<_> = confirmed.replaced.ended.iter().map(|gone| (gone.connection.id, &gone.revoked)).collect();
        let alive: Vec<_> = confirmed.replaced.left_alive.iter().map(|old| old.id).collect();
        let unknown = before.is_none() || after.is_none();
        assert_eq!(alive, if unknown { vec![first] } else { vec![] }, "{before:?} {after:?}");
        if ends {
            assert!(matches!(told[..], [(id, Some(Ok(())))] if id == first), "{told:?}");
            assert_eq!(ended(&server), ["first"]);
        } else {
            assert!(told.is_empty(), "{told:?}");
            assert_eq!(ended(&server), [""; 0], "{before:?} {after:?}");
        }
        let gone = entries(&agent.host, EventKind::Disconnected);
        assert_eq!(gone.last().unwrap().connection, Some(first.to_string()));
        let detail = gone.last().unwrap().detail.clone().unwrap();
        assert_eq!(detail.contains("not ended"), !ends, "{detail}");
    }
}

#[tokio::test]
async fn an_unconfirmed_connection_that_another_takes_the_place_of_is_written_down() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let id = unconfirmed(&agent.host, "never-confirmed", None).await;
    let before = agent.host.vault().connection(id).unwrap().unwrap();
    let (key, connector) = (AccessToken::new(TOKEN.to_owned()), agent.host.connector());
    let (owner, at, account) = (&before.owner, &before.provider, &before.account);
    connector.fixed(owner, at, account, Kind::StaticBearer, &before.scopes, key).await.unwrap();
    let gone = entries(&agent.host, EventKind::Disconnected);
    let gone = gone.iter().find(|entry| entry.connection == Some(id.to_string())).unwrap();
    assert!(gone.detail.as_ref().unwrap().contains("not ended"), "{gone:?}");
}

#[tokio::test]
async fn what_the_vault_does_not_confirm_is_not_called_confirmed() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let id = unconfirmed(&agent.host, "new", None).await;
    let sql = rusqlite::Connection::open(agent.host.home().database()).unwrap();
    sql.execute("UPDATE connections SET access = zeroblob(64) WHERE state = 'unconfirmed'", []).unwrap();
    let refused = agent.host.connector().confirm(id).await;
    assert!(matches!(refused, Err(ConnectError::Vault(_))), "{refused:?}");
    assert!(entries(&agent.host, EventKind::Confirmed).is_empty());
}

#[tokio::test]
async fn an_account_is_confirmed_although_the_log_takes_no_entry_and_no_token_is_used_until_it_does() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let (host, closed) = with_valve(&agent).await;
    let id = unconfirmed(&host, "new", None).await;
    closed.store(true, Ordering::SeqCst);
    let done = host.connector().confirm(id).await;
    assert!(matches!(done, Err(ConnectError::Unrecorded { .. })), "{done:?}");
    assert_eq!(host.vault().connection(id).unwrap().unwrap().state, State::Active);
    words(fetch(&host).await.unwrap());
    assert!(server.requests().is_empty(), "a request went out unrecorded");
    closed.store(false, Ordering::SeqCst);
    assert!(matches!(fetch(&host).await.unwrap(), End::Value(_)));
}

#[tokio::test]
async fn an_account_is_disconnected_and_revoked_where_the_log_can_t_even_be_opened() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let home = agent.host.home().clone();
    fs::rename(home.audit(), home.folder().join("elsewhere")).unwrap();
    fs::write(home.audit(), "no folder").unwrap();
    let refused = Host::builder(home.clone()).open().await.map(drop);
    assert!(matches!(refused, Err(OpenError::Audit(_))), "{refused:?}");
    let host = Host::builder(home).even_if_broken().open().await.unwrap();
    // It opens, and lets no token out.
    let words = words(fetch(&host).await.unwrap());
    assert!(words.contains("audit"), "{words}");
    assert!(server.requests().is_empty(), "a request went out unrecorded");
    let id = host.vault().connections(None).unwrap()[0].id;
    let done = host.connector().disconnect(id).await;
    let Err(ConnectError::Unrecorded { source: error, gone, .. }) = done else { panic!("{done:?}") };
    let mut cause = std::error::Error::source(&error);
    let mut told = error.to_string();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    assert!(told.contains("/audit can't be used"), "{told}");
    assert!(matches!(&gone.ended[..], [gone] if gone.connection.id == id), "what was ended is not told: {gone:?}");
    assert!(host.vault().connection(id).unwrap().is_none());
    assert_eq!(ended(&server), [TOKEN]);
}

#[tokio::test]
async fn an_account_is_disconnected_while_what_people_wrote_has_errors() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let home = agent.host.home().clone();
    fs::write(home.permissions(), "[[grnt]]\n").unwrap();
    fs::create_dir_all(home.providers_folder()).unwrap();
    fs::write(home.providers_folder().join("broken.toml"), "no provider").unwrap();
    let refused = Host::builder(home.clone()).open().await.map(drop);
    assert!(matches!(refused, Err(OpenError::File(_))), "{refused:?}");
    let host = Host::builder(home).even_if_broken().open().await.unwrap();
    let refused = fetch(&host).await;
    assert!(matches!(refused, Err(InvokeError::Denied(_))), "permissions with errors grant something: {refused:?}");
    let id = host.vault().connections(None).unwrap()[0].id;
    host.connector().disconnect(id).await.unwrap();
    assert!(host.vault().connection(id).unwrap().is_none());
}

#[tokio::test]
async fn an_account_is_disconnected_and_revoked_although_the_log_takes_no_entry() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let (host, closed) = with_valve(&agent).await;
    closed.store(true, Ordering::SeqCst);
    let id = host.vault().connections(None).unwrap()[0].id;
    let done = host.connector().disconnect(id).await;
    assert!(matches!(done, Err(ConnectError::Unrecorded { .. })), "{done:?}");
    assert!(host.vault().connection(id).unwrap().is_none());
    let asked: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/revoke"], "the provider was not told");
    closed.store(false, Ordering::SeqCst);
    let refused = fetch(&host).await;
    assert!(matches!(refused, Err(InvokeError::ActionRequired(_))), "{refused:?}");
}

#[tokio::test]
async fn a_disconnect_that_no_key_can_seal_for_later_is_written_down_at_once() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let before = agent.host.vault().connections(None).unwrap().remove(0);
    let (id, at, account) = (before.id, &before.provider, &before.account);
    let key = AccessToken::new("agents-own-token".to_owned());
    let connector = agent.host.connector();
    connector.fixed(&Owner::Agent, at, account, Kind::StaticBearer, &before.scopes, key).await.unwrap();
    let sql = rusqlite::Connection::open(agent.host.home().database()).unwrap();
    let damaged = "UPDATE keys SET wrapped = zeroblob(length(wrapped)) WHERE namespace != 'derived'";
    assert_eq!(sql.execute(damaged, []).unwrap(), 2);
    let host = Host::builder(agent.host.home().clone()).open().await.unwrap();
    host.connector().disconnect(id).await.unwrap();
    assert!(host.vault().connection(id).unwrap().is_none());
    let gone = entries(&host, EventKind::Disconnected);
    assert_eq!(gone.last().unwrap().connection, Some(id.to_string()));
}

#[tokio::test]
async fn an_account_whose_disconnection_nobody_waits_for_is_ended_at_its_provider_all_the_same() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    with_client(&agent).await;
    let id = agent.host.vault().connections(None).unwrap()[0].id;
    let connector = agent.host.connector();
    {
        let mut begun = std::pin::pin!(connector.disconnect(id));
        // As far as its first wait, and then it is given up.
        std::future::poll_fn(|cx| {
            assert!(begun.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    connector.settle().await;
    assert!(agent.host.vault().connection(id).unwrap().is_none());
    assert_eq!(ended(&server), [TOKEN]);
}

#[tokio::test]
async fn a_receipt_says_what_was_reached_with_what_and_where_the_log_tells_of_it() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    let outcome = call(&agent.host, "probe", "fetch", &input).await.unwrap();
    let receipt = outcome.receipt;
    let connection = &agent.host.vault().connections(None).unwrap()[0];
    assert_eq!(receipt.invocation, outcome.invocation);
    assert_eq!(receipt.origins, ["https://api.github.com"]);
    assert_eq!(receipt.credentials, [(connection.id, connection.generation)]);
    assert_eq!(receipt.policy_hash, agent.host.policy().hash());
    let position = receipt.position.unwrap();
    let filter = Filter { invocation: Some(receipt.invocation), kind: Some(EventKind::Invoked), ..Filter::default() };
    let entry = &read(&agent.host.home().audit(), &agent.host.vault().audit_key(), &filter).unwrap()[0];
    assert_eq!((&entry.chain, entry.seq), (&receipt.chain, position.seq));
    assert!(entry.json.contains(position.hash.to_string().trim_start_matches("sha256:")));

    // What is refused is not reached.
    let input = json!({ "method": "GET", "url": "https://elsewhere.example/", "headers": [], "body": "" });
    let receipt = call(&agent.host, "probe", "fetch", &input).await.unwrap().receipt;
    assert!(receipt.origins.is_empty() && receipt.credentials.is_empty(), "{receipt:?}");
}

/// A sink that takes lines, until it is told to take no more.
struct Collector(Arc<AtomicBool>);

impl Sink for Collector {
    fn append(&self, _line: &[u8]) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn another_sink_that_fails_keeps_tokens_in_while_access_is_taken_away_as_ever() {
    let server = Upstream::plain().await;
    let agent = agent("probe", "inject", &server).await;
    let closed = Arc::new(AtomicBool::new(false));
    let sink = Destination::Sink("collector".to_owned(), Arc::new(Collector(Arc::clone(&closed))));
    let settings = Settings { sinks: vec![sink], ..Settings::default() };
    let host = Host::builder(agent.host.home().clone()).audit_settings(settings).open().await.unwrap();
    assert!(matches!(fetch(&host).await.unwrap(), End::Value(_)));
    closed.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let words = words(fetch(&host).await.unwrap());
        assert!(words.contains("audit"), "{words}");
    }
    assert_eq!(server.requests().len(), 1, "a request went out that not every sink knows");
    let id = host.vault().connections(None).unwrap()[0].id;
    host.connector().disconnect(id).await.unwrap();
    fs::write(host.home().permissions(), "").unwrap();
    host.reload_policy().unwrap();
    assert!(matches!(fetch(&host).await, Err(InvokeError::Denied(_))));
}
