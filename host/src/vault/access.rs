//! Connections, and the one read of a plaintext access token.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connection::{Connection, NewConnection, State, TokenSet};
use super::datastore::{ConnectionRow, DocumentRow, Stamp};
use super::envelope::{Bound, Field, Item, Place};
use super::error::VaultError;
use super::vault::{Vault, text};
use crate::audit::{Decision, EventKind};
use crate::clock::random;
use crate::id::{AccountAlias, ConnectionId, Generation, Owner, ProviderId};
use crate::policy::Permit;
use crate::secret::{AccessToken, RefreshToken};

/// How often a connection's last use is written down.
const USE_SECONDS: u64 = 60;

/// The rows of one owner as of one moment. The tokens in them are ciphertext.
pub(super) struct Held {
    stamp: Stamp,
    rows: Vec<HeldRow>,
}

struct HeldRow {
    connection: Arc<Connection>,
    access: Vec<u8>,
    bound: Bound,
}

/// The use of a connection that was noted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    generation: Generation,
    second: u64,
}

/// An access token, as of this moment.
#[derive(Debug)]
pub struct Access {
    /// The token.
    pub token: AccessToken,
    /// Whose it is and until when: its generation, expiry, type and scopes.
    pub connection: Arc<Connection>,
}

/// What a search for a connection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This one.
    One(Arc<Connection>),
    /// None: nobody connected an account of this provider, or none of this name.
    None,
    /// Several, none of them called `default`: the caller has to name one.
    Several(Vec<AccountAlias>),
}

/// A connection that was removed, and its tokens for revoking them. A token that could not be opened is absent.
#[derive(Debug)]
pub struct Removed {
    /// What it was.
    pub connection: Arc<Connection>,
    /// Its access token.
    pub access: Option<AccessToken>,
    /// Its refresh token.
    pub refresh: Option<RefreshToken>,
    /// Whether the vault keeps what is to be told of that until the audit log has it. It does, unless no key could seal it.
    pub is_kept: bool,
}

impl Vault {
    /// Stores a new connection. One that is confirmed takes the place of the owner's one before of the same provider and
    /// account; one that is not stands beside it, and its tokens can't be used, until [`confirm`](Self::confirm). With it comes
    /// what it took the place of: for one that is not confirmed, earlier ones that never were.
    pub async fn connect(
        &self,
        new: NewConnection,
        tokens: TokenSet,
        confirmed: bool,
    ) -> Result<(Arc<Connection>, Vec<Removed>), VaultError> {
        let connection = Connection {
            id: ConnectionId::from_bytes(random(&*self.clock)),
            owner: new.owner,
            provider: new.provider,
            account: new.account,
            kind: new.kind,
            scopes: new.scopes,
            api_origin: None,
            account_label: None,
            token_type: String::new(),
            state: if confirmed { State::Active } else { State::Unconfirmed },
            generation: Generation(1),
            created_at: self.clock.now(),
            last_used_at: None,
            expires_at: None,
            refresh_at: None,
            grant_ends_at: None,
        };
        let connection = Arc::new(connection.with(&tokens, tokens.refresh.is_some(), &*self.clock));
        let access = self.seal_record(&self.access_place(&connection), tokens.access.expose().as_bytes()).await?;
        let refresh = match &tokens.refresh {
            Some(token) => {
                let place = self.refresh_place(&connection);
                Some(self.seal_record(&place, token.expose().as_bytes()).await?)
            }
            None => None,
        };
        let row = ConnectionRow { connection: Arc::clone(&connection), access, refresh, previous: None };
        loop {
            let changes = self.changes_of_taking_place(EventKind::Connected, &connection).await?;
            match self.store.put_connection(row.clone(), changes).await {
                // Another connection was stored in between, which nobody would be told of.
                Err(VaultError::Moved { .. }) => {}
                stored => {
                    let removed = stored?.into_iter().map(|row| self.removed(row)).collect();
                    return Ok((connection, removed));
                }
            }
        }
    }

