//! The texts that transformers draws with torch's generator: `testdata/golden/seeds`.

use std::path::Path;

use gpt2::generate::{GenerationConfig, Rng};
use gpt2::model::Formats;
use gpt2::pretrained::Pretrained;
use gpt2_kernels::{Cpu, Kernels};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    prompt: Vec<u32>,
    seed: u64,
    settings: GenerationConfig,
    /// By how much the closest draw was decided, of the largest quotient. Rounding moves one by 1e-6 at most.
    margin: f64,
    sequences: Vec<Vec<u32>>,
}

#[test]
fn a_seed_gives_the_text_that_transformers_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let json = std::fs::read(root.join("testdata/golden/seeds/expected.json")).expect("expected.json");
    let expected: Expected = serde_json::from_slice(&json).expect("expected.json");
    let cpu = Cpu::new(Kernels::detect(), 2);
    let gpt2 = Pretrained::from_directory(root.join("models/demo"), cpu, Formats::default())
        .expect("the demo model");
    assert!(expected.runs.len() >= 60);
    for (index, run) in expected.runs.iter().enumerate() {
        let request =
            gpt2.model.generate(&run.prompt).tokenizer(&gpt2.tokenizer).config(run.settings.clone());
        let request = request.do_sample(true).seed(run.seed).with(|config| config.rng = Some(Rng::Torch));
        let completions = request.run().unwrap_or_else(|error| panic!("run {index}: {error}"));
        let found: Vec<Vec<u32>> = completions.into_iter().map(|completion| completion.tokens).collect();
        assert_eq!(found, run.sequences, "run {index}, margin {}: {:?}", run.margin, run.settings);
    }
}
