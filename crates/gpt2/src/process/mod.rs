//! What happens to the logits before a token is chosen.
//!
//! Processors change scores in place, in transformers' order: temperature, then `top_k`, then
//! `top_p`. A token that is ruled out has the score `-inf`.

mod temperature;
mod top_k;
mod top_p;

pub use temperature::Temperature;
pub use top_k::TopK;
pub use top_p::TopP;

/// One step of the chain between the logits and the choice of a token.
///
/// This is the one open set of the library: a user's own processor joins by implementing it.
pub trait Processor: Send {
    /// Changes the scores (V) of what follows `tokens`, the prompt included.
    fn process(&mut self, tokens: &[u32], scores: &mut [f32]);
}
