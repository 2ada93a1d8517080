//! `clawcoil mcp install`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clawcoil::id::{ClientName, UserId};
use serde_json::{Value, json};
use url::Url;

use super::CLIENT;
use super::clients::{Agent, Reach, VARIABLE};
use super::entry::{self, Edited};
use crate::commands::{address, agent};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::settings::Settings;

/// Tell an agent of this host's skills
///
/// Its configuration gets one entry; everything else in the file stays as it is, and a copy of the file is kept beside it. No
/// token is ever written: over HTTP the agent takes it from its environment (`CLAWCOIL_TOKEN`), or asks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil mcp install openclaw --user alice
  clawcoil mcp install claude-code --user alice --print
  clawcoil mcp install vscode --url https://skills.example.com/mcp")]
pub(super) struct Install {
    /// The agent
    #[arg(value_enum)]
    agent: Agent,

    /// For whom its tools act
    #[arg(long, required_unless_present = "url")]
    user: Option<UserId>,

    /// As which program the permissions know it; default: mcp
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    client: Option<ClientName>,

    /// The address of a running server, instead of a program that the agent starts
    #[arg(long, value_name = "URL", value_parser = address, conflicts_with = "user")]
    url: Option<Url>,

    /// What the agent calls it
    #[arg(long, value_name = "NAME", default_value = "clawcoil", value_parser = server_name)]
    name: String,

    /// Another file than the agent's usual one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Show what would be written, and write nothing
    #[arg(long)]
    print: bool,

    /// Write without asking
    #[arg(long)]
    yes: bool,
}

impl Install {
    pub(super) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let agent = self.agent;
        let reach = self.reach(settings)?;
        let entry = agent.entry(&reach).ok_or_else(|| {
            Failure::usage(format!("{} starts its servers by itself: leave out --url, and name --user", agent.name()))
        })?;
        let input = agent.input(&reach);
        let whole = snippet(agent.place(), &self.name, &entry, input.as_ref());
        let file = self.file.clone().or_else(|| agent.file(&settings.folders));
        let shown = file.as_ref().map(|file| file.display().to_string());
        let object =
            |written: bool| json!({ "agent": agent.name(), "file": shown, "entry": entry, "written": written });
        if self.print {
            return output.answer(object(false), || format!("{whole:#}"));
        }
        let file = file.ok_or_else(|| {
            Failure::usage(format!(
                "where {} keeps its configuration can't be found out: say it with --file",
                agent.name()
            ))
        })?;
        let before = read(&file)?;
        let edited = entry::set(&before, agent.place(), &self.name, &entry, input.as_ref()).map_err(|error| {
            let by_hand = format!("put this there by hand, or mend the file:\n{whole:#}");
            Failure::error(format!("{} can't be edited, so it was left alone: {error}; {by_hand}", file.display()))
        })?;
        if edited.text == before {
            return output.answer(object(false), || format!("{} has this entry already.", file.display()));
        }
        self.show(&file, &edited, &entry, output);
        if !self.yes && !output.confirm(&format!("Write this to {}?", file.display()), "--yes").await? {
            return Err(Failure::new(Code::Cancelled, "nothing was written"));
        }
        write(&file, &before, &edited)?;
        output.answer(object(true), || self.next(&file, &reach))
    }

    fn reach(&self, settings: &Settings) -> Result<Reach, Failure> {
        if let Some(url) = &self.url {
            let path = if url.path() == "/" { "/mcp" } else { url.path() };
            let mut url = url.clone();
            url.set_path(path);
            return Ok(Reach::Http(url));
        }
        let user = self.user.as_ref().ok_or_else(|| Failure::usage("say for whom, with --user"))?;
        let home = agent::existing_home(settings)?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::error(format!("where this program is can't be found out: {error}")))?;
        // An agent starts it in its own surroundings, where nothing says which home is meant.
        let home = fs::canonicalize(home.folder()).unwrap_or_else(|_| home.folder().to_owned());
        let mut arguments =
            vec!["mcp".to_owned(), "--user".to_owned(), user.to_string(), "--home".to_owned(), text(&home)?];
        if let Some(client) = self.client.as_ref().filter(|client| client.as_str() != CLIENT) {
            arguments.extend(["--client".to_owned(), client.to_string()]);
        }
        Ok(Reach::Command { program: text(&program)?, arguments })
    }

    fn show(&self, file: &Path, edited: &Edited, entry: &Value, output: &Output) {
        let place = self.agent.place().join(".");
        output.note(format_args!("{}, under {place}:", file.display()));
        for line in edited.before.iter().flat_map(|before| before.lines()) {
            output.note(format_args!("  - {}", crate::output::printable(line.trim_end())));
        }
        for line in format!("\"{}\": {entry:#}", self.name).lines() {
            output.note(format_args!("  + {line}"));
        }
    }

    fn next(&self, file: &Path, reach: &Reach) -> String {
        let written = format!("Written to {}. Start {} anew, and it has the tools", file.display(), self.agent.name());
        match (reach, self.agent) {
            (Reach::Command { .. }, _) => format!("{written} of every skill that is granted to it."),
            (Reach::Http(_), Agent::Vscode) => format!("{written}; it asks for the token of `clawcoil token create`."),
            (Reach::Http(_), _) => {
                format!("{written}, once {VARIABLE} in its environment is a token of `clawcoil token create`.")
            }
        }
    }
}

/// What agents put before the names of tools.
fn server_name(text: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=14).contains(&text.len()) && text.bytes().all(fine) {
        Ok(text.to_owned())
    } else {
        // With a tool's name it must fit into 64 characters.
        Err("letters, digits, - and _, at most 14".to_owned())
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::error(format!("{} can't be written in a configuration: it is not UTF-8", path.display()))
    })
}

/// What a person would put into the file by hand.
fn snippet(place: &[&str], name: &str, entry: &Value, input: Option<&Value>) -> Value {
    let server = json!({ name: entry });
    let mut whole = place.iter().rev().fold(server, |inner, key| json!({ *key: inner }));
    if let (Some(input), Some(whole)) = (input, whole.as_object_mut()) {
        whole.insert("inputs".to_owned(), json!([input]));
    }
    whole
}

/// The file's text; nothing, where there is no file yet.
fn read(file: &Path) -> Result<String, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::error(format!("{} can't be read: {error}", file.display()))),
    }
}

fn write(file: &Path, before: &str, edited: &Edited) -> Result<(), Failure> {
    let failed =
        |path: &Path, error: &io::Error| Failure::error(format!("{} can't be written: {error}", path.display()));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    if !before.is_empty() {
        let mut copy = file.as_os_str().to_owned();
        copy.push(".before-clawcoil");
        let copy = PathBuf::from(copy);
        fs::copy(file, &copy).map_err(|error| failed(&copy, &error))?;
    }
    agent::replace_file(file, &edited.text)
}
