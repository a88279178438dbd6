//! The command line: every option, its default, and the text of `--help`.

use clap::builder::FalseyValueParser;
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::commands::tokenize;
use crate::commands::{bench, completions, detokenize, download, generate, inspect, models, next, score};

const EXAMPLES: &str = "\
Examples:
  gpt2 generate \"Once upon a time\"
  gpt2 generate \"The meaning of life is\" --seed 7 --num-return-sequences 3
  echo \"Dear diary,\" | gpt2 generate --greedy --max-new-tokens 20
  gpt2 next \"The capital of France is\"
  gpt2 --model gpt2-medium inspect";

/// Run GPT-2 on this computer: from the checkpoint to text.
#[derive(Debug, Parser)]
#[command(name = "gpt2", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) options: Options,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, accepted before and after its name.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Options {
    /// The model: a name on the Hugging Face hub, a directory, or `demo` for the small one built in
    /// [default: `gpt2` if it is or can be downloaded, else `demo`]
    #[arg(
        long,
        short,
        global = true,
        env = "GPT2_MODEL",
        hide_env_values = true,
        value_name = "ID|DIR|demo"
    )]
    pub(crate) model: Option<String>,

    /// The branch, tag or commit of a model of the hub [default: main]
    #[arg(long, global = true, env = "GPT2_REVISION", hide_env_values = true, value_name = "REVISION")]
    pub(crate) revision: Option<String>,

    /// The number format of the weights in memory
    #[arg(long, global = true, env = "GPT2_DTYPE", hide_env_values = true)]
    #[arg(value_enum, default_value_t = Dtype::F32)]
    pub(crate) dtype: Dtype,

    /// How many threads compute [default: as many as the machine runs at once]; changes no result
    #[arg(long, global = true, env = "GPT2_THREADS", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// The instruction set to compute with [default: the fastest there is]; changes no result
    #[arg(long, global = true, env = "GPT2_KERNELS", hide_env_values = true, value_name = "ROW", value_enum)]
    pub(crate) kernels: Option<KernelRow>,

    /// Use downloaded models only, and make no request
    #[arg(long, global = true, env = "GPT2_OFFLINE", hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,

    /// Show results and errors only: no notes, no progress
    #[arg(long, short, global = true, env = "GPT2_QUIET", hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
}

/// Number formats of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// Single precision
    F32,
}

impl Dtype {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
        }
    }
}

/// Rows of the kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelRow {
    /// Any machine
    Scalar,
    /// AVX2 and FMA
    Avx2,
    /// AVX-512 F, BW, VL and DQ
    Avx512,
}

impl KernelRow {
    /// The name in the kernel table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text
    Generate(generate::Arguments),
    /// Show the most likely next tokens
    Next(next::Arguments),
    /// Show how likely a text is, token by token
    Score(score::Arguments),
    /// Split a text into tokens
    Tokenize(tokenize::Arguments),
    /// Join tokens to a text
    Detokenize(detokenize::Arguments),
    /// Show a model's modules and where its parameters are, without reading the weights
    Inspect(inspect::Arguments),
    /// Measure the speed of a model on this machine
    Bench(bench::Arguments),
    /// Download a model from the Hugging Face hub, or bring it up to date
    Download(download::Arguments),
    /// List the models that need no download
    Models(models::Arguments),
    /// Print a script that completes this command's arguments in a shell
    Completions(completions::Arguments),
}

/// Parses the command line and the environment.
///
/// # Errors
/// If they make no sense, or help or version were asked for; the error prints itself.
pub(crate) fn parse() -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches()?;
    Arguments::from_arg_matches(&matches)
}

/// The description of the command line, for a terminal as wide as this one.
pub(crate) fn command() -> clap::Command {
    let command = Arguments::command().color(ColorChoice::Auto);
    match console::Term::stdout().size_checked() {
        Some((_, columns)) => command.term_width(usize::from(columns).min(100)),
        None => command.term_width(100),
    }
}

/// Parses a number from zero.
pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    number(text).filter(|x| *x >= 0.0).ok_or_else(|| "expected a number from 0".to_owned())
}

/// Parses a number from zero to one.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text).filter(|x| (0.0..=1.0).contains(x)).ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Parses a whole number from one.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// Parses a whole number from zero.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number from 0".to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
