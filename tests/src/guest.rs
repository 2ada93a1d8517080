//! An agent with one skill that does what a test tells it to.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use clawcoil::audit::{self, Entry, Filter};
use clawcoil::clock::SystemClock;
use clawcoil::host::{Home, Host, InvokeError, Outcome, init};
use clawcoil::id::{Caller, ConnectionId, ExplanationId, Owner};
use clawcoil::identity::Recovery;
use clawcoil::net::{NetSettings, Resolve};
use clawcoil::runtime::{EngineSettings, Settings};
use clawcoil::secret::AccessToken;
use clawcoil::vault::Kind;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{name, plant_key};
use crate::canary;

#[allow(clippy::unwrap_used, reason = "shared with the benches")]
#[path = "../../host/benches/hot/guests.rs"]
mod guests;

/// Built once for a test run.
static GUESTS: LazyLock<HashMap<String, Vec<u8>>> = LazyLock::new(guests::build);

/// The manifest of the guest `probe`: it asks GitHub, if an account is there.
pub const PROBE_MANIFEST: &str = "\
[skill]
name = \"probe\"
version = \"0.1.0\"
description = \"Try what it is told\"
[[service]]
name = \"github\"
provider = \"github\"
scopes = [\"repo\"]
optional = true
reason = \"to test\"
[[service.request]]
origin = \"https://api.github.com\"
";

/// The grant of all that [`PROBE_MANIFEST`] wants, for everyone.
pub const PROBE_GRANT: &str = "\
[[grant]]
skill = \"probe\"
approval = \"none\"
users = [\"*\"]
service = \"github\"
provider = \"github\"
scopes = [\"repo\"]
use = \"inject\"
";

/// The manifest of the guest `attacks`, which wants to see the token, if an account is there.
pub const ATTACKS_MANIFEST: &str = "\
[skill]
name = \"attacks\"
version = \"0.1.0\"
description = \"Try what it is told\"
[[service]]
name = \"service\"
provider = \"github\"
scopes = [\"repo\"]
use = \"reveal\"
optional = true
reason = \"to test\"
[[service.request]]
origin = \"https://api.github.com\"
";

/// An agent in a folder of its own, with one skill.
#[derive(Debug)]
pub struct GuestAgent {
    /// The host, to be used as it is.
    pub host: Arc<Host>,
    skill: String,
    folder: TempDir,
}

/// All names are these addresses.
pub struct Names(pub Vec<IpAddr>);

#[async_trait::async_trait]
impl Resolve for Names {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

impl GuestAgent {
    /// A new agent with the guest of this name, under this manifest, permissions and providers. Every name resolves to
    /// `addresses`.
    ///
    /// # Panics
    ///
    /// The guest can't be built, or the host refuses one of the files.
    pub async fn new(guest: &str, manifest: &str, permissions: &str, providers: &str, addresses: &[IpAddr]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::at(folder.path().join("home"));
        canary::watch();
        init(&home, &Recovery::none(), Arc::new(SystemClock::new())).await.expect("a new home");
        plant_key(&home);
        fs::create_dir_all(home.providers_folder()).expect("a folder for providers");
        fs::write(home.providers_folder().join("test.toml"), providers).expect("the providers are written");
        fs::write(home.permissions(), permissions).expect("the permissions are written");
        let host = Arc::new(Self::open(&home, addresses).await);
        let mut agent = Self { skill: String::new(), host, folder };
        agent.skill = agent.install(guest, manifest);
        agent
    }

    /// Installs a guest, and returns the name that its manifest gives it.
    ///
    /// # Panics
    ///
    /// The guest can't be built, or the host refuses it.
    pub fn install(&self, guest: &str, manifest: &str) -> String {
        let folder = self.folder.path().join(guest);
        fs::create_dir_all(&folder).expect("a folder for the skill");
        let bytes = GUESTS.get(&guest.replace('-', "_")).unwrap_or_else(|| panic!("no guest {guest}"));
        fs::write(folder.join("component.wasm"), bytes).expect("the component is written");
        fs::write(folder.join("skill.toml"), manifest).expect("the manifest is written");
        let added = self.host.registry().add(&folder.join("component.wasm"), None);
        added.unwrap_or_else(|error| panic!("{error}")).name().to_string()
    }

    async fn open(home: &Home, addresses: &[IpAddr]) -> Host {
        let net = NetSettings {
            resolver: Arc::new(Names(addresses.to_vec())),
            ..NetSettings::new(Arc::new(SystemClock::new()))
        };
        let engine = EngineSettings { concurrent_calls: 32, ..EngineSettings::default() };
        let settings = Settings { engine, ..Settings::default() };
        let host = Host::builder(home.clone()).net(net).runtime(settings).open().await;
        host.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A second host on the same home, as a second process has it.
    pub async fn another_host(&self) -> Host {
        Self::open(self.host.home(), &[]).await
    }

    /// The folder that holds everything of this agent.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stores a token that alice got by hand, and answers for it.
    ///
    /// # Panics
    ///
    /// The host refuses.
    pub async fn connect(&self, provider: &str, scopes: &[&str], secret: &str) -> ConnectionId {
        self.connect_account("alice", "default", provider, scopes, secret).await
    }

    /// The same for an account of any user.
    ///
    /// # Panics
    ///
    /// The host refuses.
    pub async fn connect_account(
        &self,
        user: &str,
        account: &str,
        provider: &str,
        scopes: &[&str],
        secret: &str,
    ) -> ConnectionId {
        canary::plant(canary::Kind::ApiKey, secret);
        let scopes: BTreeSet<_> = scopes.iter().copied().map(name).collect();
        let (owner, secret) = (Owner::User(name(user)), AccessToken::new(secret.to_owned()));
        self.host
            .connector()
            .fixed(&owner, &name(provider), &name(account), Kind::StaticBearer, &scopes, secret)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
            .id
    }

    /// Calls a tool of the skill for alice.
    pub async fn call(&self, tool: &str, input: &Value) -> Result<Outcome, InvokeError> {
        self.call_skill(&self.skill, tool, input).await
    }

    /// Calls a tool of another skill for alice.
    pub async fn call_skill(&self, skill: &str, tool: &str, input: &Value) -> Result<Outcome, InvokeError> {
        let caller = Caller::new(name("tests"), name("alice"));
        self.host.invoke(&caller, &name(skill), Some(tool), input).await
    }

    /// The entry of the audit log under which a refusal was explained.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn explained(&self, id: ExplanationId) -> Entry {
        let filter = Filter { explanation: Some(id), ..Filter::default() };
        let found = audit::tail(&self.host.home().audit(), &self.host.vault().audit_key(), &filter, 1);
        found.expect("the log is read").pop().unwrap_or_else(|| panic!("the log has no entry for {id}"))
    }
}
