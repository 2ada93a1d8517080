//! An entry as files write it: every key may be absent, and a later file goes over an earlier one key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use url::Url;

use super::entry::{CALLBACK_PORT, Kind, Loopback, LoopbackHost, Provider, Rotation};
use super::place::{placement, pointer, slot, slot_of};
use super::template::{InvalidAddress, address, expand, page, variable};
use crate::diagnostic::{Diagnostic, Located, Table};
use crate::id::{ProviderId, Scope};
use crate::oauth::{AnswerShape, BodyFormat, ClientAuth, Revocation, RevocationStyle, Server};
use crate::policy::{Origin, OriginRule, Placement, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KindWord {
    Oauth,
    ClientCredentials,
    ApiKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RotationWord {
    None,
    Replaces,
    SingleUse,
    Grace,
}

/// The keys of an entry, over those of the files before.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    kind: Option<KindWord>,
    texts: BTreeMap<&'static str, String>,
    revoke_style: Option<RevocationStyle>,
    issuer_promised: Option<bool>,
    pkce: Option<bool>,
    client_auth: Option<ClientAuth>,
    token_format: Option<BodyFormat>,
    scope_separator: Option<char>,
    always_scopes: Option<BTreeSet<Scope>>,
    scope_words: BTreeMap<Scope, String>,
    authorize_parameters: BTreeMap<String, String>,
    token_parameters: BTreeMap<String, String>,
    lifetime: Option<Duration>,
    rotation: Option<RotationWord>,
    grace: Option<Duration>,
    drains: Option<bool>,
    grant_ends: Option<Duration>,
    idle_ends: Option<Duration>,
    answer: Option<AnswerShape>,
    permanent_errors: Option<BTreeSet<String>>,
    client_errors: Option<BTreeSet<String>>,
    api_origins: Option<Vec<Located<String>>>,
    placement: Option<Placement>,
    slots: Option<Vec<Slot>>,
    loopback: Option<Loopback>,
    variables: BTreeMap<String, String>,
    overrides: BTreeMap<Origin, Origin>,
    api_origin_override: Option<Origin>,
}

/// Puts the new value over the old where there is one.
macro_rules! over {
    ($draft:ident: $($field:ident = $value:expr;)*) => {$(
        if let Some(value) = $value { $draft.$field = Some(value); }
    )*};
}

impl Draft {
    /// Reads a table over this draft, and notes what is wrong in it.
    pub(super) fn read(mut self, table: &mut Table<'_>) -> Self {
        table.examples(&[
            ("name", "\"Acme\""),
            ("authorize", "\"https://login.acme.example/authorize\""),
            ("token", "\"https://login.acme.example/token\""),
            ("api-origins", "[\"https://api.acme.example\"]"),
        ]);
        for key in [
            "name",
            "documentation",
            "register",
            "authorize",
            "token",
            "refresh",
            "revoke",
            "introspect",
            "issuer",
            "scope-parameter",
            "api-origin-pattern",
            "note",
        ] {
            if let Some(text) = table.opt_string(key) {
                self.texts.insert(key, text);
            }
        }
        self.read_server(table);
        let draft = &mut self;
        over! { draft:
            kind = table.opt_word("kind", &[
                ("oauth", KindWord::Oauth),
                ("client-credentials", KindWord::ClientCredentials),
                ("api-key", KindWord::ApiKey),
            ]);
            lifetime = positive(table, "lifetime");
            rotation = table.opt_word("rotation", &[
                ("none", RotationWord::None),
                ("replaces", RotationWord::Replaces),
                ("single-use", RotationWord::SingleUse),
                ("grace", RotationWord::Grace),
            ]);
            grace = positive(table, "grace");
            drains = table.opt_bool("drains");
            grant_ends = positive(table, "grant-ends");
            idle_ends = positive(table, "idle-ends");
            api_origins = table.opt_strings("api-origins");
            placement = table.opt_table("placement", placement);
            slots = table.opt_list_by("slots", slot).map(values);
            loopback = table.opt_parsed_by("loopback", loopback);
        }
        for (name, value) in table.named_strings("variables") {
            match variable(&value.value) {
                Ok(value) => drop(self.variables.insert(name.value, value)),
                Err(error) => {
                    let diagnostic = Diagnostic::new(value.span, format!("`variables.{}` can't be used", name.value));
                    table.push(diagnostic.label(error.to_string()));
                    // The file is refused already; that an address lacks the variable would be a second error for one mistake.
                    self.variables.entry(name.value).or_insert_with(|| "unusable".to_owned());
                }
            }
        }
        for (scope, words) in table.named_strings("scope-words") {
            match scope.value.parse::<Scope>() {
                Ok(scope) => drop(self.scope_words.insert(scope, words.value)),
                Err(error) => {
                    table.push(Diagnostic::new(scope.span, "this is no scope").label(error.rule().to_owned()));
                }
            }
        }
        self.read_overrides(table);
        self
    }

    fn read_server(&mut self, table: &mut Table<'_>) {
        let draft = self;
        over! { draft:
            revoke_style = table.opt_word("revoke-style", &[
                ("form", RevocationStyle::Form),
                ("json", RevocationStyle::Json),
                ("delete", RevocationStyle::Delete),
                ("bearer", RevocationStyle::Bearer),
            ]);
            issuer_promised = table.opt_bool("issuer-promised");
            pkce = table.opt_bool("pkce");
            client_auth = table.opt_word("client-auth", &[
                ("basic", ClientAuth::Basic),
                ("body", ClientAuth::Body),
                ("secret-as-user", ClientAuth::SecretAsUser),
                ("none", ClientAuth::None),
            ]);
            token_format = table.opt_word("token-format", &[("form", BodyFormat::Form), ("json", BodyFormat::Json)]);
            scope_separator = table.opt_word("scope-separator", &[(" ", ' '), (",", ',')]);
            always_scopes = table.opt_list::<Scope>("always-scopes").map(|list| values(list).into_iter().collect());
            permanent_errors = table.opt_list_by("permanent-errors", error_name).map(|list| values(list).into_iter().collect());
            client_errors = table.opt_list_by("client-errors", error_name).map(|list| values(list).into_iter().collect());
        }
        draft.authorize_parameters.extend(parameters(table, "authorize-parameters"));
        draft.token_parameters.extend(parameters(table, "token-parameters"));
        let shape = draft.answer.take().unwrap_or_default();
        draft.answer = table.opt_table("answer", |table| Some(answer(shape.clone(), table))).or(Some(shape));
    }

    fn read_overrides(&mut self, table: &mut Table<'_>) {
        for (from, to) in table.named_strings("override") {
            let stand_in = to.value.parse::<Origin>().map_err(|error| (to.span, error.to_string()));
            let original = match from.value.as_str() {
                "{api_origin}" => Ok(None),
                text => text.parse::<Origin>().map(Some).map_err(|error| (from.span, error.to_string())),
            };
            match (original, stand_in) {
                (Ok(None), Ok(stand_in)) => self.api_origin_override = Some(stand_in),
                (Ok(Some(origin)), Ok(stand_in)) => drop(self.overrides.insert(origin, stand_in)),
                (original, stand_in) => {
                    for (span, error) in [original.err(), stand_in.err()].into_iter().flatten() {
                        table.push(Diagnostic::new(span, "an override has an origin on both sides").label(error));
                    }
                }
            }
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// The entry, if the keys of all files together make one. What does not is noted at the place of this file that made it so.
    pub(super) fn build(&self, id: &ProviderId, table: &Table<'_>) -> Result<Provider, Noted> {
        let build = Build { draft: self, table };
        let kind = self.kind.unwrap_or(KindWord::Oauth);
        let server = if kind == KindWord::ApiKey { build.no_server() } else { build.server(id, kind) };
        let api_origins = build.api_origins();
        let api_origin_pattern = build.pattern();
        let rotation = build.rotation();
        let placement = self.placement.clone().unwrap_or(Placement::Bearer);
        let slots = self.slots.clone().unwrap_or_else(|| vec![slot_of(&placement)]);
        let (documentation, register) = (build.page("documentation"), build.page("register"));
        let kind = match (kind, server?) {
            (KindWord::Oauth, Some(server)) => Kind::Oauth(Box::new(server)),
            (KindWord::ClientCredentials, Some(server)) => Kind::ClientCredentials(Box::new(server)),
            (_, _) => Kind::ApiKey,
        };
        Ok(Provider {
            id: id.clone(),
            name: self.text("name").unwrap_or(id.as_str()).to_owned(),
            kind,
            documentation: documentation?,
            register: register?,
            pkce: self.pkce.unwrap_or(true),
            always_scopes: self.always_scopes.clone().unwrap_or_default(),
            scope_words: self.scope_words.clone(),
            lifetime: self.lifetime,
            rotation: rotation?,
            drains: self.drains.unwrap_or(false),
            grant_ends: self.grant_ends,
            idle_ends: self.idle_ends,
            api_origins: api_origins?,
            api_origin_pattern: api_origin_pattern?,
            placement,
            slots,
            loopback: self.loopback.clone().unwrap_or(Loopback::Port(LoopbackHost::Address, CALLBACK_PORT)),
            note: self.text("note").map(str::to_owned),
            overrides: self.overrides.clone(),
            api_origin_override: self.api_origin_override.clone(),
        })
    }
}

/// An error was noted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// Building an entry, part by part.
struct Build<'a, 's> {
    draft: &'a Draft,
    table: &'a Table<'s>,
}

impl Build<'_, '_> {
    /// Notes an error at a key of this file, or at the variables, or at the entry.
    fn wrong<T>(&self, key: &str, message: String, label: String) -> Result<T, Noted> {
        let at = if self.table.has(key) { key } else { "variables" };
        self.table.push(Diagnostic::new(self.table.span_of(at), message).label(label));
        Err(Noted)
    }

    /// An optional value of a key.
    fn read<T>(&self, key: &str, read: impl FnOnce(&str) -> Result<T, InvalidAddress>) -> Result<Option<T>, Noted> {
        let Some(text) = self.draft.text(key) else { return Ok(None) };
        match read(text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.wrong(key, format!("`{key}` can't be used"), error.to_string()),
        }
    }

    fn address(&self, key: &str) -> Result<Option<Url>, Noted> {
        self.read(key, |text| address(text, &self.draft.variables))
    }

    fn page(&self, key: &str) -> Result<Option<Url>, Noted> {
        self.read(key, |text| page(text, &self.draft.variables))
    }

    fn demanded(&self, key: &str, why: &str) -> Result<Url, Noted> {
        if let Some(url) = self.address(key)? {
            return Ok(url);
        }
        let diagnostic = Diagnostic::new(self.table.span(), format!("`{key}` is missing"));
        self.table
            .push(diagnostic.label(why.to_owned()).help(format!("write `{key} = \"https://…\"` under this header")));
        Err(Noted)
    }

    fn server(&self, id: &ProviderId, kind: KindWord) -> Result<Option<Server>, Noted> {
        let draft = self.draft;
        let authorize = match kind {
            KindWord::Oauth => self.demanded("authorize", "a person has to be sent somewhere to consent").map(Some),
            KindWord::ClientCredentials | KindWord::ApiKey => self.address("authorize"),
        };
        let token = self.demanded("token", "tokens have to come from somewhere");
        let (refresh, revoke) = (self.address("refresh"), self.address("revoke"));
        let introspect = self.address("introspect");
        let issuer = self.read("issuer", |text| expand(text, &draft.variables));
        let promised = draft.issuer_promised.unwrap_or(false);
        if promised && draft.text("issuer").is_none() {
            let message = "a promised issuer needs a name to compare with".to_owned();
            return self.wrong("issuer-promised", message, "add `issuer = \"https://…\"`".to_owned());
        }
        if draft.revoke_style.is_some() && draft.text("revoke").is_none() {
            let message = "`revoke-style` without `revoke` says nothing".to_owned();
            return self.wrong("revoke-style", message, "add `revoke = \"https://…\"` or remove this".to_owned());
        }
        let style = draft.revoke_style.unwrap_or(RevocationStyle::Form);
        Ok(Some(Server {
            name: draft.text("name").unwrap_or(id.as_str()).to_owned(),
            authorize: authorize?,
            token: token?,
            refresh: refresh?,
            revocation: revoke?.map(|url| Revocation { url, style }),
            introspect: introspect?,
            issuer: issuer?,
            issuer_promised: promised,
            client_auth: draft.client_auth.unwrap_or(ClientAuth::Basic),
            body: draft.token_format.unwrap_or(BodyFormat::Form),
            scope_separator: draft.scope_separator.unwrap_or(' '),
            scope_parameter: draft.text("scope-parameter").unwrap_or("scope").to_owned(),
            authorize_parameters: draft.authorize_parameters.clone(),
            token_parameters: draft.token_parameters.clone(),
            answer: draft.answer.clone().unwrap_or_default(),
            permanent_errors: draft.permanent_errors.clone().unwrap_or_default(),
            client_errors: draft.client_errors.clone().unwrap_or_default(),
        }))
    }

    /// An API key has no authorization server: keys about one are a mistake.
    fn no_server(&self) -> Result<Option<Server>, Noted> {
        for key in ["authorize", "token", "refresh", "revoke", "introspect", "issuer"] {
            if self.draft.text(key).is_some() {
                let message = format!("`{key}` has no meaning for `kind = \"api-key\"`");
                return self.wrong(key, message, "remove it, or choose another kind".to_owned());
            }
        }
        Ok(None)
    }

    fn api_origins(&self) -> Result<Vec<OriginRule>, Noted> {
        let Some(templates) = &self.draft.api_origins else {
            let diagnostic = Diagnostic::new(self.table.span(), "`api-origins` is missing");
            let help = "write `api-origins = [\"https://api.example.com\"]` under this header";
            self.table.push(diagnostic.label("the credential has to go somewhere").help(help));
            return Err(Noted);
        };
        let mut rules = Vec::with_capacity(templates.len());
        let mut whole = true;
        for template in templates {
            let rule = expand(&template.value, &self.draft.variables)
                .map_err(|error| error.to_string())
                .and_then(|text| text.parse::<OriginRule>().map_err(|error| error.to_string()))
                .and_then(|rule| match rule {
                    OriginRule::Suffix { .. } => Err("a host that gets a credential is written in full".to_owned()),
                    OriginRule::Literal(_) | OriginRule::ApiOrigin => Ok(rule),
                });
            match rule {
                Ok(rule) => rules.push(rule),
                Err(error) => {
                    whole = false;
                    // The span is one of this file only if the key is.
                    let here = self.table.has("api-origins");
                    let span = if here { template.span.clone() } else { self.table.span_of("variables") };
                    self.table.push(Diagnostic::new(span, "this is no origin of an API").label(error));
                }
            }
        }
        if rules.contains(&OriginRule::ApiOrigin) && self.draft.text("api-origin-pattern").is_none() {
            let message =
                "`{api_origin}` needs a limit, or a token answer could send the credential anywhere".to_owned();
            let label = "add `api-origin-pattern = \"https://*.example.com\"`".to_owned();
            return self.wrong("api-origins", message, label);
        }
        if whole { Ok(rules) } else { Err(Noted) }
    }

    fn pattern(&self) -> Result<Option<OriginRule>, Noted> {
        let Some(text) = self.draft.text("api-origin-pattern") else { return Ok(None) };
        match text.parse() {
            Ok(OriginRule::ApiOrigin) => {
                let message = "`api-origin-pattern` can't be used".to_owned();
                self.wrong("api-origin-pattern", message, "it says what `{api_origin}` may be".to_owned())
            }
            Ok(rule) => Ok(Some(rule)),
            Err(error) => {
                self.wrong("api-origin-pattern", "`api-origin-pattern` can't be used".to_owned(), error.to_string())
            }
        }
    }

    fn rotation(&self) -> Result<Rotation, Noted> {
        match (self.draft.rotation.unwrap_or(RotationWord::Replaces), self.draft.grace) {
            (RotationWord::None, _) => Ok(Rotation::None),
            (RotationWord::Replaces, _) => Ok(Rotation::Replaces),
            (RotationWord::SingleUse, _) => Ok(Rotation::SingleUse),
            (RotationWord::Grace, Some(grace)) => Ok(Rotation::Grace(grace)),
            (RotationWord::Grace, None) => {
                let message = "`rotation = \"grace\"` needs to know for how long".to_owned();
                self.wrong("rotation", message, "add `grace = \"10m\"`".to_owned())
            }
        }
    }
}

fn values<T>(list: Vec<Located<T>>) -> Vec<T> {
    list.into_iter().map(|located| located.value).collect()
}

fn positive(table: &mut Table<'_>, key: &str) -> Option<Duration> {
    let duration = table.opt_duration(key)?;
    if duration.is_zero() {
        table.push(Diagnostic::new(table.span_of(key), format!("`{key}` is longer than nothing")));
        return None;
    }
    Some(duration)
}

fn error_name(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(text.to_owned()) } else { Err("the name of an error is printable ASCII without spaces") }
}

fn loopback(text: &str) -> Result<Loopback, &'static str> {
    const RULE: &str = "it is \"none\", or \"http://127.0.0.1\" or \"http://localhost\", each with or without a port";
    if text == "none" {
        return Ok(Loopback::Refused);
    }
    let rest = text.strip_prefix("http://").ok_or(RULE)?;
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let host = match host {
        "127.0.0.1" => LoopbackHost::Address,
        "localhost" => LoopbackHost::Name,
        _ => return Err(RULE),
    };
    match port.map(str::parse) {
        None => Ok(Loopback::AnyPort(host)),
        Some(Ok(port)) if port > 0 => Ok(Loopback::Port(host, port)),
        Some(_) => Err(RULE),
    }
}

/// Extra parameters; those that the protocol sets itself can't be set here.
fn parameters(table: &mut Table<'_>, key: &str) -> Vec<(String, String)> {
    const OURS: [&str; 13] = [
        "client_assertion",
        "client_id",
        "client_secret",
        "code",
        "code_challenge",
        "code_challenge_method",
        "code_verifier",
        "grant_type",
        "redirect_uri",
        "refresh_token",
        "response_type",
        "scope",
        "state",
    ];
    let mut list = Vec::new();
    for (name, value) in table.named_strings(key) {
        if OURS.contains(&name.value.as_str()) {
            let message = format!("`{}` is set by the protocol", name.value);
            table.push(Diagnostic::new(name.span, message).label("remove it"));
        } else {
            list.push((name.value, value.value));
        }
    }
    list
}

fn answer(mut shape: AnswerShape, table: &mut Table<'_>) -> AnswerShape {
    let mut over = |key: &str, field: &mut String| {
        if let Some(text) = table.opt_parsed_by(key, pointer) {
            *field = text;
        }
    };
    over("access", &mut shape.access);
    over("refresh", &mut shape.refresh);
    over("token-type", &mut shape.token_type);
    over("expires-in", &mut shape.expires_in);
    over("scope", &mut shape.scope);
    if let Some(list) = table.opt_list_by("errors", pointer) {
        shape.errors = values(list);
    }
    shape.ok = table.opt_parsed_by("ok", pointer).or(shape.ok);
    shape.api_origin = table.opt_parsed_by("api-origin", pointer).or(shape.api_origin);
    shape.account = table.opt_parsed_by("account", pointer).or(shape.account);
    shape
}
