//! Tokens that are not chosen.

use super::{Context, Processor, Scores};

/// Rules out tokens, always or at the beginning.
///
/// Equals transformers' `SuppressTokensLogitsProcessor` and `SuppressTokensAtBeginLogitsProcessor`.
#[derive(Clone, Debug)]
pub struct SuppressTokens {
    ids: Vec<u32>,
    /// Whether only a first token is meant; if so, how many others come before it.
    first: Option<usize>,
}

impl SuppressTokens {
    /// Takes the tokens that are never chosen.
    #[must_use]
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, first: None }
    }

    /// Takes the tokens that are not chosen first; or not second, where the first one is forced.
    #[must_use]
    pub fn at_begin(ids: Vec<u32>, forced: bool) -> Self {
        Self { ids, first: Some(usize::from(forced)) }
    }
}

impl Processor for SuppressTokens {
    fn name(&self) -> &'static str {
        if self.first.is_some() { "begin_suppress_tokens" } else { "suppress_tokens" }
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        // A first token is forced only behind a prompt of one.
        let begin = self.first.map(|forced| if context.prompt > 1 { 0 } else { forced });
        if begin.is_none_or(|begin| context.generated() == begin) {
            self.ids.iter().for_each(|&id| scores.put(id, f32::NEG_INFINITY));
        }
    }
}
