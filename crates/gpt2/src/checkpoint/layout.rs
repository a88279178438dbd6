//! The names and shapes of the tensors of a GPT-2.

use std::collections::BTreeSet;

use crate::config::Config;

use super::{HEAD, PREFIX, WTE};

const WPE: &str = "wpe.weight";

/// What wrappers of PyTorch put between the parts of a name: `torch.compile`, data parallelism, sharding and activation
/// checkpoints.
const WRAPPERS: [&str; 4] = ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// A head other than that of the language model.
pub(super) struct Head {
    /// How the names of its tensors begin.
    pub(super) prefix: &'static str,
    /// The class that has it.
    pub(super) class: &'static str,
    /// Whether the same class has the head of the language model too.
    pub(super) beside_language_model: bool,
}

/// The heads that GPT-2 models are saved with. `v_head` is the value head of reinforcement learning with `trl`.
pub(super) const HEADS: [Head; 5] = [
    Head { prefix: "multiple_choice_head.", class: "GPT2DoubleHeadsModel", beside_language_model: true },
    Head { prefix: "v_head.", class: "AutoModelForCausalLMWithValueHead", beside_language_model: true },
    Head { prefix: "score.", class: "GPT2ForSequenceClassification", beside_language_model: false },
    Head { prefix: "classifier.", class: "GPT2ForTokenClassification", beside_language_model: false },
    Head { prefix: "qa_outputs.", class: "GPT2ForQuestionAnswering", beside_language_model: false },
];

impl Head {
    /// Says whether a [plain](plain) name is that of a tensor of this head.
    pub(super) fn has(&self, name: &str) -> bool {
        name.starts_with(self.prefix)
    }
}

/// Lists the tensors that a model of this configuration consists of, without the prefix `transformer.`.
///
/// The head is among them only where it is not tied to `wte`.
///
/// ```
/// use gpt2::checkpoint::expected_tensors;
/// use gpt2::config::Config;
///
/// let parameters = |(_, shape): (String, Vec<usize>)| shape.iter().product::<usize>();
/// assert_eq!(expected_tensors(&Config::default()).map(parameters).sum::<usize>(), 124_439_808);
/// ```
pub fn expected_tensors(config: &Config) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
    let (vocab, channels, inner) = (config.vocab_size, config.n_embd, config.n_inner);
    let block = [
        ("ln_1.weight", vec![channels]),
        ("ln_1.bias", vec![channels]),
        ("attn.c_attn.weight", vec![channels, 3 * channels]),
        ("attn.c_attn.bias", vec![3 * channels]),
        ("attn.c_proj.weight", vec![channels, channels]),
        ("attn.c_proj.bias", vec![channels]),
        ("ln_2.weight", vec![channels]),
        ("ln_2.bias", vec![channels]),
        ("mlp.c_fc.weight", vec![channels, inner]),
        ("mlp.c_fc.bias", vec![inner]),
        ("mlp.c_proj.weight", vec![inner, channels]),
        ("mlp.c_proj.bias", vec![channels]),
    ];
    let first = [(WTE, vec![vocab, channels]), (WPE, vec![config.n_positions, channels])];
    let last = [("ln_f.weight", vec![channels]), ("ln_f.bias", vec![channels])];
    let head = (!config.tie_word_embeddings).then(|| (HEAD, vec![vocab, channels]));
    let owned = |(name, shape): (&str, Vec<usize>)| (name.to_owned(), shape);
    let blocks = (0..config.n_layer)
        .flat_map(move |layer| block.clone().map(|(name, shape)| (format!("h.{layer}.{name}"), shape)));
    first.into_iter().map(owned).chain(blocks).chain(last.into_iter().chain(head).map(owned))
}

/// Says whether a name without the prefix is of the part that may have it.
pub(super) fn is_trunk(name: &str) -> bool {
    ["wte.", "wpe.", "h.", "ln_f."].iter().any(|part| name.starts_with(part))
}

/// Returns N for `h.N.attn.bias` and `h.N.attn.masked_bias`, the causal masks of old checkpoints.
///
/// `h.N.attn.c_attn.bias` is a weight and none of them.
pub(super) fn mask_layer(name: &str) -> Option<usize> {
    let (layer, rest) = name.strip_prefix("h.")?.split_once('.')?;
    let number = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
    matches!(rest, "attn.bias" | "attn.masked_bias").then_some(number)
}

