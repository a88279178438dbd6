//! The law: the same bits whatever the route.
//!
//! For given weights, tokens and seed nothing else may change a bit: the row of the kernel table,
//! the number of threads, the chunks a prompt is fed in, the other sequences of a batch, forks,
//! truncation. All comparisons are of bits.

use std::path::{Path, PathBuf};

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{GeneratedToken, GenerationConfig};
use gpt2::model::{Formats, Model, Step, Want};
use gpt2::workspace::Workspace;
use gpt2_kernels::attention::CacheFormat;
use gpt2_kernels::{Cpu, Kernels, WeightFormat};
use proptest::prelude::*;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(case)
}

/// Every format of weights with its usual cache, and other caches with some of them.
fn formats() -> impl Iterator<Item = Formats> {
    let [f32, f16, int8] = CacheFormat::ALL;
    let others = [
        (WeightFormat::F32, f16),
        (WeightFormat::F32, int8),
        (WeightFormat::Int8, f32),
        (WeightFormat::Int4, f16),
    ];
    let others = others.map(|(weights, cache)| Formats { weights, cache });
    WeightFormat::ALL.map(Formats::from).into_iter().chain(others)
}

fn load(case: &str, formats: Formats, kernels: &'static Kernels, threads: usize) -> Model {
    let folder = golden(case);
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(kernels, threads), config, &checkpoint, formats, &mut |_, _| ()).expect("model")
}

fn fastest(case: &str, formats: Formats) -> Model {
    load(case, formats, Kernels::detect(), 2)
}

fn tokens(count: usize, salt: usize, model: &Model) -> Vec<u32> {
    (0..count).map(|i| ((i * 31 + salt * 17 + i * i % 7) % model.config().vocab_size) as u32).collect()
}

/// The bits of the logits of every position, the text fed in pieces of the given sizes.
fn logits(model: &Model, text: &[u32], pieces: &[usize]) -> Vec<Vec<u32>> {
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, text.len(), text.len());
    let mut rest = text;
    let mut rows = Vec::new();
    for &size in pieces {
        let (piece, after) = rest.split_at(size);
        feed(model, &mut cache, &mut work, piece, &mut rows);
        rest = after;
    }
    assert!(rest.is_empty(), "the pieces make up the text");
    rows
}

