//! Greedy decoding and sampling: every sequence goes its own way.

use std::collections::VecDeque;
use std::time::Instant;

use gpt2_kernels::Rows;

use super::core::Core;
use super::dola::Dola;
use super::guidance::Guidance;
use super::speculation::{Speculation, SpeculationReport};
use super::{FinishReason, GenerateError, GeneratedToken};
use crate::cache::KvCache;
use crate::model::{Step, Want};
use crate::predict::prefill;
use crate::process::Context;
use crate::sample::Sampler;
use crate::workspace::Workspace;

/// The return sequences of a prompt, each a row of the batch, or two rows where there is guidance.
pub(super) struct Plain<'m> {
    sequences: Vec<Sequence>,
    guidance: Option<Guidance>,
    dola: Option<Dola>,
    sampler: Sampler,
    speculation: Option<Speculation<'m>>,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    /// Whether the last token of every sequence is still to be fed. If not, the logits are those of the prompt.
    started: bool,
}

/// One return sequence.
pub(super) struct Sequence {
    cache: KvCache,
    /// That of the unconditional side.
    other: Option<KvCache>,
    /// Prompt and generated tokens, and guesses while a draft is under way.
    pub(super) tokens: Vec<u32>,
    /// How many of these are no guesses.
    chosen: usize,
    /// Of which kind the draft is.
    pub(super) class: usize,
    /// The first of the tokens that is in the cache.
    pub(super) window: usize,
    pub(super) finish: Option<FinishReason>,
}

impl Sequence {
    /// Keeps the text for others that begin with it, and lets go of its own cache: it has ended.
    fn retire(&mut self, core: &Core<'_>) {
        core.keep(&self.tokens[self.window..], &self.cache);
        self.cache.truncate(0);
        self.other = None;
    }
}

impl<'m> Plain<'m> {
    pub(super) fn new(
        core: &Core<'m>,
        cache: &KvCache,
        guidance: Option<Guidance>,
        dola: Option<Dola>,
        speculation: Option<Speculation<'m>>,
    ) -> Self {
        let (mut cache, count) = (cache.fork(), core.config.sequences());
        // The prompt's last token is fed once more where more of it is wanted than its logits: those of the other side
        // beside them, or the hidden states.
        let started = guidance.is_some() || dola.is_some();
        cache.truncate(cache.len() - usize::from(started));
        let sequence = || {
            let mut tokens = Vec::with_capacity(core.limit.tokens.min(core.prompt.len() + (1 << 16)));
            tokens.extend_from_slice(&core.prompt);
            let other = guidance.as_ref().map(|guidance| guidance.cache.fork());
            let (chosen, window) = (tokens.len(), core.window(tokens.len()));
            Sequence { cache: cache.fork(), other, tokens, chosen, class: 0, window, finish: None }
        };
        Self {
            sequences: (0..count).map(|_| sequence()).collect(),
            guidance,
            dola,
            sampler: Sampler::new(&core.config),
            speculation,
            steps: Vec::with_capacity(2 * count),
            started,
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.finish.is_some())
    }

    pub(super) fn stop(&mut self, core: &Core<'m>, sequence: usize, reason: FinishReason) {
        let sequence = &mut self.sequences[sequence];
        if sequence.finish.is_none() {
            sequence.finish = Some(reason);
            sequence.retire(core);
        }
    }

    /// What came of the drafts, if there are any.
    pub(super) fn speculation(&self) -> Option<&SpeculationReport> {
        self.speculation.as_ref().map(Speculation::report)
    }

    /// Chooses the next token of every unfinished sequence, and those behind it that were guessed.
    pub(super) fn advance(
        &mut self,
        core: &mut Core<'m>,
        work: &mut Workspace,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        if self.started {
            self.slide(core, work)?;
            if let Some(speculation) = &mut self.speculation {
                speculation.draft(core, &self.sampler, &mut self.sequences)?;
            }
            let begin = Instant::now();
            let mut batch = recycled(std::mem::take(&mut self.steps));
            let dola = &mut self.dola;
            feed(&mut self.sequences, core, &mut batch);
            match dola {
                Some(dola) => {
                    let tokens = batch.len();
                    core.model.forward_probed(&mut batch, work, dola);
                    dola.predict(core.model, tokens);
                }
                None => drop(core.model.forward(&mut batch, work)),
            }
            self.steps = recycled(batch);
            if let Some(speculation) = &mut self.speculation {
                let unfinished = self.sequences.iter().filter(|sequence| sequence.finish.is_none());
                let rows = unfinished.map(|sequence| 1 + sequence.tokens.len() - sequence.chosen).sum();
                speculation.passed(rows, begin.elapsed());
            }
        }
        self.choose(core, work.logits(work.wanted()), ready)
    }

    /// Number of sequences that go on.
    pub(super) fn unfinished(&self) -> usize {
        self.sequences.iter().filter(|sequence| sequence.finish.is_none()).count()
    }

