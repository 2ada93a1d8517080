//! Where requests go, and whose token goes with them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request};

use super::world::{
    GRANTS, MANIFEST, Server, alice, denial, get, quiet, request, send, text, token_of, world, world_of,
};
use crate::audit::{self};
use crate::egress::{EgressError, body};
use crate::id::Owner;

#[tokio::test]
async fn by_destination_the_token_of_the_calls_own_user_arrives() {
    let (api, _, _, world) = quiet().await;
    for user in ["alice", "bob", "alice"] {
        let call = world.call(user);
        let answer = send(&call, get(&format!("{}/v1/messages?x=1", api.origin()))).await.unwrap();
        assert_eq!(text(answer).await, "ok");
    }
    let seen = api.seen();
    let expected =
        ["alice", "bob", "alice"].map(|user| format!("Bearer {}", token_of(&Owner::User(user.parse().unwrap()), 1)));
    assert_eq!(seen.iter().map(|seen| seen.authorization().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(seen[0].address, "/v1/messages?x=1");
    let entries = world.entries(audit::EventKind::Released);
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].origin.as_deref(), Some(api.origin().as_str()));
    assert!(entries[0].rule.as_deref().unwrap().starts_with("permissions.toml:"));
    // Alice's second request may use her connection; bob's never does.
    assert_eq!(api.dialled(), 2);
}

