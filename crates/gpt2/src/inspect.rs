//! What a model consists of: its modules as PyTorch prints them, and where its parameters are.
//!
//! Read from the configuration and the headers alone; no weight is touched. Nothing is printed or drawn here.

use serde::Serialize;
use serde_json::Number;

use crate::checkpoint::{Checkpoint, CheckpointError, expected_tensors};
use crate::config::Config;

/// Describes a model. Serialises to the JSON of `gpt2 inspect`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The name the model was asked for by.
    pub model: String,
    /// The module tree, as [`architecture`] gives it.
    pub architecture: String,
    /// The parts of the model; their parameters add up to the total, their shares to one.
    pub components: Vec<Component>,
    /// Number of parameters, a tied head not counted again.
    pub total_parameters: u64,
    /// Where the head is tied: what one arrives at by counting `wte` and head as two matrices, as a sum over all
    /// modules does. For `gpt2` these are the well-known 163,037,184.
    pub total_if_untied: Option<u64>,
    /// Every tensor of the model, in the order of [`expected_tensors`].
    pub tensors: Vec<Tensor>,
    /// Size of these tensors on disk.
    pub tensor_bytes: u64,
    /// Size of the files, with headers and whatever else they hold, such as causal masks.
    pub file_bytes: u64,
}

/// Counts the parameters of one part of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Component {
    /// `wte`, `wpe`, `attention`, `mlp`, `layer_norm` or, where it is not tied, `lm_head`.
    pub name: &'static str,
    /// Number of parameters.
    pub parameters: u64,
    /// Its part of all parameters, from 0 to 1.
    pub share: f64,
}

/// Describes one tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// The lengths, outermost first.
    pub shape: Vec<usize>,
    /// Number of parameters: the product of the lengths.
    pub parameters: u64,
    /// The type on disk.
    pub dtype: &'static str,
    /// The size on disk.
    pub bytes: u64,
}

/// Describes the model in a checkpoint.
///
/// Whether the head is tied is the configuration's word here: to compare a head that the files hold nevertheless
/// would take reading it.
///
/// ```no_run
/// use gpt2::{checkpoint::Checkpoint, config::Config, inspect::inspect};
///
/// let config = Config::from_json(&std::fs::read("gpt2/config.json")?)?;
/// let inspection = inspect("gpt2", &config, &Checkpoint::open("gpt2".as_ref())?)?;
/// assert_eq!(inspection.total_parameters, 124_439_808);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Checkpoint::check`]: what is described is what the files hold.
///
/// # Panics
/// As [`components`].
pub fn inspect(model: &str, config: &Config, checkpoint: &Checkpoint) -> Result<Inspection, CheckpointError> {
    checkpoint.check(config)?;
    let views = checkpoint.model_tensors(config)?;
    let tensors: Vec<Tensor> = views
        .into_iter()
        .map(|view| Tensor {
            name: view.name.to_owned(),
            shape: view.shape.to_vec(),
            parameters: (view.bytes.len() / view.dtype.size()) as u64,
            dtype: view.dtype.name(),
            bytes: view.bytes.len() as u64,
        })
        .collect();
    let components = components(config);
    let total_parameters = components.iter().map(|component| component.parameters).sum();
    let head = config.vocab_size as u64 * config.n_embd as u64;
    Ok(Inspection {
        model: model.to_owned(),
        architecture: architecture(config),
        components,
        total_parameters,
        total_if_untied: config.tie_word_embeddings.then_some(total_parameters + head),
        tensor_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        tensors,
        file_bytes: checkpoint.file_bytes(),
    })
}

/// Counts the parameters of a configuration by component.
///
/// ```
/// use gpt2::{config::Config, inspect::components};
///
/// let mlp = &components(&Config::default())[3];
/// assert_eq!((mlp.name, mlp.parameters), ("mlp", 56_669_184));
/// assert_eq!(format!("{:.1} %", 100.0 * mlp.share), "45.5 %");
/// ```
///
/// # Panics
/// If the configuration is not [valid](Config::validate).
pub fn components(config: &Config) -> Vec<Component> {
    config.validate().expect("the caller passes a valid configuration");
    let mut counts =
        [("wte", 0), ("wpe", 0), ("attention", 0), ("mlp", 0), ("layer_norm", 0), ("lm_head", 0)];
    for (name, shape) in expected_tensors(config) {
        let component = component_of(&name);
        let (_, count) =
            counts.iter_mut().find(|(name, _)| *name == component).expect("every component is listed");
        *count += shape.iter().map(|&length| length as u64).product::<u64>();
    }
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let part = |(name, parameters)| Component { name, parameters, share: parameters as f64 / total as f64 };
    counts.into_iter().filter(|(_, count)| *count > 0).map(part).collect()
}

