//! What happens to the logits before a token is chosen.
//!
//! Processors change [`Scores`] in place, one after the other, in transformers' order; see
//! [`GenerationConfig`](crate::generate::GenerationConfig). A token that is ruled out has the score `-inf`.

mod allowed;
mod bad_words;
mod bias;
mod cutoff;
mod distribution;
mod diversity;
mod dry;
mod length;
mod min_p;
mod mirostat;
mod ngram;
mod normalize;
mod penalty;
mod scores;
pub(crate) mod structure;
mod suppress;
mod temperature;
mod top_h;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical_p;
mod xtc;

pub(crate) use allowed::Allowed;
pub use allowed::PrefixAllowedTokens;
pub use bad_words::BadWords;
pub use bias::SequenceBias;
pub use cutoff::{EpsilonCutoff, EtaCutoff};
pub use diversity::HammingDiversity;
pub use dry::Dry;
pub use length::{ExponentialDecayLengthPenalty, ForcedTokens, MinLength};
pub use min_p::MinP;
pub use mirostat::Mirostat;
pub use ngram::NoRepeatNgram;
pub use normalize::{RemoveInvalidValues, RenormalizeLogits};
pub use penalty::{EncoderRepetitionPenalty, FrequencyPenalty, RepetitionPenalty};
pub use scores::Scores;
pub use suppress::SuppressTokens;
pub use temperature::{DynamicTemperature, Temperature};
pub use top_h::TopH;
pub use top_k::TopK;
pub use top_n_sigma::TopNSigma;
pub use top_p::TopP;
pub use typical_p::TypicalP;
pub use xtc::Xtc;

/// One step of the chain between the logits and the choice of a token.
///
/// This is the one open set of the library: a user's own processor joins by implementing it.
///
/// ```
/// use gpt2::process::{Context, Processor, Scores};
///
/// /// Rules a token out.
/// struct Ban(u32);
///
/// impl Processor for Ban {
///     fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
///         scores.put(self.0, f32::NEG_INFINITY);
///     }
/// }
/// ```
pub trait Processor: Send {
    /// The name under which a trace shows it: that of the setting, for those of the library.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// Changes the scores of what follows the tokens so far.
    fn process(&mut self, context: &Context<'_>, scores: &mut Scores);

    /// Learns which token was chosen from the scores that the chain left behind.
    fn chosen(&mut self, context: &Context<'_>, scores: &Scores, token: u32) {
        let _ = (context, scores, token);
    }

    /// Whether a text ends with its last token, though that is no end token; it is asked after every token.
    fn ended(&mut self, context: &Context<'_>) -> bool {
        let _ = context;
        false
    }
}

/// Where in which text a token is to be chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The tokens so far, the prompt's first.
    pub tokens: &'a [u32],
    /// Number of tokens of the prompt.
    pub prompt: usize,
    /// Which of several texts it is: the return sequence, or the beam.
    pub sequence: usize,
    /// The tokens that the beams of other groups have chosen at this position; empty unless there are groups.
    pub others: &'a [u32],
}

impl<'a> Context<'a> {
    /// The tokens of the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> &'a [u32] {
        &self.tokens[..self.prompt]
    }

    /// Number of tokens generated so far.
    #[must_use]
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }
}
