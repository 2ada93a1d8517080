//! What goes wrong, as a page that says who must act.

use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use clawcoil::vault::VaultError;

use super::page::{self, Page};
use crate::connecting::{Refusal, SessionState};
use crate::serve::{Kind, Problem};

/// Why there is no page as asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nobody is signed in; after that, this path is shown.
    SignIn(String),
    /// The rest, in words.
    Problem(Problem),
    /// The link was meant for somebody else.
    NotAsked,
    /// The connect session is over, or is elsewhere.
    Over(SessionState),
}

impl Trouble {
    /// Somebody must sign in first. What was only looked at is shown afterwards; what was sent must be sent again.
    pub(super) fn sign_in(method: &Method, uri: &Uri) -> Self {
        let path = uri.path_and_query().filter(|_| method == Method::GET);
        Self::SignIn(path.map_or("/", |path| path.as_str()).to_owned())
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<VaultError> for Trouble {
    fn from(error: VaultError) -> Self {
        Self::Problem(error.into())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SignIn => Self::SignIn("/".to_owned()),
            Refusal::NotAsked => Self::NotAsked,
            Refusal::Over(state) => Self::Over(state),
            Refusal::Problem(problem) => Self::Problem(problem),
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(next) => {
                let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
                Redirect::to(&format!("/sign-in?{query}")).into_response()
            }
            Self::Problem(problem) => {
                let kind = problem.kind();
                let title = match kind {
                    Kind::NotFound => "There is nothing here",
                    Kind::Forbidden => "This is not for you",
                    _ => kind.title(),
                };
                page::notice(&Page::plain(title), kind.status(), problem.detail())
            }
            Self::NotAsked => page::notice(
                &Page::plain("This link is for somebody else"),
                StatusCode::FORBIDDEN,
                "You are signed in, but not as the person who was asked to connect an account. If you went on, your account \
                 would be used in that person's name, so nothing was begun. Whoever sent you this link should open it themselves.",
            ),
            Self::Over(state) => {
                let (title, text) = over(&state);
                page::notice(&Page::plain(title), StatusCode::CONFLICT, &text)
            }
        }
    }
}

/// What is said of a session that can't go on from here.
pub(super) fn over(state: &SessionState) -> (&'static str, String) {
    match state {
        SessionState::Waiting | SessionState::AtProvider => {
            ("Not begun yet", "Open the link that you were given, and go on from there.".to_owned())
        }
        SessionState::Unconfirmed(_) => (
            "Waiting for your word",
            "An account was connected. Open the link that you were given, and say whether it is the right one.".to_owned(),
        ),
        SessionState::Connected(_) => {
            ("Connected", "The account is connected. You can close this window.".to_owned())
        }
        SessionState::Declined => {
            ("Declined", "Nothing was connected, because you said no. You can close this window.".to_owned())
        }
        SessionState::Failed(why) => ("Nothing was connected", why.clone()),
        SessionState::Expired => (
            "This link has expired",
            "Nobody opened it in time, or nobody said that the account was the right one. Nothing is connected. The agent can \
             ask again."
                .to_owned(),
        ),
    }
}
