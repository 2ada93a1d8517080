//! Catalogue entries that point the real providers' names at a sandbox.

use super::vendor::{PATHS, Vendor};

/// The providers that the sandbox stands in for.
pub(crate) const ENTRIES: [&str; 5] = ["google", "github", "github-app", "slack", "salesforce"];

/// The entry for one provider and a sandbox at this origin. `None`: the sandbox doesn't stand in for it.
pub(crate) fn entry(provider: &str, origin: &str) -> Option<String> {
    let (vendor, apis) = match provider {
        "google" => (Vendor::Google, "https://gmail.googleapis.com"),
        "github" | "github-app" => (Vendor::GitHub, "https://api.github.com"),
        "slack" => (Vendor::Slack, "https://slack.com"),
        "salesforce" => (Vendor::Salesforce, "{api_origin}"),
        _ => return None,
    };
    let paths = PATHS.iter().find(|paths| paths.vendor == vendor)?;
    let mut lines = vec![
        "# A sandbox in the place of the real provider: for trying skills out, never for real accounts.".to_owned(),
        format!("[provider.{provider}]"),
        format!("name = \"{} (sandbox)\"", vendor.name()),
        format!("authorize = \"{origin}{}\"", paths.authorize),
        format!("token = \"{origin}{}\"", paths.token),
    ];
    lines.extend(paths.revoke.map(|path| format!("revoke = \"{origin}{path}\"")));
    lines.extend(paths.introspect.map(|path| format!("introspect = \"{origin}{path}\"")));
    lines.extend([
        format!("issuer = \"{origin}\""),
        "issuer-promised = true".to_owned(),
        "loopback = \"http://127.0.0.1\"".to_owned(),
        String::new(),
        format!("[provider.{provider}.answer]"),
        "account = \"/sandbox_account\"".to_owned(),
        String::new(),
        format!("[provider.{provider}.override]"),
        format!("\"{apis}\" = \"{origin}\""),
        String::new(),
    ]);
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use clawcoil::diagnostic::Source;
    use clawcoil::provider::Catalogue;

    use super::*;

    #[test]
    fn each_entry_is_one_that_the_catalogue_takes() {
        for provider in ENTRIES {
            let text = entry(provider, "http://127.0.0.1:8417").unwrap();
            let catalogue = Catalogue::with(&[Source::new(provider, &*text)]).unwrap_or_else(|error| panic!("{error}"));
            let entry = catalogue.get(&provider.parse().unwrap()).unwrap();
            assert_eq!(entry.server().unwrap().token.host_str(), Some("127.0.0.1"));
        }
        assert!(entry("acme", "http://127.0.0.1:8417").is_none());
    }
}
