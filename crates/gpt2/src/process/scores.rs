//! The scores of all tokens, and which of them are left.

use crate::logits::{STRETCH, largest};

/// A score for every token of the vocabulary; `-inf` for one that is ruled out. (V)
///
/// Where only few tokens are left it knows which, so that the steps behind `top_k` need not go through the whole
/// vocabulary: [`candidates`](Self::candidates), [`keep`](Self::keep) and [`map`](Self::map) are the quick ways, and
/// [`all`](Self::all) the plain one.
#[derive(Clone, Debug)]
pub struct Scores {
    /// The scores. Where `few`, those of all tokens but `left` may be anything, and stand for `-inf`.
    values: Vec<f32>,
    /// The tokens that are left, ascending; unused unless `few`.
    left: Vec<u32>,
    few: bool,
    /// What all values are still to be divided by. It is 1 where `few`.
    divisor: f32,
}

impl Default for Scores {
    fn default() -> Self {
        Self { values: Vec::new(), left: Vec::new(), few: false, divisor: 1.0 }
    }
}

impl Scores {
    /// Makes room for the scores of a vocabulary.
    #[must_use]
    pub fn with_capacity(vocabulary: usize) -> Self {
        let (values, left) = (Vec::with_capacity(vocabulary), Vec::with_capacity(vocabulary));
        Self { values, left, ..Self::default() }
    }

    /// Begins anew with these scores.
    pub fn set(&mut self, scores: &[f32]) {
        self.values.clear();
        self.values.extend_from_slice(scores);
        self.few = false;
        self.divisor = 1.0;
    }

    /// Divides the scores of all tokens that are left. Where these are many it is put off: `top_k` will leave few.
    pub(super) fn divide(&mut self, by: f32) {
        if self.few || self.divisor != 1.0 {
            self.map(|_, score| score / by);
        } else {
            self.divisor = by;
        }
    }

    /// Does what was put off.
    fn settle(&mut self) {
        let divisor = std::mem::replace(&mut self.divisor, 1.0);
        if divisor != 1.0 {
            self.values.iter_mut().for_each(|value| *value /= divisor);
        }
    }

    /// The k-th highest score of those left, or `-inf` if there are fewer than k; `room` is there to be used again.
    pub(super) fn highest(&self, k: usize, room: &mut Vec<f32>) -> f32 {
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        let nth = |scores: &mut [f32]| match k.checked_sub(1).filter(|&index| index < scores.len()) {
            Some(index) => *scores.select_nth_unstable_by(index, descending).1,
            None => f32::NEG_INFINITY,
        };
        room.clear();
        if self.few {
            self.candidates(|_, score| room.push(score));
            return nth(room);
        }
        // As many stretches hold a score as high as the k-th of their largest: the k-th of all is not below that.
        room.extend(self.values.chunks(STRETCH).map(largest));
        let bound = nth(room);
        room.clear();
        for stretch in self.values.chunks(STRETCH).filter(|stretch| largest(stretch) >= bound) {
            room.extend(stretch.iter().filter(|&&score| score >= bound && score > f32::NEG_INFINITY));
        }
        // Division keeps the order, so that the k-th stays the k-th.
        nth(room) / self.divisor
    }

