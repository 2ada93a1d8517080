//! What holds a call back: the policy of the moment, rates, places, the audit log.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;

use super::world::{Fake, GRANTS, Server, denial, get, key, open_request, permissions, quiet, send, world};
use crate::audit::{self, AuditLog, Opening};
use crate::broker::BrokerError;
use crate::clock::{Clock, SystemClock};
use crate::egress::{Body, BoxError, Call, Egress, EgressError, REQUESTS_PER_CALL};
use crate::net::{Net, NetSettings};
use crate::policy::Policy;

#[tokio::test]
async fn a_grant_that_is_revoked_is_gone_from_the_next_request_on() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let address = format!("{}/v1/x", api.origin());
    send(&call, get(&address)).await.unwrap();
    world.policy.store(Arc::new(Policy::new(permissions(""), world.catalogue.facts())));
    denial(send(&call, get(&address)).await);
    assert_eq!(api.seen().len(), 1);
    let handle = call.get_token("mail", &[], None, None);
    assert!(matches!(handle, Err(EgressError::Denied(_))));
}

#[tokio::test]
async fn a_rate_is_counted_per_user() {
    let quiet = Server::quiet().await;
    let grants = GRANTS.replacen("use = \"reveal\"", "use = \"reveal\"\nrate = \"1/day\"", 1);
    let world = world(&quiet, &quiet, &quiet, "", &grants);
    let address = format!("{}/v1/x", quiet.origin());
    for user in ["alice", "bob"] {
        let call = world.call(user);
        send(&call, get(&address)).await.unwrap();
        assert!(denial(send(&call, get(&address)).await).retry_after.is_some());
    }
}

#[tokio::test]
async fn a_call_has_a_bounded_number_of_requests_under_way() {
    let (_, plain, _, world) = quiet().await;
    let call = world.call("alice");
    let mut open = Vec::new();
    for _ in 0..REQUESTS_PER_CALL {
        let (pieces, request) = open_request(&format!("{}/x", plain.origin()));
        let sending = tokio::spawn({
            let call = call.clone();
            async move { send(&call, request).await.map(drop) }
        });
        pieces.send(Bytes::from("x")).await.unwrap();
        // Its first piece was taken: it has its place.
        drop(pieces.reserve().await.unwrap());
        open.push((pieces, sending));
    }
    let mut next = std::pin::pin!(send(&call, get(&format!("{}/x", plain.origin()))));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(plain.seen().len(), 0);
    let (pieces, sending) = open.pop().unwrap();
    drop(pieces);
    sending.await.unwrap().unwrap();
    next.await.unwrap();
    assert_eq!(plain.seen().len(), 2);
}

#[tokio::test]
async fn a_long_body_streams_past_the_buffer_unchanged() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    call.get_token("mail", &[], None, None).unwrap();
    let chunks = (0..40u8).map(|n| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![n; 64 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(chunks)));
    let request = Request::post(format!("{}/v1/x", api.origin())).body(body).unwrap();
    send(&call, request).await.unwrap();
    let body = &api.seen()[0].body;
    assert_eq!(body.len(), 40 * (64 << 10));
    assert!(body.chunks(64 << 10).zip(0..40u8).all(|(chunk, n)| chunk.iter().all(|byte| *byte == n)));
}

#[tokio::test]
async fn without_an_audit_entry_nothing_goes_out() {
    struct Broken;
    impl audit::Sink for Broken {
        fn append(&self, line: &[u8]) -> std::io::Result<()> {
            let opening = line.windows(8).any(|window| window == b"\"opened\"");
            if opening { Ok(()) } else { Err(std::io::ErrorKind::StorageFull.into()) }
        }
        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let quiet = Server::quiet().await;
    let world = world(&quiet, &quiet, &quiet, "", GRANTS);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (key, net) = (key(), Arc::new(Net::new(NetSettings::new(Arc::clone(&clock))).unwrap()));
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &audit::Settings::default() };
    let audit = Arc::new(AuditLog::with_sink("broken", Box::new(Broken), &opening, Arc::clone(&clock)).unwrap());
    let fake = Fake::noting(&audit, None);
    let (catalogue, policy) = (Arc::clone(&world.catalogue), Arc::clone(&world.policy));
    let egress = Arc::new(Egress::new(fake, net, catalogue, policy, audit, clock));
    let call = Call::new(egress, world.call("alice").0.calling.clone());
    for path in ["/v1/x", "/x"] {
        let result = send(&call, get(&format!("{}{path}", quiet.origin()))).await;
        assert!(matches!(result, Err(EgressError::Audit(_) | EgressError::Broker(BrokerError::Audit(_)))));
    }
    assert_eq!(quiet.dialled(), 0);
}
