//! The commands, one file each: its arguments and what it does with them.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod detokenize;
pub(crate) mod divergence;
pub(crate) mod download;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod models;
pub(crate) mod next;
pub(crate) mod score;
pub(crate) mod token;
pub(crate) mod tokenize;
pub(crate) mod tour;

use clap::Args;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Runs the command that the arguments name.
pub(crate) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<(), Failure> {
    let options = &arguments.options;
    match &arguments.command {
        Command::Generate(arguments) => generate::run(arguments, options, terminal),
        Command::Next(arguments) => next::run(arguments, options, terminal),
        Command::Score(arguments) => score::run(arguments, options, terminal),
        Command::Tokenize(arguments) => tokenize::run(arguments, options, terminal),
        Command::Detokenize(arguments) => detokenize::run(arguments, options, terminal),
        Command::Inspect(arguments) => inspect::run(arguments, options, terminal),
        Command::Tour(arguments) => tour::run(arguments, options, terminal),
        Command::Bench(arguments) => bench::run(arguments, options, terminal),
        Command::Download(arguments) => download::run(arguments, options, terminal),
        Command::Models(arguments) => models::run(arguments, options, terminal),
        Command::Completions(arguments) => completions::run(arguments, terminal),
    }
}

/// The choice between output for people and for programs.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print results as JSON Lines
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}
