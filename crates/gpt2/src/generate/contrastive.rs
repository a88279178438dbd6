//! Contrastive search: of the likeliest tokens, the one whose hidden state least resembles those before it.
//!
//! Su et al., "A Contrastive Framework for Neural Text Generation" (2022), as transformers' `_contrastive_search`
//! (up to 4.53): the candidates are the `top_k` likeliest tokens by the processed scores, all are fed to the model, and
//! `(1 - penalty_alpha) * probability - penalty_alpha * similarity` decides, where the similarity is the largest cosine
//! between the hidden state behind the candidate and those behind all positions so far, `ln_f` applied. Other than
//! there, tokens that the processors rule out are no candidates.

use std::collections::VecDeque;

use gpt2_kernels::math::exp_alone;
use gpt2_kernels::{RowBuffer, Rows, ops};

use super::core::Core;
use super::plain::recycled;
use super::{FinishReason, GenerateError, GeneratedToken};
use crate::cache::KvCache;
use crate::model::{Model, Step, Want};
use crate::probe::{Probe, Site};
use crate::process::{Context, Scores};
use crate::workspace::Workspace;

/// The one sequence of a prompt.
pub(super) struct Contrastive<'m> {
    /// Prompt and generated tokens; all are in the cache.
    tokens: Vec<u32>,
    cache: KvCache,
    /// The row of the logits behind the last token.
    row: usize,
    hidden: Hidden<'m>,
    /// `1 - penalty_alpha` and `penalty_alpha`.
    weights: (f32, f32),
    top_k: usize,
    /// Every token that is left, with its score; kept for its allocation, as are the next two.
    ranked: Vec<(f32, u32)>,
    candidates: Vec<Candidate>,
    /// Empty but during a forward pass.
    steps: Vec<Step<'m>>,
    finish: Option<FinishReason>,
}

/// A token that may come next.
struct Candidate {
    id: u32,
    probability: f32,
    /// By the model: its logits make room for the candidates' own.
    logprob: f32,
    /// Which of the candidates it is, and so the row of its hidden state and logits.
    row: usize,
    /// A fork behind the token.
    cache: KvCache,
    similarity: f32,
}

/// The directions of the hidden states that went by: those of the text, then those of the candidates.
pub(super) struct Hidden<'m> {
    model: &'m Model,
    /// The hidden states of a batch. (M, C)
    normed: RowBuffer,
    /// Vectors of length 1. (positions + candidates, C)
    directions: Vec<f32>,
}

impl<'m> Hidden<'m> {
    /// Makes room for batches of up to `tokens` tokens.
    pub(super) fn new(model: &'m Model, tokens: usize) -> Self {
        Self { model, normed: RowBuffer::new(tokens, model.config().n_embd), directions: Vec::new() }
    }
}

impl Probe for Hidden<'_> {
    fn observe(&mut self, site: Site, rows: Rows<'_>) {
        let Self { model, normed, directions } = self;
        let config = model.config();
        if site != Site::Residual(config.n_layer - 1) {
            return;
        }
        let (ln_f, count) = (&model.weights().ln_f, rows.count());
        let epsilon = config.layer_norm_epsilon;
        ops::layer_norm(model.cpu(), rows, &ln_f.weight, &ln_f.bias, epsilon, normed.rows_mut(count));
        for row in 0..count {
            let hidden = normed.row(row);
            let length = dot(hidden, hidden).sqrt();
            directions.extend(hidden.iter().map(|x| x / length));
        }
    }
}

