//! A penalty for going on as before.

use std::collections::HashMap;

use gpt2_kernels::math::{exp_f64, ln};

use super::{Context, Processor, Scores};
use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

/// Penalises tokens that would prolong a repetition, the more the longer it is: llama.cpp's DRY ("don't repeat
/// yourself").
///
/// If the last n tokens occurred before, the token that followed them then loses `multiplier * base^(n - allowed_length)`,
/// for the longest such n that is at least the allowed length. No repetition reaches across a sequence breaker.
#[derive(Clone, Debug)]
pub struct Dry {
    multiplier: f64,
    base: f64,
    allowed_length: usize,
    last_n: usize,
    /// By its first token, what follows that in a breaker.
    breakers: HashMap<u32, Vec<Vec<u32>>>,
    /// Tokens with the length of the repetition that they would prolong; kept for its allocation.
    repeats: Vec<(u32, usize)>,
}

impl Dry {
    /// The breakers of llama.cpp.
    pub const BREAKERS: [&'static str; 4] = ["\n", ":", "\"", "*"];

    /// Takes strength, base, and the length of repetitions without a penalty; there are no breakers, and all tokens of
    /// the text are looked at.
    ///
    /// # Panics
    /// Panics if the multiplier is not a finite number from 0, or the base not one from 1.
    #[must_use]
    pub fn new(multiplier: f64, base: f64, allowed_length: usize) -> Self {
        assert!(multiplier.is_finite() && multiplier >= 0.0, "dry_multiplier {multiplier}");
        assert!(base.is_finite() && base >= 1.0, "dry_base {base}");
        let (breakers, repeats) = (HashMap::new(), Vec::new());
        Self { multiplier, base, allowed_length, last_n: usize::MAX, breakers, repeats }
    }

    /// Looks at only this many last tokens.
    #[must_use]
    pub fn last_n(self, tokens: usize) -> Self {
        Self { last_n: tokens, ..self }
    }

    /// Adds a breaker made of these tokens; an empty one breaks nothing.
    #[must_use]
    pub fn breaker(mut self, tokens: &[u32]) -> Self {
        if let Some((&head, tail)) = tokens.split_first() {
            let tails = self.breakers.entry(head).or_default();
            if !tails.iter().any(|other| other == tail) {
                tails.push(tail.to_vec());
            }
        }
        self
    }

    /// Adds a text as breaker: every token that holds it, and every token with whose end it begins, if its rest follows.
    ///
    /// As llama.cpp does, its first 40 bytes count, and 20 tokens of the rest. Where a token ends within a character
    /// of the text, no rest could be encoded, and that token begins no breaker.
    ///
    /// # Errors
    /// If the rest of a text cannot be encoded.
    pub fn text_breaker(mut self, text: &str, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        const BYTES: usize = 40;
        const TAIL: usize = 20;
        let text = &text[..text.floor_char_boundary(BYTES)];
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Ok(self);
        }
        for id in 0..tokenizer.vocab_size() as u32 {
            let Some(word) = tokenizer.token_bytes(id) else { continue };
            if word.windows(bytes.len()).any(|part| part == bytes) {
                self = self.breaker(&[id]);
                continue;
            }
            for length in 1..bytes.len().min(word.len() + 1) {
                if word.ends_with(&bytes[..length]) && text.is_char_boundary(length) {
                    let mut tokens = tokenizer.encode_part(&text[length..], SpecialTokens::AsText)?;
                    tokens.truncate(TAIL);
                    tokens.insert(0, id);
                    self = self.breaker(&tokens);
                }
            }
        }
        Ok(self)
    }

    /// Number of last tokens, at most all of these, that come behind the last breaker.
    fn behind_breaker(&self, tokens: &[u32]) -> usize {
        for (back, head) in tokens.iter().rev().enumerate() {
            let Some(tails) = self.breakers.get(head) else { continue };
            let behind = &tokens[tokens.len() - back..];
            let longest = tails.iter().filter(|tail| behind.starts_with(tail)).map(Vec::len).max();
            if let Some(longest) = longest {
                return back - longest;
            }
        }
        tokens.len()
    }

    /// The exponent from which on a penalty would not be a number; unbounded for a base of 1.
    fn most_exponent(&self) -> usize {
        // ln of the largest f32.
        if self.base > 1.000_001 { (88.722_839_1 / ln(self.base)) as usize } else { usize::MAX }
    }
}

impl Processor for Dry {
    fn name(&self) -> &'static str {
        "dry_multiplier"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let text = context.tokens;
        let tokens = &text[text.len().saturating_sub(self.last_n)..];
        let limit = self.behind_breaker(tokens);
        if tokens.len() <= self.allowed_length || limit < self.allowed_length {
            return;
        }
        // What repeats for longer is penalised the same.
        let most_exponent = self.most_exponent();
        let limit = limit.min(self.allowed_length.saturating_add(most_exponent));
        self.repeats.clear();
        for end in 1..tokens.len() {
            let earlier = tokens[..end].iter().rev();
            let repeated = earlier.zip(tokens.iter().rev()).take(limit).take_while(|(a, b)| a == b).count();
            if repeated < self.allowed_length {
                continue;
            }
            let next = tokens[end];
            match self.repeats.iter_mut().find(|(id, _)| *id == next) {
                Some((_, longest)) => *longest = repeated.max(*longest),
                None => self.repeats.push((next, repeated)),
            }
        }
        for &(id, repeated) in &self.repeats {
            let is_breaker = self.breakers.get(&id).is_some_and(|tails| tails.iter().any(Vec::is_empty));
            if !is_breaker {
                let exponent = (repeated - self.allowed_length) as f64;
                let penalty = (self.multiplier * exp_f64(exponent * ln(self.base))) as f32;
                scores.put(id, scores.score(id) - penalty.min(f32::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalties(mut dry: Dry, tokens: &[u32]) -> Vec<f32> {
        let mut scores = Scores::default();
        scores.set(&[0.0; 6]);
        dry.process(&Context { tokens, prompt: 1, ..Context::default() }, &mut scores);
        scores.all().iter().map(|score| -score).collect()
    }

    #[test]
    fn the_longest_repetition_that_a_token_prolongs_counts() {
        // a b c c b c y a b c: `c` would prolong three tokens, `y` two, `b` one.
        let tokens = [1, 2, 3, 3, 2, 3, 4, 1, 2, 3];
        let near = |found: Vec<f32>, expected: [f32; 6]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, {expected:?}");
        };
        near(penalties(Dry::new(1.0, 2.0, 2), &tokens), [0.0, 0.0, 0.0, 2.0, 1.0, 0.0]);
        near(penalties(Dry::new(1.0, 2.0, 1), &tokens), [0.0, 0.0, 1.0, 4.0, 2.0, 0.0]);
        near(penalties(Dry::new(1.0, 2.0, 1).last_n(5), &tokens), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        near(penalties(Dry::new(1.0, 2.0, 1).breaker(&[1]), &tokens), [0.0, 0.0, 1.0, 2.0, 2.0, 0.0]);
        near(penalties(Dry::new(1.0, 2.0, 1).breaker(&[2, 3]), &tokens), [0.0; 6]);
        near(penalties(Dry::new(1.0, 2.0, 1).breaker(&[4]), &tokens), [0.0, 0.0, 1.0, 4.0, 0.0, 0.0]);
    }
}
