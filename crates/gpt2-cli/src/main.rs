//! The `gpt2` command: arguments in, text out.
//!
//! ```text
//! typed ─► arguments ─► commands::run ─► model (which one, load it) ─► the library ─► terminal (render it)
//! ```
//! This crate alone reads the environment, prints, and decides exit codes; what a model does is the library's.

mod advice;
mod arguments;
mod commands;
mod contact;
mod cores;
mod device;
mod failure;
mod help;
mod interrupt;
mod memory;
mod model;
mod progress;
mod prompt;
mod remembered;
mod suggestion;
mod terminal;
mod typed;
mod wrap;

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, FromArgMatches};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::terminal::Terminal;

fn main() -> ExitCode {
    commands::completions::answer();
    let Line { arguments, variables } = match read() {
        Ok(line) => line,
        Err(error) => {
            // Help that cannot be printed, because its reader is gone, is no failure.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    interrupt::end_cleanly_on_interrupt();
    let mut terminal = Terminal::new(arguments.options.volume());
    let result = commands::run(&arguments, &mut terminal).and_then(|()| Ok(terminal.finish()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => with_variables(failure, &variables).report(),
    }
}

/// What was asked for.
struct Line {
    arguments: Arguments,
    /// The flags that environment variables stand for, with the names of these.
    variables: Vec<(String, String)>,
}

/// Reads the command line and the environment.
fn read() -> Result<Line, clap::Error> {
    let command = help::command();
    let typed = typed::translated(&command, std::env::args_os());
    // Before anything is printed, errors of the command line among it.
    let color = terminal::decide_color(typed.value("color").as_deref());
    let mut parser = command.clone().color(color);
    let matches = parser
        .try_get_matches_from_mut(&typed.line)
        .map_err(|error| advice::improved(error, &command, &typed))?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    // A flag overrides a variable that says the opposite.
    arguments.options.quiet &= typed("quiet") || !typed("verbose");
    let is_set = |option: &&Arg| {
        option.is_global_set()
            && matches.value_source(option.get_id().as_str()) == Some(ValueSource::EnvVariable)
    };
    let names = |option: &Arg| {
        Some((format!("--{}", option.get_long()?), option.get_env()?.to_string_lossy().into_owned()))
    };
    let variables = command.get_arguments().filter(is_set).filter_map(names).collect();
    Ok(Line { arguments, variables })
}

/// Says of the flags that a failure names which of them nobody typed.
fn with_variables(failure: Failure, variables: &[(String, String)]) -> Failure {
    let named = variables.iter().filter(|(flag, _)| failure.names(flag)).collect::<Vec<_>>();
    named.into_iter().fold(failure, |failure, (flag, variable)| {
        failure.hint(format!("`{flag}` is set by the environment variable `{variable}`"))
    })
}
