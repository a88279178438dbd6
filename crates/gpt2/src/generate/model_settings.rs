//! The generation settings that a model comes with, found as transformers finds them.
//!
//! They are in `generation_config.json`. Models saved before 2023 have none; their settings are in `config.json`, among
//! the fields that describe the network. Where both files are there, `config.json` has no say: neither in the settings
//! nor in which token ends a text.

use serde_json::{Map, Value};

use super::GenerationConfig;
use crate::config::ConfigError;
use crate::json;

/// The settings that transformers looks for in a `config.json`, and their defaults, with 0 and 1 for `false` and `true`.
///
/// The end and beginning tokens are not among them, being part of [`Config`](crate::config::Config).
const IN_CONFIG: [(&str, Option<f64>); 44] = [
    ("max_length", Some(20.0)),
    ("max_new_tokens", None),
    ("min_length", Some(0.0)),
    ("min_new_tokens", None),
    ("max_time", None),
    ("stop_strings", None),
    ("do_sample", Some(0.0)),
    ("num_beams", Some(1.0)),
    ("early_stopping", Some(0.0)),
    ("length_penalty", Some(1.0)),
    ("num_beam_groups", Some(1.0)),
    ("diversity_penalty", Some(0.0)),
    ("force_words_ids", None),
    ("penalty_alpha", None),
    ("dola_layers", None),
    ("guidance_scale", None),
    ("token_healing", None),
    ("num_return_sequences", Some(1.0)),
    ("prompt_lookup_num_tokens", None),
    ("max_matching_ngram_size", None),
    ("num_assistant_tokens", Some(20.0)),
    ("temperature", Some(1.0)),
    ("top_k", Some(50.0)),
    ("top_p", Some(1.0)),
    ("min_p", None),
    ("top_h", None),
    ("typical_p", Some(1.0)),
    ("epsilon_cutoff", Some(0.0)),
    ("eta_cutoff", Some(0.0)),
    ("repetition_penalty", Some(1.0)),
    ("encoder_repetition_penalty", Some(1.0)),
    ("no_repeat_ngram_size", Some(0.0)),
    ("encoder_no_repeat_ngram_size", Some(0.0)),
    ("bad_words_ids", None),
    ("sequence_bias", None),
    ("suppress_tokens", None),
    ("begin_suppress_tokens", None),
    ("forced_bos_token_id", None),
    ("forced_eos_token_id", None),
    ("exponential_decay_length_penalty", None),
    ("remove_invalid_values", Some(0.0)),
    ("renormalize_logits", None),
    ("watermarking_config", None),
    ("pad_token_id", None),
];

/// The settings of the sampler, whose defaults are others here where nobody chooses.
const SAMPLER: [&str; 4] = ["do_sample", "temperature", "top_k", "top_p"];

/// Settings that versions of transformers before 3.0 wrote into every `config.json`.
const WRITTEN: [&str; 8] = [
    "do_sample",
    "length_penalty",
    "max_length",
    "num_beams",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
];

