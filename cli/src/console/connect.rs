//! The page on which a person connects an account: who asks, for what, and what can be done with it.

use askama::Template;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use clawcoil::id::Caller;
use clawcoil::provider::Provider;
use clawcoil::vault::Connection;
use url::Url;

use super::browser::BrowserSession;
use super::form::{Form, Nothing};
use super::page::{self, Page};
use super::trouble::{Trouble, over};
use super::words::{self, ScopeWords, SkillWords};
use crate::connecting::{Browser, Opener, Session, SessionState};
use crate::serve::{App, Kind, Problem, Shared};

#[derive(Template)]
#[template(path = "connect.html")]
struct Ask<'a> {
    page: Page,
    session: &'a Session,
    provider: &'a str,
    scopes: Vec<ScopeWords>,
    skill: Option<SkillWords>,
    /// Why the last attempt came to nothing.
    mishap: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    page: Page,
    session: &'a Session,
    provider: &'a str,
    /// Which account it is, in the provider's words.
    label: Option<String>,
}

#[derive(Template)]
#[template(path = "ended.html")]
struct Ended<'a> {
    page: Page,
    text: &'a str,
    connected: bool,
    provider: &'a str,
    label: Option<String>,
}

/// The page of a session, as it stands.
pub(super) async fn show(
    State(app): State<Shared>,
    browser: Option<BrowserSession>,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let opener = browser.as_ref().map_or(Opener::Unknown, BrowserSession::opener);
    let session = app.sessions.opened(&app, &id, &opener).map_err(|refusal| after_sign_in(refusal, &id))?;
    if let Some(browser) = browser {
        view(&app, &browser, &session, None).await
    } else {
        // The app that embeds the agent tells later who this is; until then the browser is held to be one and the same.
        let (browser, cookie) = BrowserSession::begin(&app, None, None).await?;
        let page = view(&app, &browser, &session, None).await?;
        Ok(([(header::SET_COOKIE, cookie)], page).into_response())
    }
}

/// Goes to the provider.
pub(super) async fn go_on(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Form { session: browser, fields: Nothing {} }: Form<Nothing>,
) -> Result<Response, Trouble> {
    let begun = app
        .sessions
        .begin(&app, &id, &browser.opener(), Browser(&browser.id))
        .await
        .map_err(|refusal| after_sign_in(refusal, &id))?;
    let name = provider(&app, &begun.session)?.name.clone();
    let page = Page::in_browser(format!("On to {name}"), Some(&browser));
    Ok(page::onward(&page, &begun.url, &name))
}

/// The account is the right one.
pub(super) async fn confirm(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Form { session: browser, fields: Nothing {} }: Form<Nothing>,
) -> Result<Response, Trouble> {
    app.sessions.confirm(&app, &id, &browser.opener()).await.map_err(|refusal| after_sign_in(refusal, &id))?;
    Ok(Redirect::to(&format!("/connect/{id}")).into_response())
}

/// No.
pub(super) async fn decline(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Form { session: browser, fields: Nothing {} }: Form<Nothing>,
) -> Result<Response, Trouble> {
    let opener = browser.opener();
    let session = app.sessions.decline(&app, &id, &opener).await.map_err(|refusal| after_sign_in(refusal, &id))?;
    if opener == Opener::Unknown
        && let Some(url) = back(&session, None)
    {
        let page = Page::in_browser("Declined", Some(&browser));
        return Ok(page::onward(&page, &url, &back_to(&url)));
    }
    Ok(Redirect::to(&format!("/connect/{id}")).into_response())
}

