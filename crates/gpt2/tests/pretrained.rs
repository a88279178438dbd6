//! A directory as `Pretrained` reads it: which file the settings of a model come from.

use std::fs;
use std::path::Path;

use gpt2::generate::GenerationConfig;
use gpt2::model::Formats;
use gpt2::pretrained::{Pretrained, PretrainedError};
use gpt2_kernels::{Cpu, Kernels};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A golden model with a tokenizer of two tokens, these fields in its `config.json`, and perhaps a
/// `generation_config.json`.
fn load(fields: &Value, generation_config: Option<&Value>) -> Result<Pretrained, PretrainedError> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/one-layer");
    let dir = TempDir::new().expect("a temporary directory");
    let config = fs::read(golden.join("config.json")).expect("the golden file is there");
    let mut config: Map<String, Value> = serde_json::from_slice(&config).expect("a JSON object");
    config.extend(fields.as_object().expect("an object").clone());
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    let tokenizer = json!({
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] },
    });
    let write = |name: &str, json: &Value| {
        fs::write(dir.path().join(name), json.to_string()).expect("a file can be written");
    };
    write("config.json", &Value::Object(config));
    write("tokenizer.json", &tokenizer);
    if let Some(json) = generation_config {
        write("generation_config.json", json);
    }
    fs::copy(golden.join("model.safetensors"), dir.path().join("model.safetensors"))
        .expect("a file can be copied");
    Pretrained::from_directory(dir.path(), Cpu::new(Kernels::detect(), 1), Formats::default())
}

#[test]
fn settings_of_a_model_are_in_its_generation_config_or_else_in_its_config() {
    let fields = json!({ "num_beams": 2, "max_length": 9, "temperature": 1.0, "eos_token_id": 3 });
    let expected = GenerationConfig {
        num_beams: Some(2),
        max_length: Some(9),
        temperature: Some(1.0),
        ..GenerationConfig::default()
    };
    let gpt2 = load(&fields, None).unwrap();
    assert_eq!(gpt2.generation_config, expected);
    assert_eq!(gpt2.model.config().eos_token_ids, [3]);
    let completions = gpt2.generate("a").unwrap().run().unwrap();
    assert!(completions[0].tokens.len() <= 8, "`max_length` counts the prompt");

    let gpt2 = load(&fields, Some(&json!({ "top_k": 5 }))).unwrap();
    let expected =
        GenerationConfig { top_k: Some(5), eos_token_id: Some(Vec::new()), ..GenerationConfig::default() };
    assert_eq!(gpt2.generation_config, expected);
}

#[test]
fn a_wrong_setting_is_named_with_its_file() {
    for (fields, generation_config, file) in [
        (json!({ "num_beams": "two" }), None, "config.json"),
        (json!({}), Some(json!({ "num_beams": "two" })), "generation_config.json"),
    ] {
        match load(&fields, generation_config.as_ref()).unwrap_err() {
            PretrainedError::Config { path, source } => {
                assert!(path.ends_with(file), "{}", path.display());
                assert_eq!(source.to_string(), "`num_beams` cannot be \"two\"");
            }
            error => panic!("{error}"),
        }
    }
}
