//! `clawcoil provider`

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clawcoil::audit::{Event, EventKind};
use clawcoil::diagnostic::Source;
use clawcoil::host::Home;
use clawcoil::id::ProviderId;
use clawcoil::oauth::Server;
use clawcoil::provider::{Catalogue, Kind, Provider};
use clawcoil::secret::ClientSecret;
use clawcoil::vault::ClientRegistration;
use serde_json::{Value, json};

use super::{agent, serve};
use crate::connecting::redirect_uri;
use crate::exit::{Code, Failure};
use crate::output::{Output, Table};
use crate::sandbox;
use crate::settings::Settings;

/// The services at which accounts can be connected
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil provider list                                 which providers there are
  clawcoil provider show google                          what to register there
  clawcoil provider add google --client-id 123.apps.example
  clawcoil provider remove google")]
pub(crate) struct ProviderCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    /// List the known providers, and where a client is stored
    #[command(after_help = "Examples:\n  clawcoil provider list\n  clawcoil provider list --json")]
    List,
    /// Show what is known of a provider, and what to register there
    #[command(after_help = "Examples:\n  clawcoil provider show google")]
    Show {
        /// The provider
        provider: ProviderId,
    },
    /// Remove the client and your own entry of a provider; connections stay until they expire
    #[command(after_help = "Examples:\n  clawcoil provider remove acme")]
    Remove {
        /// The provider
        provider: ProviderId,
    },
}

/// Store your client at a provider, or add a provider of your own
///
/// The client's secret is asked for at a terminal, or read from stdin. It is never an argument, as others could see it there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil provider show google                                     what to register, and where
  clawcoil provider add google --client-id 123.apps.example         asks for the secret
  clawcoil provider add acme --file acme.toml --client-id 123 < secret
  clawcoil provider add weather --file weather.toml                an API with a key needs no client
  clawcoil provider add google --sandbox                            as served by `clawcoil sandbox`")]
struct Add {
    /// The provider
    provider: ProviderId,

    /// What the provider calls your client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// The client has no secret
    #[arg(long, requires = "client_id")]
    no_secret: bool,

    /// An entry of your own for the catalogue, or changes to a known one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Use the sandbox that `clawcoil sandbox` serves instead of the real provider
    #[arg(long, value_name = "ORIGIN", num_args = 0..=1, default_missing_value = "http://127.0.0.1:8417",
          conflicts_with_all = ["file", "client_id"])]
    sandbox: Option<String>,
}

impl ProviderCommand {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        match self.action {
            Action::Add(add) => add.run(settings, output).await,
            Action::List => list(settings, output).await,
            Action::Show { provider } => show(&provider, settings, output).await,
            Action::Remove { provider } => remove(&provider, settings, output).await,
        }
    }
}

impl Add {
    async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        if let Some(file) = &self.file {
            let text = Source::open(file)?.text().to_owned();
            install_entry(&home, &self.provider, &file.display().to_string(), &text)?;
        }
        let mut client = None;
        if let Some(origin) = &self.sandbox {
            let text = sandbox::entry(self.provider.as_str(), origin).ok_or_else(|| {
                Failure::usage(format!(
                    "the sandbox does not stand in for {}; it does for {}",
                    self.provider,
                    sandbox::ENTRIES.join(", ")
                ))
            })?;
            install_entry(&home, &self.provider, "the sandbox's entry", &text)?;
            let sandbox = sandbox::Settings::default();
            client = Some((sandbox.client_id, Some(sandbox.client_secret)));
        }
        let catalogue = catalogue(&home)?;
        let entry = known(&catalogue, &self.provider)?;
        if let Some(id) = &self.client_id {
            let secret = if self.no_secret {
                None
            } else {
                Some(output.secret(&format!("Secret of the client at {}", entry.name)).await?)
            };
            client = Some((id.clone(), secret));
        }
        let mut has_client = client.is_some();
        if let Some((client_id, secret)) = client {
            let client_secret = secret.map(ClientSecret::new);
            let vault = agent::open_vault(&home).await?;
            let event = Event { provider: Some(self.provider.clone()), ..Event::new(EventKind::ClientSet) };
            agent::record(&home, &vault, &event)?;
            vault.put_client(&self.provider, ClientRegistration { client_id, client_secret }).await?;
        } else if entry.server().is_some() && self.file.is_none() {
            return Err(Failure::usage(format!(
                "say which client you registered{}: --client-id ID",
                register_at(entry)
            )));
        } else {
            has_client = clients(&home).await?.contains(&entry.id);
        }
        let ready = has_client || entry.server().is_none();
        let redirect = entry.loopback.to_register(&entry.id);
        let served = served_redirect(&home, entry);
        let object = json!({
            "provider": entry.id.as_str(), "redirect_uri": redirect, "serve_redirect_uri": served.as_ref().ok(),
            "client": has_client, "ready": ready,
        });
        output.answer(object, || {
            let mut lines = vec![if ready {
                format!("{} is ready.", entry.name)
            } else {
                format!("{} is in the catalogue. What is missing is your client there.", entry.name)
            }];
            if let (Kind::Oauth(_), Some(redirect), None) = (&entry.kind, &redirect, &self.sandbox) {
                lines.push(format!("Its client must have this redirect address registered: {redirect}"));
            }
            if let (Kind::Oauth(_), None) = (&entry.kind, &self.sandbox) {
                lines.push(match &served {
                    Ok(served) => format!("For pages of `clawcoil serve`, this one: {served}"),
                    Err(why) => format!("It can't be connected on pages of `clawcoil serve` yet: {why}"),
                });
            }
            lines.push(if ready {
                format!("\nNext: {}", connect_command(entry))
            } else {
                format!(
                    "\nNext: register a client{}, then clawcoil provider add {} --client-id ID",
                    register_at(entry),
                    entry.id
                )
            });
            lines.join("\n")
        })
    }
}

