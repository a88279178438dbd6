//! A room to run the command in: its own cache, no network, a tiny model, and files made to do harm.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A working directory with the model `tiny`, `settings`, which is the same with settings of its own, and models
/// that say in their names what is wrong with them.
pub(crate) struct Room {
    directory: TempDir,
}

/// What a command left behind.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the binary can be run");
        let text = |bytes| String::from_utf8(bytes).expect("all output is UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Room {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let room = Self { directory };
        let golden = golden("one-layer");
        let config = fs::read_to_string(golden.join("config.json")).expect("the golden file is there");
        let weights = fs::read(golden.join("model.safetensors")).expect("the golden file is there");
        let tokenizer = character_tokenizer().to_string();
        let model = |name: &str, files: &[(&str, &[u8])]| {
            let path = room.path().join(name);
            fs::create_dir(&path).expect("a directory can be made");
            for (file, contents) in files {
                fs::write(path.join(file), contents).expect("a file can be written");
            }
        };
        let config_file = ("config.json", config.as_bytes());
        let tokenizer_file = ("tokenizer.json", tokenizer.as_bytes());
        let weights_file = ("model.safetensors", weights.as_slice());
        model("tiny", &[config_file, tokenizer_file, weights_file]);
        model("no-weights", &[config_file, tokenizer_file]);
        model("no-config", &[tokenizer_file, weights_file]);
        model("no-tokenizer", &[config_file, weights_file]);
        let half = &weights[..weights.len() / 2];
        model("truncated", &[config_file, tokenizer_file, ("model.safetensors", half)]);
        let huge = [&u64::MAX.to_le_bytes()[..], &weights[8..]].concat();
        model("huge-header", &[config_file, tokenizer_file, ("model.safetensors", &huge)]);
        let wide = config.replace("\"n_embd\": 32", "\"n_embd\": 64");
        assert_ne!(wide, config, "the golden configuration has 32 channels");
        model("wrong-shape", &[("config.json", wide.as_bytes()), tokenizer_file, weights_file]);
        let odd = config.replace("\"n_head\": 1", "\"n_head\": 5");
        assert_ne!(odd, config, "the golden configuration has one head");
        model("bad-config", &[("config.json", odd.as_bytes()), tokenizer_file, weights_file]);
        let settings = ("generation_config.json", &br#"{"temperature": -1}"#[..]);
        model("bad-settings", &[config_file, tokenizer_file, weights_file, settings]);
        let settings = ("generation_config.json", &br#"{"do_sample": false, "max_length": 5}"#[..]);
        model("settings", &[config_file, tokenizer_file, weights_file, settings]);
        fs::write(room.path().join("latin1.txt"), b"caf\xe9\n").expect("a file can be written");
        room
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Prepares a program to run here: no network, no settings but the test's own.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("GPT2_") || name.starts_with("HF_") || name.starts_with("CLICOLOR") {
                command.env_remove(name);
            }
        }
        command.env("HF_HOME", self.path().join("cache")).env("HF_HUB_OFFLINE", "1").env_remove("NO_COLOR");
        command.env_remove("FORCE_COLOR");
        // Where packed copies go when nothing else is said.
        command.env("XDG_CACHE_HOME", self.path().join("cache"));
        command
    }

    /// Prepares a line typed into a shell, which finds `gpt2`.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let directory = Path::new(binary()).parent().expect("a binary is in a directory");
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&others));
        let mut command = self.command("sh");
        let path = std::env::join_paths(path).expect("the parts of a path make a path");
        command.args(["-c", line]).env("PATH", path);
        command
    }

    /// Runs `gpt2` to its end.
    pub(crate) fn gpt2(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(binary()).args(arguments))
    }

    /// Runs `gpt2 … --json`, which must succeed, and parses every line of its standard output.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let outcome = self.gpt2(&[arguments, &["--json"]].concat());
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        outcome.stdout.lines().map(parse).collect()
    }
}

pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_gpt2")
}

pub(crate) fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(case)
}

/// The character of each token of the tiny model but its last, `<|endoftext|>`.
pub(crate) fn characters() -> Vec<char> {
    ('!'..='~').chain([' ', '\n']).collect()
}

/// A tokenizer with one token for each character.
fn character_tokenizer() -> Value {
    let letter = |c: char| match c {
        ' ' => 'Ġ',
        '\n' => 'Ċ',
        c => c,
    };
    let letters = characters().into_iter().map(letter).chain(['Ã', '©', '¨', '®']);
    let vocabulary: serde_json::Map<String, Value> =
        letters.enumerate().map(|(id, letter)| (letter.to_string(), id.into())).collect();
    let end = vocabulary.len();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    json!({
        "added_tokens": [{
            "id": end, "content": "<|endoftext|>", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false
        }],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    })
}
