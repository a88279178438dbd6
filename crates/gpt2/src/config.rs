//! What `config.json` and `generation_config.json` say about a model.
//!
//! A field that is absent has the value transformers' `GPT2Config` gives it. A field that would change the
//! arithmetic is either a field of [`Config`] or refused by name; none is ignored. Fields that only concern
//! training (`initializer_range`), other heads (`summary_*`) or book-keeping are skipped.

pub use gpt2_kernels::Activation;
use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::json;

/// Describes a GPT-2 model: its sizes and every option that changes its arithmetic.
///
/// [`Config::default`] is the configuration of `gpt2` itself, as it is in transformers.
///
/// ```
/// use gpt2::config::Config;
///
/// let config = Config::from_json(br#"{"model_type": "gpt2", "n_layer": 6}"#)?;
/// assert_eq!((config.n_layer, config.n_embd, config.head_size()), (6, 768, 64));
/// # Ok::<(), gpt2::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// V: rows of `wte`, and length of a row of logits.
    pub vocab_size: usize,
    /// Rows of `wpe`: the longest sequence the model can see.
    pub n_positions: usize,
    /// C: length of a hidden state.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// H: attention heads in a block; divides `n_embd`.
    pub n_head: usize,
    /// Hidden length of the MLP: the file's `n_inner`, or `4 * n_embd` where it gives none.
    pub n_inner: usize,
    /// The function between the two layers of the MLP.
    pub activation: Activation,
    /// The name the file has for `activation`; several names share one formula but print differently.
    pub activation_function: String,
    /// What the layer norms add to the variance.
    pub layer_norm_epsilon: f32,
    /// Whether attention scores are divided by the square root of the head size.
    pub scale_attn_weights: bool,
    /// Whether attention scores are divided by the number of the layer too, counted from one.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether scores and softmax are computed in `f32` whatever the weights; ours always are.
    pub reorder_and_upcast_attn: bool,
    /// Whether the head is `wte` itself; see [`Checkpoint::embeddings`](crate::checkpoint::Checkpoint::embeddings).
    pub tie_word_embeddings: bool,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text; may be empty, and may lie outside the vocabulary, where none is ever drawn.
    pub eos_token_ids: Vec<u32>,
    /// Dropout after the embeddings while training; only printed, as a number the way the file has it.
    pub embd_pdrop: Number,
    /// Dropout of attention weights while training; only printed.
    pub attn_pdrop: Number,
    /// Dropout of what a block adds to its input while training; only printed.
    pub resid_pdrop: Number,
}

