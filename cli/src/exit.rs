//! How the command ends: one code for each who must act.

use std::fmt;
use std::process::ExitCode;

use clawcoil::audit::{AuditError, VerifyError};
use clawcoil::broker::{BrokerError, NeededAction};
use clawcoil::connect::ConnectError;
use clawcoil::diagnostic::Diagnostics;
use clawcoil::host::{InitError, InvokeError, OpenError, ReloadError};
use clawcoil::identity::{IdentityError, RecoveryError};
use clawcoil::registry::RegistryError;
use clawcoil::runtime::{CallError, CompileError, EngineError, LinkError};
use clawcoil::vault::VaultError;
use serde_json::{Value, json};

use crate::commands::denial_json;
use crate::output::{printable, texts};

/// The exit codes. Scripts rely on them; they don't change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something went wrong; the message says what, and who can help.
    Error = 1,
    /// The command was not understood.
    Usage = 2,
    /// Somebody said no.
    Cancelled = 3,
    /// A person has to connect an account first.
    ConnectionNeeded = 4,
    /// The operator's policy says no.
    Denied = 5,
    /// The skill trapped or hit a limit.
    SkillFailed = 6,
    /// Interrupted by Ctrl-C.
    Interrupted = 130,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Usage => "usage",
            Self::Cancelled => "cancelled",
            Self::ConnectionNeeded => "connection-needed",
            Self::Denied => "denied",
            Self::SkillFailed => "skill-failed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why the command did not do what it was told.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    /// More for programs.
    details: Value,
    hearer: Hearer,
}

/// Who is there to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearer {
    Waits,
    /// What is wrong stands in the answer.
    Knows,
    /// The reader of stdout has read as much as it wanted.
    Gone,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Value::Null, hearer: Hearer::Waits }
    }

    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Code::Error, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// The reader of stdout has gone: no error of ours, and nobody wants a message.
    pub(crate) fn reader_gone() -> Self {
        Self { hearer: Hearer::Gone, ..Self::new(Code::Error, "the reader of stdout has gone") }
    }

    /// What is wrong stands in the answer already.
    pub(crate) fn already_told() -> Self {
        Self { hearer: Hearer::Knows, ..Self::new(Code::Error, "something must be mended") }
    }

    /// More for programs: the keys of an object.
    #[must_use]
    pub(crate) fn with_details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// The process's exit code. A reader that wanted no more (`clawcoil … | head`) has what it wanted.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.hearer == Hearer::Gone { ExitCode::SUCCESS } else { self.code.into() }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.hearer != Hearer::Waits
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut object = json!({ "code": self.code.name(), "message": self.message });
        if let (Some(object), Value::Object(details)) = (object.as_object_mut(), &self.details) {
            object.extend(details.clone());
        }
        object
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.message.trim_end().split('\n').enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&printable(line))?;
        }
        Ok(())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match &error {
            // The person, or the provider in the person's name.
            ConnectError::OAuth(refused) if refused.kind() == clawcoil::oauth::ErrorKind::Denied => {
                Self::new(Code::Cancelled, chain(&error))
            }
            _ => Self::error(chain(&error)),
        }
    }
}

/// Errors of the library that somebody has to mend before anything goes on.
macro_rules! plain_errors {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::error(chain(&error))
            }
        }
    )*};
}

plain_errors!(
    AuditError,
    CompileError,
    Diagnostics,
    EngineError,
    IdentityError,
    InitError,
    OpenError,
    RecoveryError,
    RegistryError,
    ReloadError,
    VaultError,
    VerifyError,
);

impl From<InvokeError> for Failure {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Denied(denials) => {
                let message =
                    denials.iter().map(|denial| denial.explain().to_string()).collect::<Vec<_>>().join("\n\n");
                let details = json!({ "denials": denials.iter().map(denial_json).collect::<Vec<_>>() });
                Self::new(Code::Denied, message).with_details(details)
            }
            InvokeError::ActionRequired(actions) => {
                let message =
                    actions.iter().map(|action| format!("{action}; {}", action.command)).collect::<Vec<_>>().join("\n");
                let details = json!({ "actions": actions.iter().map(action_json).collect::<Vec<_>>() });
                Self::new(Code::ConnectionNeeded, message).with_details(details)
            }
            InvokeError::Broker(BrokerError::ActionRequired(action)) => {
                InvokeError::ActionRequired(vec![*action]).into()
            }
            InvokeError::Call(CallError::Arguments { .. } | CallError::NoSuchTool { .. })
            | InvokeError::ToolNotNamed { .. } => Self::new(Code::Usage, chain(&error)),
            // What is not linked is what policy did not grant.
            InvokeError::Call(CallError::Link(LinkError::NotLinked { .. })) => Self::new(Code::Denied, chain(&error)),
            InvokeError::Call(CallError::Link(LinkError::Mismatch(_)) | CallError::Busy(_))
            | InvokeError::Registry(_)
            | InvokeError::Compile { .. }
            | InvokeError::Audit(_)
            | InvokeError::Broker(
                BrokerError::Unavailable { .. }
                | BrokerError::Configuration { .. }
                | BrokerError::Gone
                | BrokerError::Audit(_)
                | BrokerError::Vault(_),
            ) => Self::error(chain(&error)),
        }
    }
}

/// What a person has to do, for programs.
pub(crate) fn action_json(action: &NeededAction) -> Value {
    json!({
        "service": action.service.as_str(),
        "provider": action.provider.as_str(),
        "account": action.account.as_ref().map(clawcoil::id::AccountAlias::as_str),
        "missing_scopes": texts(&action.missing_scopes),
        "message": action.message,
        "command": action.command,
    })
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries repeat the cause in the message.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
