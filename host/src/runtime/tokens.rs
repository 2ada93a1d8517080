//! The host's side of `clawcoil:skill`: tokens stand in the call's table as handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};

use super::authority::{ActionReason, AuthDenial, AuthError, Authority, TokenHandle, TokenRequest};
use super::bindings::clawcoil::skill::{reveal, tokens, types};
use super::limits::LimitReached;

/// A token as the table keeps it.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again within their private module")]
pub struct Token(TokenHandle);

/// What the functions of `clawcoil:skill` see of a call.
pub(super) struct TokensView<'a> {
    pub(super) table: &'a mut ResourceTable,
    pub(super) authority: &'a Arc<dyn Authority>,
    pub(super) budget: &'a HostCalls,
}

/// Names [`TokensView`] to the linker.
pub(super) struct HasTokens;

impl HasData for HasTokens {
    type Data<'a> = TokensView<'a>;
}

/// How often the call may still ask its authority for something.
#[derive(Debug)]
pub(super) struct HostCalls {
    most: u32,
    used: AtomicU32,
}

impl HostCalls {
    pub(super) fn new(most: u32) -> Self {
        Self { most, used: AtomicU32::new(0) }
    }

    /// Counts one, or says that there was one too many.
    pub(super) fn take(&self) -> Result<(), LimitReached> {
        if self.used.fetch_add(1, Ordering::Relaxed) < self.most {
            Ok(())
        } else {
            Err(LimitReached::HostCalls(self.most))
        }
    }
}

impl types::Host for TokensView<'_> {}

impl tokens::Host for TokensView<'_> {
    async fn get_token(
        &mut self,
        service: String,
        request: tokens::TokenRequest,
    ) -> wasmtime::Result<Result<Resource<Token>, types::AuthError>> {
        self.budget.take()?;
        let asked = TokenRequest {
            service: &service,
            scopes: &request.scopes,
            account: request.account.as_deref(),
            audience: request.audience.as_deref(),
        };
        match self.authority.get_token(asked).await {
            Ok(handle) => Ok(Ok(self.table.push(Token(handle))?)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl tokens::HostToken for TokensView<'_> {
    fn info(&mut self, token: Resource<Token>) -> wasmtime::Result<tokens::TokenInfo> {
        let info = &self.table.get(&token)?.0.info;
        Ok(tokens::TokenInfo {
            provider: info.provider.clone(),
            api_origin: info.api_origin.clone(),
            account: info.account.clone(),
            scopes: info.scopes.clone(),
            expires_at_ms: info.expires_at_ms,
        })
    }

    fn placeholder(&mut self, token: Resource<Token>) -> wasmtime::Result<String> {
        Ok(self.table.get(&token)?.0.placeholder.clone())
    }

    fn invalidate(&mut self, token: Resource<Token>) -> wasmtime::Result<()> {
        self.budget.take()?;
        self.authority.invalidate(self.table.get(&token)?.0.id);
        Ok(())
    }

    fn drop(&mut self, token: Resource<Token>) -> wasmtime::Result<()> {
        self.table.delete(token)?;
        Ok(())
    }
}

impl reveal::Host for TokensView<'_> {
    async fn reveal(
        &mut self,
        token: Resource<Token>,
    ) -> wasmtime::Result<Result<reveal::AccessToken, types::AuthError>> {
        self.budget.take()?;
        let id = self.table.get(&token)?.0.id;
        match self.authority.reveal(id).await {
            // The copy goes into the guest's memory right after this: the one place where that is wanted.
            Ok(revealed) => Ok(Ok(reveal::AccessToken {
                value: revealed.token.expose().to_owned(),
                token_type: revealed.token_type,
                expires_at_ms: revealed.expires_at_ms,
                refresh_after_ms: revealed.refresh_after_ms,
            })),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl From<AuthError> for types::AuthError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::ActionRequired { reason, service, missing_scopes, message } => {
                Self::ActionRequired(types::Action { reason: reason.into(), service, missing_scopes, message })
            }
            AuthError::Denied { code, message } => Self::Denied(types::Denial { code: code.into(), message }),
            AuthError::Unavailable { retry_after, message } => {
                Self::Unavailable(types::Outage { retry_after_ms: retry_after.map(milliseconds), message })
            }
            AuthError::Undeclared(service) => Self::Undeclared(service),
            AuthError::Other(message) => Self::Other(message),
        }
    }
}

impl From<ActionReason> for types::Reason {
    fn from(reason: ActionReason) -> Self {
        match reason {
            ActionReason::NotConnected => Self::NotConnected,
            ActionReason::Expired => Self::Expired,
            ActionReason::Revoked => Self::Revoked,
            ActionReason::MissingScopes => Self::MissingScopes,
            ActionReason::ApprovalPending => Self::ApprovalPending,
        }
    }
}

impl From<AuthDenial> for types::DenialCode {
    fn from(code: AuthDenial) -> Self {
        match code {
            AuthDenial::ServiceNotGranted => Self::ServiceNotGranted,
            AuthDenial::ScopeNotGranted => Self::ScopeNotGranted,
            AuthDenial::AudienceNotGranted => Self::AudienceNotGranted,
            AuthDenial::RevealNotGranted => Self::RevealNotGranted,
            AuthDenial::Policy => Self::Policy,
            AuthDenial::Suspended => Self::Suspended,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
