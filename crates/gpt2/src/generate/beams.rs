//! Beam search: several texts are followed at the same time, for the likeliest as a whole.
//!
//! This is transformers' `_beam_search`, step by step and number by number: what it calls a running sequence is a
//! [`Beam`], and its finished sequences are the [`Finished`] here. Processors change log-probabilities; these are added
//! up along a beam. Of equal scores the first beam and the lower id come first, which torch leaves open.

use std::collections::VecDeque;

use gpt2_kernels::math::exp;

use super::config::EarlyStopping;
use super::core::Core;
use super::details::{Details, Recording};
use super::plain::recycled;
use super::{FinishReason, GenerateError, GeneratedToken};
use crate::cache::KvCache;
use crate::model::{Step, Want};
use crate::sample::{Noise, Sampler};

/// What a score loses to be worse than any other: as in transformers.
const FAR_BELOW: f32 = -1.0e9;

/// The beams of a prompt, and the texts they have led to.
pub(super) struct Beams<'m> {
    running: Vec<Beam>,
    /// As many as there are beams at most, best first.
    finished: Vec<Finished>,
    sampler: Sampler,
    /// Whether a beam that goes on may still become better than the worst finished text.
    improvable: bool,
    ended: bool,
    /// Tokens of the continuation that were given out.
    shown: usize,
    /// What the caller has ended.
    stopped: Vec<bool>,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    started: bool,
    /// The processed log-probabilities of the beams' next tokens, one beam behind the other. (beams · V)
    processed: Vec<f32>,
    /// What happened to them, for each beam, if anybody wants to know.
    recordings: Vec<Recording>,
}

/// A text that goes on.
struct Beam {
    cache: KvCache,
    text: Text,
    /// The sum of its scores.
    score: f32,
}

/// A text that has ended.
struct Finished {
    text: Text,
    /// The sum of its scores by its length to the power of the penalty.
    score: f32,
    reason: FinishReason,
}

/// Tokens and what was said of them.
#[derive(Clone)]
struct Text {
    /// Prompt and continuation.
    tokens: Vec<u32>,
    /// Of the continuation, by the model.
    logprobs: Vec<f32>,
    /// Of the continuation, after the processors: what was added to the beam's score.
    scores: Vec<f32>,
    /// Of the continuation; empty unless it was asked for.
    details: Vec<Details>,
}

/// A beam and a token behind it.
struct Candidate {
    beam: usize,
    token: u32,
    /// The beam's score with the token's added.
    score: f32,
}

impl<'m> Beams<'m> {
    pub(super) fn new(core: &Core<'m>, cache: &KvCache) -> Self {
        let count = core.config.beams();
        let (logprobs, scores, details) = (Vec::new(), Vec::new(), Vec::new());
        let text = Text { tokens: core.prompt.clone(), logprobs, scores, details };
        // All begin with the same text: but for the first they are as good as not there.
        let beam = |index| Beam {
            cache: cache.fork(),
            text: text.clone(),
            score: if index == 0 { 0.0 } else { FAR_BELOW },
        };
        Self {
            running: (0..count).map(beam).collect(),
            finished: Vec::with_capacity(count),
            sampler: Sampler::new(&core.config),
            improvable: true,
            ended: false,
            shown: 0,
            stopped: vec![false; core.config.sequences()],
            steps: Vec::with_capacity(count),
            started: false,
            processed: Vec::new(),
            recordings: Vec::new(),
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.ended || self.stopped.iter().all(|&stopped| stopped)
    }

    pub(super) fn stop(&mut self, sequence: usize) {
        self.stopped[sequence] = true;
    }

    /// The scores of the finished texts that are returned, best first; empty before the end.
    pub(super) fn scores(&self) -> Vec<f32> {
        let returned = if self.ended { self.stopped.len() } else { 0 };
        self.finished.iter().take(returned).map(|finished| finished.score).collect()
    }

    /// Takes all beams one token further, and gives out what is certain.
    pub(super) fn advance(
        &mut self,
        core: &mut Core<'m>,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        if self.started {
            self.forward(core);
        }
        let normalisers = self.process(core)?;
        let candidates = self.candidates(core)?;
        self.take(core, &candidates, &normalisers);
        self.started = true;
        self.show(core, ready);
        Ok(())
    }

