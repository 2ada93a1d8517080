//! Opens an issue on GitHub.
//!
//! The token is written into the request as a placeholder, the way most client libraries want it. What is written is worth
//! nothing: the host swaps it on the way out.

use serde::Deserialize;
use serde_json::json;

use bindings::clawcoil::skill::tokens::{TokenRequest, get_token};
use bindings::clawcoil::skill::types::AuthError;
use bindings::exports::examples::github_issue::issues::{Error, Guest, Issue};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "examples:github-issue/github-issue", generate_all });
}

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn create(repository: String, title: String, body: String, labels: Option<Vec<String>>) -> Result<Issue, Error> {
        let url = issues_url(&repository)?;
        if title.trim().is_empty() {
            return Err(Error::InvalidArgument("`title` is empty".to_owned()));
        }
        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token("github", &request).map_err(no_token)?;

        // https://docs.github.com/en/rest/issues/issues#create-an-issue
        let answer = skill_http::post(url)
            .header("authorization", format!("Bearer {}", token.placeholder()))
            .header("accept", "application/vnd.github+json")
            .header("user-agent", "clawcoil-github-issue")
            .header("x-github-api-version", "2022-11-28")
            .json(&json!({ "title": title, "body": body, "labels": labels.unwrap_or_default() }))
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        if answer.status == 401 {
            token.invalidate();
        }
        if answer.status != 201 {
            return Err(refusal(&answer));
        }
        let created: Created = answer.json().map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Issue { number: created.number, url: created.html_url })
    }
}

/// The part of GitHub's issue that is of use here.
#[derive(Deserialize)]
struct Created {
    number: u64,
    html_url: String,
}

/// The body of GitHub's errors.
#[derive(Default, Deserialize)]
struct Refused {
    message: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    #[serde(default)]
    field: String,
    #[serde(default)]
    code: String,
}

fn issues_url(repository: &str) -> Result<String, Error> {
    let name = |part: &str| {
        part.chars().any(|c| c != '.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match repository.split_once('/') {
        Some((owner, repo)) if name(owner) && name(repo) => {
            Ok(format!("https://api.github.com/repos/{owner}/{repo}/issues"))
        }
        _ => Err(Error::InvalidArgument(format!("`repository`: {repository:?} is not of the form owner/name"))),
    }
}

fn refusal(answer: &skill_http::Response) -> Error {
    let body: Refused = answer
        .json()
        .unwrap_or_else(|_| Refused { message: format!("status {}", answer.status), ..Refused::default() });
    let mut message = body.message;
    for FieldError { field, code } in body.errors {
        message = message + "; " + &field + ": " + &code;
    }
    // https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api: 403 or 429 for both kinds of limit
    let limited = answer.header("x-ratelimit-remaining") == Some("0") || answer.header("retry-after").is_some();
    match answer.status {
        401 => Error::NotAuthenticated(message),
        429 => Error::RateLimited(answer.retry_after()),
        403 if limited => Error::RateLimited(answer.retry_after()),
        403 => Error::Forbidden(message),
        404 => Error::NotFound,
        _ => Error::Refused(message),
    }
}

fn no_token(error: AuthError) -> Error {
    match error {
        AuthError::ActionRequired(action) => Error::NotAuthenticated(action.message),
        AuthError::Denied(denial) => Error::Forbidden(denial.message),
        AuthError::Unavailable(outage) => Error::Unreachable(outage.message),
        AuthError::Undeclared(message) | AuthError::Other(message) => Error::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> skill_http::Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        skill_http::Response { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_repository_can_not_lead_to_another_path() {
        assert_eq!(issues_url("o/r.js").unwrap(), "https://api.github.com/repos/o/r.js/issues");
        for bad in ["", "o", "o/", "/r", "o/r/x", "../r", "o/..", "o/r?x", "o/r#", "o/%2e%2e", "o r/x", "ö/r"] {
            assert!(issues_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_refusal_of_github_has_its_own_error() {
        let bad = r#"{"message":"m","errors":[{"resource":"Issue","field":"title","code":"missing_field"}]}"#;
        assert!(matches!(refusal(&answer(401, &[], bad)), Error::NotAuthenticated(_)));
        assert!(matches!(refusal(&answer(403, &[], bad)), Error::Forbidden(_)));
        assert!(matches!(refusal(&answer(403, &[("retry-after", "60")], bad)), Error::RateLimited(Some(60))));
        assert!(matches!(refusal(&answer(403, &[("x-ratelimit-remaining", "0")], bad)), Error::RateLimited(None)));
        assert!(matches!(refusal(&answer(429, &[("retry-after", "1")], bad)), Error::RateLimited(Some(1))));
        assert!(matches!(refusal(&answer(404, &[], bad)), Error::NotFound));
        assert!(
            matches!(refusal(&answer(422, &[], bad)), Error::Refused(message) if message == "m; title: missing_field")
        );
        assert!(matches!(refusal(&answer(502, &[], "<html>")), Error::Refused(message) if message == "status 502"));
    }
}
