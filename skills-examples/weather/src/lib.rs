//! The current weather, from `OpenWeather`.
//!
//! `OpenWeather` wants a key in the query. The URL here has none: the host adds it by destination.

use serde::Deserialize;

use bindings::exports::examples::weather::forecast::{Conditions, Error, Guest, Units};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "weather", generate_all });
}

/// <https://openweathermap.org/current>
const CURRENT: &str = "https://api.openweathermap.org/data/2.5/weather";

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn current(place: String, units: Option<Units>) -> Result<Conditions, Error> {
        let units = match units {
            None | Some(Units::Metric) => "metric",
            Some(Units::Imperial) => "imperial",
        };
        let answer = skill_http::get(format!("{CURRENT}?q={}&units={units}", skill_http::escape(&place)))
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        read(&answer)
    }
}

/// The part of the service's answer that is of use here.
#[derive(Deserialize)]
struct Answer {
    name: String,
    weather: Vec<Weather>,
    main: Main,
    wind: Wind,
}

#[derive(Deserialize)]
struct Weather {
    description: String,
}

#[derive(Deserialize)]
struct Main {
    temp: f64,
    feels_like: f64,
    humidity: f64,
}

#[derive(Deserialize)]
struct Wind {
    speed: f64,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
}

fn read(answer: &skill_http::Response) -> Result<Conditions, Error> {
    if answer.status == 200 {
        let body: Answer = answer.json().map_err(|error| Error::Refused(error.to_string()))?;
        let words: Vec<String> = body.weather.into_iter().map(|weather| weather.description).collect();
        return Ok(Conditions {
            place: body.name,
            description: words.join(", "),
            temperature: body.main.temp,
            feels_like: body.main.feels_like,
            humidity: body.main.humidity,
            wind_speed: body.wind.speed,
        });
    }
    let message =
        answer.json::<Refused>().map_or_else(|_| format!("status {}", answer.status), |refused| refused.message);
    Err(match answer.status {
        401 => Error::NotAuthenticated(message),
        404 => Error::PlaceNotFound,
        429 => Error::RateLimited(answer.retry_after()),
        _ => Error::Refused(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Conditions, Error> {
        read(&skill_http::Response { status, headers: Vec::new(), body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_weather_is_read_from_openweathers_answer() {
        let body = r#"{"name":"Paris","weather":[{"id":500,"main":"Rain","description":"light rain"}],
            "main":{"temp":11.5,"feels_like":10.9,"pressure":1014,"humidity":87},"wind":{"speed":3.4},"cod":200}"#;
        let weather = answer(200, body).unwrap();
        assert_eq!((weather.place.as_str(), weather.description.as_str()), ("Paris", "light rain"));
        assert!((weather.temperature - 11.5).abs() < f64::EPSILON);
    }

    #[test]
    fn each_refusal_of_openweather_has_its_own_error() {
        let refused = r#"{"cod":"400","message":"Nothing to geocode"}"#;
        assert!(matches!(answer(401, refused), Err(Error::NotAuthenticated(_))));
        assert!(matches!(answer(404, refused), Err(Error::PlaceNotFound)));
        assert!(matches!(answer(429, refused), Err(Error::RateLimited(None))));
        assert!(matches!(answer(400, refused), Err(Error::Refused(text)) if text == "Nothing to geocode"));
        assert!(matches!(answer(200, "[]"), Err(Error::Refused(_))));
    }
}
