//! What a model consists of: its modules as PyTorch prints them, and where its parameters are.
//!
//! Read from the configuration and the headers alone; no weight is touched. Nothing is printed or drawn here.

mod architecture;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, Headers, TensorView, expected_tensors};
use crate::config::Config;

pub use architecture::{Versions, architecture, architecture_in};

/// Describes a model. Serialises to the JSON of `gpt2 inspect`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The name the model was asked for by.
    pub model: String,
    /// Where this is known from.
    pub source: Source,
    /// The module tree, as [`architecture`] gives it.
    pub architecture: String,
    /// The parts of the model, as [`components`] gives them; their parameters add up to the total, their shares to one.
    pub components: Vec<Component>,
    /// Number of parameters, a tied head not counted again.
    pub total_parameters: u64,
    /// Whether the tensors of the files have as many parameters as the modules.
    pub verified: bool,
    /// Where the head is tied: what one arrives at by counting `wte` and head as two matrices, as a sum over all
    /// modules does. For `gpt2` these are the well-known 163,037,184.
    pub total_if_untied: Option<u64>,
    /// Every tensor of the model, in the order of [`expected_tensors`].
    pub tensors: Vec<Tensor>,
    /// The tensors of the files that are not counted, such as a tied head that was saved all the same. Causal masks
    /// are not parameters and not listed.
    pub not_counted: Vec<NotCounted>,
    /// Size of the model's tensors on disk.
    pub tensor_bytes: u64,
    /// Size of the files, with headers and whatever else they hold, such as causal masks.
    pub file_bytes: u64,
}

/// Where a description is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The model's files.
    Files,
    /// The headers of files that are elsewhere.
    Headers,
    /// What was published of the model; no file was read.
    Published,
}

/// Counts the parameters of one part of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Component {
    /// The name, which depends on [`By`].
    pub name: String,
    /// The module that it is, such as `transformer.h.0`, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Number of parameters.
    pub parameters: u64,
    /// Its part of all parameters, from 0 to 1.
    pub share: f64,
    /// What it consists of, for the blocks of [`By::Block`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Component>,
}

/// How parameters are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// One for each child of `transformer`, and the head where it is not tied: `transformer.h.0 (Block 0)`,
    /// `transformer.wte (Word Embeddings)`, …, sorted as strings.
    #[default]
    Component,
    /// The same in the order of the data, with what each block consists of.
    Block,
    /// `wte`, `wpe`, `attention`, `mlp`, `layer_norm` and, where it is not tied, `lm_head`.
    Kind,
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

/// A tensor of the files that is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCounted {
    /// The name in the file.
    pub name: String,
    /// Number of its values.
    pub parameters: u64,
}

/// Describes the model in a checkpoint, with its parameters by component.
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
/// assert!(inspection.verified);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Checkpoint::check`]: what is described is what the files hold.
///
/// # Panics
/// As [`components`].
pub fn inspect(model: &str, config: &Config, checkpoint: &Checkpoint) -> Result<Inspection, CheckpointError> {
    describe(model, config, checkpoint, Source::Files)
}

/// Describes the model whose files have these headers.
///
/// # Errors
/// As [`inspect`].
///
/// # Panics
/// As [`components`].
pub fn inspect_headers(
    model: &str,
    config: &Config,
    headers: &Headers,
) -> Result<Inspection, CheckpointError> {
    describe(model, config, headers.checkpoint(), Source::Headers)
}

/// Describes a model whose weights are published in `F32`, in a file of that size, without reading it.
///
/// # Panics
/// As [`components`].
pub fn inspect_published(model: &str, config: &Config, file_bytes: u64) -> Inspection {
    let tensors = expected_tensors(config).map(|(name, shape)| {
        let parameters = product(&shape);
        let dtype = Dtype::F32;
        Tensor { name, shape, parameters, dtype: dtype.name(), bytes: parameters * dtype.size() as u64 }
    });
    let tensors = tensors.collect();
    Inspection {
        verified: false,
        file_bytes,
        ..assemble(model, config, Source::Published, tensors, Vec::new())
    }
}

