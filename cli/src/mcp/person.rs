//! A person must connect an account before a tool can be called.
//!
//! Nothing of the skill has run then. How the person is asked depends on the client:
//!
//! 1. of the newest revision, and it can open an address: the answer asks for it, and the client calls again;
//! 2. of an older one that can: it is asked during the call, which goes on when the account is there;
//! 3. others: the answer is an error that says in words what to do, with the link for programs in `_meta`.
//!
//! The link alone connects nothing: whoever opens it must be the user who was asked.

use std::time::Duration;

use clawcoil::broker::NeededAction;
use clawcoil::clock::Timestamp;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomNotification, ElicitRequest,
    ElicitRequestParams, ElicitationAction, ErrorCode, InputRequest, InputRequests, InputRequiredResult,
    ProtocolVersion, ServerNotification,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};
use url::Url;

use super::answer;
use super::http::Sender;
use super::progress::Progress;
use super::server::{Server, internal};
use super::state::{Bound, RequestState};
use super::tools::Offered;
use crate::connecting::{Session, SessionState};
use crate::console::{Link, Links, Role};
use crate::exit::action_json;
use crate::serve::Problem;

/// How long one request of the newest revision waits for the person: less than the minute after which clients give up.
const ROUND: Duration = Duration::from_secs(45);
/// How long a call of an older client waits, as long as a session lives at the most.
const LONG: Duration = Duration::from_mins(30);
/// "The request can't go on until the person has opened these addresses", in revision 2025-11-25.
const URL_ELICITATION_REQUIRED: ErrorCode = ErrorCode(-32042);
/// Under which key of `_meta` the links stand.
const META: &str = "clawcoil/connect";

/// What to do with the call.
pub(super) enum Asked {
    /// Everything is there: it can be made.
    GoOn,
    /// This is the answer.
    Answer(CallToolResponse),
}

/// A link for the person, and what for.
struct Invitation {
    session: Session,
    url: Url,
    message: String,
}

/// How a client can be asked.
enum Way {
    InResult,
    DuringCall,
    InWords,
}

impl Way {
    fn of(context: &RequestContext<RoleServer>) -> Self {
        let opens = context.client_capabilities().and_then(|can| can.elicitation).is_some_and(|can| can.url.is_some());
        let newest = context
            .protocol_version()
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
        match (opens, newest) {
            (false, _) => Self::InWords,
            (true, true) => Self::InResult,
            (true, false) => Self::DuringCall,
        }
    }
}

/// One call, with all that asking a person needs.
pub(super) struct Asking<'a> {
    pub(super) server: &'a Server,
    pub(super) context: &'a RequestContext<RoleServer>,
    pub(super) sender: &'a Sender,
    pub(super) tool: &'a Offered,
    pub(super) input: &'a Value,
}

