//! What all pages have in common: their frame, and what a browser is told about them.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::assets;
use super::browser::{BrowserSession, Role, Visitor};
use crate::serve::{Problem, Shared};

/// Nothing that is not from here is run, loaded, framed or sent to.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                              form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A place of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Home,
    /// A page outside of the navigation.
    Elsewhere,
}

impl Place {
    const ALL: [Self; 1] = [Self::Home];

    const fn path(self) -> &'static str {
        match self {
            Self::Home | Self::Elsewhere => "/",
        }
    }

    const fn label(self, role: &Role) -> &'static str {
        match (self, role) {
            (Self::Home, Role::User(_)) => "My accounts",
            (Self::Home | Self::Elsewhere, _) => "Overview",
        }
    }
}

/// The frame of a page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Who is signed in.
    pub(crate) signed_in: Option<Role>,
    /// For forms.
    csrf: Option<String>,
    place: Place,
}

/// An entry of the navigation.
pub(crate) struct NavItem {
    pub(crate) path: &'static str,
    pub(crate) label: &'static str,
    pub(crate) current: bool,
}

impl Page {
    /// A page of the console.
    pub(crate) fn of(title: impl Into<String>, visitor: &Visitor, place: Place) -> Self {
        Self { place, ..Self::in_browser(title, Some(&visitor.session)) }
    }

    /// A page for whoever uses this browser.
    pub(crate) fn in_browser(title: impl Into<String>, session: Option<&BrowserSession>) -> Self {
        Self {
            title: title.into(),
            signed_in: session.and_then(|session| session.role.clone()),
            csrf: session.map(|session| session.csrf.clone()),
            place: Place::Elsewhere,
        }
    }

    /// A page for anybody.
    pub(crate) fn plain(title: impl Into<String>) -> Self {
        Self::in_browser(title, None)
    }

    /// The value for the hidden field `csrf` of a form.
    pub(crate) fn csrf(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
    }

    /// The navigation of whoever is signed in.
    pub(crate) fn nav(&self) -> Vec<NavItem> {
        let Some(role) = &self.signed_in else { return Vec::new() };
        let item =
            |place: Place| NavItem { path: place.path(), label: place.label(role), current: place == self.place };
        Place::ALL.into_iter().map(item).collect()
    }

    /// The address of a file of `cli/static`.
    #[expect(clippy::unused_self, reason = "templates call methods of what they are given")]
    pub(crate) fn asset(&self, name: &str) -> String {
        assets::address(name)
    }
}

/// A page from its template.
pub(crate) fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "notice.html")]
struct Notice<'a> {
    page: &'a Page,
    paragraphs: Vec<&'a str>,
}

/// Says one thing.
pub(crate) fn notice(page: &Page, status: StatusCode, text: &str) -> Response {
    render(status, &Notice { page, paragraphs: text.lines().filter(|line| !line.is_empty()).collect() })
}

/// Sends the browser to another site. Not by a redirect: browsers hold what follows a form to the form's own targets.
#[derive(Template)]
#[template(path = "onward.html")]
struct Onward<'a> {
    page: &'a Page,
    to: &'a str,
    whom: &'a str,
}

/// Goes on at another site, called `whom`.
pub(crate) fn onward(page: &Page, to: &url::Url, whom: &str) -> Response {
    render(StatusCode::OK, &Onward { page, to: to.as_str(), whom })
}

/// Tells the browser to be strict, and leads those who come by another name of this machine to the one that cookies are for.
pub(super) async fn protect(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if request.method() == Method::GET
        && let Some(url) = host.and_then(|host| app.origins.by_its_name(host, request.uri()))
    {
        return Redirect::to(url.as_str()).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set("content-security-policy", CONTENT_POLICY);
    set("cache-control", "no-store");
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    // The addresses of some pages are for their reader alone. Forms need the origin to be said, so it is not `no-referrer`.
    set("referrer-policy", "same-origin");
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    set("permissions-policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()");
    if app.origins.is_https() {
        set("strict-transport-security", "max-age=31536000");
    }
    response
}