impl<'m> Contrastive<'m> {
    /// Takes the number of candidates, the prompt's cache and the hidden states that went by when it was filled.
    pub(super) fn new(core: &Core<'m>, top_k: usize, cache: KvCache, mut hidden: Hidden<'m>) -> Self {
        let alpha = core.config.penalty_alpha.unwrap_or(0.0);
        let mut tokens = Vec::with_capacity(core.limit.tokens);
        tokens.extend_from_slice(&core.prompt);
        hidden
            .directions
            .reserve((core.limit.tokens - tokens.len()).saturating_add(top_k) * core.model.config().n_embd);
        Self {
            tokens,
            cache,
            row: 0,
            hidden,
            weights: ((1.0 - alpha) as f32, alpha as f32),
            top_k,
            ranked: Vec::with_capacity(core.model.config().vocab_size),
            candidates: Vec::with_capacity(top_k),
            steps: Vec::with_capacity(top_k),
            finish: None,
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.finish.is_some()
    }

    pub(super) fn stop(&mut self, sequence: usize, reason: FinishReason) {
        assert_eq!(sequence, 0, "contrastive search has one sequence");
        self.finish.get_or_insert(reason);
    }

    /// Chooses the next token.
    pub(super) fn advance(
        &mut self,
        core: &mut Core<'m>,
        work: &mut Workspace,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        let logits = work.logits(self.row + 1).row(self.row);
        let normaliser = core.process(logits, 0, &self.tokens)?;
        self.propose(&core.scores, logits, normaliser)?;
        self.forward(core.model, work);
        let Candidate { id, logprob, row, cache, .. } = self.best(core.model);
        let context = Context { tokens: &self.tokens, prompt: core.prompt.len(), ..Context::default() };
        core.chain.chosen(&context, &core.scores, id);
        self.row = row;
        self.cache = cache;
        self.tokens.push(id);
        self.finish = core.finish(0, &self.tokens);
        let (score, details) = (core.scores.score(id), core.details(id, None));
        ready.push_back(GeneratedToken { sequence: 0, id, logprob, score, finish: self.finish, details });
        Ok(())
    }

    /// Makes the likeliest tokens the candidates; of equals the lower id first. `normaliser` is `ln Σ exp` of the
    /// logits.
    fn propose(&mut self, scores: &Scores, logits: &[f32], normaliser: f32) -> Result<(), GenerateError> {
        let Self { ranked, candidates, .. } = self;
        let position = self.tokens.len();
        if !scores.are_numbers() {
            return Err(GenerateError::Scores { position });
        }
        let (_, highest) = scores.best().ok_or(GenerateError::NoTokenLeft { position })?;
        let mut sum = 0.0;
        ranked.clear();
        scores.candidates(|id, score| {
            sum += f64::from(exp_alone(score - highest));
            // Adding zero makes -0 equal to 0, in the order too.
            ranked.push((score + 0.0, id));
        });
        let likelier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if self.top_k < ranked.len() {
            ranked.select_nth_unstable_by(self.top_k, likelier);
            ranked.truncate(self.top_k);
        }
        ranked.sort_unstable_by(likelier);
        candidates.clear();
        candidates.extend(ranked.iter().enumerate().map(|(row, &(score, id))| {
            let probability = (f64::from(exp_alone(score - highest)) / sum) as f32;
            let logprob = logits[id as usize] - normaliser;
            Candidate { id, probability, logprob, row, cache: self.cache.fork(), similarity: 0.0 }
        }));
        Ok(())
    }

    /// Feeds all candidates, each to its own fork of the cache.
    fn forward(&mut self, model: &'m Model, work: &mut Workspace) {
        let mut batch = recycled(std::mem::take(&mut self.steps));
        batch.extend(self.candidates.iter_mut().map(|Candidate { id, cache, .. }| {
            Step::new(model, std::slice::from_ref(id), cache, Want::Last)
                .expect("a sequence at its limit is finished, and tokens come from the vocabulary")
        }));
        model.forward_probed(&mut batch, work, &mut self.hidden);
        self.steps = recycled(batch);
    }

    /// Takes out the best candidate, and leaves its hidden state as that of the text's last position.
    fn best(&mut self, model: &Model) -> Candidate {
        let width = model.config().n_embd;
        let directions = &mut self.hidden.directions;
        let (context, new) = directions.split_at(self.tokens.len() * width);
        ops::for_each_mut(model.cpu(), &mut self.candidates, |candidate| {
            let direction = &new[candidate.row * width..][..width];
            let cosines = context.chunks_exact(width).map(|past| dot(past, direction));
            candidate.similarity = cosines.fold(f32::NEG_INFINITY, f32::max);
        });
        let score = |c: &Candidate| self.weights.0 * c.probability - self.weights.1 * c.similarity;
        let candidates = &self.candidates;
        let best = (1..candidates.len())
            .fold(0, |best, row| if score(&candidates[row]) > score(&candidates[best]) { row } else { best });
        let start = (self.tokens.len() + best) * width;
        directions.copy_within(start..start + width, self.tokens.len() * width);
        directions.truncate((self.tokens.len() + 1) * width);
        self.candidates.swap_remove(best)
    }
}

/// The dot product: element i goes into partial sum `i % 16`, and a tree adds the sixteen.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_takes_every_element_once() {
        for length in [0, 1, 15, 16, 17, 47, 100] {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..length).map(|i| (i % 3) as f32).collect();
            let expected: usize = (0..length).map(|i| i * (i % 3)).sum();
            assert_eq!(dot(&a, &b), expected as f32, "{length}");
        }
    }
}
