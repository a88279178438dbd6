//! What all searches with beams have in common: texts that go on as a batch, and what is given out of them.

use std::collections::VecDeque;

use super::core::Core;
use super::details::Details;
use super::plain::recycled;
use super::{FinishReason, GeneratedToken};
use crate::cache::KvCache;
use crate::model::{Model, Step, Want};
use crate::workspace::Workspace;

/// What a score loses to be worse than any other: as in transformers.
pub(super) const FAR_BELOW: f32 = -1.0e9;

/// A text that goes on.
pub(super) struct Beam {
    pub(super) cache: KvCache,
    pub(super) text: Text,
    /// The sum of its scores.
    pub(super) score: f32,
}

/// Tokens and what was said of them.
#[derive(Clone)]
pub(super) struct Text {
    /// Prompt and continuation.
    pub(super) tokens: Vec<u32>,
    /// Of the continuation, by the model.
    pub(super) logprobs: Vec<f32>,
    /// Of the continuation, after the processors: what was added to the beam's score.
    pub(super) scores: Vec<f32>,
    /// Of the continuation; empty unless it was asked for.
    pub(super) details: Vec<Details>,
}

/// What the model says of the token behind a beam.
pub(super) struct Prediction<'w> {
    /// (V)
    logits: &'w [f32],
    /// Their `ln Σ exp`.
    normaliser: f32,
}

impl<'w> Prediction<'w> {
    /// Takes a row of logits and their `ln Σ exp`.
    pub(super) fn new(logits: &'w [f32], normaliser: f32) -> Self {
        Self { logits, normaliser }
    }

    pub(super) fn logprob(&self, token: u32) -> f32 {
        self.logits[token as usize] - self.normaliser
    }
}

/// A beam and a token behind it.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) beam: usize,
    pub(super) token: u32,
    /// The beam's score with the token's added.
    pub(super) score: f32,
}

/// Makes beams of a prompt. All begin with the same text: but for the first they are as good as not there.
pub(super) fn begin(count: usize, core: &Core<'_>, cache: &KvCache) -> Vec<Beam> {
    let (logprobs, scores, details) = (Vec::new(), Vec::new(), Vec::new());
    let text = Text { tokens: core.prompt.clone(), logprobs, scores, details };
    let score = |index| if index == 0 { 0.0 } else { FAR_BELOW };
    (0..count).map(|index| Beam { cache: cache.fork(), text: text.clone(), score: score(index) }).collect()
}

/// Feeds the last token of every beam.
pub(super) fn forward<'m, 'b>(
    beams: impl Iterator<Item = &'b mut Beam>,
    steps: &mut Vec<Step<'m>>,
    model: &'m Model,
    work: &mut Workspace,
) {
    let mut batch = recycled(std::mem::take(steps));
    batch.extend(beams.map(|Beam { cache, text, .. }| {
        Step::new(model, &text.tokens[text.tokens.len() - 1..], cache, Want::Last)
            .expect("a beam at its limit is finished, and tokens come from the vocabulary")
    }));
    model.forward(&mut batch, work);
    *steps = recycled(batch);
}

/// The caches of the beams that go on: the last child of a beam has its parent's, the others share its blocks.
pub(super) fn hand_over(running: &mut Vec<Beam>, parents: &[usize]) -> Vec<KvCache> {
    let mut caches: Vec<Option<KvCache>> = running.drain(..).map(|beam| Some(beam.cache)).collect();
    let of = |index: usize| {
        let parent = parents[index];
        let last = !parents[index + 1..].contains(&parent);
        let cache = if last { caches[parent].take() } else { caches[parent].as_ref().map(KvCache::fork) };
        cache.expect("a cache is given away with its last child")
    };
    (0..parents.len()).map(of).collect()
}

impl Text {
    /// The same text with a token more.
    pub(super) fn and(&self, token: u32, logprob: f32, score: f32, details: Option<Details>) -> Self {
        let mut text = self.clone();
        text.tokens.push(token);
        text.logprobs.push(logprob);
        text.scores.push(score);
        text.details.extend(details);
        text
    }

    /// A token of the continuation, as it is given out.
    fn token(
        &self,
        prompt: usize,
        sequence: usize,
        index: usize,
        finish: Option<FinishReason>,
    ) -> GeneratedToken {
        let (id, logprob, score) = (self.tokens[prompt + index], self.logprobs[index], self.scores[index]);
        let details = self.details.get(index).cloned().map(Box::new);
        GeneratedToken { sequence, id, logprob, score, finish, details }
    }
}

/// How much of the texts was given out.
pub(super) struct Shown {
    /// Tokens of the continuation.
    tokens: usize,
    /// For each sequence, whether the caller has ended it.
    stopped: Vec<bool>,
}

impl Shown {
    pub(super) fn new(sequences: usize) -> Self {
        Self { tokens: 0, stopped: vec![false; sequences] }
    }

    pub(super) fn stop(&mut self, sequence: usize) {
        self.stopped[sequence] = true;
    }

