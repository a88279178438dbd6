//! What keeps groups of beams apart.

use super::{Context, Processor, Scores};

/// Lowers the score of a token for every beam of another group that has chosen it at the same position.
///
/// Equals transformers' `HammingDiversityLogitsProcessor`, up to 4.53: Vijayakumar et al. 2018, "Diverse Beam Search".
#[derive(Clone, Debug)]
pub struct HammingDiversity(f32);

impl HammingDiversity {
    /// Takes what a token loses for each of these beams.
    #[must_use]
    pub fn new(penalty: f64) -> Self {
        Self(penalty as f32)
    }
}

impl Processor for HammingDiversity {
    fn name(&self) -> &'static str {
        "diversity_penalty"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let others = context.others;
        for (index, &id) in others.iter().enumerate() {
            // All at once, as in transformers: one rounding, not one for each.
            if (id as usize) < scores.vocabulary() && !others[..index].contains(&id) {
                let count = others.iter().filter(|&&other| other == id).count();
                scores.put(id, scores.score(id) - self.0 * count as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_loses_as_often_as_it_was_chosen() {
        let mut scores = Scores::default();
        scores.set(&[1.0, 2.0, f32::NEG_INFINITY, 4.0]);
        // The last stands for what is behind an end, and is in no vocabulary.
        let context = Context { others: &[1, 2, 0, 1, 9], ..Context::default() };
        HammingDiversity::new(0.5).process(&context, &mut scores);
        assert_eq!(scores.all(), [0.5, 1.0, f32::NEG_INFINITY, 4.0]);
    }
}
