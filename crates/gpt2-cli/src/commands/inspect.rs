//! `gpt2 inspect`: what a model consists of.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use gpt2::config::Config;
use gpt2::inspect::{
    self, Component, Inspection, Source, Versions, architecture_in, components, inspect_headers,
    inspect_published,
};

use super::Format;
use crate::arguments::Options;
use crate::failure::Failure;
use crate::model::{ModelFiles, Shapes};
use crate::terminal::{DIM, Output, Terminal, bar, bytes, thousands};

/// Show a model's modules and where its parameters are.
///
/// The modules are drawn as `print(model)` shows them in Python. The parameters are counted from the configuration
/// and the headers of the files: of a model that is not downloaded, a few kilobytes are fetched. Where the hub cannot
/// be asked, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl` and `distilgpt2` are shown as they were published.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How to group the parameters
    #[arg(long, value_enum, default_value_t = By::Component)]
    by: By,
    /// Draw the modules as this version of PyTorch does, such as 2.6 [default: the newest]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    torch: Option<(u32, u32)>,
    /// Draw the modules as this version of transformers does, such as 4.50 [default: the newest]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    transformers: Option<(u32, u32)>,
    #[command(flatten)]
    format: Format,
}

/// Groups of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Blocks, embeddings and the final layer norm, sorted by name
    Component,
    /// Blocks in their order, with the parts of each
    Block,
    /// Embeddings, attention, MLP and layer norms
    Kind,
}

fn version(text: &str) -> Result<(u32, u32), String> {
    Versions::parse(text).ok_or_else(|| "expected a version such as `2.6`".to_owned())
}

/// Inspects the model and shows what it found.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let (config, found) = match ModelFiles::find_shapes(options, terminal)? {
        Shapes::Files(files) => {
            files.say_remarks(terminal);
            let config = files.config()?;
            let found = inspect::inspect(&files.name, &config, &files.checkpoint()?)?;
            (config, found)
        }
        Shapes::Remote(name, remote) => {
            remote.headers.remarks().iter().for_each(|remark| terminal.note(&remark.to_string()));
            let config = Config::from_json(&remote.config)
                .map_err(|error| Failure::caused(format!("cannot use `config.json` of `{name}`"), error))?;
            let found = inspect_headers(&name, &config, &remote.headers)?;
            (config, found)
        }
        Shapes::Published(name, model) => {
            let config = model.config();
            let found = inspect_published(&name, &config, model.file_bytes);
            (config, found)
        }
    };
    let newest = Versions::default();
    let versions = Versions {
        torch: arguments.torch.unwrap_or(newest.torch),
        transformers: arguments.transformers.unwrap_or(newest.transformers),
    };
    let by = match arguments.by {
        By::Component => inspect::By::Component,
        By::Block => inspect::By::Block,
        By::Kind => inspect::By::Kind,
    };
    let inspection = Inspection {
        architecture: architecture_in(&config, versions),
        components: components(&config, by),
        ..found
    };
    let out = &mut terminal.output;
    if arguments.format.json {
        return Ok(out.json(&inspection)?);
    }
    show_architecture(&inspection.architecture, out)?;
    writeln!(out)?;
    match arguments.by {
        By::Component => show_components(&inspection, out)?,
        By::Block => show_blocks(&inspection, out)?,
        By::Kind => show_kinds(&inspection, out)?,
    }
    Ok(())
}

/// Draws the module tree: `(name): Class(arguments)` on each line.
fn show_architecture(tree: &str, out: &mut Output) -> io::Result<()> {
    let cyan = out.style(Style::new().fg_color(Some(AnsiColor::Cyan.into())));
    let dim = out.style(DIM);
    for line in tree.lines() {
        let indent = line.len() - line.trim_start().len();
        let (spaces, rest) = line.split_at(indent);
        let (name, class) = rest.split_once(": ").map_or(("", rest), |(name, class)| (name, class));
        let (class, arguments) = class.split_at(class.find('(').unwrap_or(class.len()));
        let colon = if name.is_empty() { "" } else { ": " };
        writeln!(out, "{spaces}{cyan}{name}{cyan:#}{colon}{class}{dim}{arguments}{dim:#}")?;
    }
    Ok(())
}

