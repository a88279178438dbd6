//! Classifier-free guidance: the text is pushed away from what the model would say without the prompt.
//!
//! Sanchez et al., "Stay on topic with Classifier-Free Guidance" (2023), as transformers'
//! `UnbatchedClassifierFreeGuidanceLogitsProcessor`: both sides go on with the tokens that are chosen, and the
//! processors see `scale * (conditional - unconditional) + unconditional`, of log-probabilities.

use super::GenerateError;
use super::config::GenerationConfig;
use super::core::Core;
use crate::cache::KvCache;
use crate::model::{Model, StepError};
use crate::predict::{normaliser, prefill};
use crate::process::Scores;
use crate::workspace::Workspace;

/// The other side of a prompt.
pub(super) struct Guidance {
    scale: f32,
    /// The unconditional context but for its last token.
    pub(super) cache: KvCache,
}

/// The unconditional context, if a configuration asks for guidance: the negative prompt, the beginning-of-text token
/// for an empty one, or the prompt's last token if there is none.
///
/// # Errors
/// If the negative prompt has a token that is not in the vocabulary or does not fit into the context, or is empty and
/// there is no beginning-of-text token.
pub(super) fn context(
    model: &Model,
    config: &GenerationConfig,
    prompt: &[u32],
    negative: Option<Vec<u32>>,
) -> Result<Option<Vec<u32>>, GenerateError> {
    if !config.guides() {
        return Ok(None);
    }
    let mut tokens = negative.unwrap_or_else(|| prompt[prompt.len() - 1..].to_vec());
    if tokens.is_empty() {
        tokens.extend(config.bos_token_id.unwrap_or(model.config().bos_token_id));
    }
    if tokens.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    model.check_tokens(&tokens)?;
    let (new, context) = (tokens.len(), model.config().n_positions);
    if new > context {
        return Err(StepError::Context { past: 0, new, context }.into());
    }
    Ok(Some(tokens))
}

impl Guidance {
    /// Feeds the unconditional context but for its last token; the logits behind the prompt are lost.
    pub(super) fn new(core: &Core<'_>, work: &mut Workspace) -> Result<Option<Self>, GenerateError> {
        let (Some(scale), Some(context)) = (core.config.guidance_scale, &core.unconditional) else {
            return Ok(None);
        };
        let mut cache = KvCache::new(core.model);
        if context.len() > 1 {
            prefill(core.model, &context[..context.len() - 1], &mut cache, work)?;
        }
        Ok(Some(Self { scale: scale as f32, cache }))
    }

    /// Makes the scores of a sequence from its own, which are the conditional logits, whose `ln Σ exp` is
    /// `conditional`, and from the unconditional ones.
    pub(super) fn apply(&self, model: &Model, logits: &[f32], conditional: f32, scores: &mut Scores) {
        // Logits that are no numbers make scores that are none, which are refused when a token is chosen.
        let unconditional = normaliser(model, logits, 0).unwrap_or(f32::NAN);
        scores.map(|id, score| {
            let other = logits[id as usize] - unconditional;
            self.scale * ((score - conditional) - other) + other
        });
    }
}
