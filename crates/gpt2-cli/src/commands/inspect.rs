//! `gpt2 inspect`: what a model consists of.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use gpt2::inspect::{Inspection, inspect};

use super::Format;
use crate::arguments::Options;
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::terminal::{DIM, Terminal, bar, bytes, thousands};

/// Show a model's modules and where its parameters are.
///
/// The modules are drawn as PyTorch prints them. All is read from the configuration and the headers of the files alone: as quick for the largest model as
/// for the smallest.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
}

/// Inspects the model and shows what it found.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let files = ModelFiles::find(options, terminal)?;
    let inspection = inspect(&files.name, &files.config()?, &files.checkpoint()?)?;
    if arguments.format.json {
        return Ok(terminal.output.json(&inspection)?);
    }
    show(&inspection, terminal)
}

fn show(inspection: &Inspection, terminal: &mut Terminal) -> Result<(), Failure> {
    const WIDTH: usize = 40;
    let out = &mut terminal.output;
    let dim = out.style(DIM);
    let blue = out.style(Style::new().fg_color(Some(AnsiColor::Blue.into())));
    let bold = out.style(Style::new().bold());
    writeln!(out, "{}\n", inspection.architecture)?;
    for component in &inspection.components {
        let count = thousands(component.parameters);
        write!(out, "{:12} {count:>15} {:>6.2} %", component.name, 100.0 * component.share)?;
        if out.is_terminal() {
            write!(out, "  {blue}{}{blue:#}", bar(component.share, WIDTH))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{bold}{:12} {:>15}{bold:#}", "total", thousands(inspection.total_parameters))?;
    if let Some(untied) = inspection.total_if_untied {
        writeln!(
            out,
            "{dim}The head is `wte` again and not counted twice; that would make {}.{dim:#}",
            thousands(untied)
        )?;
    }
    let mut types: Vec<String> = inspection.tensors.iter().map(|tensor| tensor.dtype.to_string()).collect();
    types.sort();
    types.dedup();
    writeln!(
        out,
        "{dim}{} tensors, {} of {} on disk{dim:#}",
        inspection.tensors.len(),
        bytes(inspection.tensor_bytes),
        types.join(" and ")
    )?;
    Ok(())
}
