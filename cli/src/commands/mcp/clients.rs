//! The agents whose configuration is known: where their file is, and how a server stands in it.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};
use url::Url;

use crate::settings::Folders;

/// In which variable of its environment an agent finds the token, where it calls over HTTP.
pub(super) const VARIABLE: &str = "CLAWCOIL_TOKEN";

/// An agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Agent {
    /// OpenClaw
    Openclaw,
    /// The Claude desktop app
    Claude,
    /// Claude Code, for all projects
    ClaudeCode,
    /// Visual Studio Code
    Vscode,
    /// Cursor, for all projects
    Cursor,
}

/// How the agent reaches the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// It starts this program.
    Command { program: String, arguments: Vec<String> },
    /// It calls a server.
    Http(Url),
}

impl Agent {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Openclaw => "OpenClaw",
            Self::Claude => "Claude",
            Self::ClaudeCode => "Claude Code",
            Self::Vscode => "Visual Studio Code",
            Self::Cursor => "Cursor",
        }
    }

    /// Its file. `None`: where that is can't be found out.
    pub(super) fn file(self, folders: &Folders) -> Option<PathBuf> {
        let home = |path: &str| folders.home.as_ref().map(|home| home.join(path));
        let application = |path: &str| {
            if cfg!(target_os = "macos") {
                home("Library/Application Support").map(|folder| folder.join(path))
            } else {
                folders.config.as_ref().map(|config| config.join(path))
            }
        };
        match self {
            Self::Openclaw => folders.openclaw.clone().or_else(|| home(".openclaw/openclaw.json")),
            Self::Claude => application("Claude/claude_desktop_config.json"),
            Self::ClaudeCode => home(".claude.json"),
            Self::Vscode => application("Code/User/mcp.json"),
            Self::Cursor => home(".cursor/mcp.json"),
        }
    }

    /// Under which keys its servers stand.
    pub(super) const fn place(self) -> &'static [&'static str] {
        match self {
            Self::Openclaw => &["mcp", "servers"],
            Self::Claude | Self::ClaudeCode | Self::Cursor => &["mcpServers"],
            Self::Vscode => &["servers"],
        }
    }

    /// How a server stands there. A token never does: the agent takes it from its environment, or asks. `None`: the agent
    /// can't reach a server so.
    pub(super) fn entry(self, reach: &Reach) -> Option<Value> {
        let mut entry = match reach {
            Reach::Command { program, arguments } => json!({ "command": program, "args": arguments }),
            Reach::Http(url) => {
                let token = match self {
                    Self::Openclaw | Self::ClaudeCode => format!("${{{VARIABLE}}}"),
                    Self::Cursor => format!("${{env:{VARIABLE}}}"),
                    Self::Vscode => format!("${{input:{}}}", Self::INPUT),
                    Self::Claude => return None,
                };
                json!({ "url": url, "headers": { "Authorization": format!("Bearer {token}") } })
            }
        };
        let kind = match (self, reach) {
            (Self::ClaudeCode | Self::Vscode, Reach::Command { .. }) => Some(("type", "stdio")),
            (Self::ClaudeCode | Self::Vscode, Reach::Http(_)) => Some(("type", "http")),
            (Self::Openclaw, Reach::Http(_)) => Some(("transport", "streamable-http")),
            (Self::Openclaw | Self::Claude | Self::Cursor, _) => None,
        };
        if let (Some((key, value)), Some(entry)) = (kind, entry.as_object_mut()) {
            entry.insert(key.to_owned(), json!(value));
        }
        // A person who connects an account takes longer than the minute that it waits by itself.
        if let (Self::Openclaw, Some(entry)) = (self, entry.as_object_mut()) {
            entry.insert("requestTimeoutMs".to_owned(), json!(600_000));
        }
        Some(entry)
    }

    /// The name under which Visual Studio Code asks for the token.
    pub(super) const INPUT: &str = "clawcoil-token";

    /// What else its file needs: an item of the list under this key, told from others by its `id`.
    pub(super) fn input(self, reach: &Reach) -> Option<Value> {
        match (self, reach) {
            (Self::Vscode, Reach::Http(_)) => Some(json!({
                "type": "promptString", "id": Self::INPUT, "description": "ClawCoil token", "password": true,
            })),
            _ => None,
        }
    }
}
