//! The forward pass of GPT-2, whole, on one page.
//!
//! Radford et al., "Language Models are Unsupervised Multitask Learners" (2019); the names are those
//! of the checkpoint. One-token decoding, prefill, ragged batches and the verification of drafts are
//! this one function.

use std::ops::Range;
use std::sync::Arc;

use gpt2_kernels::attention::{self, CacheFormat, CacheShape, Layer};
use gpt2_kernels::ops::{self, Epilogue};
use gpt2_kernels::{Activation, Cpu, Kernels, Pool, Rows, RowsMut, Scratch, WeightFormat};
use thiserror::Error;

use crate::cache::KvCache;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::Config;
use crate::logits::Logits;
use crate::pack::{PackCache, PackUse};
use crate::probe::{Probe, Site};
use crate::weights::{LayerNorm, Linear, Weights};
use crate::workspace::Workspace;

/// A GPT-2, ready to run: immutable, to be shared between threads behind an `Arc`.
#[derive(Debug)]
pub struct Model {
    config: Config,
    weights: Weights,
    cache_format: CacheFormat,
    cpu: Arc<Cpu>,
}

/// How numbers are held in memory. What is computed with them is `f32` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The matrices.
    pub weights: WeightFormat,
    /// Keys and values of past positions.
    pub cache: CacheFormat,
}

impl Default for Formats {
    /// What the checkpoint's arithmetic asks for: `f32` throughout.
    fn default() -> Self {
        WeightFormat::F32.into()
    }
}

impl From<WeightFormat> for Formats {
    /// Chooses the cache's format for that of the weights: `f32` for `f32`, `int8` for `int4`, else `f16`.
    fn from(weights: WeightFormat) -> Self {
        let cache = match weights {
            WeightFormat::F32 => CacheFormat::F32,
            WeightFormat::Bf16 | WeightFormat::Int8 | WeightFormat::Int6 => CacheFormat::F16,
            WeightFormat::Int4 => CacheFormat::Int8,
        };
        Self { weights, cache }
    }
}

impl Model {
    /// Loads the weights of a checkpoint into a format; `progress` is told how many bytes of how many are done.
    ///
    /// # Errors
    /// If the checkpoint does not hold exactly the tensors that the configuration asks for.
    ///
    /// # Panics
    /// Panics if the configuration was made by hand and is not [valid](Config::validate).
    pub fn load(
        cpu: impl Into<Arc<Cpu>>,
        config: Config,
        checkpoint: &Checkpoint,
        formats: Formats,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, CheckpointError> {
        config.validate().expect("a configuration must be valid");
        let cpu = cpu.into();
        let weights = Weights::load(&cpu, &config, checkpoint, formats.weights, progress)?;
        Ok(Self { config, weights, cache_format: formats.cache, cpu })
    }

    /// Does the same, but takes the matrices from a packed copy where `copies` has one, and keeps one there where not.
    ///
    /// What is computed is the same to the last bit. Only eight and four bits have [copies](crate::pack).
    ///
    /// # Errors
    /// As [`load`](Self::load). A copy that is damaged or cannot be written is no error.
    ///
    /// # Panics
    /// As `load`.
    pub fn load_with_copies(
        cpu: impl Into<Arc<Cpu>>,
        config: Config,
        checkpoint: &Checkpoint,
        formats: Formats,
        copies: &PackCache,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, PackUse), CheckpointError> {
        config.validate().expect("a configuration must be valid");
        let cpu = cpu.into();
        let (weights, found) =
            Weights::load_with_copies(&cpu, &config, checkpoint, formats.weights, copies, progress)?;
        Ok((Self { config, weights, cache_format: formats.cache, cpu }, found))
    }

    /// The sizes and options of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// How weights and past positions are held.
    #[must_use]
    pub fn formats(&self) -> Formats {
        Formats { weights: self.weights.format(), cache: self.cache_format }
    }

    /// What the model computes on, to be shared with other models.
    #[must_use]
    pub fn cpu(&self) -> &Arc<Cpu> {
        &self.cpu
    }

    /// Runs every step: stores its keys and values in its cache, and returns the logits it wants.
    ///
    /// The steps are independent sequences of any lengths; each one's result is bit for bit what it
    /// would be alone. Afterwards the steps are used up: their tokens are in the caches. Nothing is
    /// allocated.
    ///
    /// # Panics
    /// Panics if the steps have more tokens, or want more logits, than `work` has room for, or were
    /// made for a model of other sizes.
    pub fn forward<'w>(&self, steps: &mut [Step<'_>], work: &'w mut Workspace) -> Logits<'w> {
        self.forward_probed(steps, work, &mut ())
    }

    /// [`forward`](Self::forward), with an observer of what happens inside.
    ///
    /// # Panics
    /// As `forward`.
    pub fn forward_probed<'w>(
        &self,
        steps: &mut [Step<'_>],
        work: &'w mut Workspace,
        probe: &mut impl Probe,
    ) -> Logits<'w> {
        let Self { config, weights, cpu, .. } = self;
        let epsilon = config.layer_norm_epsilon;
        let (tokens, wanted) = self.place(steps, work);