impl Config {
    /// Reads the bytes of a `config.json`.
    ///
    /// Of `n_embd`, `n_positions`, `n_head` and `n_layer` the general names `hidden_size`,
    /// `max_position_embeddings`, `num_attention_heads` and `num_hidden_layers` are read as well. `n_ctx` is not
    /// read: where it differs from `n_positions`, transformers follows `n_positions` too.
    ///
    /// # Errors
    /// If the bytes are not a JSON object, do not describe a GPT-2, hold a value of the wrong type or size, or
    /// ask for something that is not supported. The message names the field.
    pub fn from_json(json: &[u8]) -> Result<Config, ConfigError> {
        let fields = Fields::parse(json)?;
        refuse_other_models(&fields)?;
        refuse_unsupported(&fields)?;
        let default = Config::default();
        let n_embd = fields.aliased("n_embd", "hidden_size")?.unwrap_or(default.n_embd);
        let activation_function = fields.text("activation_function")?.unwrap_or("gelu_new");
        let config = Config {
            vocab_size: fields.size("vocab_size")?.unwrap_or(default.vocab_size),
            n_positions: fields
                .aliased("n_positions", "max_position_embeddings")?
                .unwrap_or(default.n_positions),
            n_embd,
            n_layer: fields.aliased("n_layer", "num_hidden_layers")?.unwrap_or(default.n_layer),
            n_head: fields.aliased("n_head", "num_attention_heads")?.unwrap_or(default.n_head),
            n_inner: fields.size("n_inner")?.unwrap_or(n_embd.saturating_mul(4)),
            activation: activation(activation_function)?,
            activation_function: activation_function.to_owned(),
            layer_norm_epsilon: fields
                .float("layer_norm_epsilon")?
                .map_or(default.layer_norm_epsilon, |x| x as f32),
            scale_attn_weights: fields.bool("scale_attn_weights")?.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: fields.bool("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            reorder_and_upcast_attn: fields.bool("reorder_and_upcast_attn")?.unwrap_or(false),
            tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(true),
            // Absent and `null` differ here alone: the default is a token, `null` is none.
            bos_token_id: match fields.0.get("bos_token_id") {
                None => default.bos_token_id,
                Some(_) => fields.token("bos_token_id")?,
            },
            eos_token_ids: match fields.0.get("eos_token_id") {
                None => default.eos_token_ids,
                Some(_) => fields.tokens("eos_token_id")?.unwrap_or_default(),
            },
            embd_pdrop: fields.number("embd_pdrop")?.unwrap_or(default.embd_pdrop),
            attn_pdrop: fields.number("attn_pdrop")?.unwrap_or(default.attn_pdrop),
            resid_pdrop: fields.number("resid_pdrop")?.unwrap_or(default.resid_pdrop),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the sizes against each other, as [`Config::from_json`] does; for a configuration made by hand.
    ///
    /// # Errors
    /// If a size is zero or absurd (more than 2²⁴, or 1,024 layers: parameters could no longer be counted in 64
    /// bits), `n_head` does not divide `n_embd`, or `layer_norm_epsilon` is negative or not finite.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, found, limit) in [
            ("vocab_size", self.vocab_size, MAX_SIZE),
            ("n_positions", self.n_positions, MAX_SIZE),
            ("n_embd", self.n_embd, MAX_SIZE),
            ("n_layer", self.n_layer, MAX_LAYERS),
            ("n_head", self.n_head, MAX_SIZE),
            ("n_inner", self.n_inner, MAX_SIZE),
        ] {
            if !(1..=limit).contains(&found) {
                return Err(wrong_value(field, format!("a number from 1 to {limit}"), found));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(wrong_value(
                "n_head",
                format!("a divisor of `n_embd`, {}", self.n_embd),
                self.n_head,
            ));
        }
        if !(self.layer_norm_epsilon >= 0.0 && self.layer_norm_epsilon.is_finite()) {
            return Err(wrong_value("layer_norm_epsilon", "a number from 0", self.layer_norm_epsilon));
        }
        Ok(())
    }

    /// Returns D, the length of a query, key or value of one head.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Returns what the attention scores of a layer, counted from zero, are multiplied by.
    ///
    /// # Panics
    /// If the model has no such layer.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        assert!(layer < self.n_layer, "attention_scale: layer {layer} of {}", self.n_layer);
        // In f64 and rounded once, as Python does it.
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= (self.head_size() as f64).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        scale as f32
    }

    /// Returns the class PyTorch prints for the activation.
    pub(crate) fn activation_class(&self) -> &'static str {
        let rows = || ACTIVATIONS.iter().filter(|row| row.1 == self.activation);
        let row = rows().find(|row| row.0 == self.activation_function).or_else(|| rows().next());
        row.expect("every activation has a row").2
    }
}

impl Default for Config {
    fn default() -> Config {
        let dropout = || Number::from_f64(0.1).expect("0.1 is finite");
        Config {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: 3072,
            activation: Activation::GeluTanh,
            activation_function: "gelu_new".to_owned(),
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            reorder_and_upcast_attn: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
            eos_token_ids: vec![50256],
            embd_pdrop: dropout(),
            attn_pdrop: dropout(),
            resid_pdrop: dropout(),
        }
    }
}

