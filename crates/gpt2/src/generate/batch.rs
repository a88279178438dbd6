//! Many requests at once: continuous batching.
//!
//! Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models" (2022): the batch is made anew
//! for every forward pass. Every sequence under way feeds its last token, requests that have just come feed a piece of their
//! prompt, and the place of one that has ended is the next one's at once.

use std::collections::VecDeque;
use std::time::Instant;

use gpt2_kernels::attention::BLOCK;
use gpt2_kernels::{Rows, ops};

use super::core::Core;
use super::plain::{Plain, recycled};
use super::request::Generate;
use super::text::{Completion, TextDelta, Texts};
use super::{FinishReason, GenerateError, GeneratedToken, Generation, GenerationConfig, Timing, heal};
use crate::cache::KvCache;
use crate::model::{Model, Step, Want};
use crate::predict::PREFILL_CHUNK;
use crate::process::structure::Grammar;
use crate::workspace::Workspace;

/// A batch that requests join and leave at any time.
///
/// Every text is what its request alone gives, to the last bit: whatever it is batched with, in whatever order, and
/// however many places there are. Sampling and greedy decoding share forward passes. Beams, contrastive search, contrasted
/// layers and guidance go through the model by themselves, one request at a time, a token in turn with the others. No tokens
/// are guessed: what the guesses of one sequence would save, the others use.
///
/// Processors and the choice of tokens run on the model's threads, many requests at once; where functions of the caller's
/// take part, on the caller's.
///
/// It is an iterator of what happens, which ends when nothing is left to do, and goes on when there is something again.
///
/// ```
/// # use gpt2::{generate::{Batch, BatchEvent}, model::Formats, pretrained::Pretrained};
/// # use gpt2_kernels::{Cpu, Kernels};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
/// # let gpt2 = Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), Formats::default())?;
/// let mut batch = Batch::new(&gpt2.model, 32);
/// for prompt in ["Once upon a time", "In a village", "The fox said"] {
///     batch.push(gpt2.generate(prompt)?.max_new_tokens(10));
/// }
/// for event in batch {
///     if let BatchEvent::Finished { request, result, .. } = event {
///         println!("{request}: {}", result?[0].text);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Batch<'m> {
    model: &'m Model,
    slots: usize,
    work: Workspace,
    /// Those that share forward passes, and those that do not; each in the order of their numbers.
    waiting: [VecDeque<(usize, Box<Generate<'m>>)>; 2],
    running: Vec<Running<'m>>,
    /// Empty but during a forward pass; kept for its allocation.
    steps: Vec<Step<'m>>,
    events: VecDeque<BatchEvent>,
    requests: usize,
    stats: BatchStats,
}

/// What a [`Batch`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Tokens of prompts that were read, without those that a [`PrefixCache`](crate::cache::PrefixCache) knew; of requests
    /// that share no passes, all.
    pub prompt_tokens: usize,
    /// Tokens that were chosen.
    pub tokens: usize,
    /// Where the time went. Of a pass that feeds both, each token has an equal share.
    pub timing: Timing,
}

/// What happens in a [`Batch`].
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEvent {
    /// A token was chosen.
    Token {
        /// The number of the request, as [`Batch::push`] gave it.
        request: usize,
        /// The token, and what it adds to the text of its sequence; no text if the request names no tokenizer.
        delta: TextDelta,
    },
    /// A request is done with, and nothing more will be said of it.
    Finished {
        /// The number of the request.
        request: usize,
        /// The tokens of the prompt, as [`Generation::prompt`]; none where the request was refused.
        prompt: Vec<u32>,
        /// With beams, the scores of the sequences: [`Generation::sequences_scores`].
        scores: Vec<f32>,
        /// Its sequences, or why there are none. The other requests go on.
        result: Result<Vec<Completion>, GenerateError>,
    },
}

/// A request that has a place.
struct Running<'m> {
    request: usize,
    texts: Texts<'m>,
    way: Way<'m>,
    /// What the last step brought.
    ready: VecDeque<GeneratedToken>,
    error: Option<GenerateError>,
}

enum Way<'m> {
    Shared(Box<Shared<'m>>),
    Alone {
        generation: Box<Generation<'m>>,
        /// As many as it needs at most.
        places: usize,
    },
}

/// A request that shares forward passes.
struct Shared<'m> {
    core: Core<'m>,
    progress: Progress<'m>,
    /// Its first row of the logits in this step.
    row: usize,
}