/// Shows the parameters as the notebook prints them; on a terminal with shares and bars behind them.
fn show_components(inspection: &Inspection, out: &mut Output) -> io::Result<()> {
    const BAR: usize = 14;
    let dim = out.style(DIM);
    let blue = out.style(Style::new().fg_color(Some(AnsiColor::Blue.into())));
    let bold = out.style(Style::new().bold());
    let green = out.style(Style::new().fg_color(Some(AnsiColor::Green.into())));
    let largest = inspection.components.iter().map(|component| component.share).fold(0.0, f64::max);
    for Component { name, parameters, share, .. } in &inspection.components {
        let (module, description) = name.split_at(name.find(" (").unwrap_or(name.len()));
        let width = 40_usize.saturating_sub(module.chars().count());
        write!(out, "  {module}{dim}{description:<width$}{dim:#}: {:>12}", thousands(parameters))?;
        if out.is_terminal() {
            write!(out, " {dim}{:>5.2}%{dim:#} {blue}{}{blue:#}", 100.0 * share, bar(share / largest, BAR))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{dim}{}{dim:#}", "-".repeat(60))?;
    let total = thousands(inspection.total_parameters);
    writeln!(out, "{bold}Total Trainable Parameters          : {total:>12}{bold:#}")?;
    match inspection.source {
        Source::Published => writeln!(out, "(Total count as published: no file was read)")?,
        _ if inspection.verified => writeln!(out, "{green}(Total count verified){green:#}")?,
        _ => writeln!(out, "({})", difference(inspection))?,
    }
    if out.is_terminal() {
        show_remarks(inspection, out)?;
    }
    Ok(())
}

/// Says why the count of the files is not that of the modules.
fn difference(inspection: &Inspection) -> String {
    let count = inspection.not_counted.iter().map(|tensor| tensor.parameters).sum::<u64>();
    let names: Vec<&str> = inspection.not_counted.iter().map(|tensor| tensor.name.as_str()).collect();
    let tied = inspection.total_if_untied.is_some() && names == ["lm_head.weight"];
    let reason = if tied { ", which is tied to wte" } else { "" };
    format!("The files hold {} more, not counted: {}{reason}", thousands(count), names.join(", "))
}

/// Shows what each block consists of.
fn show_blocks(inspection: &Inspection, out: &mut Output) -> io::Result<()> {
    let dim = out.style(DIM);
    let bold = out.style(Style::new().bold());
    let mut parts: Vec<&str> = Vec::new();
    for part in inspection.components.iter().flat_map(|component| &component.parts) {
        if !parts.contains(&part.name.as_str()) {
            parts.push(&part.name);
        }
    }
    let sum = |part: &str| {
        let all = inspection.components.iter().flat_map(|component| &component.parts);
        all.filter(|found| found.name == part).map(|found| found.parameters).sum::<u64>()
    };
    let columns: Vec<(&str, usize)> =
        parts.iter().map(|part| (*part, thousands(sum(part)).len().max(part.len()))).collect();
    let module = |component: &Component| component.module.clone().unwrap_or_else(|| component.name.clone());
    let names: Vec<String> = inspection.components.iter().map(module).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    write!(out, "{dim}{:width$}", "")?;
    for (part, columns) in &columns {
        write!(out, "  {part:>columns$}")?;
    }
    writeln!(out, "  {:>13}{dim:#}", "total")?;
    for (component, name) in inspection.components.iter().zip(&names) {
        write!(out, "{name:width$}")?;
        for (part, columns) in &columns {
            let found = component.parts.iter().find(|found| found.name == *part);
            let count = found.map(|found| thousands(found.parameters)).unwrap_or_default();
            write!(out, "  {count:>columns$}")?;
        }
        writeln!(out, "  {:>13}", thousands(component.parameters))?;
    }
    write!(out, "{bold}{:width$}", "total")?;
    for (part, columns) in &columns {
        write!(out, "  {:>columns$}", thousands(sum(part)))?;
    }
    writeln!(out, "  {:>13}{bold:#}", thousands(inspection.total_parameters))?;
    show_remarks(inspection, out)
}

/// Shows one row for each kind of parameter.
fn show_kinds(inspection: &Inspection, out: &mut Output) -> io::Result<()> {
    const WIDTH: usize = 40;
    let blue = out.style(Style::new().fg_color(Some(AnsiColor::Blue.into())));
    let bold = out.style(Style::new().bold());
    for component in &inspection.components {
        let count = thousands(component.parameters);
        write!(out, "{:12} {count:>15} {:>6.2} %", component.name, 100.0 * component.share)?;
        if out.is_terminal() {
            write!(out, "  {blue}{}{blue:#}", bar(component.share, WIDTH))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{bold}{:12} {:>15}{bold:#}", "total", thousands(inspection.total_parameters))?;
    show_remarks(inspection, out)
}

/// Shows what else is known of the head and the files.
fn show_remarks(inspection: &Inspection, out: &mut Output) -> io::Result<()> {
    let dim = out.style(DIM);
    if let Some(untied) = inspection.total_if_untied {
        writeln!(
            out,
            "{dim}The head is `wte` again and not counted twice; that would make {}.{dim:#}",
            thousands(untied)
        )?;
    }
    let mut types: Vec<&str> = inspection.tensors.iter().map(|tensor| tensor.dtype).collect();
    types.sort_unstable();
    types.dedup();
    writeln!(
        out,
        "{dim}{} tensors, {} of {} on disk{dim:#}",
        inspection.tensors.len(),
        bytes(inspection.tensor_bytes),
        types.join(" and ")
    )
}
