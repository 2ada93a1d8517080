//! Pages of lists: `limit` and an opaque `cursor`, the same for each list.
//!
//! Every list is sorted by a key that no two of its entries share. A cursor says of which list it is and after which key it goes
//! on. It carries no authority: whatever a caller makes of it, a list shows what its caller may see.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::serve::{Kind, Problem};

/// How many entries a page has where nothing is said, and at most.
const USUAL: usize = 50;
const MOST: usize = 200;

/// The longest cursor that is looked at, in bytes.
const LONGEST: usize = 1024;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// How many entries at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    pub(super) cursor: Option<String>,
}

/// A page that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    list: &'static str,
    pub(super) limit: usize,
    /// The page has what comes after this key.
    pub(super) after: Option<String>,
}

impl PageQuery {
    /// Reads it for the list of this name.
    pub(super) fn of(self, list: &'static str) -> Result<Page, Problem> {
        Page::read(list, self.limit, self.cursor.as_deref())
    }
}

impl Page {
    pub(super) fn read(list: &'static str, limit: Option<usize>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(Problem::new(
                Kind::BadRequest,
                format!("a page has 1 to {MOST} entries: `limit` is not {limit}"),
            ));
        }
        let after = match cursor {
            None => None,
            Some(cursor) => Some(read(list, cursor).ok_or_else(no_cursor)?),
        };
        Ok(Self { list, limit, after })
    }

    /// Whether an entry of this key comes on this page or a later one.
    pub(super) fn is_due(&self, key: &str) -> bool {
        self.after.as_deref().is_none_or(|after| key > after)
    }

    /// Cuts the page out of entries that are sorted by their keys, and says where the next one begins.
    pub(super) fn cut<T>(&self, entries: impl IntoIterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
        let mut due = entries.into_iter().filter(|(key, _)| self.is_due(key));
        let mut page = Vec::new();
        let mut last = String::new();
        for (key, entry) in due.by_ref().take(self.limit) {
            last = key;
            page.push(entry);
        }
        let next = due.next().map(|_| self.cursor(&last));
        (page, next)
    }

    /// The cursor of the page that comes after this key.
    pub(super) fn cursor(&self, key: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}\n{key}", self.list))
    }
}

/// What was given is none.
pub(super) fn no_cursor() -> Problem {
    Problem::new(Kind::BadRequest, "this is no cursor of this list; leave it out to begin at the beginning")
}

fn read(list: &str, cursor: &str) -> Option<String> {
    if cursor.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (named, key) = text.split_once('\n')?;
    (named == list && !key.contains(char::is_control)).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: usize, cursor: Option<&str>) -> Result<Page, Problem> {
        Page::read("letters", Some(limit), cursor)
    }

    #[test]
    fn a_page_has_1_to_200_entries() {
        assert!(page(0, None).is_err() && page(201, None).is_err());
        assert!(page(1, None).is_ok() && page(200, None).is_ok());
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = page(1, None).unwrap().cursor("a");
        assert!(page(1, Some(&cursor)).is_ok());
        assert!(Page::read("numbers", None, Some(&cursor)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn the_pages_together_are_the_list(
            keys in proptest::collection::btree_set("[a-z]{1,3}", 0..60), limit in 1_usize..20,
        ) {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                let page = page(limit, cursor.as_deref()).unwrap();
                let (some, next) = page.cut(keys.iter().map(|key| (key.clone(), key.clone())));
                assert!(some.len() == limit || next.is_none(), "only the last page may have fewer");
                found.extend(some);
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            assert_eq!(found, keys.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_a_cursor_or_refused_without_a_panic(text in "(?s).{0,1100}", bytes: Vec<u8>) {
            let _ = page(1, Some(&text));
            let _ = page(1, Some(&BASE64_URL_SAFE_NO_PAD.encode(bytes)));
        }
    }
}
