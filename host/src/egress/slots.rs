//! Swaps a placeholder for the credential, in the named slots and nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Uri;
use zeroize::Zeroizing;

use crate::policy::Slot;

use super::attach::{AttachError, decoded_key, escaped, header_of, value, with_query};
use super::placeholder;

/// What of a request a placeholder may stand in.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// The address.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, where all of it is there.
    pub body: Option<Bytes>,
}

/// Why a request with a placeholder is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// It stands where it must not, perhaps encoded.
    #[error("a placeholder stands outside the places where this provider takes its token")]
    Elsewhere,
    /// More than one stands there.
    #[error("a request carries one credential; this one has placeholders of several tokens")]
    Several,
    /// The credential can't be put there.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Carrier {
    /// The placeholder that the request carries, if any, wherever it stands in a form that a slot could take.
    pub fn placeholder(&self) -> Result<Option<String>, SlotError> {
        let mut found: Option<String> = None;
        let mut take = |candidate: &str| {
            for text in placeholder::all_in(candidate) {
                match &found {
                    Some(other) if other != text => return Err(SlotError::Several),
                    _ => found = Some(text.to_owned()),
                }
            }
            Ok(())
        };
        for value in self.headers.values() {
            take(value.to_str().unwrap_or_default())?;
        }
        if let Some(pair) = self.headers.get(header::AUTHORIZATION).and_then(basic) {
            take(&pair)?;
        }
        take(self.uri.query().unwrap_or_default())?;
        if let Some(body) = &self.body {
            take(&String::from_utf8_lossy(body))?;
        }
        Ok(found)
    }

    /// Checks that the placeholder stands in slots only: what is left without them holds none, not even encoded.
    pub fn check(&self, found: &str, slots: &[Slot]) -> Result<(), SlotError> {
        let mut rest = self.clone();
        if rest.swap(found, "", slots)? == 0 || rest.has_mark() {
            return Err(SlotError::Elsewhere);
        }
        Ok(())
    }

    /// Whether a placeholder, or what pretends to be one, stands anywhere, plain or encoded.
    pub fn has_mark(&self) -> bool {
        self.marked_head() || self.body.as_ref().is_some_and(|body| placeholder::occurs_in(body))
    }

    fn marked_head(&self) -> bool {
        let address = self.uri.path_and_query().map_or("", |address| address.as_str());
        placeholder::occurs_in(address.as_bytes())
            || self.headers.iter().any(|(name, value)| placeholder::occurs_in_header(name, value))
    }

    /// Removes the credentials that the guest brought along, except for headers and keys where the placeholder stands.
    pub fn keep_only(
        &mut self,
        found: &str,
        slots: &[Slot],
        drop_rest: impl FnOnce(&mut Self) -> Result<(), AttachError>,
    ) -> Result<(), AttachError> {
        let kept: Vec<_> = slots
            .iter()
            .filter_map(header_of)
            .filter_map(|name| Some((name.clone(), self.headers.get(name)?.clone())))
            .filter(|(_, value)| holds(value, found))
            .collect();
        let pairs: Vec<String> = self
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| pair.split_once('=').is_some_and(|(_, value)| value == found))
            .map(str::to_owned)
            .collect();
        drop_rest(self)?;
        self.headers.extend(kept);
        let query = self.uri.query().unwrap_or_default();
        let missing: Vec<&str> =
            pairs.iter().map(String::as_str).filter(|pair| !query.split('&').any(|have| have == *pair)).collect();
        if !missing.is_empty() {
            let all: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).chain(missing).collect();
            let query = all.join("&");
            self.uri = with_query(&self.uri, &query)?;
        }
        Ok(())
    }

    /// Swaps it in all slots where it stands, and says in how many.
    pub fn swap(&mut self, found: &str, credential: &str, slots: &[Slot]) -> Result<usize, AttachError> {
        let mut swapped = 0;
        for slot in slots {
            swapped += match slot {
                Slot::AuthorizationBearer => self.swap_bearer(found, credential)?,
                Slot::AuthorizationBasic => self.swap_basic(found, credential)?,
                Slot::Header(name) => match self.headers.get(name).and_then(|value| in_header(value, found)) {
                    Some(scheme) => {
                        let value = value(&[&scheme, credential])?;
                        self.headers.insert(name, value);
                        1
                    }
                    None => 0,
                },
                Slot::Query(key) => self.swap_query(key, found, credential)?,
                Slot::Json(pointer) => self.swap_json(pointer, found, credential),
            };
        }
        Ok(swapped)
    }

    fn swap_bearer(&mut self, found: &str, credential: &str) -> Result<usize, AttachError> {
        let scheme = self.headers.get(header::AUTHORIZATION).and_then(|value| in_header(value, found));
        if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
            return Ok(0);
        }
        self.headers.insert(header::AUTHORIZATION, value(&["Bearer ", credential])?);
        Ok(1)
    }

    fn swap_basic(&mut self, found: &str, credential: &str) -> Result<usize, AttachError> {
        let Some(pair) = self.headers.get(header::AUTHORIZATION).and_then(basic) else { return Ok(0) };
        let Some((user, password)) = pair.split_once(':') else { return Ok(0) };
        let pair = match (user == found, password == found) {
            (true, _) => Zeroizing::new(format!("{credential}:{password}")),
            (_, true) => Zeroizing::new(format!("{user}:{credential}")),
            _ => return Ok(0),
        };
        let rendered = Zeroizing::new(STANDARD.encode(&*pair));
        self.headers.insert(header::AUTHORIZATION, value(&["Basic ", &rendered])?);
        Ok(1)
    }

    fn swap_query(&mut self, key: &str, found: &str, credential: &str) -> Result<usize, AttachError> {
        let Some(query) = self.uri.query() else { return Ok(0) };
        let credential = escaped(credential);
        let mut swapped = 0;
        let pairs: Vec<Zeroizing<String>> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((raw, value)) if value == found && decoded_key(pair) == key => {
                    swapped += 1;
                    Zeroizing::new(format!("{raw}={}", *credential))
                }
                _ => Zeroizing::new(pair.to_owned()),
            })
            .collect();
        if swapped > 0 {
            let parts: Vec<&str> = pairs.iter().map(|pair| pair.as_str()).collect();
            let query = Zeroizing::new(parts.join("&"));
            self.uri = with_query(&self.uri, &query)?;
        }
        Ok(swapped)
    }

    /// The text itself is edited, so that everything around the slot stays as the guest wrote it.
    fn swap_json(&mut self, pointer: &str, found: &str, credential: &str) -> usize {
        let Some(text) = self.body.as_ref().and_then(|body| std::str::from_utf8(body).ok()) else { return 0 };
        // The placeholder is random, so the one place where it stands is the one that the pointer names.
        let in_slot = text.matches(found).count() == 1
            && serde_json::from_str::<serde_json::Value>(text)
                .is_ok_and(|json| json.pointer(pointer).and_then(|value| value.as_str()) == Some(found));
        let quoted = Zeroizing::new(serde_json::to_string(credential).unwrap_or_default());
        let inner = quoted.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
        match inner {
            Some(inner) if in_slot => {
                self.body = Some(Bytes::from(text.replacen(found, inner, 1)));
                1
            }
            _ => 0,
        }
    }
}