/// The redirect address for the pages of `clawcoil serve`, or why there is none.
pub(super) fn served_redirect(home: &Home, entry: &Provider) -> Result<String, String> {
    let origins = serve::expected_origins(home).map_err(|failure| failure.to_string())?;
    redirect_uri(entry, &origins).map(String::from).map_err(|error| error.to_string())
}

fn connect_command(entry: &Provider) -> String {
    match entry.kind {
        Kind::ClientCredentials(_) => format!("clawcoil connect {} --agent", entry.id),
        Kind::Oauth(_) | Kind::ApiKey => format!("clawcoil connect {} --user …", entry.id),
    }
}

fn register_at(entry: &Provider) -> String {
    entry.register.as_ref().map(|page| format!(" at {page}")).unwrap_or_default()
}

/// The catalogue with the operator's files.
pub(super) fn catalogue(home: &Home) -> Result<Catalogue, Failure> {
    Ok(Catalogue::with(&home.provider_sources()?)?)
}

/// The provider of this name, or an error that says which there are.
pub(super) fn known<'a>(catalogue: &'a Catalogue, id: &ProviderId) -> Result<&'a Provider, Failure> {
    catalogue.get(id).ok_or_else(|| {
        Failure::error(format!(
            "there is no provider {id} in the catalogue; see `clawcoil provider list`, or add it with `clawcoil provider add {id} --file …`"
        ))
    })
}

/// Puts an entry into the operator's folder, once it and all other entries are in order together.
pub(super) fn install_entry(home: &Home, id: &ProviderId, shown: &str, text: &str) -> Result<(), Failure> {
    let path = entry_path(home, id);
    let mut sources = Vec::new();
    for source in home.provider_sources()? {
        if Path::new(source.name()) != path {
            sources.push(source);
        }
    }
    sources.push(Source::new(shown, text));
    let names_it = text.lines().any(|line| line.trim_start().starts_with(&format!("[provider.{id}")));
    Catalogue::with(&sources)?;
    if !names_it {
        return Err(Failure::error(format!(
            "{shown} has no [provider.{id}]: name the provider that the file is about"
        )));
    }
    fs::create_dir_all(home.providers_folder())
        .map_err(|error| Failure::error(format!("{} can't be made: {error}", home.providers_folder().display())))?;
    agent::replace_file(&path, text)
}

fn entry_path(home: &Home, id: &ProviderId) -> PathBuf {
    home.providers_folder().join(format!("{id}.toml"))
}

fn kind(entry: &Provider) -> &'static str {
    match entry.kind {
        Kind::Oauth(_) => "oauth",
        Kind::ClientCredentials(_) => "client-credentials",
        Kind::ApiKey => "api-key",
    }
}

/// The providers at which a client is stored; none where there is no agent yet.
pub(super) async fn clients(home: &Home) -> Result<Vec<ProviderId>, Failure> {
    if !home.database().exists() {
        return Ok(Vec::new());
    }
    Ok(agent::open_vault(home).await?.clients()?)
}

