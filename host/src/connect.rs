//! From a person's consent to a connection in the vault.
//!
//! An attempt is begun for one owner, provider and account; what proves it at the end (the state, the PKCE verifier) stays in
//! the vault, sealed, and is good once. After the exchange the connection is *unconfirmed*: its tokens can't be used until
//! its owner has seen which account was connected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use url::Url;

use crate::audit::{AuditError, AuditLog, Decision, Event, EventKind};
use crate::clock::{Clock, Timestamp};
use crate::id::{AccountAlias, ConnectionId, Digest, Owner, ProviderId, Scope};
use crate::net::{AddressRules, FetchLimits, Net};
use crate::oauth::authorization_code::{self, InvalidRedirect, Redirect};
use crate::oauth::revoke::{Revocable, revoke};
use crate::oauth::{self, Client, Server, Transport};
use crate::observe::Observer;
use crate::provider::{Catalogue, InvalidApiOrigin, Provider};
use crate::secret::AccessToken;
use crate::vault::{
    ClientRegistration, Connection, Kind, NewConnection, Pending, Removed, TokenSet, Untold, Vault, VaultError,
};

/// How long a person has from the link to the consent.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// How long revoking a token at its provider may take.
const REVOCATION: Duration = Duration::from_secs(10);

/// Why an account could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The operator has to add the provider.
    #[error("there is no provider {0} in the catalogue; see `clawcoil provider list`")]
    UnknownProvider(ProviderId),
    /// The operator has to register a client at the provider and store it.
    #[error("no client of {provider} is stored; register one{at} and run `clawcoil provider add {provider}`")]
    NoClient {
        /// The provider.
        provider: ProviderId,
        /// ` at https://…`, where the catalogue knows the page.
        at: String,
    },
    /// The provider does not work this way.
    #[error("{provider} can't be connected this way: {message}")]
    WrongKind {
        /// The provider.
        provider: ProviderId,
        /// What it can do.
        message: String,
    },
    /// The browser came back with something that is no answer.
    #[error(transparent)]
    Redirect(#[from] InvalidRedirect),
    /// The state is not one of ours, was used before, or is too old.
    #[error(
        "this answer belongs to no attempt that is still open: it was used before, is older than ten minutes, or was never begun here; start again"
    )]
    UnknownState,
    /// No connection with this id, or nothing to confirm.
    #[error("there is no connection {0}")]
    UnknownConnection(ConnectionId),
    /// The provider, or the person there, said no.
    #[error(transparent)]
    OAuth(#[from] oauth::Error),
    /// The provider names an API origin that the catalogue does not admit.
    #[error(transparent)]
    ApiOrigin(#[from] InvalidApiOrigin),
    /// The vault said no.
    #[error("the vault could not keep the connection")]
    Vault(#[from] VaultError),
    /// It was done, and the audit log does not tell yet.
    #[error("this is done, but the audit log does not tell of it: {}", what_is_kept(*.is_kept))]
    Unrecorded {
        /// Why it doesn't.
        #[source]
        source: Box<Untold>,
        /// Whether the vault keeps what is to be told until the log has it.
        is_kept: bool,
        /// The connections that are gone, and what became of their tokens.
        gone: Gone,
    },
}

fn what_is_kept(is_kept: bool) -> &'static str {
    if is_kept { "its entry is kept until it does" } else { "its entry is lost, as no key of the vault could seal it" }
}

/// An attempt that was begun.
#[derive(Debug)]
pub struct Started {
    /// Where the person's browser goes. Whoever opens it and consents connects *their* account: give it to nobody but the
    /// person for whom it was asked.
    pub url: Url,
    /// Until when the answer is accepted.
    pub expires_at: Timestamp,
}

/// What became of a removed connection at its provider.
#[derive(Debug)]
pub struct Disconnected {
    /// The connection as it was.
    pub connection: Arc<Connection>,
    /// Whether the provider has ended the tokens; `None` where it has no way to.
    pub revoked: Option<Result<(), oauth::Error>>,
}

/// The connections that went to make place for another, or because they were disconnected.
#[derive(Debug, Default)]
pub struct Gone {
    /// Those whose provider was asked to end the tokens, if it can be.
    ///
    /// What another connection took the place of is only here if the provider said both times who it was, and it was somebody
    /// else. Ending the tokens of the same account could end the new ones with them: a provider may end all that a client has
    /// from a person when it is told to end one token (RFC 7009 section 2.1 lets it).
    pub ended: Vec<Disconnected>,
    /// Those whose tokens live on at the provider, as nobody knows whether they are the same account's as the new ones.
    pub left_alive: Vec<Arc<Connection>>,
}

/// What became of a connection that its owner wants.
#[derive(Debug)]
pub struct Confirmed {
    /// The connection as it is now.
    pub connection: Arc<Connection>,
    /// What it took the place of.
    pub replaced: Gone,
}

/// What connecting and refreshing stand on. Clones share everything.
#[derive(Clone)]
pub struct Parts {
    /// Where the tokens are.
    pub vault: Arc<Vault>,
    /// The dialer.
    pub net: Arc<Net>,
    /// The providers.
    pub catalogue: Arc<Catalogue>,
    /// The address ranges that the operator admits besides public ones.
    pub private: Vec<IpNet>,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// Time, and random bytes.
    pub clock: Arc<dyn Clock>,
    /// Who counts what happens.
    pub observer: Arc<dyn Observer>,
}

impl Parts {
    /// Writes down what happened to a connection, with the vault's epoch after it.
    pub(crate) async fn note(
        &self,
        kind: EventKind,
        decision: Decision,
        connection: &Connection,
        detail: Option<String>,
    ) -> Result<(), AuditError> {
        let event = Event {
            decision,
            user: connection.owner.user().cloned(),
            provider: Some(connection.provider.clone()),
            connection: Some(connection.id),
            scopes: connection.scopes.iter().cloned().collect(),
            generation: Some(connection.generation),
            epoch: self.vault.epoch().ok(),
            detail,
            ..Event::new(kind)
        };
        self.audit.append_aside(event).await.map(drop)
    }
}

/// Makes and removes connections. Clones share everything.
///
/// What ends tokens is done to its end also if the future is dropped: once the vault has let go of a token, nobody else can
/// end it.
#[derive(Clone)]
pub struct Connector(Parts, watch::Sender<usize>);

/// Something that is under way.
struct UnderWay(watch::Sender<usize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Connector {
    /// A connector over these parts.
    pub fn new(parts: Parts) -> Self {
        Self(parts, watch::Sender::new(0))
    }

    /// Waits until nothing is under way that a dropped future has left behind. A program does this before it ends.
    pub async fn settle(&self) {
        // The sender is here: it can't be gone.
        let _ = self.1.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Does this to its end, whether or not anybody waits for it.
    async fn to_the_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.1.send_modify(|running| *running += 1);
        let under_way = UnderWay(self.1.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(under_way);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and this future with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Begins an authorization code flow (RFC 6749 section 4.1) for this owner.
    ///
    /// `redirect_uri` is where the browser comes back to; it must be registered at the provider, or be a loopback address
    /// (RFC 8252 section 7.3) where the provider takes any port of one.
    pub async fn start(
        &self,
        owner: &Owner,
        provider: &ProviderId,
        account: &AccountAlias,
        scopes: &BTreeSet<Scope>,
        redirect_uri: &Url,
    ) -> Result<Started, ConnectError> {
        let (entry, server) = self.server(provider)?;
        let registration = self.registration(entry)?;
        let asked = entry.requested_scopes(scopes);
        let started =
            authorization_code::start(server, &registration.client_id, redirect_uri, &asked, self.0.clock.as_ref())?;
        let expires_at = self.0.clock.now().saturating_add(PATIENCE).unwrap_or(Timestamp::MAX);
        self.0
            .vault
            .put_pending(Pending {
                state_hash: Digest::of(started.state.as_bytes()),
                owner: owner.clone(),
                provider: provider.clone(),
                account: account.clone(),
                scopes: scopes.clone(),
                verifier: started.verifier,
                nonce: None,
                redirect_uri: redirect_uri.to_string(),
                expires_at,
            })
            .await?;
        Ok(Started { url: started.url, expires_at })
    }

    /// Takes what the browser came back with, exchanges the code, and stores the connection, unconfirmed.
    ///
    /// `owner` is who the browser is known to belong to: an answer to somebody else's attempt is refused, and that attempt is
    /// over as well.
    pub async fn callback(&self, owner: &Owner, query: &str) -> Result<Arc<Connection>, ConnectError> {
        let redirect = Redirect::parse(query)?;
        let pending = self.0.vault.take_pending(redirect.state()).await?.ok_or(ConnectError::UnknownState)?;
        if pending.owner != *owner {
            return Err(ConnectError::UnknownState);
        }
        let this = self.clone();
        self.to_the_end(async move { this.exchange(pending, redirect).await }).await
    }

    async fn exchange(&self, pending: Pending, redirect: Redirect) -> Result<Arc<Connection>, ConnectError> {
        let (entry, server) = self.server(&pending.provider)?;
        let registration = self.registration(entry)?;
        let code = redirect.accept(server)?;
        let redirect_uri = pending.redirect_uri.parse().map_err(|_| ConnectError::UnknownState)?;
        let client = client(&registration, server);
        let rules = self.rules(entry);
        let via = self.via(&rules, FetchLimits::default());
        let answer =
            authorization_code::exchange(&via, server, &client, &code, &redirect_uri, &pending.verifier).await?;
        let tokens = complete(&via, entry, server, &client, answer).await?;
        let new = NewConnection {
            owner: pending.owner,
            provider: pending.provider,
            account: pending.account,
            kind: Kind::AuthorizationCode,
            scopes: pending.scopes,
        };
        self.keep(new, tokens, false).await
    }

    /// Stores a connection, and ends what it takes the place of as a confirmation does.
    async fn keep(
        &self,
        new: NewConnection,
        tokens: TokenSet,
        confirmed: bool,
    ) -> Result<Arc<Connection>, ConnectError> {
        let this = self.clone();
        let kept = async move {
            let (connection, removed) = this.0.vault.connect(new, tokens, confirmed).await?;
            this.replace(removed, &connection).await?;
            Ok(connection)
        };
        self.to_the_end(kept).await
    }

    /// The owner has seen which account was connected and wants it: its tokens may be used from now on. Those of another account
    /// that it takes the place of are ended at the provider. An audit log that can't be written keeps neither from being done.
    pub async fn confirm(&self, id: ConnectionId) -> Result<Confirmed, ConnectError> {
        let this = self.clone();
        let confirmed = async move {
            let gone = || ConnectError::UnknownConnection(id);
            this.0.vault.connection(id)?.ok_or_else(gone)?;
            let removed = this.0.vault.confirm(id).await?;
            let connection = this.0.vault.connection(id)?.ok_or_else(gone)?;
            let replaced = this.replace(removed, &connection).await?;
            Ok(Confirmed { connection, replaced })
        };
        self.to_the_end(confirmed).await
    }

    /// Ends the tokens of what is known to be another account, and tells of a connection and of what it took the place of.
    async fn replace(&self, removed: Vec<Removed>, new: &Connection) -> Result<Gone, ConnectError> {
        let (others, rest): (Vec<_>, Vec<_>) =
            removed.into_iter().partition(|removed| removed.connection.is_of_another_than(new));
        let mut gone = Gone::default();
        for removed in others {
            gone.ended.push(self.end(removed).await);
        }
        let known = |old: &Connection| old.account_label.is_some() && old.account_label == new.account_label;
        gone.left_alive = rest.into_iter().map(|removed| removed.connection).filter(|old| !known(old)).collect();
        // Last: a log that hangs keeps nothing from being ended.
        match self.tell().await {
            Ok(()) => Ok(gone),
            Err(source) => Err(ConnectError::Unrecorded { source: Box::new(source), is_kept: true, gone }),
        }
    }

    /// Connects the agent itself by client credentials (RFC 6749 section 4.4). Nobody has to consent.
    pub async fn client_credentials(
        &self,
        provider: &ProviderId,
        account: &AccountAlias,
        scopes: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, ConnectError> {
        let (entry, server) = self.server(provider)?;
        let registration = self.registration(entry)?;
        let client = client(&registration, server);
        let rules = self.rules(entry);
        let via = self.via(&rules, FetchLimits::default());
        let answer = oauth::client_credentials::request(&via, server, &client, scopes).await?;
        let tokens = complete(&via, entry, server, &client, answer).await?;
        let new = NewConnection {
            owner: Owner::Agent,
            provider: provider.clone(),
            account: account.clone(),
            kind: Kind::ClientCredentials,
            scopes: scopes.clone(),
        };
        self.keep(new, tokens, true).await
    }

    /// Stores a credential that the owner got from the provider by hand: an API key, a fixed token, a name with a password.
    pub async fn fixed(
        &self,
        owner: &Owner,
        provider: &ProviderId,
        account: &AccountAlias,
        kind: Kind,
        scopes: &BTreeSet<Scope>,
        secret: AccessToken,
    ) -> Result<Arc<Connection>, ConnectError> {
        if matches!(kind, Kind::AuthorizationCode | Kind::ClientCredentials) {
            let message = "its tokens come from a token endpoint and are not entered by hand".to_owned();
            return Err(ConnectError::WrongKind { provider: provider.clone(), message });
        }
        if self.0.catalogue.get(provider).is_none() {
            return Err(ConnectError::UnknownProvider(provider.clone()));
        }
        let tokens = TokenSet {
            access: secret,
            refresh: None,
            token_type: if kind == Kind::Basic { "Basic".to_owned() } else { "Bearer".to_owned() },
            expires_in: None,
            requested_at: self.0.clock.now(),
            scopes: None,
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        };
        let new = NewConnection {
            owner: owner.clone(),
            provider: provider.clone(),
            account: account.clone(),
            kind,
            scopes: scopes.clone(),
        };
        self.keep(new, tokens, true).await
    }

    /// Removes a connection: first here, so that nothing uses it any more, then at the provider. An audit log that can't be
    /// written keeps neither from being done.
    pub async fn disconnect(&self, id: ConnectionId) -> Result<Disconnected, ConnectError> {
        let this = self.clone();
        let disconnected = async move {
            let removed = this.0.vault.disconnect(id).await?.ok_or(ConnectError::UnknownConnection(id))?;
            let is_kept = removed.is_kept;
            let gone = this.end(removed).await;
            // Last: a log that hangs keeps nothing from being ended.
            let told = if is_kept {
                this.tell().await
            } else {
                // The vault could not keep it: now or never.
                let noted = this.0.note(EventKind::Disconnected, Decision::Allowed, &gone.connection, None).await;
                noted.map_err(Untold::from)
            };
            match told {
                Ok(()) => Ok(gone),
                Err(source) => {
                    let gone = Gone { ended: vec![gone], left_alive: Vec::new() };
                    Err(ConnectError::Unrecorded { source: Box::new(source), is_kept, gone })
                }
            }
        };
        self.to_the_end(disconnected).await
    }

    /// Ends the tokens of a connection that was removed here at its provider.
    async fn end(&self, removed: Removed) -> Disconnected {
        let revoked = self.revoke(&removed).await;
        if let Some(Err(error)) = &revoked {
            tracing::warn!(%error, connection = %removed.connection.id, "a provider did not end tokens that were removed");
        }
        Disconnected { connection: removed.connection, revoked }
    }

    /// What the provider says; `None` where it can't be asked.
    async fn revoke(&self, removed: &Removed) -> Option<Result<(), oauth::Error>> {
        let (entry, server) = self.server(&removed.connection.provider).ok()?;
        server.revocation.as_ref()?;
        let registration = self.registration(entry).ok()?;
        // Ending the refresh token ends the access token with it (RFC 7009 section 2.1).
        let token = match (&removed.refresh, &removed.access) {
            (Some(token), _) => Revocable::Refresh(token),
            (None, Some(token)) => Revocable::Access(token),
            (None, None) => return None,
        };
        let client = client(&registration, server);
        let rules = self.rules(entry);
        let via = self.via(&rules, FetchLimits { total: REVOCATION, ..FetchLimits::default() });
        Some(revoke(&via, server, &client, token).await)
    }

    fn server(&self, provider: &ProviderId) -> Result<(&Provider, &Server), ConnectError> {
        let entry = self.0.catalogue.get(provider).ok_or_else(|| ConnectError::UnknownProvider(provider.clone()))?;
        let server = entry.server().ok_or_else(|| ConnectError::WrongKind {
            provider: provider.clone(),
            message: "it has no authorization server; `clawcoil connect` asks for its key and stores it".to_owned(),
        })?;
        Ok((entry, server))
    }

    fn registration(&self, entry: &Provider) -> Result<ClientRegistration, ConnectError> {
        let at = entry.register.as_ref().map(|page| format!(" at {page}")).unwrap_or_default();
        let missing = || ConnectError::NoClient { provider: entry.id.clone(), at };
        self.0.vault.client(&entry.id)?.ok_or_else(missing)
    }

    fn rules(&self, entry: &Provider) -> AddressRules {
        entry.address_rules(&self.0.private)
    }

    fn via<'a>(&'a self, rules: &'a AddressRules, limits: FetchLimits) -> Transport<'a> {
        Transport { net: &self.0.net, rules, limits, clock: self.0.clock.as_ref() }
    }

    async fn tell(&self) -> Result<(), Untold> {
        self.0.vault.tell(&self.0.audit).await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// What the vault keeps of an answer to a new grant, with the life of the token where only introspection tells it (RFC 7662).
async fn complete(
    via: &Transport<'_>,
    entry: &Provider,
    server: &Server,
    client: &Client<'_>,
    answer: oauth::TokenResponse,
) -> Result<TokenSet, InvalidApiOrigin> {
    let api_origin = entry.api_origin(answer.api_origin.as_deref())?;
    let said = answer.expires_in;
    let mut tokens = TokenSet { api_origin, ..token_set(entry, answer) };
    tokens.grant_ends_at = entry.grant_ends.and_then(|life| tokens.requested_at.checked_add(life).ok());
    if said.is_none() && server.introspect.is_some() {
        // Where the server does not tell either, the catalogue's word stays.
        if let Ok(known) = oauth::introspect::introspect(via, server, client, &tokens.access).await {
            let life = known.expires_at.and_then(|at| Duration::try_from(at.duration_since(tokens.requested_at)).ok());
            tokens.expires_in = life.or(tokens.expires_in);
        }
    }
    Ok(tokens)
}

/// What the vault keeps of an answer. An API origin that the catalogue does not admit is left out, so that the one from before
/// stays: a new refresh token must not be lost to it.
pub(crate) fn token_set(entry: &Provider, answer: oauth::TokenResponse) -> TokenSet {
    TokenSet {
        api_origin: entry.api_origin(answer.api_origin.as_deref()).ok().flatten(),
        expires_in: answer.expires_in.or(entry.lifetime),
        grant_ends_at: None,
        account_label: answer.account_label,
        access: answer.access,
        refresh: answer.refresh,
        token_type: answer.token_type,
        requested_at: answer.asked_at,
        scopes: answer.scopes,
    }
}

fn client<'a>(registration: &'a ClientRegistration, server: &Server) -> Client<'a> {
    Client { id: &registration.client_id, secret: registration.client_secret.as_ref(), auth: server.client_auth }
}
