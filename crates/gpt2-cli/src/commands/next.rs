//! `gpt2 next`: the most likely next tokens.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use gpt2::predict::{Candidate, next_tokens};
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::Format;
use super::score::special_tokens;
use super::token::{Named, Origin, quoted};
use crate::arguments::{Options, positive};
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::prompt::TextArguments;
use crate::terminal::{DIM, Terminal, bar};
use crate::wrap::{columns, fit};

/// Show the most likely next tokens.
///
/// Probabilities are the model's own, before temperature and filters. An empty prompt stands for the beginning-of-text
/// token.
#[derive(clap::Args, Debug)]
#[command(mut_arg("text", |text| text.value_name("PROMPT|-")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    prompt: TextArguments,
    /// Number of tokens to show
    #[arg(short = 'k', long, value_name = "K", default_value_t = 10, value_parser = positive)]
    #[arg(allow_negative_numbers = true)]
    top_k: usize,
    #[command(flatten)]
    format: Format,
}

/// The candidates after a prompt.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    prompt: &'a str,
    candidates: Vec<Named<'a, &'a Candidate>>,
    settings: Settings,
    #[serde(flatten)]
    origin: Origin<'a>,
}

/// What the candidates depend on beside prompt and model, under the names of the flags.
#[derive(Serialize)]
struct Settings {
    top_k: usize,
    special_tokens: &'static str,
}

/// Ranks the next tokens and shows them.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let prompt = arguments.prompt.read_prompt(terminal)?;
    let loaded = ModelFiles::find(options, terminal)?.load(options, terminal)?;
    let mut ids = loaded.tokenizer.encode(&prompt, arguments.prompt.special())?;
    if ids.is_empty() {
        ids.extend(loaded.model.config().bos_token_id);
    }
    let candidates = next_tokens(&loaded.model, &ids, arguments.top_k)?;
    let tokenizer = &loaded.tokenizer;
    if arguments.format.json {
        let named = candidates.iter().map(|candidate| Named::new(candidate.id, candidate, tokenizer));
        let record = Record {
            model: &loaded.name,
            prompt: &prompt,
            candidates: named.collect(),
            settings: Settings { top_k: arguments.top_k, special_tokens: special_tokens(&arguments.prompt) },
            origin: Origin::of(&loaded),
        };
        return Ok(terminal.output.json(&record)?);
    }
    show(&candidates, tokenizer, terminal)
}

fn show(candidates: &[Candidate], tokenizer: &Tokenizer, terminal: &mut Terminal) -> Result<(), Failure> {
    const WIDTH: usize = 32;
    /// All columns but those of the token and the bar.
    const OTHERS: usize = 27;
    let out = &mut terminal.output;
    let dim = out.style(DIM);
    let green = out.style(Style::new().fg_color(Some(AnsiColor::Green.into())));
    let tokens: Vec<String> = candidates.iter().map(|candidate| quoted(candidate.id, tokenizer)).collect();
    let token_width = tokens.iter().map(|token| columns(token)).max().unwrap_or(0);
    let token_width =
        token_width.min(out.width().map_or(usize::MAX, |width| width.saturating_sub(OTHERS)).max(8));
    let width = WIDTH.min(out.width().unwrap_or(80).saturating_sub(OTHERS + token_width));
    let most = candidates.first().map_or(0.0, |candidate| f64::from(candidate.probability));
    for (rank, (candidate, token)) in candidates.iter().zip(&tokens).enumerate() {
        let Candidate { id, probability, .. } = *candidate;
        let percent = 100.0 * probability;
        let token = fit(token, token_width);
        write!(out, "{dim}{:>4}{dim:#}  {token}  {percent:>6.2} %  {dim}{id:>6}{dim:#}", rank + 1)?;
        if out.is_terminal() {
            // The likeliest fills the width: what counts is how the others compare with it.
            write!(out, "  {green}{}{green:#}", bar(f64::from(probability) / most, width))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