enum Progress<'m> {
    /// The first tokens of the prompt, from the window on, are in the cache.
    Reading(KvCache),
    /// The prompt is in the cache, and its logits are wanted in this step.
    Read(KvCache),
    Decoding(Box<Plain<'m>>),
}

impl<'m> Batch<'m> {
    /// Makes an empty batch in which up to `slots` sequences go through the model together.
    ///
    /// It needs what [`MemoryNeed::batch`](crate::memory::MemoryNeed::batch) says. A request for more sequences than that
    /// waits until it has the batch for itself.
    ///
    /// # Panics
    /// Panics if there are no slots.
    #[must_use]
    pub fn new(model: &'m Model, slots: usize) -> Self {
        assert!(slots > 0, "a batch without slots");
        Self {
            model,
            slots,
            work: Workspace::new(model, PREFILL_CHUNK.max(slots), slots),
            waiting: [VecDeque::new(), VecDeque::new()],
            running: Vec::new(),
            steps: Vec::with_capacity(slots),
            events: VecDeque::new(),
            requests: 0,
            stats: BatchStats::default(),
        }
    }

    /// Adds a request behind all others; returns its number, counted from 0.
    ///
    /// # Panics
    /// Panics if the request is for another model.
    pub fn push(&mut self, request: Generate<'m>) -> usize {
        assert!(std::ptr::eq(request.model, self.model), "a request for another model");
        let queue = &mut self.waiting[usize::from(alone(&request.config))];
        queue.push_back((self.requests, Box::new(request)));
        self.requests += 1;
        self.requests - 1
    }