fn component_of(tensor: &str) -> &'static str {
    let is_part = |part| tensor.split('.').any(|word| word == part);
    let parts =
        [("wte", "wte"), ("wpe", "wpe"), ("attn", "attention"), ("mlp", "mlp"), ("lm_head", "lm_head")];
    parts.into_iter().find(|(word, _)| is_part(*word)).map_or("layer_norm", |(_, component)| component)
}

/// Draws the module tree, as `print(model)` shows a `GPT2LMHeadModel` of transformers 5.23 in PyTorch.
///
/// ```
/// let tree = gpt2::inspect::architecture(&Default::default());
/// assert!(tree.starts_with("GPT2LMHeadModel(\n  (transformer): GPT2Model(\n    (wte): Embedding(50257, 768)\n"));
/// ```
pub fn architecture(config: &Config) -> String {
    let (vocab, positions, channels, inner) =
        (config.vocab_size, config.n_positions, config.n_embd, config.n_inner);
    let qkv = 3 * channels;
    let blocks = match config.n_layer {
        1 => "(0): GPT2Block(".to_owned(),
        layers => format!("(0-{}): {layers} x GPT2Block(", layers.saturating_sub(1)),
    };
    let layer_norm = format!(
        "LayerNorm(({channels},), eps={}, elementwise_affine=True, bias=True)",
        python_float(format!("{:?}", config.layer_norm_epsilon))
    );
    let dropout = |p: &Number| match p.as_f64().filter(|_| p.is_f64()) {
        Some(p) => format!("Dropout(p={}, inplace=False)", python_float(format!("{p:?}"))),
        None => format!("Dropout(p={p}, inplace=False)"),
    };
    let embd = dropout(&config.embd_pdrop);
    let attn = dropout(&config.attn_pdrop);
    let resid = dropout(&config.resid_pdrop);
    let activation = config.activation_class();
    format!(
        "\
GPT2LMHeadModel(
  (transformer): GPT2Model(
    (wte): Embedding({vocab}, {channels})
    (wpe): Embedding({positions}, {channels})
    (drop): {embd}
    (h): ModuleList(
      {blocks}
        (ln_1): {layer_norm}
        (attn): GPT2Attention(
          (c_attn): Conv1D(nf={qkv}, nx={channels})
          (c_proj): Conv1D(nf={channels}, nx={channels})
          (attn_dropout): {attn}
          (resid_dropout): {resid}
        )
        (ln_2): {layer_norm}
        (mlp): GPT2MLP(
          (c_fc): Conv1D(nf={inner}, nx={channels})
          (c_proj): Conv1D(nf={channels}, nx={inner})
          (act): {activation}()
          (dropout): {resid}
        )
      )
    )
    (ln_f): {layer_norm}
  )
  (lm_head): Linear(in_features={channels}, out_features={vocab}, bias=False)
)"
    )
}

