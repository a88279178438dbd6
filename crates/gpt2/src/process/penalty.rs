//! Penalties for tokens that occurred.

use super::{Context, Processor, Scores};

/// Divides the scores of tokens that occurred, or multiplies them if they are negative, once for each token.
///
/// Equals transformers' `RepetitionPenaltyLogitsProcessor`: prompt and continuation count. (Keskar et al., "CTRL", 2019)
#[derive(Clone, Debug)]
pub struct RepetitionPenalty {
    penalty: f32,
    /// Kept for its allocation.
    distinct: Vec<u32>,
}

impl RepetitionPenalty {
    /// Takes the penalty; below 1 it is a reward.
    ///
    /// # Panics
    /// Panics if it is not a finite number above zero.
    #[must_use]
    pub fn new(penalty: f64) -> Self {
        assert!(penalty.is_finite() && penalty > 0.0, "repetition_penalty {penalty}");
        Self { penalty: at_least_tiny(penalty), distinct: Vec::new() }
    }
}

impl Processor for RepetitionPenalty {
    fn name(&self) -> &'static str {
        "repetition_penalty"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        penalize(context.tokens, self.penalty, &mut self.distinct, scores);
    }
}

/// Does the opposite for the tokens of the prompt: above 1 it makes them likelier.
///
/// Equals transformers' `EncoderRepetitionPenaltyLogitsProcessor`.
#[derive(Clone, Debug)]
pub struct EncoderRepetitionPenalty(RepetitionPenalty);

impl EncoderRepetitionPenalty {
    /// Takes the reward; below 1 it is a penalty.
    ///
    /// # Panics
    /// Panics if it is not a finite number above zero.
    #[must_use]
    pub fn new(reward: f64) -> Self {
        assert!(reward.is_finite() && reward > 0.0, "encoder_repetition_penalty {reward}");
        Self(RepetitionPenalty { penalty: at_least_tiny(1.0 / reward), distinct: Vec::new() })
    }
}

impl Processor for EncoderRepetitionPenalty {
    fn name(&self) -> &'static str {
        "encoder_repetition_penalty"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        penalize(context.prompt_tokens(), self.0.penalty, &mut self.0.distinct, scores);
    }
}

/// A factor that is zero or infinite in `f32` would turn a score of zero into NaN.
fn at_least_tiny(penalty: f64) -> f32 {
    (penalty as f32).clamp(f32::MIN_POSITIVE, f32::MAX)
}

fn penalize(tokens: &[u32], penalty: f32, distinct: &mut Vec<u32>, scores: &mut Scores) {
    sort(tokens, distinct);
    distinct.dedup();
    for &id in &*distinct {
        let score = scores.score(id);
        scores.put(id, if score < 0.0 { score * penalty } else { score / penalty });
    }
}

/// Subtracts a penalty for every time a token was generated, and one for that it was.
///
/// OpenAI's definition of `frequency_penalty` and `presence_penalty`
/// (<https://platform.openai.com/docs/guides/text-generation>): `score - count * frequency - (count > 0) * presence`.
/// The prompt does not count.
#[derive(Clone, Debug)]
pub struct FrequencyPenalty {
    frequency: f32,
    presence: f32,
    /// Kept for its allocation.
    sorted: Vec<u32>,
}

impl FrequencyPenalty {
    /// Takes the penalty for every occurrence, and the one for any.
    ///
    /// # Panics
    /// Panics if one is not a finite number.
    #[must_use]
    pub fn new(frequency: f64, presence: f64) -> Self {
        assert!(frequency.is_finite() && presence.is_finite(), "frequency_penalty {frequency}, {presence}");
        Self { frequency: frequency as f32, presence: presence as f32, sorted: Vec::new() }
    }
}

impl Processor for FrequencyPenalty {
    fn name(&self) -> &'static str {
        "frequency_penalty"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        sort(&context.tokens[context.prompt..], &mut self.sorted);
        for same in self.sorted.chunk_by(|a, b| a == b) {
            let penalty = same.len() as f32 * self.frequency + self.presence;
            scores.put(same[0], scores.score(same[0]) - penalty);
        }
    }
}

fn sort(tokens: &[u32], into: &mut Vec<u32>) {
    into.clear();
    into.extend_from_slice(tokens);
    into.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(mut processor: impl Processor, tokens: &[u32], prompt: usize) -> Vec<f32> {
        let mut scores = Scores::default();
        scores.set(&[4.0, -4.0, 1.0, f32::NEG_INFINITY]);
        processor.process(&Context { tokens, prompt, ..Context::default() }, &mut scores);
        scores.all().to_vec()
    }

    #[test]
    fn what_occurred_twice_is_penalized_once_but_by_its_frequency() {
        let gone = f32::NEG_INFINITY;
        let tokens = [2, 0, 1, 0, 3];
        assert_eq!(after(RepetitionPenalty::new(2.0), &tokens, 1), [2.0, -8.0, 0.5, gone]);
        assert_eq!(after(EncoderRepetitionPenalty::new(2.0), &tokens, 1), [4.0, -4.0, 2.0, gone]);
        assert_eq!(after(FrequencyPenalty::new(0.5, 0.25), &tokens, 1), [2.75, -4.75, 1.0, gone]);
    }
}
