//! Words that must occur in a text, and how far a text has come with them.
//!
//! transformers' `beam_constraints.py`: one constraint after the other is fulfilled, in any order; a constraint that
//! was begun and is broken off begins anew, and the token that broke it off begins no other.

use super::config::ForcedWords;

/// The constraints of a generation.
pub(super) struct Constraints {
    list: Vec<Constraint>,
    /// Tokens of the longest phrase of all.
    longest: usize,
}

/// Phrases of which one must occur; none begins with another.
struct Constraint {
    phrases: Vec<Vec<u32>>,
    /// Tokens of the longest one.
    length: usize,
}

/// How far a text has come.
#[derive(Clone)]
pub(super) struct Progress {
    fulfilled: usize,
    /// The constraint that is being fulfilled, and the tokens of it that are there.
    begun: Option<(usize, Vec<u32>)>,
    /// The constraints that are not, those that were broken off last.
    pending: Vec<usize>,
}

impl Constraints {
    /// Takes words that were checked.
    pub(super) fn new(words: &[ForcedWords]) -> Self {
        let longest = |phrases: &[Vec<u32>]| phrases.iter().map(Vec::len).max().unwrap_or(0);
        let constraint = |phrases: Vec<Vec<u32>>| Constraint { length: longest(&phrases), phrases };
        let list: Vec<_> = words.iter().map(|words| constraint(words.phrases().to_vec())).collect();
        let longest = list.iter().map(|constraint| constraint.length).max().unwrap_or(0);
        Self { list, longest }
    }

    /// How far a text has come, its prompt included.
    pub(super) fn progress(&self, tokens: &[u32]) -> Progress {
        let mut progress = Progress { fulfilled: 0, begun: None, pending: (0..self.list.len()).collect() };
        for &token in tokens {
            self.add(&mut progress, token);
        }
        progress
    }

    /// Takes a text a token further.
    pub(super) fn add(&self, progress: &mut Progress, token: u32) {
        let (index, mut tokens) = match progress.begun.take() {
            Some((index, tokens)) if !self.list[index].next(&tokens).contains(&token) => {
                progress.pending.push(index);
                return;
            }
            Some(begun) => begun,
            None => {
                let begins = |&index: &usize| self.list[index].next(&[]).contains(&token);
                let Some(place) = progress.pending.iter().position(begins) else { return };
                (progress.pending.remove(place), Vec::new())
            }
        };
        tokens.push(token);
        if self.list[index].next(&tokens).is_empty() {
            progress.fulfilled += 1;
        } else {
            progress.begun = Some((index, tokens));
        }
    }

    /// The tokens that take a text further; one may be there twice.
    pub(super) fn next(&self, progress: &Progress) -> Vec<u32> {
        match &progress.begun {
            Some((index, tokens)) => self.list[*index].next(tokens),
            None => progress.pending.iter().flat_map(|&index| self.list[index].next(&[])).collect(),
        }
    }

    /// The bank of a text that one of its next tokens, forced, takes further.
    ///
    /// This is `step_sentence_constraint`, where copies of a constraint that is begun share their tokens: of several
    /// alternatives that go on from the same beginning, the first counts, and the others count as breaking it off.
    pub(super) fn forced(&self, progress: &mut Progress, token: u32) -> usize {
        let mut further = progress.clone();
        self.add(&mut further, token);
        if let Some((index, tokens)) = &mut progress.begun
            && self.list[*index].next(tokens).contains(&token)
        {
            tokens.push(token);
        }
        self.bank(&further)
    }

    /// The number that texts are sorted by: tokens of constraints that are there, as if all were equally long.
    pub(super) fn bank(&self, progress: &Progress) -> usize {
        let begun = progress
            .begun
            .as_ref()
            .map_or(0, |(index, tokens)| self.longest - (self.list[*index].length - tokens.len()));
        progress.fulfilled * self.longest + begun
    }
}

impl Constraint {
    /// The tokens that may follow the beginning of a phrase, in the order of the phrases.
    fn next(&self, begun: &[u32]) -> Vec<u32> {
        let mut next = Vec::new();
        for phrase in self.phrases.iter().filter(|phrase| phrase.starts_with(begun)) {
            next.extend(phrase.get(begun.len()).filter(|token| !next.contains(*token)).copied());
        }
        next
    }
}

impl Progress {
    /// Whether every constraint is fulfilled.
    pub(super) fn complete(&self) -> bool {
        self.begun.is_none() && self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_as_far_as_in_transformers() {
        let one_of = vec![vec![4], vec![5, 6], vec![5, 7, 8]];
        let two = Constraints::new(&[ForcedWords::Phrase(vec![1, 2, 3]), ForcedWords::OneOf(one_of)]);
        // Tokens, the bank, what would take them further, and whether that is all: as `ConstraintListState` has it.
        let cases: [(&[u32], usize, &[u32], bool); 9] = [
            (&[], 0, &[1, 4, 5], false),
            (&[1], 1, &[2], false),
            (&[1, 2], 2, &[3], false),
            (&[1, 2, 3], 3, &[4, 5], false),
            (&[5], 1, &[6, 7], false),
            (&[5, 6], 3, &[1], false),
            // What breaks a phrase off begins no other, not even the same again.
            (&[1, 1], 0, &[4, 5, 1], false),
            (&[1, 4, 2], 0, &[4, 5, 1], false),
            (&[5, 7, 8, 9, 1, 2, 3, 1], 6, &[], true),
        ];
        for (tokens, bank, next, complete) in cases {
            let progress = two.progress(tokens);
            assert_eq!(
                (two.bank(&progress), &*two.next(&progress), progress.complete()),
                (bank, next, complete),
                "{tokens:?}"
            );
        }
    }
}
