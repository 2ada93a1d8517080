//! What egress decides, in the runtime's words.

use async_trait::async_trait;
use http::{Request, Response};

use crate::broker::{BrokerError, NeededAction, Reason};
use crate::clock::Timestamp;
use crate::egress::{self, EgressError};
use crate::net::{Fault, NetError, Stage};
use crate::policy::DenialCode;
use crate::runtime::{
    ActionReason, AuthDenial, AuthError, Authority, Body, RevealedToken, SendError, Timeouts, TokenHandle, TokenInfo,
    TokenRequest,
};

/// The authority of one call.
pub(super) struct CallAuthority(pub(super) egress::Call);

#[async_trait]
impl Authority for CallAuthority {
    async fn get_token(&self, request: TokenRequest<'_>) -> Result<TokenHandle, AuthError> {
        let TokenRequest { service, scopes, account, audience } = request;
        let given =
            self.0.get_token(service, scopes, account, audience).map_err(|error| self.auth_error(service, error))?;
        let connection = given.connection;
        Ok(TokenHandle {
            id: given.id,
            placeholder: given.placeholder,
            info: TokenInfo {
                provider: connection.provider.to_string(),
                api_origin: given.api_origin.map(|origin| origin.to_string()).unwrap_or_default(),
                account: Some(connection.account.to_string()),
                scopes: connection.scopes.iter().map(ToString::to_string).collect(),
                expires_at_ms: connection.expires_at.map(milliseconds),
            },
        })
    }

    fn invalidate(&self, handle: u64) {
        self.0.invalidate(handle);
    }

    async fn reveal(&self, handle: u64) -> Result<RevealedToken, AuthError> {
        let revealed = self.0.reveal(handle).await.map_err(|error| self.auth_error("", error))?;
        Ok(RevealedToken {
            token: revealed.token,
            token_type: revealed.connection.token_type.clone(),
            expires_at_ms: revealed.connection.expires_at.map(milliseconds),
            refresh_after_ms: revealed.connection.refresh_at.map(milliseconds),
        })
    }

    async fn send(&self, request: Request<Body>, timeouts: Timeouts) -> Result<Response<Body>, SendError> {
        let Timeouts { connect, first_byte, between_bytes } = timeouts;
        let timeouts = egress::Timeouts { connect, first_byte, between_bytes };
        self.0.send(request, timeouts).await.map_err(|error| self.send_error(error))
    }
}

impl CallAuthority {
    fn auth_error(&self, service: &str, error: EgressError) -> AuthError {
        match error {
            EgressError::Denied(denial) => {
                let message = denial.to_string();
                let code = match denial.code {
                    DenialCode::Undeclared => return AuthError::Undeclared(service.to_owned()),
                    DenialCode::ApprovalPending => {
                        return AuthError::ActionRequired {
                            reason: ActionReason::ApprovalPending,
                            service: service.to_owned(),
                            missing_scopes: Vec::new(),
                            message,
                        };
                    }
                    DenialCode::ServiceNotGranted | DenialCode::Expired => AuthDenial::ServiceNotGranted,
                    DenialCode::ScopeNotGranted => AuthDenial::ScopeNotGranted,
                    DenialCode::AudienceNotGranted => AuthDenial::AudienceNotGranted,
                    DenialCode::RevealNotGranted => AuthDenial::RevealNotGranted,
                    DenialCode::AccountNotGranted
                    | DenialCode::RequestNotGranted
                    | DenialCode::CarriesToken
                    | DenialCode::Ambiguous
                    | DenialCode::Forbidden
                    | DenialCode::RateExceeded => AuthDenial::Policy,
                };
                AuthError::Denied { code, message }
            }
            EgressError::ActionRequired(action) => action_required(*action),
            EgressError::Broker(BrokerError::Unavailable { retry_after, message }) => {
                AuthError::Unavailable { retry_after, message }
            }
            other => AuthError::Other(self.for_the_guest(&other)),
        }
    }

    /// Words that may go to the guest. Errors of the vault and of an operator's configuration name users and files: those are for
    /// the log.
    fn for_the_guest(&self, error: &EgressError) -> String {
        match error {
            EgressError::Broker(BrokerError::Vault(_) | BrokerError::Configuration { .. }) => {
                let invocation = self.0.invocation();
                tracing::error!(%invocation, error = error as &dyn std::error::Error, "a token could not be given");
                "the host has no token to give; its operator finds the reason in the log".to_owned()
            }
            other => other.to_string(),
        }
    }

    fn send_error(&self, error: EgressError) -> SendError {
        match error {
            EgressError::Denied(denial) => SendError::Denied(denial.to_string()),
            EgressError::ActionRequired(action) => SendError::ActionRequired(action.message),
            EgressError::BodyTooLarge(_) => SendError::RequestTooLarge,
            EgressError::Net(error) => net_error(&error),
            other => SendError::Other(self.for_the_guest(&other)),
        }
    }
}

fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

fn action_required(action: NeededAction) -> AuthError {
    let reason = match action.reason {
        Reason::NotConnected | Reason::AccountNotChosen | Reason::NotConfirmed => ActionReason::NotConnected,
        Reason::Expired => ActionReason::Expired,
        Reason::Revoked => ActionReason::Revoked,
        Reason::MissingScopes => ActionReason::MissingScopes,
    };
    AuthError::ActionRequired {
        reason,
        service: action.service.to_string(),
        missing_scopes: action.missing_scopes.iter().map(ToString::to_string).collect(),
        message: action.message,
    }
}

/// The kinds that `wasi:http` knows. Which address a name has is not told: it may be one of the operator's own network.
fn net_error(error: &NetError) -> SendError {
    match (error.fault(), error.stage()) {
        (Fault::NoAddress, _) => SendError::NameNotFound,
        (Fault::Refused(_) | Fault::PlainHttp, _) => SendError::AddressProhibited,
        (Fault::TlsName | Fault::Certificate, _) => SendError::Certificate,
        (Fault::Timeout | Fault::Deadline, Stage::Resolve | Stage::Check | Stage::Connect | Stage::Tls) => {
            SendError::ConnectionTimeout
        }
        (Fault::Timeout | Fault::Deadline, Stage::Request | Stage::Body) => SendError::ResponseTimeout,
        (Fault::HeadersTooLarge | Fault::BodyTooLarge(_), _) => SendError::ResponseTooLarge,
        (Fault::Protocol, _) => SendError::Protocol,
        (Fault::Connection, Stage::Tls) => SendError::Tls,
        (Fault::Connection, Stage::Resolve | Stage::Check | Stage::Connect) => SendError::ConnectionRefused,
        (Fault::Connection, Stage::Request | Stage::Body) => SendError::ConnectionTerminated,
    }
}
