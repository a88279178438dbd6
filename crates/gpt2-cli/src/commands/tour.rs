//! `gpt2 tour`: what this program does, one cell after the other, shown by the commands themselves.
//!
//! ```text
//! cell = a heading, a sentence or two, then for each command: the line to type, and what it prints
//! ```
//! A line that is shown is parsed and run as if it had been typed, so the tour cannot show what the commands do not do.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::{FromArgMatches, ValueEnum};

use crate::arguments::{self, Dtype, Options};
use crate::failure::Failure;
use crate::help;
use crate::model::ModelFiles;
use crate::terminal::{DIM, Terminal};
use crate::typed::quoted;

/// Prompt of the tour when none is given.
const PROMPT: &str = "Once upon a time, in a land far away,";
/// Text that is split into tokens when no prompt is given.
const SENTENCE: &str = "Natural language processing helps computers understand text.";
/// Seed of every text that is sampled, so that a line typed again gives the text that was shown.
const SEED: &str = "42";

/// Show what GPT-2 is and does, step by step, on your own prompt.
///
/// Each step shows the command that does it, and runs it: tokens, the next token, text, four ways to choose
/// tokens side by side, the architecture, and where the parameters are.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The prompt to show everything with
    #[arg(value_name = "PROMPT", default_value = PROMPT, hide_default_value = true)]
    prompt: String,
    /// Go on from step to step without waiting for Enter
    #[arg(long)]
    no_pause: bool,
}

/// One step of the tour.
struct Cell {
    title: &'static str,
    text: &'static str,
    commands: Vec<Vec<String>>,
}

/// Runs the tour.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    // Found once, so that every step runs the same model, and each line names it.
    let name = ModelFiles::find(options, terminal)?.name;
    let options = Options { model: Some(name), ..options.clone() };
    let cells = cells(&arguments.prompt);
    let pauses = !arguments.no_pause && terminal.output.is_terminal() && io::stdin().is_terminal();
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            writeln!(terminal.output)?;
            if pauses && !goes_on(terminal)? {
                break;
            }
        }
        show(cell, index + 1, cells.len(), &options, terminal)?;
    }
    Ok(())
}

/// The steps, in the order in which GPT-2 is best understood.
fn cells(prompt: &str) -> Vec<Cell> {
    let sentence = if prompt == PROMPT { SENTENCE } else { prompt };
    let on_prompt = |flags: &str| command("generate", prompt, flags);
    vec![
        Cell {
            title: "Models",
            text: "GPT-2 was published in four sizes; distilgpt2 is a smaller model trained to
imitate gpt2. The number formats f32 to int8 and int4 trade accuracy for memory.",
            commands: vec![command("models", "", "")],
        },
        Cell {
            title: "Tokens",
            text: "GPT-2 reads tokens, which are words or pieces of words. A token at the beginning
of a word usually includes the space before it.",
            commands: vec![command("tokenize", sentence, "")],
        },
        Cell {
            title: "The next token",
            text: "The model does one thing: it gives each token of its vocabulary a probability of
coming next.",
            commands: vec![command("next", prompt, "--top-k 5 --verbose")],
        },
        Cell {
            title: "Text",
            text: "To write, choose a token by these probabilities, append it, and repeat. With a
seed, the same command gives the same text on every machine.",
            commands: vec![on_prompt(&format!(
                "--max-length 60 --temperature 0.7 --top-k 50 --top-p 0.95 --seed {SEED} --verbose"
            ))],
        },
        Cell {
            title: "Four ways to choose a token",
            text: "Greedy takes the most likely token every time and soon repeats itself. Sampling
draws from all tokens, even very unlikely ones. Top-k draws from the k most
likely tokens, top-p from the fewest that together have probability p.",
            commands: [
                "--greedy".to_owned(),
                format!("--temperature 1 --top-k 0 --top-p 1 --seed {SEED}"),
                format!("--temperature 1 --top-k 50 --top-p 1 --seed {SEED}"),
                format!("--temperature 1 --top-k 0 --top-p 0.92 --seed {SEED}"),
            ]
            .map(|flags| on_prompt(&format!("--max-new-tokens 30 {flags}")))
            .into(),
        },
        Cell {
            title: "Architecture and parameters",
            text: "The modules as PyTorch prints them, and the number of parameters in each part.",
            commands: vec![command("inspect", "", "")],
        },
        Cell {
            title: "How likely is a text?",
            text: "The log-probability of each token given those before it. A perplexity of 20
means that the model was as unsure as if it had chosen among 20 equally likely
tokens.",
            commands: vec![command("score", sentence, "")],
        },
    ]
}

