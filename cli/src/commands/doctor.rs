//! `clawcoil doctor`

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use clap::Args;
use clawcoil::audit::{self, Destination};
use clawcoil::clock::{Clock as _, SystemClock};
use clawcoil::host::{Home, Host};
use clawcoil::id::Owner;
use clawcoil::provider::{Kind, Loopback};
use clawcoil::vault::{Connection, State};
use serde_json::json;

use super::audit::silence;
use super::{agent, policy, provider};
use crate::console::CALLBACK;
use crate::exit::Failure;
use crate::output::Output;
use crate::serve::{self, Config};
use crate::settings::Settings;

/// Look whether everything is in order, and say how to mend what is not
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 where something must be mended; what only could be better does not count.

Examples:
  clawcoil doctor
  clawcoil doctor --json")]
pub(crate) struct Doctor {}

/// What was found about one thing.
struct Finding {
    about: &'static str,
    health: Health,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// It works, and could be better.
    Better,
    Bad,
}

impl Health {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Better => "note",
            Self::Bad => "bad",
        }
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, about: &'static str, health: Health, text: impl Into<String>) {
        self.0.push(Finding { about, health, text: text.into() });
    }

    /// A check that gives what is fine about it, or the error with its way out.
    fn check(&mut self, about: &'static str, checked: Result<String, Failure>) {
        match checked {
            Ok(text) => self.add(about, Health::Good, text),
            Err(failure) => self.add(about, Health::Bad, failure.to_string()),
        }
    }
}

impl Doctor {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let mut findings = Findings::default();
        files(&home, &mut findings);
        vault(&home, &mut findings).await;
        machine(settings, &mut findings).await;
        redirects(&home, &mut findings).await;
        pages(&home, &mut findings).await;

        let bad = findings.0.iter().filter(|finding| finding.health == Health::Bad).count();
        let objects = findings
            .0
            .iter()
            .map(|finding| json!({ "about": finding.about, "health": finding.health.as_str(), "text": finding.text }));
        let object = json!({ "healthy": bad == 0, "findings": objects.collect::<Vec<_>>() });
        let told = output.answer(object, || {
            let lines = findings.0.iter().map(|finding| {
                let style = match finding.health {
                    Health::Good => "32",
                    Health::Better => "33",
                    Health::Bad => "31;1",
                };
                let health = output.styled(style, &format!("{:<5}", finding.health.as_str()));
                format!(
                    "{health} {:<12} {}",
                    finding.about,
                    finding.text.trim_end().replace('\n', "\n                   ")
                )
            });
            lines.collect::<Vec<_>>().join("\n")
        });
        // That somebody reads only the first lines makes nothing healthy.
        if bad == 0 { told } else { Err(Failure::already_told()) }
    }
}

/// What people wrote.
fn files(home: &Home, findings: &mut Findings) {
    findings.check("home", Ok(home.folder().display().to_string()));
    if std::fs::metadata(home.folder()).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
        let text = format!("others on this machine can look into it: chmod 700 {}", home.folder().display());
        findings.add("home", Health::Better, text);
    }
    match policy::checked(home) {
        Ok(found) => {
            match found.errors {
                Some(errors) => findings.check("files", Err(errors.into())),
                None => findings.check("files", Ok("permissions, providers and manifests are in order".to_owned())),
            }
            if let Some(warnings) = found.warnings {
                findings.add("files", Health::Better, Failure::from(warnings).to_string());
            }
        }
        Err(failure) => findings.check("files", Err(failure)),
    }
}

/// Whether what is installed can be compiled: files get damaged. Manifests are looked at with the other files.
async fn skills(host: &Host, findings: &mut Findings) {
    let names = match host.registry().names() {
        Ok(names) => names,
        Err(error) => return findings.check("skills", Err(error.into())),
    };
    let mut sound = Vec::new();
    for name in &names {
        let Ok(skill) = host.registry().get(name) else { continue };
        match host.runtime().compile(skill.component).await {
            Ok(_) => sound.push(name.as_str()),
            Err(error) => {
                let why = Failure::from(error);
                let text = format!("{name} can't be used: {why}\nadd it again: clawcoil skill add COMPONENT");
                findings.add("skills", Health::Bad, text);
            }
        }
    }
    if names.is_empty() {
        findings.add("skills", Health::Good, "none installed; clawcoil skill add COMPONENT");
    } else if !sound.is_empty() {
        findings.add("skills", Health::Good, sound.join(", "));
    }
}

