//! The rules that say where a skill's requests may go.

use std::fmt;
use std::str::FromStr;

use http::Method;

use super::origin::{Host, InvalidOrigin, Origin, Scheme};
use super::target::{NormalPath, Target, check_segment};
use crate::diagnostic::{Diagnostic, Line, Table};

/// Which origins a rule means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OriginRule {
    /// Exactly this one.
    Literal(Origin),
    /// `https://*.example.com`: every name below `example.com`, at any depth, not the name itself.
    Suffix {
        /// The part after the star, with its dot: `.example.com`.
        suffix: Box<str>,
        /// The port.
        port: u16,
    },
    /// `{api_origin}`: where this connection's API lives, as the provider said when the account was connected.
    ApiOrigin,
}

impl OriginRule {
    /// Whether the rule means this origin, where `api_origin` is the connection's.
    pub fn matches(&self, origin: &Origin, api_origin: Option<&Origin>) -> bool {
        match self {
            Self::Literal(literal) => literal == origin,
            Self::Suffix { suffix, port } => {
                let below = |name: &str| name.strip_suffix(&**suffix).is_some_and(|rest| !rest.is_empty());
                origin.scheme() == Scheme::Https
                    && origin.port() == *port
                    && matches!(origin.host(), Host::Name(name) if below(name))
            }
            Self::ApiOrigin => api_origin == Some(origin),
        }
    }

    /// Whether some origin might be meant by both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ApiOrigin, Self::ApiOrigin) => true,
            // Which origin a connection will have is not known here; a request that two services claim is refused when it is made.
            (Self::ApiOrigin, _) | (_, Self::ApiOrigin) => false,
            (Self::Literal(origin), rule) | (rule, Self::Literal(origin)) => rule.matches(origin, None),
            (Self::Suffix { suffix: a, port: p }, Self::Suffix { suffix: b, port: q }) => {
                p == q && (a.ends_with(&**b) || b.ends_with(&**a))
            }
        }
    }
}

impl OriginRule {
    /// Whether all that the other rule means is meant by this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Suffix { suffix, port }, Self::Suffix { suffix: below, port: other }) => {
                port == other && below.ends_with(&**suffix)
            }
            (_, Self::Literal(origin)) => self.matches(origin, None),
            (ours, theirs) => ours == theirs,
        }
    }
}

impl FromStr for OriginRule {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if text == "{api_origin}" {
            return Ok(Self::ApiOrigin);
        }
        if text.contains('{') {
            return Err(InvalidOrigin("the only variable is `{api_origin}`, and it stands alone"));
        }
        if matches!(text, "*" | "https://*" | "http://*" | "*://*") {
            return Err(InvalidOrigin("a bare `*` would open every host; name the hosts that are needed"));
        }
        let Some(rest) = text.strip_prefix("https://*.") else {
            return text.parse().map(Self::Literal);
        };
        let base: Origin = format!("https://{rest}").parse()?;
        match base.host() {
            Host::Name(name) if name.contains('.') => {
                Ok(Self::Suffix { suffix: format!(".{name}").into(), port: base.port() })
            }
            _ => Err(InvalidOrigin("after `*.` stand at least two parts, as in `https://*.example.com`")),
        }
    }
}

impl fmt::Display for OriginRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(origin) => origin.fmt(f),
            Self::Suffix { suffix, port: 443 } => write!(f, "https://*{suffix}"),
            Self::Suffix { suffix, port } => write!(f, "https://*{suffix}:{port}"),
            Self::ApiOrigin => f.write_str("{api_origin}"),
        }
    }
}

/// Why a text is no path rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPathRule(&'static str);

/// Which paths a rule means: `*` is one whole segment, `/**` at the end is everything below.
///
/// `/a/*/c` means `/a/b/c`; `/a/**` means `/a/` and all that follows, but not `/a`. The query is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathRule {
    segments: Box<[Option<Box<str>>]>,
    below: bool,
}

impl PathRule {
    /// Whether the rule means this path.
    pub fn matches(&self, path: &NormalPath) -> bool {
        let mut segments = path.segments();
        for expected in &self.segments {
            match (segments.next(), expected) {
                (Some(segment), Some(literal)) if segment == &**literal => {}
                (Some(segment), None) if !segment.is_empty() => {}
                _ => return false,
            }
        }
        // `/a/**` needs the slash after `a`, `/a` must end there.
        self.below == segments.next().is_some()
    }