impl GenerationConfig {
    /// Reads the `generation_config.json` that a model comes with.
    ///
    /// It alone says which tokens end a text: where it has no `eos_token_id`, none does, whatever `config.json` says.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn of_model(json: &[u8]) -> Result<Self, ConfigError> {
        let mut config = Self::from_json(json)?.with_one_length();
        config.eos_token_id.get_or_insert_default();
        Ok(config)
    }

    /// Reads the settings that the `config.json` of a model without a `generation_config.json` has.
    ///
    /// A value that is the default is not taken, but for those of the sampler: these were chosen, unless all settings are
    /// written, as versions of transformers before 3.0 did in every file.
    /// `task_specific_params` are settings of pipelines, not of the model.
    ///
    /// ```
    /// use gpt2::generate::GenerationConfig;
    ///
    /// let json = br#"{"model_type": "gpt2", "num_beams": 4, "temperature": 1.0, "bos_token_id": 0}"#;
    /// let expected = GenerationConfig { num_beams: Some(4), temperature: Some(1.0), ..GenerationConfig::default() };
    /// assert_eq!(GenerationConfig::from_model_config(json)?, expected);
    /// # Ok::<(), gpt2::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If the bytes are not a JSON object or one of the settings has the wrong type. The message names it.
    pub fn from_model_config(json: &[u8]) -> Result<Self, ConfigError> {
        let mut fields: Map<String, Value> = json::read(json).map_err(ConfigError::Json)?;
        let chosen = !WRITTEN.iter().all(|name| fields.contains_key(*name));
        fields.retain(|name, value| {
            let known = IN_CONFIG.iter().find(|(known, _)| known == name);
            let is_kept = |default: &Option<f64>| default.is_none() || number(value) != *default;
            known.is_some_and(|(_, default)| is_kept(default) || chosen && SAMPLER.contains(&name.as_str()))
        });
        Ok(Self::from_fields(fields)?.with_one_length())
    }

    /// Drops the `max_length` of a model that has `max_new_tokens` too, as transformers does.
    fn with_one_length(mut self) -> Self {
        if self.max_new_tokens.is_some() {
            self.max_length = None;
        }
        self
    }
}