    /// Makes an unconfirmed connection usable, in the place of the one before: its user has seen which account it is. Gives what
    /// it took the place of, as [`disconnect`](Self::disconnect) does. One that is confirmed stays so.
    pub async fn confirm(&self, id: ConnectionId) -> Result<Vec<Removed>, VaultError> {
        let row = self.store.connection(id)?.ok_or_else(|| gone(id))?;
        let base = row.connection.generation;
        if row.connection.state != State::Unconfirmed {
            return Ok(Vec::new());
        }
        let secret = self.open_record(&self.access_place(&row.connection), &row.access)?;
        let confirmed = Connection { state: row.connection.state.confirmed(), ..(*row.connection).clone() };
        let access = self.seal_record(&self.access_place(&confirmed), &secret).await?;
        let refresh = match row.refresh.as_deref() {
            Some(record) => {
                let secret = self.open_record(&self.refresh_place(&row.connection), record)?;
                Some(self.seal_record(&self.refresh_place(&confirmed), &secret).await?)
            }
            None => None,
        };
        let changes = self.changes_of_taking_place(EventKind::Confirmed, &confirmed).await?;
        let before = self.store.confirm(id, base, access, refresh, changes).await?;
        Ok(before.into_iter().map(|row| self.removed(row)).collect())
    }

    /// What is to be told when this connection takes the place of those of the same account.
    async fn changes_of_taking_place(
        &self,
        kind: EventKind,
        new: &Connection,
    ) -> Result<Vec<(ConnectionId, DocumentRow)>, VaultError> {
        let mut changes = vec![(new.id, self.change(kind, Decision::Allowed, new, None).await?)];
        for old in self.connections(Some(&new.owner))? {
            if old.id == new.id || old.provider != new.provider || old.account != new.account {
                continue;
            }
            let left = if old.is_of_another_than(new) { "" } else { "; its tokens were not ended at the provider" };
            let why = format!("{} took its place{left}", new.id);
            changes.push((old.id, self.change(EventKind::Disconnected, Decision::Allowed, &old, Some(&why)).await?));
        }
        Ok(changes)
    }

    /// Removes a connection and gives its tokens for revoking; `None` if there is none.
    pub async fn disconnect(&self, id: ConnectionId) -> Result<Option<Removed>, VaultError> {
        let Some(known) = self.connection(id)? else { return Ok(None) };
        // Without any key to seal it, it is removed all the same.
        let change = self.change_of_end(&known).await;
        let change = change.inspect_err(|error| tracing::error!(%error, "a disconnect leaves nothing to tell")).ok();
        let is_kept = change.is_some();
        let row = self.store.remove_connection(id, change).await?;
        Ok(row.map(|row| Removed { is_kept, ..self.removed(row) }))
    }

