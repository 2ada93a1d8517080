//! What all pages have in common: their frame, and what a browser is told about them.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::access::Access;
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
    Connections,
    Skills,
    Policy,
    Audit,
    Activity,
    Calls,
    /// A page outside of the navigation.
    Elsewhere,
}

impl Place {
    const ALL: [Self; 7] =
        [Self::Home, Self::Connections, Self::Skills, Self::Policy, Self::Audit, Self::Activity, Self::Calls];

    const fn path(self) -> &'static str {
        match self {
            Self::Home | Self::Elsewhere => "/",
            Self::Connections => "/connections",
            Self::Skills => "/skills",
            Self::Policy => "/policy",
            Self::Audit => "/audit",
            Self::Activity => "/activity",
            Self::Calls => "/calls",
        }
    }

    const fn access(self) -> Access {
        match self {
            Self::Home | Self::Elsewhere => Access::SignedIn,
            Self::Connections | Self::Skills | Self::Policy | Self::Audit | Self::Activity => Access::Staff,
            Self::Calls => Access::User,
        }
    }

    const fn label(self, role: &Role) -> &'static str {
        match (self, role) {
            (Self::Home, Role::User(_)) => "My accounts",
            (Self::Home | Self::Elsewhere, _) => "Overview",
            (Self::Connections, _) => "Connections",
            (Self::Skills, _) => "Skills",
            (Self::Policy, _) => "Policy",
            (Self::Audit, _) => "Audit",
            (Self::Activity, _) => "Activity",
            (Self::Calls, _) => "My calls",
        }
    }
}

/// The frame of a page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Who is signed in.
    pub(crate) signed_in: Option<Role>,
    /// What they are called, beside their role.
    pub(crate) name: Option<String>,
    /// Where a page that says one thing leads on to.
    pub(crate) back: Option<(&'static str, &'static str)>,
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
            name: session.and_then(|session| session.name.clone()),
            back: None,
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
        let open = Place::ALL.into_iter().filter(|place| role.may(place.access()));
        open.map(|place| NavItem { path: place.path(), label: place.label(role), current: place == self.place })
            .collect()
    }

    /// Whether the reader changes what operators change: buttons for that are for them alone.
    pub(crate) fn is_operator(&self) -> bool {
        self.signed_in.as_ref().is_some_and(|role| role.may(Access::Operator))
    }

    /// The address of a file of `cli/static`.
    #[expect(clippy::unused_self, reason = "templates call methods of what they are given")]
    pub(crate) fn asset(&self, name: &str) -> String {
        assets::address(name)
    }
}

/// The pages of a list, as links.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) earlier: Option<String>,
    pub(crate) later: Option<String>,
    /// `51 to 100 of 230`; nothing where all are on one page.
    pub(crate) words: Option<String>,
    first: usize,
}

impl Pages {
    /// The pages of a list of `all` things, `size` on each, of which the one with this number is shown.
    pub(crate) fn of(path: &str, query: &[(&str, &str)], number: usize, all: usize, size: usize) -> Self {
        let last = all.saturating_sub(1) / size;
        let number = number.min(last);
        let link = |number: usize| {
            let mut text = url::form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
            text.append_pair("page", &number.to_string());
            format!("{path}?{}", text.finish())
        };
        let first = number * size;
        Self {
            earlier: number.checked_sub(1).map(link),
            later: (number < last).then(|| link(number + 1)),
            words: (last > 0).then(|| format!("{} to {} of {all}", first + 1, (first + size).min(all))),
            first,
        }
    }

    /// The place of the first thing on this page, counted from 0.
    pub(crate) fn first(&self) -> usize {
        self.first
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_pages_and_no_others() {
        let pages = Pages::of("/connections", &[("user", "a b"), ("provider", "")], 1, 101, 50);
        assert_eq!(pages.earlier.as_deref(), Some("/connections?user=a+b&page=0"));
        assert_eq!(pages.later.as_deref(), Some("/connections?user=a+b&page=2"));
        assert_eq!((pages.first(), pages.words.as_deref()), (50, Some("51 to 100 of 101")));
        let beyond = Pages::of("/connections", &[], 99, 101, 50);
        assert_eq!((beyond.first(), beyond.later), (100, None));
        let none = Pages::of("/connections", &[], 0, 0, 50);
        assert_eq!((none.earlier, none.later, none.words), (None, None, None));
    }
}
