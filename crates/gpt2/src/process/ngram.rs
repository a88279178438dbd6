//! Phrases that may not occur twice.

use super::{Context, Processor, Scores};

/// Rules out tokens that would complete a phrase of n tokens that occurred already.
///
/// Equals transformers' `NoRepeatNGramLogitsProcessor`, which looks for the phrase in prompt and continuation, and its
/// `EncoderNoRepeatNGramLogitsProcessor`, which looks in the prompt.
#[derive(Clone, Copy, Debug)]
pub struct NoRepeatNgram {
    size: usize,
    prompt_only: bool,
}

impl NoRepeatNgram {
    /// Takes the length of a phrase; 1 lets no token occur twice.
    ///
    /// # Panics
    /// Panics if it is zero, here and in [`of_prompt`](Self::of_prompt).
    #[must_use]
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "no_repeat_ngram_size of zero");
        Self { size, prompt_only: false }
    }

    /// Takes the length of a phrase that may not be repeated from the prompt.
    #[must_use]
    pub fn of_prompt(size: usize) -> Self {
        Self { prompt_only: true, ..Self::new(size) }
    }
}

impl Processor for NoRepeatNgram {
    fn name(&self) -> &'static str {
        if self.prompt_only { "encoder_no_repeat_ngram_size" } else { "no_repeat_ngram_size" }
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let tokens = context.tokens;
        let Some(start) = (tokens.len() + 1).checked_sub(self.size) else { return };
        let begin = &tokens[start..];
        let text = if self.prompt_only { context.prompt_tokens() } else { tokens };
        for phrase in text.windows(self.size) {
            if phrase[..self.size - 1] == *begin {
                scores.put(phrase[self.size - 1], f32::NEG_INFINITY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_not_completed_twice() {
        let left = |mut processor: NoRepeatNgram, tokens: &[u32], prompt| {
            let mut scores = Scores::default();
            scores.set(&[0.0; 5]);
            processor.process(&Context { tokens, prompt, ..Context::default() }, &mut scores);
            let mut left = Vec::new();
            scores.candidates(|id, _| left.push(id));
            left
        };
        assert_eq!(left(NoRepeatNgram::new(2), &[1, 2, 1, 3, 1], 3), [0, 1, 4]);
        assert_eq!(left(NoRepeatNgram::of_prompt(2), &[1, 2, 1, 3, 1], 3), [0, 1, 3, 4]);
        assert_eq!(left(NoRepeatNgram::new(1), &[1, 2], 1), [0, 3, 4]);
        assert_eq!(left(NoRepeatNgram::new(4), &[1, 2], 1), [0, 1, 2, 3, 4]);
    }
}