    fn removed(&self, row: ConnectionRow) -> Removed {
        self.uses.invalidate(&row.connection.id);
        let opened = |place: Place<'_>, record: &[u8]| {
            let secret = self.open_record(&place, record).and_then(|bytes| text(|| place, bytes));
            secret.inspect_err(|error| tracing::warn!(%error, "a token that was removed can't be revoked")).ok()
        };
        let access = opened(self.access_place(&row.connection), &row.access).map(AccessToken::new);
        let refresh = row
            .refresh
            .as_deref()
            .and_then(|record| opened(self.refresh_place(&row.connection), record))
            .map(RefreshToken::new);
        Removed { connection: row.connection, access, refresh, is_kept: true }
    }

    /// The connections of an owner, or all.
    pub fn connections(&self, owner: Option<&Owner>) -> Result<Vec<Arc<Connection>>, VaultError> {
        match owner {
            Some(owner) => Ok(self.held(owner)?.rows.iter().map(|row| Arc::clone(&row.connection)).collect()),
            None => Ok(self.store.connections(None)?.into_iter().map(|row| row.connection).collect()),
        }
    }

    /// One connection by its id, whoever owns it.
    pub fn connection(&self, id: ConnectionId) -> Result<Option<Arc<Connection>>, VaultError> {
        Ok(self.store.connection(id)?.map(|row| row.connection))
    }

    /// The connection of an owner at a provider. Without an account: the only one, else the one called `default`.
    pub fn find(
        &self,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
    ) -> Result<Found, VaultError> {
        let held = self.held(owner)?;
        let of_provider = held.rows.iter().map(|row| &row.connection).filter(|c| c.provider == *provider);
        if let Some(account) = account {
            let best = of_provider.filter(|c| c.account == *account).min_by_key(|c| usefulness(c));
            return Ok(best.map_or(Found::None, |c| Found::One(Arc::clone(c))));
        }
        let mut best: BTreeMap<&AccountAlias, &Arc<Connection>> = BTreeMap::new();
        for connection in of_provider {
            let known = best.entry(&connection.account).or_insert(connection);
            if usefulness(connection) < usefulness(known) {
                *known = connection;
            }
        }
        // An account that was begun and never confirmed does not make the choice among the others harder.
        if best.values().any(|c| c.state == State::Active) {
            best.retain(|_, c| c.state != State::Unconfirmed);
        }
        let default = best.iter().find(|(account, _)| account.is_default());
        let chosen = default.or_else(|| best.iter().next().filter(|_| best.len() == 1));
        Ok(match chosen {
            Some((_, connection)) => Found::One(Arc::clone(connection)),
            None if best.is_empty() => Found::None,
            None => Found::Several(best.keys().map(|&account| account.clone()).collect()),
        })
    }

    /// The access token of a connection: the one read of a plaintext token, and it takes a permit.
    ///
    /// The permit must be for this connection's owner and provider, and for its account if it names one. Whether the token
    /// is still fresh is for the caller to judge. Costs one decryption and no system call while nothing was committed to the
    /// database.
    pub fn access_token(&self, permit: &Permit, id: &ConnectionId) -> Result<Access, VaultError> {
        self.open_access(permit.owner(), permit.provider(), permit.account(), id)
    }

    /// The same, if the connection is still at this generation; else it is [`VaultError::Moved`], and nothing is decrypted.
    pub fn access_token_at(
        &self,
        permit: &Permit,
        id: &ConnectionId,
        generation: Generation,
    ) -> Result<Access, VaultError> {
        let held = self.held(permit.owner())?;
        let row = usable(&held, permit.owner(), permit.provider(), permit.account(), id)?;
        if row.connection.generation != generation {
            return Err(VaultError::Moved { connection: *id, base: generation });
        }
        self.open_row(permit.owner(), row)
    }

    /// The connection whose access token [`access_token`](Self::access_token) would give. Nothing is decrypted.
    pub fn usable(&self, permit: &Permit, id: &ConnectionId) -> Result<Arc<Connection>, VaultError> {
        let held = self.held(permit.owner())?;
        let row = usable(&held, permit.owner(), permit.provider(), permit.account(), id)?;
        Ok(Arc::clone(&row.connection))
    }

    /// What [`access_token`](Self::access_token) does, with the coordinates that a permit has.
    pub(super) fn open_access(
        &self,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        id: &ConnectionId,
    ) -> Result<Access, VaultError> {
        let held = self.held(owner)?;
        self.open_row(owner, usable(&held, owner, provider, account, id)?)
    }

    fn open_row(&self, owner: &Owner, row: &HeldRow) -> Result<Access, VaultError> {
        let connection = &row.connection;
        let place = || self.access_place(connection);
        let secret = self.open_bound(owner, &row.bound, &row.access, place)?;
        let token = AccessToken::new(text(place, secret)?);
        Ok(Access { token, connection: Arc::clone(connection) })
    }

    /// Notes that the access token of this generation was used with success. The refresh token of before the last
    /// rotation is dropped then. It costs a write once per generation, and at most once a minute.
    pub fn mark_used(&self, id: ConnectionId, generation: Generation) {
        let this = Use { generation, second: self.clock.monotonic().as_secs() };
        let noted = self.uses.get(&id);
        if noted.is_some_and(|last| last.generation >= generation && this.second < last.second + USE_SECONDS) {
            return;
        }
        self.uses.insert(id, this);
        self.store.used(id, generation, self.clock.now());
    }

    /// The rows of an owner: from the cache while nothing was committed since.
    fn held(&self, owner: &Owner) -> Result<Arc<Held>, VaultError> {
        // Taken before the rows are read: a commit in between makes the stamp too old, never too new.
        let stamp = self.store.stamp();
        let current = |held: &Arc<Held>| (held.stamp == stamp).then(|| Arc::clone(held));
        if let Some(held) = self.held.read(owner, current).flatten() {
            return Ok(held);
        }
        let rows = self.store.connections(Some(owner))?;
        let rows = rows
            .into_iter()
            .map(|row| HeldRow {
                bound: self.access_place(&row.connection).bound(),
                connection: row.connection,
                access: row.access,
            })
            .collect();
        let held = Arc::new(Held { stamp, rows });
        self.held.put(owner.clone(), Arc::clone(&held));
        Ok(held)
    }

    pub(super) fn place<'a>(&self, connection: &'a Connection, field: Field) -> Place<'a> {
        Place {
            vault: self.id,
            owner: &connection.owner,
            provider: Some(&connection.provider),
            item: Item::Connection(connection.id, connection.terms()),
            field,
            generation: connection.generation,
        }
    }

    /// Where the refresh token of a connection is sealed in its present state.
    pub(super) fn refresh_place<'a>(&self, connection: &'a Connection) -> Place<'a> {
        let field = match connection.state {
            State::Unconfirmed => Field::UnconfirmedRefreshToken,
            State::Active | State::NeedsReconnect { .. } => Field::RefreshToken,
        };
        self.place(connection, field)
    }

    /// Where the access token of a connection is sealed in its present state.
    pub(super) fn access_place<'a>(&self, connection: &'a Connection) -> Place<'a> {
        let field = match connection.state {
            State::Unconfirmed => Field::UnconfirmedAccessToken,
            State::Active | State::NeedsReconnect { .. } => Field::AccessToken,
        };
        self.place(connection, field)
    }
}

