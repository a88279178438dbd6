//! `gpt2 next`: the most likely next tokens.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use console::Term;
use gpt2::predict::{Candidate, next_tokens};
use gpt2::tokenizer::{SpecialText, Tokenizer};
use serde::Serialize;

use super::Format;
use crate::arguments::{Options, positive};
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::prompt::TextArguments;
use crate::terminal::{DIM, Terminal, bar};

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
    prompt: &'a str,
    candidates: Vec<CandidateRecord>,
}

#[derive(Serialize)]
struct CandidateRecord {
    id: u32,
    token: String,
    probability: f32,
    logprob: f32,
}

/// Ranks the next tokens and shows them.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let prompt = arguments.prompt.read()?;
    let loaded = ModelFiles::find(options, terminal)?.load(options, terminal)?;
    let mut ids = loaded.tokenizer.encode(&prompt, arguments.prompt.special())?;
    if ids.is_empty() {
        ids.extend(loaded.model.config().bos_token_id);
    }
    let candidates = next_tokens(&loaded.model, &ids, arguments.top_k)?;
    let tokenizer = &loaded.tokenizer;
    if arguments.format.json {
        let candidates = candidates
            .into_iter()
            .map(|Candidate { id, probability, logprob }| {
                Ok(CandidateRecord { id, token: text(tokenizer, id)?, probability, logprob })
            })
            .collect::<Result<_, Failure>>()?;
        return Ok(terminal.output.json(&Record { prompt: &prompt, candidates })?);
    }
    show(&candidates, tokenizer, terminal)
}

/// The text of one token; what is not whole characters becomes U+FFFD.
pub(crate) fn text(tokenizer: &Tokenizer, id: u32) -> Result<String, Failure> {
    Ok(tokenizer.decode(&[id], SpecialText::Keep)?)
}

fn show(candidates: &[Candidate], tokenizer: &Tokenizer, terminal: &mut Terminal) -> Result<(), Failure> {
    const WIDTH: usize = 32;
    /// All columns but those of the token and the bar.
    const OTHERS: usize = 27;
    let out = &mut terminal.output;
    let dim = out.style(DIM);
    let green = out.style(Style::new().fg_color(Some(AnsiColor::Green.into())));
    let tokens = candidates
        .iter()
        .map(|candidate| Ok(format!("{:?}", text(tokenizer, candidate.id)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let columns = tokens.iter().map(|token| token.chars().count()).max().unwrap_or(0);
    let width = WIDTH.min(usize::from(Term::stdout().size().1).saturating_sub(OTHERS + columns));
    let most = candidates.first().map_or(0.0, |candidate| f64::from(candidate.probability));
    for (rank, (candidate, token)) in candidates.iter().zip(&tokens).enumerate() {
        let Candidate { id, probability, .. } = *candidate;
        let percent = 100.0 * probability;
        write!(out, "{dim}{:>4}{dim:#}  {token:columns$}  {percent:>6.2} %  {dim}{id:>6}{dim:#}", rank + 1)?;
        if out.is_terminal() {
            // The likeliest fills the width: what counts is how the others compare with it.
            write!(out, "  {green}{}{green:#}", bar(f64::from(probability) / most, width))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