    /// The segments that it names.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flatten().map(|segment| &**segment)
    }

    /// Follows a path segment by segment: how much of the rule is matched after one more; absent: it can't match any more.
    pub(super) fn step(&self, matched: usize, segment: &str) -> Option<usize> {
        match self.segments.get(matched) {
            Some(Some(literal)) => (**literal == *segment).then_some(matched + 1),
            Some(None) => (!segment.is_empty()).then_some(matched + 1),
            // One more than there are segments stands for everything below.
            None => self.below.then_some(self.segments.len() + 1),
        }
    }

    /// Whether a path that ends here is meant.
    pub(super) fn ends(&self, matched: usize) -> bool {
        matched == self.segments.len() + usize::from(self.below)
    }

    /// Whether each path that the other rule means is meant by this one.
    fn covers(&self, other: &Self) -> bool {
        let enough = if self.below {
            // `/a/**` means `/a/` and `/a/b`: whatever has more segments, and whatever goes on below.
            other.segments.len() > self.segments.len() || other.below && other.segments.len() == self.segments.len()
        } else {
            !other.below && other.segments.len() == self.segments.len()
        };
        let narrower = |(ours, theirs): (&Option<Box<str>>, &Option<Box<str>>)| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, Some(theirs)) => !theirs.is_empty(),
            (None, None) => true,
            (Some(_), None) => false,
        };
        enough && self.segments.iter().zip(&other.segments).all(narrower)
    }

    /// Whether some path might be meant by both.
    fn overlaps(&self, other: &Self) -> bool {
        let common = self.segments.iter().zip(&other.segments);
        let alike = common.into_iter().all(|pair| match pair {
            (Some(a), Some(b)) => a == b,
            (Some(a), None) | (None, Some(a)) => !a.is_empty(),
            (None, None) => true,
        });
        let (shorter, longer) = if self.segments.len() <= other.segments.len() { (self, other) } else { (other, self) };
        let lengths = match (shorter.segments.len() == longer.segments.len(), shorter.below, longer.below) {
            (true, a, b) => a == b,
            (false, below, _) => below,
        };
        alike && lengths
    }
}

impl FromStr for PathRule {
    type Err = InvalidPathRule;

    fn from_str(text: &str) -> Result<Self, InvalidPathRule> {
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(InvalidPathRule("a path begins with exactly one slash"));
        }
        if text.contains(['?', '#']) {
            return Err(InvalidPathRule(
                "a rule has no query and no `#`: it is for the path alone, whatever the query",
            ));
        }
        let (front, below) = match text.strip_suffix("/**") {
            Some(front) => (front, true),
            None => (text, false),
        };
        let segment = |segment: &str| match segment {
            "*" => Ok(None),
            text if text.contains('*') => Err(InvalidPathRule(
                "`*` stands for one whole segment, as in `/a/*/c`, and `/**` only at the end, for everything below",
            )),
            text => check_segment(text).map(|()| Some(text.into())).map_err(InvalidPathRule),
        };
        let segments = front.split('/').skip(1).map(segment).collect::<Result<_, _>>()?;
        Ok(Self { segments, below })
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            write!(f, "/{}", segment.as_deref().unwrap_or("*"))?;
        }
        f.write_str(if self.below { "/**" } else { "" })
    }
}

/// Which requests may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRule {
    /// Where to.
    pub origin: OriginRule,
    /// With which methods; absent: with any.
    pub methods: Option<Vec<Method>>,
    /// On which paths; empty: on any.
    pub paths: Vec<PathRule>,
    /// Where the rule is written; absent for what the catalogue says of a provider.
    pub line: Option<Line>,
}

/// What a list of request rules is for; it decides which origins they may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A credential is put on the request: exact hosts and `{api_origin}`.
    Credential,
    /// The request goes out as it is: exact hosts and `*.example.com`.
    Plain,
}

impl RequestRule {
    /// All requests to an origin.
    pub fn everything(origin: OriginRule) -> Self {
        Self { origin, methods: None, paths: Vec::new(), line: None }
    }

