//! One call of a tool, from the agent's words to the answer.

use clawcoil::broker::{BrokerError, NeededAction};
use clawcoil::host::InvokeError;
use clawcoil::id::Caller;
use clawcoil::runtime::CallError;
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;

use super::answer;
use super::person::{Asked, Asking};
use super::progress::Progress;
use super::server::{Server, internal};
use super::tools::{Offered, find};
use crate::callers::Tokens;

/// How often a person is asked during one call.
const MOST_QUESTIONS: usize = 4;
/// How much of a name that is no tool's is shown, in characters.
const MOST_SHOWN: usize = 64;

impl Server {
    /// Calls a tool and waits for its end. A client that cancels or goes away ends the skill.
    pub(super) async fn call(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let sender = self.sender(&context.extensions)?;
        let called = async {
            let tool = find(self.host(), &sender.caller, &request.name).await.map_err(|problem| internal(&problem))?;
            let tool = tool.ok_or_else(|| no_such_tool(&request.name))?;
            let input = Value::Object(request.arguments.clone().unwrap_or_default());
            let mut progress = Progress::of(&context, self.host().clock().as_ref());
            let asking = Asking { server: self, context: &context, sender: &sender, tool: &tool, input: &input };
            if let Asked::Answer(answer) = asking.resume(&request, &mut progress).await? {
                return Ok(answer);
            }
            // A person may connect one account and find that another is missing, too.
            for _ in 0..MOST_QUESTIONS {
                let actions = match self.invoke(&sender.caller, &tool, &input, &mut progress).await? {
                    Invoked::Ended(result) => return Ok(result.into()),
                    Invoked::ActionRequired(actions) => actions,
                };
                if let Asked::Answer(answer) = asking.ask(&actions, &mut progress).await? {
                    return Ok(answer);
                }
                // The person may have taken half an hour.
                if !self.is_admitted(&sender.caller)? {
                    return Ok(CallToolResult::error(vec![ContentBlock::text(
                        "The credential of this call was revoked or expired while the person was waited for.",
                    )])
                    .into());
                }
            }
            Ok(CallToolResult::error(vec![ContentBlock::text(
                "Accounts that were connected are missing again; call later.",
            )])
            .into())
        };
        tokio::select! {
            biased;
            // Dropping the call is what ends the skill. Nobody reads this answer.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
            done = called => done,
        }
    }

    fn is_admitted(&self, caller: &Caller) -> Result<bool, ErrorData> {
        let Some(credential) = &caller.credential else { return Ok(true) };
        Tokens::of(self.host()).is_good(credential.as_str()).map_err(|error| internal(&error.into()))
    }

    async fn invoke(
        &self,
        caller: &Caller,
        tool: &Offered,
        input: &Value,
        progress: &mut Progress<'_>,
    ) -> Result<Invoked, ErrorData> {
        let call = self.host().invoke(caller, &tool.skill, Some(&tool.tool), input);
        match progress.during("the skill runs", call).await {
            Ok(outcome) => Ok(Invoked::Ended(answer::ended(&outcome, tool.structure()))),
            Err(InvokeError::ActionRequired(actions)) => Ok(Invoked::ActionRequired(actions)),
            Err(InvokeError::Broker(BrokerError::ActionRequired(action))) => Ok(Invoked::ActionRequired(vec![*action])),
            // It was there a moment ago.
            Err(InvokeError::Call(CallError::NoSuchTool { .. })) => Err(no_such_tool(&tool.name)),
            Err(error) => Ok(Invoked::Ended(answer::refused(&error.into()))),
        }
    }
}

/// What came of one attempt.
enum Invoked {
    Ended(CallToolResult),
    /// Nothing of the skill has run.
    ActionRequired(Vec<NeededAction>),
}

fn no_such_tool(name: &str) -> ErrorData {
    // What is asked for may be as long as a request.
    let shown: String = name.chars().take(MOST_SHOWN).collect();
    ErrorData::invalid_params(
        format!(
            "there is no tool {shown:?} for this caller: tools/list has those there are, and the operator grants others"
        ),
        None,
    )
}
