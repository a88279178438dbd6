//! Speculation: what comes next is guessed, and the model looks at several positions in one forward pass.
//!
//! Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023), but stricter: a token is chosen
//! from the model's own logits exactly as without a draft, and the forward pass does not depend on how many positions it
//! has, so the text is the same to the last bit. With keyed noise that holds for sampling too: the noise of a position
//! decides for draft and model alike, and where their probabilities are close they mostly choose the same token.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::GenerateError;
use super::chain::{Chain, Setup};
use super::config::{GenerationConfig, Rng};
use super::core::Core;
use super::pace::{LIKELY, Pace};
use super::plain::Sequence;
use crate::cache::KvCache;
use crate::model::{Model, Step, Want};
use crate::predict::{PREFILL_CHUNK, prefill};
use crate::process::{Context, Scores};
use crate::sample::Sampler;
use crate::workspace::Workspace;

/// Most tokens of a draft, unless the settings say something else.
const MOST_GUESSES: usize = 15;
/// Guesses that all sequences together may have, where there are several.
const MOST_GUESSES_OF_ALL: usize = 48;
/// Longest ending of a text that is looked up, unless the settings say something else.
const LONGEST_ENDING: usize = 4;

/// What came of the drafts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpeculationReport {
    /// Forward passes of the model behind the prompt, those without a draft included.
    pub passes: usize,
    /// Tokens that were guessed and looked at.
    pub drafted: usize,
    /// How many of these the model chose.
    pub accepted: usize,
    /// The same for the first, second, ... token of a draft.
    pub drafted_by_position: Vec<usize>,
    /// How many of these the model chose.
    pub accepted_by_position: Vec<usize>,
}

/// Makes drafts, and learns from what becomes of them.
pub(super) struct Speculation<'m> {
    source: Source<'m>,
    /// Guesses that a sequence may have.
    most: usize,
    pace: Pace,
    report: SpeculationReport,
}

/// Where guesses come from.
enum Source<'m> {
    /// The text itself: what followed the last tokens when they occurred before.
    Lookup { longest: usize },
    /// A model that is quicker.
    Assistant(Box<Assistant<'m>>),
}

struct Assistant<'m> {
    model: &'m Model,
    work: Workspace,
    /// The settings' processors. What they learn from choices is kept from these: a guess may be wrong.
    chain: Chain,
    scores: Scores,
    /// Of each sequence, the first token that the assistant sees, and the cache from there on. It may lag behind.
    caches: Vec<(usize, KvCache)>,
}

impl<'m> Speculation<'m> {
    /// Makes what the settings ask for, if they ask for any.
    ///
    /// # Errors
    /// If the assistant has another vocabulary.
    pub(super) fn new(core: &Core<'m>, assistant: Option<&'m Model>) -> Result<Option<Self>, GenerateError> {
        let config = &core.config;
        let lookup = config.prompt_lookup_num_tokens;
        if assistant.is_none() && lookup.is_none() {
            return Ok(None);
        }
        let sequences = config.sequences();
        let most = lookup.or(config.num_assistant_tokens).unwrap_or(MOST_GUESSES);
        let most = if sequences > 1 { most.min((MOST_GUESSES_OF_ALL / sequences).max(1)) } else { most };
        let (source, pace) = match assistant {
            Some(model) => (Source::Assistant(Box::new(Assistant::new(core, model)?)), Pace::new([LIKELY])),
            None => {
                let longest = config.max_matching_ngram_size.unwrap_or(LONGEST_ENDING);
                // The longer the ending that occurred before, the likelier is it that it goes on as it did.
                let share = |length: usize| (0.15 * length as f64).min(LIKELY);
                (Source::Lookup { longest }, Pace::new((1..=longest).map(share)))
            }
        };
        let report = SpeculationReport {
            drafted_by_position: vec![0; most],
            accepted_by_position: vec![0; most],
            ..SpeculationReport::default()
        };
        Ok(Some(Self { source, most, pace, report }))
    }

