//! `gpt2 score`: how likely a text is.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use gpt2::config::Config;
use gpt2::score::{Score, TokenScore, score, score_strided};
use gpt2::tokenizer::SpecialTokens;
use serde::Serialize;

use super::Format;
use super::divergence::{self, Comparison};
use super::token::{Named, Origin, quoted};
use crate::arguments::{Dtype, Options, positive};
use crate::failure::Failure;
use crate::model::{Loaded, ModelFiles};
use crate::prompt::TextArguments;
use crate::terminal::{DIM, Output, Terminal, Unit, bar, thousands};
use crate::wrap::{columns, fit};

/// Of texts of more tokens there is no table unless it is asked for; JSON has every token.
const LONGEST_TABLE: usize = 256;

/// Ranks that are shown in the same colour: those of GLTR (Gehrmann, Strobelt and Rush, 2019).
const COLOURS: [(usize, AnsiColor, &str); 4] = [
    (10, AnsiColor::Green, "rank to 10"),
    (100, AnsiColor::Yellow, "100"),
    (1000, AnsiColor::Red, "1,000"),
    (usize::MAX, AnsiColor::Magenta, "more"),
];

const TEXT: &str = "\
Text; with `-`, or without any, standard input is read

Several words are joined by spaces. The text is scored to its last byte, whichever way it comes.";

/// The heading of what goes with `--reference-dtype`.
const COMPARISON: &str = "Comparison of number formats";

/// Show how likely a text is, token by token, and its perplexity.
///
/// Log-probabilities are natural logarithms. The first token has none, because nothing comes before it; `--bos` scores
/// it as well. Bits per byte are the information of the scored tokens in bits, divided by their number of bytes. On a
/// terminal the text is coloured by the rank of each token.
///
/// With `--reference-dtype` it shows instead what `--dtype` costs: the model is loaded in both formats, and their
/// predictions of every next token are compared by the mean Kullback-Leibler divergence in nats, which is 0 if they are
/// the same.
#[derive(clap::Args, Debug)]
#[command(mut_arg("text", |text| text.long_help(TEXT)))]
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
    /// Show the table of tokens even for a text of more than 256 tokens
    #[arg(long)]
    table: bool,
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
struct Record<'a> {
    model: &'a str,
    text: &'a str,
    tokens: Vec<Named<'a, &'a TokenScore>>,
    total_logprob: f64,
    perplexity: Option<f64>,
    bits_per_byte: Option<f64>,
    tokens_scored: usize,
    settings: Settings,
    #[serde(flatten)]
    origin: Origin<'a>,
}

/// What a score depends on beside text and model, under the names of the flags.
#[derive(Serialize)]
struct Settings {
    bos: bool,
    stride: Option<usize>,
    special_tokens: &'static str,
}

/// Scores the text and shows the result.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let text_to_score = arguments.text.read_whole()?;
    if text_to_score.ends_with('\n') && arguments.text.is_read() {
        terminal.note("the text ends with a newline, which is scored too");
    }
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
        return Ok(terminal.output.json(&record(&text_to_score, arguments, &loaded, &scored))?);
    }
    if terminal.output.is_coloured() {
        show_coloured(&loaded, &scored, &mut terminal.output)?;
    }
    if arguments.table || scored.tokens.len() <= LONGEST_TABLE {
        show_table(&loaded, &scored, &mut terminal.output)?;
    }
    show_totals(&loaded, &scored, &mut terminal.output)?;
    terminal.output.flush()?;
    if !arguments.table && scored.tokens.len() > LONGEST_TABLE {
        let count = thousands(scored.tokens.len());
        terminal.note(&format!("the table of {count} tokens is left out; `--table` shows it"));
    }
    Ok(())
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

fn record<'a>(text: &'a str, arguments: &Arguments, loaded: &'a Loaded, score: &'a Score) -> Record<'a> {
    let token = |token: &'a TokenScore| Named::new(token.id, token, &loaded.tokenizer);
    Record {
        model: &loaded.name,
        text,
        tokens: score.tokens.iter().map(token).collect(),
        total_logprob: score.total_logprob(),
        perplexity: score.perplexity(),
        bits_per_byte: bits_per_byte(loaded, score),
        tokens_scored: score.tokens_scored(),
        settings: Settings {
            bos: arguments.bos,
            stride: arguments.stride,
            special_tokens: special_tokens(&arguments.text),
        },
        origin: Origin::of(loaded),
    }
}

