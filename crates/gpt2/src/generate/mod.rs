//! Generation: a prompt in, tokens out, one at a time.
//!
//! ```text
//! Model::generate ─ Generate ─ check ─► Generation (Iterator of GeneratedToken) ─► TextGeneration (Iterator of TextDelta)
//! ```
//! The prompt goes through the model once for all return sequences; then every sequence that is not
//! finished takes part in every forward pass. A sequence's tokens are a function of prompt, settings,
//! seed and its own index: not of what else is generated beside it.

mod batch;
mod beam;
mod beams;
mod chain;
mod check;
mod config;
mod constraints;
mod contrastive;
mod core;
mod details;
mod dola;
mod error;
mod groups;
mod guidance;
mod heal;
mod model_settings;
mod pace;
mod plain;
mod repetition;
mod request;
mod speculation;
mod structured;
mod text;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use batch::{Batch, BatchEvent, BatchStats};
pub use chain::{Chain, Setup};
pub use check::{Idle, SPEED_ONLY};
pub use config::{
    DolaHalf, DolaLayers, EarlyStopping, ForcedWords, GenerationConfig, Overflow, Rng, SamplerName,
    SeedingScheme, Watermarking,
};
pub use details::{Alternative, Details, DetailsRequest, RemovedToken, Trace, TraceStep};
pub use error::GenerateError;
pub use repetition::Repetition;
pub use request::Generate;
pub use speculation::SpeculationReport;
pub use structured::StructuredOutputs;
pub use text::{Completion, TextDelta, TextGeneration};

use self::beams::Beams;
use self::constraints::Constraints;
use self::contrastive::{Contrastive, Hidden};
use self::core::Core;
use self::dola::Dola;
use self::groups::Groups;
use self::guidance::Guidance;
use self::plain::Plain;
use self::speculation::Speculation;
use crate::score::{TokenDetails, token_details};
use crate::workspace::Workspace;

/// A token, as soon as it is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Which return sequence it belongs to.
    pub sequence: usize,
    /// The token.
    pub id: u32,
    /// Its log-probability by the model, before any processor.
    pub logprob: f32,
    /// Its score after the processors; with beams, the processed log-probability that was added to the beam's score:
    /// what transformers' `compute_transition_scores` gives.
    pub score: f32,
    /// Why the sequence ends with this token, if it does.
    pub finish: Option<FinishReason>,
    /// What else there is to say of it, if [it was asked for](Generate::details).
    pub details: Option<Box<Details>>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose an end-of-text token, which is the sequence's last.
    Eos,
    /// `max_new_tokens` or `max_length` is reached.
    Length,
    /// A stop string came up, or the caller's own criterion was met.
    Stop,
    /// The model's context is full.
    Context,
    /// The time is up.
    Time,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the start to the logits behind the prompt.
    pub prefill: Duration,
    /// Decoding and choosing tokens since then, without what the caller does between two of them.
    pub decode: Duration,
}

/// A generation under way.
///
/// Yields the tokens of all sequences, those of one position in the order of the sequences; where tokens are guessed, a
/// sequence may be further than those before it.
pub struct Generation<'m> {
    core: Core<'m>,
    work: Workspace,
    mode: Mode<'m>,
    ready: VecDeque<GeneratedToken>,
    failed: bool,
    timing: Timing,
}

