//! Tries what a skill must not be able to do; each function is one attack.

wit_bindgen::generate!({ path: ["../../../wit", "wit"], world: "clawcoil:guest-attacks/guest", generate_all });

use std::hint::black_box;
use std::io::Read as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clawcoil::skill::reveal as revealing;
use clawcoil::skill::tokens::{Token, TokenRequest, get_token};
use exports::clawcoil::guest_attacks::tools::Guest;
use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingRequest, Scheme};

struct Attacks;

fn token() -> Result<Token, String> {
    let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
    get_token("service", &request).map_err(|error| format!("{error:?}"))
}

fn recurse(depth: u64) -> u64 {
    let deeper = black_box(depth + 1);
    if deeper == 0 { 0 } else { recurse(deeper) + black_box(1) }
}

fn request(authority: &str, method: &str, header_name: &str) -> Result<u16, String> {
    let headers = Fields::new();
    if !header_name.is_empty() {
        headers.append(header_name, b"value").map_err(|error| format!("{error:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let method = if method == "GET" { Method::Get } else { Method::Other(method.to_owned()) };
    request.set_method(&method).map_err(|()| "method".to_owned())?;
    request.set_scheme(Some(&Scheme::Https)).map_err(|()| "scheme".to_owned())?;
    request.set_authority(Some(authority)).map_err(|()| "authority".to_owned())?;
    request.set_path_with_query(Some("/")).map_err(|()| "path".to_owned())?;
    let pending = handle(request, None).map_err(words)?;
    pending.subscribe().block();
    match pending.get() {
        Some(Ok(Ok(response))) => Ok(response.status()),
        Some(Ok(Err(error))) => Err(words(error)),
        _ => Err("no answer".to_owned()),
    }
}

fn words(error: ErrorCode) -> String {
    match error {
        ErrorCode::InternalError(Some(text)) => text,
        other => format!("{other:?}"),
    }
}

impl Guest for Attacks {
    fn loop_forever() {
        loop {
            black_box(());
        }
    }

    fn recurse_forever() -> u64 {
        recurse(0)
    }

    fn grow_memory() {
        let mut kept = Vec::new();
        loop {
            kept.push(black_box(vec![1_u8; 1 << 20]));
        }
    }

    fn return_text(length: u32) -> String {
        "x".repeat(length as usize)
    }

    fn return_numbers(count: u32) -> Vec<u64> {
        vec![u64::MAX; count as usize]
    }

    fn flood_log(lines: u32) {
        for line in 0..lines {
            println!("{line}: all work and no play makes Jack a dull boy");
        }
    }

    fn flood_tokens(count: u32) -> u32 {
        (0..count).filter(|_| token().is_ok()).count() as u32
    }

    fn hold_tokens(count: u32) -> u32 {
        let tokens: Vec<_> = (0..count).map_while(|_| token().ok()).collect();
        tokens.len() as u32
    }

    fn hold_clocks(count: u32) -> u32 {
        let clocks: Vec<_> = (0..count).map(|_| monotonic_clock::subscribe_duration(1_000_000_000_000)).collect();
        clocks.len() as u32
    }

    fn spin_on_clock() {
        loop {
            black_box(monotonic_clock::now());
        }
    }

    fn sleep(milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn wait_for_token() {
        let _never = token();
    }

    fn take_random(length: u64) -> u64 {
        wasip2::random::random::get_random_bytes(length).len() as u64
    }

    fn panic(message: String) {
        panic!("{message}");
    }

    fn exit(status: u8) {
        std::process::exit(status.into());
    }

    fn read_file(path: String) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn list_folders() -> Vec<String> {
        wasip2::filesystem::preopens::get_directories().into_iter().map(|(_, name)| name).collect()
    }

    fn read_environment() -> Vec<String> {
        std::env::vars().map(|(name, value)| format!("{name}={value}")).chain(std::env::args()).collect()
    }

    fn read_input() -> Result<u32, String> {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(|error| error.to_string())?;
        Ok(text.len() as u32)
    }

    fn fetch(authority: String, method: String, header_name: String) -> Result<String, String> {
        request(&authority, &method, &header_name).map(|status| status.to_string())
    }

    fn flood_requests(count: u32) -> u32 {
        (0..count).filter(|_| request("api.test", "GET", "").is_ok()).count() as u32
    }

    fn reveal() -> Result<String, String> {
        let token = token()?;
        revealing::reveal(&token).map(|token| token.value).map_err(|error| format!("{error:?}"))
    }

    fn remember() -> u32 {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        CALLS.fetch_add(1, Ordering::Relaxed) + 1
    }
}

export!(Attacks);