/// Where providers send browsers back to.
pub(super) async fn callback(
    State(app): State<Shared>,
    browser: Option<BrowserSession>,
    RawQuery(query): RawQuery,
) -> Result<Response, Trouble> {
    let Some(browser) = browser else {
        let text = "The provider sent you back to a browser in which nothing was begun. Open the link that you were given in \
                    one browser, and stay in it until the end.";
        return Err(Problem::new(Kind::NotFound, text).into());
    };
    let query = query.unwrap_or_default();
    let arrived = app.sessions.arrived(&app, &query, Browser(&browser.id)).await?;
    let session = &arrived.session;
    if let Some(mishap) = &arrived.mishap {
        return view(&app, &browser, session, Some(mishap)).await;
    }
    if browser.role.is_none()
        && let Some(url) = back(session, arrived.code.as_ref().map(|code| code.as_str()))
    {
        return Ok(Redirect::to(url.as_str()).into_response());
    }
    // The address of this page has the provider's code in it: it does not stay in the browser.
    Ok(Redirect::to(&format!("/connect/{}", session.id)).into_response())
}

/// The page for where the session stands.
async fn view(
    app: &App,
    browser: &BrowserSession,
    session: &Session,
    mishap: Option<&str>,
) -> Result<Response, Trouble> {
    let entry = provider(app, session)?;
    let of = |title: String| Page::in_browser(title, Some(browser));
    match &session.state {
        SessionState::Waiting | SessionState::AtProvider => {
            let ask = Ask {
                page: of(format!("Connect your {} account", entry.name)),
                session,
                provider: &entry.name,
                scopes: words::scopes(entry, session.scopes.iter()),
                skill: skill(app, session, entry).await?,
                mishap,
            };
            Ok(page::render(StatusCode::OK, &ask))
        }
        SessionState::Unconfirmed(_) if browser.user().is_some() => {
            let connection = app.sessions.connection(app, session)?;
            let confirm = Confirm {
                page: of("Is this your account?".to_owned()),
                session,
                provider: &entry.name,
                label: connection.as_ref().and_then(|connection| connection.account_label.as_deref()).map(words::shown),
            };
            Ok(page::render(StatusCode::OK, &confirm))
        }
        state => {
            let (title, text) = over(state);
            let connection = app.sessions.connection(app, session)?;
            let ended = Ended {
                page: of(title.to_owned()),
                text: &text,
                connected: matches!(state, SessionState::Connected(_)),
                provider: &entry.name,
                label: connection
                    .as_deref()
                    .and_then(|connection: &Connection| connection.account_label.as_deref())
                    .map(words::shown),
            };
            Ok(page::render(StatusCode::OK, &ended))
        }
    }
}

async fn skill(app: &App, session: &Session, entry: &Provider) -> Result<Option<SkillWords>, Problem> {
    let Some(name) = &session.skill else { return Ok(None) };
    let ready = app.host.ready(name).await?;
    let caller = Caller::new(session.client.clone(), session.user.clone());
    let effective = app.host.effective(&ready, &caller);
    Ok(Some(SkillWords::of(&ready, &effective, &session.provider, entry)))
}

fn provider<'a>(app: &'a App, session: &Session) -> Result<&'a Provider, Problem> {
    app.host.catalogue().get(&session.provider).ok_or_else(|| {
        let detail = format!("the operator has removed the provider {} from the catalogue", session.provider);
        Problem::new(Kind::Unavailable, detail)
    })
}

/// Where the browser goes back to, with what the app needs to go on.
fn back(session: &Session, code: Option<&str>) -> Option<Url> {
    let mut url = session.return_url.clone()?;
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("connect_session", &session.id).append_pair("state", session.state.as_str());
        if let Some(code) = code {
            query.append_pair("code", code);
        }
    }
    Some(url)
}

fn back_to(url: &Url) -> String {
    url.host_str().unwrap_or("the app").to_owned()
}

/// Whoever has to sign in first comes back to the session.
fn after_sign_in(refusal: crate::connecting::Refusal, id: &str) -> Trouble {
    match refusal {
        crate::connecting::Refusal::SignIn => Trouble::SignIn(format!("/connect/{id}")),
        other => other.into(),
    }
}
