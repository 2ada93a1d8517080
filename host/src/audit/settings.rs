//! What an operator says about the log: `audit.toml`.
//!
//! ```toml
//! strict = true                          # an entry is durable before its token is released
//! checkpoint-every = 100                 # entries; also when a process ends
//! checkpoints = ["/mnt/witness/agent"]   # folders that keep the checkpoints besides
//!
//! [[sink]]                               # who else gets each entry, before its token is released
//! folder = "/mnt/copy/agent"             # the same files there, checkpoints as well
//!
//! [[sink]]
//! socket = "/run/collector.sock"         # a Unix stream socket: a line for each entry
//!
//! [[sink]]
//! command = ["logger", "--tag", "clawcoil"]   # a program's standard input: a line for each entry
//! ```
//!
//! What it means that a sink has an entry: a folder, that it is in its file, and with `strict` on its disk; a program, that it has
//! read the line, whatever it does with it; a socket, that the line is in the socket's buffer in the kernel, which holds some
//! hundreds of entries. A collector that reads no more is noticed when that is full, one that has gone at the next entry, and what
//! it had not read by then is not sent again. The entries' numbers tell it what it missed, and the log's own file has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, Source, Table};

use super::sink::Sink;

/// How many entries there are at the most between two checkpoints, where nothing else is said.
const EVERY: u64 = 100;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An entry is durable before its token is released. Without this it has been handed to the operating system, and is
    /// durable within a second.
    pub strict: bool,
    /// After so many entries comes a checkpoint.
    pub checkpoint_every: u64,
    /// Folders that keep the checkpoints, besides the log's own.
    pub checkpoints: Vec<PathBuf>,
    /// Who else gets each entry. A token is released only when all of them have it; what that means is said with each
    /// [`Destination`].
    pub sinks: Vec<Destination>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { strict: false, checkpoint_every: EVERY, checkpoints: Vec::new(), sinks: Vec::new() }
    }
}

/// Who else gets the entries.
#[derive(Clone)]
pub enum Destination {
    /// A folder that has the same files, which [`verify`](super::verify()) checks as it does the log's own. It has what is in
    /// the file, and in strict mode on its disk.
    Folder(PathBuf),
    /// A Unix stream socket, which gets a line for each entry. It has what is in its buffer in the kernel; whether the other side
    /// has read that is not known.
    Socket(PathBuf),
    /// A program with its arguments, whose standard input gets a line for each entry. It has what it has read.
    Command(Vec<String>),
    /// A sink of the embedding program, under a name for messages.
    Sink(String, Arc<dyn Sink>),
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Destination {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Folder(path) => format!("folder {}", path.display()),
            Self::Socket(path) => format!("socket {}", path.display()),
            Self::Command(words) => format!("command {}", words.first().map_or("", String::as_str)),
            Self::Sink(name, _) => name.clone(),
        }
    }
}

impl Settings {
    /// Reads `audit.toml`.
    ///
    /// # Errors
    ///
    /// All that is wrong with it at once.
    pub fn parse(source: &Source) -> Result<Self, Diagnostics> {
        Table::read(source, |root| {
            root.examples(&[("checkpoints", "[\"/mnt/witness/agent\"]")]);
            let strict = root.opt_bool("strict");
            let every = root.opt_integer("checkpoint-every", 1..=1_000_000);
            let checkpoints = root.opt_list_by("checkpoints", absolute);
            let sinks = root.tables("sink", destination);
            Some(Self {
                strict: strict.unwrap_or_default(),
                checkpoint_every: every.and_then(|every| u64::try_from(every).ok()).unwrap_or(EVERY),
                checkpoints: checkpoints.unwrap_or_default().into_iter().map(|path| path.value).collect(),
                sinks,
            })
        })
    }

