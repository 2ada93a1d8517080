//! Asks for the access token itself.

wit_bindgen::generate!({ path: ["../../../wit", "wit"], world: "clawcoil:guest-probe-reveal/guest", generate_all });

use clawcoil::skill::reveal::reveal;
use clawcoil::skill::tokens::{TokenRequest, get_token};
use exports::clawcoil::guest_probe_reveal::tools::Guest;

struct Probe;

impl Guest for Probe {
    fn show(service: String) -> Result<String, String> {
        println!("started");
        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token(&service, &request).map_err(|error| format!("{error:?}"))?;
        let token = reveal(&token).map_err(|error| format!("{error:?}"))?;
        println!("{}", token.value);
        Ok(token.value)
    }

    fn show_between(service: String, url: String) -> Result<Vec<Result<u16, String>>, String> {
        let fetch = || skill_http::get(&*url).send().map(|answer| answer.status).map_err(|error| error.to_string());
        let before = fetch();
        Self::show(service)?;
        Ok(vec![before, fetch()])
    }
}

export!(Probe);
