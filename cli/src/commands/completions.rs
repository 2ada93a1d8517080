//! `clawcoil completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::exit::Failure;
use crate::output;

/// Print a script that completes this command in your shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil completions bash > ~/.local/share/bash-completion/completions/clawcoil
  clawcoil completions fish > ~/.config/fish/completions/clawcoil.fish")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "clawcoil", &mut script);
        output::write(String::from_utf8_lossy(&script).trim_end())
    }
}