    /// Feeds the last token of every beam.
    fn forward(&mut self, core: &mut Core<'m>) {
        let model = core.model;
        let mut batch = recycled(std::mem::take(&mut self.steps));
        batch.extend(self.running.iter_mut().map(|Beam { cache, text, .. }| {
            Step::new(model, &text.tokens[text.tokens.len() - 1..], cache, Want::Last)
                .expect("a beam at its limit is finished, and tokens come from the vocabulary")
        }));
        model.forward(&mut batch, &mut core.work);
        self.steps = recycled(batch);
    }

    /// Which row of the logits is a beam's: behind the prompt there is one row for all.
    fn row(&self, beam: usize) -> usize {
        if self.started { beam } else { 0 }
    }

    /// Computes the scores of what may follow each beam; returns `ln Σ exp` of the logits of each.
    fn process(&mut self, core: &mut Core<'m>) -> Result<Vec<f32>, GenerateError> {
        self.processed.clear();
        self.recordings.clear();
        let mut normalisers = Vec::with_capacity(self.running.len());
        for (index, beam) in self.running.iter().enumerate() {
            normalisers.push(core.process_log_probabilities(self.row(index), index, &beam.text.tokens)?);
            if !core.scores.are_numbers() {
                return Err(GenerateError::Scores { position: beam.text.tokens.len() });
            }
            self.processed.extend_from_slice(core.scores.all());
            self.recordings.extend(core.recording.clone());
        }
        Ok(normalisers)
    }

    /// Chooses what goes on: the best, or a draw without replacement. There are enough for all beams to go on, though
    /// each of the best ends with an end token.
    fn candidates(&mut self, core: &Core<'m>) -> Result<Vec<Candidate>, GenerateError> {
        let vocabulary = core.model.config().vocab_size;
        let count = (1 + core.eos_token_ids.len()).max(2) * self.running.len();
        let position = self.running[0].text.tokens.len();
        let (running, processed) = (&self.running, &self.processed);
        let score = |index: usize| processed[index] + running[index / vocabulary].score;
        let scores = (0..processed.len()).map(score);
        let chosen = match &mut self.sampler {
            Sampler::Greedy => highest(count, scores),
            Sampler::Torch(generator) => {
                let mut probabilities: Vec<f32> = scores.collect();
                let max = probabilities.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                probabilities.iter_mut().for_each(|p| *p = exp(*p - max));
                let sum = probabilities.iter().map(|&p| f64::from(p)).sum::<f64>() as f32;
                probabilities.iter_mut().for_each(|p| *p /= sum);
                generator.multinomial_without_replacement(&probabilities, count)
            }
            Sampler::Keyed { seed } => {
                let noise: Vec<_> =
                    (0..running.len()).map(|beam| Noise::new(*seed, beam, position)).collect();
                let noisy = |(index, score): (usize, f32)| {
                    let gone = score == f32::NEG_INFINITY;
                    let noise = || noise[index / vocabulary].gumbel((index % vocabulary) as u32);
                    if gone { f64::NEG_INFINITY } else { f64::from(score) + noise() }
                };
                highest(count, scores.enumerate().map(noisy))
            }
        };
        let candidate = |index: usize| Candidate {
            beam: index / vocabulary,
            token: (index % vocabulary) as u32,
            score: score(index),
        };
        let chosen: Vec<_> =
            chosen.into_iter().map(candidate).filter(|c| c.score > f32::NEG_INFINITY).collect();
        if chosen.is_empty() { Err(GenerateError::NoTokenLeft { position }) } else { Ok(chosen) }
    }

