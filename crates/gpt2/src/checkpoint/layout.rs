//! The names and shapes of the tensors of a GPT-2.

use crate::config::Config;

use super::{HEAD, WTE};

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
    let first = [(WTE, vec![vocab, channels]), ("wpe.weight", vec![config.n_positions, channels])];
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
    fn an_untied_head_is_listed_last() {
        let config = Config { n_layer: 2, tie_word_embeddings: false, ..Config::default() };
        let names: Vec<_> = expected_tensors(&config).map(|(name, _)| name).collect();
        assert_eq!(names.len(), 2 + 2 * 12 + 2 + 1);
        assert_eq!(names[2], "h.0.ln_1.weight");
        assert_eq!(names[27..], ["ln_f.bias", "lm_head.weight"]);
    }
}