#[tokio::test]
async fn an_origin_that_only_the_manifest_names_gets_nothing_and_is_not_dialled() {
    let (_, _, foreign, world) = quiet().await;
    let call = world.call("alice");
    let denied = denial(send(&call, get(&format!("{}/v1/steal", foreign.origin()))).await);
    assert!(denied.to_string().contains(&denied.id.to_string()));
    assert_eq!(foreign.dialled(), 0);
    let entries = world.entries(audit::EventKind::Denied);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].explanation, Some(denied.id.to_string()));
    assert_eq!(call.refusals().denials, [denied]);
    assert_eq!(world.fake.released.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_not_declared_is_not_dialled() {
    let (api, plain, foreign, world) = quiet().await;
    let call = world.call("alice");
    for address in [
        format!("{}/v2/other", api.origin()),
        format!("{}/v1/../v2", api.origin()),
        format!("{}/v1/%2e%2e/v2", api.origin()),
        "http://169.254.169.254/latest".to_owned(),
        "https://user:pass@example.com/".to_owned(),
        "https://example.com/".to_owned(),
    ] {
        let Ok(uri) = address.parse::<http::Uri>() else { continue };
        let request = Request::builder().uri(uri).body(body::full(Bytes::new())).unwrap();
        denial(send(&call, request).await);
    }
    assert_eq!((api.dialled(), plain.dialled(), foreign.dialled()), (0, 0, 0));
    assert_eq!(world.entries(audit::EventKind::Denied).len(), 6);
}

#[tokio::test]
async fn a_plain_request_goes_out_without_a_credential_and_is_noted() {
    let (_, plain, _, world) = quiet().await;
    let call = world.call("alice");
    let answer = send(&call, request(Method::POST, &format!("{}/x", plain.origin()), &[], "hello")).await.unwrap();
    assert_eq!(text(answer).await, "ok");
    assert_eq!((plain.seen()[0].authorization(), &plain.seen()[0].body[..]), (None, &b"hello"[..]));
    assert_eq!(world.entries(audit::EventKind::Requested).len(), 1);
}

#[tokio::test]
async fn the_guests_own_authorization_is_overwritten_on_a_covered_origin() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let own = [("authorization", "Bearer evil"), ("cookie", "session=evil"), ("x-api-key", "evil")];
    let address = format!("{}/v1/x?access_token=evil&q=1", api.origin());
    send(&call, request(Method::GET, &address, &own, "")).await.unwrap();
    let seen = &api.seen()[0];
    assert_eq!(seen.authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
    assert!(!format!("{seen:?}").contains("evil"));
    assert_eq!(seen.headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn a_key_in_the_query_and_a_field_of_the_body_are_attached() {
    let quiet = Server::quiet().await;
    let in_query = world(&quiet, &quiet, &quiet, "placement = { query = \"appid\" }", GRANTS);
    send(&in_query.call("alice"), get(&format!("{}/v1/x?q=1&appid=evil", quiet.origin()))).await.unwrap();
    assert_eq!(quiet.seen()[0].address, "/v1/x?q=1&appid=canary-alice-1%2F%2Bsecret");

    let in_body = world(&quiet, &quiet, &quiet, "placement = { json = \"/auth/key\" }", GRANTS);
    let post = request(Method::POST, &format!("{}/v1/x", quiet.origin()), &[("content-length", "11")], "{\"auth\":{}}");
    send(&in_body.call("alice"), post).await.unwrap();
    assert_eq!(quiet.seen()[1].body, format!("{{\"auth\":{{\"key\":\"{}\"}}}}", alice(1)));
    let too_large = request(Method::POST, &format!("{}/v1/x", quiet.origin()), &[], vec![b' '; (1 << 20) + 1]);
    let result = send(&in_body.call("alice"), too_large).await;
    assert!(matches!(result, Err(EgressError::BodyTooLarge(_))));
}

#[tokio::test]
async fn where_the_operator_says_so_another_server_stands_in_for_the_real_one() {
    let (stand_in, quiet) = (Server::quiet().await, Server::quiet().await);
    let manifest = MANIFEST.replace("origin = \"API\"", "origin = \"https://api.acme.example\"");
    let placement = "api-origins = [\"https://api.acme.example\"]\n[provider.acme.override]\n\"https://api.acme.example\" = \"API\"";
    let world = world_of(&manifest, None, &stand_in, &quiet, &quiet, placement, GRANTS);
    send(&world.call("alice"), get("https://api.acme.example/v1/x")).await.unwrap();
    let seen = &stand_in.seen()[0];
    assert_eq!(seen.headers["host"], "api.acme.example");
    assert_eq!(seen.authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
}

#[tokio::test]
async fn a_connections_own_api_origin_gets_the_token_only_where_the_catalogue_admits_it() {
    let (own, quiet) = (Server::quiet().await, Server::quiet().await);
    let manifest = MANIFEST.replace("origin = \"API\"", "origin = \"{api_origin}\"");
    let (plain, foreign) = (Server::quiet().await, Server::quiet().await);
    let admitting = format!("api-origins = [\"{{api_origin}}\"]\napi-origin-pattern = \"{}\"", own.origin());
    for (said, arrives) in [(&own, true), (&quiet, false)] {
        let world = world_of(&manifest, Some(said.origin()), &own, &plain, &foreign, &admitting, GRANTS);
        let result = send(&world.call("alice"), get(&format!("{}/v1/x", said.origin()))).await;
        assert_eq!(result.is_ok(), arrives, "{result:?}");
    }
    assert_eq!((own.seen().len(), quiet.dialled()), (1, 0));
}

#[tokio::test]
async fn an_account_that_has_lapsed_is_to_be_connected_again_for_its_own_origin_and_for_no_other() {
    let (own, other) = (Server::quiet().await, Server::quiet().await);
    let manifest = MANIFEST.replace("origin = \"API\"", "origin = \"{api_origin}\"");
    let (plain, foreign) = (Server::quiet().await, Server::quiet().await);
    let (own_origin, other_origin) = (own.origin(), other.origin());
    let admitting =
        format!("api-origins = [\"{{api_origin}}\", \"{other_origin}\"]\napi-origin-pattern = \"{own_origin}\"");
    let world = world_of(&manifest, Some(own_origin.clone()), &own, &plain, &foreign, &admitting, GRANTS);
    let call = world.call("alice");
    let bearer = format!("Bearer {}", call.get_token("mail", &[], None, None).unwrap().placeholder);
    let bound = |origin: &str| request(Method::GET, &format!("{origin}/v1/x"), &[("authorization", &bearer)], "");
    world.fake.lapsed.store(true, Ordering::SeqCst);
    for asked in [get(&format!("{own_origin}/v1/x")), bound(&own_origin)] {
        let answer = send(&call, asked).await;
        assert!(matches!(answer, Err(EgressError::ActionRequired(_))), "{answer:?}");
    }
    let denied = denial(send(&call, bound(&other_origin)).await);
    assert!(denied.message.contains("does not declare"), "{denied}");
    assert_eq!(world.entries(audit::EventKind::Denied).len(), 1);
    assert_eq!((own.dialled(), other.dialled()), (0, 0));
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    for method in [Method::CONNECT, Method::TRACE] {
        denial(send(&call, request(method, &format!("{}/v1/x", api.origin()), &[], "")).await);
    }
    assert_eq!(api.dialled(), 0);
}
