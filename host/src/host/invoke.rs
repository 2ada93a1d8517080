//! One call of a skill, from the caller's words to the answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::Instrument as _;

use super::authority::CallAuthority;
use super::receipt::Receipt;
use super::watched::Watched;
use super::{Host, Ready};
use crate::audit::{AuditError, AuditLog, Decision, Event, EventKind, Position};
use crate::broker::{BrokerError, NeededAction};
use crate::clock::Clock;
use crate::egress::{self, Calling, Credentials as _, Refusals, Touched};
use crate::id::{Caller, Digest, InvocationId, SkillName};
use crate::policy::{Denial, Effective, EffectiveLimits};
use crate::registry::RegistryError;
use crate::runtime::{self, Call, CallError, CompileError, End, Limits, Logs, Tool};

/// How a call ended. The guest has run.
#[derive(Debug)]
pub struct Outcome {
    /// Names the call in the audit log.
    pub invocation: InvocationId,
    /// What came of it.
    pub end: End,
    /// What the skill printed.
    pub logs: Logs,
    /// Everything that policy refused to the skill during the call, whatever it made of it.
    pub denials: Vec<Denial>,
    /// Everything that a person has to do before the call could have done all that it tried.
    pub actions: Vec<NeededAction>,
    /// The memory that the guest held at the end, in bytes.
    pub memory: usize,
    /// What it did with whose authority, and where the audit log tells of it.
    pub receipt: Receipt,
}

/// A call that did not start. The guest has not run.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The skill is not installed, or can't be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It can't be compiled.
    #[error("the skill {skill} can't be compiled")]
    Compile {
        /// The skill.
        skill: SkillName,
        /// What is wrong with it.
        #[source]
        source: CompileError,
    },
    /// Several tools, and none was named.
    #[error("the skill {skill} has several tools; name one: {tools}")]
    ToolNotNamed {
        /// The skill.
        skill: SkillName,
        /// Its tools.
        tools: String,
    },
    /// Policy refuses services without which the skill does not start.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Denied(Vec<Denial>),
    /// A person has to act first.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    ActionRequired(Vec<NeededAction>),
    /// A connection could not be looked up.
    #[error(transparent)]
    Broker(BrokerError),
    /// The call does not fit the skill, or the machine is busy.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No call runs without its entry in the audit log.
    #[error("the audit log can't be written, so the skill was not run; see `clawcoil doctor`")]
    Audit(#[from] AuditError),
}

impl Host {
    /// Calls a tool of a skill for a caller and waits for its end. Dropping the future ends the call.
    ///
    /// `input` is an object with one member for each parameter. The tool may be left out where the skill has only one. What
    /// the skill needs and does not have (a grant, a connection) is found before any of its code runs.
    pub async fn invoke(
        &self,
        caller: &Caller,
        skill: &SkillName,
        tool: Option<&str>,
        input: &Value,
    ) -> Result<Outcome, InvokeError> {
        self.invoke_as(self.new_invocation(), caller, skill, tool, input).await
    }

    /// A name for a call that is to be known before it begins.
    pub fn new_invocation(&self) -> InvocationId {
        InvocationId::from_bytes(self.names.draw())
    }

    /// The same under a name that [`new_invocation`](Self::new_invocation) gave, for one call.
    pub async fn invoke_as(
        &self,
        invocation: InvocationId,
        caller: &Caller,
        skill: &SkillName,
        tool: Option<&str>,
        input: &Value,
    ) -> Result<Outcome, InvokeError> {
        let mut watched = Watched::begin(self, skill);
        let ended = match self.find(skill, tool).await {
            Ok((ready, tool)) => {
                let span = watched.found(&ready, &tool, invocation);
                self.run(invocation, caller, &ready, &tool, input).instrument(span).await
            }
            Err(error) => Err(error),
        };
        watched.ended(&ended);
        ended
    }

    /// What a call is to run.
    async fn find(&self, skill: &SkillName, tool: Option<&str>) -> Result<(Arc<Ready>, String), InvokeError> {
        let ready = self.ready(skill).await?;
        let tool = the_tool(&ready, skill, tool)?.to_owned();
        Ok((ready, tool))
    }

    async fn run(
        &self,
        invocation: InvocationId,
        caller: &Caller,
        ready: &Ready,
        tool: &str,
        input: &Value,
    ) -> Result<Outcome, InvokeError> {
        let calling = Calling {
            caller: caller.clone(),
            invocation,
            manifest: Arc::clone(&ready.manifest),
            digest: ready.digest,
            tool: tool.to_owned(),
        };
        let acting = egress::Call::new(Arc::clone(&self.egress), calling);
        let effective = acting.effective();
        let mut entry = Entry::new(self, &acting, caller, ready, tool, invocation);
        let denials: Vec<_> = effective.denied_services().collect();
        if !denials.is_empty() {
            entry.denied(&denials)?;
            return Err(InvokeError::Denied(denials));
        }
        self.require_connections(&effective).inspect_err(|error| entry.event.detail = what_is_missing(error))?;
        let call = Call {
            user: &caller.user,
            tool,
            input,
            linked: effective.linked(),
            authority: Arc::new(CallAuthority(acting.clone())),
            limits: &limits(effective.limits()),
        };
        let mut outcome = self.runtime.call(&ready.component, call).await?;
        let receipt = entry.ended(&outcome.end).await;
        blot(&acting, &mut outcome.end);
        blot_text(&acting, &mut outcome.logs.text);
        let Refusals { denials, actions } = acting.refusals();
        let runtime::Outcome { end, logs, memory } = outcome;
        Ok(Outcome { invocation, end, logs, denials, actions, memory, receipt })
    }

