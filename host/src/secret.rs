//! The values that must not leak, each a type of its own.
//!
//! None of them can be printed, serialised or compared by accident, and each is wiped when it is dropped. One method opens
//! them, [`expose`](AccessToken::expose), so that a search for it finds every place where a secret is in the clear.
//!
//! ```compile_fail
//! fn printed(token: clawcoil::secret::RefreshToken) -> String { token.to_string() }
//! ```
//! ```compile_fail
//! fn compared(a: clawcoil::secret::AccessToken, b: clawcoil::secret::AccessToken) -> bool { a == b }
//! ```
//! ```compile_fail
//! fn written(secret: clawcoil::secret::ClientSecret) -> String { serde_json::to_string(&secret).unwrap() }
//! ```
//! ```compile_fail
//! fn copied(key: clawcoil::secret::Key) -> (clawcoil::secret::Key, clawcoil::secret::Key) { (key.clone(), key) }
//! ```

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

macro_rules! secret_texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name(Zeroizing<Box<str>>);

        impl $name {
            /// Takes the text over; the buffer that is given in is wiped if it had to be copied.
            pub fn new(text: impl Into<Zeroizing<String>>) -> Self {
                let text: Zeroizing<String> = text.into();
                Self(Zeroizing::new(text.as_str().into()))
            }

            /// The secret in the clear.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}

secret_texts! {
    /// What goes on a request to the provider's API. It leaves the host only through egress or a granted reveal.
    AccessToken;
    /// What buys new access tokens. It never leaves the host except to the provider's token and revocation endpoints.
    RefreshToken;
    /// The client's own password at a provider.
    ClientSecret;
    /// A PKCE code verifier (RFC 7636 section 4.1).
    CodeVerifier;
    /// An authorization code (RFC 6749 section 4.1.2).
    AuthorizationCode;
}

/// A key of 256 bits.
#[derive(Zeroize)]
#[zeroize(drop)]
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// Fills a new key in place.
    pub fn fill_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut key = Box::new([0; 32]);
        fill(&mut key);
        Self(key)
    }

    /// The key in the clear.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_secret_shows_its_kind_and_nothing_else() {
        assert_eq!(format!("{:?}", AccessToken::new("canary".to_owned())), "AccessToken(…)");
        assert_eq!(format!("{:?}", RefreshToken::new("canary".to_owned())), "RefreshToken(…)");
        assert_eq!(format!("{:?}", Key::fill_with(|key| key.fill(7))), "Key(…)");
    }
}