    /// Puts the last token of every unfinished sequence into a batch.
    pub(super) fn feed<'s>(&'s mut self, core: &'s Core<'_>, batch: &mut Vec<Step<'s>>) {
        feed(&mut self.sequences, core, batch);
    }

    /// Has the text of each sequence that has outgrown the context move on in it.
    pub(super) fn slide(&mut self, core: &Core<'m>, work: &mut Workspace) -> Result<(), GenerateError> {
        for Sequence { cache, tokens, window, .. } in self.sequences.iter_mut().filter(|s| s.finish.is_none())
        {
            let start = core.window(tokens.len());
            if start != *window {
                *window = start;
                cache.truncate(0);
                prefill(core.model, &tokens[start..tokens.len() - 1], cache, work)?;
            }
        }
        Ok(())
    }

    /// Chooses the next token of every unfinished sequence from the rows of logits that were asked for.
    pub(super) fn choose(
        &mut self,
        core: &mut Core<'m>,
        logits: Rows<'_>,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        let mut row = 0;
        for index in 0..self.sequences.len() {
            if self.sequences[index].finish.is_none() {
                let guesses = self.verify(core, index, logits, row, ready)?;
                // Behind the prompt there is one row for all.
                row += match self.guidance {
                    Some(_) => 2,
                    None => usize::from(self.started) + guesses,
                };
            } else {
                self.sampler.pass(core.model.config().vocab_size);
            }
        }
        self.started = true;
        Ok(())
    }

    /// Chooses a sequence's next token from a row of logits, and as long as that is the one that was guessed, another
    /// from the row behind it. Returns the number of guesses.
    fn verify(
        &mut self,
        core: &mut Core<'m>,
        index: usize,
        logits: Rows<'_>,
        row: usize,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<usize, GenerateError> {
        let mut accepted = 0;
        loop {
            let Sequence { tokens, chosen, .. } = &self.sequences[index];
            let (guess, guesses) = (tokens.get(*chosen).copied(), tokens.len() - chosen);
            let token = self.choose_one(core, index, logits, row + accepted)?;
            let (right, over) = (guess == Some(token.id), token.finish.is_some());
            ready.push_back(token);
            accepted += usize::from(right);
            if right && !over {
                continue;
            }
            let sequence = &mut self.sequences[index];
            sequence.tokens.truncate(sequence.chosen);
            let guesses = guesses + accepted - usize::from(right);
            if let Some(speculation) = &mut self.speculation {
                sequence.cache.truncate(sequence.cache.len().min(sequence.chosen - 1 - sequence.window));
                speculation.judged(index, sequence, guesses, accepted);
            }
            if over {
                sequence.retire(core);
            }
            return Ok(guesses);
        }
    }

    /// Chooses a sequence's next token from a row of logits.
    fn choose_one(
        &mut self,
        core: &mut Core<'m>,
        index: usize,
        logits: Rows<'_>,
        row: usize,
    ) -> Result<GeneratedToken, GenerateError> {
        let Sequence { tokens: all, chosen, finish, .. } = &mut self.sequences[index];
        let (model, position) = (core.model, *chosen);
        let tokens = &all[..position];
        let (guidance, dola) = (&self.guidance, &mut self.dola);
        let normaliser = core.process_changed(logits.row(row), index, tokens, |normaliser, scores| {
            if let Some(guidance) = guidance {
                guidance.apply(model, logits.row(row + 1), normaliser, scores);
            }
            if let Some(dola) = dola {
                dola.apply(model, row, normaliser, scores);
            }
        })?;
        let before =
            core.recording.as_ref().filter(|recording| recording.traces()).map(|_| self.sampler.clone());
        let id = self.sampler.choose(&core.scores, index, position)?;
        let draw = before.and_then(|sampler| sampler.draw(&core.scores, index, position));
        let context = Context { tokens, prompt: core.prompt.len(), sequence: index, ..Context::default() };
        core.chain.chosen(&context, &core.scores, id);
        // A guess that is right stays where it is, with those behind it.
        if all.get(position) != Some(&id) {
            all.truncate(position);
            all.push(id);
        }
        *chosen += 1;
        *finish = core.finish(index, &all[..*chosen]);
        let logprob = logits.row(row)[id as usize] - normaliser;
        let (score, details) = (core.scores.score(id), core.details(id, draw));
        Ok(GeneratedToken { sequence: index, id, logprob, score, finish: *finish, details })
    }
}

/// Puts the last token of every unfinished sequence into a batch, with the guesses behind it.
fn feed<'s>(sequences: &'s mut [Sequence], core: &'s Core<'_>, batch: &mut Vec<Step<'s>>) {
    let step = |tokens, cache| {
        Step::new(core.model, tokens, cache, Want::All)
            .expect("a sequence at its limit is finished, and tokens come from the vocabulary")
    };
    for Sequence { cache, other, tokens, chosen, .. } in sequences.iter_mut().filter(|s| s.finish.is_none()) {
        let last = &tokens[*chosen - 1..];
        batch.push(step(last, cache));
        if let (Some(other), Some(context)) = (other, &core.unconditional) {
            let behind_prompt = tokens.len() == core.prompt.len();
            batch.push(step(if behind_prompt { &context[context.len() - 1..] } else { last }, other));
        }
    }
}

/// The same allocation, emptied: collecting what is left of a `Vec`, here nothing, reuses it.
pub(super) fn recycled<'a>(mut steps: Vec<Step<'_>>) -> Vec<Step<'a>> {
    steps.clear();
    steps.into_iter().map(|_| unreachable!("the steps were cleared")).collect()
}
