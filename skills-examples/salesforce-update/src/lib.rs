//! Updates a record in Salesforce.
//!
//! The API's address differs from organisation to organisation, so the skill asks for it. The credential is added by the
//! host, by destination.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use bindings::clawcoil::skill::tokens::{TokenRequest, get_token};
use bindings::clawcoil::skill::types::AuthError;
use bindings::exports::examples::salesforce_update::records::{Error, Field, Guest, Value};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "examples:salesforce-update/salesforce-update",
        generate_all,
    });
}

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn update(object: String, id: String, fields: Vec<Field>) -> Result<(), Error> {
        let path = record_path(&object, &id)?;
        let body = changes(fields)?;
        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token("salesforce", &request).map_err(no_token)?;

        // https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/dome_update_fields.htm
        let answer = skill_http::patch(token.info().api_origin + &path)
            .json(&body)
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        match answer.status {
            204 => Ok(()),
            401 => {
                token.invalidate();
                Err(refusal(&answer))
            }
            _ => Err(refusal(&answer)),
        }
    }
}

fn record_path(object: &str, id: &str) -> Result<String, Error> {
    let wrong = |what: String| Err(Error::InvalidArgument(what));
    if !is_api_name(object) {
        return wrong(format!("`object`: {object:?} is not the API name of an object"));
    }
    if !matches!(id.len(), 15 | 18) || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
        return wrong(format!("`id`: {id:?} is not a record id of 15 or 18 letters and digits"));
    }
    Ok(format!("/services/data/v62.0/sobjects/{object}/{id}"))
}

fn changes(fields: Vec<Field>) -> Result<Map<String, Json>, Error> {
    if fields.is_empty() {
        return Err(Error::InvalidArgument("`fields` is empty: nothing would change".to_owned()));
    }
    let mut body = Map::new();
    for Field { name, value } in fields {
        if !is_api_name(&name) {
            return Err(Error::InvalidArgument(format!("`fields`: {name:?} is not the API name of a field")));
        }
        let value = match value {
            Value::Text(text) => Json::from(text),
            Value::Number(number) if number.is_finite() => Json::from(number),
            Value::Number(_) => {
                return Err(Error::InvalidArgument(format!("`fields`: the value of {name} is not a finite number")));
            }
            Value::Checkbox(checked) => Json::from(checked),
            Value::Empty => Json::Null,
        };
        if body.insert(name.clone(), value).is_some() {
            return Err(Error::InvalidArgument(format!("`fields`: {name} is set twice")));
        }
    }
    Ok(body)
}

fn is_api_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// One of Salesforce's errors; an answer carries a list of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiError {
    message: String,
    error_code: String,
}

fn refusal(answer: &skill_http::Response) -> Error {
    let errors = answer.json::<Vec<ApiError>>().unwrap_or_default();
    let limited = errors.iter().any(|error| error.error_code == "REQUEST_LIMIT_EXCEEDED");
    let mut message: Vec<String> =
        errors.into_iter().map(|error| format!("{}: {}", error.error_code, error.message)).collect();
    if message.is_empty() {
        message.push(format!("status {}", answer.status));
    }
    let message = message.join("; ");
    match answer.status {
        401 => Error::NotAuthenticated(message),
        429 => Error::RateLimited(answer.retry_after()),
        403 if limited => Error::RateLimited(answer.retry_after()),
        403 => Error::Forbidden(message),
        404 => Error::NotFound(message),
        _ => Error::Refused(message),
    }
}

fn no_token(error: AuthError) -> Error {
    match error {
        AuthError::ActionRequired(action) => Error::NotAuthenticated(action.message),
        AuthError::Denied(denial) => Error::Forbidden(denial.message),
        AuthError::Unavailable(outage) => Error::Unreachable(outage.message),
        AuthError::Undeclared(message) | AuthError::Other(message) => Error::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: Value) -> Field {
        Field { name: name.to_owned(), value }
    }

    #[test]
    fn an_object_or_id_can_not_lead_to_another_path() {
        let path = record_path("Account", "001D000000INjVe").unwrap();
        assert_eq!(path, "/services/data/v62.0/sobjects/Account/001D000000INjVe");
        for object in ["", "../query", "Account/x", "Account?x", "1a", "Äccount"] {
            assert!(record_path(object, "001D000000INjVe").is_err(), "{object:?}");
        }
        for id in ["", "001D000000INj/e", "001D000000INjVeX", "..............."] {
            assert!(record_path("Account", id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn each_kind_of_value_becomes_its_json() {
        let body = changes(vec![
            field("Phone", Value::Text("555".to_owned())),
            field("Employees__c", Value::Number(12.0)),
            field("Active__c", Value::Checkbox(true)),
            field("Fax", Value::Empty),
        ])
        .unwrap();
        let expected = serde_json::json!({ "Phone": "555", "Employees__c": 12.0, "Active__c": true, "Fax": null });
        assert_eq!(Json::Object(body), expected);
    }

    #[test]
    fn what_salesforce_could_not_store_is_refused_before_it_is_sent() {
        assert!(changes(Vec::new()).is_err());
        assert!(changes(vec![field("x", Value::Number(f64::NAN))]).is_err());
        assert!(changes(vec![field("a-b", Value::Empty)]).is_err());
        assert!(changes(vec![field("A", Value::Empty), field("A", Value::Checkbox(true))]).is_err());
    }

    #[test]
    fn each_refusal_of_salesforce_has_its_own_error() {
        let answer = |status, code: &str| {
            let body = format!(r#"[{{"message":"m","errorCode":"{code}"}}]"#).into_bytes();
            refusal(&skill_http::Response { status, headers: Vec::new(), body })
        };
        assert!(matches!(answer(401, "INVALID_SESSION_ID"), Error::NotAuthenticated(_)));
        assert!(matches!(answer(403, "INSUFFICIENT_ACCESS"), Error::Forbidden(_)));
        assert!(matches!(answer(403, "REQUEST_LIMIT_EXCEEDED"), Error::RateLimited(None)));
        assert!(matches!(answer(404, "NOT_FOUND"), Error::NotFound(_)));
        assert!(matches!(answer(400, "INVALID_FIELD"), Error::Refused(text) if text == "INVALID_FIELD: m"));
    }
}