fn describe(
    model: &str,
    config: &Config,
    checkpoint: &Checkpoint,
    source: Source,
) -> Result<Inspection, CheckpointError> {
    checkpoint.check(config)?;
    let tensors: Vec<Tensor> = checkpoint.model_tensors(config)?.iter().map(tensor).collect();
    let not_counted: Vec<NotCounted> = checkpoint
        .not_counted(config)?
        .into_iter()
        .map(|(name, shape)| NotCounted { name: name.to_owned(), parameters: product(shape) })
        .collect();
    Ok(Inspection {
        file_bytes: checkpoint.file_bytes(),
        ..assemble(model, config, source, tensors, not_counted)
    })
}

fn assemble(
    model: &str,
    config: &Config,
    source: Source,
    tensors: Vec<Tensor>,
    not_counted: Vec<NotCounted>,
) -> Inspection {
    let components = components(config, By::Component);
    let total_parameters = components.iter().map(|component| component.parameters).sum();
    let of_the_model = tensors.iter().map(|tensor| tensor.parameters);
    let in_files =
        of_the_model.chain(not_counted.iter().map(|tensor| tensor.parameters)).fold(0, u64::saturating_add);
    let head = config.vocab_size as u64 * config.n_embd as u64;
    Inspection {
        model: model.to_owned(),
        source,
        architecture: architecture(config),
        components,
        total_parameters,
        verified: in_files == total_parameters,
        total_if_untied: config.tie_word_embeddings.then_some(total_parameters + head),
        tensor_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
        tensors,
        not_counted,
        file_bytes: 0,
    }
}

fn tensor(view: &TensorView<'_>) -> Tensor {
    let parameters = product(view.shape);
    Tensor {
        name: view.name.to_owned(),
        shape: view.shape.to_vec(),
        parameters,
        dtype: view.dtype.name(),
        bytes: parameters * view.dtype.size() as u64,
    }
}

/// Counts the parameters of a configuration.
///
/// ```
/// use gpt2::{config::Config, inspect::{By, components}};
///
/// let rows = components(&Config::default(), By::Component);
/// assert_eq!((rows[0].name.as_str(), rows[0].parameters), ("transformer.h.0 (Block 0)", 7_087_872));
///
/// let mlp = &components(&Config::default(), By::Kind)[3];
/// assert_eq!((mlp.name.as_str(), mlp.parameters), ("mlp", 56_669_184));
/// assert_eq!(format!("{:.1} %", 100.0 * mlp.share), "45.5 %");
/// ```
///
/// # Panics
/// If the configuration is not [valid](Config::validate).
pub fn components(config: &Config, by: By) -> Vec<Component> {
    config.validate().expect("the caller passes a valid configuration");
    let total = expected_tensors(config).map(|(_, shape)| product(&shape)).sum();
    let mut components: Vec<Component> = Vec::new();
    for (tensor, shape) in expected_tensors(config) {
        let parameters = product(&shape);
        let (name, module) = match by {
            By::Component | By::Block => {
                let module = module_of(&tensor);
                (label(&module), Some(module))
            }
            By::Kind => (kind_of(&tensor).to_owned(), None),
        };
        let component = add(&mut components, &name, module, parameters, total);
        if let (By::Block, Some((part, _))) = (by, in_block(&tensor)) {
            let part = part.to_owned();
            let module = component.module.as_ref().map(|module| format!("{module}.{part}"));
            add(&mut component.parts, &part, module, parameters, total);
        }
    }
    match by {
        By::Component => components.sort_by(|a, b| a.name.cmp(&b.name)),
        By::Block => {}
        // As they follow each other in a block, and the layer norms last.
        By::Kind => components.sort_by_key(|component| KINDS.iter().position(|kind| *kind == component.name)),
    }
    components
}

/// Adds parameters to the component of that name, new or there already.
fn add<'c>(
    components: &'c mut Vec<Component>,
    name: &str,
    module: Option<String>,
    parameters: u64,
    total: u64,
) -> &'c mut Component {
    let index = components.iter().position(|component| component.name == name).unwrap_or_else(|| {
        let (name, parts) = (name.to_owned(), Vec::new());
        components.push(Component { name, module, parameters: 0, share: 0.0, parts });
        components.len() - 1
    });
    let component = &mut components[index];
    component.parameters += parameters;
    component.share = component.parameters as f64 / total as f64;
    component
}

const KINDS: [&str; 6] = ["wte", "wpe", "attention", "mlp", "layer_norm", "lm_head"];