/// How special tokens in a text are meant, as the flag says it.
pub(crate) fn special_tokens(text: &TextArguments) -> &'static str {
    match text.special() {
        SpecialTokens::Parse => "parse",
        SpecialTokens::AsText => "text",
    }
}

/// The information of the scored tokens in bits, for each of their bytes; `None` if there are none.
fn bits_per_byte(loaded: &Loaded, score: &Score) -> Option<f64> {
    let scored = score.tokens.iter().filter(|token| token.logprob.is_some());
    let bytes: usize =
        scored.map(|token| loaded.tokenizer.token_bytes(token.id).map_or(0, <[u8]>::len)).sum();
    (bytes > 0).then(|| -score.total_logprob() / std::f64::consts::LN_2 / bytes as f64)
}

/// The colour of a rank.
fn colour(rank: usize) -> Style {
    let (_, colour, _) = COLOURS.into_iter().find(|&(most, ..)| rank <= most).unwrap_or(COLOURS[3]);
    Style::new().fg_color(Some(colour.into()))
}

/// Shows the text, each token in the colour of its rank, and what the colours mean.
fn show_coloured(loaded: &Loaded, score: &Score, out: &mut Output) -> Result<(), Failure> {
    // Characters that several tokens make have the colour of the last of these.
    let mut bytes = Vec::new();
    for token in &score.tokens {
        bytes.extend_from_slice(loaded.tokenizer.token_bytes(token.id).unwrap_or_default());
        let last = whole(&bytes);
        let text = String::from_utf8_lossy(&bytes[..last]).into_owned();
        bytes.drain(..last);
        out.prose(&text, token.rank.map_or(DIM, colour))?;
    }
    if !bytes.is_empty() {
        out.prose(&String::from_utf8_lossy(&bytes), DIM)?;
    }
    out.end_prose()?;
    let dim = out.style(DIM);
    for (index, (most, _, name)) in COLOURS.into_iter().enumerate() {
        let style = out.style(colour(most));
        let before = if index == 0 { "" } else { "  " };
        write!(out, "{before}{style}■{style:#} {dim}{name}{dim:#}")?;
    }
    Ok(writeln!(out, "\n")?)
}

/// The length of the bytes without a character that has only begun.
fn whole(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn show_table(loaded: &Loaded, score: &Score, out: &mut Output) -> Result<(), Failure> {
    /// All columns but those of the token and the bar, and the widest of both.
    const OTHERS: usize = 21;
    const BAR: usize = 24;
    const TOKEN: usize = 24;
    let dim = out.style(DIM);
    let token = |token: &TokenScore| quoted(token.id, &loaded.tokenizer);
    let widest = score.tokens.iter().map(|each| columns(&token(each))).max().unwrap_or(0).min(TOKEN);
    let room = out.width().unwrap_or(80).saturating_sub(OTHERS + widest).min(BAR);
    writeln!(out, "{dim}{:>9}  {:>6}  token{dim:#}", "logprob", "rank")?;
    for each in &score.tokens {
        let token = token(each);
        match (each.logprob, each.rank) {
            (Some(logprob), Some(rank)) => {
                let colour = out.style(colour(rank));
                write!(out, "{logprob:>9.4}  {colour}{:>6}{colour:#}  ", thousands(rank))?;
                let bar = bar(f64::from(logprob.exp()), room);
                if out.is_terminal() && !bar.is_empty() {
                    writeln!(out, "{}  {colour}{bar}{colour:#}", fit(&token, widest))?;
                } else {
                    writeln!(out, "{token}")?;
                }
            }
            _ => writeln!(out, "{dim}{:>9}  {:>6}{dim:#}  {token}", "–", "–")?,
        }
    }
    Ok(writeln!(out)?)
}

fn show_totals(loaded: &Loaded, score: &Score, out: &mut Output) -> Result<(), Failure> {
    let dim = out.style(DIM);
    writeln!(out, "tokens scored  {}", thousands(score.tokens_scored()))?;
    writeln!(out, "total logprob  {:.4}", score.total_logprob())?;
    match score.perplexity() {
        Some(perplexity) => writeln!(out, "perplexity     {perplexity:.4}")?,
        None => writeln!(
            out,
            "perplexity     –  {dim}(one token has none; `--bos` scores the first, too){dim:#}"
        )?,
    }
    if let Some(bits) = bits_per_byte(loaded, score) {
        writeln!(out, "bits per byte  {bits:.4}")?;
    }
    Ok(())
}