    /// Rows that a forward pass over so many sequences may have.
    pub(super) fn rows(&self, sequences: usize) -> usize {
        sequences * (1 + self.most)
    }

    /// What came of the drafts so far.
    pub(super) fn report(&self) -> &SpeculationReport {
        &self.report
    }

    /// Puts guesses behind the tokens of the sequences that are not finished, as many as seem to pay.
    pub(super) fn draft(
        &mut self,
        core: &Core<'m>,
        sampler: &Sampler,
        sequences: &mut [Sequence],
    ) -> Result<(), GenerateError> {
        let active = sequences.iter().filter(|sequence| sequence.finish.is_none()).count();
        // No guess beyond the last token that can be chosen, nor beyond what fits into the context.
        let context = core.model.config().n_positions;
        let room = |sequence: &Sequence| {
            let end = (sequence.window + context).min(core.limit.tokens - 1);
            end.saturating_sub(sequence.tokens.len()).min(self.most)
        };
        match &mut self.source {
            Source::Lookup { longest } => {
                for sequence in sequences.iter_mut().filter(|sequence| sequence.finish.is_none()) {
                    let room = room(sequence);
                    if let Some((start, length)) = find(&sequence.tokens, *longest) {
                        sequence.class = length - 1;
                        let count = self.pace.length(sequence.class, active, room);
                        let end = (start + count).min(sequence.tokens.len());
                        sequence.tokens.extend_from_within(start..end);
                    }
                }
            }
            Source::Assistant(assistant) => {
                let count = self.pace.length(0, active, self.most);
                if count > 0 {
                    let begin = Instant::now();
                    let rooms: Vec<usize> = sequences.iter().map(|s| room(s).min(count)).collect();
                    let guesses = assistant.draft(core, &mut sampler.clone(), sequences, &rooms)?;
                    self.pace.drafted(guesses, begin.elapsed());
                }
            }
        }
        Ok(())
    }

    /// Learns how long a forward pass took.
    pub(super) fn passed(&mut self, rows: usize, time: Duration) {
        self.report.passes += 1;
        self.pace.passed(rows, time);
    }

    /// Learns how many of a sequence's guesses the model chose; its tokens are those that were chosen.
    pub(super) fn judged(&mut self, index: usize, sequence: &Sequence, guesses: usize, accepted: usize) {
        // Behind a token that was not chosen, or behind the end, nothing was looked at.
        let seen = guesses.min(accepted + 1);
        self.pace.judged(sequence.class, seen, accepted);
        self.report.drafted += guesses;
        self.report.accepted += accepted;
        for count in &mut self.report.drafted_by_position[..guesses] {
            *count += 1;
        }
        for count in &mut self.report.accepted_by_position[..accepted] {
            *count += 1;
        }
        if let Source::Assistant(assistant) = &mut self.source {
            let (window, cache) = &mut assistant.caches[index];
            let valid = (sequence.tokens.len() - 1).saturating_sub(*window);
            cache.truncate(cache.len().min(valid));
        }
    }
}

impl GenerationConfig {
    /// Checks that the settings are none with which no tokens can be guessed, if they ask for guesses or there is an
    /// assistant model to make them.
    ///
    /// # Errors
    /// Names two settings that exclude each other.
    pub fn check_speculation(&self, assistant: bool) -> Result<(), GenerateError> {
        let lookup = self.prompt_lookup_num_tokens.is_some();
        let name = match (assistant, lookup) {
            (true, _) => "assistant_model",
            (false, true) => "prompt_lookup_num_tokens",
            (false, false) => return Ok(()),
        };
        let torch = self.samples() && self.rng == Some(Rng::Torch);
        let others = [
            (assistant && lookup, "prompt_lookup_num_tokens"),
            (self.beams() > 1, "num_beams"),
            (self.contrasts(), "penalty_alpha"),
            (self.dola_layers.is_some(), "dola_layers"),
            (self.guides(), "guidance_scale"),
            // Torch's generator serves the sequences in turn, position by position.
            (torch && self.sequences() > 1, "rng"),
        ];
        match others.into_iter().find(|&(excluded, _)| excluded) {
            Some((_, other)) => Err(GenerateError::Contradiction(name, other)),
            None => Ok(()),
        }
    }
}