/// A number, or a truth value as Python compares it with one.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(f64::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_old_models_are_in_their_config() {
        let json =
            br#"{"model_type": "gpt2", "n_layer": 2, "repetition_penalty": 1.3, "num_beams": 3, "top_k": 7.0,
            "no_repeat_ngram_size": 2, "bad_words_ids": [[1], [2, 3]], "do_sample": true, "max_length": 30,
            "early_stopping": true, "forced_eos_token_id": 5, "stop_strings": "x", "pad_token_id": 4}"#;
        let expected = GenerationConfig {
            repetition_penalty: Some(1.3),
            num_beams: Some(3),
            top_k: Some(7),
            no_repeat_ngram_size: Some(2),
            bad_words_ids: Some(vec![vec![1], vec![2, 3]]),
            do_sample: Some(true),
            max_length: Some(30),
            early_stopping: Some(crate::generate::EarlyStopping::True),
            forced_eos_token_id: Some(vec![5]),
            stop_strings: Some(vec!["x".to_owned()]),
            pad_token_id: Some(4),
            ..GenerationConfig::default()
        };
        assert_eq!(GenerationConfig::from_model_config(json).unwrap(), expected);
    }

    #[test]
    fn a_sampler_that_was_chosen_counts_where_it_is_the_default_too() {
        for json in [
            r#"{"do_sample": false, "temperature": 1.0}"#,
            r#"{"do_sample": true, "temperature": 1.0, "top_k": 50, "top_p": 1.0}"#,
            r#"{"top_p": 1}"#,
        ] {
            let chosen = GenerationConfig::from_json(json.as_bytes()).unwrap();
            assert_eq!(GenerationConfig::from_model_config(json.as_bytes()).unwrap(), chosen, "{json}");
        }
    }

    #[test]
    fn what_nobody_chose_and_what_transformers_does_not_read_is_left() {
        for json in [
            r#"{"task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}}"#,
            // What versions before 3.0 wrote into every file.
            r#"{"bad_words_ids": null, "bos_token_id": 0, "do_sample": false, "early_stopping": false,
                "eos_token_ids": 0, "length_penalty": 1.0, "max_length": 20, "min_length": 0,
                "no_repeat_ngram_size": 0, "num_beams": 1, "num_return_sequences": 1, "pad_token_id": null,
                "repetition_penalty": 1.0, "temperature": 1, "top_k": 50, "top_p": 1.0}"#,
            // Settings of this program, which a `config.json` has for other reasons if at all.
            r#"{"seed": "x", "frequency_penalty": 2, "samplers": 1, "overflow": 3, "rng": [], "pad_token_id": -1}"#,
        ] {
            let config = GenerationConfig::from_model_config(json.as_bytes()).unwrap();
            assert_eq!(config, GenerationConfig::default(), "{json}");
        }
        let error = GenerationConfig::from_model_config(br#"{"top_p": "x"}"#).unwrap_err();
        assert_eq!(error.to_string(), "`top_p` cannot be \"x\"");
    }

    #[test]
    fn null_is_as_if_the_field_were_not_there_but_for_two_tokens() {
        let default = GenerationConfig::default();
        let fields = serde_json::to_value(&default).unwrap();
        for name in fields.as_object().unwrap().keys() {
            let config = GenerationConfig::from_json(format!(r#"{{"{name}": null}}"#).as_bytes()).unwrap();
            let expected = match name.as_str() {
                "bos_token_id" => GenerationConfig { bos_token_id: Some(None), ..default.clone() },
                "eos_token_id" => GenerationConfig { eos_token_id: Some(Vec::new()), ..default.clone() },
                _ => default.clone(),
            };
            assert_eq!(config, expected, "{name}");
            // What is written reads as the same.
            assert_eq!(GenerationConfig::from_json(config.to_json().as_bytes()).unwrap(), expected, "{name}");
        }
        let read = |json: &str| GenerationConfig::from_json(json.as_bytes()).unwrap();
        assert_eq!(read(r#"{"eos_token_id": []}"#), read(r#"{"eos_token_id": null}"#));
        assert!(read(r#"{"eos_token_id": []}"#).to_json().contains("\"eos_token_id\": null"));
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_fraction_and_other_fields_are_kept_as_they_are() {
        let config = GenerationConfig::from_json(
            br#"{"top_k": 50.0, "num_beams": 2e0, "eos_token_id": [1.0], "bad_words_ids": [[3.0]], "temperature": 1.0,
                "exponential_decay_length_penalty": [5.0, 1.0], "structured_outputs": {"json": {"const": 1.0}},
                "loss": NaN, "version": 4.0}"#,
        )
        .unwrap();
        assert_eq!((config.top_k, config.num_beams, config.eos_token_id), (Some(50), Some(2), Some(vec![1])));
        assert_eq!(config.bad_words_ids, Some(vec![vec![3]]));
        assert_eq!(
            (config.temperature, config.exponential_decay_length_penalty),
            (Some(1.0), Some((5, 1.0)))
        );
        assert_eq!(Value::Object(config.other), serde_json::json!({ "loss": "NaN", "version": 4.0 }));
        let structure = serde_json::to_value(config.structured_outputs).unwrap();
        assert!(structure["json"]["const"].is_f64(), "{structure}");
        for (json, message) in [
            (r#"{"top_k": 50.5}"#, "`top_k` cannot be 50.5"),
            (r#"{"temperature": NaN}"#, "`temperature` cannot be \"NaN\""),
            (r#"{"seed": 1, "num_beams": -3.0}"#, "`num_beams` cannot be -3.0"),
        ] {
            assert_eq!(GenerationConfig::from_json(json.as_bytes()).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_model_with_two_lengths_has_that_of_new_tokens() {
        let json = br#"{"max_new_tokens": 5, "max_length": 30, "eos_token_id": 1}"#;
        for config in [GenerationConfig::of_model(json), GenerationConfig::from_model_config(json)] {
            let config = config.unwrap();
            assert_eq!((config.max_new_tokens, config.max_length), (Some(5), None));
        }
    }

    #[test]
    fn a_generation_config_alone_says_which_token_ends_a_text() {
        for (json, expected) in [
            (r#"{"eos_token_id": 5}"#, vec![5]),
            (r#"{"eos_token_id": [5, 6]}"#, vec![5, 6]),
            (r#"{"eos_token_id": null}"#, vec![]),
            (r#"{"eos_token_id": -1}"#, vec![]),
            (r#"{"temperature": 0.5}"#, vec![]),
            ("{}", vec![]),
        ] {
            let config = GenerationConfig::of_model(json.as_bytes()).unwrap();
            assert_eq!(config.eos_token_id, Some(expected), "{json}");
        }
    }

    #[test]
    fn the_settings_looked_for_are_settings() {
        let known = serde_json::to_value(GenerationConfig::default()).unwrap();
        for (name, _) in IN_CONFIG {
            assert!(known.get(name).is_some(), "{name}");
        }
    }
}