/// How texts are searched for.
enum Mode<'m> {
    Plain(Box<Plain<'m>>),
    Beams(Beams<'m>),
    Groups(Groups<'m>),
    Contrastive(Box<Contrastive<'m>>),
}

impl<'m> Generation<'m> {
    fn new(mut request: Generate<'m>) -> Result<Self, GenerateError> {
        let begin = Instant::now();
        request.config.check()?;
        heal::heal_request(&mut request)?;
        let vocabulary = request.model.config().vocab_size;
        let (beams, sequences) = (request.config.beams(), request.config.sequences());
        let assistant = request.assistant;
        request.config.check_speculation(assistant.is_some())?;
        let (core, work, mode) = if beams > 1 {
            let groups = request.config.groups();
            let constraints = request.config.force_words_ids.as_deref().map(Constraints::new);
            let core = Core::new(request)?;
            let mut work = core.workspace(beams);
            let cache = core.prefill(&mut work)?;
            let mode = if groups > 1 || constraints.is_some() {
                Mode::Groups(Groups::new(&core, &cache, constraints))
            } else {
                Mode::Beams(Beams::new(&core, &cache))
            };
            (core, work, mode)
        } else if request.config.contrasts() {
            let rows = request.config.top_k.map_or(1, |top_k| top_k.min(vocabulary));
            let core = Core::new(request)?;
            let mut work = core.workspace(rows);
            let mut hidden = Hidden::new(core.model, work.tokens());
            let cache = core.prefill_probed(&mut work, &mut hidden)?;
            let mode = Mode::Contrastive(Box::new(Contrastive::new(&core, rows, cache, hidden)));
            (core, work, mode)
        } else {
            let rows = sequences * if request.config.guides() { 2 } else { 1 };
            let dola = Dola::new(request.model, &request.config)?;
            let core = Core::new(request)?;
            let speculation = Speculation::new(&core, assistant)?;
            let rows = speculation.as_ref().map_or(rows, |speculation| speculation.rows(sequences));
            let mut work = core.workspace(rows);
            let cache = core.prefill(&mut work)?;
            let guidance = Guidance::new(&core, &mut work)?;
            let mode = Mode::Plain(Box::new(Plain::new(&core, &cache, guidance, dola, speculation)));
            (core, work, mode)
        };
        let timing = Timing { prefill: begin.elapsed(), decode: Duration::ZERO };
        Ok(Self { core, work, mode, ready: VecDeque::with_capacity(sequences), failed: false, timing })
    }

    /// The settings, the seed among them.
    #[must_use]
    pub fn config(&self) -> &GenerationConfig {
        &self.core.config
    }

    /// The prompt's tokens: what was given, or what healing made of it, or the beginning-of-text token for an empty
    /// prompt.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        &self.core.prompt
    }

    /// What the model thinks of every token of the prompt, with so many of the tokens that it finds likeliest in its
    /// place. A prompt longer than the context is read in windows that overlap by half.
    ///
    /// # Errors
    /// If the model's weights are damaged.
    pub fn prompt_details(&self, alternatives: usize) -> Result<Vec<TokenDetails>, GenerateError> {
        Ok(token_details(self.core.model, &self.core.prompt, alternatives)?)
    }

    /// Where the time went so far.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The scores of the beams that are returned, best first, when beam search has ended; empty otherwise.
    #[must_use]
    pub fn sequences_scores(&self) -> Vec<f32> {
        match &self.mode {
            Mode::Beams(beams) => beams.scores(),
            Mode::Groups(groups) => groups.scores(),
            Mode::Plain(_) | Mode::Contrastive(_) => Vec::new(),
        }
    }

    /// What came of guessing tokens, if they [are](GenerationConfig::prompt_lookup_num_tokens)
    /// [guessed](Generate::assistant).
    #[must_use]
    pub fn speculation(&self) -> Option<&SpeculationReport> {
        match &self.mode {
            Mode::Plain(plain) => plain.speculation(),
            Mode::Beams(_) | Mode::Groups(_) | Mode::Contrastive(_) => None,
        }
    }

    /// Whether tokens behind the prompt are, as they stand, a whole text of the structure that was asked for; None without
    /// one. An end token is no part of it.
    #[must_use]
    pub fn complete(&self, tokens: &[u32]) -> Option<bool> {
        Some(self.core.chain.grammar()?.accepts(tokens))
    }

    /// Ends a sequence: it yields no further token.
    ///
    /// # Panics
    /// Panics if there is no such sequence.
    pub fn stop(&mut self, sequence: usize, reason: FinishReason) {
        match &mut self.mode {
            Mode::Plain(plain) => plain.stop(&self.core, sequence, reason),
            Mode::Beams(beams) => beams.stop(sequence),
            Mode::Groups(groups) => groups.stop(sequence),
            Mode::Contrastive(contrastive) => contrastive.stop(sequence, reason),
        }
        self.ready.retain(|token| token.sequence != sequence);
    }

    fn finished(&self) -> bool {
        match &self.mode {
            Mode::Plain(plain) => plain.finished(),
            Mode::Beams(beams) => beams.finished(),
            Mode::Groups(groups) => groups.finished(),
            Mode::Contrastive(contrastive) => contrastive.finished(),
        }
    }

    /// Whether all tokens have been given out.
    fn over(&self) -> bool {
        self.ready.is_empty() && (self.failed || self.finished())
    }

    fn advance(&mut self) -> Result<(), GenerateError> {
        let begin = Instant::now();
        let Self { core, work, mode, ready, .. } = self;
        match mode {
            Mode::Plain(plain) => plain.advance(core, work, ready)?,
            Mode::Beams(beams) => beams.advance(core, work, ready)?,
            Mode::Groups(groups) => groups.advance(core, work, ready)?,
            Mode::Contrastive(contrastive) => contrastive.advance(core, work, ready)?,
        }
        self.timing.decode += begin.elapsed();
        Ok(())
    }
}

impl Iterator for Generation<'_> {
    /// An error ends the generation: there are no probabilities to choose by, because weights are damaged or the
    /// settings rule out every token.
    type Item = Result<GeneratedToken, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(token) = self.ready.pop_front() {
                return Some(Ok(token));
            }
            if self.failed || self.finished() {
                return None;
            }
            if let Err(error) = self.advance() {
                self.failed = true;
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }
}