    /// Sorts candidates into those that go on and those that end.
    fn take(&mut self, core: &mut Core<'m>, candidates: &[Candidate], normalisers: &[f32]) {
        let count = self.running.len();
        let early = core.config.early_stopping.unwrap_or_default();
        let penalty = core.config.length_penalty.unwrap_or(1.0);
        let vocabulary = core.model.config().vocab_size;
        let texts: Vec<(Text, Option<FinishReason>)> = candidates
            .iter()
            .map(|&Candidate { beam, token, .. }| {
                let row = self.row(beam);
                let mut text = self.running[beam].text.clone();
                text.tokens.push(token);
                text.logprobs.push(core.work.logits(row + 1).row(row)[token as usize] - normalisers[beam]);
                text.scores.push(self.processed[beam * vocabulary + token as usize]);
                text.details
                    .extend(self.recordings.get(beam).map(|recording| recording.details(token, None)));
                let reason = core.finish(beam, &text.tokens);
                (text, reason)
            })
            .collect();

        let length = texts[0].0.tokens.len() - core.prompt.len();
        let full = self.finished.len() == count && early == EarlyStopping::True;
        if !full && self.improvable {
            // Those behind the first are there to go on, should the others end.
            for (candidate, (text, reason)) in candidates.iter().zip(&texts).take(count) {
                if let &Some(reason) = reason {
                    let score = candidate.score / (length as f64).powf(penalty) as f32;
                    let place = self.finished.partition_point(|other| other.score >= score);
                    if place < count {
                        self.finished.insert(place, Finished { text: text.clone(), score, reason });
                        self.finished.truncate(count);
                    }
                }
            }
        }
        let all_end = texts.iter().all(|(_, reason)| reason.is_some());
        let score =
            |index: usize| candidates[index].score + if texts[index].1.is_some() { FAR_BELOW } else { 0.0 };
        let next = highest(count, (0..candidates.len()).map(score));
        let beams: Vec<usize> = next.iter().map(|&index| candidates[index].beam).collect();
        let caches = self.hand_over(&beams);
        self.running = next
            .into_iter()
            .zip(caches)
            .map(|(index, cache)| Beam { cache, text: texts[index].0.clone(), score: score(index) })
            .collect();

        let hypothetical = if early == EarlyStopping::Never && penalty > 0.0 {
            core.limit.tokens - core.prompt.len()
        } else {
            length
        };
        let best = self.running[0].score / (hypothetical as f64).powf(penalty) as f32;
        let worst = self.finished.last().filter(|_| self.finished.len() == count);
        self.improvable &= best > worst.map_or(FAR_BELOW, |worst| worst.score);
        let full = self.finished.len() == count && early == EarlyStopping::True;
        self.ended = !self.improvable || full || all_end;
    }

    /// The caches of the beams that go on: the last child of a beam has its parent's, the others share its blocks.
    fn hand_over(&mut self, parents: &[usize]) -> Vec<KvCache> {
        let mut caches: Vec<Option<KvCache>> = self.running.drain(..).map(|beam| Some(beam.cache)).collect();
        let of = |index: usize| {
            let parent = parents[index];
            let last = !parents[index + 1..].contains(&parent);
            let cache = if last { caches[parent].take() } else { caches[parent].as_ref().map(KvCache::fork) };
            cache.expect("a cache is given away with its last child")
        };
        (0..parents.len()).map(of).collect()
    }

    /// Gives out the part on which all texts agree that may be returned, and at the end all of them.
    fn show(&mut self, core: &Core<'m>, ready: &mut VecDeque<GeneratedToken>) {
        let prompt = core.prompt.len();
        let first = self.shown;
        if self.ended {
            for sequence in 0..self.stopped.len() {
                let Some(Finished { text, reason, .. }) = self.finished.get(sequence) else { continue };
                let last = text.logprobs.len() - 1;
                let token = |index| text.token(prompt, sequence, index, (index == last).then_some(*reason));
                ready.extend((first..=last).map(token));
            }
        } else {
            let running = self.running.iter().map(|beam| &beam.text);
            let texts = || running.clone().chain(self.finished.iter().map(|finished| &finished.text));
            let Some(one) = texts().next() else { return };
            // The last token of a finished text ends it, and is shown with the reason.
            let agreed = |index: usize| {
                texts().all(|text| text.tokens.get(prompt + index) == one.tokens.get(prompt + index))
            };
            let most = texts().map(|text| text.logprobs.len()).min().unwrap_or(0);
            let finished = self.finished.iter().map(|finished| finished.text.logprobs.len() - 1).min();
            let most = most.min(finished.unwrap_or(most));
            let end = (first..most).find(|&index| !agreed(index)).unwrap_or(most.max(first));
            for index in first..end {
                ready
                    .extend((0..self.stopped.len()).map(|sequence| one.token(prompt, sequence, index, None)));
            }
            self.shown = end;
        }
        ready.retain(|token| !self.stopped[token.sequence]);
    }
}

impl Text {
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

/// The indices of the highest scores, the highest first; of equals the lower index.
fn highest<T: PartialOrd + Copy>(count: usize, scores: impl Iterator<Item = T>) -> Vec<usize> {
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
    use super::*;

    #[test]
    fn the_highest_come_in_order_and_of_equals_the_first() {
        assert_eq!(highest(3, [1.0, 5.0, 3.0, 5.0, 4.0].into_iter()), [1, 3, 4]);
        assert_eq!(highest(9, [1.0, 2.0].into_iter()), [1, 0]);
        assert_eq!(highest(2, [7, 7, 7].into_iter()), [0, 1]);
    }
}
