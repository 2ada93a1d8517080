//! Which of a person's accounts a skill acts with where it names none, and what several grants come to.

#![expect(clippy::panic, reason = "a test ends where something is not as it should be")]

use clawcoil::host::InvokeError;
use clawcoil::runtime::End;
use clawcoil_tests::{GuestAgent, Upstream};
use serde_json::json;

const MANIFEST: &str = "\
[skill]
name = \"probe\"
version = \"0.1.0\"
description = \"Try what it is told\"
[[service]]
name = \"github\"
provider = \"github\"
scopes = [\"repo\"]
reason = \"to test\"
[[service.request]]
origin = \"https://api.github.com\"
";

fn token(account: &str) -> String {
    format!("accounts-canary-7Rw-{account}")
}

/// Grants with these additional lines, in this order.
fn grants(more: &[&str]) -> String {
    let grant = |more: &&str| {
        format!(
            "[[grant]]\nskill = \"probe\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"github\"\n\
             provider = \"github\"\nscopes = [\"repo\"]\nuse = \"inject\"\n{more}\n"
        )
    };
    more.iter().map(grant).collect()
}

/// What a request of the skill carries under these grants, or which account is missing before it starts.
async fn used(grants: &str, connected: &[&str]) -> Result<String, Option<String>> {
    let server = Upstream::plain().await;
    let providers = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", server.origin());
    let agent = GuestAgent::new("probe", MANIFEST, grants, &providers, &[]).await;
    for account in connected {
        agent.connect_account("alice", account, "github", &["repo"], &token(account)).await;
    }
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    match agent.call("fetch", &input).await {
        Ok(outcome) => {
            assert!(matches!(outcome.end, End::Value(_)), "{grants}{connected:?}: {:?}", outcome.end);
            let seen = server.requests();
            let carried = seen.first().and_then(|request| request.authorization()).unwrap_or_default();
            Ok(carried.rsplit('-').next().unwrap_or_default().to_owned())
        }
        Err(InvokeError::ActionRequired(actions)) => {
            Err(actions.first().and_then(|action| action.account.as_ref()).map(ToString::to_string))
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn where_no_account_is_named_the_one_that_the_grants_mean_first_and_that_is_connected_is_used() {
    let any = "";
    let of = |list: &str| format!("accounts = {list}");
    let (default, work, zoo, both) =
        (of("[\"default\"]"), of("[\"work\"]"), of("[\"zoo\"]"), of("[\"work\", \"club\"]"));
    let all = ["club", "default", "work", "zoo"];
    for (lines, connected, expected) in [
        (vec![any], &all[..], Ok("default")),
        // A grant for one account beside one for any changes nothing.
        (vec![any, &work], &all, Ok("default")),
        (vec![any, &work], &["zoo"], Ok("zoo")),
        // Another account beside the default does not take its place.
        (vec![&default, &work], &all, Ok("default")),
        (vec![&default, &zoo], &all, Ok("default")),
        // A list is in the operator's order; several lists are in that of the alphabet.
        (vec![&both], &all, Ok("work")),
        (vec![&zoo, &both], &all, Ok("work")),
        // What is not connected is passed over, and nothing that is not granted is used instead.
        (vec![&both], &["club", "default"], Ok("club")),
        (vec![&work, &zoo], &["default", "zoo"], Ok("zoo")),
        (vec![&work, &zoo], &["default"], Err("work")),
    ] {
        let expected = expected.map(ToOwned::to_owned).map_err(|account| Some(account.to_owned()));
        assert_eq!(used(&grants(&lines), connected).await, expected, "{lines:?} {connected:?}");
        let turned: Vec<_> = lines.iter().rev().copied().collect();
        assert_eq!(used(&grants(&turned), connected).await, expected, "{turned:?} {connected:?}");
    }
}