async fn list(settings: &Settings, output: &Output) -> Result<(), Failure> {
    let home = agent::home(settings)?;
    let catalogue = catalogue(&home)?;
    let clients = clients(&home).await?;
    let state = |entry: &Provider| {
        if clients.contains(&entry.id) {
            "client stored"
        } else if entry.server().is_none() {
            "needs no client"
        } else {
            ""
        }
    };
    let object = catalogue.iter().map(|entry| {
        json!({ "provider": entry.id.as_str(), "name": entry.name, "kind": kind(entry), "client": clients.contains(&entry.id) })
    });
    output.answer(json!({ "providers": object.collect::<Vec<_>>() }), || {
        let mut table = Table::new(&["provider", "name", "kind", "state"]);
        for entry in catalogue.iter() {
            table.row([entry.id.to_string(), entry.name.clone(), kind(entry).to_owned(), state(entry).to_owned()]);
        }
        table.render()
    })
}

async fn show(id: &ProviderId, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let home = agent::home(settings)?;
    let catalogue = catalogue(&home)?;
    let entry = known(&catalogue, id)?;
    let client = clients(&home).await?.contains(id);
    let origins: Vec<String> = entry.api_origins.iter().map(ToString::to_string).collect();
    let server = entry.server().map(addresses);
    let redirect = entry.loopback.to_register(id);
    let is_oauth = matches!(entry.kind, Kind::Oauth(_));
    let redirect_of_serve = if is_oauth { served_redirect(&home, entry).ok() } else { None };
    let overrides: serde_json::Map<String, Value> =
        entry.overrides.iter().map(|(from, to)| (from.to_string(), json!(to.to_string()))).collect();
    let object = json!({
        "provider": id.as_str(), "name": entry.name, "kind": kind(entry), "client": client, "api_origins": origins,
        "server": server, "redirect_uri": redirect, "serve_redirect_uri": redirect_of_serve, "register": entry.register.as_ref().map(ToString::to_string),
        "documentation": entry.documentation.as_ref().map(ToString::to_string), "note": entry.note,
        "overrides": overrides,
    });
    output.answer(object, || {
        let mut lines = vec![format!("{} ({id}, {})", entry.name, kind(entry))];
        let mut line =
            |name: &str, value: Option<String>| lines.extend(value.map(|value| format!("{name:<15} {value}")));
        line("client", entry.server().map(|_| if client { "stored" } else { "none yet" }.to_owned()));
        line("register at", entry.register.as_ref().map(ToString::to_string));
        line("redirect", redirect.clone());
        line("with serve", redirect_of_serve);
        if let Some(server) = entry.server() {
            for (name, address) in named_addresses(server) {
                line(name, Some(address));
            }
        }
        line("API", Some(origins.join(", ")));
        for (from, to) in &entry.overrides {
            line("stand-in", Some(format!("{from} is dialled at {to}")));
        }
        line("documentation", entry.documentation.as_ref().map(ToString::to_string));
        line("note", entry.note.clone());
        lines.join("\n")
    })
}

fn named_addresses(server: &Server) -> Vec<(&'static str, String)> {
    let mut named = Vec::new();
    named.extend(server.authorize.as_ref().map(|url| ("authorize", url.to_string())));
    named.push(("token", server.token.to_string()));
    named.extend(server.revocation.as_ref().map(|revocation| ("revoke", revocation.url.to_string())));
    named.extend(server.introspect.as_ref().map(|url| ("introspect", url.to_string())));
    named
}

fn addresses(server: &Server) -> Value {
    named_addresses(server).into_iter().map(|(name, address)| (name.to_owned(), json!(address))).collect()
}

async fn remove(id: &ProviderId, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let home = agent::existing_home(settings)?;
    let vault = agent::open_vault(&home).await?;
    let had_client = vault.remove_client(id).await?;
    if had_client {
        agent::record(&home, &vault, &Event { provider: Some(id.clone()), ..Event::new(EventKind::ClientRemoved) })?;
    }
    let path = entry_path(&home, id);
    let had_entry = path.exists();
    if had_entry {
        fs::remove_file(&path)
            .map_err(|error| Failure::error(format!("{} can't be removed: {error}", path.display())))?;
    }
    if !had_client && !had_entry {
        return Err(Failure::new(Code::Error, format!("there is no client and no entry of your own for {id}")));
    }
    output.answer(json!({ "provider": id.as_str(), "client": had_client, "entry": had_entry }), || {
        let what = match (had_client, had_entry) {
            (true, true) => "Your client and your entry",
            (true, false) => "Your client",
            _ => "Your entry",
        };
        format!("{what} for {id} is removed.")
    })
}
