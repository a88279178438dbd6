//! `gpt2 score`: how likely a text is.

use std::io::Write;

use gpt2::config::Config;
use gpt2::score::{Score, TokenScore, score, score_strided};
use serde::Serialize;

use super::Format;
use super::divergence::{self, Comparison};
use super::next::text;
use crate::arguments::{Dtype, Options, positive};
use crate::failure::Failure;
use crate::model::{Loaded, ModelFiles};
use crate::prompt::{TextArguments, read_file};
use crate::terminal::{DIM, Terminal, Unit, thousands};

/// Texts of more tokens are summed up for people; JSON has every token.
const LONGEST_TABLE: usize = 256;

/// The heading of what goes with `--reference-dtype`.
const COMPARISON: &str = "Comparison of number formats";

/// Show how likely a text is, token by token, and its perplexity.
///
/// Log-probabilities are natural logarithms. The first token has none, because nothing comes before it; `--bos` scores
/// it as well. The table is left out for texts of more than 256 tokens.
///
/// With `--reference-dtype` it shows instead what `--dtype` costs: the model is loaded in both formats, and their
/// predictions of every next token are compared by the mean Kullback-Leibler divergence in nats, which is 0 if they are
/// the same.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    /// Score a text of any length in windows of the model's context that begin every N tokens
    ///
    /// A smaller stride gives every token more context and takes longer; half the context is usual.
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    stride: Option<usize>,
    /// Put the beginning-of-text token before the text, so that the first token is scored too
    #[arg(long)]
    bos: bool,
    /// Show how far `--dtype` is from the same model in this format, usually `f32`
    ///
    /// The reference caches keys and values in the default format for its weights, whatever `--kv-dtype` says.
    #[arg(long, value_enum, value_name = "DTYPE", conflicts_with_all = ["stride", "bos"])]
    #[arg(help_heading = COMPARISON)]
    reference_dtype: Option<Dtype>,
    /// Compare in windows of N tokens that do not overlap [default: the model's context]
    ///
    /// Every position of a window counts but its last.
    #[arg(long, value_name = "N", value_parser = at_least_two, allow_negative_numbers = true)]
    #[arg(requires = "reference_dtype", help_heading = COMPARISON)]
    window: Option<usize>,
    /// Compare only the first N tokens of the text [default: all]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_two, allow_negative_numbers = true)]
    #[arg(requires = "reference_dtype", help_heading = COMPARISON)]
    limit: Option<usize>,
    #[command(flatten)]
    format: Format,
}

/// A scored text.
#[derive(Serialize)]
struct Record {
    tokens: Vec<TokenRecord>,
    total_logprob: f64,
    perplexity: Option<f64>,
    tokens_scored: usize,
}

#[derive(Serialize)]
struct TokenRecord {
    id: u32,
    token: String,
    logprob: Option<f32>,
    rank: Option<usize>,
}

/// Scores the text and shows the result.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let text_to_score = match arguments.text.file() {
        Some(path) => read_file(path)?,
        None => arguments.text.read()?,
    };
    if let Some(reference) = arguments.reference_dtype {
        let &Arguments { ref text, window, limit, .. } = arguments;
        let comparison = Comparison { text, reference, window, limit };
        return divergence::run(&text_to_score, &comparison, arguments.format, options, terminal);
    }
    let files = ModelFiles::find(options, terminal)?;
    let config = files.config()?;
    check_stride(arguments.stride, &config)?;
    let loaded = files.load(options, terminal)?;
    let mut ids = loaded.tokenizer.encode(&text_to_score, arguments.text.special())?;
    if arguments.bos {
        let bos =
            config.bos_token_id.ok_or_else(|| Failure::new("the model has no beginning-of-text token"))?;
        ids.insert(0, bos);
    }
    let skipped = usize::from(arguments.bos);
    if ids.len() == skipped {
        return Err(Failure::new("the text is empty: there is nothing to score"));
    }
    let mut scored = score_ids(&loaded, &ids, arguments.stride, terminal)?;
    scored.tokens.drain(..skipped);
    if arguments.format.json {
        let record = record(&loaded, &scored)?;
        return Ok(terminal.output.json(&record)?);
    }
    show(&loaded, &scored, terminal)
}

/// Parses a number of tokens among which there is one to predict.
fn at_least_two(text: &str) -> Result<usize, String> {
    positive(text).ok().filter(|n| *n >= 2).ok_or_else(|| "expected a whole number from 2".to_owned())
}

fn check_stride(stride: Option<usize>, config: &Config) -> Result<(), Failure> {
    match stride {
        Some(stride) if stride > config.n_positions => Err(Failure::usage(format!(
            "`--stride {stride}` leaves gaps between windows of the model's context of {}",
            config.n_positions
        ))),
        _ => Ok(()),
    }
}

fn score_ids(
    loaded: &Loaded,
    ids: &[u32],
    stride: Option<usize>,
    terminal: &Terminal,
) -> Result<Score, Failure> {
    let context = loaded.model.config().n_positions;
    match stride {
        Some(stride) => {
            let mut progress = terminal.progress("scoring", Unit::Tokens);
            Ok(score_strided(&loaded.model, ids, stride, &mut |done| {
                progress.update(done as u64, Some(ids.len() as u64))
            })?)
        }
        None if ids.len() > context => Err(Failure::too_long(ids.len(), context)
            .hint(format!("`--stride {}` scores it in overlapping windows", context.div_ceil(2)))),
        None => Ok(score(&loaded.model, ids)?),
    }
}

fn record(loaded: &Loaded, score: &Score) -> Result<Record, Failure> {
    let token = |&TokenScore { id, logprob, rank }: &TokenScore| {
        Ok(TokenRecord { id, token: text(&loaded.tokenizer, id)?, logprob, rank })
    };
    Ok(Record {
        tokens: score.tokens.iter().map(token).collect::<Result<_, Failure>>()?,
        total_logprob: score.total_logprob(),
        perplexity: score.perplexity(),
        tokens_scored: score.tokens_scored(),
    })
}

fn show(loaded: &Loaded, score: &Score, terminal: &mut Terminal) -> Result<(), Failure> {
    let out = &mut terminal.output;
    let dim = out.style(DIM);
    if score.tokens.len() <= LONGEST_TABLE {
        writeln!(out, "{dim}{:>9}  {:>6}  token{dim:#}", "logprob", "rank")?;
        for token in &score.tokens {
            let text = text(&loaded.tokenizer, token.id)?;
            match (token.logprob, token.rank) {
                (Some(logprob), Some(rank)) => writeln!(out, "{logprob:>9.4}  {rank:>6}  {text:?}")?,
                _ => writeln!(out, "{dim}{:>9}  {:>6}{dim:#}  {text:?}", "–", "–")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "tokens scored  {}", thousands(score.tokens_scored()))?;
    writeln!(out, "total logprob  {:.4}", score.total_logprob())?;
    match score.perplexity() {
        Some(perplexity) => writeln!(out, "perplexity     {perplexity:.4}")?,
        None => writeln!(out, "perplexity     – {dim}a single token is scored with `--bos` only{dim:#}")?,
    }
    Ok(())
}
