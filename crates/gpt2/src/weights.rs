//! The parameters of a model, packed for the kernels.
//!
//! In formats that round activations, channels are evened out first: a layer norm multiplies channel k by
//! `weight[k]`, and where that is large for a few channels, they take the bits of the others that share a scale with
//! them. So the square root of it moves into the matrix behind: `x[k] · w[k] = (x[k] / f[k]) · (f[k] · w[k])`
//! (Xiao et al., "SmoothQuant", 2022).

use gpt2_kernels::math::{exp_f64, ln};
use gpt2_kernels::{Cpu, Matrix, Source, WeightFormat};

use crate::checkpoint::{Checkpoint, CheckpointError, TensorView, expected_tensors};
use crate::config::Config;
use crate::pack::{Key, PackCache, PackUse};

/// All parameters of a GPT-2, named as in the checkpoint.
#[derive(Debug)]
pub struct Weights {
    /// Token embeddings (V, C), packed as the matrix C × V that the tied head multiplies by.
    pub wte: Matrix,
    /// What a row of `wte` is divided by to be an embedding, where its channels were evened out. (C)
    pub wte_factors: Option<Vec<f32>>,
    /// Position embeddings. (P, C)
    pub wpe: Vec<f32>,
    /// The layers, `h` in the checkpoint.
    pub h: Vec<Block>,
    /// The last layer norm.
    pub ln_f: LayerNorm,
    /// A head of its own (C × V), where the model does not use `wte`.
    pub lm_head: Option<Matrix>,
    format: WeightFormat,
}

/// One layer.
#[derive(Debug)]
pub struct Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// `attn.c_attn`: queries, keys and values. C → 3C
    pub c_attn: Linear,
    /// `attn.c_proj`. C → C
    pub attn_c_proj: Linear,
    /// Before the MLP.
    pub ln_2: LayerNorm,
    /// `mlp.c_fc`. C → `n_inner`
    pub c_fc: Linear,
    /// `mlp.c_proj`. `n_inner` → C
    pub mlp_c_proj: Linear,
}

/// A matrix and its bias; `Conv1D` in transformers.
#[derive(Debug)]
pub struct Linear {
    /// The matrix.
    pub weight: Matrix,
    /// One value for each output.
    pub bias: Vec<f32>,
}

/// The parameters of a layer norm. (C)
#[derive(Debug)]
pub struct LayerNorm {
    /// The scale.
    pub weight: Vec<f32>,
    /// The shift.
    pub bias: Vec<f32>,
}

impl Weights {
    /// Reads every tensor and packs the matrices into `format`; `progress` is told how many bytes of how many are done.
    ///
    /// # Errors
    /// If a tensor is missing, has the wrong shape or a number format that is not supported, or if
    /// there is one that this configuration does not explain.
    pub fn load(
        cpu: &Cpu,
        config: &Config,
        checkpoint: &Checkpoint,
        format: WeightFormat,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, CheckpointError> {
        let mut loading = Loading::new(config, checkpoint, format, progress)?;
        let matrices = loading.pack(cpu);
        Ok(loading.assemble(matrices))
    }

    /// Does the same, but takes the matrices from a packed copy where `copies` has one, and keeps one there where not.
    ///
    /// # Errors
    /// As [`load`](Self::load): whatever becomes of the copy, the weights are those of the checkpoint.
    pub fn load_with_copies(
        cpu: &Cpu,
        config: &Config,
        checkpoint: &Checkpoint,
        format: WeightFormat,
        copies: &PackCache,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, PackUse), CheckpointError> {
        let mut loading = Loading::new(config, checkpoint, format, progress)?;
        let key = Key::new(format, || checkpoint.identity(&loading.tensors()));
        if let Some(key) = &key
            && let Some(matrices) = copies.read(cpu, key, &loading.shapes())
        {
            return Ok((loading.assemble(matrices), PackUse::Read));
        }
        let matrices = loading.pack(cpu);
        let found = key.map_or(PackUse::None, |key| {
            copies.write(cpu, &key, &matrices).map_or_else(PackUse::NotWritten, |()| PackUse::Written)
        });
        Ok((loading.assemble(matrices), found))
    }

    /// The matrix that turns hidden states into logits. C → V
    #[must_use]
    pub fn head(&self) -> &Matrix {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// How the matrices are held; `wte` and the head of an `int4` model in `int6`.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Writes a token's embedding. (C)
    ///
    /// # Panics
    /// Panics if there is no such token, or `out` is not C long.
    pub fn embedding(&self, token: u32, out: &mut [f32]) {
        self.wte.output_row(token as usize, out);
        for (out, factor) in out.iter_mut().zip(self.wte_factors.iter().flatten()) {
            *out /= factor;
        }
    }

    /// The matrices that decoding one token reads, in that order: every one once, `wte` as the head only.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let linears = self.h.iter().flat_map(|h| [&h.c_attn, &h.attn_c_proj, &h.c_fc, &h.mlp_c_proj]);
        linears.map(|linear| &linear.weight).chain([self.head()])
    }

    /// Bytes that decoding one token at batch 1 reads.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.matrices().map(|matrix| matrix.as_bytes().len()).sum()
    }

