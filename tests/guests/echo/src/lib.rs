//! Says back what it is told.

wit_bindgen::generate!({ path: ["../../../wit", "wit"], world: "clawcoil:guest-echo/guest", generate_all });

use clawcoil::skill::tokens::{TokenRequest, get_token};
use exports::clawcoil::guest_echo::tools::Guest;

struct Echo;

impl Guest for Echo {
    fn echo(text: String) -> String {
        text
    }

    fn echo_with_token(service: String, text: String) -> Result<String, String> {
        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token(&service, &request).map_err(|error| format!("{error:?}"))?;
        drop(token);
        Ok(text)
    }
}

export!(Echo);