/// What stands before the placeholder in a header's value, if nothing else does: nothing, or one word and a space.
fn in_header(value: &HeaderValue, found: &str) -> Option<String> {
    let scheme = value.to_str().ok()?.trim().strip_suffix(found)?;
    let word = scheme.trim_end();
    let is_word = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match (word.is_empty(), is_word && scheme.len() > word.len()) {
        (true, _) => Some(String::new()),
        (false, true) => Some(format!("{word} ")),
        (false, false) => None,
    }
}

/// What `Basic` decodes to.
fn basic(value: &HeaderValue) -> Option<String> {
    let (scheme, encoded) = value.to_str().ok()?.trim().split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()).ok())??;
    String::from_utf8(decoded).ok()
}

fn holds(value: &HeaderValue, found: &str) -> bool {
    value.to_str().is_ok_and(|text| text.contains(found)) || basic(value).is_some_and(|pair| pair.contains(found))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::egress::placeholder::Placeholders;
    use crate::id::Names;

    const TOKEN: &str = "ya29.a/b+c=\"";

    static NAMES: Names = Names::new([7; 16]);

    fn given() -> String {
        Placeholders::default().give((), NAMES.draw())
    }

    fn carrier(uri: &str, headers: &[(&'static str, String)], body: Option<String>) -> Carrier {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        Carrier { uri: uri.parse().unwrap(), headers, body: body.map(Bytes::from) }
    }

    fn all_slots() -> Vec<Slot> {
        vec![
            Slot::AuthorizationBearer,
            Slot::AuthorizationBasic,
            Slot::Header(HeaderName::from_static("x-token")),
            Slot::Query("token".to_owned()),
            Slot::Json("/auth/token".to_owned()),
        ]
    }

    fn swapped(mut carrier: Carrier, found: &str) -> Carrier {
        assert_eq!(carrier.placeholder().unwrap().as_deref(), Some(found));
        carrier.check(found, &all_slots()).unwrap();
        assert_eq!(carrier.swap(found, TOKEN, &all_slots()).unwrap(), 1);
        carrier
    }

    #[test]
    fn in_each_slot_the_placeholder_is_swapped() {
        let p = given();
        let uri = "https://a.example/x";
        let out = swapped(carrier(uri, &[("authorization", format!("bearer {p}"))], None), &p);
        assert_eq!(out.headers["authorization"], format!("Bearer {TOKEN}"));
        for (pair, expected) in [(format!("me:{p}"), format!("me:{TOKEN}")), (format!("{p}:x"), format!("{TOKEN}:x"))] {
            let out = swapped(carrier(uri, &[("authorization", format!("Basic {}", STANDARD.encode(pair)))], None), &p);
            assert_eq!(out.headers["authorization"], format!("Basic {}", STANDARD.encode(expected)));
        }
        let out = swapped(carrier(uri, &[("x-token", p.clone())], None), &p);
        assert_eq!(out.headers["x-token"], TOKEN);
        let out = swapped(carrier(&format!("{uri}?a=1&token={p}&b"), &[], None), &p);
        assert_eq!(out.uri.to_string(), format!("{uri}?a=1&token=ya29.a%2Fb%2Bc%3D%22&b"));
        let out = swapped(carrier(uri, &[], Some(format!("{{ \"auth\": {{\"token\" : \"{p}\"}} }}"))), &p);
        assert_eq!(out.body.unwrap(), "{ \"auth\": {\"token\" : \"ya29.a/b+c=\\\"\"} }");
    }

    #[test]
    fn anywhere_else_it_is_refused() {
        let p = given();
        let uri = "https://a.example/x";
        for bad in [
            carrier(&format!("https://a.example/{p}"), &[], None),
            carrier(&format!("{uri}?q={p}"), &[], None),
            carrier(&format!("{uri}?token=x{p}"), &[], None),
            carrier(&format!("{uri}?{p}=1"), &[], None),
            carrier(uri, &[("x-other", p.clone())], None),
            carrier(uri, &[("x-token", format!("a b {p}"))], None),
            carrier(uri, &[("authorization", format!("Digest {p}"))], None),
            carrier(uri, &[("authorization", format!("Basic {}", STANDARD.encode(format!("me:x{p}"))))], None),
            carrier(uri, &[], Some(format!("{{\"title\":\"{p}\"}}"))),
            carrier(uri, &[], Some(format!("{{\"auth\":{{\"token\":\"{p}\"}},\"title\":\"{p}\"}}"))),
            carrier(uri, &[], Some(format!("{{\"auth\":{{\"token\":\"{p}\",\"token\":\"x\"}}}}"))),
            carrier(uri, &[("authorization", format!("Bearer {p}"))], Some(format!("note: {p}"))),
            carrier(uri, &[("authorization", format!("Bearer {p}"))], Some(hex::encode(&p))),
            carrier(uri, &[("authorization", format!("Bearer {p}"))], Some(STANDARD.encode(format!("x{p}")))),
            carrier(&format!("{uri}?q={}", p.replace('_', "%5F")), &[("authorization", format!("Bearer {p}"))], None),
        ] {
            assert_eq!(bad.check(&p, &all_slots()), Err(SlotError::Elsewhere), "{bad:?}");
            assert!(bad.has_mark());
        }
    }

    #[test]
    fn a_slot_that_the_provider_does_not_have_is_elsewhere() {
        let p = given();
        let query = carrier(&format!("https://a.example/?token={p}"), &[], None);
        assert_eq!(query.check(&p, &[Slot::AuthorizationBearer]), Err(SlotError::Elsewhere));
    }

    #[test]
    fn two_placeholders_are_refused() {
        let two = carrier(
            "https://a.example/",
            &[("authorization", format!("Bearer {}", given())), ("x-token", given())],
            None,
        );
        assert_eq!(two.placeholder(), Err(SlotError::Several));
    }

    #[test]
    fn the_guests_own_credentials_beside_the_placeholder_are_dropped() {
        let p = given();
        let mut both = carrier(
            &format!("https://a.example/?access_token=evil&token={p}"),
            &[("authorization", "Bearer evil".to_owned()), ("x-token", p.clone())],
            None,
        );
        let slots = all_slots();
        both.keep_only(&p, &slots, |rest| {
            super::super::attach::drop_own_credentials(
                &mut rest.headers,
                &mut rest.uri,
                &crate::policy::Placement::Bearer,
                &slots,
            )
        })
        .unwrap();
        assert!(!both.headers.contains_key("authorization"));
        assert_eq!(both.headers["x-token"], p);
        assert_eq!(both.uri.to_string(), format!("https://a.example/?token={p}"));
    }

    proptest! {
        #[test]
        fn a_placeholder_outside_the_slots_is_never_let_through(
            before in "[ -~]{0,20}", after in "[ -~]{0,20}", in_slot: bool,
            // What is encoded twice is out of reach, and needs no care: nothing decodes it back on the way.
            (place, encoding) in (0u8..4, 0u8..5).prop_filter("once", |&(place, encoding)| encoding != 3 || place == 1 || place == 2),
        ) {
            let p = given();
            let text = format!("{before}{p}{after}");
            let text = match encoding {
                0 => text,
                1 => STANDARD.encode(text),
                2 => hex::encode(text),
                3 => percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string(),
                _ => serde_json::to_string(&text).unwrap(),
            };
            let mut headers = vec![];
            if in_slot { headers.push(("x-token", p.clone())); }
            let query = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let mut uri = "https://a.example/".to_owned();
            let mut body = None;
            match place {
                0 => uri = format!("https://a.example/?q={query}"),
                1 => headers.push(("x-other", text)),
                2 => body = Some(text),
                _ => uri = format!("https://a.example/{query}"),
            }
            let carrier = carrier(&uri, &headers, body);
            prop_assert!(carrier.has_mark());
            prop_assert!(carrier.check(&p, &all_slots()).is_err());
        }
    }
}
