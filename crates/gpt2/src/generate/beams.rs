//! Beam search: several texts are followed at the same time, for the likeliest as a whole.
//!
//! This is transformers' `_beam_search`, step by step and number by number: what it calls a running sequence is a
//! [`Beam`], and its finished sequences are the [`Finished`] here. Processors change log-probabilities; these are added
//! up along a beam. Of equal scores the first beam and the lower id come first, which torch leaves open.

use std::collections::VecDeque;

use gpt2_kernels::math::exp_alone;

use super::beam::{self, Beam, Candidate, FAR_BELOW, Prediction, Shown, Text, highest};
use super::config::EarlyStopping;
use super::core::Core;
use super::details::Recording;
use super::{FinishReason, GenerateError, GeneratedToken};
use crate::cache::KvCache;
use crate::model::Step;
use crate::sample::{Noise, Sampler};
use crate::workspace::Workspace;

/// The beams of a prompt, and the texts they have led to.
pub(super) struct Beams<'m> {
    running: Vec<Beam>,
    /// As many as there are beams at most, best first.
    finished: Vec<Finished>,
    sampler: Sampler,
    /// Whether a beam that goes on may still become better than the worst finished text.
    improvable: bool,
    ended: bool,
    shown: Shown,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    started: bool,
    /// The processed log-probabilities of the beams' next tokens, one beam behind the other. (beams · V)
    processed: Vec<f32>,
    /// What happened to them, for each beam, if anybody wants to know.
    recordings: Vec<Recording>,
}

/// A text that has ended.
struct Finished {
    text: Text,
    /// The sum of its scores by its length to the power of the penalty.
    score: f32,
    reason: FinishReason,
}

impl<'m> Beams<'m> {
    pub(super) fn new(core: &Core<'m>, cache: &KvCache) -> Self {
        let count = core.config.beams();
        Self {
            running: beam::begin(count, core, cache),
            finished: Vec::with_capacity(count),
            sampler: Sampler::new(&core.config),
            improvable: true,
            ended: false,
            shown: Shown::new(core.config.sequences()),
            steps: Vec::with_capacity(count),
            started: false,
            processed: Vec::new(),
            recordings: Vec::new(),
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.ended || self.shown.stopped()
    }

    pub(super) fn stop(&mut self, sequence: usize) {
        self.shown.stop(sequence);
    }

    /// The scores of the finished texts that are returned, best first; empty before the end.
    pub(super) fn scores(&self) -> Vec<f32> {
        let returned = if self.ended { self.shown.sequences() } else { 0 };
        self.finished.iter().take(returned).map(|finished| finished.score).collect()
    }

    /// Takes all beams one token further, and gives out what is certain.
    pub(super) fn advance(
        &mut self,
        core: &mut Core<'m>,
        work: &mut Workspace,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        if self.started {
            beam::forward(self.running.iter_mut(), &mut self.steps, core.model, work);
        }
        let predictions = self.process(core, work)?;
        let candidates = self.candidates(core)?;
        self.take(core, &candidates, &predictions);
        self.started = true;
        self.show(core, ready);
        Ok(())
    }

    /// Which row of the logits is a beam's: behind the prompt there is one row for all.
    fn row(&self, beam: usize) -> usize {
        if self.started { beam } else { 0 }
    }

    /// Computes the scores of what may follow each beam; returns what the model says of it.
    fn process<'w>(
        &mut self,
        core: &mut Core<'m>,
        work: &'w Workspace,
    ) -> Result<Vec<Prediction<'w>>, GenerateError> {
        self.processed.clear();
        self.recordings.clear();
        let mut predictions = Vec::with_capacity(self.running.len());
        for (index, beam) in self.running.iter().enumerate() {
            let row = self.row(index);
            let logits = work.logits(row + 1).row(row);
            let normaliser = core.process_log_probabilities(logits, index, &beam.text.tokens, &[])?;
            predictions.push(Prediction::new(logits, normaliser));
            if !core.scores.are_numbers() {
                return Err(GenerateError::Scores { position: beam.text.tokens.len() });
            }
            self.processed.extend_from_slice(core.scores.all());
            self.recordings.extend(core.recording.clone());
        }
        Ok(predictions)
    }

    /// Chooses what goes on: the best, or a draw without replacement. There are enough for all beams to go on, though
    /// each of the best ends with an end token.
    fn candidates(&mut self, core: &Core<'m>) -> Result<Vec<Candidate>, GenerateError> {
        let vocabulary = core.model.config().vocab_size;
        let count = (1 + core.eos_token_ids.len()).max(2) * core.config.beams();
        let position = self.running[0].text.tokens.len();
        let (running, processed) = (&self.running, &self.processed);
        let score = |index: usize| processed[index] + running[index / vocabulary].score;
        let scores = (0..processed.len()).map(score);
        let chosen = match &mut self.sampler {
            Sampler::Greedy => highest(count, scores),
            Sampler::Torch(generator) => {
                let mut probabilities: Vec<f32> = scores.collect();
                let max = probabilities.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                probabilities.iter_mut().for_each(|p| *p = exp_alone(*p - max));
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
    fn take(&mut self, core: &mut Core<'m>, candidates: &[Candidate], predictions: &[Prediction<'_>]) {
        let count = core.config.beams();
        let early = core.config.early_stopping.unwrap_or_default();
        let penalty = core.config.length_penalty.unwrap_or(1.0);
        let vocabulary = core.model.config().vocab_size;
        let texts: Vec<(Text, Option<FinishReason>)> = candidates
            .iter()
            .map(|&Candidate { beam, token, .. }| {
                let logprob = predictions[beam].logprob(token);
                let score = self.processed[beam * vocabulary + token as usize];
                let details = self.recordings.get(beam).map(|recording| recording.details(token, None));
                let text = self.running[beam].text.and(token, logprob, score, details);
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
        let caches = beam::hand_over(&mut self.running, &beams);
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

    /// Gives out what is certain.
    fn show(&mut self, core: &Core<'m>, ready: &mut VecDeque<GeneratedToken>) {
        let prompt = core.prompt.len();
        if self.ended {
            let texts = self.finished.iter().map(|finished| (&finished.text, finished.reason));
            self.shown.rest(prompt, texts, ready);
        } else {
            let running = self.running.iter().map(|beam| &beam.text);
            let finished = self.finished.iter().map(|finished| &finished.text);
            self.shown.agreed(prompt, running, finished, ready);
        }
    }
}
