//! Signing in and out.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use clawcoil::audit::{Event, EventKind};
use serde::Deserialize;

use super::browser::{BrowserSession, Role, Visitor};
use super::form::{self, Form, Nothing};
use super::link::Links;
use super::oidc;
use super::page::{self, Page};
use super::trouble::Trouble;
use crate::serve::{App, Kind, Problem, Shared};

#[derive(Debug, Deserialize)]
pub(super) struct Next {
    pub(super) next: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    page: Page,
    /// The command that makes a link.
    command: String,
    /// Whether the browser is on the machine where the command is typed.
    local: bool,
    connecting: bool,
    /// The identity provider, and the link to it.
    provider: Option<(String, String)>,
}

/// How to sign in.
pub(super) async fn show(
    State(app): State<Shared>,
    visitor: Option<Visitor>,
    Query(Next { next }): Query<Next>,
) -> Result<Response, Trouble> {
    let next = own_path(next.as_deref());
    if visitor.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    let local = app.origins.is_loopback();
    let session = next.strip_prefix("/connect/").filter(|id| id.starts_with("cs_")).map(str::to_owned);
    // Who was asked is told on this machine only: the command's words are the vault's owner's.
    let asked = session.as_ref().filter(|_| local).map(|id| app.sessions.get(&app, id)).transpose()?.flatten();
    let command = match (&session, asked) {
        (Some(id), Some(asked)) => format!("clawcoil console --user {} --connect {id}", asked.user),
        (Some(id), None) => format!("clawcoil console --user YOU --connect {id}"),
        (None, _) => "clawcoil console".to_owned(),
    };
    let provider = oidc::provider_name(&app).map(|name| {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
        (name, format!("/sign-in/provider?{query}"))
    });
    let page = Page::plain("Sign in");
    Ok(page::render(StatusCode::OK, &SignIn { page, command, local, connecting: session.is_some(), provider }))
}

#[derive(Template)]
#[template(path = "link.html")]
struct Offer {
    page: Page,
    role: Role,
}

/// What a link does. It is used by the form on the page, so that whoever only looks at it uses nothing up.
pub(super) async fn offer(State(app): State<Shared>, Path(secret): Path<String>) -> Result<Response, Trouble> {
    let link = Links::of(&app.host).look(&secret)?.ok_or_else(used_up)?;
    let page = Page::plain("Sign in");
    Ok(page::render(StatusCode::OK, &Offer { page, role: link.role }))
}

/// Uses a link.
pub(super) async fn accept(
    State(app): State<Shared>,
    Path(secret): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Trouble> {
    form::require_origin(&headers)?;
    let link = Links::of(&app.host).take(&secret).await?.ok_or_else(used_up)?;
    let to = own_path(Some(&link.next));
    sign_in(&app, &headers, link.role, &to, None).await
}

/// Signs somebody in, in a session of its own: what the browser had before is over. `name` is what an identity provider calls
/// them; without one it was a link of the command line.
pub(super) async fn sign_in(
    app: &App,
    headers: &HeaderMap,
    role: Role,
    to: &str,
    name: Option<String>,
) -> Result<Response, Trouble> {
    BrowserSession::end(app, headers).await?;
    let event = Event {
        user: role.user().cloned(),
        detail: Some(match &name {
            Some(name) => format!("{} {name} by OpenID Connect", role.as_str()),
            None => format!("{} by a link of the command line", role.as_str()),
        }),
        ..Event::new(EventKind::SignedIn)
    };
    app.host.audit().append(&event).map_err(|error| {
        tracing::error!(%error, "the audit log can't be written");
        Problem::new(Kind::Unavailable, "the audit log can't be written, so nobody signs in; the operator must act")
    })?;
    let (_, cookie) = BrowserSession::begin(app, Some(role), name).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response())
}

/// Signs out.
pub(super) async fn sign_out(
    State(app): State<Shared>,
    headers: HeaderMap,
    _form: Form<Nothing>,
) -> Result<Response, Trouble> {
    let gone = BrowserSession::end(&app, &headers).await?;
    app.activity.listeners.look();
    Ok(([(header::SET_COOKIE, gone)], Redirect::to("/sign-in")).into_response())
}

fn used_up() -> Trouble {
    let text = "This link has signed somebody in already, or is older than five minutes. Make a new one with `clawcoil console`.";
    Problem::new(Kind::NotFound, text).into()
}

/// A path of this host, whatever was asked for: what leads elsewhere becomes the first page.
pub(super) fn own_path(path: Option<&str>) -> String {
    let base = url::Url::parse("http://here.invalid");
    let own = path.filter(|path| path.starts_with('/')).and_then(|path| {
        let base = base.ok()?;
        let url = base.join(path).ok().filter(|url| url.origin() == base.origin())?;
        let own = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        // A path that begins with two slashes once its dots are gone is a host to whoever reads it again.
        (!own.starts_with("//")).then_some(own)
    });
    own.unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_signing_in_nobody_is_led_elsewhere() {
        assert_eq!(own_path(Some("/connect/cs_1?a=b")), "/connect/cs_1?a=b");
        for elsewhere in
            ["//evil.example", "https://evil.example/", "/\\evil.example", "\\/evil.example", "javascript:x", "", "x"]
        {
            assert_eq!(own_path(Some(elsewhere)), "/", "{elsewhere}");
        }
        // What begins as a path and ends elsewhere for a browser.
        assert_eq!(own_path(Some("/\t/evil.example")), "/");
        assert_eq!(own_path(Some("/.//evil.example")), "/");
        assert_eq!(own_path(Some("/a/..//evil.example")), "/");
    }

    proptest! {
        #[test]
        fn any_path_leads_to_this_host(path in "[/\\\\a-z.:@\t?#%2f]{0,24}") {
            let own = own_path(Some(&path));
            let url = url::Url::parse("http://127.0.0.1:8418/x").unwrap().join(&own).unwrap();
            prop_assert_eq!(url.origin().ascii_serialization(), "http://127.0.0.1:8418");
        }
    }
}
