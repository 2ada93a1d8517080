//! Reads a report from the company's own reporting service.
//!
//! The service wants a token of the agent itself. The host gets one with client credentials and adds it by destination; the
//! skill is the same as if there were none.

use serde::Deserialize;

use bindings::exports::examples::internal_report::reports::{Error, Guest, Report, Row};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "internal-report", generate_all });
}

const REPORTS: &str = "https://reports.company.example/v1/reports";

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn monthly(name: String, month: String) -> Result<Report, Error> {
        let answer = skill_http::get(report_url(&name, &month)?)
            .header("accept", "application/json")
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        match answer.status {
            200 => {
                let body: Body = answer.json().map_err(|error| Error::Refused(error.to_string()))?;
                let rows = body.rows.into_iter().map(|row| Row { label: row.label, value: row.value }).collect();
                Ok(Report { name: body.name, month: body.month, rows })
            }
            401 => Err(Error::NotAuthenticated("the service did not accept the agent's credential".to_owned())),
            403 => Err(Error::Forbidden("the agent may not read this report".to_owned())),
            404 => Err(Error::NotFound),
            429 => Err(Error::RateLimited(answer.retry_after())),
            status => Err(Error::Refused(format!("status {status}"))),
        }
    }
}

#[derive(Deserialize)]
struct Body {
    name: String,
    month: String,
    rows: Vec<BodyRow>,
}

#[derive(Deserialize)]
struct BodyRow {
    label: String,
    value: f64,
}

fn report_url(name: &str, month: &str) -> Result<String, Error> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Error::InvalidArgument(format!("`name`: {name:?} is not a name of letters, digits and `-`")));
    }
    let number = |text: &str, digits| {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u32>().ok()).flatten()
    };
    match month.split_once('-').map(|(year, month)| (number(year, 4), number(month, 2))) {
        Some((Some(_), Some(1..=12))) => Ok(format!("{REPORTS}/{name}?month={month}")),
        _ => Err(Error::InvalidArgument(format!("`month`: {month:?} is not of the form YYYY-MM"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_month_can_not_lead_to_another_path_or_query() {
        let url = report_url("orders-eu", "2026-10").unwrap();
        assert_eq!(url, "https://reports.company.example/v1/reports/orders-eu?month=2026-10");
        for name in ["", "..", "a/b", "a?b", "a%2fb", "ä"] {
            assert!(report_url(name, "2026-10").is_err(), "{name:?}");
        }
        for month in ["", "2026", "2026-13", "2026-00", "26-10", "2026-1", "2026-10&x=y", "+026-10"] {
            assert!(report_url("orders", month).is_err(), "{month:?}");
        }
    }
}