    /// Whether the rule means this request.
    pub fn matches(&self, target: &Target, api_origin: Option<&Origin>) -> bool {
        self.origin.matches(target.origin(), api_origin)
            && self.methods.as_ref().is_none_or(|methods| methods.contains(target.method()))
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.matches(target.path())))
    }

    /// Whether some request might be meant by both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (Some(ours), Some(theirs)) => ours.iter().any(|method| theirs.contains(method)),
            _ => true,
        };
        let paths = self.paths.is_empty()
            || other.paths.is_empty()
            || self.paths.iter().any(|ours| other.paths.iter().any(|theirs| ours.overlaps(theirs)));
        methods && paths && self.origin.overlaps(&other.origin)
    }

    /// Whether each request that the other rule means is meant by this one, as far as one rule alone can.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let methods = match (&self.methods, &other.methods) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ours), Some(theirs)) => theirs.iter().all(|method| ours.contains(method)),
        };
        let paths = self.paths.is_empty()
            || !other.paths.is_empty()
                && other.paths.iter().all(|theirs| self.paths.iter().any(|ours| ours.covers(theirs)));
        methods && paths && self.origin.covers(&other.origin)
    }

    /// The rule as rules of one method and one path each, which mean the same together.
    pub(super) fn parts(&self) -> Vec<Self> {
        let methods: Vec<_> = match &self.methods {
            None => vec![None],
            Some(methods) => methods.iter().map(|method| Some(vec![method.clone()])).collect(),
        };
        let paths: Vec<_> = match &*self.paths {
            [] => vec![Vec::new()],
            paths => paths.iter().map(|path| vec![path.clone()]).collect(),
        };
        let part = |(methods, paths): (&Option<Vec<Method>>, &Vec<PathRule>)| Self {
            methods: methods.clone(),
            paths: paths.clone(),
            ..self.clone()
        };
        methods.iter().flat_map(|methods| paths.iter().map(move |paths| (methods, paths))).map(part).collect()
    }

    /// Reads one `[[…request]]`.
    pub(super) fn read(table: &mut Table<'_>, purpose: Purpose) -> Option<Self> {
        table.examples(&[
            ("origin", "\"https://api.example.com\""),
            ("methods", "[\"GET\", \"POST\"]"),
            ("paths", "[\"/v1/messages\", \"/v1/files/**\"]"),
        ]);
        let origin = table.parsed::<OriginRule>("origin");
        let methods = table.opt_list_by("methods", parse_method);
        let paths = table.opt_list::<PathRule>("paths");
        let place = table.span_of("origin");
        for (key, empty) in [
            ("methods", methods.as_ref().is_some_and(Vec::is_empty)),
            ("paths", paths.as_ref().is_some_and(Vec::is_empty)),
        ] {
            // A wrong item was reported already and leaves the list empty too.
            if empty && table.is_empty_list(key) {
                let diagnostic =
                    Diagnostic::new(table.span_of(key), format!("an empty list of `{key}` matches nothing"));
                table.push(diagnostic.help(format!("leave `{key}` out to allow all of them")));
            }
        }
        match (&origin, purpose) {
            (Some(OriginRule::Suffix { .. }), Purpose::Credential) => {
                let diagnostic = Diagnostic::new(place, "a host that gets a credential is written in full");
                table.push(diagnostic.label("`*` can't stand here").help(
                    "write each host; where every account has a host of its own, write \"{api_origin}\": the catalogue restricts it",
                ));
            }
            (Some(OriginRule::ApiOrigin), Purpose::Plain) => {
                let diagnostic =
                    Diagnostic::new(place, "`{api_origin}` belongs to a connection, and this request has none");
                table.push(diagnostic.help("write it in a [[service.request]] of the service, or write the host here"));
            }
            _ => {}
        }
        let methods = methods.map(|methods| methods.into_iter().map(|method| method.value).collect());
        let paths = paths.unwrap_or_default().into_iter().map(|path| path.value).collect();
        Some(Self { origin: origin?, methods, paths, line: Some(table.line()) })
    }
}

impl fmt::Display for RequestRule {
    /// `POST https://api.example.com/v1/messages`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = self.methods.as_deref().map(|methods| methods.iter().map(Method::as_str).collect::<Vec<_>>());
        write!(f, "{} {}", methods.map_or("any method".to_owned(), |methods| methods.join("|")), self.origin)?;
        let paths: Vec<_> = self.paths.iter().map(PathRule::to_string).collect();
        f.write_str(&paths.join(", "))
    }
}

