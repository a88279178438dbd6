//! The GPT-2 models that were published with transformers, and what is known of them without reading a file.

use crate::config::Config;

/// A published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The name that everyone knows it by, such as `gpt2-medium`.
    pub name: &'static str,
    /// The name on the hub, to which it redirects the other one.
    pub id: &'static str,
    /// The size of its `model.safetensors`.
    pub file_bytes: u64,
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
}

/// The published models, from the one that the others are compared with to the largest, and the distilled one.
pub const PUBLISHED: [Published; 5] = [
    Published {
        name: "gpt2",
        id: "openai-community/gpt2",
        file_bytes: 548_105_171,
        n_layer: 12,
        n_embd: 768,
        n_head: 12,
    },
    Published {
        name: "gpt2-medium",
        id: "openai-community/gpt2-medium",
        file_bytes: 1_519_984_962,
        n_layer: 24,
        n_embd: 1024,
        n_head: 16,
    },
    Published {
        name: "gpt2-large",
        id: "openai-community/gpt2-large",
        file_bytes: 3_247_159_078,
        n_layer: 36,
        n_embd: 1280,
        n_head: 20,
    },
    Published {
        name: "gpt2-xl",
        id: "openai-community/gpt2-xl",
        file_bytes: 6_431_829_964,
        n_layer: 48,
        n_embd: 1600,
        n_head: 25,
    },
    Published {
        name: "distilgpt2",
        id: "distilbert/distilgpt2",
        file_bytes: 352_824_413,
        n_layer: 6,
        n_embd: 768,
        n_head: 12,
    },
];

impl Published {
    /// Finds a model by either of its names.
    ///
    /// ```
    /// use gpt2::published::Published;
    ///
    /// let medium = Published::find("openai-community/gpt2-medium").ok_or("not published")?;
    /// assert_eq!((medium.name, medium.config().n_layer), ("gpt2-medium", 24));
    /// # Ok::<(), &str>(())
    /// ```
    pub fn find(id: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|model| model.name == id || model.id == id)
    }

    /// Returns the other name of a model that has two.
    pub fn other_name(&self, id: &str) -> &'static str {
        if id == self.name { self.id } else { self.name }
    }

    /// Returns its configuration.
    pub fn config(&self) -> Config {
        let Self { n_layer, n_embd, n_head, .. } = *self;
        Config { n_layer, n_embd, n_head, n_inner: 4 * n_embd, ..Config::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{By, components};

    #[test]
    fn published_models_have_their_known_parameters() {
        let total = |model: &Published| -> u64 {
            components(&model.config(), By::Kind).iter().map(|part| part.parameters).sum()
        };
        let expected = [124_439_808, 354_823_168, 774_030_080, 1_557_611_200, 81_912_576];
        assert_eq!(PUBLISHED.each_ref().map(total), expected);
        for model in &PUBLISHED {
            // Four bytes for each parameter and for each value of a block's causal mask, and the header.
            let masks = model.n_layer as u64 * 1024 * 1024;
            let header = model.file_bytes - 4 * (total(model) + masks);
            assert!((8_000..60_000).contains(&header), "{}: {header}", model.name);
            assert!(model.config().validate().is_ok());
            assert_eq!(Published::find(model.id), Published::find(model.name));
        }
    }
}