/// Where the longest ending of a text, of at most `longest` tokens, occurred last: the place behind it, and its length.
fn find(tokens: &[u32], longest: usize) -> Option<(usize, usize)> {
    let mut best = None;
    for end in (1..tokens.len()).rev() {
        let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev()).take(longest);
        let length = pairs.take_while(|(a, b)| a == b).count();
        if length > best.map_or(0, |(_, length)| length) {
            best = Some((end, length));
            if length == longest {
                break;
            }
        }
    }
    best
}

impl<'m> Assistant<'m> {
    fn new(core: &Core<'_>, model: &'m Model) -> Result<Self, GenerateError> {
        let vocabulary = core.model.config().vocab_size;
        if model.config().vocab_size != vocabulary {
            let expected = "a model with the same vocabulary";
            let found = format!("one of {} tokens instead of {vocabulary}", model.config().vocab_size);
            return Err(GenerateError::setting("assistant_model", expected, found));
        }
        let sequences = core.config.sequences();
        let setup = Setup {
            eos_token_ids: &core.eos_token_ids,
            total_tokens: core.limit.tokens,
            vocabulary,
            tokenizer: core.tokenizer,
        };
        let rows = core.prompt.len().min(PREFILL_CHUNK).max(2 * sequences);
        Ok(Self {
            model,
            work: Workspace::new(model, rows, sequences),
            chain: Chain::new(&core.config, &setup)?,
            scores: Scores::with_capacity(vocabulary),
            caches: vec![(0, KvCache::new(model)); sequences],
        })
    }

    /// Guesses so many tokens behind each sequence; returns for how many forward passes that took.
    fn draft(
        &mut self,
        core: &Core<'_>,
        sampler: &mut Sampler,
        sequences: &mut [Sequence],
        counts: &[usize],
    ) -> Result<usize, GenerateError> {
        let Self { model, work, chain, scores, caches } = self;
        for ((window, cache), sequence) in caches.iter_mut().zip(&*sequences) {
            if *window != sequence.window {
                *window = sequence.window;
                cache.truncate(0);
            }
        }
        // An assistant with a shorter context has nothing to say of what is behind it.
        let context = model.config().n_positions;
        let starts: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let mut rounds = 0;
        loop {
            let mut batch: Vec<Step<'_>> = Vec::with_capacity(sequences.len());
            let mut rows = Vec::with_capacity(sequences.len());
            for (index, ((window, cache), sequence)) in caches.iter_mut().zip(&*sequences).enumerate() {
                let guesses = sequence.tokens.len() - starts[index];
                let seen = sequence.tokens.len() - *window;
                if sequence.finish.is_some() || guesses < rounds || guesses == counts[index] || seen > context
                {
                    continue;
                }
                let unseen = &sequence.tokens[*window + cache.len()..];
                let (before, last) = unseen.split_at(unseen.len() - unseen.len().min(2));
                if !before.is_empty() {
                    prefill(model, before, cache, work)?;
                }
                batch.push(Step::new(model, last, cache, Want::Last)?);
                rows.push(index);
            }
            if batch.is_empty() {
                return Ok(rounds);
            }
            let logits = model.forward(&mut batch, work);
            drop(batch);
            for (row, &index) in rows.iter().enumerate() {
                let tokens = &mut sequences[index].tokens;
                scores.set(logits.row(row));
                let context =
                    Context { tokens, prompt: core.prompt.len(), sequence: index, ..Context::default() };
                chain.process(&context, scores);
                // Without a guess there is no draft, and that is all.
                if let Ok(id) = sampler.choose(scores, index, tokens.len()) {
                    tokens.push(id);
                }
            }
            rounds += 1;
        }
    }
}