/// Rewrites the `{:?}` of a float as Python's `repr`; only exponents differ: `1e-05` for `1e-5`, `1e+16` for `1e16`.
fn python_float(rust: String) -> String {
    let Some((digits, exponent)) = rust.split_once('e') else { return rust };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_gpt2_are_counted_as_in_pytorch() {
        let counts: Vec<_> =
            components(&Config::default()).into_iter().map(|part| (part.name, part.parameters)).collect();
        let expected = [
            ("wte", 38_597_376),
            ("wpe", 786_432),
            ("attention", 28_348_416),
            ("mlp", 56_669_184),
            ("layer_norm", 38_400),
        ];
        assert_eq!(counts, expected);
    }

    #[test]
    fn all_sizes_have_their_known_totals() {
        for (n_layer, n_embd, n_head, total) in [
            (6, 768, 12, 81_912_576),
            (24, 1024, 16, 354_823_168),
            (36, 1280, 20, 774_030_080),
            (48, 1600, 25, 1_557_611_200),
        ] {
            let config = Config { n_layer, n_embd, n_head, n_inner: 4 * n_embd, ..Config::default() };
            let parts = components(&config);
            assert_eq!(parts.iter().map(|part| part.parameters).sum::<u64>(), total);
            assert!((parts.iter().map(|part| part.share).sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn an_untied_head_is_a_component() {
        let config = Config { tie_word_embeddings: false, ..Config::default() };
        let parts = components(&config);
        assert_eq!(parts.iter().map(|part| part.parameters).sum::<u64>(), 163_037_184);
        assert_eq!(parts.last().map(|part| (part.name, part.parameters)), Some(("lm_head", 38_597_376)));
    }

    #[test]
    fn the_largest_valid_model_can_be_counted() {
        let size = 1 << 24;
        let config = Config {
            vocab_size: size,
            n_positions: size,
            n_embd: size,
            n_inner: size,
            n_head: 1,
            n_layer: 1024,
            tie_word_embeddings: false,
            ..Config::default()
        };
        assert!(components(&config).iter().map(|part| part.parameters).sum::<u64>() < 1 << 63);
    }

    /// Made by `print(GPT2LMHeadModel(GPT2Config(…)))` with transformers 5.23.0 and torch 2.15.0.
    const GPT2: &str = "\
GPT2LMHeadModel(
  (transformer): GPT2Model(
    (wte): Embedding(50257, 768)
    (wpe): Embedding(1024, 768)
    (drop): Dropout(p=0.1, inplace=False)
    (h): ModuleList(
      (0-11): 12 x GPT2Block(
        (ln_1): LayerNorm((768,), eps=1e-05, elementwise_affine=True, bias=True)
        (attn): GPT2Attention(
          (c_attn): Conv1D(nf=2304, nx=768)
          (c_proj): Conv1D(nf=768, nx=768)
          (attn_dropout): Dropout(p=0.1, inplace=False)
          (resid_dropout): Dropout(p=0.1, inplace=False)
        )
        (ln_2): LayerNorm((768,), eps=1e-05, elementwise_affine=True, bias=True)
        (mlp): GPT2MLP(
          (c_fc): Conv1D(nf=3072, nx=768)
          (c_proj): Conv1D(nf=768, nx=3072)
          (act): NewGELUActivation()
          (dropout): Dropout(p=0.1, inplace=False)
        )
      )
    )
    (ln_f): LayerNorm((768,), eps=1e-05, elementwise_affine=True, bias=True)
  )
  (lm_head): Linear(in_features=768, out_features=50257, bias=False)
)";
    const ONE_LAYER: &str = "\
GPT2LMHeadModel(
  (transformer): GPT2Model(
    (wte): Embedding(11, 8)
    (wpe): Embedding(7, 8)
    (drop): Dropout(p=1e-05, inplace=False)
    (h): ModuleList(
      (0): GPT2Block(
        (ln_1): LayerNorm((8,), eps=1e-12, elementwise_affine=True, bias=True)
        (attn): GPT2Attention(
          (c_attn): Conv1D(nf=24, nx=8)
          (c_proj): Conv1D(nf=8, nx=8)
          (attn_dropout): Dropout(p=0.25, inplace=False)
          (resid_dropout): Dropout(p=0, inplace=False)
        )
        (ln_2): LayerNorm((8,), eps=1e-12, elementwise_affine=True, bias=True)
        (mlp): GPT2MLP(
          (c_fc): Conv1D(nf=5, nx=8)
          (c_proj): Conv1D(nf=8, nx=5)
          (act): SiLU()
          (dropout): Dropout(p=0, inplace=False)
        )
      )
    )
    (ln_f): LayerNorm((8,), eps=1e-12, elementwise_affine=True, bias=True)
  )
  (lm_head): Linear(in_features=8, out_features=11, bias=False)
)";

    #[test]
    fn the_tree_is_what_pytorch_prints() {
        assert_eq!(architecture(&Config::default()), GPT2);
        let config = Config::from_json(
            br#"{"model_type": "gpt2", "vocab_size": 11, "n_positions": 7, "n_embd": 8, "n_layer": 1, "n_head": 2,
                 "n_inner": 5, "layer_norm_epsilon": 1e-12, "activation_function": "swish",
                 "embd_pdrop": 1e-5, "attn_pdrop": 0.25, "resid_pdrop": 0}"#,
        );
        assert_eq!(architecture(&config.unwrap()), ONE_LAYER);
    }

    #[test]
    fn activations_print_their_classes() {
        for (name, class) in [
            ("gelu_new", "NewGELUActivation"),
            ("gelu_fast", "FastGELUActivation"),
            ("gelu_pytorch_tanh", "GELUTanh"),
            ("gelu_python_tanh", "GELUTanh"),
            ("gelu_accurate", "AccurateGELUActivation"),
            ("gelu", "GELUActivation"),
            ("gelu_python", "GELUActivation"),
            ("gelu_10", "ClippedGELUActivation"),
            ("quick_gelu", "QuickGELUActivation"),
            ("relu", "ReLU"),
            ("relu2", "ReLUSquaredActivation"),
            ("silu", "SiLUActivation"),
            ("swish", "SiLU"),
            ("tanh", "Tanh"),
        ] {
            let json = format!(r#"{{"model_type": "gpt2", "activation_function": "{name}"}}"#);
            let config = Config::from_json(json.as_bytes()).unwrap();
            assert!(architecture(&config).contains(&format!("(act): {class}()\n")), "{name}");
        }
    }

    #[test]
    fn floats_print_as_in_python() {
        for (x, python) in [
            (0.0, "0.0"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-5, "1.5e-05"),
            (1e-12, "1e-12"),
            (1e-100, "1e-100"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
        ] {
            assert_eq!(python_float(format!("{x:?}")), python);
        }
    }
}