/// The keys, the database, the log, and the connections in them.
async fn vault(home: &Home, findings: &mut Findings) {
    let vault = match agent::open_vault(home).await {
        Ok(vault) => vault,
        Err(failure) => return findings.add("vault", Health::Bad, failure.to_string()),
    };
    findings.add("vault", Health::Good, format!("opens with the identity of {}", vault.agent()));
    let verified = home.audit_settings().map_err(Failure::from).and_then(|settings| {
        audit::verify_with(&home.audit(), &vault.audit_key(), &settings.witnesses()).map_err(Failure::from)
    });
    let seen = verified.as_ref().ok().and_then(|summary| summary.epoch);
    for place in verified.iter().flat_map(|summary| &summary.silent) {
        findings.add("audit", Health::Better, silence(place));
    }
    sinks(home, findings);
    findings.check(
        "audit",
        verified.map(|summary| {
            format!(
                "{} entries in {} files, nothing changed or missing; {} signed checkpoints agree",
                summary.entries, summary.chains, summary.checkpoints
            )
        }),
    );
    // A restored database is older than what the log has seen.
    if let Ok(epoch) = vault.epoch()
        && let Some(seen) = seen.filter(|seen| *seen > epoch)
    {
        let text = format!(
            "the database is older than the audit log knows it (change {epoch}, the log saw {seen}): it was put back from a backup; people may have to connect again"
        );
        findings.add("vault", Health::Bad, text);
    }
    match vault.unreadable_changes() {
        Ok(0) => {}
        Ok(count) => {
            let text = format!(
                "{count} changes of tokens are missing in the audit log: their rows in the vault can't be read, and were set aside; they were edited or damaged, and a backup of the database may have them whole"
            );
            findings.add("audit", Health::Bad, text);
        }
        Err(error) => findings.check("audit", Err(error.into())),
    }
    let connections = match vault.connections(None) {
        Ok(connections) => connections,
        Err(error) => return findings.check("connections", Err(error.into())),
    };
    let mut in_order = 0;
    for connection in &connections {
        let which = format!("{} of {}", connection.provider, connection.owner);
        match connection.state {
            State::Active => in_order += 1,
            State::Unconfirmed => {
                findings.add("connections", Health::Better, unconfirmed(connection, &connections));
            }
            State::NeedsReconnect { reason, .. } => {
                let text = format!("{which} has to be connected again: {}", reason.explanation());
                findings.add("connections", Health::Better, text);
            }
        }
    }
    findings.add("connections", Health::Good, format!("{in_order} in use"));
}

/// Where entries are to go besides: without it no token is released.
fn sinks(home: &Home, findings: &mut Findings) {
    let Ok(settings) = home.audit_settings() else { return };
    for sink in &settings.sinks {
        let trouble = match sink {
            Destination::Socket(path) => UnixStream::connect(path).err().map(|error| error.to_string()),
            Destination::Command(words) => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                (!is_program(program)).then(|| "there is no such program".to_owned())
            }
            Destination::Folder(_) | Destination::Sink(..) => None,
        };
        if let Some(trouble) = trouble {
            let text =
                format!("{sink:?} takes no entries, so no token is released: {trouble}; mend it, or change audit.toml");
            findings.add("audit", Health::Bad, text);
        }
    }
}

