//! What may be done with a placeholder.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;

use super::world::{alice, denial, quiet, request, send};
use crate::audit::{self};

#[tokio::test]
async fn a_placeholder_is_swapped_in_its_slot() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    assert_eq!(handle.api_origin.unwrap().to_string(), api.origin());
    let bearer = format!("Bearer {}", handle.placeholder);
    let address = format!("{}/v1/x", api.origin());
    send(&call, request(Method::POST, &address, &[("authorization", &bearer)], "{\"a\":1}")).await.unwrap();
    assert_eq!(api.seen()[0].authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
    assert_eq!(api.seen()[0].body, "{\"a\":1}");
}

#[tokio::test]
async fn a_placeholder_in_the_text_of_a_body_is_refused_before_anything_is_dialled() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let placeholder = call.get_token("mail", &[], None, None).unwrap().placeholder;
    for body in [
        format!("{{\"title\":\"{placeholder}\"}}"),
        format!("{{\"title\":\"{}\"}}", STANDARD.encode(format!("x{placeholder}"))),
        hex::encode(&placeholder),
    ] {
        let denied =
            denial(send(&call, request(Method::POST, &format!("{}/v1/issues", api.origin()), &[], body)).await);
        assert!(
            world
                .entries(audit::EventKind::Denied)
                .iter()
                .any(|entry| entry.explanation == Some(denied.id.to_string()))
        );
    }
    assert_eq!((api.dialled(), world.fake.released.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn a_placeholder_that_is_forged_or_of_another_call_is_refused() {
    let (api, _, _, world) = quiet().await;
    let earlier = world.call("alice").get_token("mail", &[], None, None).unwrap().placeholder;
    let forged = format!("clawcoil_placeholder_{}", "0".repeat(32));
    let (fresh, asked) = (world.call("alice"), world.call("alice"));
    asked.get_token("mail", &[], None, None).unwrap();
    for call in [&fresh, &asked] {
        for placeholder in [&earlier, &forged] {
            let bearer = format!("Bearer {placeholder}");
            let address = format!("{}/v1/x", api.origin());
            denial(send(call, request(Method::GET, &address, &[("authorization", &bearer)], "")).await);
        }
    }
    assert_eq!(api.dialled(), 0);
}

#[tokio::test]
async fn a_placeholder_does_not_carry_its_token_to_another_origin() {
    let (_, plain, foreign, world) = quiet().await;
    let call = world.call("alice");
    let bearer = format!("Bearer {}", call.get_token("mail", &[], None, None).unwrap().placeholder);
    for server in [&plain, &foreign] {
        let address = format!("{}/v1/x", server.origin());
        denial(send(&call, request(Method::GET, &address, &[("authorization", &bearer)], "")).await);
        assert_eq!(server.dialled(), 0);
    }
}
