//! The signature of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What the key looks like. The error never says what it looked like instead.
const FORM: &str = "the connected key is not of the form `whsec_` and base64";

/// The value of `webhook-signature`.
pub fn sign(key: &str, id: &str, timestamp: u64, body: &str) -> Result<String, &'static str> {
    let key = key.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok()).ok_or(FORM)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| FORM)?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_reference_implementation() {
        // The vector of the reference libraries' own tests.
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_error_about_the_key_does_not_show_it() {
        for key in ["canary", "whsec_canary!", ""] {
            assert!(!sign(key, "id", 0, "").unwrap_err().contains("canary"));
        }
    }
}
