//! The page with the plots.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::plot::{self, Plot};
use super::{Activity, Range, Totals};
use crate::console::browser::Visitor;
use crate::console::moment::{clock_time, took};
use crate::console::page::{self, Page, Place};
use crate::console::trouble::Trouble;
use crate::serve::Shared;

#[derive(Debug, Deserialize)]
pub(in super::super) struct Wanted {
    #[serde(default)]
    range: String,
}

/// A row of the table that says what the pictures show.
struct Row {
    time: String,
    totals: Totals,
    half: String,
    most: String,
}

#[derive(Template)]
#[template(path = "activity.html")]
struct View {
    page: Page,
    /// Word, name, whether it is the one that is shown.
    ranges: Vec<(&'static str, &'static str, bool)>,
    words: &'static str,
    all: Totals,
    half: Option<String>,
    most: Option<String>,
    plots: Vec<Plot>,
    /// Where the axis of time is written on.
    ticks: Vec<String>,
    rows: Vec<Row>,
}

/// What happened lately.
pub(in super::super) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(Wanted { range }): Query<Wanted>,
) -> Result<Response, Trouble> {
    let range = Range::parse(&range);
    let now = app.host.clock().now();
    let activity = Activity::followed(&app).await;
    let (steps, all) = {
        let series = activity.series();
        (series.steps(range, now), series.totals(range, now))
    };
    let short = |share: f64, totals: &Totals| totals.took(share).map(took);
    let rows = steps.iter().rev().filter(|(_, step)| !step.is_empty()).map(|(second, step)| Row {
        time: clock_time(*second),
        half: short(0.5, step).unwrap_or_default(),
        most: short(0.95, step).unwrap_or_default(),
        totals: step.clone(),
    });
    let view = View {
        page: Page::of("Activity", &visitor, Place::Activity),
        ranges: Range::ALL.map(|one| (one.as_str(), one.words(), one == range)).into(),
        words: range.words(),
        half: short(0.5, &all),
        most: short(0.95, &all),
        all,
        rows: rows.collect(),
        ticks: ticks(&steps),
        plots: vec![plot::calls(&steps), plot::latencies(&steps), plot::denials(&steps), plot::refreshes(&steps)],
    };
    Ok(page::render(StatusCode::OK, &view))
}

/// The axis of time.
fn ticks(steps: &[(i64, Totals)]) -> Vec<String> {
    let every = (steps.len() / 6).max(1);
    let times = steps.iter().step_by(every).map(|(second, _)| clock_time(*second));
    times.chain(["now".to_owned()]).collect()
}

/// The last hour at a glance; nothing where nothing happened.
pub(in super::super) struct Glance {
    pub(in super::super) totals: Totals,
    pub(in super::super) plots: Vec<Plot>,
    pub(in super::super) ticks: Vec<String>,
    pub(in super::super) words: &'static str,
}

impl Glance {
    pub(in super::super) async fn of(app: &Shared) -> Self {
        let (range, now) = (Range::Hour, app.host.clock().now());
        let activity = Activity::followed(app).await;
        let (steps, totals) = {
            let series = activity.series();
            (series.steps(range, now), series.totals(range, now))
        };
        let plots = if totals.is_empty() { Vec::new() } else { vec![plot::calls(&steps), plot::latencies(&steps)] };
        Self { totals, plots, ticks: ticks(&steps), words: range.words() }
    }
}