fn kind_of(tensor: &str) -> &'static str {
    let is_part = |part| tensor.split('.').any(|word| word == part);
    let parts =
        [("wte", "wte"), ("wpe", "wpe"), ("attn", "attention"), ("mlp", "mlp"), ("lm_head", "lm_head")];
    parts.into_iter().find(|(word, _)| is_part(*word)).map_or("layer_norm", |(_, component)| component)
}

/// The module that a tensor belongs to: `lm_head`, or a child of `transformer`.
fn module_of(tensor: &str) -> String {
    let mut words = tensor.split('.');
    match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("h", layer) => format!("transformer.h.{layer}"),
        ("lm_head", _) => "lm_head".to_owned(),
        (module, _) => format!("transformer.{module}"),
    }
}

/// The part of a block that a tensor belongs to, and the rest of its name.
fn in_block(tensor: &str) -> Option<(&str, &str)> {
    tensor.strip_prefix("h.")?.split_once('.')?.1.split_once('.')
}

/// A module and what it is.
fn label(module: &str) -> String {
    let description = match module {
        "transformer.wte" => "Word Embeddings",
        "transformer.wpe" => "Position Embeddings",
        "transformer.ln_f" => "Final LayerNorm",
        "lm_head" => "Language Model Head",
        block => return format!("{module} (Block {})", block.trim_start_matches("transformer.h.")),
    };
    format!("{module} ({description})")
}

fn product(shape: &[usize]) -> u64 {
    shape.iter().map(|&length| length as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(config: &Config, by: By) -> Vec<(String, u64)> {
        components(config, by).into_iter().map(|part| (part.name, part.parameters)).collect()
    }

    #[test]
    fn components_are_named_and_sorted_as_in_the_notebook() {
        let counts = counts(&Config::default(), By::Component);
        let mut expected: Vec<_> = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"]
            .map(|layer| (format!("transformer.h.{layer} (Block {layer})"), 7_087_872))
            .into();
        expected.extend(
            [
                ("transformer.ln_f (Final LayerNorm)", 1_536),
                ("transformer.wpe (Position Embeddings)", 786_432),
                ("transformer.wte (Word Embeddings)", 38_597_376),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        assert_eq!(counts, expected);
    }

    #[test]
    fn blocks_are_in_the_order_of_the_data_and_consist_of_four_parts() {
        let rows = components(&Config { n_layer: 11, ..Config::default() }, By::Block);
        let modules: Vec<_> = rows.iter().map(|row| row.module.as_deref().unwrap()).collect();
        assert_eq!(
            modules[..4],
            ["transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1"]
        );
        assert_eq!(modules[12..], ["transformer.h.10", "transformer.ln_f"]);
        let parts: Vec<_> = rows[2].parts.iter().map(|part| (part.name.as_str(), part.parameters)).collect();
        assert_eq!(parts, [("ln_1", 1_536), ("attn", 2_362_368), ("ln_2", 1_536), ("mlp", 4_722_432)]);
        assert_eq!(rows[2].parts[1].module.as_deref(), Some("transformer.h.0.attn"));
        assert_eq!(rows[2].parameters, 7_087_872);
        assert!(rows[0].parts.is_empty());
    }

    #[test]
    fn the_parameters_of_gpt2_are_counted_as_in_pytorch() {
        let counts = counts(&Config::default(), By::Kind);
        let expected = [
            ("wte", 38_597_376),
            ("wpe", 786_432),
            ("attention", 28_348_416),
            ("mlp", 56_669_184),
            ("layer_norm", 38_400),
        ];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
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
            for by in [By::Component, By::Block, By::Kind] {
                let parts = components(&config, by);
                assert_eq!(parts.iter().map(|part| part.parameters).sum::<u64>(), total);
                assert!((parts.iter().map(|part| part.share).sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn an_untied_head_is_a_component() {
        let config = Config { tie_word_embeddings: false, ..Config::default() };
        for (by, name, place) in [
            (By::Component, "lm_head (Language Model Head)", 0),
            (By::Block, "lm_head (Language Model Head)", 15),
            (By::Kind, "lm_head", 5),
        ] {
            let parts = counts(&config, by);
            assert_eq!(parts.iter().map(|(_, parameters)| parameters).sum::<u64>(), 163_037_184);
            assert_eq!(parts[place], (name.to_owned(), 38_597_376));
        }
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
        assert!(components(&config, By::Kind).iter().map(|part| part.parameters).sum::<u64>() < 1 << 63);
    }
}