/// Finds the formula behind a name that `activation_function` may have.
///
/// ```
/// use gpt2::config::{Activation, activation};
///
/// assert_eq!(activation("gelu_fast")?, Activation::GeluTanh);
/// assert!(activation("mish").is_err());
/// # Ok::<(), gpt2::config::ConfigError>(())
/// ```
///
/// # Errors
/// If the name is not among those supported; the message lists them.
pub fn activation(name: &str) -> Result<Activation, ConfigError> {
    match ACTIVATIONS.iter().find(|row| row.0 == name) {
        Some(row) => Ok(row.1),
        None => Err(ConfigError::Unsupported {
            field: "activation_function",
            found: shortened(name),
            supported: ACTIVATIONS.map(|row| row.0).join(", "),
        }),
    }
}

/// The names of transformers' `ACT2FN` that are supported, their formulas, and the classes PyTorch prints.
const ACTIVATIONS: [(&str, Activation, &str); 14] = [
    ("gelu_new", Activation::GeluTanh, "NewGELUActivation"),
    ("gelu_fast", Activation::GeluTanh, "FastGELUActivation"),
    ("gelu_pytorch_tanh", Activation::GeluTanh, "GELUTanh"),
    ("gelu_python_tanh", Activation::GeluTanh, "GELUTanh"),
    ("gelu_accurate", Activation::GeluTanh, "AccurateGELUActivation"),
    ("gelu", Activation::GeluErf, "GELUActivation"),
    ("gelu_python", Activation::GeluErf, "GELUActivation"),
    ("gelu_10", Activation::GeluErfClipped, "ClippedGELUActivation"),
    ("quick_gelu", Activation::QuickGelu, "QuickGELUActivation"),
    ("relu", Activation::Relu, "ReLU"),
    ("relu2", Activation::ReluSquared, "ReLUSquaredActivation"),
    ("silu", Activation::Silu, "SiLUActivation"),
    ("swish", Activation::Silu, "SiLU"),
    ("tanh", Activation::Tanh, "Tanh"),
];

/// Says what is wrong with a `config.json` or `generation_config.json`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The bytes are not JSON, or not a JSON object.
    #[error("expected a JSON object")]
    Json(#[source] serde_json::Error),
    /// A field has a value it cannot have.
    #[error("`{field}` must be {expected}, found `{found}`")]
    Value {
        /// The field.
        field: &'static str,
        /// What it may be, in words.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A field is of the wrong type.
    #[error("`{field}` cannot be {found}")]
    Field {
        /// The field.
        field: String,
        /// What it is, as JSON.
        found: String,
        /// What is wrong with that.
        source: serde_json::Error,
    },
    /// A field asks for arithmetic that is not implemented.
    #[error("`{field}` is `{found}`, which is not supported; supported: {supported}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        supported: String,
    },
}

/// With no size above this and [`MAX_LAYERS`], the parameters of a model number less than 2⁶³.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 10;

/// Refuses what neither calls itself GPT-2 nor was saved from one of its classes.
fn refuse_other_models(fields: &Fields) -> Result<(), ConfigError> {
    if let Some(found) = fields.text("model_type")? {
        if found != "gpt2" {
            return Err(wrong_value("model_type", "`gpt2`", found));
        }
        return Ok(());
    }
    match fields.0.get("architectures") {
        Some(Value::Array(names))
            if names.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("GPT2"))) =>
        {
            Ok(())
        }
        _ => Err(wrong_value("model_type", "`gpt2`", Value::Null)),
    }
}

/// Refuses every field that would change the arithmetic and is not in [`Config`].
fn refuse_unsupported(fields: &Fields) -> Result<(), ConfigError> {
    // Each field with the one value that asks for nothing; `null`, `{}` and `[]` never do.
    for (field, plain) in [
        ("add_cross_attention", Value::Bool(false)),
        ("is_encoder_decoder", Value::Bool(false)),
        ("is_causal", Value::Bool(true)),
        ("multi_query", Value::Bool(false)),
        ("attention_head_type", Value::from("multihead")),
        ("pruned_heads", Value::Null),
        ("quantization_config", Value::Null),
        ("per_layer_config", Value::Null),
    ] {
        let asks_for_nothing = match fields.0.get(field) {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(found) => *found == plain,
        };
        if !asks_for_nothing {
            let found = shortened(&fields.0[field].to_string());
            let supported = if plain.is_null() { "leaving it out".to_owned() } else { format!("`{plain}`") };
            return Err(ConfigError::Unsupported { field, found, supported });
        }
    }
    Ok(())
}

