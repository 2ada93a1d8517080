//! The HTTP API, against real servers.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use clawcoil_tests::http::send;
use clawcoil_tests::{GuestAgent, skills};
use http::{Method, StatusCode, header};
use serde_json::Value;

use served::{Served, token};

const MANIFEST: &str = "[skill]\nname = \"attacks\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
     [[service]]\nname = \"service\"\nprovider = \"github\"\nscopes = [\"repo\"]\nuse = \"reveal\"\nreason = \"to test\"\n\
     optional = true\n[[service.request]]\norigin = \"https://api.github.com\"\n";

const GRANT: &str = "[[grant]]\nskill = \"attacks\"\napproval = \"none\"\nusers = [\"alice\", \"bob\"]\nservice = \"service\"\n\
     provider = \"github\"\nscopes = [\"repo\"]\nuse = \"reveal\"\n";

/// An agent whose skill does what it is told, served, and a program's token for alice.
struct Stage {
    agent: GuestAgent,
    served: Served,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let agent = GuestAgent::new("attacks", MANIFEST, GRANT, "", &[]).await;
        agent.host.registry().add(&skills::component("conformance"), None).unwrap();
        let home = agent.host.home().folder();
        let served = Served::start(home);
        let token = token(home, "bot", "alice", &["invoke"]);
        Self { agent, served, token }
    }

    async fn get(&self, path: &str) -> clawcoil_tests::http::Answer {
        self.served.api(Method::GET, path, &self.token, &Value::Null).await
    }

    fn token_for(&self, client: &str, user: &str, scopes: &[&str]) -> String {
        token(self.agent.host.home().folder(), client, user, scopes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_for_anybody_and_is_the_one_that_is_checked_in() {
    let stage = Stage::new().await;
    let answer = send(Method::GET, &stage.served.at("/openapi.json"), &[], "").await;
    assert_eq!(
        (answer.status, &answer.headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.text(), std::fs::read_to_string(skills::root().join("docs/openapi.json")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn skills_come_in_pages_and_only_those_that_the_caller_may_call() {
    let stage = Stage::new().await;
    let names = |answer: &Value| -> Vec<String> {
        answer["skills"].as_array().unwrap().iter().map(|skill| skill["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = stage.get("/v1/skills?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = stage.get(&format!("/v1/skills?limit=1&cursor={cursor}")).await.json();
    assert_eq!((names(&first), names(&second)), (vec!["attacks".to_owned()], vec!["test".to_owned()]));
    assert_eq!(second["next_cursor"], Value::Null);
    for path in ["/v1/skills?limit=0", "/v1/skills?limit=all", "/v1/skills?cursor=x", "/v1/skills?color=red"] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text());
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{path}");
    }

    // Nobody has let carol reveal, without which the skill does not start.
    let carol = stage.token_for("bot", "carol", &["invoke"]);
    let all = stage.served.api(Method::GET, "/v1/skills", &carol, &Value::Null).await.json();
    assert_eq!(names(&all), ["test"]);
    for skill in ["attacks", "nothing", "No-Name!"] {
        let answer = stage.served.api(Method::GET, &format!("/v1/skills/{skill}"), &carol, &Value::Null).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{skill}: {}", answer.text());
    }
    assert_eq!(stage.get("/v1/skills/attacks").await.json()["tools"][0]["name"], "loop-forever");
}