    /// Number of requests that were pushed and are not finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum::<usize>() + self.running.len()
    }

    /// What was done so far, and how long it took, without what the caller does between two events.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        self.stats
    }

    /// Gives places to those who wait, in their order, as long as there are some. Of those that share no passes one is
    /// under way at a time, for it has a workspace of its own; the others go before the rest of them.
    fn admit(&mut self) {
        loop {
            let taken: usize = self.running.iter().map(Running::places).sum();
            let busy = self.running.iter().any(|running| matches!(running.way, Way::Alone { .. }));
            let open = self.waiting.iter_mut().take(if busy { 1 } else { 2 });
            let first = open.filter_map(|queue| Some((queue.front()?.0, queue))).min_by_key(|(n, _)| *n);
            let Some((_, queue)) = first else { return };
            let Some((request, next)) = queue.pop_front() else { return };
            let full = !self.running.is_empty() && taken + places(self.model, &next.config) > self.slots;
            if full || self.is_being_read(&next) {
                self.waiting[usize::from(alone(&next.config))].push_front((request, next));
                return;
            }
            match self.begin(request, *next) {
                Ok(running) => self.running.push(running),
                Err(error) => self.events.push_back(BatchEvent::Finished {
                    request,
                    prompt: Vec::new(),
                    scores: Vec::new(),
                    result: Err(error),
                }),
            }
        }
    }

    /// Whether more of how a prompt begins is being read for another one than is known yet: it will soon be.
    fn is_being_read(&self, next: &Generate<'m>) -> bool {
        let Some(prefixes) = next.prefixes else { return false };
        let shared = |running: &Running<'_>| match &running.way {
            Way::Shared(shared) if shared.decoding() == 0 => {
                let pairs = shared.core.text().iter().zip(&next.prompt);
                pairs.take_while(|(a, b)| a == b).count() / BLOCK * BLOCK
            }
            _ => 0,
        };
        let shared = self.running.iter().map(shared).max().unwrap_or(0);
        shared >= BLOCK && shared.min(next.prompt.len() - 1) / BLOCK > prefixes.known(&next.prompt)
    }

    fn begin(&mut self, request: usize, mut generate: Generate<'m>) -> Result<Running<'m>, GenerateError> {
        generate.config.check()?;
        generate.config.check_speculation(generate.assistant.is_some())?;
        let (tokenizer, config) = (generate.tokenizer, &generate.config);
        let texts = Texts::new(tokenizer, config);
        let way = if alone(config) {
            let places = places(self.model, config);
            let generation = Box::new(generate.tokens()?);
            self.stats.prompt_tokens += generation.prompt().len();
            Way::Alone { generation, places }
        } else {
            heal::heal_request(&mut generate)?;
            let core = Core::new(generate)?;
            let cache = core.begin()?;
            let wanted = core.config.sequences();
            if wanted > self.work.wanted() {
                self.work = Workspace::new(self.model, PREFILL_CHUNK.max(wanted), wanted);
            }
            Way::Shared(Box::new(Shared { core, progress: Progress::Reading(cache), row: 0 }))
        };
        Ok(Running { request, texts, way, ready: VecDeque::new(), error: None })
    }

    /// Takes every sequence a token further, and prompts by as much as fits.
    fn advance(&mut self) {
        let begin = Instant::now();
        self.admit();
        let mut prefill = begin.elapsed();
        let Self { model, work, running, steps, .. } = self;
        let mut batch = recycled(std::mem::take(steps));
        let mut rows = 0;
        let decoding = |running: &Running<'_>| match &running.way {
            Way::Shared(shared) => shared.decoding(),
            Way::Alone { .. } => 0,
        };
        // Who is behind the prompt is not kept waiting by those who are not.
        let most = work.tokens() - running.iter().map(decoding).sum::<usize>();
        let (mut room, mut decoded) = (most, 0);
        for Running { way, error, .. } in running.iter_mut() {
            let Way::Shared(shared) = way else { continue };
            let Shared { core, progress, row } = &mut **shared;
            *row = rows;
            if let Progress::Decoding(plain) = progress
                && let Err(slide) = plain.slide(core, work)
            {
                *error = Some(slide);
                continue;
            }
            let first = batch.len();
            match progress {
                Progress::Decoding(plain) => {
                    plain.feed(core, &mut batch);
                    rows += batch.len() - first;
                    decoded += batch.len() - first;
                }
                Progress::Reading(_) | Progress::Read(_) => {
                    rows += read(core, progress, model, &mut room, &mut batch);
                }
            }
        }
        if !batch.is_empty() {
            let pass = Instant::now();
            model.forward(&mut batch, work);
            let read = most - room;
            prefill += pass.elapsed().mul_f64(read as f64 / (read + decoded) as f64);
            self.stats.prompt_tokens += read;
        }
        *steps = recycled(batch);
        let logits = work.logits(rows);
        let choose = |running: &mut Running<'m>, calls_back: bool| {
            if let Running { way: Way::Shared(shared), ready, error: error @ None, .. } = running
                && shared.core.calls_back == calls_back
            {
                let rows = logits.part(shared.row, rows - shared.row, 0, logits.width());
                *error = shared.choose(rows, ready).err();
            }
        };
        ops::for_each_mut(model.cpu(), running, |running| choose(running, false));
        // What is the caller's may use the model, and so the pool, within whose tasks nothing can wait for it.
        running.iter_mut().for_each(|running| choose(running, true));
        for running in running.iter_mut() {
            if let Way::Alone { generation, .. } = &mut running.way {
                match generation.next() {
                    Some(Ok(token)) => running.ready.push_back(token),
                    Some(Err(error)) => running.error = Some(error),
                    None => {}
                }
            }
        }
        self.tell();
        self.stats.timing.prefill += prefill;
        self.stats.timing.decode += begin.elapsed().saturating_sub(prefill);
    }

    /// Says what the step has brought, and has those leave who are done.
    fn tell(&mut self) {
        let Self { running, events, stats, .. } = self;
        for running in running.iter_mut() {
            let Running { request, texts, way, ready, error } = running;
            while let Some(token) = ready.pop_front() {
                match texts.take(token, way.grammar()) {
                    Ok((delta, stopped)) => {
                        stats.tokens += 1;
                        if stopped {
                            way.stop(delta.token.sequence);
                        }
                        events.push_back(BatchEvent::Token { request: *request, delta });
                    }
                    Err(wrong) => {
                        error.get_or_insert(wrong.into());
                    }
                }
            }
        }
        let done = |running: &mut Running<'_>| running.error.is_some() || running.way.finished();
        for Running { request, texts, way, error, .. } in running.extract_if(.., done) {
            let (prompt, scores) = (way.prompt().to_vec(), way.scores());
            let result = match error {
                Some(error) => Err(error),
                None => Ok(texts.into_completions()),
            };
            events.push_back(BatchEvent::Finished { request, prompt, scores, result });
        }
    }
}

/// Whether a request needs forward passes of its own.
fn alone(config: &GenerationConfig) -> bool {
    config.beams() > 1 || config.contrasts() || config.dola_layers.is_some() || config.guides()
}

