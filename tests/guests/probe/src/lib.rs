//! Asks for what it is told to, and says what came of it.

wit_bindgen::generate!({ path: ["../../../wit", "wit"], world: "clawcoil:guest-probe/guest", generate_all });

use clawcoil::skill::tokens::{Token, TokenRequest, get_token};
use exports::clawcoil::guest_probe::tools::{Answer, Guest, Handle};

struct Probe;

fn send(method: &str, url: &str, headers: Vec<(String, String)>, body: String) -> Result<Answer, String> {
    let request = match method {
        "GET" => skill_http::get(url),
        "POST" => skill_http::post(url),
        "PATCH" => skill_http::patch(url),
        other => return Err(format!("this guest has no method {other}")),
    };
    let request = if body.is_empty() { request } else { request.body("application/json", body) };
    let request = headers.into_iter().fold(request, |request, (name, value)| request.header(&name, value));
    let answer = request.send().map_err(|error| error.to_string())?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Ok(Answer { status: answer.status, headers: answer.headers, body })
}

fn token(service: &str, scopes: Vec<String>, account: Option<String>) -> Result<Token, String> {
    get_token(service, &TokenRequest { scopes, account, audience: None }).map_err(|error| format!("{error:?}"))
}

impl Guest for Probe {
    fn fetch(method: String, url: String, headers: Vec<(String, String)>, body: String) -> Result<Answer, String> {
        send(&method, &url, headers, body)
    }

    fn fetch_twice(method: String, url: String) -> Vec<Result<Answer, String>> {
        (0..2).map(|_| send(&method, &url, Vec::new(), String::new())).collect()
    }

    fn fetch_disguised(method: String, url: String, headers: Vec<(String, String)>) -> Result<String, String> {
        use std::fmt::Write as _;
        let answer = send(&method, &url, headers, String::new())?;
        let lines = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let text: String = lines.chain(["\n".to_owned(), answer.body]).collect();
        let mut disguised = String::with_capacity(text.len() * 2);
        for byte in text.bytes() {
            let _ = write!(disguised, "{:02x}", !byte);
        }
        Ok(disguised)
    }

    fn stand_in(service: String) -> Result<String, String> {
        Ok(token(&service, Vec::new(), None)?.placeholder())
    }

    fn ask(service: String, scopes: Vec<String>, account: Option<String>) -> Result<Handle, String> {
        let info = token(&service, scopes, account)?.info();
        Ok(Handle { provider: info.provider, api_origin: info.api_origin, account: info.account, scopes: info.scopes })
    }

    fn placeholder(
        service: String,
        method: String,
        url: String,
        body: String,
        header: Option<(String, String)>,
    ) -> Result<Answer, String> {
        let token = token(&service, Vec::new(), None)?;
        let fill = |text: String| text.replace("{placeholder}", &token.placeholder());
        let headers = header.into_iter().map(|(name, value)| (name, fill(value))).collect();
        send(&method, &url, headers, fill(body))
    }
}

export!(Probe);