/// The words of a command line: a command's name, its text and its flags.
fn command(name: &str, text: &str, flags: &str) -> Vec<String> {
    let mut words = vec![name.to_owned()];
    let flags = flags.split_whitespace().map(str::to_owned);
    match text {
        _ if ["models", "inspect"].contains(&name) => words.extend(flags),
        // What begins with a dash would be read as a flag.
        text if text.starts_with('-') => words.extend(flags.chain(["--".to_owned(), text.to_owned()])),
        text => words.extend(std::iter::once(text.to_owned()).chain(flags)),
    }
    words
}

/// Shows a step and runs its commands.
fn show(
    cell: &Cell,
    number: usize,
    count: usize,
    options: &Options,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let bold = terminal.output.style(Style::new().bold());
    let dim = terminal.output.style(DIM);
    let green = terminal.output.style(Style::new().fg_color(Some(AnsiColor::Green.into())));
    writeln!(terminal.output, "{bold}{}{bold:#} {dim}· {number} of {count}{dim:#}", cell.title)?;
    terminal.output.prose(cell.text, Style::new())?;
    terminal.output.end_prose()?;
    for words in &cell.commands {
        writeln!(terminal.output)?;
        write!(terminal.output, "{green}$ ")?;
        terminal.output.text(&typed(words, options), green)?;
        writeln!(terminal.output, "{green:#}")?;
        terminal.output.flush()?;
        let mut arguments = parsed(words).map_err(|error| Failure::usage(error.to_string()))?;
        let verbose = arguments.options.verbose || options.verbose;
        arguments.options = Options { verbose, ..options.clone() };
        let volume = terminal.set_volume(arguments.options.volume());
        super::run(&arguments, terminal)?;
        terminal.set_volume(volume);
        terminal.output.flush()?;
    }
    Ok(())
}

/// The arguments of a command.
fn parsed(words: &[String]) -> Result<arguments::Arguments, clap::Error> {
    arguments::Arguments::from_arg_matches(&help::command().try_get_matches_from(line(words))?)
}

/// Waits for Enter; says whether to go on.
fn goes_on(terminal: &mut Terminal) -> Result<bool, Failure> {
    let dim = terminal.output.style(DIM);
    write!(terminal.output, "{dim}Press Enter to continue or q to quit: {dim:#}")?;
    terminal.output.flush()?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    let read = read.map_err(|error| Failure::caused("cannot read standard input".to_owned(), error))?;
    writeln!(terminal.output)?;
    Ok(read > 0 && !answer.trim().eq_ignore_ascii_case("q"))
}

/// The words as clap takes them.
fn line(words: &[String]) -> impl Iterator<Item = &str> {
    std::iter::once("gpt2").chain(words.iter().map(String::as_str))
}

/// The line to type for a command: with the model, and what else of the options changes what it prints.
fn typed(words: &[String], options: &Options) -> String {
    let mut typed: Vec<String> = line(words).map(quoted).collect();
    if words[0] == "models" {
        return typed.join(" ");
    }
    let format = options.dtype.to_possible_value();
    let dtype = format.filter(|_| options.dtype != Dtype::F32).map(|value| value.get_name().to_owned());
    let kv_dtype =
        options.kv_dtype.and_then(|format| Some(format.to_possible_value()?.get_name().to_owned()));
    for (flag, value) in [
        ("-m", options.model.clone()),
        ("--revision", options.revision.clone()),
        ("--dtype", dtype),
        ("--kv-dtype", kv_dtype),
    ] {
        typed.extend(value.map(|value| format!("{flag} {}", quoted(&value))));
    }
    typed.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tour_is_a_command() {
        for prompt in [PROMPT, "", "-5 degrees", "--", "it's $5!"] {
            for words in cells(prompt).iter().flat_map(|cell| &cell.commands) {
                let parsed = parsed(words);
                assert!(parsed.is_ok(), "{prompt:?}: {words:?}");
            }
        }
    }
}
