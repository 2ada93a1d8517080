//! The catalogue of providers: what is particular about each, as data.
//!
//! The built-in entries are in `providers.toml`; an operator's files have the same form, add providers, and change built-in
//! ones key by key. The shortest useful file:
//!
//! ```
//! use clawcoil::diagnostic::Source;
//! use clawcoil::provider::Catalogue;
//!
//! let file = Source::new(
//!     "providers.toml",
//!     r#"
//! [provider.acme]
//! name = "Acme"
//! authorize = "https://login.acme.example/oauth/authorize"
//! token = "https://login.acme.example/oauth/token"
//! api-origins = ["https://api.acme.example"]
//!
//! [provider.github.override]
//! "https://api.github.com" = "http://127.0.0.1:9000"
//! "#,
//! );
//! let catalogue = Catalogue::with(&[file]).unwrap();
//! assert_eq!(catalogue.get(&"acme".parse().unwrap()).unwrap().name, "Acme");
//! ```

mod catalogue;
mod draft;
mod entry;
mod place;
mod template;

pub use catalogue::Catalogue;
pub use entry::{CALLBACK_PORT, InvalidApiOrigin, Kind, Loopback, LoopbackHost, Provider, Rotation};

#[cfg(test)]
mod tests;
