//! What a call may do once it has seen a token.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;

use super::world::{GRANTS, Server, alice, denial, get, open_request, permissions, quiet, request, send, world};
use crate::audit::EventKind;
use crate::egress::EgressError;
use crate::policy::{DenialCode, Policy};
use crate::secret::AccessToken;

#[tokio::test]
async fn after_a_reveal_the_call_reaches_only_the_services_own_origins() {
    let (api, plain, _, world) = quiet().await;
    let call = world.call("alice");
    send(&call, get(&format!("{}/x", plain.origin()))).await.unwrap();
    let handle = call.get_token("mail", &[], None, None).unwrap();
    let revealed = call.reveal(handle.id).await.unwrap();
    assert_eq!(revealed.token.expose(), alice(1));
    denial(send(&call, get(&format!("{}/x", plain.origin()))).await);
    send(&call, get(&format!("{}/v1/x?sig={}", api.origin(), "abc"))).await.unwrap();
    assert_eq!((plain.seen().len(), api.seen().len()), (1, 1));
    // Who has seen the token says how it goes.
    assert_eq!(api.seen()[0].authorization(), None);
    assert_eq!(world.entries(EventKind::Revealed).len(), 1);
    assert!(matches!(call.reveal(77).await, Err(EgressError::UnknownHandle)));
}

fn reversed(token: &AccessToken) -> Bytes {
    token.expose().chars().rev().collect::<String>().into()
}

#[tokio::test]
async fn a_body_that_was_open_before_a_reveal_carries_nothing_out_after_it() {
    let (_, plain, _, world) = quiet().await;
    // The first time the body streams; the second time a placeholder was given before, so that it is held back.
    for given_before in [false, true] {
        let call = world.call("alice");
        let handle = || call.get_token("mail", &[], None, None).unwrap();
        let before = given_before.then(handle);
        let (pieces, request) = open_request(&format!("{}/x", plain.origin()));
        let sending = tokio::spawn({
            let call = call.clone();
            async move { send(&call, request).await }
        });
        pieces.send(Bytes::from("before")).await.unwrap();
        // There is room again once the first piece is on its way.
        let room = pieces.reserve().await.unwrap();
        let handle = before.unwrap_or_else(handle);
        let revealed = call.reveal(handle.id).await.unwrap();
        room.send(reversed(&revealed.token));
        drop(pieces);
        denial(sending.await.unwrap());
        assert!(plain.seen().is_empty());
    }
}

#[tokio::test]
async fn reveal_without_its_grant_is_refused() {
    let quiet = Server::quiet().await;
    let world = world(&quiet, &quiet, &quiet, "", &GRANTS.replacen("use = \"reveal\"", "use = \"inject\"", 1));
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    assert!(matches!(call.reveal(handle.id).await, Err(EgressError::Denied(_))));
    assert_eq!(world.fake.released.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_that_leaked_to_the_guest_does_not_leave_again() {
    let (api, plain, _, world) = quiet().await;
    let call = world.call("alice");
    send(&call, get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    let plain_address = format!("{}/x", plain.origin());
    denial(send(&call, get(&format!("{plain_address}?q={}", STANDARD.encode(alice(1)).trim_end_matches('=')))).await);
    denial(send(&call, request(Method::GET, &plain_address, &[("x-note", &alice(1))], "")).await);
    assert_eq!(plain.dialled(), 0);
    // A body is looked through while it streams, and ends before the token does.
    denial(send(&call, request(Method::POST, &plain_address, &[], format!("note {}", alice(1)))).await);
    assert!(plain.seen().is_empty());
    assert_eq!(call.refusals().denials.len(), 3);
}

#[tokio::test]
async fn an_attempt_to_send_a_token_away_is_not_lost_in_a_crowd_of_refusals() {
    let (api, plain, foreign, world) = quiet().await;
    let call = world.call("alice");
    send(&call, get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    for _ in 0..105 {
        denial(send(&call, get(&foreign.origin())).await);
    }
    for _ in 0..12 {
        let refused = send(&call, get(&format!("{}/x?q={}", plain.origin(), alice(1)))).await;
        assert_eq!(denial(refused).code, DenialCode::CarriesToken);
    }
    let (plain, foreign) = (plain.origin(), foreign.origin());
    drop(call);
    let entries = world.entries(EventKind::Denied);
    assert_eq!(entries.len(), 111);
    for entry in &entries[100..110] {
        let entry: serde_json::Value = serde_json::from_str(&entry.json).unwrap();
        assert_eq!(entry["origin"], plain, "{entry}");
        assert!(entry["detail"].as_str().unwrap().contains("a token that the skill must not have"), "{entry}");
    }
    let last: serde_json::Value = serde_json::from_str(&entries[110].json).unwrap();
    let expected = format!("5 request-not-granted to {foreign} by permissions.toml:2, 2 carries-token to {plain}");
    assert!(last["detail"].as_str().unwrap().ends_with(&expected), "{last}");
}

#[tokio::test]
async fn a_grant_that_is_taken_back_while_the_entry_of_a_release_is_written_lets_no_token_out() {
    let (api, plain, foreign, world) = quiet().await;
    let reload = |grants: &str| {
        let grants = grants.replace("PLAIN", &plain.origin()).replace("FOREIGN", &foreign.origin());
        let permissions = permissions(&grants.replace("API", &api.origin()));
        let (policy, new) = (Arc::clone(&world.policy), Policy::new(permissions, world.catalogue.facts()));
        *world.fake.meanwhile.lock().unwrap() = Some(Box::new(move || policy.store(Arc::new(new))));
    };
    let granted = world.policy.load_full();
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    reload("");
    denial(send(&call, get(&format!("{}/v1/x", api.origin()))).await);
    assert!(api.seen().is_empty());
    assert_eq!(world.entries(EventKind::Denied).len(), 1);

    world.policy.store(Arc::clone(&granted));
    reload("");
    let refused = call.reveal(handle.id).await;
    assert!(matches!(refused, Err(EgressError::Denied(_))), "{refused:?}");
    assert_eq!(world.entries(EventKind::Denied).len(), 2);

    // Another policy that grants it too is the one by which it leaves.
    world.policy.store(Arc::clone(&granted));
    reload(&format!("{GRANTS}\n# Another one.\n[[forbid]]\nskill = \"another\"\n"));
    let call = world.call("alice");
    send(&call, get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    assert_eq!(api.seen().len(), 1);
    let last = world.entries(EventKind::Released).pop().unwrap();
    assert!(last.json.contains(&world.policy.load().hash().to_string()), "{}", last.json);
}
