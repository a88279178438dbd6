//! Models that do not fit into the memory that the command may use.

use std::fs::{self, File};
use std::io::Write;

use gpt2::checkpoint::expected_tensors;
use gpt2::config::Config;
use serde_json::{Map, json};

use crate::support::{Outcome, Room};

/// Limits of `ulimit -d`, in units of 1024 bytes: less than the model takes in `f32`, and in `bf16`.
const LIMITS: [usize; 2] = [200 << 10, 150 << 10];

#[test]
fn a_model_that_does_not_fit_is_refused_and_runs_in_the_format_that_is_named() {
    let room = Room::new();
    write_large_model(&room);
    let mut named = Vec::new();
    for limit in LIMITS {
        let refused = generate(&room, limit, "f32");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{}", refused.stderr);
        let start = "error: `large` needs 204 MB of memory for its weights in f32, and ";
        assert!(refused.stderr.starts_with(start), "{}", refused.stderr);
        let hint = refused.stderr.split_once("\nhint: `--dtype ").expect("another format is recommended").1;
        let (format, rest) = hint.split_once('`').expect("its name ends");
        assert!(rest.starts_with(" would do: "), "{hint}");
        let outcome = generate(&room, limit, format);
        assert_eq!(outcome.code, Some(0), "{format}: {}", outcome.stderr);
        named.push(format.to_owned());
    }
    assert_eq!(named, ["bf16", "int8"]);
}

fn generate(room: &Room, limit: usize, dtype: &str) -> Outcome {
    // A shell sets limits for itself and what it becomes.
    let mut command = room.command("sh");
    command.args(["-c", &format!("ulimit -d {limit} && exec \"$0\" \"$@\""), crate::support::binary()]);
    command.args(["generate", "Hi", "--model=large", "--max-new-tokens=2", "--threads=1", "--no-pack-cache"]);
    Outcome::of(command.args(["--dtype", dtype]))
}

/// Makes `large` of `tiny`: one wide layer whose weights are all zero, in a file with nothing behind its header.
fn write_large_model(room: &Room) {
    let (tiny, large) = (room.path().join("tiny"), room.path().join("large"));
    fs::create_dir(&large).expect("a directory can be made");
    fs::copy(tiny.join("tokenizer.json"), large.join("tokenizer.json")).expect("a file can be copied");
    let config = fs::read_to_string(tiny.join("config.json")).expect("it has a configuration");
    let config = config.replace("\"n_embd\": 32", "\"n_embd\": 2048");
    fs::write(large.join("config.json"), &config).expect("a file can be written");

    let config = Config::from_json(config.as_bytes()).expect("a configuration");
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in expected_tensors(&config) {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = serde_json::to_vec(&header).expect("a header");
    let mut file = File::create(large.join("model.safetensors")).expect("a file can be made");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("a file can be written");
    file.write_all(&header).expect("a file can be written");
    file.set_len((8 + header.len() + end) as u64).expect("a file can be longer than what is in it");
}
