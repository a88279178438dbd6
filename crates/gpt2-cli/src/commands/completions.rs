//! `gpt2 completions`: help for a shell.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments as CommandLine;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Print a script that completes this command's arguments in a shell.
///
/// For bash, for instance: `source <(gpt2 completions bash)`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "gpt2", &mut script);
    Ok(terminal.output.write_all(&script)?)
}