impl Asking<'_> {
    fn bound(&self) -> Bound<'_> {
        Bound { caller: &self.sender.caller, tool: &self.tool.name, input: self.input }
    }

    /// The retry of a client that was asked in a result: waits until the person is done.
    pub(super) async fn resume(
        &self,
        request: &CallToolRequestParams,
        progress: &mut Progress<'_>,
    ) -> Result<Asked, ErrorData> {
        let Some(state) = &request.request_state else { return Ok(Asked::GoOn) };
        let app = self.server.app();
        let state =
            RequestState::open(state, app.host.vault(), self.bound(), app.host.clock().now()).ok_or_else(|| {
                ErrorData::invalid_params(
                    "this requestState is not of this call, or has expired: call the tool anew",
                    None,
                )
            })?;
        let answers = request.input_responses.as_ref();
        let declined = |id: &String| {
            let action = answers.and_then(|answers| answers.get(id)).and_then(|answer| {
                serde_json::to_value(answer).ok().and_then(|answer| Some(answer.get("action")?.as_str()?.to_owned()))
            });
            action.is_some_and(|action| action != "accept")
        };
        if state.sessions.iter().any(declined) {
            return Ok(Asked::Answer(
                said("The person did not want to open the page, so nothing was connected.").into(),
            ));
        }
        let clock = app.host.clock();
        let end = clock.monotonic().saturating_add(ROUND);
        let mut open = Vec::new();
        for id in &state.sessions {
            let left = end.saturating_sub(clock.monotonic());
            let settled = progress.during("waiting for the person to connect", app.sessions.settled(app, id, left));
            let session = settled.await.map_err(|problem| internal(&problem))?;
            if let Some(answer) = ended_badly(&session) {
                return Ok(Asked::Answer(answer.into()));
            }
            if !session.state.is_final() {
                open.push(session);
            }
        }
        if open.is_empty() {
            return Ok(Asked::GoOn);
        }
        // They are still at it: the client is asked to wait with them.
        let invitations = self.invitations(open).await.map_err(|problem| internal(&problem))?;
        Ok(Asked::Answer(self.in_result(&invitations).into()))
    }

    /// Asks the person, as the client can.
    pub(super) async fn ask(&self, actions: &[NeededAction], progress: &mut Progress<'_>) -> Result<Asked, ErrorData> {
        let invitations = match self.invite(actions).await {
            Ok(invitations) => invitations,
            Err(problem) => return Ok(Asked::Answer(self.in_words(actions, &[], Some(&problem)).into())),
        };
        // What nobody can do in a browser needs words in any case.
        if invitations.len() < actions.len() {
            return Ok(Asked::Answer(self.in_words(actions, &invitations, None).into()));
        }
        match Way::of(self.context) {
            Way::InResult => Ok(Asked::Answer(self.in_result(&invitations).into())),
            Way::DuringCall => match self.server.waiting().begin(&self.sender.caller) {
                Some(_place) => self.during_call(&invitations, progress).await,
                // So many calls wait that this one is to be made again.
                None => Ok(Asked::Answer(self.in_words(actions, &invitations, None).into())),
            },
            Way::InWords => Ok(Asked::Answer(self.in_words(actions, &invitations, None).into())),
        }
    }

    async fn invite(&self, actions: &[NeededAction]) -> Result<Vec<Invitation>, Problem> {
        if !self.sender.may_connect {
            return Ok(Vec::new());
        }
        let app = self.server.app();
        let sessions = app.sessions.for_actions(app, &self.sender.caller, &self.tool.skill, actions).await?;
        self.invitations(sessions).await
    }

    async fn invitations(&self, sessions: Vec<Session>) -> Result<Vec<Invitation>, Problem> {
        let app = self.server.app();
        let mut invitations = Vec::new();
        for session in sessions {
            let url = if self.server.is_local() {
                // The client is a program of the vault's owner: its link proves to the page whose browser it is.
                let link =
                    Link { role: Role::User(self.sender.caller.user.clone()), next: session.url.path().to_owned() };
                let (path, _) = Links::of(&app.host).make(&link).await?;
                app.origins.url(&path)
            } else {
                session.url.clone()
            };
            let sees = if self.tool.reveals(&session.provider) {
                "The operator lets this skill see the token."
            } else {
                "The skill never sees your token."
            };
            let message = format!("{} needs your {} account. {sees}", self.tool.skill, session.provider);
            invitations.push(Invitation { session, url, message });
        }
        Ok(invitations)
    }

    /// Revision 2026-07-28: the client asks, and calls again with the state.
    fn in_result(&self, invitations: &[Invitation]) -> InputRequiredResult {
        let mut requests = InputRequests::new();
        for Invitation { session, url, message } in invitations {
            let elicitation = ElicitRequestParams::UrlElicitationParams {
                meta: None,
                message: message.clone(),
                url: url.to_string(),
                elicitation_id: session.id.clone(),
            };
            requests.insert(session.id.clone(), InputRequest::Elicitation(ElicitRequest::new(elicitation)));
        }
        let ids = invitations.iter().map(|invitation| invitation.session.id.clone()).collect();
        let end = invitations.iter().map(|invitation| invitation.session.expires_at).min().unwrap_or(Timestamp::MAX);
        let state = RequestState::new(ids, end).seal(self.server.host().vault(), self.bound());
        InputRequiredResult::new(Some(requests), Some(state))
    }

    /// Revision 2025-11-25: the client is asked while its call waits.
    async fn during_call(&self, invitations: &[Invitation], progress: &mut Progress<'_>) -> Result<Asked, ErrorData> {
        let app = self.server.app();
        let peer = &self.context.peer;
        for Invitation { session, url, message } in invitations {
            let connected = app.sessions.settled(app, &session.id, LONG);
            let asked = peer.elicit_url_with_timeout(message.clone(), url.clone(), session.id.clone(), Some(LONG));
            let waited = progress.during("waiting for the person to connect", async {
                tokio::pin!(connected);
                tokio::select! {
                    biased;
                    // Some clients answer only when the person has come back to them.
                    settled = &mut connected => return Ok(settled),
                    asked = asked => match asked {
                        // They have opened the page; what they do there is seen at the session.
                        Ok(ElicitationAction::Accept) => {}
                        Ok(_) => return Err(None),
                        Err(error) => return Err(Some(error)),
                    }
                }
                Ok(connected.await)
            });
            let settled = match waited.await {
                Ok(settled) => settled.map_err(|problem| internal(&problem))?,
                Err(None) => {
                    let text = "The person did not want to open the page, so nothing was connected.";
                    return Ok(Asked::Answer(said(text).into()));
                }
                // It said that it can, and it can't here: there is a way to say the same without asking.
                Err(Some(error)) => {
                    tracing::debug!(%error, "a client could not be asked during its call");
                    return Err(elicitation_required(invitations));
                }
            };
            if let Some(answer) = ended_badly(&settled) {
                return Ok(Asked::Answer(answer.into()));
            }
            let complete = json!({ "elicitationId": session.id });
            let complete = CustomNotification::new("notifications/elicitation/complete", Some(complete));
            // A client that is gone is noticed by its cancellation.
            let _ = peer.send_notification(ServerNotification::CustomNotification(complete)).await;
        }
        Ok(Asked::GoOn)
    }

    /// All other clients: a person reads this, or the model does.
    fn in_words(
        &self,
        actions: &[NeededAction],
        invitations: &[Invitation],
        problem: Option<&Problem>,
    ) -> CallToolResult {
        let mut lines = vec!["A person has to act before this tool can be called; then call it again.".to_owned()];
        for action in actions {
            let link = invitations.iter().find(|Invitation { session, .. }| {
                let account = action.account.as_ref();
                session.provider == action.provider && account.is_none_or(|account| *account == session.account)
            });
            lines.push(match link {
                Some(Invitation { url, .. }) => format!("- {action}. Ask the user to open {url}"),
                None if self.server.is_local() => format!("- {action}. Ask the user to run: {}", action.command),
                None => format!("- {action}."),
            });
        }
        if let Some(problem) = problem {
            lines.push(format!("{}: {}", problem.kind().title(), problem.detail()));
        } else if !self.sender.may_connect {
            lines.push("This credential may not ask for connections: it lacks the scope connect.".to_owned());
        }
        let invited: Vec<Value> = invitations.iter().map(link_json).collect();
        let needed: Vec<Value> = actions.iter().map(action_json).collect();
        answer::with_meta(said(&lines.join("\n")), META, json!({ "links": invited, "actions": needed }))
    }
}

