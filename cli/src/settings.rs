//! What the command was told by its arguments and its environment. The only place that reads the environment.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use clawcoil::broker::Broker;
use clawcoil::connect::Connector;

use crate::logging::Format;

/// The arguments that every command takes.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// The folder of the agent: its identity, vault, skills, permissions and audit log
    ///
    /// Default: `$XDG_DATA_HOME/clawcoil`, or `~/.local/share/clawcoil`.
    #[arg(long, global = true, value_name = "FOLDER", env = "CLAWCOIL_HOME", help_heading = "Everywhere")]
    home: Option<PathBuf>,

    /// Print one JSON document instead of text
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,

    /// Show what happens inside, on stderr; `RUST_LOG` chooses more finely
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    verbose: u8,

    /// How that is written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        env = "CLAWCOIL_LOG_FORMAT",
        hide_default_value = true,
        help_heading = "Everywhere"
    )]
    log_format: Format,
}

/// What holds for one run of the command.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says something else, and any of them can be with any other")]
pub(crate) struct Settings {
    /// The folder of the agent; `None`: neither said nor to be found out.
    pub(crate) home: Option<PathBuf>,
    /// One JSON document on stdout.
    pub(crate) json: bool,
    /// Colours where a terminal is.
    pub(crate) color: bool,
    /// A person sits at stdin and stderr: questions can be asked.
    pub(crate) interactive: bool,
    /// What to log, as `tracing` filters have it; `None`: nothing.
    pub(crate) log: Option<String>,
    /// How lines of the log are written.
    pub(crate) log_format: Format,
    /// What looks like a secret is not taken out of the log: to see whether anything of it gets there.
    pub(crate) log_unredacted: bool,
    /// Where traces go (OTLP over HTTP), as OpenTelemetry's own variable names it.
    pub(crate) collector: Option<String>,
    /// A browser can be opened: there is a desktop.
    pub(crate) desktop: bool,
    /// What may still be fetching or ending tokens when the command is done or interrupted.
    pub(crate) under_way: Arc<Mutex<Vec<(Broker, Connector)>>>,
    /// Where other programs keep their settings.
    pub(crate) folders: Folders,
}

/// Where other programs of the person keep their settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folders {
    pub(crate) home: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    /// OpenClaw's file, where its own variable names one.
    pub(crate) openclaw: Option<PathBuf>,
}

impl SettingsArgs {
    /// Joins the arguments with the environment; an argument wins.
    pub(crate) fn resolve(self) -> Settings {
        let json = self.json;
        let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
        let log = match self.verbose {
            0 => variable("RUST_LOG"),
            1 => Some("clawcoil=info,clawcoil_cli=info".to_owned()),
            2 => Some("clawcoil=debug,clawcoil_cli=debug".to_owned()),
            _ => Some("trace".to_owned()),
        };
        let folders = Folders {
            home: folder("HOME"),
            config: folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config"))),
            openclaw: folder("OPENCLAW_CONFIG_PATH"),
        };
        Settings {
            folders,
            under_way: Arc::default(),
            home: self.home.or_else(|| Some(data?.join("clawcoil"))),
            json,
            // https://no-color.org
            color: variable("NO_COLOR").is_none(),
            interactive: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            log,
            log_format: self.log_format,
            log_unredacted: variable("CLAWCOIL_DANGEROUS_UNREDACTED_LOG").is_some(),
            collector: variable("OTEL_EXPORTER_OTLP_ENDPOINT"),
            desktop: cfg!(target_os = "macos")
                || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| variable(name).is_some()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one module that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