/// The members of a JSON object, read by name and type.
struct Fields(Map<String, Value>);

/// The fields that may be `null`, which is no value. Elsewhere it is refused, as transformers does: earlier versions of
/// it took `null` for `false`.
const NULLABLE: [&str; 4] = ["model_type", "n_inner", "bos_token_id", "eos_token_id"];

impl Fields {
    fn parse(json: &[u8]) -> Result<Fields, ConfigError> {
        json::read(json).map(Fields).map_err(ConfigError::Json)
    }

    /// Reads a field with `read`, which gives nothing for a value that is not `expected`.
    fn get<'a, T>(
        &'a self,
        field: &'static str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(field) {
            None => Ok(None),
            Some(Value::Null) if NULLABLE.contains(&field) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_value(field, expected, value)),
        }
    }

    fn bool(&self, field: &'static str) -> Result<Option<bool>, ConfigError> {
        self.get(field, "true or false", Value::as_bool)
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>, ConfigError> {
        self.get(field, "a string", Value::as_str)
    }

    fn number(&self, field: &'static str) -> Result<Option<Number>, ConfigError> {
        self.get(field, "a number", |value| value.as_number().cloned())
    }

    fn float(&self, field: &'static str) -> Result<Option<f64>, ConfigError> {
        self.get(field, "a number", Value::as_f64)
    }

    fn size(&self, field: &'static str) -> Result<Option<usize>, ConfigError> {
        self.get(field, "a whole number", |value| usize::try_from(json::whole(value)?).ok())
    }

    /// Reads a size that has two names; both may be given if they agree.
    fn aliased(&self, field: &'static str, alias: &'static str) -> Result<Option<usize>, ConfigError> {
        match (self.size(field)?, self.size(alias)?) {
            (Some(size), Some(other)) if size != other => {
                Err(wrong_value(alias, format!("equal to `{field}`, {size}"), other))
            }
            (size, other) => Ok(size.or(other)),
        }
    }

    /// Reads a token id, or -1 for none.
    fn token(&self, field: &'static str) -> Result<Option<u32>, ConfigError> {
        let none = |value: &Value| (*value == NO_TOKEN).then_some(None);
        let found = self.get(field, "a token id", |value| none(value).or_else(|| token(value).map(Some)))?;
        Ok(found.flatten())
    }

    /// Reads a token id or a list of them, or -1 for none.
    fn tokens(&self, field: &'static str) -> Result<Option<Vec<u32>>, ConfigError> {
        self.get(field, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(token).collect(),
            id if *id == NO_TOKEN => Some(Vec::new()),
            id => token(id).map(|id| vec![id]),
        })
    }
}

/// What some programs write for a token that there is not.
pub(crate) const NO_TOKEN: i64 = -1;

fn token(value: &Value) -> Option<u32> {
    u32::try_from(json::whole(value)?).ok()
}

fn wrong_value(
    field: &'static str,
    expected: impl Into<String>,
    found: impl std::fmt::Display,
) -> ConfigError {
    ConfigError::Value { field, expected: expected.into(), found: shortened(&found.to_string()) }
}