/// Whether this can be run. One that is looked for on the search path is taken to be there.
fn is_program(program: &str) -> bool {
    let found = || std::fs::metadata(program);
    !program.contains('/') || found().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What to do about a connection that nobody has confirmed: the one that it was to replace may still be in use.
fn unconfirmed(connection: &Connection, all: &[Arc<Connection>]) -> String {
    let Connection { id, owner, provider, account, .. } = connection;
    let twin = all.iter().find(|other| {
        other.id != *id && other.owner == *owner && other.provider == *provider && other.account == *account
    });
    let whose = match owner {
        Owner::User(user) => format!("--user {user}"),
        Owner::Agent => "--agent".to_owned(),
    };
    let remove = format!("clawcoil connections disconnect {id}");
    match twin {
        Some(twin) => format!(
            "{provider} of {owner} was connected once more ({id}), and nobody confirmed that account; {} stays in use. Keep it so: {remove}. Change to the other: clawcoil connect {provider} {whose} --account {account}",
            twin.id
        ),
        None => format!(
            "{provider} of {owner} ({id}) is connected, but nobody confirmed whose account it is, so it is not used: clawcoil connect {provider} {whose} --account {account}, and say yes to the account; or {remove}"
        ),
    }
}

/// What the machine gives.
async fn machine(settings: &Settings, findings: &mut Findings) {
    match agent::open(settings).await {
        Err(failure) => {
            let why = failure.to_string();
            // The whole of it stands there already, where only one thing keeps the host from opening.
            let told = findings.0.iter().any(|finding| finding.health == Health::Bad && finding.text == why);
            findings.add("host", Health::Bad, if told { "can't start until that is mended".to_owned() } else { why });
        }
        Ok(host) => {
            skills(&host, findings).await;
            if host.runtime().report().keeps_slots_resident {
                findings.add("engine", Health::Good, "slots stay warm between calls");
            } else {
                let text = "Linux 6.7 or newer would make calls faster (PAGEMAP_SCAN)";
                findings.add("engine", Health::Better, text);
            }
        }
    }
    let now = SystemClock::new().now();
    // Long before this program was written: tokens would never seem to expire.
    if now < clawcoil::clock::Timestamp::from_second(1_735_689_600).unwrap_or(now) {
        findings.add("clock", Health::Bad, format!("it is {now}, says the system's clock: set it"));
    } else {
        findings.add("clock", Health::Good, format!("{now:.0}"));
    }
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .stderr(Stdio::null())
        .output();
    match libraries {
        Ok(found) if std::path::Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_dir() => {
            findings.add("rust", Health::Good, "the target wasm32-wasip2 is installed");
        }
        Ok(_) => findings.add("rust", Health::Better, "to build skills: rustup target add wasm32-wasip2"),
        Err(_) => findings.add(
            "rust",
            Health::Better,
            "to build skills in Rust: https://rustup.rs, then rustup target add wasm32-wasip2",
        ),
    }
}

/// The ports at which browsers come back.
async fn redirects(home: &Home, findings: &mut Findings) {
    let Ok(catalogue) = provider::catalogue(home) else { return };
    let mut ports: Vec<u16> = catalogue
        .iter()
        .filter_map(|entry| if let Loopback::Port(_, port) = entry.loopback { Some(port) } else { None })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        match tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await {
            Ok(_) => {
                findings.add("redirects", Health::Good, format!("port {port} is free for the browser to come back to"));
            }
            Err(error) => {
                let text = format!(
                    "port {port}, where browsers come back to, can't be used now: {error}; end the program that has it"
                );
                findings.add("redirects", Health::Better, text);
            }
        }
    }
}

/// What providers must know so that people can connect accounts on the pages of `clawcoil serve`.
async fn pages(home: &Home, findings: &mut Findings) {
    let config = match Config::of(home) {
        Ok(config) => config,
        Err(errors) => return findings.check("serve", Err(errors.into())),
    };
    // Without a file of its own, nobody has set up serving yet.
    if !home.folder().join(serve::config::FILE).exists() {
        return;
    }
    if let Some(console) = &config.console
        && let Ok(origins) = super::serve::expected_origins(home)
    {
        let text = format!("{} must know the address {} for sign-in", console.issuer, origins.url(CALLBACK));
        findings.add("serve", Health::Good, text);
    }
    let (Ok(catalogue), Ok(clients)) = (provider::catalogue(home), provider::clients(home).await) else { return };
    for entry in catalogue.iter().filter(|entry| matches!(entry.kind, Kind::Oauth(_)) && clients.contains(&entry.id)) {
        match provider::served_redirect(home, entry) {
            Ok(address) => {
                findings.add("serve", Health::Good, format!("{} must know the address {address}", entry.name));
            }
            Err(why) => findings.add("serve", Health::Better, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use clawcoil::audit;
    use clawcoil::diagnostic::Source;
    use clawcoil::policy::{Cases, Manifest, Permissions};
    use clawcoil::provider::Catalogue;

    use crate::serve::Config;

    #[test]
    fn each_file_in_the_docs_is_one_that_is_read() {
        let docs = include_str!("../../../docs/files.md");
        let mut read = Vec::new();
        for block in docs.split("```toml\n# ").skip(1) {
            let text = block.split("\n```").next().unwrap_or_default();
            let name = text.lines().next().unwrap_or_default();
            let source = Source::new(name, format!("# {text}\n"));
            let wrong = match name {
                "permissions.toml" => Permissions::parse(&[source]).err(),
                "skill.toml" => Manifest::parse(&source).err(),
                "provider.toml" => Catalogue::with(&[source]).err(),
                "permissions.test.toml" => Cases::parse(&source).err(),
                "serve.toml" => Config::parse(&source).err(),
                "audit.toml" => audit::Settings::parse(&source).err(),
                other => panic!("nothing reads {other}"),
            };
            assert!(wrong.is_none(), "{}", wrong.map(|errors| errors.to_string()).unwrap_or_default());
            read.push(name);
        }
        assert_eq!(read.len(), docs.matches("```toml").count());
        assert_eq!(read.len(), 6, "{read:?}");
    }
}
