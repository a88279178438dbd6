//! Beginnings that are kept change no bit, and are kept within bounds.

use std::path::Path;

use gpt2::cache::PrefixCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{GeneratedToken, GenerationConfig, Overflow};
use gpt2::model::{Formats, Model};
use gpt2_kernels::attention::CacheFormat;
use gpt2_kernels::{Cpu, Kernels, WeightFormat};
use proptest::prelude::*;

/// Positions in a block.
const BLOCK: usize = 64;

fn load(formats: Formats, threads: usize) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(Kernels::detect(), threads), config, &checkpoint, formats, &mut |_, _| ())
        .expect("model")
}

fn generate<'m>(
    model: &'m Model,
    prompt: &[u32],
    config: &GenerationConfig,
    prefixes: Option<&'m PrefixCache<'m>>,
) -> Vec<GeneratedToken> {
    let request = model.generate(prompt).config(config.clone());
    let request = match prefixes {
        Some(prefixes) => request.prefix_cache(prefixes),
        None => request,
    };
    request.tokens().expect("settings").map(|token| token.expect("a token")).collect()
}

fn text(length: usize, salt: u32) -> Vec<u32> {
    (0..length as u32).map(|i| (i * i * 7 + i * 3 + salt * 11) % 101).collect()
}

/// Texts that share so many tokens.
fn pair(shared: usize) -> [Vec<u32>; 2] {
    let [mut one, mut other] =
        [1, 2].map(|salt| text(shared, 0).into_iter().chain(text(20, salt)).collect::<Vec<_>>());
    one.truncate(180);
    other.truncate(180);
    [one, other]
}

fn settings() -> Vec<GenerationConfig> {
    let base =
        || GenerationConfig { max_new_tokens: Some(15), eos_token_id: Some(vec![]), ..Default::default() };
    let sampled = || GenerationConfig { do_sample: Some(true), seed: Some(3), ..base() };
    vec![
        base(),
        GenerationConfig { num_return_sequences: Some(3), ..sampled() },
        GenerationConfig { num_beams: Some(3), ..base() },
        GenerationConfig { overflow: Some(Overflow::Slide), max_new_tokens: Some(300), ..sampled() },
        GenerationConfig { guidance_scale: Some(1.5), ..base() },
        GenerationConfig { prompt_lookup_num_tokens: Some(4), ..sampled() },
        GenerationConfig { penalty_alpha: Some(0.6), top_k: Some(4), ..base() },
    ]
}

#[test]
fn a_beginning_that_is_kept_changes_no_bit() {
    let formats = [
        Formats::default(),
        Formats { cache: CacheFormat::F16, ..WeightFormat::Int8.into() },
        WeightFormat::Int4.into(),
    ];
    for formats in formats {
        for threads in [1, 2] {
            let model = load(formats, threads);
            for config in settings() {
                for shared in [0, 63, 64, 65, 128, 180] {
                    let prefixes = PrefixCache::new(&model, 1 << 30);
                    let [one, other] = pair(shared);
                    for prompt in [&one, &other, &one] {
                        let alone = generate(&model, prompt, &config, None);
                        let with = generate(&model, prompt, &config, Some(&prefixes));
                        assert!(alone == with, "{shared} {config:?}");
                    }
                    let whole = |tokens: usize| tokens / BLOCK * BLOCK;
                    let expected = match config.penalty_alpha {
                        Some(_) => 0,
                        None => whole(shared.min(other.len() - 1)) + whole(one.len() - 1),
                    };
                    assert_eq!(prefixes.stats().reused_tokens, expected, "{shared} {config:?}");
                }
            }
        }
    }
}

#[test]
fn a_text_goes_on_where_it_ended() {
    let model = load(Formats::default(), 2);
    let prefixes = PrefixCache::new(&model, 1 << 30);
    let config =
        GenerationConfig { max_new_tokens: Some(100), eos_token_id: Some(vec![]), ..Default::default() };
    let mut chat = text(40, 1);
    chat.extend(generate(&model, &chat, &config, Some(&prefixes)).iter().map(|token| token.id));
    assert_eq!(prefixes.stats().blocks, 2);
    // A caller's own end counts as any other.
    chat.extend(text(10, 2));
    let mut generation =
        model.generate(&chat).config(config).prefix_cache(&prefixes).tokens().expect("settings");
    assert_eq!(prefixes.stats().reused_tokens, 2 * BLOCK);
    for _ in 0..45 {
        generation.next().expect("a token").expect("a token");
    }
    generation.stop(0, gpt2::generate::FinishReason::Stop);
    assert!(generation.next().is_none());
    assert_eq!(prefixes.stats().blocks, 3);
}

