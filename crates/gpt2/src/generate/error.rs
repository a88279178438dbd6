//! What can be wrong with a generation.

use thiserror::Error;

use crate::model::StepError;
use crate::tokenizer::TokenizerError;

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
    /// Two settings exclude each other.
    #[error("`{0}` cannot be combined with `{1}`")]
    Contradiction(&'static str, &'static str),
    /// Nothing is drawn, so all sequences would be the same.
    #[error(
        "`num_return_sequences` is {0}, but without sampling or beams all of them would be the same text"
    )]
    SameSequences(usize),
    /// There are fewer beams than texts to return.
    #[error("`num_return_sequences` ({sequences}) must be at most `num_beams` ({beams})")]
    MoreSequencesThanBeams {
        /// Texts to return.
        sequences: usize,
        /// Beams.
        beams: usize,
    },
    /// The prompt reaches `max_length` already.
    #[error("the prompt has {prompt} tokens and `max_length`, which counts them, is {max_length}")]
    MaxLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// The limit.
        max_length: usize,
    },
    /// The length asked for does not fit into the context, and `overflow` says that this is an error.
    #[error("{wanted} tokens do not fit into the model's context of {context}, and `overflow` is `error`")]
    Overflow {
        /// Tokens of prompt and continuation.
        wanted: usize,
        /// The model's `n_positions`.
        context: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty and the model has no beginning-of-text token to start from")]
    EmptyPrompt,
    /// A setting is a text, or asks for one, and there is no tokenizer to read it with.
    #[error("`{0}` needs a tokenizer")]
    NoTokenizer(&'static str),
    /// `structured_outputs` cannot be used, or a text could not be followed.
    #[error("`structured_outputs` (`{kind}`): {message}")]
    Structure {
        /// Which of its fields it is about.
        kind: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The processors have ruled out every token.
    #[error("no token is left to choose from at position {position}: the settings rule out all of them")]
    NoTokenLeft {
        /// The position, counted from the start of the prompt.
        position: usize,
    },
    /// A processor made scores that are no numbers.
    #[error("the processed scores at position {position} are no numbers")]
    Scores {
        /// The position, counted from the start of the prompt.
        position: usize,
    },
    /// The prompt cannot be fed to the model, or the model's weights are damaged.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A generated token is not in the tokenizer's vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl GenerateError {
    pub(super) fn setting(setting: &'static str, expected: &'static str, found: impl ToString) -> Self {
        Self::Setting { setting, expected, found: found.to_string() }
    }
}