/// Cuts a value from a file to a length that fits in a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Config, ConfigError> {
        Config::from_json(format!(r#"{{"model_type": "gpt2", {fields}}}"#).as_bytes())
    }

    #[test]
    fn an_empty_gpt2_config_is_gpt2() {
        assert_eq!(Config::from_json(br#"{"model_type": "gpt2"}"#).unwrap(), Config::default());
        let by_class = Config::from_json(br#"{"architectures": ["GPT2LMHeadModel"], "n_ctx": 512}"#);
        assert_eq!(by_class.unwrap(), Config::default());
    }

    #[test]
    fn every_field_is_read() {
        let config = read(
            r#""vocab_size": 11, "n_positions": 7, "n_embd": 8, "n_layer": 3, "n_head": 2, "n_inner": 5,
               "activation_function": "gelu", "layer_norm_epsilon": 1e-6, "scale_attn_weights": false,
               "scale_attn_by_inverse_layer_idx": true, "reorder_and_upcast_attn": true,
               "tie_word_embeddings": false, "bos_token_id": null, "eos_token_id": [1, 2],
               "embd_pdrop": 0, "attn_pdrop": 0.25, "resid_pdrop": 0.5"#,
        );
        let expected = Config {
            vocab_size: 11,
            n_positions: 7,
            n_embd: 8,
            n_layer: 3,
            n_head: 2,
            n_inner: 5,
            activation: Activation::GeluErf,
            activation_function: "gelu".to_owned(),
            layer_norm_epsilon: 1e-6,
            scale_attn_weights: false,
            scale_attn_by_inverse_layer_idx: true,
            reorder_and_upcast_attn: true,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_ids: vec![1, 2],
            embd_pdrop: Number::from(0),
            attn_pdrop: Number::from_f64(0.25).unwrap(),
            resid_pdrop: Number::from_f64(0.5).unwrap(),
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn end_tokens_are_a_number_a_list_or_none() {
        for (json, expected) in
            [("5", vec![5]), ("[5, 6]", vec![5, 6]), ("null", vec![]), ("[]", vec![]), ("-1", vec![])]
        {
            assert_eq!(read(&format!(r#""eos_token_id": {json}"#)).unwrap().eos_token_ids, expected);
        }
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_fraction() {
        let config =
            read(r#""n_embd": 24.0, "n_head": 3.0, "n_inner": 5e1, "eos_token_id": [1.0, 2]"#).unwrap();
        assert_eq!((config.n_embd, config.n_head, config.n_inner), (24, 3, 50));
        assert_eq!(config.eos_token_ids, [1, 2]);
    }

    #[test]
    fn what_python_and_editors_write_is_read() {
        let json = "\u{feff}{\"model_type\": \"gpt2\", \"loss\": NaN, \"range\": [-Infinity, Infinity], \"n_layer\": 3}";
        assert_eq!(Config::from_json(json.as_bytes()).unwrap(), Config { n_layer: 3, ..Config::default() });
    }

    #[test]
    fn null_is_no_value_where_there_may_be_none_and_refused_elsewhere() {
        let config =
            read(r#""n_inner": null, "bos_token_id": null, "eos_token_id": null, "foo": null"#).unwrap();
        assert_eq!((config.n_inner, config.bos_token_id, config.eos_token_ids), (3072, None, vec![]));
        for field in [
            "vocab_size",
            "n_positions",
            "n_embd",
            "hidden_size",
            "n_layer",
            "n_head",
            "activation_function",
            "layer_norm_epsilon",
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "reorder_and_upcast_attn",
            "tie_word_embeddings",
            "embd_pdrop",
        ] {
            let message = read(&format!(r#""{field}": null"#)).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}` must be ")), "{message}");
            assert!(message.ends_with(", found `null`"), "{message}");
        }
    }

    #[test]
    fn general_names_are_aliases() {
        let config = read(
            r#""hidden_size": 24, "max_position_embeddings": 9, "num_attention_heads": 3, "num_hidden_layers": 2"#,
        )
        .unwrap();
        assert_eq!((config.n_embd, config.n_positions, config.n_head, config.n_layer), (24, 9, 3, 2));
        assert_eq!(config.n_inner, 96);
    }

    #[test]
    fn attention_scale_follows_both_flags() {
        let mut config = Config::default();
        assert_eq!(config.attention_scale(1), 0.125);
        config.scale_attn_by_inverse_layer_idx = true;
        assert_eq!(config.attention_scale(0), 0.125);
        assert_eq!(config.attention_scale(3), 0.03125);
        config.scale_attn_weights = false;
        assert_eq!(config.attention_scale(3), 0.25);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, message) in [
            (r#""n_embd": 10"#, "`n_head` must be a divisor of `n_embd`, 10, found `12`"),
            (r#""n_embd": 0"#, "`n_embd` must be a number from 1 to 16777216, found `0`"),
            (r#""n_layer": 0"#, "`n_layer` must be a number from 1 to 1024, found `0`"),
            (r#""n_head": 0"#, "`n_head` must be a number from 1 to 16777216, found `0`"),
            (r#""n_inner": 0"#, "`n_inner` must be a number from 1 to 16777216, found `0`"),
            (r#""vocab_size": -1"#, "`vocab_size` must be a whole number, found `-1`"),
            (r#""n_positions": 1e-3"#, "`n_positions` must be a whole number, found `0.001`"),
            (r#""layer_norm_epsilon": NaN"#, "`layer_norm_epsilon` must be a number, found `\"NaN\"`"),
            (r#""n_embd": Infinity"#, "`n_embd` must be a whole number, found `\"Infinity\"`"),
            (
                r#""n_embd": 18446744073709551615"#,
                "`n_embd` must be a number from 1 to 16777216, found `18446744073709551615`",
            ),
            (r#""hidden_size": 64, "n_embd": 32"#, "`hidden_size` must be equal to `n_embd`, 32, found `64`"),
            (r#""layer_norm_epsilon": -1"#, "`layer_norm_epsilon` must be a number from 0, found `-1`"),
            (r#""layer_norm_epsilon": 1e300"#, "`layer_norm_epsilon` must be a number from 0, found `inf`"),
            (r#""layer_norm_epsilon": "x""#, "`layer_norm_epsilon` must be a number, found `\"x\"`"),
            (r#""scale_attn_weights": 1"#, "`scale_attn_weights` must be true or false, found `1`"),
            (
                r#""eos_token_id": [1, -2]"#,
                "`eos_token_id` must be a token id or a list of them, found `[1,-2]`",
            ),
        ] {
            assert_eq!(read(json).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_would_change_the_arithmetic_is_refused_by_name() {
        for (field, json) in [
            ("activation_function", r#""mish""#),
            ("add_cross_attention", "true"),
            ("is_encoder_decoder", "true"),
            ("is_causal", "false"),
            ("multi_query", "true"),
            ("attention_head_type", r#""multiquery""#),
            ("pruned_heads", r#"{"0": [1]}"#),
            ("quantization_config", r#"{"bits": 4}"#),
            ("per_layer_config", r#"{"0": {"n_inner": 4}}"#),
        ] {
            let error = read(&format!(r#""{field}": {json}"#)).unwrap_err();
            assert!(
                matches!(error, ConfigError::Unsupported { field: named, .. } if named == field),
                "{error}"
            );
        }
        let plain = r#""add_cross_attention": false, "pruned_heads": {}, "attention_head_type": "multihead",
                       "quantization_config": null, "is_causal": true, "is_decoder": true"#;
        assert_eq!(read(plain).unwrap(), Config::default());
    }

    #[test]
    fn other_models_and_other_bytes_are_refused() {
        for (json, message) in [
            (&br#"{"model_type": "llama"}"#[..], "`model_type` must be `gpt2`, found `llama`"),
            (br#"{"architectures": ["BertModel"]}"#, "`model_type` must be `gpt2`, found `null`"),
            (b"{}", "`model_type` must be `gpt2`, found `null`"),
            (b"[]", "expected a JSON object"),
            (b"", "expected a JSON object"),
            (b"{\"model_type\": \"\xff\"}", "expected a JSON object"),
        ] {
            assert_eq!(Config::from_json(json).unwrap_err().to_string(), message);
        }
    }
}
