//! Where a text may end, and where it must.

use gpt2_kernels::math::{exp_f64, ln};

use super::{Context, Processor, Scores};

/// Rules out end tokens while the text is too short.
///
/// Equals transformers' `MinLengthLogitsProcessor`, which counts the prompt, and its
/// `MinNewTokensLengthLogitsProcessor`, which does not.
#[derive(Clone, Debug)]
pub struct MinLength {
    tokens: usize,
    new: bool,
    eos_token_ids: Vec<u32>,
}

impl MinLength {
    /// Takes the least number of tokens, those of the prompt counted, and the end tokens.
    #[must_use]
    pub fn new(tokens: usize, eos_token_ids: Vec<u32>) -> Self {
        Self { tokens, new: false, eos_token_ids }
    }

    /// Takes the least number of new tokens, and the end tokens.
    #[must_use]
    pub fn of_new_tokens(tokens: usize, eos_token_ids: Vec<u32>) -> Self {
        Self { tokens, new: true, eos_token_ids }
    }
}

impl Processor for MinLength {
    fn name(&self) -> &'static str {
        if self.new { "min_new_tokens" } else { "min_length" }
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let length = if self.new { context.generated() } else { context.tokens.len() };
        if length < self.tokens {
            self.eos_token_ids.iter().for_each(|&id| scores.put(id, f32::NEG_INFINITY));
        }
    }
}

/// Leaves only some tokens at a certain length of the text, with a score of 0.
///
/// Equals transformers' `ForcedBOSTokenLogitsProcessor` and `ForcedEOSTokenLogitsProcessor`.
#[derive(Clone, Debug)]
pub struct ForcedTokens {
    name: &'static str,
    length: usize,
    ids: Vec<u32>,
}

impl ForcedTokens {
    /// Takes the token that comes second in a text: first behind a prompt of one token.
    #[must_use]
    pub fn bos(id: u32) -> Self {
        Self { name: "forced_bos_token_id", length: 1, ids: vec![id] }
    }

    /// Takes the tokens one of which is the last of a text of `total_tokens`, its prompt included.
    #[must_use]
    pub fn eos(ids: Vec<u32>, total_tokens: usize) -> Self {
        Self { name: "forced_eos_token_id", length: total_tokens.saturating_sub(1), ids }
    }
}

impl Processor for ForcedTokens {
    fn name(&self) -> &'static str {
        self.name
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        if context.tokens.len() == self.length {
            scores.keep(|_, _| false);
            self.ids.iter().for_each(|&id| scores.put(id, 0.0));
        }
    }
}

/// Makes end tokens likelier with every token behind a certain number of them.
///
/// Equals transformers' `ExponentialDecayLengthPenalty`: `score + |score| * (factor^n - 1)`, where n is the number of
/// tokens beyond. Where transformers overflows, the score is the largest number instead.
#[derive(Clone, Debug)]
pub struct ExponentialDecayLengthPenalty {
    start: usize,
    factor: f64,
    eos_token_ids: Vec<u32>,
}

impl ExponentialDecayLengthPenalty {
    /// Takes the number of new tokens behind which it begins, the factor and the end tokens.
    ///
    /// # Panics
    /// Panics if the factor is not a finite number above zero.
    #[must_use]
    pub fn new(start: usize, factor: f64, eos_token_ids: Vec<u32>) -> Self {
        assert!(factor.is_finite() && factor >= f64::MIN_POSITIVE, "decay factor {factor}");
        Self { start, factor, eos_token_ids }
    }
}

impl Processor for ExponentialDecayLengthPenalty {
    fn name(&self) -> &'static str {
        "exponential_decay_length_penalty"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let beyond = context.generated().saturating_sub(self.start);
        if beyond == 0 {
            return;
        }
        let raise = (exp_f64(beyond as f64 * ln(self.factor)) - 1.0) as f32;
        for &id in &self.eos_token_ids {
            let score = scores.score(id);
            if score.is_finite() {
                let raised = score + score.abs() * raise.min(f32::MAX);
                scores.put(id, raised.clamp(f32::MIN, f32::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(processor: &mut dyn Processor, tokens: &[u32], prompt: usize) -> Vec<f32> {
        let mut scores = Scores::default();
        scores.set(&[-2.0, 3.0, 1.0]);
        processor.process(&Context { tokens, prompt, ..Context::default() }, &mut scores);
        scores.all().to_vec()
    }

    #[test]
    fn lengths_count_what_they_say() {
        let gone = f32::NEG_INFINITY;
        let mut total = MinLength::new(3, vec![0]);
        assert_eq!(after(&mut total, &[1, 1], 2), [gone, 3.0, 1.0]);
        assert_eq!(after(&mut total, &[1, 1, 1], 2), [-2.0, 3.0, 1.0]);
        assert_eq!(after(&mut MinLength::of_new_tokens(2, vec![0]), &[1, 1, 1], 2), [gone, 3.0, 1.0]);
        let mut last = ForcedTokens::eos(vec![0, 2], 4);
        assert_eq!(after(&mut last, &[1, 1], 1), [-2.0, 3.0, 1.0]);
        assert_eq!(after(&mut last, &[1, 1, 1], 1), [0.0, gone, 0.0]);
        let mut decay = ExponentialDecayLengthPenalty::new(1, 2.0, vec![0]);
        assert_eq!(after(&mut decay, &[1, 1], 1), [-2.0, 3.0, 1.0]);
        assert_eq!(after(&mut decay, &[1, 1, 1, 1], 1), [4.0, 3.0, 1.0]);
        let mut steep = ExponentialDecayLengthPenalty::new(0, 1e300, vec![0]);
        assert_eq!(after(&mut steep, &[1, 1, 1, 1], 1), [f32::MAX, 3.0, 1.0]);
    }
}
