//! The forward pass against transformers: every configuration in `testdata/golden`.
//!
//! The tolerance is absolute, 1e-4 on logits of size 10 or less: half of what the project promises,
//! and an eighth of what the subtlest mistake of formula would show (see `testdata/golden/README.md`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::GenerationConfig;
use gpt2::logits::argmax;
use gpt2::model::{Formats, Model, Step, Want};
use gpt2::probe::{Probe, Site};
use gpt2::tokenizer::{SpecialText, SpecialTokens, Tokenizer};
use gpt2::workspace::Workspace;
use gpt2_kernels::{Cpu, Kernels, Rows};
use safetensors::SafeTensors;
use serde::Deserialize;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Prompt>,
    attention_prompt: usize,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    greedy: Vec<u32>,
}

/// What a probe saw: the tensors of `expected.safetensors`, by their names there.
#[derive(Default)]
struct Seen {
    tensors: HashMap<String, Vec<f32>>,
    attention: Vec<(usize, usize, Vec<f32>)>,
}

impl Probe for Seen {
    fn observe(&mut self, site: Site, rows: Rows<'_>) {
        let name = match site {
            Site::Embeddings => "hidden.0".to_owned(),
            Site::Residual(layer) => format!("hidden.{}", layer + 1),
            Site::LnF => "ln_f".to_owned(),
            Site::Logits => "logits".to_owned(),
            _ => return,
        };
        let values = (0..rows.count()).flat_map(|row| rows.row(row).iter().copied()).collect();
        self.tensors.insert(name, values);
    }

    fn wants_attention(&self, layer: usize) -> bool {
        layer == 0
    }

    fn attention(&mut self, _layer: usize, head: usize, row: usize, weights: &[f32]) {
        self.attention.push((head, row, weights.to_vec()));
    }
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

fn load(folder: &Path, kernels: &'static Kernels) -> Model {
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(folder).expect("checkpoint");
    Model::load(Cpu::new(kernels, 2), config, &checkpoint, Formats::default(), &mut |_, _| ()).expect("model")
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "{what}: [{i}] is {a}, expected {b}");
    }
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).expect(name).data().as_chunks::<4>().0;
    data.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn logits_hidden_states_attention_and_greedy_tokens_equal_transformers() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(testdata())
        .expect("testdata/golden")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    cases.sort();
    assert!(cases.len() >= 25, "{} cases found", cases.len());
    for folder in cases {
        let case = folder.file_name().expect("name").to_string_lossy().into_owned();
        let json = std::fs::read(folder.join("expected.json")).expect("expected.json");
        let expected: Expected = serde_json::from_slice(&json).expect("expected.json");
        let bytes = std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).expect("expected.safetensors");
        for kernels in Kernels::available() {
            let model = load(&folder, kernels);
            for (index, prompt) in expected.prompts.iter().enumerate() {
                let what = |name: &str| format!("{case}, {}, prompt {index}, {name}", kernels.name());
                let mut work = Workspace::new(&model, prompt.ids.len(), prompt.ids.len());
                let mut cache = KvCache::new(&model);
                let mut seen = Seen::default();
                let step = Step::new(&model, &prompt.ids, &mut cache, Want::All).expect("step");
                model.forward_probed(&mut [step], &mut work, &mut seen);
                let prefix = format!("prompt{index}.");
                let names = tensors.names().into_iter().filter_map(|name| name.strip_prefix(&prefix));
                for name in names.filter(|name| !name.starts_with("attention")) {
                    let expected = tensor(&tensors, &format!("{prefix}{name}"));
                    assert_close(&seen.tensors[name], &expected, &what(name));
                }
                if index == expected.attention_prompt {
                    let maps = tensor(&tensors, &format!("{prefix}attention.0")); // (H, T, T)
                    let t = prompt.ids.len();
                    assert_eq!(seen.attention.len(), model.config().n_head * t);
                    for (head, row, weights) in &seen.attention {
                        let start = (head * t + row) * t;
                        assert_close(weights, &maps[start..start + row + 1], &what("attention"));
                    }
                }
                let mut next = argmax(work.logits(prompt.ids.len()).row(prompt.ids.len() - 1)) as u32;
                let mut greedy = vec![next];
                while greedy.len() < prompt.greedy.len() {
                    let step = [next];
                    let step = Step::new(&model, &step, &mut cache, Want::Last).expect("step");
                    next = argmax(model.forward(&mut [step], &mut work).row(0)) as u32;
                    greedy.push(next);
                }
                greedy.truncate(prompt.greedy.len());
                assert_eq!(greedy, prompt.greedy, "{}", what("greedy tokens"));
            }
        }
    }
}

#[derive(Deserialize)]
struct DemoExpected {
    prompts: Vec<DemoPrompt>,
    all_positions: usize,
}

#[derive(Deserialize)]
struct DemoPrompt {
    text: String,
    ids: Vec<u32>,
    greedy: Vec<u32>,
    greedy_text: String,
}

#[test]
fn the_demo_model_reads_and_writes_as_in_transformers() {
    let root = testdata().join("../..");
    let model = load(&root.join("models/demo"), Kernels::detect());
    let tokenizer = Tokenizer::from_directory(&root.join("models/demo")).expect("tokenizer");
    let json = std::fs::read(testdata().join("demo/expected.json")).expect("expected.json");
    let expected: DemoExpected = serde_json::from_slice(&json).expect("expected.json");
    let bytes = std::fs::read(testdata().join("demo/expected.safetensors")).expect("expected.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("expected.safetensors");
    assert!(expected.prompts.len() >= 5);
    for (index, prompt) in expected.prompts.iter().enumerate() {
        let ids = tokenizer.encode(&prompt.text, SpecialTokens::Parse).expect("ids");
        assert_eq!(ids, prompt.ids, "{:?}", prompt.text);
        let mut cache = KvCache::new(&model);
        let mut work = Workspace::new(&model, ids.len(), ids.len());
        let step = Step::new(&model, &ids, &mut cache, Want::All).expect("step");
        let logits = model.forward(&mut [step], &mut work);
        let last = tensor(&tensors, &format!("prompt{index}.last_logits"));
        assert_close(logits.row(ids.len() - 1), &last, &format!("{:?}, last logits", prompt.text));
        if index == expected.all_positions {
            let all: Vec<f32> = (0..ids.len()).flat_map(|row| logits.row(row).iter().copied()).collect();
            assert_close(&all, &tensor(&tensors, &format!("prompt{index}.logits")), "every position");
        }
        let settings = GenerationConfig {
            do_sample: Some(false),
            max_new_tokens: Some(prompt.greedy.len()),
            eos_token_id: Some(Vec::new()),
            ..GenerationConfig::notebook()
        };
        let generation = model.generate(&ids).config(settings).tokens().expect("generation");
        let greedy: Vec<u32> = generation.map(|token| token.expect("finite logits").id).collect();
        assert_eq!(greedy, prompt.greedy, "{:?}", prompt.text);
        let text = tokenizer.decode(&greedy, SpecialText::Skip).expect("text");
        assert_eq!(text, prompt.greedy_text);
    }
}
