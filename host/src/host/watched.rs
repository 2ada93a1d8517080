//! A call as the observer and traces see it.

use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

use super::{Host, InvokeError, Outcome, Ready};
use crate::broker::BrokerError;
use crate::id::{InvocationId, SkillName};
use crate::observe::Called;
use crate::runtime::{CallError, End, LinkError, Tool};

/// A call under way. One that is dropped before its end was cancelled.
pub(super) struct Watched<'a> {
    host: &'a Host,
    skill: &'a SkillName,
    tool: Option<String>,
    installed: bool,
    begun: Duration,
    /// Disabled until it is known what is called.
    span: Span,
    ended: bool,
}

impl<'a> Watched<'a> {
    pub(super) fn begin(host: &'a Host, skill: &'a SkillName) -> Self {
        let begun = host.clock.monotonic();
        Self { host, skill, tool: None, installed: false, begun, span: Span::none(), ended: false }
    }

    /// What is called is known: the span of the call. A tool that the caller made up has none.
    pub(super) fn found(&mut self, ready: &Ready, tool: &str, invocation: InvocationId) -> Span {
        self.installed = true;
        if ready.component.tools().iter().map(Tool::name).any(|name| name == tool) {
            self.tool = Some(tool.to_owned());
            // Names of OpenTelemetry's conventions for tools of generative AI; the rest is ours.
            self.span = tracing::info_span!(
                "tools/call",
                otel.name = %format_args!("tools/call {tool}"),
                otel.status_code = Empty,
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = tool,
                gen_ai.tool.call.id = %invocation,
                clawcoil.skill = %self.skill,
                error.type = Empty,
            );
        }
        self.span.clone()
    }

    pub(super) fn ended(mut self, ended: &Result<Outcome, InvokeError>) {
        let (end, limit) = match ended {
            Ok(outcome) => match &outcome.end {
                End::Value(_) => ("ok", None),
                End::ToolError(_) => ("tool-error", None),
                End::Trapped(_) => ("trap", None),
                End::Limit(limit) => ("limit", Some(limit.name())),
            },
            Err(error) => (reason(error), None),
        };
        let denials = match ended {
            Ok(outcome) => &outcome.denials,
            Err(InvokeError::Denied(denials)) => denials,
            Err(_) => &Vec::new(),
        };
        for denial in denials {
            self.host.observer.denied(denial.code.as_str());
        }
        self.tell(end, limit);
    }

    fn tell(&mut self, end: &'static str, limit: Option<&'static str>) {
        self.ended = true;
        if end != "ok" {
            self.span.record("error.type", end);
            self.span.record("otel.status_code", "ERROR");
        }
        self.host.observer.called(&Called {
            skill: self.installed.then_some(self.skill),
            tool: self.tool.as_deref(),
            end,
            limit,
            took: self.host.clock.monotonic().saturating_sub(self.begun),
        });
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell("cancelled", None);
        }
    }
}

/// Why a call did not begin, in one word.
fn reason(error: &InvokeError) -> &'static str {
    match error {
        InvokeError::Denied(_) | InvokeError::Call(CallError::Link(LinkError::NotLinked { .. })) => "denied",
        InvokeError::ActionRequired(_) | InvokeError::Broker(BrokerError::ActionRequired(_)) => "connection-needed",
        InvokeError::Registry(_) => "not-found",
        InvokeError::ToolNotNamed { .. }
        | InvokeError::Call(CallError::NoSuchTool { .. } | CallError::Arguments { .. }) => "invalid-input",
        InvokeError::Call(CallError::Busy(_)) => "busy",
        InvokeError::Broker(BrokerError::Unavailable { .. }) => "unavailable",
        InvokeError::Audit(_) => "audit-failed",
        InvokeError::Compile { .. }
        | InvokeError::Call(CallError::Link(LinkError::Mismatch(_)))
        | InvokeError::Broker(_) => "failed",
    }
}
