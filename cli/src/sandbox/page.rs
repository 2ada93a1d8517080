//! The sandbox's pages: plain HTML without scripts.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::ledger::PEOPLE;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;\
color-scheme:light dark}.note{border:2px dashed;padding:.5rem 1rem}button{font:inherit;padding:.4rem 1.2rem;\
margin-right:.5rem}fieldset{border:0;padding:0;margin:1rem 0}";

pub(super) struct Page;

impl Page {
    /// Asks a person for consent. `scopes` are list items, `name` is the waiting request's.
    pub(super) fn consent(client: &str, scopes: &str, name: &str) -> Response {
        let accounts: Vec<String> = PEOPLE
            .iter()
            .enumerate()
            .map(|(index, person)| {
                let checked = if index == 0 { " checked" } else { "" };
                format!(
                    "<div><label><input type=\"radio\" name=\"account\" value=\"{}\"{checked}> {} &lt;{}&gt;</label></div>",
                    person.login, person.name, person.email
                )
            })
            .collect();
        let body = format!(
            "<p><strong>{}</strong> asks for access to an account:</p><ul>{scopes}</ul>\
             <form method=\"post\"><input type=\"hidden\" name=\"request\" value=\"{}\">\
             <fieldset><legend>As</legend>{}</fieldset>\
             <button name=\"decision\" value=\"allow\">Allow</button>\
             <button name=\"decision\" value=\"deny\">Decline</button></form>",
            escaped(client),
            escaped(name),
            accounts.concat()
        );
        respond(StatusCode::OK, "Allow access?", &body)
    }

    /// Tells a person what is wrong.
    pub(super) fn error(title: &str, text: &str) -> Response {
        respond(StatusCode::BAD_REQUEST, title, &format!("<p>{}</p>", escaped(text)))
    }
}

fn respond(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escaped(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} · ClawCoil sandbox</title>\
         <link rel=\"stylesheet\" href=\"/sandbox/style.css\"></head><body>\
         <p class=\"note\">This is ClawCoil's sandbox, for the demo and for skill developers. Nothing here is a real \
         account; never type a real password.</p><h1>{title}</h1>{body}</body></html>"
    );
    let headers = [
        // No form-action: browsers would apply it to the redirect that follows the form as well.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(html)).into_response()
}

/// The pages' looks.
pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css")], STYLE).into_response()
}

/// Text that can stand in HTML, between tags or in a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
        escaped
    })
}
