//! The parameters of a model, packed for the kernels.

use gpt2_kernels::{Cpu, Matrix, Source, WeightFormat};

use crate::checkpoint::{Checkpoint, CheckpointError, Embeddings, TensorView, expected_tensors};
use crate::config::Config;

/// All parameters of a GPT-2, named as in the checkpoint.
#[derive(Debug)]
pub struct Weights {
    /// Token embeddings (V, C), packed as the matrix C × V that the tied head multiplies by.
    pub wte: Matrix,
    /// Position embeddings. (P, C)
    pub wpe: Vec<f32>,
    /// The layers, `h` in the checkpoint.
    pub h: Vec<Block>,
    /// The last layer norm.
    pub ln_f: LayerNorm,
    /// A head of its own (C × V), where the model does not use `wte`.
    pub lm_head: Option<Matrix>,
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
        // The largest tensors first: their bytes on disk are released before the others are packed.
        let wte = loader.by_output(&embeddings.wte);
        let lm_head = embeddings.lm_head.map(|view| loader.by_output(&view));
        let wpe = loader.vector("wpe.weight", &[config.n_positions, c])?;
        let h = (0..config.n_layer)
            .map(|layer| {
                let name = |part: &str| format!("h.{layer}.{part}");
                Ok(Block {
                    ln_1: loader.layer_norm(&name("ln_1"), c)?,
                    c_attn: loader.linear(&name("attn.c_attn"), c, 3 * c)?,
                    attn_c_proj: loader.linear(&name("attn.c_proj"), c, c)?,
                    ln_2: loader.layer_norm(&name("ln_2"), c)?,
                    c_fc: loader.linear(&name("mlp.c_fc"), c, config.n_inner)?,
                    mlp_c_proj: loader.linear(&name("mlp.c_proj"), config.n_inner, c)?,
                })
            })
            .collect::<Result<_, CheckpointError>>()?;
        let ln_f = loader.layer_norm("ln_f", c)?;
        Ok(Self { wte, wpe, h, ln_f, lm_head })
    }

    /// The matrix that turns hidden states into logits. C → V
    #[must_use]
    pub fn head(&self) -> &Matrix {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// How the matrices are held.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        self.wte.format()
    }

    /// Bytes that decoding one token at batch 1 reads: every matrix once, `wte` as the head only.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        let block = |block: &Block| {
            [&block.c_attn, &block.attn_c_proj, &block.c_fc, &block.mlp_c_proj]
                .map(|l| l.weight.as_bytes().len())
                .iter()
                .sum::<usize>()
        };
        self.head().as_bytes().len() + self.h.iter().map(block).sum::<usize>()
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

    /// A `Conv1D`: stored `[inputs][outputs]`.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, CheckpointError> {
        let view = self.checkpoint.tensor(&format!("{name}.weight"), &[inputs, outputs])?;
        let source = Source::by_input(view.bytes, view.dtype, inputs, outputs);
        let weight = Matrix::pack(self.cpu, source, self.format);
        self.consumed(&view);
        let bias = self.vector(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear { weight, bias })
    }

    /// An embedding or a head: stored `[V][C]`.
    fn by_output(&mut self, view: &TensorView<'_>) -> Matrix {
        let (outputs, inputs) = (view.shape[0], view.shape[1]);
        let source = Source::by_output(view.bytes, view.dtype, inputs, outputs);
        let matrix = Matrix::pack(self.cpu, source, self.format);
        self.consumed(view);
        matrix
    }

    fn consumed(&mut self, view: &TensorView<'_>) {
        self.checkpoint.release(view.bytes);
        self.done += view.bytes.len() as u64;
        (self.progress)(self.done, self.total);
    }
}
