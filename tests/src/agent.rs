//! An agent in a folder of its own, set up as an operator does it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use clawcoil::clock::{Clock, SystemClock};
use clawcoil::diagnostic::Source;
use clawcoil::host::{Home, Host, InvokeError, Outcome, init};
use clawcoil::id::{AccountAlias, Caller, ConnectionId, Owner, Scope, SkillName, UserId};
use clawcoil::identity::Recovery;
use clawcoil::policy::{NewGrant, add_grant};
use clawcoil::secret::{AccessToken, ClientSecret};
use clawcoil::vault::{ClientRegistration, Connection, Kind};
use serde_json::Value;
use tempfile::TempDir;

use crate::{AuthorizationServer, Browser, canary, skills};

/// An agent whose providers are all played by one authorization server.
#[derive(Debug)]
pub struct Agent {
    /// The host, to be used as it is.
    pub host: Arc<Host>,
    folder: TempDir,
}

/// Notes the key of the agent, which is to be in no output.
pub(crate) fn plant_key(home: &Home) {
    canary::plant_key(&fs::read_to_string(home.key()).expect("the agent has a key"));
}

/// The name that a text is to be.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

impl Agent {
    /// A new agent with these skills installed and nothing granted.
    ///
    /// # Panics
    ///
    /// A skill is not built, or the agent can't be made.
    pub async fn new(server: &AuthorizationServer, skills: &[&str]) -> Self {
        Self::with_clock(server, skills, Arc::new(SystemClock::new())).await
    }

    /// The same, living by another clock than the system's.
    ///
    /// # Panics
    ///
    /// A skill is not built, or the agent can't be made.
    pub async fn with_clock(server: &AuthorizationServer, skills: &[&str], clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::at(folder.path().join("home"));
        canary::watch();
        init(&home, &Recovery::none(), Arc::clone(&clock)).await.expect("a new home");
        plant_key(&home);
        fs::create_dir_all(home.providers_folder()).expect("a folder for providers");
        for example in ["internal-report", "signed-webhook", "weather"] {
            let file = skills::root().join("skills-examples").join(example).join("provider.toml");
            fs::copy(&file, home.providers_folder().join(format!("{example}.toml"))).expect("the example's provider");
        }
        fs::write(home.providers_folder().join("zz-test.toml"), stand_ins(server.origin())).expect("the stand-ins");
        let host = Host::builder(home).clock(clock).open().await.unwrap_or_else(|error| panic!("{error}"));
        for skill in skills {
            host.registry().add(&skills::component(skill), None).unwrap_or_else(|error| panic!("{error}"));
        }
        for (provider, client) in [("google", "person"), ("salesforce", "person"), ("company", "machine")] {
            let secret = ClientSecret::new(AuthorizationServer::SECRET.to_owned());
            let registration = ClientRegistration { client_id: client.to_owned(), client_secret: Some(secret) };
            host.vault().put_client(&name(provider), registration).await.expect("the client is stored");
        }
        Self { host: Arc::new(host), folder }
    }

