//! What is added to the score of the token that completes a phrase.

use super::{Context, Processor, Scores};

/// Adds a bias to the token that completes a phrase; to one that is a phrase of its own, always.
///
/// Equals transformers' `SequenceBiasLogitsProcessor`, and, with biases of `-inf`, its `NoBadWordsLogitsProcessor`.
/// Biases of different phrases that hit one token add up; of equal phrases the last counts.
#[derive(Clone, Debug)]
pub struct SequenceBias {
    name: &'static str,
    /// Phrases of one token first.
    phrases: Vec<(Vec<u32>, f32)>,
    /// What is to be added, by token; kept for its allocation.
    sums: Vec<(u32, f32)>,
}

impl SequenceBias {
    /// Takes phrases and their biases.
    ///
    /// # Panics
    /// Panics if a phrase is empty.
    #[must_use]
    pub fn new(phrases: &[(Vec<u32>, f64)]) -> Self {
        assert!(phrases.iter().all(|(phrase, _)| !phrase.is_empty()), "sequence_bias of an empty phrase");
        let mut distinct: Vec<(Vec<u32>, f32)> = Vec::with_capacity(phrases.len());
        for (phrase, bias) in phrases {
            match distinct.iter_mut().find(|(other, _)| other == phrase) {
                Some((_, other)) => *other = *bias as f32,
                None => distinct.push((phrase.clone(), *bias as f32)),
            }
        }
        distinct.sort_by_key(|(phrase, _)| phrase.len() > 1);
        Self { name: "sequence_bias", phrases: distinct, sums: Vec::new() }
    }

    /// Rules out tokens that would complete one of these phrases.
    ///
    /// A phrase that is an end token and nothing else is left out, as transformers does: to keep a text from
    /// ending there are `min_new_tokens` and `suppress_tokens`.
    ///
    /// # Panics
    /// Panics if a phrase is empty.
    #[must_use]
    pub fn bad_words(phrases: &[Vec<u32>], eos_token_ids: &[u32]) -> Self {
        let is_eos = |phrase: &[u32]| matches!(phrase, [id] if eos_token_ids.contains(id));
        let biased: Vec<(Vec<u32>, f64)> = phrases
            .iter()
            .filter(|phrase| !is_eos(phrase))
            .map(|phrase| (phrase.clone(), f64::NEG_INFINITY))
            .collect();
        Self { name: "bad_words_ids", ..Self::new(&biased) }
    }
}

impl Processor for SequenceBias {
    fn name(&self) -> &'static str {
        self.name
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        self.sums.clear();
        for (phrase, bias) in &self.phrases {
            if let Some((&last, begin)) = phrase.split_last()
                && context.tokens.ends_with(begin)
            {
                match self.sums.iter_mut().find(|(id, _)| *id == last) {
                    Some((_, sum)) => *sum += bias,
                    None => self.sums.push((last, *bias)),
                }
            }
        }
        for &(id, bias) in &self.sums {
            scores.put(id, scores.score(id) + bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_word_is_ruled_out_only_where_it_would_be_completed() {
        let mut processor = SequenceBias::bad_words(&[vec![1, 2], vec![3], vec![0]], &[0]);
        let mut after = |tokens: &[u32]| {
            let mut scores = Scores::default();
            scores.set(&[1.0; 4]);
            processor.process(&Context { tokens, prompt: 1, ..Context::default() }, &mut scores);
            scores.all().to_vec()
        };
        assert_eq!(after(&[2, 1]), [1.0, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert_eq!(after(&[1, 2]), [1.0, 1.0, 1.0, f32::NEG_INFINITY]);
    }
}