        ops::for_each_row(cpu, work.residual.rows_mut(tokens), |row, x| {
            let (token, position) = token_at(steps, row);
            weights.embedding(token, x);
            for (x, wpe) in x.iter_mut().zip(&weights.wpe[position * config.n_embd..][..config.n_embd]) {
                *x += wpe;
            }
        });
        probe.observe(Site::Embeddings, work.residual.rows(tokens));

        for (index, block) in weights.h.iter().enumerate() {
            let Workspace { residual, normed, qkv, hidden, branch, batch, scratch, .. } = work;
            let layer = Layer { shape: self.cache_shape(), index, scale: config.attention_scale(index) };

            norm(cpu, residual.rows(tokens), &block.ln_1, epsilon, normed.rows_mut(tokens));
            probe.observe(Site::Ln1(index), normed.rows(tokens));
            linear(cpu, normed.rows(tokens), &block.c_attn, None, qkv.rows_mut(tokens), scratch);
            let qkv = qkv.rows(tokens);
            probe.observe(Site::Qkv(index), qkv);
            match &mut *steps {
                [step] => step.store(cpu.kernels, Some(&cpu.pool), layer, qkv),
                steps => ops::for_each_mut(cpu, steps, |step| step.store(cpu.kernels, None, layer, qkv)),
            }
            let blocks = |step: usize| &steps[step].cache.blocks[..];
            attention::attend(cpu, layer, batch, blocks, qkv, scratch, normed.rows_mut(tokens));
            probe.observe(Site::Heads(index), normed.rows(tokens));
            if probe.wants_attention(index) {
                self.show_attention(steps, layer, qkv, probe);
            }
            linear(cpu, normed.rows(tokens), &block.attn_c_proj, None, branch.rows_mut(tokens), scratch);
            probe.observe(Site::Attention(index), branch.rows(tokens));
            ops::add(cpu, residual.rows_mut(tokens), branch.rows(tokens));

            norm(cpu, residual.rows(tokens), &block.ln_2, epsilon, normed.rows_mut(tokens));
            probe.observe(Site::Ln2(index), normed.rows(tokens));
            let activation = Some(config.activation);
            linear(cpu, normed.rows(tokens), &block.c_fc, activation, hidden.rows_mut(tokens), scratch);
            probe.observe(Site::Hidden(index), hidden.rows(tokens));
            linear(cpu, hidden.rows(tokens), &block.mlp_c_proj, None, branch.rows_mut(tokens), scratch);
            probe.observe(Site::Mlp(index), branch.rows(tokens));
            ops::add(cpu, residual.rows_mut(tokens), branch.rows(tokens));
            probe.observe(Site::Residual(index), residual.rows(tokens));
        }

        // The head is the largest matrix: it runs for the positions that are wanted and no others.
        for (target, row) in steps.iter().flat_map(Step::wanted_rows).enumerate() {
            work.branch.row_mut(target).copy_from_slice(work.residual.row(row));
        }
        steps.iter_mut().for_each(Step::finish);
        norm(cpu, work.branch.rows(wanted), &weights.ln_f, epsilon, work.normed.rows_mut(wanted));
        probe.observe(Site::LnF, work.normed.rows(wanted));
        let Workspace { normed, logits, scratch, .. } = work;
        let (normed, head) = (normed.rows(wanted), weights.head());
        ops::matmul(cpu, normed, head, Epilogue::default(), logits.rows_mut(wanted), scratch);
        probe.observe(Site::Logits, work.logits.rows(wanted));
        Logits::new(&mut work.logits, wanted)
    }

    /// Gives every step its rows in the batch; returns the number of rows and of logits wanted.
    fn place(&self, steps: &mut [Step<'_>], work: &mut Workspace) -> (usize, usize) {
        work.batch.clear();
        for step in &mut *steps {
            assert!(step.cache.is_for(self), "a step for a model of other sizes");
            step.first_row = work.batch.push(step.past(), step.tokens.len());
        }
        let (tokens, wanted) = (work.batch.rows(), steps.iter().map(|step| step.wanted_rows().len()).sum());
        assert!(tokens <= work.tokens(), "{tokens} tokens in a workspace for {}", work.tokens());
        assert!(wanted <= work.wanted(), "{wanted} rows of logits in a workspace for {}", work.wanted());
        (tokens, wanted)
    }

    /// Checks that tokens are of the vocabulary.
    ///
    /// # Errors
    /// [`StepError::Token`] for the first that is not.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), StepError> {
        let vocabulary = self.config.vocab_size;
        match tokens.iter().enumerate().find(|&(_, &id)| id as usize >= vocabulary) {
            Some((index, &id)) => Err(StepError::Token { id, index, vocabulary }),
            None => Ok(()),
        }
    }

    /// The sizes of a cache for this model.
    pub(crate) fn cache_shape(&self) -> CacheShape {
        cache_shape(&self.config, self.cache_format)
    }

    fn show_attention(&self, steps: &[Step<'_>], layer: Layer, qkv: Rows<'_>, probe: &mut impl Probe) {
        let size = self.config.head_size();
        for step in steps {
            for (index, row) in step.rows().enumerate() {
                let mut weights = vec![0.0; step.past() + index + 1];
                for head in 0..self.config.n_head {
                    let query = qkv.part(row, 1, head * size, size);
                    attention::weights(&self.cpu, layer, head, &step.cache.blocks, query, &mut weights);
                    probe.attention(layer.index, head, row, &weights);
                }
            }
        }
    }
}

