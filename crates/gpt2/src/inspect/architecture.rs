//! The module tree, as `print(model)` shows it in Python.

use serde_json::Number;

use crate::config::Config;

/// Major and minor version.
type Version = (u32, u32);

/// The versions whose `print(model)` is drawn; by default the newest that was compared.
///
/// | since | what is printed |
/// |---|---|
/// | torch 2.12 | `bias=True` in `LayerNorm` |
/// | transformers 4.42, until 4.47 | `GPT2SdpaAttention` for `GPT2Attention` |
/// | transformers 4.45 | `Conv1D(nf=…, nx=…)` for `Conv1D()` |
/// | transformers 4.57 | `GELUTanh` for `PytorchGELUTanh`, `SiLUActivation` for the `SiLU` of `silu` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// PyTorch's.
    pub torch: Version,
    /// That of transformers.
    pub transformers: Version,
}

impl Default for Versions {
    fn default() -> Self {
        Self { torch: (2, 15), transformers: (5, 23) }
    }
}

impl Versions {
    /// Reads a version as packages write it, such as `2.6` or `2.6.0+cpu`.
    pub fn parse(text: &str) -> Option<Version> {
        let mut numbers = text.split('.');
        let mut number = || {
            let digits = numbers.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
            digits.parse().ok()
        };
        Some((number()?, number()?))
    }
}

/// Draws the module tree, as `print(model)` shows a `GPT2LMHeadModel` in the newest versions.
///
/// ```
/// let tree = gpt2::inspect::architecture(&Default::default());
/// assert!(tree.starts_with("GPT2LMHeadModel(\n  (transformer): GPT2Model(\n    (wte): Embedding(50257, 768)\n"));
/// ```
pub fn architecture(config: &Config) -> String {
    architecture_in(config, Versions::default())
}

/// Draws the module tree, as `print(model)` shows it in these versions.
///
/// ```
/// use gpt2::inspect::{Versions, architecture_in};
///
/// let tree = architecture_in(&Default::default(), Versions { torch: (2, 6), transformers: (4, 50) });
/// assert!(tree.contains("(ln_f): LayerNorm((768,), eps=1e-05, elementwise_affine=True)\n"));
/// ```
pub fn architecture_in(config: &Config, versions: Versions) -> String {
    let Versions { torch, transformers } = versions;
    let (vocab, positions, channels, inner) =
        (config.vocab_size, config.n_positions, config.n_embd, config.n_inner);
    let blocks = match config.n_layer {
        1 => "(0): GPT2Block(".to_owned(),
        layers => format!("(0-{}): {layers} x GPT2Block(", layers.saturating_sub(1)),
    };
    let layer_norm = format!(
        "LayerNorm(({channels},), eps={}, elementwise_affine=True{})",
        python_float(format!("{:?}", config.layer_norm_epsilon)),
        if torch >= (2, 12) { ", bias=True" } else { "" }
    );
    let conv1d = |outputs, inputs| match transformers >= (4, 45) {
        true => format!("Conv1D(nf={outputs}, nx={inputs})"),
        false => "Conv1D()".to_owned(),
    };
    let attention = match transformers {
        (4, 42..=47) => "GPT2SdpaAttention",
        _ => "GPT2Attention",
    };
    let dropout = |p: &Number| match p.as_f64().filter(|_| p.is_f64()) {
        Some(p) => format!("Dropout(p={}, inplace=False)", python_float(format!("{p:?}"))),
        None => format!("Dropout(p={p}, inplace=False)"),
    };
    let embd = dropout(&config.embd_pdrop);
    let attn = dropout(&config.attn_pdrop);
    let resid = dropout(&config.resid_pdrop);
    let activation = match config.activation_class() {
        "GELUTanh" if transformers < (4, 57) => "PytorchGELUTanh",
        "SiLUActivation" if transformers < (4, 57) => "SiLU",
        class => class,
    };
    let (c_attn, c_proj) = (conv1d(3 * channels, channels), conv1d(channels, channels));
    let (c_fc, mlp_c_proj) = (conv1d(inner, channels), conv1d(channels, inner));
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
        (attn): {attention}(
          (c_attn): {c_attn}
          (c_proj): {c_proj}
          (attn_dropout): {attn}
          (resid_dropout): {resid}
        )
        (ln_2): {layer_norm}
        (mlp): GPT2MLP(
          (c_fc): {c_fc}
          (c_proj): {mlp_c_proj}
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

    /// As `print(model)` showed it when each version was current.
    #[test]
    fn older_versions_print_what_they_printed() {
        let print = |torch, transformers, activation: &str| {
            let json = format!(r#"{{"model_type": "gpt2", "activation_function": "{activation}"}}"#);
            let config = Config::from_json(json.as_bytes()).unwrap();
            architecture_in(&config, Versions { torch, transformers })
        };
        // The notebook's: nothing but the layer norms differs.
        let notebook = GPT2.replace(", bias=True)", ")");
        assert_eq!(print((2, 6), (4, 50), "gelu_new"), notebook);
        assert_eq!(print((2, 11), (5, 0), "gelu_new"), notebook);
        assert_eq!(print((2, 12), (5, 0), "gelu_new"), GPT2);

        let old = print((2, 6), (4, 44), "gelu_new");
        assert_eq!(old.matches("Conv1D()\n").count(), 4, "{old}");
        assert!(old.contains("(attn): GPT2SdpaAttention(\n"), "{old}");
        for (transformers, class) in
            [((4, 41), "GPT2Attention"), ((4, 42), "GPT2SdpaAttention"), ((4, 48), "GPT2Attention")]
        {
            let tree = print((2, 6), transformers, "gelu_new");
            assert!(tree.contains(&format!("(attn): {class}(\n")), "{transformers:?}");
        }
        for (activation, before, since) in
            [("gelu_pytorch_tanh", "PytorchGELUTanh", "GELUTanh"), ("silu", "SiLU", "SiLUActivation")]
        {
            assert!(print((2, 6), (4, 56), activation).contains(&format!("(act): {before}()")));
            assert!(print((2, 6), (4, 57), activation).contains(&format!("(act): {since}()")));
        }
    }

    #[test]
    fn versions_are_read_as_they_are_written() {
        for (text, expected) in
            [("2.6", (2, 6)), ("2.6.0", (2, 6)), ("4.57.1", (4, 57)), ("2.6.0+cu124", (2, 6))]
        {
            assert_eq!(Versions::parse(text), Some(expected), "{text}");
        }
        for text in ["", "2", "x", "2.", ".6", "2.x", "-1.2", "2,6"] {
            assert_eq!(Versions::parse(text), None, "{text}");
        }
    }
}