/// Returns what stands before the names of all tensors, `transformer.` and [`WRAPPERS`] not counted: the name of the
/// model in a larger module, such as `model.`.
pub(super) fn outer<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let unwrapped = || names.clone().map(unwrapped);
    let ends =
        |name: &String| name.strip_suffix(WPE).is_some_and(|start| start.is_empty() || start.ends_with('.'));
    let Some(wpe) = unwrapped().find(ends) else { return String::new() };
    let start = &wpe[..wpe.len() - WPE.len()];
    let outer = start.strip_suffix(PREFIX).unwrap_or(start);
    let of_another_head = |name: &str| HEADS.iter().any(|head| head.has(name));
    let all = unwrapped().all(|name| name.starts_with(outer) || of_another_head(&name));
    if all { outer.to_owned() } else { String::new() }
}

/// Returns a tensor's name in a file without [`WRAPPERS`] and `outer`, which is from [`outer`].
pub(super) fn plain(name: &str, outer: &str) -> String {
    let unwrapped = unwrapped(name);
    unwrapped.strip_prefix(outer).map(str::to_owned).unwrap_or(unwrapped)
}

/// Lists what [`plain`] leaves out of any of these names.
pub(super) fn ignored<'a>(names: impl Iterator<Item = &'a str>, outer: &str) -> Vec<String> {
    let parts = names.flat_map(|name| name.split('.').filter(|part| WRAPPERS.contains(part)));
    let wrappers: BTreeSet<&str> = parts.collect();
    let wrappers = wrappers.into_iter().map(|part| format!("{part}."));
    wrappers.chain((!outer.is_empty()).then(|| outer.to_owned())).collect()
}

fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// Says whether a model can do without a tensor of this [plain](plain) name, whatever its configuration.
pub(super) fn is_spare(name: &str) -> bool {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    name == HEAD || mask_layer(bare).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_matched_exactly() {
        for (name, layer) in [
            ("h.0.attn.bias", Some(0)),
            ("h.11.attn.masked_bias", Some(11)),
            ("h.0.attn.c_attn.bias", None),
            ("h.00.attn.bias", None),
            ("h.+1.attn.bias", None),
            ("h.-1.attn.bias", None),
            ("h.attn.bias", None),
            ("attn.bias", None),
            ("h.0.attn.bias2", None),
            ("h.0.crossattention.bias", None),
        ] {
            assert_eq!(mask_layer(name), layer, "{name}");
        }
    }

    #[test]
    fn names_are_found_behind_whatever_wraps_the_model() {
        for (names, expected) in [
            (&["wpe.weight", "ln_f.bias"][..], ""),
            (&["transformer.wpe.weight", "lm_head.weight"], ""),
            (&["model.transformer.wpe.weight", "model.lm_head.weight"], "model."),
            (&["module.model.wpe.weight", "module.model.ln_f.bias"], "model."),
            (&["a.b.transformer._orig_mod.wpe.weight", "a.b.lm_head.weight", "v_head.summary.bias"], "a.b."),
            (&["decoder.transformer.wpe.weight", "encoder.wpe"], ""),
            (&["transformer.wpe.weights", "xwpe.weight"], ""),
            (&[], ""),
        ] {
            assert_eq!(outer(names.iter().copied()), expected, "{names:?}");
        }
        for (name, outer, expected) in [
            ("_orig_mod.module.transformer.h.0.ln_1.bias", "", "transformer.h.0.ln_1.bias"),
            ("transformer.h.0._checkpoint_wrapped_module.ln_1.bias", "", "transformer.h.0.ln_1.bias"),
            ("module.model.lm_head.weight", "model.", "lm_head.weight"),
            ("v_head.summary.bias", "model.", "v_head.summary.bias"),
        ] {
            assert_eq!(plain(name, outer), expected);
        }
        let names = ["module._orig_mod.a", "_orig_mod.b"];
        assert_eq!(ignored(names.into_iter(), "x."), ["_orig_mod.", "module.", "x."]);
        assert!(ignored(["transformer.wpe.weight"].into_iter(), "").is_empty());
    }

    #[test]
    fn an_untied_head_is_listed_last() {
        let config = Config { n_layer: 2, tie_word_embeddings: false, ..Config::default() };
        let names: Vec<_> = expected_tensors(&config).map(|(name, _)| name).collect();
        assert_eq!(names.len(), 2 + 2 * 12 + 2 + 1);
        assert_eq!(names[2], "h.0.ln_1.weight");
        assert_eq!(names[27..], ["ln_f.bias", "lm_head.weight"]);
    }
}
