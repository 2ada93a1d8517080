//! No secret of a whole life (connect, call, refresh, denial, reveal, disconnect) leaves its place in any form.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawcoil::id::Owner;
use clawcoil::runtime::End;
use clawcoil::secret::ClientSecret;
use clawcoil::vault::{ClientRegistration, Connection};
use clawcoil_tests::{GuestAgent, Reply, Seen, Upstream, canary};
use serde_json::{Value, json};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;

const CODE: &str = "canary-code+4f/2a=Zq81";
const REFUSED_CODE: &str = "canary-refused-code+0d/9e=Lw33";
const CLIENT_SECRET: &str = "canary-client-secret~77aa&31Pm";
const API_KEY: &str = "canary-api-key%zz!xR04Tt";

/// Whatever is logged, by anybody.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logged {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// An error as people, programs and logs see it, with all that caused it.
fn seen(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{error:?}\n{error:#?}\n");
    let mut next = Some(error);
    while let Some(error) = next {
        writeln!(text, "{error}\n{error:?}").unwrap();
        next = error.source();
    }
    text
}

fn access(generation: usize) -> String {
    format!("canary-access-{generation}+9c/1b=Kd27")
}

fn refresh(generation: usize) -> String {
    format!("canary-refresh-{generation}&ee/5c=Vb60")
}

/// A provider that says back whatever secret it was told, as a badly made or hostile one does.
#[derive(Default)]
struct Provider {
    generation: Mutex<usize>,
    verifiers: Mutex<Vec<String>>,
}

impl Provider {
    fn reply(&self, request: &Seen) -> Reply {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let told = format!("you sent {body} with {:?}", request.authorization());
        let form: Vec<(String, String)> =
            url::form_urlencoded::parse(&request.body).map(|(name, value)| (name.into(), value.into())).collect();
        let field = |name: &str| form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        let plainly: Vec<_> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let refusal = |error: &str| {
            let words = format!("{told}; {}", plainly.join(" "));
            (400, json!({ "error": error, "error_description": words, "error_uri": words }).to_string())
        };
        let mut generation = self.generation.lock().unwrap();
        match request.path.as_str() {
            "/token" => {
                if !field("code_verifier").is_empty() {
                    self.verifiers.lock().unwrap().push(field("code_verifier").to_owned());
                }
                if field("code") == REFUSED_CODE || field("refresh_token") == refresh(2) {
                    return refusal("invalid_grant");
                }
                *generation += 1;
                let answer = json!({
                    "access_token": access(*generation), "refresh_token": refresh(*generation),
                    "token_type": "Bearer", "expires_in": 3600,
                });
                (200, answer.to_string())
            }
            "/revoke" => refusal("server_error"),
            "/fresh" if request.authorization() != Some(&format!("Bearer {}", access(2))) => (401, told),
            _ => (200, told),
        }
    }
}

fn manifest(name: &str, use_: &str, origin: &str) -> String {
    format!(
        "[skill]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
         [[service]]\nname = \"google\"\nprovider = \"google\"\nscopes = [\"mail\"]\nuse = \"{use_}\"\nreason = \"to test\"\n\
         optional = true\n[[service.request]]\norigin = \"{origin}\"\n\
         [[service]]\nname = \"keyed\"\nprovider = \"keyed\"\nuse = \"inject\"\nreason = \"to test\"\noptional = true\n\
         [[service.request]]\norigin = \"https://keyed.example\"\n"
    )
}

fn permissions() -> String {
    let mut text = String::new();
    for (skill, service, provider, more) in [
        ("probe", "google", "google", "scopes = [\"mail\"]\nuse = \"inject\""),
        ("probe", "keyed", "keyed", "use = \"inject\""),
        ("probe-reveal", "google", "google", "scopes = [\"mail\"]\nuse = \"reveal\""),
    ] {
        writeln!(
            text,
            "[[grant]]\nskill = \"{skill}\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"{service}\"\n\
             provider = \"{provider}\"\n{more}"
        )
        .unwrap();
    }
    text
}

fn providers(server: &str) -> String {
    format!(
        "[provider.google]\nauthorize = \"{server}/authorize\"\ntoken = \"{server}/token\"\nrevoke = \"{server}/revoke\"\n\
         issuer = \"{server}\"\nloopback = \"http://127.0.0.1\"\n\
         [provider.google.override]\n\"https://gmail.googleapis.com\" = \"{server}\"\n\
         [provider.keyed]\nname = \"Keyed\"\nkind = \"api-key\"\napi-origins = [\"https://keyed.example\"]\n\
         [provider.keyed.override]\n\"https://keyed.example\" = \"{server}\"\n"
    )
}

/// The life of an account, and everything that was told about it to anybody.
struct Life {
    agent: GuestAgent,
    server: Upstream,
    told: String,
}

impl Life {
    async fn begin(provider: &Arc<Provider>) -> Self {
        let server = Upstream::start({
            let provider = Arc::clone(provider);
            move |request| provider.reply(request)
        })
        .await;
        let providers = providers(&server.origin());
        let own = manifest("probe", "inject", "https://gmail.googleapis.com");
        let agent = GuestAgent::new("probe", &own, &permissions(), &providers, &[]).await;
        agent.install("probe-reveal", &manifest("probe-reveal", "reveal", "https://gmail.googleapis.com"));
        let client_secret = Some(ClientSecret::new(CLIENT_SECRET.to_owned()));
        let registration = ClientRegistration { client_id: "known".to_owned(), client_secret };
        agent.host.vault().put_client(&"google".parse().unwrap(), registration).await.unwrap();
        Self { agent, server, told: String::new() }
    }

    /// Goes through a browser's part with this code.
    async fn connect(&mut self, code: &str) -> Option<Arc<Connection>> {
        let owner = Owner::User("alice".parse().unwrap());
        let back: Url = "http://127.0.0.1:47123/callback/google".parse().unwrap();
        let (google, account) = ("google".parse().unwrap(), "default".parse().unwrap());
        let connector = self.agent.host.connector();
        let scopes = BTreeSet::from(["mail".parse().unwrap()]);
        let started = connector.start(&owner, &google, &account, &scopes, &back).await.unwrap();
        writeln!(self.told, "{started:?}").unwrap();
        let (_, state) = started.url.query_pairs().find(|(name, _)| name == "state").unwrap();
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("code", code)
            .append_pair("state", &state)
            .append_pair("iss", &self.server.origin())
            .finish();
        match connector.callback(&owner, &query).await {
            Ok(connection) => {
                let confirmed = connector.confirm(connection.id).await.unwrap().connection;
                writeln!(self.told, "{connection:?} {confirmed:?}").unwrap();
                Some(confirmed)
            }
            Err(error) => {
                self.told.push_str(&seen(&error));
                None
            }
        }
    }

    async fn call(&mut self, skill: &str, tool: &str, input: Value) -> Option<End> {
        match self.agent.call_skill(skill, tool, &input).await {
            Ok(outcome) => {
                writeln!(self.told, "{outcome:?}\n{}", outcome.logs.text).unwrap();
                for denial in &outcome.denials {
                    writeln!(self.told, "{}\n{}", denial.explain(), seen(denial)).unwrap();
                }
                for action in &outcome.actions {
                    writeln!(self.told, "{action}").unwrap();
                }
                Some(outcome.end)
            }
            Err(error) => {
                self.told.push_str(&seen(&error));
                None
            }
        }
    }

    async fn get(&mut self, url: &str) -> Option<End> {
        self.call("probe", "fetch", json!({ "method": "GET", "url": url, "headers": [], "body": "" })).await
    }

    /// How many requests went to this path with this token.
    fn sent(&self, path: &str, token: &str) -> usize {
        let bearer = format!("Bearer {token}");
        let there = |request: &&Seen| request.path == path && request.authorization() == Some(bearer.as_str());
        self.server.requests().iter().filter(there).count()
    }

    async fn live(&mut self) {
        assert!(self.connect(REFUSED_CODE).await.is_none());
        let first = self.connect(CODE).await.unwrap();
        // The first token is refused, the second one comes by a refresh.
        let answered = self.get("https://gmail.googleapis.com/fresh").await;
        assert!(matches!(answered, Some(End::Value(_))), "{answered:?}");
        assert_eq!((self.sent("/fresh", &access(1)), self.sent("/fresh", &access(2))), (1, 1));

        let stolen = json!({
            "service": "google", "method": "POST", "url": "https://gmail.googleapis.com/issues",
            "body": "{\"body\":\"{placeholder}\"}", "header": null,
        });
        let denied = self.call("probe", "placeholder", stolen).await;
        assert!(matches!(denied, Some(End::ToolError(_))), "{denied:?}");
        let denied = self.get("https://elsewhere.example/").await;
        assert!(matches!(denied, Some(End::ToolError(_))), "{denied:?}");

        let shown = self.call("probe-reveal", "show", json!({ "service": "google" })).await;
        assert!(matches!(shown, Some(End::Value(_))), "{shown:?}");

        let owner = Owner::User("alice".parse().unwrap());
        let secret = clawcoil::secret::AccessToken::new(API_KEY.to_owned());
        let connector = self.agent.host.connector();
        let (keyed, account) = ("keyed".parse().unwrap(), "default".parse().unwrap());
        let kind = clawcoil::vault::Kind::ApiKey;
        connector.fixed(&owner, &keyed, &account, kind, &BTreeSet::new(), secret).await.unwrap();
        let answered = self.get("https://keyed.example/key").await;
        assert!(matches!(answered, Some(End::Value(_))), "{answered:?}");
        assert_eq!(self.sent("/key", API_KEY), 1);

        // The second refresh is refused, with the refresh token in the refusal.
        let refused = self.agent.host.broker().refresh(first.id).await.unwrap_err();
        self.told.push_str(&seen(&refused));
        let after = self.agent.host.vault().connection(first.id).unwrap().unwrap();
        assert_ne!(after.state, clawcoil::vault::State::Active);
        let denied = self.get("https://gmail.googleapis.com/fresh").await;
        assert!(!matches!(denied, Some(End::Value(_))), "{denied:?}");

        let second = self.connect(CODE).await.unwrap();
        let gone = self.agent.host.connector().disconnect(second.id).await.unwrap();
        writeln!(self.told, "{gone:?}").unwrap();
        let Some(Err(error)) = gone.revoked else { panic!("the provider refuses revocations") };
        self.told.push_str(&seen(&error));
    }
}

/// Copies a folder in another process: closing a file of the vault here would drop SQLite's locks on it.
fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    assert!(Command::new("cp").arg("-r").arg(folder).arg(copy.path()).status().unwrap().success());
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_logs_errors_results_or_files() {
    let logged = Logged::default();
    let (level, levels) = reload::Layer::new(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(logged.clone());
    tracing_subscriber::registry().with(level).with(lines).init();
    canary::plant(canary::Kind::ApiKey, API_KEY);
    for generation in 1..=3 {
        canary::plant(canary::Kind::AccessToken, access(generation));
        canary::plant(canary::Kind::RefreshToken, refresh(generation));
    }
    let provider = Arc::new(Provider::default());
    let mut life = Life::begin(&provider).await;
    // The compiler writes a hundred lines for each of the guest's instructions, and knows no secret.
    levels.modify(|level| *level = LevelFilter::WARN).unwrap();
    for skill in ["probe", "probe-reveal"] {
        life.agent.host.ready(&skill.parse().unwrap()).await.unwrap();
    }
    levels.modify(|level| *level = LevelFilter::TRACE).unwrap();
    life.live().await;

    let pem = std::fs::read_to_string(life.agent.host.home().key()).unwrap();
    let verifiers = provider.verifiers.lock().unwrap().clone();
    let generations = *provider.generation.lock().unwrap();
    assert_eq!((verifiers.len(), generations), (3, 3));
    let mut secrets: Vec<Vec<u8>> = [CODE, REFUSED_CODE, CLIENT_SECRET, API_KEY].map(Into::into).into();
    secrets.extend(verifiers.into_iter().map(String::into_bytes));
    secrets.extend((1..=generations).flat_map(|generation| [access(generation).into(), refresh(generation).into()]));
    secrets.extend(canary::private_key(&pem));

    let wire = format!("{:?}", life.server.requests());
    assert!(canary::find(wire.as_bytes(), access(2)).is_some(), "the search sees what the provider was sent");
    let log = logged.0.lock().unwrap().clone();
    canary::keep("a-life", &log);
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("TRACE") && text.contains("a refresh failed"), "everything that is logged was searched");
    for (place, text) in [("the log", &log[..]), ("what was told", life.told.as_bytes())] {
        if let Some((at, which)) = canary::find_any(text, &secrets) {
            let around = &text[at.saturating_sub(300)..text.len().min(at + 200)];
            panic!("secret {which} is in {place}: {}", String::from_utf8_lossy(around));
        }
    }

    let copy = copied(life.agent.host.home().folder());
    let home = copy.path().join("home");
    assert_eq!(canary::files_with(&home, &secrets), [home.join("identity.key")]);
    for file in ["vault.db", "vault.db-wal", "vault.db-shm"] {
        assert!(home.join(file).is_file(), "{file} was searched");
    }
    for folder in ["audit", "cache"] {
        assert!(std::fs::read_dir(home.join(folder)).unwrap().count() > 0, "files in {folder} were searched");
    }
}

#[test]
fn the_search_finds_a_secret_that_is_planted_in_each_form() {
    let folder = tempfile::tempdir().unwrap();
    let key: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(73) ^ 0xa5).collect();
    for secret in [CODE.as_bytes(), CLIENT_SECRET.as_bytes(), API_KEY.as_bytes(), &key] {
        for before in 0..3 {
            let text = [&b"xy"[..before], secret, b" and more"].concat();
            for (n, form) in [
                text.clone(),
                STANDARD.encode(&text).into(),
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text).into(),
                hex::encode(&text).into(),
                hex::encode_upper(&text).into(),
                url::form_urlencoded::byte_serialize(&text).collect::<String>().into(),
            ]
            .into_iter()
            .enumerate()
            {
                let file = folder.path().join("planted");
                std::fs::write(&file, [&b"much else "[..], &form].concat()).unwrap();
                assert_eq!(canary::files_with(folder.path(), &[secret]), [file], "form {n} after {before}");
                assert_eq!(canary::find(&form, b"another-secret-than-this"), None);
            }
        }
    }
}