fn feed(model: &Model, cache: &mut KvCache, work: &mut Workspace, piece: &[u32], rows: &mut Vec<Vec<u32>>) {
    let step = Step::new(model, piece, cache, Want::All).expect("step");
    let logits = model.forward(&mut [step], work);
    rows.extend((0..piece.len()).map(|row| logits.row(row).iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
}

#[test]
fn logits_do_not_depend_on_instruction_set_threads_or_chunks() {
    let f32 = ["head-24", "head-80", "upcast", "act-gelu", "act-tanh"].map(|case| (case, Formats::default()));
    let others = formats().skip(1).map(|formats| ("head-24", formats));
    for (case, formats) in f32.into_iter().chain(others) {
        let scalar = load(case, formats, Kernels::by_name("scalar").expect("scalar"), 1);
        let count = scalar.config().n_positions.min(130);
        let text = tokens(count, 1, &scalar);
        let expected = logits(&scalar, &text, &[count]);
        assert_ne!(expected[0], expected[1], "logits that never change prove nothing");
        for kernels in Kernels::available() {
            for threads in [1, 2, 5] {
                let model = load(case, formats, kernels, threads);
                for pieces in [vec![count], vec![1; count], vec![7, 1, count - 11, 3]] {
                    let what = format!(
                        "{case} {formats:?} {} {threads} threads {} pieces",
                        kernels.name(),
                        pieces.len()
                    );
                    assert!(logits(&model, &text, &pieces) == expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_sequence_in_a_batch_is_as_if_alone() {
    formats().for_each(in_a_batch_as_if_alone);
}

fn in_a_batch_as_if_alone(formats: Formats) {
    let model = fastest("head-24", formats);
    let texts: Vec<Vec<u32>> = [1, 64, 13, 100, 2, 65].iter().map(|&n| tokens(n, n, &model)).collect();
    let alone: Vec<_> = texts.iter().map(|text| logits(&model, text, &[text.len()])).collect();

    // Prefill together, then 20 more tokens for each, one at a time, together.
    let total = texts.iter().map(Vec::len).sum();
    let mut work = Workspace::new(&model, total, total);
    let mut caches: Vec<_> = texts.iter().map(|_| KvCache::new(&model)).collect();
    let steps = texts.iter().zip(&mut caches).map(|(text, cache)| Step::new(&model, text, cache, Want::All));
    let mut steps: Vec<_> = steps.collect::<Result<_, _>>().expect("steps");
    let together = model.forward(&mut steps, &mut work);
    let mut row = 0;
    for alone in &alone {
        for expected in alone {
            let bits: Vec<u32> = together.row(row).iter().map(|x| x.to_bits()).collect();
            assert!(bits == *expected, "row {row}");
            row += 1;
        }
    }
    for i in 0..20 {
        let next: Vec<Vec<u32>> = texts.iter().map(|text| tokens(1, text.len() + i, &model)).collect();
        let mut single = caches.clone();
        let steps =
            next.iter().zip(&mut caches).map(|(token, cache)| Step::new(&model, token, cache, Want::Last));
        let mut steps: Vec<_> = steps.collect::<Result<_, _>>().expect("steps");
        let together = model.forward(&mut steps, &mut work);
        let together: Vec<Vec<u32>> =
            (0..texts.len()).map(|row| together.row(row).iter().map(|x| x.to_bits()).collect()).collect();
        for (index, (token, cache)) in next.iter().zip(&mut single).enumerate() {
            let mut rows = Vec::new();
            feed(&model, cache, &mut work, token, &mut rows);
            assert!(rows[0] == together[index], "sequence {index}, token {i}");
        }
    }
}

#[test]
fn wanting_fewer_logits_changes_none() {
    let model = fastest("n-inner", WeightFormat::Int8.into());
    let text = tokens(20, 3, &model);
    let all = logits(&model, &text, &[20]);
    let mut work = Workspace::new(&model, 20, 20);
    let (mut quiet, mut last) = (KvCache::new(&model), KvCache::new(&model));
    let steps = [
        Step::new(&model, &text[..19], &mut quiet, Want::Nothing).expect("step"),
        Step::new(&model, &text[..1], &mut last, Want::Last).expect("step"),
    ];
    let found = model.forward(&mut { steps }, &mut work);
    assert_eq!(found.count(), 1);
    assert!(found.row(0).iter().map(|x| x.to_bits()).eq(all[0].iter().copied()));
    let mut rows = Vec::new();
    feed(&model, &mut quiet, &mut work, &text[19..], &mut rows);
    assert!(rows[0] == all[19]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any history of appending, truncating and forking leaves the cache as if only what it holds
    /// had ever been fed.
    #[test]
    fn a_cache_forgets_without_a_trace(history in prop::collection::vec((0usize..4, 1usize..70), 1..8)) {
        let model = fastest("head-24", WeightFormat::Int4.into());
        let mut work = Workspace::new(&model, 70, 70);
        let mut caches = vec![(KvCache::new(&model), Vec::<u32>::new())];
        for (i, (kind, size)) in history.into_iter().enumerate() {
            let which = size % caches.len();
            let (cache, text) = &mut caches[which];
            match kind {
                0 => {
                    let length = size % (text.len() + 1);
                    cache.truncate(length);
                    text.truncate(length);
                }
                1 => {
                    let fork = (cache.fork(), text.clone());
                    caches.push(fork);
                }
                _ => {
                    let piece = tokens(size.min(cache.room() - 1), i, &model);
                    if !piece.is_empty() {
                        feed(&model, cache, &mut work, &piece, &mut Vec::new());
                        text.extend(piece);
                    }
                }
            }
        }
        for (mut cache, text) in caches {
            prop_assert_eq!(cache.len(), text.len());
            let probe = [5u32];
            let mut rows = Vec::new();
            feed(&model, &mut cache, &mut work, &probe, &mut rows);
            let whole: Vec<u32> = text.iter().copied().chain(probe).collect();
            let expected = logits(&model, &whole, &[whole.len()]);
            prop_assert!(rows[0] == expected[text.len()]);
        }
    }
}

fn generate(model: &Model, prompt: &[u32], settings: &GenerationConfig) -> Vec<GeneratedToken> {
    let generation = model.generate(prompt).config(settings.clone()).tokens().expect("generation");
    generation.collect::<Result<_, _>>().expect("finite logits")
}

#[test]
fn sampled_tokens_do_not_depend_on_machine_or_company() {
    formats().for_each(sampled_tokens_are_the_same);
}

fn sampled_tokens_are_the_same(formats: Formats) {
    let settings = GenerationConfig {
        seed: Some(7),
        temperature: Some(1.3),
        top_k: Some(20),
        max_new_tokens: Some(60),
        num_return_sequences: Some(3),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::notebook()
    };
    let model = fastest("head-24", formats);
    let prompt = tokens(70, 9, &model);
    let expected = generate(&model, &prompt, &settings);
    assert_eq!(expected.len(), 180);
    let sequence = |tokens: &[GeneratedToken], index: usize| -> Vec<(u32, u32)> {
        tokens.iter().filter(|t| t.sequence == index).map(|t| (t.id, t.logprob.to_bits())).collect()
    };
    assert_ne!(sequence(&expected, 0), sequence(&expected, 1), "sequences differ");
    for kernels in Kernels::available() {
        for threads in [1, 2] {
            let other = load("head-24", formats, kernels, threads);
            assert_eq!(generate(&other, &prompt, &settings), expected, "{} {threads}", kernels.name());
        }
    }
    // The first sequence is the same when it is the only one.
    let alone =
        generate(&model, &prompt, &GenerationConfig { num_return_sequences: Some(1), ..settings.clone() });
    assert_eq!(sequence(&alone, 0), sequence(&expected, 0));
    let other_seed = generate(&model, &prompt, &GenerationConfig { seed: Some(8), ..settings });
    assert_ne!(sequence(&other_seed, 0), sequence(&expected, 0), "the seed matters");
}
