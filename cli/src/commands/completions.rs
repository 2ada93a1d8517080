//! `clawcoil completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::exit::Failure;

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
    #[expect(clippy::unnecessary_wraps, reason = "all commands have one form")]
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut command = super::Cli::command();
        clap_complete::generate(self.shell, &mut command, "clawcoil", &mut std::io::stdout());
        Ok(())
    }
}
