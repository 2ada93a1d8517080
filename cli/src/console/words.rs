//! What a skill may do with an account, in words for the account's owner.

use clawcoil::host::Ready;
use clawcoil::id::{ProviderId, Scope};
use clawcoil::policy::{Effective, EffectiveService, OriginRule, RequestRule, Use};
use clawcoil::provider::Provider;

use crate::output::printable;

/// A text of a skill or a provider, without what would turn the text around it: pages escape the rest.
pub(super) fn shown(text: &str) -> String {
    printable(text)
}

/// A text in which what stands between backticks is code. It is HTML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticked(String);

impl askama::filters::HtmlSafe for Ticked {}

impl Ticked {
    /// From a text that is not HTML, as it is meant for people at a terminal too.
    pub(super) fn of(text: &str) -> Self {
        let text = shown(text);
        // An odd one out is no code's beginning.
        let whole = text.matches('`').count().is_multiple_of(2);
        let mut html = String::with_capacity(text.len());
        for (number, part) in text.split('`').enumerate() {
            let (open, close) = match (number % 2, whole) {
                (1, true) => ("<code>", "</code>"),
                (0, _) | (_, true) => ("", ""),
                (_, false) => ("`", ""),
            };
            html.push_str(open);
            html.extend(part.chars().map(|c| escaped(c).map_or_else(|| c.to_string(), str::to_owned)));
            html.push_str(close);
        }
        Self(html)
    }

    /// The same as a sentence: with a capital at its beginning and a stop at its end.
    pub(super) fn sentence(text: &str) -> Self {
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        let stop = if text.ends_with(['.', '!', '?', '`']) || text.contains("http") { "" } else { "." };
        Self::of(&format!("{first}{}{stop}", chars.as_str()))
    }
}

impl std::fmt::Display for Ticked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn escaped(c: char) -> Option<&'static str> {
    match c {
        '<' => Some("&#60;"),
        '>' => Some("&#62;"),
        '&' => Some("&#38;"),
        '"' => Some("&#34;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

/// A scope and what it means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScopeWords {
    /// As the provider writes it.
    pub(super) scope: String,
    /// For people, where the catalogue has words.
    pub(super) words: Option<String>,
}

/// The scopes that the provider will ask about.
pub(super) fn scopes<'a>(entry: &Provider, scopes: impl Iterator<Item = &'a Scope>) -> Vec<ScopeWords> {
    let asked = entry.requested_scopes(&scopes.cloned().collect());
    let words = |scope: &Scope| ScopeWords { scope: scope.to_string(), words: entry.scope_words.get(scope).cloned() };
    asked.iter().map(words).collect()
}

/// Where requests with the account's credential may go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The host, or what stands for it.
    pub(super) place: String,
    /// `POST only`
    pub(super) methods: String,
    pub(super) paths: Vec<String>,
}

/// What a skill may do with the account of one provider.
#[derive(Debug)]
pub(super) struct SkillWords {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) description: String,
    /// Why it needs the account, as its author says.
    pub(super) reasons: Vec<String>,
    pub(super) reach: Vec<Reach>,
    /// It is given the token itself.
    pub(super) sees_token: bool,
    /// The operator grants nothing of it at present.
    pub(super) refused: bool,
}

impl SkillWords {
    pub(super) fn of(ready: &Ready, effective: &Effective, provider: &ProviderId, entry: &Provider) -> Self {
        let services: Vec<&EffectiveService> =
            effective.granted().filter(|service| service.provider == *provider).collect();
        let mut reach: Vec<Reach> = Vec::new();
        for rule in services.iter().flat_map(|service| service.requests()) {
            let found = reach_of(&rule, entry);
            if !reach.contains(&found) {
                reach.push(found);
            }
        }
        Self {
            name: ready.manifest.name.to_string(),
            version: ready.manifest.version.to_string(),
            description: shown(&ready.manifest.description),
            reasons: services.iter().filter_map(|service| service.reason.as_deref()).map(shown).collect(),
            reach,
            sees_token: services.iter().any(|service| service.use_ == Use::Reveal),
            refused: services.is_empty(),
        }
    }
}

fn reach_of(rule: &RequestRule, entry: &Provider) -> Reach {
    let place = match &rule.origin {
        OriginRule::ApiOrigin => format!("the address that {} names for your account", entry.name),
        origin => origin.to_string().trim_start_matches("https://").to_owned(),
    };
    let methods = match rule.methods.as_deref() {
        None => "any method".to_owned(),
        Some([one]) => format!("{one} only"),
        Some(several) => several.iter().map(http_name).collect::<Vec<_>>().join(", "),
    };
    Reach { place, methods, paths: rule.paths.iter().map(ToString::to_string).collect() }
}

fn http_name(method: &axum::http::Method) -> &str {
    method.as_str()
}

#[cfg(test)]
mod tests {
    use clawcoil::provider::Catalogue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code_and_nothing_is_html() {
        assert_eq!(Ticked::of("service `a<b`: x & y").to_string(), "service <code>a&#60;b</code>: x &#38; y");
        assert_eq!(Ticked::of("odd ` one").to_string(), "odd ` one");
        assert_eq!(Ticked::sentence("nothing allows it").to_string(), "Nothing allows it.");
    }

    proptest! {
        #[test]
        fn no_text_becomes_html_but_the_code_that_is_ours(text in any::<String>()) {
            let html = Ticked::of(&text).to_string().replace("<code>", "").replace("</code>", "");
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }
    }

    fn reach(origin: &str, methods: Option<&[&str]>) -> Reach {
        let rule = RequestRule {
            methods: methods.map(|all| all.iter().map(|method| method.parse().unwrap()).collect()),
            ..RequestRule::everything(origin.parse().unwrap())
        };
        reach_of(&rule, Catalogue::builtin().unwrap().get(&"google".parse().unwrap()).unwrap())
    }

    #[test]
    fn where_a_skill_may_send_requests_is_said_in_words() {
        let found = reach("https://gmail.googleapis.com", Some(&["POST"]));
        assert_eq!((found.place.as_str(), found.methods.as_str()), ("gmail.googleapis.com", "POST only"));
        let found = reach("{api_origin}", Some(&["GET", "PATCH"]));
        let expected = "the address that Google names for your account";
        assert_eq!((found.place.as_str(), found.methods.as_str()), (expected, "GET, PATCH"));
        assert_eq!(reach("http://127.0.0.1:9", None).place, "http://127.0.0.1:9");
    }
}
