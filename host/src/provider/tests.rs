use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::Source;
use crate::id::ProviderId;
use crate::oauth::{ClientAuth, RevocationStyle};
use crate::policy::{Origin, OriginRule, Placement, Slot};

fn id(name: &str) -> ProviderId {
    name.parse().unwrap()
}

fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

fn with(text: &str) -> Catalogue {
    Catalogue::with(&[Source::new("providers.toml", text)]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_built_in_providers_are_whole() {
    let catalogue = Catalogue::builtin().unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<_> = catalogue.iter().map(|provider| provider.id.to_string()).collect();
    assert_eq!(
        names.join(" "),
        "asana atlassian box discord dropbox figma github github-app gitlab google hubspot linear linkedin microsoft notion \
         salesforce slack spotify stripe x zoom"
    );
    for provider in catalogue.iter() {
        let server = provider.server().unwrap();
        assert!(server.authorize.is_some() && provider.documentation.is_some() && provider.register.is_some());
        assert!(!provider.api_origins.is_empty() && provider.overrides.is_empty());
        // Nothing built in reaches this machine.
        assert_eq!(provider.address_rules(&[]), crate::net::AddressRules::default(), "{}", provider.id);
    }
}

#[test]
fn every_built_in_address_names_the_page_it_was_taken_from() {
    for (number, line) in include_str!("providers.toml").lines().enumerate() {
        let key = line.split(" = ").next().unwrap_or_default();
        let address = matches!(key, "authorize" | "token" | "refresh" | "revoke" | "introspect" | "issuer");
        if address || line.starts_with("    \"https://") || (key == "api-origins" && line.contains("https://")) {
            assert!(line.contains("# https://"), "line {}: {line}", number + 1);
        }
    }
}

#[test]
fn what_is_particular_about_a_provider_is_read() {
    let catalogue = Catalogue::builtin().unwrap();
    let github = catalogue.get(&id("github-app")).unwrap();
    assert!(github.drains && github.rotation == Rotation::SingleUse);
    assert!(github.server().unwrap().permanent_errors.contains("bad_refresh_token"));
    assert_eq!(github.server().unwrap().revocation.as_ref().unwrap().style, RevocationStyle::Delete);
    let slack = catalogue.get(&id("slack")).unwrap();
    assert_eq!(slack.server().unwrap().scope_separator, ',');
    assert_eq!(slack.server().unwrap().answer.ok.as_deref(), Some("/ok"));
    assert!(slack.server().unwrap().permanent_errors.contains("invalid_refresh_token"));
    let stripe = catalogue.get(&id("stripe")).unwrap();
    assert_eq!(stripe.server().unwrap().client_auth, ClientAuth::SecretAsUser);
    let microsoft = catalogue.get(&id("microsoft")).unwrap();
    assert_eq!(microsoft.server().unwrap().token.path(), "/common/oauth2/v2.0/token");
    let scopes = BTreeSet::from(["Mail.Send".parse().unwrap()]);
    assert_eq!(microsoft.requested_scopes(&scopes).len(), 2);
    let atlassian = catalogue.get(&id("atlassian")).unwrap();
    assert_eq!(atlassian.rotation, Rotation::Grace(std::time::Duration::from_mins(10)));
}

#[test]
fn the_redirect_address_to_register_is_exact() {
    let catalogue = Catalogue::builtin().unwrap();
    let of = |name: &str, port| {
        let provider = catalogue.get(&id(name)).unwrap();
        let redirect = provider.loopback.redirect(&provider.id, port).map(|url| url.to_string());
        (provider.loopback.to_register(&provider.id), redirect)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        of("github", 4000),
        (text("http://127.0.0.1/callback/github"), text("http://127.0.0.1:4000/callback/github"))
    );
    assert_eq!(of("salesforce", 4000), (text("http://localhost:8976/callback/salesforce"), None));
    assert_eq!(
        of("linear", 8976),
        (text("http://127.0.0.1:8976/callback/linear"), text("http://127.0.0.1:8976/callback/linear"))
    );
    assert_eq!(of("slack", 8976), (None, None));
}

#[test]
fn a_token_answer_moves_the_api_only_where_the_catalogue_admits_it() {
    let catalogue = Catalogue::builtin().unwrap();
    let salesforce = catalogue.get(&id("salesforce")).unwrap();
    for good in ["https://acme.my.salesforce.com", "https://acme--dev.sandbox.my.salesforce.com/"] {
        let found = salesforce.api_origin(Some(good)).unwrap().unwrap();
        assert_eq!(found.to_string(), good.trim_end_matches('/'));
    }
    for bad in [
        "https://my.salesforce.com",
        "https://acme.my.salesforce.com.evil.example",
        "https://evil.example/.my.salesforce.com",
        "https://evil.example#.my.salesforce.com",
        "http://acme.my.salesforce.com",
        "https://acme.my.salesforce.com:8443",
        "https://u@acme.my.salesforce.com",
        "https://169.254.169.254",
        "",
    ] {
        assert!(salesforce.api_origin(Some(bad)).is_err(), "{bad}");
    }
    assert_eq!(salesforce.api_origin(None), Ok(None));
    let google = catalogue.get(&id("google")).unwrap();
    assert!(google.api_origin(Some("https://evil.example")).is_err());
}

#[test]
fn an_operator_adds_a_provider_with_a_few_lines() {
    let catalogue = with(
        r#"
[provider.acme]
authorize = "https://login.acme.example/authorize"
token = "https://login.acme.example/token"
api-origins = ["https://api.acme.example"]

[provider.reports]
kind = "client-credentials"
token = "http://127.0.0.1:9000/token"
api-origins = ["http://127.0.0.1:9001"]

[provider.weather]
kind = "api-key"
api-origins = ["https://api.weather.example"]
placement = { query = "appid" }

[provider.maps]
kind = "api-key"
api-origins = ["https://api.maps.example"]
placement = { header = "X-Api-Key", prefix = "Key " }
"#,
    );
    let acme = catalogue.get(&id("acme")).unwrap();
    assert!(matches!(&acme.kind, Kind::Oauth(server) if server.client_auth == ClientAuth::Basic));
    assert_eq!((acme.placement.clone(), acme.slots.clone()), (Placement::Bearer, vec![Slot::AuthorizationBearer]));
    let reports = catalogue.get(&id("reports")).unwrap();
    assert!(matches!(&reports.kind, Kind::ClientCredentials(server) if server.authorize.is_none()));
    assert_eq!(reports.address_rules(&[]).literal, ["127.0.0.1:9000".parse().unwrap()].into());
    let weather = catalogue.get(&id("weather")).unwrap();
    assert_eq!(weather.kind, Kind::ApiKey);
    assert_eq!(weather.slots, [Slot::Query("appid".into())]);
    let maps = catalogue.get(&id("maps")).unwrap();
    assert!(matches!(&maps.placement, Placement::Header { prefix, .. } if prefix == "Key "));
    assert_eq!(catalogue.facts().len(), 25);
}

#[test]
fn an_operators_file_changes_a_built_in_provider_key_by_key() {
    let catalogue = with(
        r#"
[provider.gitlab.variables]
origin = "https://git.example.com:8443"

[provider.microsoft]
client-auth = "none"
variables = { tenant = "contoso.onmicrosoft.com" }

[provider.salesforce]
token = "http://127.0.0.1:9000/token"
override = { "{api_origin}" = "http://127.0.0.1:9001" }

[provider.google.override]
"https://gmail.googleapis.com" = "http://127.0.0.1:9002"
"#,
    );
    let gitlab = catalogue.get(&id("gitlab")).unwrap();
    assert_eq!(gitlab.server().unwrap().token.as_str(), "https://git.example.com:8443/oauth/token");
    assert_eq!(gitlab.api_origins, [OriginRule::Literal(origin("https://git.example.com:8443"))]);
    assert!(gitlab.drains);
    let microsoft = catalogue.get(&id("microsoft")).unwrap();
    assert_eq!(microsoft.server().unwrap().client_auth, ClientAuth::None);
    assert!(microsoft.server().unwrap().token.path().starts_with("/contoso.onmicrosoft.com/"));
    let salesforce = catalogue.get(&id("salesforce")).unwrap();
    let stand_in = origin("http://127.0.0.1:9001");
    assert_eq!(salesforce.api_origin(Some("https://evil.example")), Ok(Some(stand_in.clone())));
    assert!(salesforce.facts().admits_api_origin(&stand_in));
    assert_eq!(salesforce.server().unwrap().authorize.as_ref().unwrap().host_str(), Some("login.salesforce.com"));
    let google = catalogue.get(&id("google")).unwrap();
    assert_eq!(google.overrides[&origin("https://gmail.googleapis.com")], origin("http://127.0.0.1:9002"));
    assert_eq!(google.name, "Google");
}

proptest! {
    #[test]
    fn no_provider_file_makes_the_reader_panic(
        keys in proptest::collection::vec((
            proptest::sample::select(vec![
                "name", "kind", "authorize", "token", "api-origins", "revoke", "revoke-style", "lifetime", "rotation", "grace",
                "placement", "slots", "loopback", "issuer", "issuer-promised", "variables", "override", "answer", "zzz",
            ]),
            proptest::sample::select(vec![
                "\"https://a.example/{x}\"", "\"{api_origin}\"", "[\"https://a.example\"]", "[\"{api_origin}\", \"*\"]", "\"oauth\"",
                "\"api-key\"", "{ x = \"y\" }", "{ header = \"Host\" }", "{ query = \"k\" }", "\"1h\"", "\"grace\"", "true", "7",
                "\"none\"", "[]", "\"\"", "{ \"https://a.example\" = \"http://127.0.0.1:1\" }", "\"{\"",
            ]),
        ), 0..8),
        id in "[a-z-]{0,8}",
    ) {
        let mut text = format!("[provider.\"{id}\"]\n");
        for (key, value) in keys {
            text.extend([key, " = ", value, "\n"]);
        }
        if let Err(error) = Catalogue::with(&[Source::new("p.toml", text)]) {
            prop_assert!(error.to_string().contains("p.toml:"));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[provider\\.[a-z]{1,3}\\]\n)?.{0,80}") {
        drop(Catalogue::with(&[Source::new("p.toml", text)]));
    }
}
