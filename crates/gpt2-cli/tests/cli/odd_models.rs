//! Models that are read although they are unusual: the settings of old ones, and what writers of checkpoints leave in
//! names and files.

use std::fs;

use serde_json::{Map, Value, json};

use crate::support::{Outcome, Room};

/// Makes a model like `tiny`, with other fields in `config.json`; `null` takes one away.
fn model(room: &Room, name: &str, fields: &Value) {
    let path = room.path().join(name);
    fs::create_dir_all(&path).expect("a directory can be made");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(room.path().join("tiny").join(file), path.join(file)).expect("a file can be copied");
    }
    let mut config: Map<String, Value> =
        serde_json::from_slice(&fs::read(path.join("config.json")).expect("the file is there"))
            .expect("a JSON object");
    for (field, value) in fields.as_object().expect("an object") {
        config.insert(field.clone(), value.clone());
    }
    write(room, name, "config.json", &Value::Object(config).to_string());
}

fn write(room: &Room, model: &str, file: &str, text: &str) {
    fs::write(room.path().join(model).join(file), text).expect("a file can be written");
}

/// Renames the tensors of a model.
fn rename(room: &Room, model: &str, rename: impl Fn(&str) -> String) {
    let path = room.path().join(model).join("model.safetensors");
    let bytes = fs::read(&path).expect("the file is there");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("a JSON object");
    let renamed = header.into_iter().map(|(name, tensor)| match name.as_str() {
        "__metadata__" => (name, tensor),
        name => (rename(name), tensor),
    });
    let header = Value::Object(renamed.collect()).to_string().into_bytes();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, data].concat();
    fs::write(path, bytes).expect("a file can be written");
}

fn greedy(room: &Room, model: &str, flags: &[&str]) -> Outcome {
    let command = ["-m", model, "generate", "Hi", "--greedy", "--max-new-tokens=12", "--ignore-eos"];
    let outcome = room.gpt2(&[&command[..], flags].concat());
    assert_eq!(outcome.code, Some(0), "{model}: {}", outcome.stderr);
    outcome
}