/// The row of a connection, if a permit with these coordinates is for it and its token may be used.
fn usable<'a>(
    held: &'a Held,
    owner: &Owner,
    provider: &ProviderId,
    account: Option<&AccountAlias>,
    id: &ConnectionId,
) -> Result<&'a HeldRow, VaultError> {
    let no_connection = || VaultError::NoConnection { owner: owner.clone(), connection: *id };
    let row = held.rows.iter().find(|row| row.connection.id == *id).ok_or_else(no_connection)?;
    let connection = &row.connection;
    if *provider != connection.provider || account.is_some_and(|account| *account != connection.account) {
        let permitted = match account {
            Some(account) => format!("account {account} at {provider}"),
            None => format!("provider {provider}"),
        };
        let actual = format!("account {} at {}", connection.account, connection.provider);
        return Err(VaultError::NotPermitted { connection: *id, permitted, actual });
    }
    match connection.state {
        State::Active => Ok(row),
        State::Unconfirmed => Err(VaultError::Unconfirmed { owner: owner.clone(), connection: *id }),
        State::NeedsReconnect { reason, .. } => {
            Err(VaultError::NeedsReconnect { owner: owner.clone(), connection: *id, reason })
        }
    }
}

/// Of two connections of one account, the lower is the one to use.
fn usefulness(connection: &Connection) -> u8 {
    match connection.state {
        State::Active => 0,
        State::Unconfirmed => 1,
        State::NeedsReconnect { .. } => 2,
    }
}

pub(super) fn gone(id: ConnectionId) -> VaultError {
    VaultError::Moved { connection: id, base: Generation(0) }
}
