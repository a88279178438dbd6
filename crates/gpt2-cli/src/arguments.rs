//! The command line: every option, its default, and the text of `--help`.

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gpt2::model::Formats;
use gpt2_kernels::WeightFormat;
use gpt2_kernels::attention::CacheFormat;

use crate::commands::{bench, completions, detokenize, download, generate, inspect, models, next};
use crate::commands::{score, tokenize, tour};
use crate::terminal::Volume;

/// Most threads that can be asked for: more is a slip.
pub(crate) const MOST_THREADS: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  gpt2 generate \"Once upon a time\"
  gpt2 generate \"The meaning of life is\" --seed 7 --num-return-sequences 3
  echo \"Dear diary,\" | gpt2 generate --greedy --max-new-tokens 20
  gpt2 next \"The capital of France is\"
  gpt2 inspect --model gpt2-medium

An option of every command can also be set by an environment variable: GPT2_MODEL, GPT2_THREADS, ...";

/// Run GPT-2 on this computer: from the checkpoint to text.
#[derive(Debug, Parser)]
#[command(name = "gpt2", version, max_term_width = 100, after_help = EXAMPLES, arg_required_else_help = true)]
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
    /// A model's name on the Hugging Face hub, its directory, or `demo` for the small one built in
    /// [default: `gpt2` if it is or can be downloaded, else `demo`]
    #[arg(long, short, global = true, env = "GPT2_MODEL", hide_env = true, value_name = "ID|DIR|demo")]
    pub(crate) model: Option<String>,

    /// The branch, tag or commit of a model of the hub [default: main]
    #[arg(long, global = true, env = "GPT2_REVISION", hide_env = true, value_name = "REVISION")]
    pub(crate) revision: Option<String>,

    /// The number format of the weights in memory
    #[arg(long, global = true, env = "GPT2_DTYPE", hide_env = true)]
    #[arg(value_enum, default_value_t = Dtype::F32)]
    pub(crate) dtype: Dtype,

    /// The number format of the context's keys and values in memory [default: f32 with `--dtype f32`, int8
    /// with int4, else f16]
    #[arg(long, global = true, env = "GPT2_KV_DTYPE", hide_env = true, value_enum)]
    pub(crate) kv_dtype: Option<KvDtype>,

    /// Number of threads; changes no result [default: one for each core it may use]
    #[arg(long, global = true, env = "GPT2_THREADS", hide_env = true, value_name = "N")]
    #[arg(value_parser = at_most(MOST_THREADS), allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Instruction set to compute with; changes no result [default: the best there is]
    #[arg(long, global = true, env = "GPT2_KERNELS", hide_env = true, value_name = "ROW", value_enum)]
    pub(crate) kernels: Option<KernelRow>,

    /// The directory of packed copies, with which `int8` and `int4` start sooner [default: `gpt2/packed` in the
    /// user's cache directory]
    #[arg(long, global = true, env = "GPT2_PACK_CACHE", hide_env = true, value_name = "DIR")]
    pub(crate) pack_cache: Option<String>,

    /// Neither use nor keep packed copies
    #[arg(long, global = true, env = "GPT2_NO_PACK_CACHE", hide_env = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) no_pack_cache: bool,

    /// Use downloaded models only, and make no request
    #[arg(long, global = true, env = "GPT2_OFFLINE", hide_env = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,

    /// Show results and errors only: no notes, no progress
    #[arg(long, short, global = true, env = "GPT2_QUIET", hide_env = true, overrides_with = "verbose")]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,

    /// Also report the device, the formats and the time it took to load the model, on standard error
    #[arg(long, short, global = true, env = "GPT2_VERBOSE", hide_env = true, overrides_with = "quiet")]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) verbose: bool,
}

impl Options {
    /// How much is told beside the results.
    pub(crate) fn volume(&self) -> Volume {
        match self {
            Self { quiet: true, .. } => Volume::Quiet,
            Self { verbose: true, .. } => Volume::Verbose,
            _ => Volume::Normal,
        }
    }

    /// The formats that these options name.
    pub(crate) fn formats(&self) -> Formats {
        let default = Formats::from(self.dtype.format());
        Formats { cache: self.kv_dtype.map_or(default.cache, KvDtype::format), ..default }
    }
}

/// Number formats of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32 bits
    F32,
    /// 16 bits
    Bf16,
    /// 8.5 bits
    Int8,
    /// 4.5 bits, and 6.5 in the embeddings and the head
    Int4,
}

impl Dtype {
    /// The library's name for it.
    pub(crate) fn format(self) -> WeightFormat {
        match self {
            Self::F32 => WeightFormat::F32,
            Self::Bf16 => WeightFormat::Bf16,
            Self::Int8 => WeightFormat::Int8,
            Self::Int4 => WeightFormat::Int4,
        }
    }
}

/// Number formats of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtype {
    F32,
    F16,
    /// 8.75 bits
    Int8,
}

impl KvDtype {
    /// The library's name for it.
    pub(crate) fn format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::F16 => CacheFormat::F16,
            Self::Int8 => CacheFormat::Int8,
        }
    }
}

/// Rows of the kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelRow {
    Scalar,
    Avx2,
    Avx512,
    Avx512Vnni,
}

impl KernelRow {
    /// The name in the kernel table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Box<generate::Arguments>),
    Next(next::Arguments),
    Score(score::Arguments),
    Tokenize(tokenize::Arguments),
    Detokenize(detokenize::Arguments),
    Inspect(inspect::Arguments),
    Tour(tour::Arguments),
    Bench(bench::Arguments),
    Download(download::Arguments),
    Models(models::Arguments),
    Completions(completions::Arguments),
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

/// Makes a parser of whole numbers from one to `most`.
pub(crate) fn at_most(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = positive(text).ok().filter(|n| *n <= most);
        number.ok_or_else(|| format!("expected a whole number from 1 to {most}"))
    }
}

/// Parses a whole number from zero.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number from 0".to_owned())
}

/// Parses a token id.
pub(crate) fn token_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "expected token ids: whole numbers from 0".to_owned())
}

/// Parses a seed.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
