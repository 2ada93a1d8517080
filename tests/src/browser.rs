//! What a person does in a browser: open a link, sign in, consent, and be sent back.

use std::collections::BTreeMap;

use http::{Method, header};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::http::{Answer, send};

/// A browser: it keeps cookies, follows redirects and submits forms.
#[derive(Debug, Default)]
pub struct Browser {
    /// Host, path and name of each cookie, and its value.
    cookies: BTreeMap<(String, String, String), String>,
}

/// Where following redirects has led.
#[derive(Debug)]
pub enum Arrival {
    /// A page to look at.
    Page(Page),
    /// The address at which the browser's journey was to end. Nothing was sent there.
    Back(Url),
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its address.
    pub url: Url,
    /// What came.
    pub answer: Answer,
}

/// The first form of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Where it is sent to.
    pub action: String,
    /// The fields that it has a value for.
    pub fields: BTreeMap<String, String>,
}

impl Browser {
    /// A browser without any cookie.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an address and follows redirects until a page comes or `back` (the redirect address of a client) is reached.
    pub async fn open(&mut self, url: Url, back: &Url) -> Arrival {
        self.go(Method::GET, url, None, String::new(), Some(back)).await
    }

    /// Opens an address and follows redirects, those that a page itself asks for as well, until a page stays.
    ///
    /// # Panics
    ///
    /// They never end.
    pub async fn visit(&mut self, url: Url) -> Page {
        self.stay(Method::GET, url, None, String::new()).await
    }

    /// Sends off the form of a page that goes to this path, and follows redirects until a page stays.
    ///
    /// # Panics
    ///
    /// The page has no such form.
    pub async fn send(&mut self, page: &Page, action: &str, filled: &[(&str, &str)]) -> Page {
        let text = page.answer.text();
        let form = Form::sent_to(text, action).unwrap_or_else(|| panic!("no form goes to {action}: {text}"));
        let body = form.filled(filled);
        let url = page.url.join(&form.action).expect("the form's action is an address");
        self.stay(Method::POST, url, Some(&page.url), body).await
    }

    async fn stay(&mut self, method: Method, url: Url, from: Option<&Url>, body: String) -> Page {
        let mut arrival = self.go(method, url, from, body, None).await;
        for _ in 0..5 {
            let Arrival::Page(page) = arrival else { panic!("there is nowhere to be sent back to") };
            let Some(next) = onward(page.answer.text()) else { return page };
            let url = page.url.join(&next).expect("a page goes on to an address");
            arrival = self.go(Method::GET, url, None, String::new(), None).await;
        }
        panic!("sent on and on");
    }

    /// Consents at an authorization server where it asks, signed in there as this person, until a page comes that is not its.
    ///
    /// # Panics
    ///
    /// The server shows something else than a form.
    pub async fn consent_from(&mut self, mut page: Page, server: &str, person: &str) -> Page {
        for _ in 0..4 {
            if !page.url.as_str().starts_with(server) {
                return page;
            }
            let text = page.answer.text();
            let form = Form::first_of(text).unwrap_or_else(|| panic!("no form at {}: {text}", page.url));
            let login = form.fields.get("prompt").is_some_and(|prompt| prompt == "login");
            let filled: &[_] = if login { &[("login", person), ("password", "any")] } else { &[] };
            page = self.send(&page, &form.action, filled).await;
        }
        panic!("the server asks again and again: {}", page.url);
    }

    /// Fills in a form, sends it off and follows redirects.
    ///
    /// # Panics
    ///
    /// Its action is no address.
    pub async fn submit(&mut self, page: &Page, form: &Form, filled: &[(&str, &str)], back: &Url) -> Arrival {
        let url = page.url.join(&form.action).expect("the form's action is an address");
        self.go(Method::POST, url, Some(&page.url), form.filled(filled), Some(back)).await
    }

    /// Goes through an authorization as this person: signs in where asked to, consents, and ends at `back`, where the address
    /// carries the answer.
    ///
    /// # Panics
    ///
    /// The server shows something else than a form.
    pub async fn consent(&mut self, start: Url, person: &str, back: &Url) -> Url {
        let mut arrival = self.open(start, back).await;
        for _ in 0..4 {
            let page = match arrival {
                Arrival::Back(url) => return url,
                Arrival::Page(page) => page,
            };
            let text = page.answer.text();
            let form = Form::first_of(text).unwrap_or_else(|| panic!("no form at {}: {text}", page.url));
            let filled: &[_] = if form.fields.get("prompt").is_some_and(|prompt| prompt == "login") {
                &[("login", person), ("password", "any")]
            } else {
                &[]
            };
            arrival = self.submit(&page, &form, filled, back).await;
        }
        panic!("the server asks again and again: {arrival:?}");
    }

