//! `snow-ort completions` and `snow-ort man`: what a shell and a reader need, from the arguments' own definitions.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::{complain, say};

/// Arguments of `snow-ort completions`.
#[derive(Debug, Args)]
#[command(after_help = "For example:
  snow-ort completions bash > ~/.local/share/bash-completion/completions/snow-ort
  snow-ort completions zsh > ~/.zfunc/_snow-ort        # with ~/.zfunc in fpath
  snow-ort completions fish > ~/.config/fish/completions/snow-ort.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Arguments of `snow-ort man`.
#[derive(Debug, Args)]
#[command(after_help = "For example:
  snow-ort man | man -l -
  snow-ort man --out ~/.local/share/man/man1           # then: man snow-ort-run")]
pub(super) struct ManArgs {
    /// Write the pages of all commands to this folder instead: snow-ort.1, snow-ort-run.1, …
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints a completion script.
pub(super) fn completions(args: &CompletionsArgs) {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

/// Prints the program's page, or writes all pages.
pub(super) fn man(args: &ManArgs) -> Result<()> {
    let Some(dir) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .context("cannot write the page")?;
        say(String::from_utf8_lossy(&page).trim_end());
        return Ok(());
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write pages to {}", dir.display()))?;
    complain(&format!("pages are in {}", dir.display()));
    Ok(())
}