#[test]
fn settings_in_config_json_act_where_there_is_no_generation_config() {
    let room = Room::new();
    let plain = greedy(&room, "tiny", &[]).stdout;
    let fields = json!({ "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "bad_words_ids": [[3]] });
    model(&room, "old", &fields);
    let flags = ["--repetition-penalty=1.5", "--no-repeat-ngram-size=2", "--bad-words-ids=3"];
    let expected = greedy(&room, "tiny", &flags).stdout;
    assert_ne!(expected, plain);
    assert_eq!(greedy(&room, "old", &[]).stdout, expected);
    let off = ["--repetition-penalty=1", "--no-repeat-ngram-size=0", "--bad-words-ids=94"];
    assert_eq!(greedy(&room, "old", &off).stdout, greedy(&room, "tiny", &off[2..]).stdout);

    write(&room, "old", "generation_config.json", "{}");
    assert_eq!(greedy(&room, "old", &[]).stdout, plain);

    let fields =
        json!({ "task_specific_params": { "text-generation": { "do_sample": true, "max_length": 50 } } });
    model(&room, "gpt2-like", &fields);
    assert_eq!(greedy(&room, "gpt2-like", &[]).stdout, plain);

    model(&room, "wrong", &json!({ "num_beams": 4.5 }));
    let outcome = room.gpt2(&["-m", "wrong", "generate", "Hi"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot use `wrong/config.json`\ncaused by: `num_beams` cannot be 4.5"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn num_return_sequences_in_a_file_counts() {
    let room = Room::new();
    let count = |flags: &[&str]| {
        let command = ["-m", "several", "generate", "--seed=1", "--max-new-tokens=2"];
        room.json(&[&command[..], flags].concat()).len()
    };
    model(&room, "several", &json!({ "num_return_sequences": 2 }));
    assert_eq!(count(&["Hi"]), 2);
    write(&room, "several", "generation_config.json", r#"{"num_return_sequences": 3}"#);
    assert_eq!(count(&["Hi"]), 3);
    write(&room, "several", "mine.json", r#"{"num_return_sequences": 4}"#);
    let named = "--generation-config=several/mine.json";
    assert_eq!(count(&["Hi", named]), 4);
    assert_eq!(count(&["Hi", named, "--num-return-sequences=1"]), 1);
    assert_eq!(count(&["--prompt=Hi", named]), 4);
}

#[test]
fn the_file_that_says_which_token_ends_a_text_is_generation_config_json_if_it_is_there() {
    let room = Room::new();
    // The token that the model takes first, for texts to end at once where it ends them.
    let command = ["generate", "Hi", "--greedy", "--max-new-tokens=3"];
    let records = room.json(&[&["-m", "tiny", "--offline"], &command[..], &["--ignore-eos"]].concat());
    let first = records[0]["tokens"][0].clone();
    let ended = |name: &str, in_config: &Value, file: Option<&Value>| {
        model(&room, name, &json!({ "eos_token_id": in_config }));
        if let Some(file) = file {
            write(&room, name, "generation_config.json", &file.to_string());
        }
        let records = room.json(&[&["-m", name], &command[..]].concat());
        records[0]["tokens"].as_array().expect("tokens").len() == 1
    };
    for (name, in_config, file, ends) in [
        ("config-alone", &first, None, true),
        ("config-says-none", &Value::Null, None, false),
        ("both", &first, Some(json!({ "eos_token_id": first })), true),
        ("file-alone", &Value::Null, Some(json!({ "eos_token_id": [first] })), true),
        ("file-says-none", &first, Some(json!({ "eos_token_id": null })), false),
        ("file-says-minus-one", &first, Some(json!({ "eos_token_id": -1 })), false),
        ("file-says-nothing", &first, Some(json!({ "temperature": 0.5 })), false),
    ] {
        assert_eq!(ended(name, in_config, file.as_ref()), ends, "{name}");
    }
    let no_bos = json!({ "bos_token_id": null });
    model(&room, "no-bos", &json!({ "bos_token_id": 1 }));
    let empty = ["-m", "no-bos", "generate", "", "--max-new-tokens=2"];
    assert_eq!(room.gpt2(&empty).code, Some(0));
    write(&room, "no-bos", "generation_config.json", &no_bos.to_string());
    assert_eq!(room.gpt2(&empty).code, Some(1));
}

#[test]
fn files_are_read_as_python_and_editors_write_them() {
    let room = Room::new();
    let plain = greedy(&room, "tiny", &[]).stdout;
    model(&room, "python", &json!({}));
    let config = fs::read_to_string(room.path().join("python/config.json")).expect("the file is there");
    let config = config.replacen('{', "\u{feff}{\n\"best_loss\": NaN, \"range\": [-Infinity, Infinity],", 1);
    write(&room, "python", "config.json", &config.replace("\"n_embd\":32", "\"n_embd\":32.0"));
    write(&room, "python", "generation_config.json", "\u{feff}{\"top_k\": 50.0, \"loss\": NaN}\r\n");
    assert_eq!(greedy(&room, "python", &[]).stdout, plain);
    write(&room, "python", "generation_config.json", "{\"top_k\": 50,\n \"temperature\": NaN}");
    let outcome = room.gpt2(&["-m", "python", "generate", "Hi"]);
    let expected =
        "error: cannot use `python/generation_config.json`\ncaused by: `temperature` cannot be \"NaN\"";
    assert!(outcome.stderr.starts_with(expected), "{}", outcome.stderr);
}

#[test]
fn wrapped_names_are_read_and_it_is_said() {
    let room = Room::new();
    let plain = greedy(&room, "tiny", &[]);
    assert!(!plain.stderr.contains("note:"), "{}", plain.stderr);
    model(&room, "compiled", &json!({}));
    rename(&room, "compiled", |name| format!("_orig_mod.{name}"));
    let outcome = greedy(&room, "compiled", &[]);
    assert_eq!(outcome.stdout, plain.stdout);
    let note = "note: ignoring `_orig_mod.` in the tensor names of `compiled/model.safetensors`\n";
    assert!(outcome.stderr.starts_with(note), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("note:").count(), 1);
    assert!(!greedy(&room, "compiled", &["--quiet"]).stderr.contains("note:"));
}