fn parse_method(text: &str) -> Result<Method, &'static str> {
    if !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err("a method is written in capital letters, as in \"POST\"");
    }
    if matches!(text, "CONNECT" | "TRACE") {
        return Err("this method is never sent for a skill");
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| "this is not a method")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(&Method::GET, &text.parse().unwrap()).unwrap()
    }

    fn path_matches(rule: &str, path: &str) -> bool {
        rule.parse::<PathRule>().unwrap().matches(target(&format!("https://api.example{path}")).path())
    }

    #[test]
    fn a_star_is_one_segment_and_two_stars_are_the_rest() {
        assert!(path_matches("/a/*/c", "/a/b/c"));
        assert!(!path_matches("/a/*/c", "/a//c"));
        assert!(!path_matches("/a/*/c", "/a/b/b/c"));
        assert!(!path_matches("/a/*", "/a"));
        assert!(!path_matches("/a", "/a/"));
        assert!(path_matches("/a/**", "/a/"));
        assert!(path_matches("/a/**", "/a/b/c/"));
        assert!(!path_matches("/a/**", "/a"));
        assert!(!path_matches("/a/**", "/ab/c"));
        assert!(path_matches("/**", "/"));
        assert!(path_matches("/", "/"));
        assert!(!path_matches("/", "/a"));
    }

    #[test]
    fn a_path_rule_that_could_be_misread_is_refused() {
        for bad in [
            "",
            "a",
            "//a",
            "/a?b",
            "/a#b",
            "/a*",
            "/**/a",
            "/a/***",
            "/a/..",
            "/a/%2e%2e",
            "/a%2fb",
            "/a\\b",
            "/a b",
            "/é",
        ] {
            assert!(bad.parse::<PathRule>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_suffix_means_names_below_it_only() {
        let rule: OriginRule = "https://*.my.salesforce.com".parse().unwrap();
        let matches = |text: &str| rule.matches(&text.parse().unwrap(), None);
        assert!(matches("https://acme.my.salesforce.com"));
        assert!(matches("https://acme.sandbox.my.salesforce.com"));
        assert!(!matches("https://my.salesforce.com"));
        assert!(!matches("https://evilmy.salesforce.com"));
        assert!(!matches("https://acme.my.salesforce.com:8443"));
        assert!(!matches("https://acme.my.salesforce.com.evil.example"));
    }

    #[test]
    fn a_rule_for_too_many_hosts_is_refused() {
        for bad in [
            "*",
            "https://*",
            "https://*.com",
            "http://*.example.com",
            "https://a*.example.com",
            "https://*.*.example.com",
            "{api_origin}/x",
            "{origin}",
            "https://*.127.0.0.1",
        ] {
            assert!(bad.parse::<OriginRule>().is_err(), "{bad:?}");
        }
    }

    fn path_rule() -> impl Strategy<Value = PathRule> {
        "(/([ab]|\\*)){0,3}(/\\*\\*|/)?".prop_filter_map("not a rule", |text| text.parse().ok())
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_what_parses_is_read_back_the_same(text in "[/a-c*.%{}:?#é2f]{0,16}") {
            if let Ok(rule) = text.parse::<PathRule>() {
                prop_assert_eq!(rule.to_string().parse::<PathRule>().unwrap(), rule);
            }
            let origin = text.parse::<OriginRule>().or_else(|_| format!("https://{text}").parse());
            if let Ok(rule) = origin {
                prop_assert_eq!(rule.to_string().parse::<OriginRule>().unwrap(), rule);
            }
        }

        #[test]
        fn a_rule_that_covers_another_matches_all_that_it_does(a in path_rule(), b in path_rule(), path in "(/[ab]?){1,4}") {
            if !path.starts_with("//") {
                let target = target(&format!("https://api.example{path}"));
                if a.covers(&b) && b.matches(target.path()) {
                    prop_assert!(a.matches(target.path()), "{} {} {}", a, b, path);
                }
            }
            prop_assert!(a.covers(&a));
        }

        #[test]
        fn two_rules_that_match_one_path_overlap(a in path_rule(), b in path_rule(), path in "(/[ab]?){1,4}") {
            if !path.starts_with("//") {
                let target = target(&format!("https://api.example{path}"));
                if a.matches(target.path()) && b.matches(target.path()) {
                    prop_assert!(a.overlaps(&b), "{} {} {}", a, b, path);
                }
            }
        }
    }
}
