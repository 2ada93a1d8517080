//! Pages of entries, the newest first.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::audit::{self, Entry, Filter};
use clawcoil::clock::Timestamp;
use clawcoil::id::SkillName;
use clawcoil::secret::Key;
use serde::Deserialize;

use super::filter::Wanted;
use super::{Row, decisions, kinds, reading, unreadable};
use crate::console::browser::Visitor;
use crate::console::page::{self, Page, Place as Nav};
use crate::console::trouble::Trouble;
use crate::serve::{Kind, Problem, Shared};

/// Entries on one page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "audit.html")]
struct List {
    page: Page,
    wanted: Wanted,
    kinds: Vec<(&'static str, String, bool)>,
    decisions: Vec<(&'static str, String, bool)>,
    skills: Vec<SkillName>,
    rows: Vec<Row>,
    /// The page of older entries.
    older: Option<String>,
    /// The newest page.
    newest: Option<String>,
    export: String,
    /// What of the question is none.
    wrong: Option<String>,
}

/// The entries that are asked for.
pub(in super::super) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let (entries, wrong) = match wanted.filter(app.host.clock().now()) {
        Ok(filter) => {
            let before = Place::parse(&wanted.before);
            (reading(&app, move |folder, key| before_place(folder, key, filter, before.as_ref())).await?, None)
        }
        Err(why) => (Ok((Vec::new(), None)), Some(why)),
    };
    let (entries, older) = entries.map_err(|error| unreadable(&error))?;
    let list = List {
        page: Page::of("Audit", &visitor, Nav::Audit),
        kinds: kinds(&wanted.kind),
        decisions: decisions(&wanted.decision),
        skills: app.host.registry().names().map_err(Problem::from)?,
        rows: entries.into_iter().map(Row::from).collect(),
        older: older.map(|place| format!("/audit?{}", wanted.query(&[("before", &place.to_string())]))),
        newest: (!wanted.before.is_empty()).then(|| format!("/audit?{}", wanted.query(&[]))),
        export: format!("/audit/export?{}", wanted.query(&[])),
        wrong,
        wanted,
    };
    let status = if list.wrong.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(page::render(status, &list))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct From {
    before: String,
}

#[derive(Template)]
#[template(path = "calls.html")]
struct Own {
    page: Page,
    rows: Vec<Row>,
    older: Option<String>,
    newest: bool,
}

/// A user's own calls.
pub(in super::super) async fn own(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(From { before }): Query<From>,
) -> Result<Response, Trouble> {
    let Some(user) = visitor.role.user().cloned() else {
        return Err(Problem::new(Kind::Forbidden, "these are the calls of users").into());
    };
    let filter = Filter { user: Some(user), kind: Some(audit::EventKind::Invoked), ..Filter::default() };
    let from = Place::parse(&before);
    let read = reading(&app, move |folder, key| before_place(folder, key, filter, from.as_ref())).await?;
    let (entries, older) = read.map_err(|error| unreadable(&error))?;
    let query = |place: Place| {
        url::form_urlencoded::Serializer::new("/calls?".to_owned()).append_pair("before", &place.to_string()).finish()
    };
    let own = Own {
        page: Page::of("My calls", &visitor, Nav::Calls),
        rows: entries.into_iter().map(Row::from).collect(),
        older: older.map(query),
        newest: !before.is_empty(),
    };
    Ok(page::render(StatusCode::OK, &own))
}

/// Where an entry stands among all: by its time, and by its chain and number where several have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: Timestamp,
    chain: String,
    seq: u64,
}

impl Place {
    fn of(entry: &Entry) -> Self {
        Self { time: entry.time, chain: entry.chain.clone(), seq: entry.seq }
    }

    /// As it stands in an address. `None`: at the newest.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ',');
        let (time, seq, chain) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { time: time.parse().ok()?, seq: seq.parse().ok()?, chain: chain.to_owned() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{}", self.time, self.seq, self.chain)
    }
}

type PageOfEntries = (Vec<Entry>, Option<Place>);

/// The newest entries before a place, and the place of the last of them if there are older ones.
fn before_place(folder: &Path, key: &Key, mut filter: Filter, before: Option<&Place>) -> io::Result<PageOfEntries> {
    if let Some(before) = before {
        // Those of the very time are told apart below.
        let after = before.time.checked_add(std::time::Duration::from_micros(1)).unwrap_or(Timestamp::MAX);
        filter.until = Some(filter.until.map_or(after, |until| until.min(after)));
    }
    let mut last = VecDeque::new();
    let mut more = false;
    for entry in audit::entries(folder, key, &filter)? {
        let entry = entry?;
        if before.is_some_and(|before| Place::of(&entry) >= *before) {
            continue;
        }
        last.push_back(entry);
        if last.len() > ON_A_PAGE {
            last.pop_front();
            more = true;
        }
    }
    let oldest = last.front().filter(|_| more).map(Place::of);
    Ok((last.into_iter().rev().collect(), oldest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn pages_go_back_through_every_entry_once_also_where_several_have_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        for chain in ["a", "b"] {
            let lines = (0..80).map(|seq| {
                // Ten entries at each moment.
                let second = seq / 10;
                format!("{{\"seq\":{seq},\"time\":\"2026-11-24T11:00:0{second}.000000Z\",\"kind\":\"invoked\"}}\n")
            });
            fs::write(folder.path().join(format!("{chain}.jsonl")), lines.collect::<String>()).unwrap();
        }
        let key = Key::fill_with(|key| key.fill(7));
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let (entries, older) = before_place(folder.path(), &key, Filter::default(), before.as_ref()).unwrap();
            assert!(entries.len() <= ON_A_PAGE);
            seen.extend(entries.iter().map(Place::of));
            match older {
                Some(older) => before = Place::parse(&older.to_string()),
                None => break,
            }
        }
        assert_eq!(seen.len(), 160);
        assert!(seen.is_sorted_by(|a, b| a > b), "the newest first, each once");
    }

    #[test]
    fn what_is_no_place_is_the_newest_page() {
        for text in ["", "x", "2026-11-24T11:00:00Z", "2026-11-24T11:00:00Z,x,a"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