fn link_json(invitation: &Invitation) -> Value {
    let Invitation { session, url, message } = invitation;
    json!({
        "url": url, "message": message, "session": session.id,
        "provider": session.provider.as_str(), "expires_at": session.expires_at.to_string(),
    })
}

/// Why the call can't go on, if it can't.
fn ended_badly(session: &Session) -> Option<CallToolResult> {
    let text = match &session.state {
        SessionState::Connected(_)
        | SessionState::Waiting
        | SessionState::AtProvider
        | SessionState::Unconfirmed(_) => {
            return None;
        }
        SessionState::Declined => format!("The person declined to connect {}.", session.provider),
        SessionState::Failed(why) => format!("{} could not be connected: {why}", session.provider),
        SessionState::Expired => {
            format!("Nobody connected {} in time; call the tool again to ask anew.", session.provider)
        }
    };
    Some(said(&text))
}

fn elicitation_required(invitations: &[Invitation]) -> ErrorData {
    let elicitations: Vec<Value> = invitations
        .iter()
        .map(|Invitation { session, url, message }| {
            json!({ "mode": "url", "message": message, "url": url, "elicitationId": session.id })
        })
        .collect();
    ErrorData::new(
        URL_ELICITATION_REQUIRED,
        "a person must connect an account first",
        Some(json!({ "elicitations": elicitations })),
    )
}

fn said(text: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}