#[test]
#[should_panic(expected = "another model")]
fn a_cache_of_another_model_is_refused() {
    let [one, other] = [load(Formats::default(), 1), load(Formats::default(), 1)];
    let prefixes = PrefixCache::new(&one, 1 << 30);
    let _ = other.generate(&[1]).prefix_cache(&prefixes);
}

#[test]
fn threads_may_share_one() {
    let model = load(Formats::default(), 2);
    let prefixes = PrefixCache::new(&model, 3 * block_bytes(&model));
    let config = settings().remove(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (model, prefixes, config) = (&model, &prefixes, &config);
            scope.spawn(move || {
                for round in 0..6 {
                    let [one, other] = pair([64, 128, 150][(thread + round) % 3]);
                    let prompt = if round % 2 == 0 { one } else { other };
                    let with = generate(model, &prompt, config, Some(prefixes));
                    assert!(with == generate(model, &prompt, config, None));
                    assert!(prefixes.stats().blocks <= 3);
                }
            });
        }
    });
}

fn block_bytes(model: &Model) -> usize {
    let prefixes = PrefixCache::new(model, 1 << 30);
    let config = GenerationConfig { max_new_tokens: Some(1), ..Default::default() };
    generate(model, &text(65, 0), &config, Some(&prefixes));
    assert_eq!(prefixes.stats().blocks, 1);
    prefixes.stats().bytes
}

/// The same without hashes: the texts of blocks that are kept, the last used last.
#[derive(Default)]
struct Plain {
    kept: Vec<Vec<u32>>,
    evicted: usize,
}

impl Plain {
    /// Begins a text: the number of tokens that are known, and these are used.
    fn begin(&mut self, text: &[u32]) -> usize {
        let blocks = (text.len() - 1) / BLOCK;
        let known = (0..=blocks).take_while(|&n| n == 0 || self.kept.contains(&text[..n * BLOCK].to_vec()));
        let known = known.last().unwrap_or(0);
        self.touch(text, known);
        known * BLOCK
    }

    /// What was used goes to the end; of one text the beginning was used no earlier than the rest.
    fn touch(&mut self, text: &[u32], blocks: usize) {
        let used: Vec<Vec<u32>> = (1..=blocks).map(|n| text[..n * BLOCK].to_vec()).collect();
        self.kept.retain(|kept| !used.contains(kept));
        self.kept.extend(used.into_iter().rev());
    }

    fn keep(&mut self, text: &[u32], most: usize) {
        let blocks = text.len() / BLOCK;
        let known = (1..=blocks).take_while(|n| self.kept.contains(&text[..n * BLOCK].to_vec())).count();
        self.touch(text, known);
        for n in known + 1..=blocks {
            if self.kept.len() >= most {
                let follows = |end: &[u32]| {
                    self.kept.iter().any(|other| other.len() > end.len() && other.starts_with(end))
                };
                let free = |end: &[u32]| !follows(end) && !text.starts_with(end);
                let Some(oldest) = self.kept.iter().position(|kept| free(kept)) else { return };
                self.kept.remove(oldest);
                self.evicted += 1;
            }
            self.kept.push(text[..n * BLOCK].to_vec());
            self.touch(text, n);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_was_used_last_is_kept_and_never_too_much(
        most in 0usize..6,
        texts in proptest::collection::vec((0u32..3, 0usize..3, 0u32..3, 1usize..199), 1..25),
    ) {
        let model = load(Formats::default(), 1);
        let size = block_bytes(&model);
        let prefixes = PrefixCache::new(&model, most * size + size / 2);
        let config = GenerationConfig { max_new_tokens: Some(1), ..Default::default() };
        let (mut plain, mut reused) = (Plain::default(), 0);
        for (first, shared, second, length) in texts {
            let mut prompt: Vec<u32> = text(shared * BLOCK, first).into_iter().chain(text(200, second)).collect();
            prompt.truncate(length);
            generate(&model, &prompt, &config, Some(&prefixes));
            reused += plain.begin(&prompt);
            plain.keep(&prompt, most);
            let stats = prefixes.stats();
            prop_assert_eq!((stats.reused_tokens, stats.blocks, stats.evicted_blocks), (reused, plain.kept.len(), plain.evicted));
            prop_assert!(stats.bytes <= most * size);
        }
        prefixes.clear();
        prop_assert_eq!(prefixes.stats().blocks, 0);
    }
}
