//! What comes of an answer.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::world::{GRANTS, Server, alice, get, quiet, request, send, text, world};
use crate::audit::{self};
use crate::egress::EgressError;

#[tokio::test]
async fn an_answer_that_echoes_the_token_comes_back_without_it() {
    let api = Server::start(|seen| {
        let token = seen.authorization().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let body = format!(
            "{token} {} {} {} {}",
            STANDARD.encode(format!("ab{token}")),
            hex::encode(&token),
            token.replace('/', "%2F").replace('+', "%2b"),
            serde_json::to_string(&token).unwrap()
        );
        let answer = Response::builder()
            .header("location", format!("https://x.example/?t={token}"))
            .header("set-cookie", "s=1")
            .header("www-authenticate", "Bearer");
        answer.body(Full::from(body)).unwrap()
    })
    .await;
    let quiet = Server::quiet().await;
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/echo", api.origin()))).await.unwrap();
    let headers = format!("{:?}", answer.headers());
    assert!(
        !headers.contains("canary") && !headers.contains("set-cookie") && !headers.contains("www-auth"),
        "{headers}"
    );
    let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let body = text(answer).await;
    assert_eq!(body.len(), length);
    for part in ["canary", &hex::encode("canary"), &STANDARD.encode("abcanary-alice-1")[4..16]] {
        assert!(!body.contains(part), "{part} in {body}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_passed_on_where_a_credential_went_out() {
    let encoded = || Response::builder().header("content-encoding", "gzip").body(Full::from("x")).unwrap();
    let (api, plain) = (Server::start(move |_| encoded()).await, Server::start(move |_| encoded()).await);
    let world = world(&api, &plain, &Server::quiet().await, "", GRANTS);
    let call = world.call("alice");
    let result = send(&call, get(&format!("{}/v1/x", api.origin()))).await;
    assert!(matches!(result, Err(EgressError::EncodedAnswer(_))));
    assert!(send(&call, get(&format!("{}/x", plain.origin()))).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let quiet = Server::quiet().await;
    let elsewhere = format!("{}/v1/next", quiet.origin());
    let api = Server::start(move |_| {
        Response::builder().status(302).header("location", &elsewhere).body(Full::default()).unwrap()
    })
    .await;
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(quiet.dialled(), 0);
}

/// An API that accepts only tokens from this generation on.
async fn api_from(generation: u64) -> Server {
    Server::start(move |seen| {
        let fresh = seen.authorization().is_some_and(|value| value == format!("Bearer {}", alice(generation)));
        let status = if fresh { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_401_is_answered_with_one_refresh_and_a_safe_request_is_sent_again_once() {
    let (api, quiet) = (api_from(2).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let address = format!("{}/v1/x", api.origin());
    let answer = send(&world.call("alice"), request(Method::PUT, &address, &[], "body")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(api.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>(), ["body", "body"]);
    assert_eq!(world.fake.rejected.load(Ordering::SeqCst), 1);
    assert_eq!(world.fake.used.load(Ordering::SeqCst), 2, "the API took the second generation, not the first");
    assert_eq!(world.entries(audit::EventKind::Released).len(), 2);
    let rejected: Vec<_> = world.entries(audit::EventKind::Rejected).iter().map(|entry| entry.generation).collect();
    assert_eq!(rejected, [Some(1)], "the log tells which token was refused");
}

#[tokio::test]
async fn a_401_to_a_post_is_seen_by_the_guest_and_the_next_request_has_the_new_token() {
    let (api, quiet) = (api_from(2).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let call = world.call("alice");
    let post = || request(Method::POST, &format!("{}/v1/x", api.origin()), &[], "body");
    assert_eq!(send(&call, post()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.seen().len(), 1);
    assert_eq!(send(&call, post()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_api_that_answers_401_forever_is_asked_twice_at_most() {
    let (api, quiet) = (api_from(99).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    assert_eq!((answer.status(), api.seen().len()), (StatusCode::UNAUTHORIZED, 2));
}

#[tokio::test]
async fn invalidate_asks_for_a_fresh_token_once() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    let address = format!("{}/v1/x", api.origin());
    send(&call, get(&address)).await.unwrap();
    call.invalidate(handle.id);
    send(&call, get(&address)).await.unwrap();
    send(&call, get(&address)).await.unwrap();
    assert_eq!(world.fake.rejected.load(Ordering::SeqCst), 1);
    assert_eq!(api.seen()[2].authorization(), Some(format!("Bearer {}", alice(2)).as_str()));
}