/// How many full contexts a request may have in caches.
fn places(model: &Model, config: &GenerationConfig) -> usize {
    let sequences = config.sequences();
    if config.contrasts() {
        // The candidates have a block each for themselves.
        let blocks = config.top_k.unwrap_or(0).min(model.config().vocab_size);
        1 + blocks.div_ceil(model.config().n_positions.div_ceil(BLOCK))
    } else if config.guides() {
        2 * sequences
    } else {
        sequences.max(config.beams())
    }
}

impl Running<'_> {
    /// Places that it has: those of sequences that have ended are others'.
    fn places(&self) -> usize {
        match &self.way {
            Way::Shared(shared) => match &shared.progress {
                Progress::Decoding(plain) => plain.unfinished(),
                Progress::Reading(_) | Progress::Read(_) => shared.core.config.sequences(),
            },
            Way::Alone { places, .. } => *places,
        }
    }
}

/// Puts as much of a prompt as there is room for into a batch; returns how many rows of logits are wanted.
fn read<'s>(
    core: &'s Core<'_>,
    progress: &'s mut Progress<'_>,
    model: &Model,
    room: &mut usize,
    batch: &mut Vec<Step<'s>>,
) -> usize {
    if let Progress::Reading(cache) = progress {
        let rest = core.text().len() - cache.len();
        if *room == 0 {
            return 0;
        }
        if rest <= *room {
            *progress = Progress::Read(std::mem::replace(cache, KvCache::new(model)));
        }
    }
    let (cache, want) = match progress {
        Progress::Reading(cache) => (cache, Want::Nothing),
        Progress::Read(cache) => (cache, Want::Last),
        Progress::Decoding(_) => return 0,
    };
    let rest = &core.text()[cache.len()..];
    let piece = &rest[..rest.len().min(*room)];
    *room -= piece.len();
    let step = Step::new(model, piece, cache, want);
    batch.push(step.expect("a prompt was checked when it came, and has a token whose logits are wanted"));
    usize::from(want == Want::Last)
}

impl<'m> Shared<'m> {
    /// Number of sequences that feed a token.
    fn decoding(&self) -> usize {
        match &self.progress {
            Progress::Decoding(plain) => plain.unfinished(),
            Progress::Reading(_) | Progress::Read(_) => 0,
        }
    }

    /// Chooses the next token of every sequence from the rows of logits.
    fn choose(
        &mut self,
        logits: Rows<'_>,
        ready: &mut VecDeque<GeneratedToken>,
    ) -> Result<(), GenerateError> {
        let Self { core, progress, .. } = self;
        if let Progress::Read(cache) = progress {
            core.keep(core.text(), cache);
            *progress = Progress::Decoding(Box::new(Plain::new(core, cache, None, None, None)));
        }
        match progress {
            Progress::Decoding(plain) => plain.choose(core, logits, ready),
            Progress::Reading(_) | Progress::Read(_) => Ok(()),
        }
    }
}

impl Way<'_> {
    fn stop(&mut self, sequence: usize) {
        match self {
            Way::Alone { generation, .. } => generation.stop(sequence, FinishReason::Stop),
            Way::Shared(shared) => {
                if let Shared { core, progress: Progress::Decoding(plain), .. } = &mut **shared {
                    plain.stop(core, sequence, FinishReason::Stop);
                }
            }
        }
    }

    fn finished(&self) -> bool {
        match self {
            Way::Alone { generation, .. } => generation.over(),
            Way::Shared(shared) => matches!(&shared.progress, Progress::Decoding(plain) if plain.finished()),
        }
    }

    fn grammar(&self) -> Option<&Grammar> {
        match self {
            Way::Alone { generation, .. } => generation.core.chain.grammar(),
            Way::Shared(shared) => shared.core.chain.grammar(),
        }
    }

    fn scores(&self) -> Vec<f32> {
        match self {
            Way::Alone { generation, .. } => generation.sequences_scores(),
            Way::Shared(_) => Vec::new(),
        }
    }

    fn prompt(&self) -> &[u32] {
        match self {
            Way::Alone { generation, .. } => generation.prompt(),
            Way::Shared(shared) => &shared.core.prompt,
        }
    }
}

impl Iterator for Batch<'_> {
    type Item = BatchEvent;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.unfinished() == 0 {
                return None;
            }
            self.advance();
        }
    }
}