/// The sizes of a cache for a configuration.
pub(crate) fn cache_shape(config: &Config, format: CacheFormat) -> CacheShape {
    let Config { n_layer: layers, n_head: heads, .. } = *config;
    CacheShape { layers, heads, head_size: config.head_size(), format }
}

fn norm(cpu: &Cpu, x: Rows<'_>, ln: &LayerNorm, epsilon: f32, out: RowsMut<'_>) {
    ops::layer_norm(cpu, x, &ln.weight, &ln.bias, epsilon, out);
}

fn linear(
    cpu: &Cpu,
    x: Rows<'_>,
    linear: &Linear,
    activation: Option<Activation>,
    out: RowsMut<'_>,
    scratch: &mut Scratch,
) {
    let epilogue = Epilogue { bias: Some(&linear.bias), activation };
    ops::matmul(cpu, x, &linear.weight, epilogue, out, scratch);
}

/// The token and the position of a row of the batch.
fn token_at(steps: &[Step<'_>], row: usize) -> (u32, usize) {
    let after = steps.partition_point(|step| step.first_row <= row);
    let step = &steps[after - 1];
    (step.tokens[row - step.first_row], step.past() + row - step.first_row)
}

/// One sequence's new tokens, checked when it is made: the forward pass cannot fail.
#[derive(Debug)]
pub struct Step<'a> {
    tokens: &'a [u32],
    cache: &'a mut KvCache,
    want: Want,
    first_row: usize,
}

/// The positions of a step whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// None: the step only fills the cache.
    Nothing,
    /// The last one: what comes next.
    Last,
    /// Every one: to score a text.
    All,
}

/// Why tokens cannot be fed, or nothing said of what follows them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepError {
    /// There are no tokens.
    #[error("no tokens: a step needs at least one")]
    Empty,
    /// A token is not in the model's vocabulary.
    #[error("token {id} at index {index} is outside the model's vocabulary of {vocabulary}")]
    Token {
        /// The token.
        id: u32,
        /// Where it is among the step's tokens.
        index: usize,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// The tokens do not fit into the context.
    #[error("{new} {}tokens do not fit into the model's context of {context}{}",
        if *past > 0 { "more " } else { "" },
        if *past > 0 { format!(", of which {past} are taken") } else { String::new() }
    )]
    Context {
        /// Positions seen before.
        past: usize,
        /// Tokens to add.
        new: usize,
        /// The model's `n_positions`.
        context: usize,
    },
    /// The model computes no probabilities here: its weights hold values that are no numbers, or overflow.
    #[error("the logits behind position {position} are no numbers: the weights may be damaged")]
    NotFinite {
        /// The position, counted from the start of the text.
        position: usize,
    },
}

impl<'a> Step<'a> {
    /// Checks the tokens that continue the sequence of `cache`, and makes room for them.
    ///
    /// # Errors
    /// If there are no tokens, one is outside the vocabulary, or they do not fit into the context.
    ///
    /// # Panics
    /// Panics if the cache was made for a model of other sizes.
    pub fn new(
        model: &Model,
        tokens: &'a [u32],
        cache: &'a mut KvCache,
        want: Want,
    ) -> Result<Self, StepError> {
        assert!(cache.is_for(model), "a cache for a model of other sizes");
        if tokens.is_empty() {
            return Err(StepError::Empty);
        }
        model.check_tokens(tokens)?;
        if tokens.len() > cache.room() {
            let context = model.config.n_positions;
            return Err(StepError::Context { past: cache.len(), new: tokens.len(), context });
        }
        cache.reserve(tokens.len());
        Ok(Self { tokens, cache, want, first_row: 0 })
    }

    fn past(&self) -> usize {
        self.cache.len()
    }

    /// Stores the keys and values of one layer, which are among those of the batch.
    fn store(&mut self, kernels: &'static Kernels, pool: Option<&Pool>, layer: Layer, qkv: Rows<'_>) {
        let new = qkv.part(self.first_row, self.tokens.len(), 0, qkv.width());
        let past = self.past();
        attention::store(kernels, pool, layer, &mut self.cache.blocks, past, new);
    }

    fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.tokens.len()
    }

    fn wanted_rows(&self) -> Range<usize> {
        let rows = self.rows();
        match self.want {
            Want::Nothing => rows.end..rows.end,
            Want::Last => rows.end.saturating_sub(1).max(rows.start)..rows.end,
            Want::All => rows,
        }
    }

    /// Counts the tokens as seen; the step has none any more.
    fn finish(&mut self) {
        self.cache.advance(self.tokens.len());
        self.tokens = &[];
    }
}
