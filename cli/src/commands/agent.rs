//! The agent that a command works on: its home, opened as far as the command needs.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use clawcoil::audit::{AuditLog, Event, Opening};
use clawcoil::clock::{Clock, SystemClock};
use clawcoil::host::{Home, Host, OpenError};
use clawcoil::id::{Caller, ClientName, UserId};
use clawcoil::identity::{Identity, harden_process};
use clawcoil::runtime::{self, EngineSettings};
use clawcoil::vault::Vault;

use crate::exit::Failure;
use crate::settings::Settings;

/// Under which name the permissions know the command line.
pub(super) const CLIENT: &str = "cli";

/// The system's clock, for the library.
pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// Where the agent is, whether or not it is there yet.
pub(super) fn home(settings: &Settings) -> Result<Home, Failure> {
    let folder = settings.home.as_ref().ok_or_else(|| {
        Failure::usage("where the agent lives can't be found out, as HOME is not set: name its folder with --home")
    })?;
    Ok(Home::at(folder))
}

/// The agent's home, which must exist.
pub(super) fn existing_home(settings: &Settings) -> Result<Home, Failure> {
    let home = home(settings)?;
    if home.database().exists() || home.key().exists() {
        return Ok(home);
    }
    Err(OpenError::NoHome(home.folder().display().to_string()).into())
}

/// Opens the host for one command: a small engine, and nothing of this process for others to read.
pub(super) async fn open(settings: &Settings) -> Result<Host, Failure> {
    let host = open_at(existing_home(settings)?).await?;
    if let Err(error) = harden_process() {
        tracing::warn!("{error}");
    }
    Ok(host)
}

/// Opens the host in this home.
pub(super) async fn open_at(home: Home) -> Result<Host, Failure> {
    let engine = EngineSettings { concurrent_calls: 16, warm_memory: 16 << 20 };
    let runtime = runtime::Settings { engine, ..runtime::Settings::default() };
    Ok(Host::builder(home).runtime(runtime).open().await?)
}

/// Opens the vault alone: for what must work even where the rest of the home is broken.
pub(super) async fn open_vault(home: &Home) -> Result<Vault, Failure> {
    let identity = Identity::load(&home.certificate(), &home.key())?;
    Ok(Vault::open(&home.database(), &identity, clock()).await?)
}

/// Writes down what an operator did, where no host is open.
pub(super) fn record(home: &Home, vault: &Vault, event: &Event) -> Result<(), Failure> {
    let key = vault.audit_key();
    let opening = Opening { key: &key, agent: Some(vault.agent()), epoch: Some(vault.epoch()?) };
    AuditLog::open(&home.audit(), &opening, clock())?.append(event)?;
    Ok(())
}

/// A person at the command line: the local owner of the vault may act for each of its users.
pub(super) fn caller(user: &UserId) -> Result<Caller, Failure> {
    let client: ClientName = CLIENT.parse().map_err(|error| Failure::error(format!("{error}")))?;
    Ok(Caller { client, user: user.clone() })
}

/// Writes a file of the home so that it is whole at any moment.
pub(super) fn replace_file(path: &Path, text: &str) -> Result<(), Failure> {
    use io::Write as _;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
        Failure::error(format!("{} can't be written: {error}", path.display()))
    })
}