    /// Says what people have to do first where a connection is missing without which the skill does not start.
    fn require_connections(&self, effective: &Effective) -> Result<(), InvokeError> {
        let mut actions = Vec::new();
        for service in effective.required() {
            match self.broker.first_connection(service, &service.candidates(), None, &mut |_| true) {
                Ok(_) => {}
                Err(BrokerError::ActionRequired(action)) => actions.push(*action),
                Err(error) => return Err(InvokeError::Broker(error)),
            }
        }
        if actions.is_empty() { Ok(()) } else { Err(InvokeError::ActionRequired(actions)) }
    }
}

/// For which service a person has to act, without the words that people have for their accounts.
fn what_is_missing(error: &InvokeError) -> Option<String> {
    let InvokeError::ActionRequired(actions) = error else { return None };
    let missing = actions.iter().map(|action| format!("{}: {}", action.service, action.reason.as_str()));
    Some(missing.collect::<Vec<_>>().join(", "))
}

/// The entry of a call in the audit log, written when the call is over, however it ended.
struct Entry<'a> {
    audit: &'a AuditLog,
    acting: &'a egress::Call,
    ready: &'a Ready,
    tool: &'a str,
    invocation: InvocationId,
    policy_hash: Digest,
    clock: &'a dyn Clock,
    began: Duration,
    event: Event,
    written: bool,
}

impl<'a> Entry<'a> {
    fn new(
        host: &'a Host,
        acting: &'a egress::Call,
        caller: &Caller,
        ready: &'a Ready,
        tool: &'a str,
        invocation: InvocationId,
    ) -> Self {
        let policy_hash = acting.policy_hash();
        let event = Event {
            decision: Decision::Failed,
            invocation: Some(invocation),
            client: Some(caller.client.clone()),
            credential: caller.credential.clone(),
            user: Some(caller.user.clone()),
            skill: Some(ready.manifest.name.clone()),
            skill_digest: Some(ready.digest),
            tool: Some(tool.to_owned()),
            policy_hash: Some(policy_hash),
            ..Event::new(EventKind::Invoked)
        };
        let clock = host.clock.as_ref();
        let began = clock.monotonic();
        Self { audit: &host.audit, acting, ready, tool, invocation, policy_hash, clock, began, event, written: false }
    }

    /// One entry for each refusal, with the id under which it was explained.
    fn denied(&mut self, denials: &[Denial]) -> Result<(), AuditError> {
        self.event.decision = Decision::Denied;
        for denial in denials {
            self.audit.append(&Event {
                kind: EventKind::Denied,
                explanation: Some(denial.id),
                rule: denial.rule.as_ref().map(ToString::to_string),
                detail: Some(denial.message.clone()),
                ..self.event.clone()
            })?;
        }
        Ok(())
    }

    /// Writes it, and says what the call has done.
    async fn ended(mut self, end: &End) -> Receipt {
        self.event.decision = match end {
            End::Value(_) => Decision::Allowed,
            End::ToolError(_) | End::Trapped(_) | End::Limit(_) => Decision::Failed,
        };
        self.complete();
        // From now on it is in the log's hands, also where nobody waits for this any more.
        self.written = true;
        let position = told(self.audit.append_with_others(&self.event).await);
        let Touched { origins, credentials } = self.acting.touched();
        Receipt {
            invocation: self.invocation,
            skill: self.ready.manifest.name.clone(),
            skill_digest: self.ready.digest,
            tool: self.tool.to_owned(),
            policy_hash: self.policy_hash,
            origins: origins.into_iter().collect(),
            credentials: credentials.into_iter().collect(),
            chain: self.audit.chain().to_owned(),
            position,
        }
    }

    fn complete(&mut self) {
        self.acting.sum_up();
        self.event.took = Some(self.clock.monotonic().saturating_sub(self.began));
    }
}

/// What the call did can't be undone any more; while the log can't be written, no token is released.
fn told(written: Result<Position, AuditError>) -> Option<Position> {
    let error = |error: &AuditError| {
        tracing::error!(error = error as &dyn std::error::Error, "a call is missing in the audit log");
    };
    written.inspect_err(error).ok()
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.written {
            self.complete();
            told(self.audit.append(&self.event));
        }
    }
}

/// Blots tokens that the call has used out of its result: best effort, for a revealed token and for an answer that was not
/// recognised.
fn blot(acting: &egress::Call, end: &mut End) {
    fn walk(acting: &egress::Call, value: &mut Value) {
        match value {
            Value::String(text) => blot_text(acting, text),
            Value::Array(list) => list.iter_mut().for_each(|value| walk(acting, value)),
            Value::Object(map) => map.values_mut().for_each(|value| walk(acting, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    if let End::Value(value) | End::ToolError(value) = end {
        walk(acting, value);
    }
}

fn blot_text(acting: &egress::Call, text: &mut String) {
    let mut bytes = std::mem::take(text).into_bytes();
    acting.blot(&mut bytes);
    // Only ASCII takes the place of ASCII, so this stays text.
    *text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
}

pub(super) fn the_tool<'a>(ready: &'a Ready, skill: &SkillName, tool: Option<&'a str>) -> Result<&'a str, InvokeError> {
    match (tool, ready.component.tools()) {
        (Some(tool), _) => Ok(tool),
        (None, [only]) => Ok(only.name()),
        (None, tools) => {
            let tools: Vec<_> = tools.iter().map(Tool::name).collect();
            Err(InvokeError::ToolNotNamed { skill: skill.clone(), tools: tools.join(", ") })
        }
    }
}

pub(super) fn limits(effective: EffectiveLimits) -> Limits {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        memory: bytes(effective.memory),
        time: effective.time,
        result: bytes(effective.result),
        log: bytes(effective.log),
        ..Limits::default()
    }
}
