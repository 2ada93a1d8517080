//! Which entries are asked for, as a form says it.

use std::str::FromStr;

use clawcoil::audit::Filter;
use clawcoil::clock::Timestamp;
use clawcoil::diagnostic::parse_duration;
use serde::Deserialize;

/// The fields of the form. What is empty restricts nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Wanted {
    pub(super) user: String,
    pub(super) skill: String,
    pub(super) kind: String,
    pub(super) decision: String,
    pub(super) client: String,
    pub(super) provider: String,
    pub(super) connection: String,
    pub(super) invocation: String,
    pub(super) explanation: String,
    pub(super) since: String,
    pub(super) until: String,
    /// Where the page before ended.
    pub(super) before: String,
}

impl Wanted {
    /// All but where a page begins, by name.
    fn fields(&self) -> [(&'static str, &str); 11] {
        [
            ("user", &self.user),
            ("skill", &self.skill),
            ("kind", &self.kind),
            ("decision", &self.decision),
            ("client", &self.client),
            ("provider", &self.provider),
            ("connection", &self.connection),
            ("invocation", &self.invocation),
            ("explanation", &self.explanation),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    pub(super) fn is_everything(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.trim().is_empty())
    }

    /// Whether one of the fields that are seldom used is.
    pub(super) fn is_fine(&self) -> bool {
        [&self.client, &self.provider, &self.connection, &self.invocation, &self.explanation, &self.until]
            .iter()
            .any(|value| !value.trim().is_empty())
    }

    /// The same question as the part of an address after `?`, and one more field.
    pub(super) fn query(&self, more: &[(&str, &str)]) -> String {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(self.fields().iter().filter(|(_, value)| !value.trim().is_empty()));
        text.extend_pairs(more);
        text.finish()
    }

    /// For the log; or what of it is nothing that could be asked for.
    pub(super) fn filter(&self, now: Timestamp) -> Result<Filter, String> {
        Ok(Filter {
            user: read(&self.user, "no user has such a name")?,
            client: read(&self.client, "no program has such a name")?,
            credential: None,
            skill: read(&self.skill, "no skill has such a name")?,
            service: None,
            provider: read(&self.provider, "no provider has such a name")?,
            kind: read(&self.kind, "the log knows no such kind")?,
            decision: read(&self.decision, "nothing is decided so")?,
            invocation: read(&self.invocation, "a call is inv_ and 32 digits")?,
            connection: read(&self.connection, "a connection is con_ and 32 digits")?,
            explanation: read(&self.explanation, "an explanation is why_ and 32 digits")?,
            since: moment(&self.since, now)?,
            until: moment(&self.until, now)?,
            without_opened: true,
        })
    }
}

fn read<T: FromStr>(text: &str, wrong: &str) -> Result<Option<T>, String> {
    match text.trim() {
        "" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| format!("“{}”: {wrong}.", text.chars().take(64).collect::<String>()))
        }
    }
}

/// `2026-11-24`, `2026-11-24T08:00:00Z`, or `2h` for two hours ago.
fn moment(text: &str, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let time = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok();
    let time = time.or_else(|| parse_duration(text).ok().and_then(|ago| now.checked_sub(ago).ok()));
    time.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        format!("“{text}”: write a time as 2026-11-24T08:00:00Z, a date as 2026-11-24, or how long ago as 2h.")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_form_is_read_and_its_question_stays_in_the_address() {
        let wanted = Wanted { user: " alice ".to_owned(), since: "2h".to_owned(), ..Wanted::default() };
        let filter = wanted.filter(now()).unwrap();
        assert_eq!(filter.user.unwrap().as_str(), "alice");
        assert_eq!(filter.since.unwrap().to_string(), "2026-11-24T10:00:00Z");
        assert_eq!(wanted.query(&[("before", "x y")]), "user=+alice+&since=2h&before=x+y");
        assert!(!wanted.is_everything() && !wanted.is_fine());
        let wrong = Wanted { kind: "opened".to_owned(), ..Wanted::default() };
        assert!(wrong.filter(now()).unwrap_err().contains("knows no such kind"));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_read_or_refused_in_words(text in ".{0,80}") {
            let wanted = Wanted {
                user: text.clone(),
                skill: text.clone(),
                invocation: text.clone(),
                since: text,
                ..Wanted::default()
            };
            if let Err(why) = wanted.filter(now()) {
                prop_assert!(why.ends_with('.'));
            }
        }
    }
}