    /// Rules out all tokens whose score is below `lowest`.
    pub(super) fn keep_from(&mut self, lowest: f32) {
        let Self { values, left, few, divisor } = self;
        let raw = lowest * *divisor;
        if *few || !(raw.is_finite() && lowest.abs() > f32::MIN_POSITIVE && raw.abs() > f32::MIN_POSITIVE) {
            return self.keep(|_, score| score >= lowest);
        }
        // Below this by more than all rounding, no quotient can be `lowest`.
        let raw = raw - raw.abs() * 1e-6;
        left.clear();
        for (stretch, scores) in values.chunks_mut(STRETCH).enumerate() {
            if largest(scores) >= raw {
                for (index, score) in scores.iter_mut().enumerate().filter(|(_, score)| **score >= raw) {
                    let divided = *score / *divisor;
                    if divided >= lowest {
                        *score = divided;
                        left.push((stretch * STRETCH + index) as u32);
                    }
                }
            }
        }
        *few = true;
        *divisor = 1.0;
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
                let score = if self.divisor == 1.0 { score } else { score / self.divisor };
                if score > f32::NEG_INFINITY {
                    f(id as u32, score);
                }
            }
        }
    }

    /// Rules out all tokens but those that are left and for which `keep` is true; it is called in the order of ids.
    pub fn keep(&mut self, mut keep: impl FnMut(u32, f32) -> bool) {
        self.settle();
        let Self { values, left, few, .. } = self;
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

    /// Rules out all tokens but these, ascending, which are in the vocabulary.
    pub(super) fn keep_ids(&mut self, ids: &[u32]) {
        if self.few {
            self.left.retain(|id| ids.binary_search(id).is_ok());
            return;
        }
        self.settle();
        let Self { values, left, few, .. } = self;
        left.clear();
        left.extend(ids.iter().filter(|&&id| values[id as usize] > f32::NEG_INFINITY));
        *few = true;
    }

    /// Rules out these tokens, ascending, which are in the vocabulary.
    pub(super) fn rule_out(&mut self, ids: &[u32]) {
        if self.few {
            self.left.retain(|id| ids.binary_search(id).is_err());
        } else {
            self.settle();
            ids.iter().for_each(|&id| self.values[id as usize] = f32::NEG_INFINITY);
        }
    }

    /// Replaces the score of every token that is left.
    pub fn map(&mut self, mut f: impl FnMut(u32, f32) -> f32) {
        self.settle();
        let Self { values, left, few, .. } = self;
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
        self.settle();
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
        if self.knows(id) { self.values[id as usize] / self.divisor } else { f32::NEG_INFINITY }
    }

    /// Changes the score of one token; `-inf` rules it out.
    pub fn put(&mut self, id: u32, score: f32) {
        self.settle();
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
        if self.few || self.divisor != 1.0 {
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
            let divisor = self.divisor;
            let number = |score: f32| {
                if divisor == 1.0 { score < f32::INFINITY } else { score / divisor < f32::INFINITY }
            };
            self.values
                .chunks(STRETCH)
                .all(|stretch| stretch.iter().fold(true, |all, &score| all & number(score)))
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
    fn what_is_put_off_shows_nowhere() {
        // Many scores, of which some are equal only once they are divided.
        let mut raw: Vec<f32> =
            (0..1000).map(|i| (f32::from_bits(0x4000_0000 + (i * 7919) % 64) - 2.0) * 1e5 + 3.0).collect();
        // A number that dividing by less than 1 makes none.
        raw[500] = f32::MIN;
        for divisor in [0.7, 1.3, 3.0, 1e-30, 1e30, f32::MIN_POSITIVE] {
            let mut at_once = Scores::default();
            at_once.set(&raw);
            at_once.map(|_, score| score / divisor);
            let put_off = || {
                let mut scores = Scores::default();
                scores.set(&raw);
                scores.divide(divisor);
                scores
            };
            assert_eq!(candidates(&put_off()), candidates(&at_once));
            assert_eq!((put_off().best(), put_off().score(7)), (at_once.best(), at_once.score(7)));
            assert_eq!(put_off().are_numbers(), at_once.are_numbers());
            assert_eq!(put_off().all(), at_once.clone().all());
            for k in [1, 5, 50, 900, 1000, 1001] {
                let mut few = put_off();
                let lowest = few.highest(k, &mut Vec::new());
                assert_eq!(lowest.to_bits(), at_once.highest(k, &mut Vec::new()).to_bits());
                few.keep_from(lowest);
                let mut expected = at_once.clone();
                expected.keep(|_, score| score >= lowest);
                assert_eq!(candidates(&few), candidates(&expected), "{k} by {divisor}");
            }
        }
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
