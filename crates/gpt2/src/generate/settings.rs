//! The settings of a generation: names and meanings of transformers' `GenerationConfig`.

use thiserror::Error;

use crate::model::StepError;
use crate::process::{Processor, Temperature, TopK, TopP};
use crate::sample::Sampler;
use crate::tokenizer::TokenizerError;

/// How to generate. The defaults are the notebook's: sample at temperature 0.7 from the 50 most
/// likely tokens and 95 % of the mass, 50 new tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Number of tokens to generate at most. Neither this nor `max_length`: 50.
    pub max_new_tokens: Option<usize>,
    /// Number of tokens to end with at most, the prompt included. Not together with `max_new_tokens`.
    pub max_length: Option<usize>,
    /// Whether to draw tokens; if not, the likeliest is taken every time.
    pub do_sample: bool,
    /// What logits are divided by; 0 means no sampling.
    pub temperature: f64,
    /// Number of tokens to draw from, the likeliest ones; 0 means all.
    pub top_k: usize,
    /// Mass of the tokens to draw from, the likeliest ones; 1 means all.
    pub top_p: f64,
    /// Number of texts to generate from one prompt.
    pub num_return_sequences: usize,
    /// The key of the noise that draws tokens.
    pub seed: u64,
    /// Tokens that end a text; `None` stands for those of the model's configuration.
    pub eos_token_ids: Option<Vec<u32>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_new_tokens: None,
            max_length: None,
            do_sample: true,
            temperature: 0.7,
            top_k: 50,
            top_p: 0.95,
            num_return_sequences: 1,
            seed: 0,
            eos_token_ids: None,
        }
    }
}

/// Why a generation cannot start, or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A setting is out of its range.
    #[error("`{setting}` must be {expected}, not {found}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Both ways to limit the length are used.
    #[error(
        "`max_new_tokens` ({max_new_tokens}) and `max_length` ({max_length}) both limit the length; give one of them"
    )]
    TwoLengths {
        /// One.
        max_new_tokens: usize,
        /// The other.
        max_length: usize,
    },
    /// Nothing is drawn, so all sequences would be the same.
    #[error("`num_return_sequences` is {0}, but without sampling all of them would be the same text")]
    SameSequences(usize),
    /// The prompt reaches `max_length` already.
    #[error("the prompt has {prompt} tokens and `max_length`, which counts them, is {max_length}")]
    MaxLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// The limit.
        max_length: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty and the model has no beginning-of-text token to start from")]
    EmptyPrompt,
    /// The prompt cannot be fed to the model, or the model's weights are damaged.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A generated token is not in the tokenizer's vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl Settings {
    /// New tokens when no length is set.
    pub const DEFAULT_NEW_TOKENS: usize = 50;

    /// Most sequences of one prompt: all are held in memory at once.
    pub const MOST_SEQUENCES: usize = 256;

    /// Whether tokens are drawn: sampling is on and the temperature is above zero.
    #[must_use]
    pub fn samples(&self) -> bool {
        self.do_sample && self.temperature > 0.0
    }

    /// Checks every setting by itself and against the others.
    ///
    /// # Errors
    /// If one is out of its range or two contradict each other; the message names them.
    pub fn check(&self) -> Result<(), GenerateError> {
        let wrong =
            |setting, expected, found: String| Err(GenerateError::Setting { setting, expected, found });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong("temperature", "a number from 0", self.temperature.to_string());
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return wrong("top_p", "a number from 0 to 1", self.top_p.to_string());
        }
        for (setting, value) in [("max_new_tokens", self.max_new_tokens), ("max_length", self.max_length)] {
            if value == Some(0) {
                return wrong(setting, "at least 1", "0".to_owned());
            }
        }
        if !(1..=Self::MOST_SEQUENCES).contains(&self.num_return_sequences) {
            return wrong(
                "num_return_sequences",
                "a number from 1 to 256",
                self.num_return_sequences.to_string(),
            );
        }
        if let (Some(max_new_tokens), Some(max_length)) = (self.max_new_tokens, self.max_length) {
            return Err(GenerateError::TwoLengths { max_new_tokens, max_length });
        }
        if self.num_return_sequences > 1 && !self.samples() {
            return Err(GenerateError::SameSequences(self.num_return_sequences));
        }
        Ok(())
    }

    /// Tokens that a sequence ends with at most, its prompt included.
    pub(super) fn total_tokens(&self, prompt: usize) -> Result<usize, GenerateError> {
        match self.max_length {
            Some(max_length) if prompt >= max_length => Err(GenerateError::MaxLength { prompt, max_length }),
            Some(max_length) => Ok(max_length),
            None => Ok(prompt.saturating_add(self.max_new_tokens.unwrap_or(Self::DEFAULT_NEW_TOKENS))),
        }
    }

    /// The processors, in transformers' order.
    pub(super) fn processors(&self) -> Vec<Box<dyn Processor>> {
        let mut chain: Vec<Box<dyn Processor>> = Vec::new();
        if !self.samples() {
            return chain;
        }
        if self.temperature != 1.0 {
            chain.push(Box::new(Temperature::new(self.temperature)));
        }
        if self.top_k != 0 {
            chain.push(Box::new(TopK::new(self.top_k)));
        }
        if self.top_p < 1.0 {
            chain.push(Box::new(TopP::new(self.top_p)));
        }
        chain
    }

    pub(super) fn sampler(&self) -> Sampler {
        if self.samples() { Sampler::Keyed { seed: self.seed } } else { Sampler::Greedy }
    }
}
