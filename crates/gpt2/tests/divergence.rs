//! How far formats of weights are from `f32`, against probabilities computed one by one.

use std::path::Path;

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::divergence::{Divergence, DivergenceError, divergence};
use gpt2::model::{Formats, Model, Step, StepError, Want};
use gpt2::workspace::Workspace;
use gpt2_kernels::{Cpu, Kernels, WeightFormat};

/// A model of the golden files; `head-24` has 200 positions and 101 tokens.
fn model(case: &str, format: WeightFormat, threads: usize) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(case);
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    let cpu = Cpu::new(Kernels::detect(), threads);
    Model::load(cpu, config, &checkpoint, Formats::from(format), &mut |_, _| ()).expect("model")
}

fn text(length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + i * i % 11) % 101) as u32).collect()
}

/// The log-softmax of every position of a window.
fn log_probabilities(model: &Model, window: &[u32]) -> Vec<Vec<f64>> {
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, window.len(), window.len());
    let step = Step::new(model, window, &mut cache, Want::All).expect("step");
    let logits = model.forward(&mut [step], &mut work);
    (0..window.len())
        .map(|row| {
            let logits: Vec<f64> = logits.row(row).iter().map(|&x| f64::from(x)).collect();
            let normaliser = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            logits.into_iter().map(|x| x - normaliser).collect()
        })
        .collect()
}

fn best(row: &[f64]) -> usize {
    (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary")
}

/// The definition, word by word.
fn expected(reference: &Model, model: &Model, tokens: &[u32], window: usize) -> Divergence {
    let (mut kls, mut same) = (Vec::new(), 0);
    let mut logprobs = [0.0; 2];
    for window in tokens.chunks(window) {
        let both = [reference, model].map(|model| log_probabilities(model, window));
        for (position, &next) in window.iter().skip(1).enumerate() {
            let (p, q) = (&both[0][position], &both[1][position]);
            kls.push(p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
            same += usize::from(best(p) == best(q));
            logprobs[0] += p[next as usize];
            logprobs[1] += q[next as usize];
        }
    }
    let count = kls.len() as f64;
    let mean = kls.iter().sum::<f64>() / count;
    let squares: f64 = kls.iter().map(|kl| (kl - mean) * (kl - mean)).sum();
    Divergence {
        positions: kls.len(),
        mean,
        standard_error: squares.sqrt() / count,
        largest: kls.iter().copied().fold(0.0, f64::max),
        same_top_token: same,
        perplexity: (-logprobs[1] / count).exp(),
        reference_perplexity: (-logprobs[0] / count).exp(),
    }
}

#[test]
fn a_divergence_is_what_the_definition_says() {
    let reference = model("head-24", WeightFormat::F32, 2);
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        let model = model("head-24", format, 1);
        // Windows of one chunk and of several, whole and cut short, down to a last one of a single token.
        for (length, window) in [(150, 200), (230, 100), (261, 130), (129, 64), (2, 2)] {
            let tokens = text(length);
            let expected = expected(&reference, &model, &tokens, window);
            let found = divergence(&reference, &model, &tokens, window, &mut |_| ()).expect("divergence");
            let case = format!("{format:?}, {length} tokens in windows of {window}: {found:?}, {expected:?}");
            assert_eq!(
                (found.positions, found.same_top_token),
                (expected.positions, expected.same_top_token),
                "{case}"
            );
            assert!(found.mean > 0.0, "{case}");
            for (found, expected) in [
                (found.mean, expected.mean),
                (found.standard_error, expected.standard_error),
                (found.largest, expected.largest),
                (found.perplexity, expected.perplexity),
                (found.reference_perplexity, expected.reference_perplexity),
            ] {
                // Both are sums of hundreds of f64 terms of at most about ten: 1e-12 apart at most.
                assert!((found - expected).abs() < 1e-11 * expected.max(1.0), "{case}");
            }
        }
    }
}

#[test]
fn a_model_is_exactly_zero_from_itself() {
    for format in WeightFormat::ALL {
        let (one, other) = (model("head-24", format, 1), model("head-24", format, 2));
        let found = divergence(&one, &other, &text(300), 128, &mut |_| ()).expect("divergence");
        assert_eq!((found.mean, found.standard_error, found.largest), (0.0, 0.0, 0.0), "{format:?}");
        assert_eq!((found.positions, found.same_top_token), (297, 297));
        assert_eq!(found.perplexity.to_bits(), found.reference_perplexity.to_bits());
        assert_eq!(found.same_top_token_share(), 1.0);
    }
}

#[test]
fn progress_counts_the_tokens_of_whole_windows() {
    let model = model("head-24", WeightFormat::F32, 1);
    let mut done = Vec::new();
    divergence(&model, &model, &text(250), 100, &mut |count| done.push(count)).expect("divergence");
    assert_eq!(done, [100, 200, 250]);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let (one, other) =
        (model("head-24", WeightFormat::F32, 1), model("odd-vocabulary", WeightFormat::F32, 1));
    let compare = |model: &Model, tokens: &[u32]| divergence(&one, model, tokens, 50, &mut |_| ());
    for tokens in [0, 1] {
        assert_eq!(compare(&one, &text(tokens)), Err(DivergenceError::TooShort { tokens }));
    }
    let mut tokens = text(80);
    tokens[70] = 101;
    let token = StepError::Token { id: 101, index: 70, vocabulary: 101 };
    assert_eq!(compare(&one, &tokens), Err(DivergenceError::Step(token)));
    let vocabulary = other.config().vocab_size;
    assert_ne!(vocabulary, 101);
    let sizes = DivergenceError::Vocabulary { reference: 101, model: vocabulary };
    assert_eq!(compare(&other, &text(80)), Err(sizes));
}

#[test]
#[should_panic(expected = "a window of 201 in a context of 200")]
fn a_window_longer_than_the_context_is_a_mistake_of_the_caller() {
    let model = model("head-24", WeightFormat::F32, 1);
    let _ = divergence(&model, &model, &text(300), 201, &mut |_| ());
}
