//! Telling a client that asked for it that its call is still under way.

use std::time::Duration;

use clawcoil::clock::Clock;
use rmcp::RoleServer;
use rmcp::model::{NumberOrString, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};

/// How often; clients that give up on a silent call do so after a minute and more.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The longest token, in bytes. It is repeated with each message, and messages are kept for a client that may come back.
const LONGEST_TOKEN: usize = 256;

/// The progress of one call: the seconds that it has taken, with what is going on.
///
/// A skill can't say how much of its work is done, so there is no total.
pub(super) struct Progress<'a> {
    peer: &'a Peer<RoleServer>,
    token: Option<ProgressToken>,
    clock: &'a dyn Clock,
    begun: Duration,
    told: f64,
}

impl<'a> Progress<'a> {
    pub(super) fn of(request: &'a RequestContext<RoleServer>, clock: &'a dyn Clock) -> Self {
        let token = request.meta.get_progress_token().filter(is_short);
        Self { peer: &request.peer, token, clock, begun: clock.monotonic(), told: -1.0 }
    }

    /// Says what goes on now. The value only grows, as the protocol demands.
    pub(super) async fn tell(&mut self, what: &str) {
        let Some(token) = &self.token else { return };
        let seconds = self.clock.monotonic().saturating_sub(self.begun).as_secs_f64();
        self.told = if seconds > self.told { seconds } else { self.told + 0.001 };
        let progress = ProgressNotificationParam::new(token.clone(), self.told).with_message(what);
        // A client that is gone is noticed by its cancellation.
        let _ = self.peer.notify_progress(progress).await;
    }

    /// Waits for the future to be ready, and says meanwhile what goes on.
    pub(super) async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = tick.tick() => self.tell(what).await,
            }
        }
    }
}

fn is_short(token: &ProgressToken) -> bool {
    match &token.0 {
        NumberOrString::Number(_) => true,
        NumberOrString::String(text) => text.len() <= LONGEST_TOKEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_would_fill_the_memory_is_not_repeated() {
        let token = |length: usize| ProgressToken(NumberOrString::String("x".repeat(length).into()));
        assert!(is_short(&token(LONGEST_TOKEN)) && is_short(&ProgressToken(NumberOrString::Number(7))));
        assert!(!is_short(&token(LONGEST_TOKEN + 1)));
    }
}
