//! Addresses with variables in braces.

use std::collections::BTreeMap;

use url::Url;

use crate::net::Endpoint;

/// Why an address can't be used. The words stand beside the value in an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidAddress {
    #[error("`{{{name}}}` has no value; {known}")]
    NoVariable { name: String, known: String },
    #[error("a brace is not closed")]
    Brace,
    #[error("not an address: {0}")]
    Syntax(#[from] url::ParseError),
    #[error("plain http is for this machine only (127.0.0.1, [::1], localhost); write https")]
    PlainHttp,
    #[error("an address begins with `https://`")]
    Scheme,
    #[error("an address here has no user name, password or fragment")]
    Extra,
}

/// What may be put in for a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a variable is letters, digits, `.`, `-`, `_`, or a whole origin such as \"https://git.example.com\"")]
pub(super) struct InvalidVariable;

/// Judges the value of a variable: nothing that could end a host or begin a query.
pub(super) fn variable(text: &str) -> Result<String, InvalidVariable> {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let origin = text.parse::<crate::policy::Origin>().is_ok();
    if text.len() <= 255 && (plain(text) || origin) { Ok(text.to_owned()) } else { Err(InvalidVariable) }
}

/// Puts the variables in. `{client_id}` and `{api_origin}` stay: they have a value only later.
pub(super) fn expand(template: &str, variables: &BTreeMap<String, String>) -> Result<String, InvalidAddress> {
    let mut expanded = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        expanded.push_str(before);
        let (name, after) = after.split_once('}').ok_or(InvalidAddress::Brace)?;
        match variables.get(name) {
            Some(value) => expanded.push_str(value),
            None if matches!(name, "client_id" | "api_origin") => expanded.extend(["{", name, "}"]),
            None => {
                let names: Vec<_> = variables.keys().map(|name| format!("`{{{name}}}`")).collect();
                let known = if names.is_empty() {
                    format!("add `[provider.….variables]` with `{name} = \"…\"`")
                } else {
                    format!("there is {}", names.join(", "))
                };
                return Err(InvalidAddress::NoVariable { name: name.chars().take(40).collect(), known });
            }
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// An address of a provider: https, or http at this machine.
pub(super) fn address(template: &str, variables: &BTreeMap<String, String>) -> Result<Url, InvalidAddress> {
    let url = Url::parse(&expand(template, variables)?)?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" => {}
        "http" if Endpoint::new(false, host, 80).is_this_machine() => {}
        "http" => return Err(InvalidAddress::PlainHttp),
        _ => return Err(InvalidAddress::Scheme),
    }
    let extra = !url.username().is_empty() || url.password().is_some() || url.fragment().is_some();
    if extra { Err(InvalidAddress::Extra) } else { Ok(url) }
}

/// The address of a page for people, which may have a fragment.
pub(super) fn page(template: &str, variables: &BTreeMap<String, String>) -> Result<Url, InvalidAddress> {
    let url = Url::parse(&expand(template, variables)?)?;
    if url.scheme() == "https" || url.scheme() == "http" { Ok(url) } else { Err(InvalidAddress::Scheme) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("tenant".to_owned(), "contoso".to_owned())].into()
    }

    #[test]
    fn variables_are_put_in_and_unknown_ones_named() {
        let url = address("https://login.example/{tenant}/token", &variables()).unwrap();
        assert_eq!(url.as_str(), "https://login.example/contoso/token");
        let error = address("https://login.example/{tenat}/token", &variables()).unwrap_err().to_string();
        assert_eq!(error, "`{tenat}` has no value; there is `{tenant}`");
    }

    #[test]
    fn only_https_or_this_machine_is_an_address() {
        for good in ["https://a.example/t", "http://127.0.0.1:9/t", "http://[::1]:9/t", "http://localhost:9/t"] {
            assert!(address(good, &variables()).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/t",
            "http://10.0.0.1/t",
            "http://127.0.0.1.evil.example/t",
            "ftp://a.example",
            "https://u:p@a.example/t",
            "https://a.example/t#f",
            "https://{tenant",
            "token",
            "",
        ] {
            assert!(address(bad, &variables()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_template_makes_the_reader_panic(template in ".{0,40}", value in ".{0,20}") {
            drop(address(&template, &variables()));
            if let Ok(value) = variable(&value) {
                let variables = [("v".to_owned(), value)].into();
                // Nothing that is put in before the path moves the address to a host that was not written.
                let url = address("https://auth.example/{v}", &variables).unwrap();
                prop_assert_eq!(url.host_str(), Some("auth.example"));
            }
        }
    }
}
