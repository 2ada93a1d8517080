//! A reader of TOML tables that collects every error and goes on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use toml::de::{DeArray, DeTable, DeValue};

use super::{Diagnostic, Diagnostics, Line, Source, did_you_mean, parse_bytes, parse_duration};

type Spanned<T> = toml::Spanned<T>;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

/// A table of a file that is being read.
///
/// A method named for a kind of value demands the key; one that begins with `opt_` leaves it free. Both give `None` where
/// the value is missing or wrong; an error is then noted, and reading goes on. A key that nobody asked for is an error when
/// the table has been read, so ask for **every** key before the first `?`:
///
/// ```
/// # use clawcoil::diagnostic::{Source, Table};
/// # use clawcoil::id::ProviderId;
/// # let source = Source::new("p.toml", "[[provider]]\nid = \"acme\"\nscopes = [\"read\"]\n");
/// let providers = Table::read(&source, |root| {
///     Some(root.tables("provider", |provider| {
///         let id = provider.parsed::<ProviderId>("id");
///         let scopes = provider.opt_strings("scopes");
///         Some((id?, scopes.unwrap_or_default()))
///     }))
/// });
/// # assert_eq!(providers.unwrap().len(), 1);
/// ```
pub struct Table<'s> {
    source: &'s Source,
    problems: &'s RefCell<Vec<Diagnostic>>,
    entries: &'s DeTable<'s>,
    span: Range<usize>,
    /// As it is called in messages, with its brackets.
    name: String,
    path: String,
    examples: &'static [(&'static str, &'static str)],
    asked: Vec<String>,
    missing: Vec<(String, Diagnostic)>,
}

impl<'s> Table<'s> {
    /// Reads a whole file. `read` gets the root table and gives `None` only after an error was noted.
    ///
    /// # Errors
    ///
    /// All errors of the file.
    pub fn read<T>(source: &Source, read: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Result<T, Diagnostics> {
        let (document, errors) = DeTable::parse_recoverable(source.text());
        let whole = 0..source.text().len();
        let found = errors.iter().map(|error| {
            let label = error.message().trim_end_matches(", expected nothing");
            let diagnostic =
                Diagnostic::new(error.span().unwrap_or(whole.clone()), "this is not valid TOML").label(label);
            if label.starts_with("invalid float") || label.starts_with("invalid integer") || label.contains("quoted") {
                diagnostic.help("a text stands in quotes: \"1.2.3\"")
            } else {
                diagnostic
            }
        });
        if let Some(diagnostics) = Diagnostics::of(source, found.collect()) {
            return Err(diagnostics);
        }
        let problems = RefCell::default();
        let (name, path) = ("the file".to_owned(), String::new());
        let mut root = Table::new(source, &problems, document.get_ref(), 0..0, name, path);
        let value = root.read_all(read);
        match (Diagnostics::of(source, problems.take()), value) {
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Diagnostics::one(source, Diagnostic::new(0..0, "the file lacks what it is for"))),
            (Some(diagnostics), _) => Err(diagnostics),
        }
    }

    fn new(
        source: &'s Source,
        problems: &'s RefCell<Vec<Diagnostic>>,
        entries: &'s DeTable<'s>,
        span: Range<usize>,
        name: String,
        path: String,
    ) -> Self {
        let (asked, missing) = (Vec::new(), Vec::new());
        Self { source, problems, entries, span, name, path, examples: &[], asked, missing }
    }

    /// The table's header, or the braces of an inline table.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The line of the table's header.
    pub fn line(&self) -> Line {
        self.source.line(self.span.start)
    }