    /// Bits that a weight takes in memory, scales and padding included: the mean over [`matrices`](Self::matrices).
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        let weights: usize = self.matrices().map(|matrix| matrix.inputs() * matrix.outputs()).sum();
        8.0 * self.bytes_per_token() as f64 / weights as f64
    }
}

/// The format of `wte` and the head in a model of some format.
///
/// The head decides between tokens that are nearly alike: with four bits most of a model's error would be its own.
pub(crate) fn format_of_embeddings(format: WeightFormat) -> WeightFormat {
    if format == WeightFormat::Int4 { WeightFormat::Int6 } else { format }
}

/// A matrix of a checkpoint, and what becomes of it.
struct StoredMatrix<'a> {
    view: TensorView<'a>,
    inputs: usize,
    outputs: usize,
    format: WeightFormat,
    /// Stored `[outputs][inputs]`, as an embedding; else as a `Conv1D`.
    by_output: bool,
    /// What the weights of each input are multiplied by.
    factors: Option<Vec<f32>>,
}

/// A checkpoint that is being read: its vectors, and what its matrices are.
struct Loading<'a> {
    checkpoint: &'a Checkpoint,
    format: WeightFormat,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    /// The size on disk of all that will be read, masks and second copies of `wte` not counted.
    total: u64,
    wpe: Vec<f32>,
    ln_f: LayerNorm,
    /// `ln_1` and `ln_2` of each layer, then the biases of its matrices.
    layers: Vec<([LayerNorm; 2], [Vec<f32>; 4])>,
    /// The tensors of the layer norms' weights, on which the factors depend.
    norms: Vec<TensorView<'a>>,
    /// `wte`, a head if there is one, then four for each layer: the largest first, for their bytes on disk are
    /// released before the others are packed.
    matrices: Vec<StoredMatrix<'a>>,
    has_head: bool,
}

impl<'a> Loading<'a> {
    /// Checks the whole checkpoint, reads its vectors and finds its matrices.
    fn new(
        config: &Config,
        checkpoint: &'a Checkpoint,
        format: WeightFormat,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, CheckpointError> {
        checkpoint.check(config)?;
        let embeddings = checkpoint.embeddings(config)?;
        let c = config.n_embd;
        let has_head = embeddings.lm_head.is_some();
        let mut loading = Self {
            checkpoint,
            format,
            progress,
            done: 0,
            total: 0,
            wpe: Vec::new(),
            ln_f: LayerNorm { weight: Vec::new(), bias: Vec::new() },
            layers: Vec::with_capacity(config.n_layer),
            norms: Vec::new(),
            matrices: Vec::new(),
            has_head,
        };
        let vectors = expected_tensors(config)
            .filter(|(name, shape)| shape.len() == 1 || name == "wpe.weight")
            .filter_map(|(name, shape)| checkpoint.tensor(&name, &shape).ok())
            .map(|view| view.bytes.len() as u64)
            .sum::<u64>();
        loading.wpe = loading.vector("wpe.weight", &[config.n_positions, c])?;
        let (ln_f, factors) = loading.layer_norm("ln_f", c)?;
        loading.ln_f = ln_f;
        let embedding = |view, factors| StoredMatrix {
            view,
            inputs: c,
            outputs: config.vocab_size,
            format: format_of_embeddings(format),
            by_output: true,
            factors,
        };
        // The last one is the head: an embedding that is nothing else is not multiplied with.
        let tied = if has_head { None } else { factors.clone() };
        loading.matrices.push(embedding(embeddings.wte, tied));
        loading.matrices.extend(embeddings.lm_head.map(|view| embedding(view, factors)));
        for layer in 0..config.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            let (ln_1, factors_1) = loading.layer_norm(&name("ln_1"), c)?;
            let (ln_2, factors_2) = loading.layer_norm(&name("ln_2"), c)?;
            let biases = [
                loading.linear(&name("attn.c_attn"), c, 3 * c, factors_1)?,
                loading.linear(&name("attn.c_proj"), c, c, None)?,
                loading.linear(&name("mlp.c_fc"), c, config.n_inner, factors_2)?,
                loading.linear(&name("mlp.c_proj"), config.n_inner, c, None)?,
            ];
            loading.layers.push(([ln_1, ln_2], biases));
        }
        let matrices = loading.matrices.iter().map(|matrix| matrix.view.bytes.len() as u64);
        loading.total = vectors + matrices.sum::<u64>();
        Ok(loading)
    }

    fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let view = self.checkpoint.tensor(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        view.decode(0, &mut values);
        self.checkpoint.release(view.bytes);
        self.done += view.bytes.len() as u64;
        Ok(values)
    }

    /// Reads a layer norm, and evens its channels out where the format gains by it: returns the factors for the
    /// matrix behind.
    fn layer_norm(
        &mut self,
        name: &str,
        width: usize,
    ) -> Result<(LayerNorm, Option<Vec<f32>>), CheckpointError> {
        self.norms.push(self.checkpoint.tensor(&format!("{name}.weight"), &[width])?);
        let weight = self.vector(&format!("{name}.weight"), &[width])?;
        let bias = self.vector(&format!("{name}.bias"), &[width])?;
        let mut layer_norm = LayerNorm { weight, bias };
        let factors = if self.format.rounds_activations() { even_out(&mut layer_norm) } else { None };
        Ok((layer_norm, factors))
    }

    /// Finds a `Conv1D`, and reads its bias.
    fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        factors: Option<Vec<f32>>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let view = self.checkpoint.tensor(&format!("{name}.weight"), &[inputs, outputs])?;
        let format = self.format;
        self.matrices.push(StoredMatrix { view, inputs, outputs, format, by_output: false, factors });
        self.vector(&format!("{name}.bias"), &[outputs])
    }

    /// The tensors on which the packed matrices depend.
    fn tensors(&self) -> Vec<TensorView<'a>> {
        self.matrices.iter().map(|matrix| matrix.view).chain(self.norms.iter().copied()).collect()
    }

    /// Inputs, outputs and format of each matrix.
    fn shapes(&self) -> Vec<(usize, usize, WeightFormat)> {
        self.matrices.iter().map(|matrix| (matrix.inputs, matrix.outputs, matrix.format)).collect()
    }

    fn pack(&mut self, cpu: &Cpu) -> Vec<Matrix> {
        let mut packed = Vec::with_capacity(self.matrices.len());
        for &StoredMatrix { view, inputs, outputs, format, by_output, ref factors } in &self.matrices {
            let make = if by_output { Source::by_output } else { Source::by_input };
            let mut source = make(view.bytes, view.dtype, inputs, outputs);
            if let Some(factors) = factors {
                source = source.scaled(factors);
            }
            packed.push(Matrix::pack(cpu, source, format));
            self.checkpoint.release(view.bytes);
            self.done += view.bytes.len() as u64;
            (self.progress)(self.done, self.total);
        }
        packed
    }

    /// Puts the vectors and the packed matrices together.
    fn assemble(self, packed: Vec<Matrix>) -> Weights {
        let Self { format, progress, total, wpe, ln_f, layers, mut matrices, has_head, .. } = self;
        let mut packed = packed.into_iter();
        let mut next = || packed.next().expect("one packed matrix for each that is stored");
        let wte = next();
        let wte_factors = matrices.swap_remove(0).factors;
        let lm_head = has_head.then(&mut next);
        let block = |([ln_1, ln_2], biases): ([LayerNorm; 2], [Vec<f32>; 4])| {
            let [c_attn, attn_c_proj, c_fc, mlp_c_proj] = biases.map(|bias| Linear { weight: next(), bias });
            Block { ln_1, c_attn, attn_c_proj, ln_2, c_fc, mlp_c_proj }
        };
        let h = layers.into_iter().map(block).collect();
        progress(total, total);
        Weights { wte, wte_factors, wpe, h, ln_f, lm_head, format }
    }
}

/// Divides the channels of a layer norm by factors, and returns these: the square roots of the channels' weights over
/// their geometric mean, none of which counts as less than a tenth of the mean.
fn even_out(layer_norm: &mut LayerNorm) -> Option<Vec<f32>> {
    let width = layer_norm.weight.len() as f32;
    let mean = layer_norm.weight.iter().map(|weight| weight.abs()).sum::<f32>() / width;
    let sizes = layer_norm.weight.iter().map(|weight| weight.abs().max(0.1 * mean));
    let logarithms: Vec<f64> = sizes.map(|size| ln(f64::from(size))).collect();
    let middle = logarithms.iter().sum::<f64>() / f64::from(width);
    let factors: Vec<f32> = logarithms.iter().map(|ln| exp_f64(0.5 * (ln - middle)) as f32).collect();
    // Weights that are all zero, or no numbers, have no such factors.
    if !factors.iter().all(|factor| factor.is_normal()) {
        return None;
    }
    for values in [&mut layer_norm.weight, &mut layer_norm.bias] {
        for (value, factor) in values.iter_mut().zip(&factors) {
            *value /= factor;
        }
    }
    Some(factors)
}
