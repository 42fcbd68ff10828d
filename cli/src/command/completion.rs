//! `completion`: scripts for the shells, made from the command line's own description.

use clap::CommandFactory as _;

use super::Session;
use crate::args::Cli;
use crate::error::CliError;

/// For which shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  keyward completion bash > ~/.local/share/bash-completion/completions/keyward")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Writes the script to standard output.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(session: &mut Session, arguments: &Arguments) -> Result<(), CliError> {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyward", &mut script);
    session.output.text(&String::from_utf8_lossy(&script))
}