    /// Where a key's value stands; the table's header if the key is absent.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.entries.get(key).map_or(self.span(), Spanned::span)
    }

    /// Whether the key is there, with whatever value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the key is there with an empty list.
    pub fn is_empty_list(&self, key: &str) -> bool {
        self.entries.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|array| array.is_empty())
    }

    /// Notes that a key is missing, unless an unknown key turns out to be the same, misspelled.
    pub fn push_missing(&mut self, key: &str, diagnostic: Diagnostic) {
        self.get(key);
        self.missing.push((key.to_owned(), diagnostic));
    }

    /// Takes a key as known without reading it, where an error about it was noted already.
    pub fn know(&mut self, key: &str) {
        self.get(key);
    }

    /// Gives values as examples, in TOML, for errors about the keys: `&[("name", "\"gmail-send\"")]`.
    pub fn examples(&mut self, examples: &'static [(&'static str, &'static str)]) {
        self.examples = examples;
    }

    /// Notes an error.
    pub fn push(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push(diagnostic);
    }

    /// A text.
    pub fn string(&mut self, key: &str) -> Option<String> {
        self.demand(key);
        self.opt_string(key)
    }

    /// A text that may be absent.
    pub fn opt_string(&mut self, key: &str) -> Option<String> {
        self.text(key).map(|text| text.value.to_owned())
    }

    /// A text of a type that knows its own rule.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<T> {
        self.demand(key);
        self.opt_parsed(key)
    }

    /// A text of a type that knows its own rule; may be absent.
    pub fn opt_parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<T> {
        self.opt_parsed_by(key, T::from_str)
    }

    /// A text that a function understands; may be absent. The function's error stands beside the value.
    pub fn opt_parsed_by<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(text.value).map_err(|error| self.invalid(key, text.span, &error)).ok()
    }

    /// One of some words; may be absent.
    pub fn opt_word<T: Clone>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(value.clone());
        }
        let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let list = if words.len() == 1 { format!("it can only be {list}") } else { format!("it is one of {list}") };
        let diagnostic = Diagnostic::new(text.span, format!("`{key}` can't be {:?}", text.value));
        self.push(match did_you_mean(text.value, words.iter().map(|(word, _)| *word)) {
            Some(word) => diagnostic.label(format!("did you mean \"{word}\"?")).help(list),
            None => diagnostic.label(list),
        });
        None
    }

    /// A list of texts; may be absent. The same text twice is an error.
    pub fn opt_strings(&mut self, key: &str) -> Option<Vec<Located<String>>> {
        self.opt_list_by(key, |text| Ok::<_, std::convert::Infallible>(text.to_owned()))
    }

    /// A list of texts of a type that knows its own rule; may be absent. The same text twice is an error.
    pub fn opt_list<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<Vec<Located<T>>> {
        self.opt_list_by(key, T::from_str)
    }

    /// A list of texts that a function understands; may be absent. The same text twice is an error.
    pub fn opt_list_by<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<Located<T>>> {
        let array = self.array(key)?;
        let mut seen: HashMap<&str, Range<usize>> = HashMap::new();
        let mut list = Vec::with_capacity(array.len());
        for item in array {
            let span = item.span();
            let Some(text) = item.get_ref().as_str() else {
                self.wrong_type(&format!("each item of `{key}`"), "a text in quotes", item, key);
                continue;
            };
            if let Some(first) = seen.insert(text, span.clone()) {
                let diagnostic = Diagnostic::new(span, format!("{text:?} is twice in `{key}`"));
                self.push(diagnostic.label("again").related(first, "first here").help("remove one of the two"));
                continue;
            }
            match parse(text) {
                Ok(value) => list.push(Located { value, span }),
                Err(error) => self.invalid(key, span, &error),
            }
        }
        Some(list)
    }

    /// A list of texts in their order, where one may stand again; may be absent.
    pub fn opt_texts(&mut self, key: &str) -> Option<Vec<String>> {
        let array = self.array(key)?;
        let mut list = Vec::with_capacity(array.len());
        for item in array {
            match item.get_ref().as_str() {
                Some(text) => list.push(text.to_owned()),
                None => self.wrong_type(&format!("each item of `{key}`"), "a text in quotes", item, key),
            }
        }
        (list.len() == array.len()).then_some(list)
    }

    /// A truth value; may be absent.
    pub fn opt_bool(&mut self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        value.get_ref().as_bool().or_else(|| self.mismatch(key, "`true` or `false`", value))
    }

    /// A whole number of this range; may be absent.
    pub fn opt_integer(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            return self.mismatch(key, "a whole number", value);
        };
        let number =
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let rule = format!("it is a whole number from {} to {}", range.start(), range.end());
            self.push(Diagnostic::new(value.span(), format!("`{key}` is out of range")).label(rule));
        }
        number
    }

    /// A duration such as `"20s"`; may be absent.
    pub fn opt_duration(&mut self, key: &str) -> Option<Duration> {
        self.opt_parsed_by(key, parse_duration)
    }

    /// A size such as `"32MiB"`, in bytes; may be absent.
    pub fn opt_bytes(&mut self, key: &str) -> Option<u64> {
        self.opt_parsed_by(key, parse_bytes)
    }

    /// A date such as `2027-06-30`, without time; may be absent.
    pub fn opt_date(&mut self, key: &str) -> Option<Date> {
        let value = self.get(key)?;
        let date = value.get_ref().as_datetime().filter(|datetime| datetime.time.is_none()).and_then(|datetime| {
            let date = datetime.date?;
            let (month, day) = (i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?);
            Date::new(i16::try_from(date.year).ok()?, month, day).ok()
        });
        date.or_else(|| self.mismatch(key, "a date without quotes and time, as in 2027-06-30", value))
    }

    /// A table.
    pub fn table<T>(&mut self, key: &str, read: impl FnOnce(&mut Table<'s>) -> Option<T>) -> Option<T> {
        self.demand(key);
        self.opt_table(key, read)
    }

    /// A table that may be absent.
    pub fn opt_table<T>(&mut self, key: &str, read: impl FnOnce(&mut Table<'s>) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return self.inner(key, ["[", "]"], table, value.span()).read_all(read);
        }
        self.mismatch(key, &format!("a table that stands once: [{}]", self.path_of(key)), value)
    }

    /// A list of tables, `[[key]]` or inline; none if the key is absent.
    pub fn tables<T>(&mut self, key: &str, mut read: impl FnMut(&mut Table<'s>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let header = format!("a list of tables: begin each with [[{}]]", self.path_of(key));
        let Some(array) = value.get_ref().as_array() else {
            self.mismatch::<()>(key, &header, value);
            return Vec::new();
        };
        let mut list = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::Table(table) => {
                    list.extend(self.inner(key, ["[[", "]]"], table, item.span()).read_all(&mut read));
                }
                _ => self.wrong_type(&format!("each item of `{key}`"), "a table", item, key),
            }
        }
        list
    }

    /// The tables in a table, each under a name that the author chose: `[key.NAME]`. In order of the file.
    pub fn named_tables<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(Located<String>, &mut Table<'s>) -> Option<T>,
    ) -> Vec<T> {
        let mut list = Vec::new();
        for (name, value) in self.entries_of(key) {
            let path = format!("{key}.{}", name.value);
            match value.get_ref() {
                DeValue::Table(table) => {
                    let mut inner = self.inner(&path, ["[", "]"], table, value.span());
                    list.extend(inner.read_all(|table| read(name, table)));
                }
                _ => self.wrong_type(&format!("`{path}`"), "a table", value, key),
            }
        }
        list
    }

    /// A table of texts, each under a name that the author chose. In order of the file.
    pub fn named_strings(&mut self, key: &str) -> Vec<(Located<String>, Located<String>)> {
        let mut list = Vec::new();
        for (name, value) in self.entries_of(key) {
            match value.get_ref().as_str() {
                Some(text) => list.push((name, Located { value: text.to_owned(), span: value.span() })),
                None => self.wrong_type(&format!("`{key}.{}`", name.value), "a text in quotes", value, key),
            }
        }
        list
    }

    fn entries_of(&mut self, key: &str) -> Vec<(Located<String>, &'s Spanned<DeValue<'s>>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.mismatch::<()>(key, "a table", value);
            return Vec::new();
        };
        let name =
            |key: &Spanned<_>| Located { value: AsRef::<str>::as_ref(key.get_ref()).to_owned(), span: key.span() };
        let mut entries: Vec<_> = table.iter().map(|(key, value)| (name(key), value)).collect();
        entries.sort_by_key(|(name, _)| name.span.start);
        entries
    }

    fn inner(&self, key: &str, brackets: [&str; 2], table: &'s DeTable<'s>, span: Range<usize>) -> Self {
        let path = self.path_of(key);
        let inline = self.source.text().get(span.clone()).is_some_and(|text| text.starts_with('{'));
        let [open, close] = brackets;
        let name = if inline { format!("`{path}`") } else { format!("{open}{path}{close}") };
        Self::new(self.source, self.problems, table, span, name, path)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Lets `read` ask for what it knows; then every other key is an error.
    fn read_all<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let value = read(self);
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if self.asked.iter().any(|asked| asked == name) {
                continue;
            }
            let known = || self.asked.iter().map(String::as_str);
            // A key that is not there yet is more likely meant than one that is.
            let near =
                did_you_mean(name, known().filter(|asked| !self.has(asked))).or_else(|| did_you_mean(name, known()));
            let label = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{} has no such key", self.name),
            };
            if let Some(near) = near.map(str::to_owned) {
                self.missing.retain(|(key, _)| *key != near);
            }
            let known = self.asked.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let diagnostic = Diagnostic::new(key.span(), format!("unknown key `{name}`")).label(label);
            self.push(diagnostic.help(format!("{} knows {known}", self.name)));
        }
        let missing = std::mem::take(&mut self.missing);
        self.problems.borrow_mut().extend(missing.into_iter().map(|(_, diagnostic)| diagnostic));
        value
    }

    fn get(&mut self, key: &str) -> Option<&'s Spanned<DeValue<'s>>> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        self.entries.get(key)
    }

    fn text(&mut self, key: &str) -> Option<Located<&'s str>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Located { value: text, span: value.span() }),
            None => self.mismatch(key, "a text in quotes", value),
        }
    }

    fn array(&mut self, key: &str) -> Option<&'s DeArray<'s>> {
        let value = self.get(key)?;
        value.get_ref().as_array().or_else(|| self.mismatch(key, "a list in brackets", value))
    }

    fn demand(&mut self, key: &str) {
        if self.get(key).is_none() {
            let diagnostic = Diagnostic::new(self.span(), format!("`{key}` is missing"));
            let diagnostic = diagnostic.label(format!("{} needs it", self.name));
            self.push_missing(key, self.with_example(diagnostic, key));
        }
    }

    fn mismatch<T>(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        self.wrong_type(&format!("`{key}`"), expected, value, key);
        None
    }

    fn wrong_type(&self, what: &str, expected: &str, value: &Spanned<DeValue<'_>>, key: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "this is a text",
            DeValue::Integer(_) => "this is a whole number",
            DeValue::Float(_) => "this is a number with a fraction",
            DeValue::Boolean(_) => "this is a truth value",
            DeValue::Datetime(_) => "this is a date or time",
            DeValue::Array(_) => "this is a list",
            DeValue::Table(_) => "this is a table",
        };
        let diagnostic = Diagnostic::new(value.span(), format!("{what} must be {expected}")).label(found);
        self.push(self.with_example(diagnostic, key));
    }

    fn invalid(&self, key: &str, span: Range<usize>, error: &dyn fmt::Display) {
        self.push(Diagnostic::new(span, format!("`{key}` has a value that can't be used")).label(error.to_string()));
    }

    fn with_example(&self, diagnostic: Diagnostic, key: &str) -> Diagnostic {
        match self.examples.iter().find(|(known, _)| *known == key) {
            Some((_, value)) => diagnostic.help(format!("for example: {key} = {value}")),
            None => diagnostic,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::SkillName;

    fn errors<T>(text: &str, read: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Vec<String> {
        match Table::read(&Source::new("f.toml", text), read) {
            Ok(_) => Vec::new(),
            Err(diagnostics) => diagnostics.iter().map(|(line, error)| format!("{line} {}", error.message())).collect(),
        }
    }

    #[test]
    fn all_errors_of_a_file_come_at_once_in_order_of_the_file() {
        let text = "nam = 1\nsize = 7\n[[part]]\nlist = [\"a\", 1, \"a\"]\nuse = \"injekt\"\n[[part]]\nflag = 1\ndate = 2027-01-01T00:00:00Z\n";
        let found = errors(text, |root| {
            root.examples(&[("name", "\"x\"")]);
            let name = root.parsed::<SkillName>("name");
            let _size = root.opt_bytes("size");
            let parts = root.tables("part", |part| {
                let list = part.opt_strings("list");
                let _use = part.opt_word("use", &[("inject", 1)]);
                let _flag = part.opt_bool("flag");
                let _date = part.opt_date("date");
                list
            });
            name.map(|name| (name, parts))
        });
        assert_eq!(
            found,
            [
                "f.toml:1 unknown key `nam`",
                "f.toml:2 `size` must be a text in quotes",
                "f.toml:4 each item of `list` must be a text in quotes",
                "f.toml:4 \"a\" is twice in `list`",
                "f.toml:5 `use` can't be \"injekt\"",
                "f.toml:7 `flag` must be `true` or `false`",
                "f.toml:8 `date` must be a date without quotes and time, as in 2027-06-30",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_an_error_with_its_place() {
        assert_eq!(
            errors("a = \n[b\n", |_| Some(())),
            ["f.toml:1 this is not valid TOML", "f.toml:2 this is not valid TOML"]
        );
        assert_eq!(errors("a = 1\na = 2\n", |_| Some(())), ["f.toml:2 this is not valid TOML"]);
    }

    #[test]
    fn right_values_are_read() {
        let text =
            "n = 0x10\nt = \"1m\"\nd = 2027-06-30\n[tool.send]\ntitle = \"Send\"\n[extra]\nb = \"1\"\na = \"2\"\n";
        let read = Table::read(&Source::new("f.toml", text), |root| {
            let numbers = (root.opt_integer("n", 0..=20), root.opt_duration("t"), root.opt_date("d"));
            let tools = root.named_tables("tool", |name, tool| Some((name.value, tool.string("title")?)));
            let extra = root.named_strings("extra");
            Some((numbers, tools, extra.into_iter().map(|(key, value)| key.value + &value.value).collect::<Vec<_>>()))
        });
        let date = jiff::civil::date(2027, 6, 30);
        let numbers = (Some(16), Some(Duration::from_mins(1)), Some(date));
        let tools = vec![("send".to_owned(), "Send".to_owned())];
        assert_eq!(read.unwrap(), (numbers, tools, vec!["b1".to_owned(), "a2".to_owned()]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a-z]{1,2} ?= ?|\\[{1,2}[a-z.]{1,4}\\]{1,2}|\"[^\"]{0,3}\"|[0-9_.:T-]{1,8}|[{},\n#'\"\\\\é]){0,24}") {
            let _ = errors(&text, |root| {
                let _ = (root.string("a"), root.opt_integer("b", 0..=9), root.opt_strings("c"), root.opt_date("d"));
                let _ = root.tables("e", |table| table.opt_bool("a"));
                let _ = root.named_tables("f", |_, table| table.opt_bytes("a"));
                root.table("g", |table| table.opt_duration("a"))
            });
        }
    }
}