    /// Whether the caller wants no more of any sequence.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.iter().all(|&stopped| stopped)
    }

    /// Number of texts that are returned.
    pub(super) fn sequences(&self) -> usize {
        self.stopped.len()
    }

    /// Gives out the part on which all texts agree that may be returned, those that go on and those that have ended:
    /// on tokens and on their scores.
    pub(super) fn agreed<'t>(
        &mut self,
        prompt: usize,
        running: impl Iterator<Item = &'t Text> + Clone,
        finished: impl Iterator<Item = &'t Text> + Clone,
        ready: &mut VecDeque<GeneratedToken>,
    ) {
        let texts = || running.clone().chain(finished.clone());
        let Some(one) = texts().next() else { return };
        // The last token of a finished text ends it, and is shown with the reason.
        let running = running.clone().map(|text| text.logprobs.len());
        let most = running.chain(finished.clone().map(|text| text.logprobs.len() - 1)).min().unwrap_or(0);
        // Of groups, each has its own score for what it has in common with the others.
        let at = |text: &Text, index: usize| (text.tokens[prompt + index], text.scores[index]);
        let agreed = |&index: &usize| texts().all(|text| at(text, index) == at(one, index));
        let end = self.tokens + (self.tokens..most).take_while(agreed).count();
        for index in self.tokens..end {
            ready.extend((0..self.sequences()).map(|sequence| one.token(prompt, sequence, index, None)));
        }
        self.tokens = end;
        ready.retain(|token| !self.stopped[token.sequence]);
    }

    /// Gives out what is left of the texts that are returned, best first.
    pub(super) fn rest<'t>(
        &self,
        prompt: usize,
        texts: impl Iterator<Item = (&'t Text, FinishReason)>,
        ready: &mut VecDeque<GeneratedToken>,
    ) {
        for ((sequence, stopped), (text, reason)) in self.stopped.iter().enumerate().zip(texts) {
            let last = text.logprobs.len() - 1;
            let token = |index| text.token(prompt, sequence, index, (index == last).then_some(reason));
            ready.extend((self.tokens..=last).filter(|_| !stopped).map(token));
        }
    }
}

/// The indices of the highest scores, the highest first; of equals the lower index.
pub(super) fn highest<T: PartialOrd + Copy>(count: usize, scores: impl Iterator<Item = T>) -> Vec<usize> {
    let mut best: Vec<(T, usize)> = Vec::with_capacity(count + 1);
    for (index, score) in scores.enumerate() {
        if best.len() == count && best.last().is_some_and(|&(lowest, _)| score <= lowest) {
            continue;
        }
        let place = best.partition_point(|&(other, _)| other >= score);
        best.insert(place, (score, index));
        best.truncate(count);
    }
    best.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use gpt2_kernels::{Cpu, Kernels};

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::config::Config;
    use crate::model::{Formats, Model};

    /// How many caches share each of a cache's blocks.
    fn owners(cache: &KvCache) -> Vec<usize> {
        cache.blocks.iter().map(Arc::strong_count).collect()
    }

    #[test]
    fn beams_share_the_blocks_of_what_they_have_in_common() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/one-layer");
        let json = std::fs::read(folder.join("config.json")).expect("config.json");
        let config = Config::from_json(&json).expect("a configuration");
        let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        let cpu = Cpu::new(Kernels::detect(), 1);
        let model =
            Model::load(cpu, config, &checkpoint, Formats::default(), &mut |_, _| ()).expect("a model");
        // Two blocks and a bit.
        let prompt: Vec<u32> = (0..130).map(|index| index % 101).collect();
        let core = Core::new(model.generate(&prompt)).expect("settings");
        let mut work = core.workspace(3);
        let cache = core.prefill(&mut work).expect("a prompt");
        let mut running = begin(3, &core, &cache);
        drop(cache);
        for beam in &mut running {
            assert_eq!(owners(&beam.cache), [3, 3, 3]);
            beam.text = beam.text.and(7, 0.0, 0.0, None);
        }
        forward(running.iter_mut(), &mut Vec::new(), core.model, &mut work);
        let last: Vec<_> = running.iter().map(|beam| Arc::as_ptr(&beam.cache.blocks[2])).collect();
        assert!(running.iter().all(|beam| owners(&beam.cache) == [3, 3, 1]));
        // Of beam 0 nothing is left, beam 1 goes on twice, beam 2 once: nothing is copied.
        let caches = hand_over(&mut running, &[1, 2, 1]);
        assert_eq!(caches.iter().map(owners).collect::<Vec<_>>(), [[3, 3, 2], [3, 3, 1], [3, 3, 2]]);
        let blocks: Vec<_> = caches.iter().map(|cache| Arc::as_ptr(&cache.blocks[2])).collect();
        assert_eq!(blocks, [last[1], last[2], last[1]]);
    }

    #[test]
    fn the_highest_come_in_order_and_of_equals_the_first() {
        assert_eq!(highest(3, [1.0, 5.0, 3.0, 5.0, 4.0].into_iter()), [1, 3, 4]);
        assert_eq!(highest(9, [1.0, 2.0].into_iter()), [1, 0]);
        assert_eq!(highest(2, [7, 7, 7].into_iter()), [0, 1]);
    }
}
