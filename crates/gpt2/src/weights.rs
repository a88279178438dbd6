//! The parameters of a model, packed for the kernels.
//!
//! In formats that round activations, channels are evened out first: a layer norm multiplies channel k by
//! `weight[k]`, and where that is large for a few channels, they take the bits of the others that share a scale with
//! them. So the square root of it moves into the matrix behind: `x[k] · w[k] = (x[k] / f[k]) · (f[k] · w[k])`
//! (Xiao et al., "SmoothQuant", 2022).

use gpt2_kernels::math::{exp_f64, ln};
use gpt2_kernels::{Cpu, Matrix, Source, WeightFormat};

use crate::checkpoint::{Checkpoint, CheckpointError, Embeddings, TensorView, expected_tensors};
use crate::config::Config;

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
    /// Reads every tensor and packs the matrices into `format`; `progress` is told after each how many bytes of how many are done.
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
        checkpoint.check(config)?;
        let embeddings = checkpoint.embeddings(config)?;
        let total = bytes_to_read(config, checkpoint, &embeddings);
        let mut loader = Loader { cpu, checkpoint, format, progress, done: 0, total };
        let c = config.n_embd;
        let mut ln_f = loader.layer_norm("ln_f", c)?;
        let factors = loader.even_out(&mut ln_f);
        // The largest tensors first: their bytes on disk are released before the others are packed.
        let tied = embeddings.lm_head.is_none();
        let wte = loader.by_output(&embeddings.wte, factors.as_deref().filter(|_| tied));
        let lm_head = embeddings.lm_head.map(|view| loader.by_output(&view, factors.as_deref()));
        let wte_factors = factors.filter(|_| tied);
        let wpe = loader.vector("wpe.weight", &[config.n_positions, c])?;
        let h = (0..config.n_layer)
            .map(|layer| {
                let name = |part: &str| format!("h.{layer}.{part}");
                let (ln_1, c_attn) =
                    loader.layer_norm_and_linear(&name("ln_1"), &name("attn.c_attn"), c, 3 * c)?;
                let attn_c_proj = loader.linear(&name("attn.c_proj"), c, c, None)?;
                let (ln_2, c_fc) =
                    loader.layer_norm_and_linear(&name("ln_2"), &name("mlp.c_fc"), c, config.n_inner)?;
                let mlp_c_proj = loader.linear(&name("mlp.c_proj"), config.n_inner, c, None)?;
                Ok(Block { ln_1, c_attn, attn_c_proj, ln_2, c_fc, mlp_c_proj })
            })
            .collect::<Result<_, CheckpointError>>()?;
        Ok(Self { wte, wte_factors, wpe, h, ln_f, lm_head, format })
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
}

/// The size on disk of all that will be read, masks and second copies of `wte` not counted.
fn bytes_to_read(config: &Config, checkpoint: &Checkpoint, embeddings: &Embeddings<'_>) -> u64 {
    let rest = expected_tensors(config)
        .filter(|(name, _)| !matches!(name.as_str(), "wte.weight" | "lm_head.weight"))
        .filter_map(|(name, shape)| checkpoint.tensor(&name, &shape).ok());
    rest.chain([embeddings.wte]).chain(embeddings.lm_head).map(|view| view.bytes.len() as u64).sum()
}

/// Takes tensors out of a checkpoint and lets go of their pages.
struct Loader<'a> {
    cpu: &'a Cpu,
    checkpoint: &'a Checkpoint,
    format: WeightFormat,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let view = self.checkpoint.tensor(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        view.decode(0, &mut values);
        self.consumed(&view);
        Ok(values)
    }

    fn layer_norm(&mut self, name: &str, width: usize) -> Result<LayerNorm, CheckpointError> {
        let weight = self.vector(&format!("{name}.weight"), &[width])?;
        let bias = self.vector(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm { weight, bias })
    }

    /// A layer norm, and the linear layer that alone has it for its input.
    fn layer_norm_and_linear(
        &mut self,
        layer_norm: &str,
        linear: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<(LayerNorm, Linear), CheckpointError> {
        let mut layer_norm = self.layer_norm(layer_norm, inputs)?;
        let factors = self.even_out(&mut layer_norm);
        let linear = self.linear(linear, inputs, outputs, factors.as_deref())?;
        Ok((layer_norm, linear))
    }

    /// Divides the channels of a layer norm by factors, where the format gains by it, and returns these: the square
    /// roots of the channels' weights over their geometric mean, none of which counts as less than a tenth of
    /// the mean.
    fn even_out(&self, layer_norm: &mut LayerNorm) -> Option<Vec<f32>> {
        if !self.format.rounds_activations() {
            return None;
        }
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

    /// A `Conv1D`: stored `[inputs][outputs]`.
    fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        factors: Option<&[f32]>,
    ) -> Result<Linear, CheckpointError> {
        let view = self.checkpoint.tensor(&format!("{name}.weight"), &[inputs, outputs])?;
        let source = Source::by_input(view.bytes, view.dtype, inputs, outputs);
        let weight = Matrix::pack(self.cpu, scaled(source, factors), self.format);
        self.consumed(&view);
        let bias = self.vector(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear { weight, bias })
    }

    /// An embedding or a head: stored `[V][C]`.
    fn by_output(&mut self, view: &TensorView<'_>, factors: Option<&[f32]>) -> Matrix {
        let (outputs, inputs) = (view.shape[0], view.shape[1]);
        let source = Source::by_output(view.bytes, view.dtype, inputs, outputs);
        // The head decides between tokens that are nearly alike: with four bits most of the error would be its own.
        let format = if self.format == WeightFormat::Int4 { WeightFormat::Int6 } else { self.format };
        let matrix = Matrix::pack(self.cpu, scaled(source, factors), format);
        self.consumed(view);
        matrix
    }

    fn consumed(&mut self, view: &TensorView<'_>) {
        self.checkpoint.release(view.bytes);
        self.done += view.bytes.len() as u64;
        (self.progress)(self.done, self.total);
    }
}

fn scaled<'a>(source: Source<'a>, factors: Option<&'a [f32]>) -> Source<'a> {
    match factors {
        Some(factors) => source.scaled(factors),
        None => source,
    }
}