    /// The folders besides the log's own that keep checkpoints.
    pub fn witnesses(&self) -> Vec<PathBuf> {
        let folders = self.sinks.iter().filter_map(|sink| match sink {
            Destination::Folder(path) => Some(path.clone()),
            Destination::Socket(_) | Destination::Command(_) | Destination::Sink(..) => None,
        });
        self.checkpoints.iter().cloned().chain(folders).collect()
    }
}

fn destination(table: &mut Table<'_>) -> Option<Destination> {
    table.examples(&[
        ("folder", "\"/mnt/copy/agent\""),
        ("socket", "\"/run/collector.sock\""),
        ("command", "[\"logger\", \"--tag\", \"clawcoil\"]"),
    ]);
    let said = ["folder", "socket", "command"].iter().filter(|key| table.has(key)).count();
    let folder = table.opt_parsed_by("folder", absolute).map(Destination::Folder);
    let socket = table.opt_parsed_by("socket", absolute).map(Destination::Socket);
    let command = words(table).map(Destination::Command);
    if said != 1 {
        let diagnostic = Diagnostic::new(table.span(), "a sink is one of `folder`, `socket` and `command`");
        let label = if said == 0 { "none of them is here" } else { "write a [[sink]] for each" };
        table.push(diagnostic.label(label));
        return None;
    }
    folder.or(socket).or(command)
}

/// A program and its arguments; an argument may come twice.
fn words(table: &mut Table<'_>) -> Option<Vec<String>> {
    let words = table.opt_texts("command")?;
    let Some(program) = words.first() else {
        table.push(Diagnostic::new(table.span_of("command"), "`command` is empty").label("name a program"));
        return None;
    };
    if !Path::new(program).is_absolute() && program.contains('/') {
        let diagnostic = Diagnostic::new(table.span_of("command"), "the program is named by a relative path");
        table.push(
            diagnostic
                .label("where it is found would depend on the folder one stands in")
                .help("write its whole path, or its bare name to have it looked up in PATH"),
        );
        return None;
    }
    Some(words)
}

fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("this has to be an absolute path, as in \"/mnt/copy/agent\"") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(&Source::new("audit.toml", text)).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_not_said_has_the_default() {
        let settings = parse("").unwrap();
        assert!(!settings.strict && settings.sinks.is_empty() && settings.witnesses().is_empty());
        assert_eq!(settings.checkpoint_every, EVERY);
    }

    #[test]
    fn all_that_can_be_said_is_read() {
        let settings = parse(
            "strict = true\ncheckpoint-every = 7\ncheckpoints = [\"/w\"]\n[[sink]]\nfolder = \"/c\"\n\
             [[sink]]\nsocket = \"/s\"\n[[sink]]\ncommand = [\"logger\", \"-v\", \"-v\"]\n",
        )
        .unwrap();
        assert!(settings.strict);
        assert_eq!(settings.checkpoint_every, 7);
        assert_eq!(settings.witnesses(), [PathBuf::from("/w"), PathBuf::from("/c")]);
        assert_eq!(format!("{:?}", settings.sinks), "[folder /c, socket /s, command logger]");
    }

    #[test]
    fn each_mistake_is_told_with_its_way_out() {
        for (text, told) in [
            ("strickt = true", "did you mean `strict`?"),
            ("checkpoint-every = 0", "from 1 to 1000000"),
            ("checkpoints = [\"w\"]", "absolute path"),
            ("[[sink]]\n", "a sink is one of `folder`, `socket` and `command`"),
            ("[[sink]]\nfolder = \"/a\"\nsocket = \"/b\"\n", "write a [[sink]] for each"),
            ("[[sink]]\nfolder = \"a\"\n", "absolute path"),
            ("[[sink]]\ncommand = []\n", "name a program"),
            ("[[sink]]\ncommand = [\"./x\"]\n", "its whole path"),
            ("[[sink]]\ncommand = \"logger\"\n", "a list"),
            ("[[sink]]\nsyslog = true\n", "syslog"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.contains(told), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in "([a-z\\[\\]=\"/ \n.-]|sink|folder|command|strict){0,60}") {
            let _ = parse(&text);
        }
    }
}
