//! The scores of all tokens, and which of them are left.

/// A score for every token of the vocabulary; `-inf` for one that is ruled out. (V)
///
/// Where only few tokens are left it knows which, so that the steps behind `top_k` need not go through the whole
/// vocabulary: [`candidates`](Self::candidates), [`keep`](Self::keep) and [`map`](Self::map) are the quick ways, and
/// [`all`](Self::all) the plain one.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// The scores. Where `few`, those of all tokens but `left` may be anything, and stand for `-inf`.
    values: Vec<f32>,
    /// The tokens that are left, ascending; unused unless `few`.
    left: Vec<u32>,
    few: bool,
}

impl Scores {
    /// Makes room for the scores of a vocabulary.
    #[must_use]
    pub fn with_capacity(vocabulary: usize) -> Self {
        Self { values: Vec::with_capacity(vocabulary), left: Vec::with_capacity(vocabulary), few: false }
    }

    /// Begins anew with these scores.
    pub fn set(&mut self, scores: &[f32]) {
        self.values.clear();
        self.values.extend_from_slice(scores);
        self.few = false;
    }

    /// Calls `f` with every token that is left and its score, in the order of their ids.
    pub fn candidates(&self, mut f: impl FnMut(u32, f32)) {
        if self.few {
            for &id in &self.left {
                let score = self.values[id as usize];
                if score > f32::NEG_INFINITY {
                    f(id, score);
                }
            }
        } else {
            for (id, &score) in self.values.iter().enumerate() {
                if score > f32::NEG_INFINITY {
                    f(id as u32, score);
                }
            }
        }
    }

    /// Rules out all tokens but those that are left and for which `keep` is true; it is called in the order of ids.
    pub fn keep(&mut self, mut keep: impl FnMut(u32, f32) -> bool) {
        let Self { values, left, few } = self;
        if *few {
            left.retain(|&id| keep(id, values[id as usize]));
        } else {
            left.clear();
            left.extend((0..values.len() as u32).filter(|&id| {
                let score = values[id as usize];
                score > f32::NEG_INFINITY && keep(id, score)
            }));
            *few = true;
        }
    }

    /// Replaces the score of every token that is left.
    pub fn map(&mut self, mut f: impl FnMut(u32, f32) -> f32) {
        let Self { values, left, few } = self;
        if *few {
            for &id in &*left {
                values[id as usize] = f(id, values[id as usize]);
            }
        } else {
            for (id, score) in values.iter_mut().enumerate() {
                *score = f(id as u32, *score);
            }
        }
    }

    /// All scores, to be looked at and changed. (V)
    pub fn all(&mut self) -> &mut [f32] {
        if std::mem::take(&mut self.few) {
            let mut left = self.left.iter().peekable();
            for (id, score) in self.values.iter_mut().enumerate() {
                if left.next_if(|&&left| left as usize == id).is_none() {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        &mut self.values
    }

    /// The score of one token.
    ///
    /// # Panics
    /// Panics if the vocabulary has no such token, here and in [`put`](Self::put).
    #[must_use]
    pub fn score(&self, id: u32) -> f32 {
        if self.knows(id) { self.values[id as usize] } else { f32::NEG_INFINITY }
    }

    /// Changes the score of one token; `-inf` rules it out.
    pub fn put(&mut self, id: u32, score: f32) {
        if self.knows(id) {
            self.values[id as usize] = score;
        } else if score != f32::NEG_INFINITY {
            self.all()[id as usize] = score;
        }
    }

    /// Whether what `values` holds for a token is its score.
    fn knows(&self, id: u32) -> bool {
        !self.few || self.left.binary_search(&id).is_ok()
    }

    /// The highest score and its token, the first of several; NaN is never highest. None if no token is left.
    #[must_use]
    pub fn best(&self) -> Option<(u32, f32)> {
        let mut best = None;
        if self.few {
            self.candidates(|id, score| {
                if best.is_none_or(|(_, highest)| score > highest) {
                    best = Some((id, score));
                }
            });
            best
        } else {
            let id = crate::logits::argmax(&self.values);
            let score = self.values[id];
            (score > f32::NEG_INFINITY).then_some((id as u32, score))
        }
    }

    /// Whether the softmax of the scores is defined: none is NaN or positive infinity.
    #[must_use]
    pub fn are_numbers(&self) -> bool {
        if self.few {
            self.left.iter().all(|&id| self.values[id as usize] < f32::INFINITY)
        } else {
            self.values
                .chunks(64)
                .all(|chunk| chunk.iter().fold(true, |all, &score| all & (score < f32::INFINITY)))
        }
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(scores: &Scores) -> Vec<(u32, f32)> {
        let mut found = Vec::new();
        scores.candidates(|id, score| found.push((id, score)));
        found
    }

    #[test]
    fn what_is_ruled_out_stays_so_until_it_is_put_back() {
        let mut scores = Scores::with_capacity(5);
        scores.set(&[3.0, f32::NEG_INFINITY, 1.0, 5.0, 2.0]);
        scores.keep(|_, score| score < 4.0);
        assert_eq!(candidates(&scores), [(0, 3.0), (2, 1.0), (4, 2.0)]);
        assert_eq!((scores.score(3), scores.score(4)), (f32::NEG_INFINITY, 2.0));
        scores.map(|_, score| 2.0 * score);
        scores.keep(|id, _| id != 0);
        scores.put(4, f32::NEG_INFINITY);
        assert_eq!(candidates(&scores), [(2, 2.0)]);
        scores.put(1, f32::NEG_INFINITY);
        assert_eq!(scores.best(), Some((2, 2.0)));
        scores.put(3, 7.0);
        let gone = f32::NEG_INFINITY;
        assert_eq!(scores.all(), [gone, gone, 2.0, 7.0, gone]);
        assert_eq!(scores.best(), Some((3, 7.0)));
        scores.keep(|_, _| false);
        assert_eq!(scores.best(), None);
    }
}
