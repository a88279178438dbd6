//! The command line: every option, its default, and the text of `--help`.

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use gpt2::model::Formats;
use gpt2_kernels::WeightFormat;
use gpt2_kernels::attention::CacheFormat;

use crate::commands::{bench, completions, detokenize, download, generate, inspect, models, next};
use crate::commands::{score, tokenize, tour};
use crate::terminal::Volume;

/// Most threads that can be asked for: more is a slip.
pub(crate) const MOST_THREADS: usize = 1024;

/// The heading of options that choose a model.
pub(crate) const MODEL: &str = "Model";
/// The heading of options that say how to compute.
pub(crate) const COMPUTATION: &str = "Computation";
/// The heading of the other options of every command.
pub(crate) const GLOBAL: &str = "Global options";

/// Run GPT-2 language models on this computer.
#[derive(Debug, Parser)]
#[command(name = "gpt2", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) options: Options,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, accepted before and after its name; help shows them where they act.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Model: a name on the Hugging Face hub, a directory, or `demo` [default: gpt2, or demo if it cannot be downloaded]
    ///
    /// `demo` is a small model that is built in.
    #[arg(long, short, global = true, env = "GPT2_MODEL", hide_env = true, value_name = "ID|DIR|demo")]
    #[arg(help_heading = MODEL)]
    pub(crate) model: Option<String>,

    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, global = true, env = "GPT2_REVISION", hide_env = true, value_name = "REVISION")]
    #[arg(help_heading = MODEL, hide_short_help = true)]
    pub(crate) revision: Option<String>,

    /// Use downloaded models only; make no network requests
    #[arg(long, global = true, env = "GPT2_OFFLINE", hide_env = true)]
    #[arg(help_heading = MODEL, hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(crate) offline: bool,

    /// Number format of the weights in memory
    #[arg(long, global = true, env = "GPT2_DTYPE", hide_env = true, help_heading = COMPUTATION)]
    #[arg(value_enum, default_value_t = Dtype::F32)]
    pub(crate) dtype: Dtype,

    /// Number format of the cached keys and values [default: f32 with `--dtype f32`, int8 with int4, else f16]
    #[arg(long, global = true, env = "GPT2_KV_DTYPE", hide_env = true, value_enum)]
    #[arg(help_heading = COMPUTATION, hide_short_help = true)]
    pub(crate) kv_dtype: Option<KvDtype>,

    /// Number of threads [default: one per core]
    ///
    /// Does not change the results.
    #[arg(long, short, global = true, env = "GPT2_THREADS", hide_env = true, value_name = "N")]
    #[arg(help_heading = COMPUTATION, value_parser = at_most(MOST_THREADS), allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Instruction set to use [default: the fastest that this machine has]
    ///
    /// Does not change the results.
    #[arg(long, global = true, env = "GPT2_KERNELS", hide_env = true, value_name = "ROW", value_enum)]
    #[arg(help_heading = COMPUTATION, hide_short_help = true)]
    pub(crate) kernels: Option<KernelRow>,

    /// Device to compute on: `cpu`, or `auto`, which is the same in this build [default: auto]
    #[arg(long, global = true, env = "GPT2_DEVICE", hide_env = true, value_name = "DEVICE")]
    #[arg(help_heading = COMPUTATION, hide_short_help = true, value_parser = device)]
    pub(crate) device: Option<Device>,

    /// Directory that caches packed weights, with which `int8` and `int4` models load faster [default: `gpt2/packed` in
    /// the user's cache directory]
    #[arg(long, global = true, env = "GPT2_PACK_CACHE", hide_env = true, value_name = "DIR")]
    #[arg(help_heading = COMPUTATION, hide_short_help = true, value_hint = ValueHint::DirPath)]
    pub(crate) pack_cache: Option<String>,

    /// Neither read nor write packed weights
    #[arg(long, global = true, env = "GPT2_NO_PACK_CACHE", hide_env = true)]
    #[arg(help_heading = COMPUTATION, hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_pack_cache: bool,

    /// Print results and errors only: no notes, no progress
    #[arg(long, short, global = true, env = "GPT2_QUIET", hide_env = true, overrides_with = "verbose")]
    #[arg(help_heading = GLOBAL, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,

    /// Also report the device, the parameters and the time taken
    #[arg(long, short, global = true, env = "GPT2_VERBOSE", hide_env = true, overrides_with = "quiet")]
    #[arg(help_heading = GLOBAL, value_parser = FalseyValueParser::new())]
    pub(crate) verbose: bool,

    /// When to use colors [default: auto, on a terminal and unless `NO_COLOR` is set]
    #[arg(long, global = true, env = "GPT2_COLOR", hide_env = true, value_name = "WHEN", value_enum)]
    #[arg(help_heading = GLOBAL, hide_short_help = true)]
    pub(crate) color: Option<Color>,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Auto,
    Cpu,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
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
    #[value(alias = "float32")]
    F32,
    /// 16 bits
    #[value(alias = "bfloat16")]
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
    #[value(alias = "float32")]
    F32,
    #[value(alias = "float16")]
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
    #[command(alias = "pull")]
    Download(download::Arguments),
    #[command(aliases = ["list", "ls"])]
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

/// A seed, or the wish for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    Any,
    Fixed(u64),
}

/// Parses a seed; -1 is any.
pub(crate) fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed::Any),
        _ => text
            .parse()
            .map(Seed::Fixed)
            .map_err(|_| format!("expected a whole number from 0 to {}, or -1 for a random one", u64::MAX)),
    }
}

/// Parses a truth value.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" => Ok(true),
        "false" | "False" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

fn device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        _ if ["cuda", "gpu", "mps", "metal", "rocm", "xpu", "vulkan"]
            .iter()
            .any(|name| text.starts_with(name)) =>
        {
            Err("this build computes on the CPU only".to_owned())
        }
        _ => Err("expected `auto` or `cpu`".to_owned()),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite())
}