    /// A second host on the same home, as another process has it.
    ///
    /// # Panics
    ///
    /// It can't be opened.
    pub async fn another_host(&self) -> Host {
        Host::builder(self.host.home().clone()).open().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The folder that holds everything of this agent.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Grants a skill all that it declares, for users of this pattern.
    ///
    /// # Panics
    ///
    /// The grant does not fit.
    pub fn grant(&self, skill: &str, user: &str) {
        self.edit_grants(skill, user, |_| {});
    }

    /// The same for the agent's own connection.
    pub fn grant_as_agent(&self, skill: &str, user: &str) {
        self.edit_grants(skill, user, |grant| {
            if let Some(service) = &mut grant.service {
                service.as_agent = true;
            }
        });
    }

    fn edit_grants(&self, skill: &str, user: &str, edit: impl Fn(&mut NewGrant)) {
        let skill = self.host.registry().get(&name(skill)).unwrap_or_else(|error| panic!("{error}"));
        let path = self.host.home().permissions();
        for declared in &skill.manifest.services {
            let mut grant = NewGrant::for_service(skill.name(), skill.digest, declared, &name::<UserId>("placeholder"));
            grant.users = vec![user.to_owned()];
            edit(&mut grant);
            let source = Source::open(&path).unwrap_or_else(|error| panic!("{error}"));
            let edited = add_grant(&source, &grant).unwrap_or_else(|error| panic!("{error}"));
            fs::write(&path, edited.text).expect("the permissions are written");
        }
        self.host.reload_policy().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Appends lines to the permissions and puts them in force.
    ///
    /// # Panics
    ///
    /// They have errors.
    pub fn permit(&self, lines: &str) {
        let path = self.host.home().permissions();
        let text = fs::read_to_string(&path).expect("the permissions are read");
        fs::write(&path, format!("{text}\n{lines}")).expect("the permissions are written");
        self.host.reload_policy().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Connects a person's account as they do it in a browser, and confirms it.
    ///
    /// # Panics
    ///
    /// The server or the host refuses.
    pub async fn connect(&self, user: &str, provider: &str, scopes: &[&str]) -> Arc<Connection> {
        let owner = Owner::User(name(user));
        let scopes: BTreeSet<Scope> = scopes.iter().copied().map(name).collect();
        let back = format!("http://127.0.0.1:47123/callback/{provider}").parse().expect("an address");
        let connector = self.host.connector();
        let started = connector
            .start(&owner, &name(provider), &default_account(), &scopes, &back)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let answer = Browser::new().consent(started.url, user, &back).await;
        let query = answer.query().unwrap_or_default();
        let code = answer.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
        canary::plant(canary::Kind::AuthorizationCode, code.unwrap_or_default());
        let connection = connector.callback(&owner, query).await.unwrap_or_else(|error| panic!("{error:?}"));
        connector.confirm(connection.id).await.unwrap_or_else(|error| panic!("{error}")).connection
    }

    /// Stores a credential that was got by hand.
    ///
    /// # Panics
    ///
    /// The host refuses.
    pub async fn connect_fixed(&self, user: &str, provider: &str, kind: Kind, scopes: &[&str], secret: &str) {
        canary::plant(canary::Kind::ApiKey, secret);
        let scopes = scopes.iter().copied().map(name).collect();
        let secret = AccessToken::new(secret.to_owned());
        self.host
            .connector()
            .fixed(&Owner::User(name(user)), &name(provider), &default_account(), kind, &scopes, secret)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Calls a tool for a user.
    pub async fn call(&self, user: &str, skill: &str, tool: &str, input: &Value) -> Result<Outcome, InvokeError> {
        let caller = Caller::new(name("tests"), name(user));
        self.host.invoke(&caller, &name::<SkillName>(skill), Some(tool), input).await
    }

    /// The connection as it is now.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn connection(&self, id: ConnectionId) -> Arc<Connection> {
        self.host.vault().connection(id).expect("the vault is read").expect("the connection is there")
    }
}

/// The alias of a user's only account.
pub(crate) fn default_account() -> AccountAlias {
    name("default")
}

/// What an operator writes to have a test server stand in for the real ones.
fn stand_ins(server: &str) -> String {
    let oauth = |provider: &str| {
        format!(
            "[provider.{provider}]\nauthorize = \"{server}/auth\"\ntoken = \"{server}/token\"\n\
             revoke = \"{server}/token/revocation\"\nissuer = \"{server}\"\nloopback = \"http://127.0.0.1\"\n"
        )
    };
    let machine = format!("[provider.company]\ntoken = \"{server}/token\"\nrevoke = \"{server}/token/revocation\"\n");
    let api = |provider: &str, origin: &str| format!("[provider.{provider}.override]\n\"{origin}\" = \"{server}\"\n");
    [
        oauth("google"),
        api("google", "https://gmail.googleapis.com"),
        "[provider.google.answer]\naccount = \"/account\"\n".to_owned(),
        oauth("salesforce"),
        format!("introspect = \"{server}/token/introspection\"\n"),
        api("salesforce", "https://acme.my.salesforce.com"),
        machine,
        api("company", "https://reports.company.example"),
        api("github", "https://api.github.com"),
        api("slack", "https://slack.com"),
        api("openweather", "https://api.openweathermap.org"),
        api("webhook", "https://events.company.example"),
    ]
    .concat()
}
