//! The agent that a command works on: its home, opened as far as the command needs.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use clawcoil::audit::{AuditLog, Event, Opening};
use clawcoil::clock::{Clock, SystemClock};
use clawcoil::host::{Home, Host, HostBuilder, OpenError};
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
    opened(settings, &host);
    Ok(host)
}

/// Opens the host for taking access away, whatever became of its audit log and its files.
pub(super) async fn open_even_if_broken(settings: &Settings) -> Result<Host, Failure> {
    let host = builder(existing_home(settings)?).even_if_broken().open().await?;
    opened(settings, &host);
    Ok(host)
}

/// What every opened host wants: its refreshes are waited for, and nothing of this process is for others to read.
pub(super) fn opened(settings: &Settings, host: &Host) {
    let under_way = (host.broker().clone(), host.connector().clone());
    settings.under_way.lock().unwrap_or_else(PoisonError::into_inner).push(under_way);
    if let Err(error) = harden_process() {
        tracing::warn!("{error}");
    }
}

/// Opens the host in this home.
pub(super) async fn open_at(home: Home) -> Result<Host, Failure> {
    Ok(builder(home).open().await?)
}

fn builder(home: Home) -> HostBuilder {
    let engine = EngineSettings { concurrent_calls: 16, warm_memory: 16 << 20 };
    let runtime = runtime::Settings { engine, ..runtime::Settings::default() };
    Host::builder(home).runtime(runtime)
}

/// Opens the vault alone: for what must work even where the rest of the home is broken.
pub(super) async fn open_vault(home: &Home) -> Result<Vault, Failure> {
    let identity = Identity::load(&home.certificate(), &home.key())?;
    Ok(Vault::open(&home.database(), &identity, clock()).await?)
}

/// Writes down what an operator did, where no host is open.
pub(super) fn record(home: &Home, vault: &Vault, event: &Event) -> Result<(), Failure> {
    let key = vault.audit_key();
    let settings = home.audit_settings()?;
    let opening = Opening { key: &key, agent: Some(vault.agent()), epoch: Some(vault.epoch()?), settings: &settings };
    AuditLog::open(&home.audit(), &opening, clock())?.append(event)?;
    Ok(())
}

/// A person at the command line: the local owner of the vault may act for each of its users.
pub(super) fn caller(user: &UserId) -> Result<Caller, Failure> {
    let client: ClientName = CLIENT.parse().map_err(|error| Failure::error(format!("{error}")))?;
    Ok(Caller::new(client, user.clone()))
}

/// Writes a file of the home so that it is whole at any moment. A link stays one, and the file's mode stays.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<(), Failure> {
    use io::Write as _;
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let new = place.with_extension(format!("new-{}", std::process::id()));
    let written = fs::File::create(&new)
        .and_then(|mut file| {
            if let Ok(before) = fs::metadata(&place) {
                file.set_permissions(before.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, &place));
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
        Failure::error(format!("{} can't be written: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_the_link_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("kept-elsewhere"), folder.path().join("permissions.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        replace_file(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }
}
