//! `gpt2 score --reference-dtype`: what a number format of the weights costs, on a text.

use std::io::Write;

use gpt2::divergence::{Divergence, divergence};
use serde::Serialize;

use super::Format;
use super::score::special_tokens;
use super::token::Origin;
use crate::arguments::{Dtype, Options};
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::prompt::TextArguments;
use crate::terminal::{Terminal, Unit, thousands};

/// What is compared, and where.
pub(crate) struct Comparison<'a> {
    /// The text's source, for how its special tokens are meant.
    pub(crate) text: &'a TextArguments,
    /// The weights of the reference.
    pub(crate) reference: Dtype,
    /// Tokens of a window; the model's context if none.
    pub(crate) window: Option<usize>,
    /// Tokens of the text that are used; all if none.
    pub(crate) limit: Option<usize>,
}

/// How far a format is from another.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    text: &'a str,
    reference_dtype: &'a str,
    bits_per_weight: f64,
    tokens: usize,
    window: usize,
    positions: usize,
    kl: f64,
    kl_stderr: f64,
    kl_max: f64,
    same_top_token: f64,
    perplexity: f64,
    reference_perplexity: f64,
    settings: Settings,
    #[serde(flatten)]
    origin: Origin<'a>,
}

/// What is compared, under the names of the flags.
#[derive(Serialize)]
struct Settings {
    limit: Option<usize>,
    special_tokens: &'static str,
}

/// Loads the model in both formats, compares them on the text and shows the result.
pub(crate) fn run(
    text: &str,
    comparison: &Comparison<'_>,
    format: Format,
    options: &Options,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let files = ModelFiles::find(options, terminal)?;
    let context = files.config()?.n_positions;
    let window = comparison.window.unwrap_or(context);
    if window > context {
        return Err(Failure::usage(format!(
            "`--window {window}` is longer than the model's context of {context}"
        )));
    }
    let reference_options = Options { dtype: comparison.reference, kv_dtype: None, ..options.clone() };
    let reference = files.load_model(&reference_options, terminal)?;
    let name = files.name.clone();
    let loaded = files.load(options, terminal)?;
    let mut ids = loaded.tokenizer.encode(text, comparison.text.special())?;
    ids.truncate(comparison.limit.unwrap_or(usize::MAX));
    let mut progress = terminal.progress("comparing", Unit::Tokens);
    let total = Some(ids.len() as u64);
    let found = divergence(&reference, &loaded.model, &ids, window, &mut |done| {
        progress.update(done as u64, total);
    })?;
    drop(progress);
    let Divergence { positions, mean, standard_error, largest, perplexity, reference_perplexity, .. } = found;
    let record = Record {
        model: &name,
        text,
        reference_dtype: reference.formats().weights.name(),
        bits_per_weight: loaded.model.weights().bits_per_weight(),
        tokens: ids.len(),
        window,
        positions,
        kl: mean,
        kl_stderr: standard_error,
        kl_max: largest,
        same_top_token: found.same_top_token_share(),
        perplexity,
        reference_perplexity,
        settings: Settings { limit: comparison.limit, special_tokens: special_tokens(comparison.text) },
        origin: Origin::of(&loaded),
    };
    if format.json {
        return Ok(terminal.output.json(&record)?);
    }
    show(&record, terminal)
}

fn show(record: &Record<'_>, terminal: &mut Terminal) -> Result<(), Failure> {
    let out = &mut terminal.output;
    let Record { model, reference_dtype, origin: Origin { dtype, kv_dtype, .. }, .. } = record;
    writeln!(out, "{model}, {dtype} with keys and values in {kv_dtype}, compared with {reference_dtype}")?;
    writeln!(out)?;
    writeln!(out, "bits per weight       {:.2}", record.bits_per_weight)?;
    writeln!(out, "positions             {}", thousands(record.positions))?;
    writeln!(out, "mean KL divergence    {:.3e} nats ± {:.1e}", record.kl, record.kl_stderr)?;
    writeln!(out, "largest               {:.3e} nats", record.kl_max)?;
    writeln!(out, "same likeliest token  {:.2} %", 100.0 * record.same_top_token)?;
    writeln!(out, "perplexity            {:.4}", record.perplexity)?;
    writeln!(out, "reference perplexity  {:.4}", record.reference_perplexity)?;
    Ok(())
}
