//! Tokens that a function of the caller's allows.

use super::{Context, Processor, Scores};

/// Tells which tokens may follow a text.
pub(crate) type Allowed = Box<dyn FnMut(&Context<'_>) -> Vec<u32> + Send>;

/// Leaves only the tokens that a function of the text allows.
///
/// Equals transformers' `PrefixConstrainedLogitsProcessor`, where there is one beam: if all that is allowed is ruled
/// out already, it is let in again with a score of 0. With several beams that beam ends instead. If nothing is allowed,
/// no token is left, which is an error where one is chosen. Ids that are not in the vocabulary allow nothing.
pub struct PrefixAllowedTokens {
    allowed: Allowed,
    beams: usize,
}

impl PrefixAllowedTokens {
    /// Takes the function, and the number of beams.
    pub fn new(allowed: impl FnMut(&Context<'_>) -> Vec<u32> + Send + 'static, beams: usize) -> Self {
        Self { allowed: Box::new(allowed), beams }
    }
}

impl Processor for PrefixAllowedTokens {
    fn name(&self) -> &'static str {
        "prefix_allowed_tokens_fn"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let mut ids = (self.allowed)(context);
        ids.retain(|&id| (id as usize) < scores.vocabulary());
        ids.sort_unstable();
        scores.keep(|id, _| ids.binary_search(&id).is_ok());
        if self.beams == 1 && scores.best().is_none() {
            ids.iter().for_each(|&id| scores.put(id, 0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_comes_back_if_nothing_else_is_left() {
        let gone = f32::NEG_INFINITY;
        let after = |allowed: &'static [u32], beams| {
            let mut scores = Scores::default();
            scores.set(&[1.0, 2.0, gone, gone]);
            let context = Context { tokens: &[1], prompt: 1, ..Context::default() };
            PrefixAllowedTokens::new(|_| allowed.to_vec(), beams).process(&context, &mut scores);
            scores.all().to_vec()
        };
        assert_eq!(after(&[2, 1, 9], 1), [gone, 2.0, gone, gone]);
        assert_eq!(after(&[2, 3], 1), [gone, gone, 0.0, 0.0]);
        assert_eq!(after(&[2, 3], 2), [gone; 4]);
        assert_eq!(after(&[], 1), [gone; 4]);
    }
}
