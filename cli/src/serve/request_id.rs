//! A name for each request, by which its answer, its problem and its lines in the log are found together.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, random};
use clawcoil::id::Names;
use tracing::{Instrument as _, Span};

/// Where it stands: in the request, if who sent it has one already, and always in the answer.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest that is taken from a sender.
const LONGEST: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Which request it is, for those who answer it elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) id: RequestId,
    pub(crate) span: Span,
}

/// The name of a request. It is no secret, and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The one of the request that is being answered, where one is.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What a sender wrote, if it can stand in a log as it is.
    fn sent(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        ((1..=LONGEST).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// One that no other request has.
    fn new(clock: &dyn Clock) -> Self {
        static NAMES: OnceLock<Names> = OnceLock::new();
        let name = NAMES.get_or_init(|| Names::new(random(clock))).draw();
        Self(format!("req_{}", BASE64_URL_SAFE_NO_PAD.encode(name)).into())
    }

    /// That of the sender, or a new one.
    pub(super) fn of(request: &Request, clock: &dyn Clock) -> Self {
        request.headers().get(HEADER).and_then(Self::sent).unwrap_or_else(|| Self::new(clock))
    }

    /// Runs something under this name.
    pub(crate) async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// What a task of its own does for the request that is being answered, under that request's name and within its span.
    pub(crate) fn carry<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
        let current = Self::current();
        async move {
            match current {
                Some(id) => id.scope(work).await,
                None => work.await,
            }
        }
        .in_current_span()
    }

    /// As it stands on the answer.
    pub(super) fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clawcoil::clock::SystemClock;

    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_taken_from_a_sender_can_stand_in_a_log(text in "[ -~]{0,80}") {
            let value = HeaderValue::from_str(&text).unwrap();
            if let Some(id) = RequestId::sent(&value) {
                proptest::prop_assert!(id.as_str().len() <= LONGEST && !id.as_str().is_empty());
                let special = ['"', '\\', ' ', '=', '{', '}'];
                proptest::prop_assert!(!id.as_str().contains(special));
            }
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let clock = SystemClock::new();
        let names: BTreeSet<_> = (0..1_000).map(|_| RequestId::new(&clock).0).collect();
        assert_eq!(names.len(), 1_000);
    }

    #[test]
    fn a_name_that_a_proxy_gave_is_kept() {
        let value = HeaderValue::from_static("0af7651916cd43dd-8448.eb_1");
        assert_eq!(RequestId::sent(&value).unwrap().as_str(), "0af7651916cd43dd-8448.eb_1");
    }
}
