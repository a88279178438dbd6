//! Texts that have run into a loop.

use serde::Serialize;

/// A phrase that a text repeats until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Repetition {
    /// Tokens of the phrase.
    pub period: usize,
    /// How often it is there in full.
    pub count: usize,
    /// Where it begins, or its end, if the first time is not in full: the index of a token.
    pub start: usize,
}

impl Repetition {
    /// How often a phrase occurs at least.
    pub const LEAST_COUNT: usize = 3;

    /// How many tokens all of it has at least: an ellipsis, or a line drawn of a few dashes, is no loop.
    pub const LEAST_TOKENS: usize = 12;

    /// Finds the shortest phrase that a text ends with over and over: at least
    /// [`LEAST_COUNT`](Self::LEAST_COUNT) times, and for at least [`LEAST_TOKENS`](Self::LEAST_TOKENS) tokens.
    ///
    /// ```
    /// use gpt2::generate::Repetition;
    ///
    /// let text = [9, 7, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1];
    /// assert_eq!(Repetition::find(&text), Some(Repetition { period: 4, count: 3, start: 2 }));
    /// assert_eq!(Repetition::find(&text[..10]), None);
    /// ```
    #[must_use]
    pub fn find(tokens: &[u32]) -> Option<Self> {
        let length = tokens.len();
        let from_end = |index: usize| tokens[length - 1 - index];
        // The Z-function of the tokens read from the end (Gusfield 1997): how many of the last tokens are the same as
        // those `period` before them. Every token is compared once with success.
        let periods = length / Self::LEAST_COUNT;
        let mut same = vec![0; periods + 1];
        let (mut left, mut right) = (0, 0);
        for period in 1..=periods {
            let mut equal = if period < right { same[period - left].min(right - period) } else { 0 };
            while period + equal < length && from_end(equal) == from_end(period + equal) {
                equal += 1;
            }
            same[period] = equal;
            if period + equal > right {
                (left, right) = (period, period + equal);
            }
            let all = period + equal;
            if all >= Self::LEAST_TOKENS.max(Self::LEAST_COUNT * period) {
                return Some(Self { period, count: all / period, start: length - all });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every period and every length, one after the other.
    fn naive(tokens: &[u32]) -> Option<Repetition> {
        let length = tokens.len();
        (1..=length).find_map(|period| {
            let start = (0..length).find(|&start| {
                let stretch = &tokens[start..];
                stretch.len() < period || stretch.iter().zip(&stretch[period..]).all(|(a, b)| a == b)
            })?;
            let all = length - start;
            let loops = all >= 12 && all >= 3 * period;
            loops.then_some(Repetition { period, count: all / period, start })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_loop_is_found_as_by_trying_everything(
            before in prop::collection::vec(0u32..3, 0..12),
            phrase in prop::collection::vec(0u32..3, 1..9),
            length in 0usize..40,
            after in prop::collection::vec(0u32..3, 0..2),
        ) {
            let repeated = phrase.iter().cycle().take(length);
            let text: Vec<u32> = before.iter().chain(repeated).chain(&after).copied().collect();
            prop_assert_eq!(Repetition::find(&text), naive(&text));
        }
    }

    #[test]
    fn a_few_of_the_same_are_no_loop() {
        assert_eq!(Repetition::find(&[]), None);
        assert_eq!(Repetition::find(&[5; 11]), None);
        assert_eq!(Repetition::find(&[5; 12]), Some(Repetition { period: 1, count: 12, start: 0 }));
        let twice: Vec<u32> = (0..20).chain(0..20).collect();
        assert_eq!(Repetition::find(&twice), None);
        let thrice: Vec<u32> = (0..20).chain(0..20).chain(0..20).collect();
        assert_eq!(Repetition::find(&thrice), Some(Repetition { period: 20, count: 3, start: 0 }));
        // What came before does not hide it, and what comes after ends it.
        let mut text = vec![7, 8, 9];
        text.extend(&thrice);
        assert_eq!(Repetition::find(&text), Some(Repetition { period: 20, count: 3, start: 3 }));
        text.push(99);
        assert_eq!(Repetition::find(&text), None);
    }
}
