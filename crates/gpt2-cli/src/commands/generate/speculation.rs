//! The flags that have tokens guessed, and the model that guesses them.

use std::sync::Arc;

use clap::ValueEnum;
use gpt2::generate::{GenerateError, GenerationConfig};
use gpt2::model::Model;

use super::flag;
use crate::arguments::{Dtype, Options, at_most};
use crate::failure::Failure;
use crate::model::{Loaded, ModelFiles};
use crate::terminal::Terminal;

/// Most tokens to look up, unless a flag says something else.
const LOOKED_UP: usize = 15;
/// More are never worth the arithmetic.
const MOST: usize = 64;

/// Why what is said of a model that guesses changes nothing.
const NOBODY_GUESSES: &str = "no model guesses (`--assistant`, `--speculate self`)";

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Speculative decoding (does not change the text)")]
pub(super) struct Speculation {
    /// Draft several tokens and verify them in one pass; for a single prompt
    #[arg(long, value_name = "HOW", value_enum, conflicts_with = "assistant")]
    speculate: Option<Guesses>,
    /// Smaller model that drafts tokens: any GPT-2 with the same vocabulary
    #[arg(long, value_name = "ID|DIR")]
    assistant: Option<String>,
    /// Number format of the draft model's weights [default: int4]
    #[arg(long, value_name = "DTYPE", value_enum)]
    assistant_dtype: Option<Dtype>,
    /// Maximum number of tokens that a draft model drafts at a time [default: 15]
    #[arg(long, value_name = "N", value_parser = at_most(MOST), allow_negative_numbers = true)]
    num_assistant_tokens: Option<usize>,
    /// Maximum number of tokens that `--speculate prompt-lookup` drafts at a time [default: 15]
    #[arg(long, value_name = "N", value_parser = at_most(MOST), allow_negative_numbers = true)]
    prompt_lookup_num_tokens: Option<usize>,
    /// Longest sequence of tokens that `--speculate prompt-lookup` looks up [default: 4]
    #[arg(long, value_name = "N", value_parser = at_most(MOST), allow_negative_numbers = true)]
    max_matching_ngram_size: Option<usize>,
}

/// Where guesses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guesses {
    /// Draft what followed the last tokens when they occurred before: for repetitive text
    PromptLookup,
    /// Draft with a copy of the model in the format of `--assistant-dtype`
    #[value(name = "self")]
    Myself,
}

impl Speculation {
    /// What the flags set.
    pub(super) fn given(&self) -> GenerationConfig {
        GenerationConfig {
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens,
            max_matching_ngram_size: self.max_matching_ngram_size,
            num_assistant_tokens: self.num_assistant_tokens,
            ..GenerationConfig::default()
        }
    }

    /// Sets what `--speculate prompt-lookup` takes where neither a flag nor a file says how many tokens.
    pub(super) fn complete(&self, config: &mut GenerationConfig) {
        if self.speculate == Some(Guesses::PromptLookup) {
            config.prompt_lookup_num_tokens.get_or_insert(LOOKED_UP);
        }
    }

    /// The flag that asks for a model that guesses, if one does.
    fn asks(&self) -> Option<&'static str> {
        match (&self.assistant, self.speculate) {
            (Some(_), _) => Some("--assistant"),
            (None, Some(Guesses::Myself)) => Some("--speculate self"),
            (None, _) => None,
        }
    }

    /// Refuses what guesses do not go with.
    pub(super) fn check(&self, config: &GenerationConfig) -> Result<(), Failure> {
        let checked = config.check_speculation(self.asks().is_some());
        checked.map_err(|error| match error {
            GenerateError::Contradiction(_, other) => {
                let name = self.asks().unwrap_or("--speculate prompt-lookup");
                Failure::usage(format!("`{name}` cannot be combined with `{}`", flag(other)))
            }
            error => error.into(),
        })
    }

    /// Which flags are of no use, and why.
    pub(super) fn idle(&self, options: &Options) -> impl Iterator<Item = (&'static str, &'static str)> {
        let guesses = self.asks().is_some();
        let same = self.speculate == Some(Guesses::Myself) && self.dtype() == options.dtype;
        let flags = [
            (
                same,
                "--speculate self",
                "the copy that guesses would be the model again: see `--assistant-dtype`",
            ),
            (self.num_assistant_tokens.is_some() && !guesses, "--num-assistant-tokens", NOBODY_GUESSES),
            (self.assistant_dtype.is_some() && !guesses, "--assistant-dtype", NOBODY_GUESSES),
        ];
        flags.into_iter().filter_map(|(idle, flag, reason)| idle.then_some((flag, reason)))
    }

    /// The format of the weights of the model that guesses.
    fn dtype(&self) -> Dtype {
        self.assistant_dtype.unwrap_or(Dtype::Int4)
    }

    /// Loads the model that guesses, if there is to be one.
    pub(super) fn assistant(
        &self,
        files: &ModelFiles,
        loaded: &Loaded,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<Option<Model>, Failure> {
        let mut options = Options { dtype: self.dtype(), kv_dtype: None, ..options.clone() };
        let cpu = || Arc::clone(loaded.model.cpu());
        if let Some(name) = &self.assistant {
            (options.model, options.revision) = (Some(name.clone()), None);
            let files = ModelFiles::find(&options, terminal)?;
            files.say_remarks(terminal);
            let assistant = files.load_on(cpu(), &options, terminal)?;
            let [theirs, ours] = [&assistant, &loaded.model].map(|model| model.config().vocab_size);
            if theirs != ours {
                let model = &loaded.name;
                let message =
                    format!("`{name}` has a vocabulary of {theirs} tokens, and `{model}` one of {ours}");
                return Err(Failure::new(message).hint("an assistant has the same vocabulary as the model"));
            }
            return Ok(Some(assistant));
        }
        let other = self.dtype().format() != loaded.model.formats().weights;
        if self.speculate == Some(Guesses::Myself) && other {
            return Ok(Some(files.load_on(cpu(), &options, terminal)?));
        }
        Ok(None)
    }
}