    async fn go(
        &mut self,
        mut method: Method,
        mut url: Url,
        from: Option<&Url>,
        mut body: String,
        back: Option<&Url>,
    ) -> Arrival {
        let origin = from.map(|page| page.origin().ascii_serialization()).unwrap_or_default();
        for _ in 0..20 {
            let is_back =
                |back: &Url| url.host() == back.host() && url.port() == back.port() && url.path() == back.path();
            if back.is_some_and(is_back) {
                return Arrival::Back(url);
            }
            let cookies = self.cookies_for(&url);
            let mut headers = vec![("cookie", cookies.as_str())];
            if method == Method::POST {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
                headers.push(("origin", &origin));
            }
            let answer = send(method, &url, &headers, body).await;
            self.keep_cookies(&url, &answer);
            let location = answer.headers.get(header::LOCATION).filter(|_| answer.status.is_redirection());
            let Some(location) = location else { return Arrival::Page(Page { url, answer }) };
            url = url.join(location.to_str().expect("a location is ASCII")).expect("a location is an address");
            (method, body) = (Method::GET, String::new());
        }
        panic!("redirected in circles, at last to {url}");
    }

    /// What it sends as `Cookie` to this address.
    pub fn cookies_for(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        let fits = |path: &str| {
            url.path()
                .strip_prefix(path)
                .is_some_and(|rest| path.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
        };
        self.cookies
            .iter()
            .filter(|((at, path, _), _)| at == host && fits(path))
            .map(|((_, _, name), value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn keep_cookies(&mut self, url: &Url, answer: &Answer) {
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let mut parts = cookie.to_str().expect("a cookie is ASCII").split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let attributes: BTreeMap<_, _> = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            let path = attributes.get("path").copied().unwrap_or("/");
            let key = (url.host_str().unwrap_or_default().to_owned(), path.to_owned(), name.to_owned());
            // A server takes a cookie away with a date long past, and here with no value as well.
            if value.is_empty() {
                self.cookies.remove(&key)
            } else {
                self.cookies.insert(key, value.to_owned())
            };
        }
    }
}

/// Where a page sends its reader by itself.
fn onward(html: &str) -> Option<String> {
    let (_, tag) = html.split_once("<meta http-equiv=\"refresh\"")?;
    let (tag, _) = tag.split_once('>')?;
    Some(attribute(tag, "content")?.split_once("url=")?.1.to_owned())
}

impl Form {
    /// The first form of an HTML page.
    pub fn first_of(html: &str) -> Option<Self> {
        let (_, form) = html.split_once("<form")?;
        Self::read(form)
    }

    /// The form of an HTML page that goes to this address; one that names none goes to the page itself.
    pub fn sent_to(html: &str, action: &str) -> Option<Self> {
        html.split("<form").skip(1).filter_map(Self::read).find(|form| form.action == action)
    }

    fn filled(&self, filled: &[(&str, &str)]) -> String {
        let mut fields = self.fields.clone();
        fields.extend(filled.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Serializer::new(String::new()).extend_pairs(&fields).finish()
    }

    fn read(form: &str) -> Option<Self> {
        let (form, _) = form.split_once("</form>")?;
        let (tag, mut rest) = form.split_once('>')?;
        let action = attribute(tag, "action").unwrap_or_default();
        let mut fields = BTreeMap::new();
        while let Some((_, after)) = rest.split_once("<input") {
            let (tag, after) = after.split_once('>')?;
            if let (Some(name), Some(value)) = (attribute(tag, "name"), attribute(tag, "value")) {
                fields.insert(name, value);
            }
            rest = after;
        }
        Some(Self { action, fields })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, value) = tag.split_once(&format!(" {name}=\""))?;
    let (value, _) = value.split_once('"')?;
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#34;", "\"")
            .replace("&#39;", "'")
            .replace("&#60;", "<")
            .replace("&#62;", ">")
            .replace("&#38;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_is_read_with_the_values_that_it_has() {
        let form = Form::first_of(
            r#"<p>x</p><form autocomplete="off" action="/a?b=1&amp;c=2" method="post">
            <input type="hidden" name="prompt" value="login"/><input required type="text" name="login"></form>"#,
        )
        .unwrap();
        assert_eq!(form.action, "/a?b=1&c=2");
        assert_eq!(form.fields, BTreeMap::from([("prompt".to_owned(), "login".to_owned())]));
        assert_eq!(Form::first_of("<p>nothing</p>"), None);
    }
}
