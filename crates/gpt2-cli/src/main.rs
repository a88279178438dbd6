//! The `gpt2` command: arguments in, text out.
//!
//! ```text
//! arguments ─► commands::run ─► model (which one, load it) ─► the library ─► terminal (render it)
//! ```
//! This crate alone reads the environment, prints, and decides exit codes; what a model does is the library's.

mod arguments;
mod commands;
mod cores;
mod device;
mod failure;
mod memory;
mod model;
mod prompt;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help that cannot be printed, because its reader is gone, is no failure.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    terminal::end_cleanly_on_interrupt();
    let mut terminal = Terminal::new(arguments.options.volume());
    let result = commands::run(&arguments, &mut terminal).and_then(|()| Ok(terminal.output.finish()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
