//! `gpt2 bench --processors-table`: what it costs to choose a token from its logits.
//!
//! No model is needed: the logits are drawn, as many as GPT-2 has tokens and spread as its own are, and the text so far
//! is 200 tokens long. A time is one thread's for all of it: copying the logits, the chain of processors, and the choice.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use gpt2::generate::{Chain, GenerationConfig, Setup};
use gpt2::process::{Context, Scores};
use gpt2::sample::Sampler;
use serde::Serialize;

use super::{Figures, seconds};
use crate::failure::Failure;
use crate::terminal::{DIM, Terminal};

/// Tokens of GPT-2's vocabulary.
const VOCABULARY: usize = 50_257;
/// Tokens of the text so far, and those of them that are the prompt's.
const TEXT: usize = 200;
const PROMPT: usize = 50;
/// Choices that are timed.
const CHOICES: usize = 200;

/// One line of the table.
#[derive(Serialize)]
struct Cell {
    settings: &'static str,
    /// Of one choice: the median, the lowest and the highest.
    seconds: f64,
    seconds_range: [f64; 2],
}

/// Measures and shows the table, line by line.
pub(super) fn run(json: bool, terminal: &mut Terminal) -> Result<(), Failure> {
    let dim = terminal.output.style(DIM);
    let out = &mut terminal.output;
    if !json {
        writeln!(out, "choosing one of {VOCABULARY} tokens, one thread")?;
        writeln!(out, "{dim}medians of {CHOICES} choices, the lowest and the highest{dim:#}")?;
        writeln!(out)?;
    }
    let logits = logits();
    for (settings, config) in cases() {
        let Figures { median, range } = measure(&config, &logits);
        if json {
            out.json(&Cell { settings, seconds: median, seconds_range: range })?;
        } else {
            let micro = |seconds: f64| format!("{:.1}", 1e6 * seconds);
            let [least, most] = range.map(micro);
            writeln!(out, "{settings:<44} {:>8} µs {dim}{least} to {most}{dim:#}", micro(median))?;
            out.flush()?;
        }
    }
    Ok(())
}

/// What is measured: choices without processors, what is usual, all together, and each processor beside sampling.
fn cases() -> Vec<(&'static str, GenerationConfig)> {
    let greedy = GenerationConfig { do_sample: Some(false), ..GenerationConfig::default() };
    let sampling = GenerationConfig {
        do_sample: Some(true),
        top_k: Some(0),
        seed: Some(1),
        ..GenerationConfig::default()
    };
    let usual =
        GenerationConfig { temperature: Some(0.7), top_k: Some(50), top_p: Some(0.95), ..sampling.clone() };
    let all = GenerationConfig {
        min_p: Some(0.02),
        typical_p: Some(0.95),
        top_h: Some(0.9),
        epsilon_cutoff: Some(1e-4),
        eta_cutoff: Some(1e-4),
        xtc_probability: Some(0.5),
        top_n_sigma: Some(3.0),
        repetition_penalty: Some(1.1),
        encoder_repetition_penalty: Some(1.1),
        frequency_penalty: Some(0.1),
        presence_penalty: Some(0.1),
        dry_multiplier: Some(0.8),
        dry_sequence_breakers: Some(Vec::new()),
        no_repeat_ngram_size: Some(3),
        encoder_no_repeat_ngram_size: Some(3),
        sequence_bias: Some(vec![(vec![7], 1.0)]),
        bad_words_ids: Some(vec![vec![5], vec![1, 2]]),
        min_new_tokens: Some(3),
        suppress_tokens: Some(vec![9]),
        remove_invalid_values: Some(true),
        renormalize_logits: Some(true),
        ..usual.clone()
    };
    let with = |change: fn(&mut GenerationConfig)| {
        let mut config = sampling.clone();
        change(&mut config);
        config
    };
    vec![
        ("greedy", greedy),
        ("sampling", sampling.clone()),
        ("temperature 0.7, top_k 50, top_p 0.95", usual),
        ("all of transformers' and more", all),
        ("temperature 0.7", with(|config| config.temperature = Some(0.7))),
        ("top_k 50", with(|config| config.top_k = Some(50))),
        ("top_p 0.95", with(|config| config.top_p = Some(0.95))),
        ("min_p 0.05", with(|config| config.min_p = Some(0.05))),
        ("typical_p 0.95", with(|config| config.typical_p = Some(0.95))),
        ("top_h 0.5", with(|config| config.top_h = Some(0.5))),
        ("epsilon_cutoff 3e-4", with(|config| config.epsilon_cutoff = Some(3e-4))),
        ("eta_cutoff 3e-4", with(|config| config.eta_cutoff = Some(3e-4))),
        ("top_n_sigma 1", with(|config| config.top_n_sigma = Some(1.0))),
        ("xtc_probability 0.5", with(|config| config.xtc_probability = Some(0.5))),
        ("mirostat 1", with(|config| config.mirostat = Some(1))),
        ("mirostat 2", with(|config| config.mirostat = Some(2))),
        ("temperature 0.7 ± 0.3 (dynatemp_range)", with(|config| config.dynatemp_range = Some(0.3))),
        ("repetition_penalty 1.1", with(|config| config.repetition_penalty = Some(1.1))),
        ("frequency_penalty 0.1", with(|config| config.frequency_penalty = Some(0.1))),
        ("dry_multiplier 0.8", {
            let breakers = Some(Vec::new());
            GenerationConfig {
                dry_multiplier: Some(0.8),
                dry_sequence_breakers: breakers,
                ..sampling.clone()
            }
        }),
        ("no_repeat_ngram_size 3", with(|config| config.no_repeat_ngram_size = Some(3))),
        ("renormalize_logits", with(|config| config.renormalize_logits = Some(true))),
    ]
}

/// Scores that are spread like a model's: sums of twelve even ones, which is nearly a normal distribution.
fn logits() -> Vec<f32> {
    let mut state = 1u32;
    let mut even = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..VOCABULARY).map(|_| 2.5 * ((0..12).map(|_| even()).sum::<f32>() - 6.0) - 33.0).collect()
}

/// Chooses from the same scores again and again.
fn measure(config: &GenerationConfig, logits: &[f32]) -> Figures {
    let text: Vec<u32> = (0..TEXT).map(|index| (index * 7919 % VOCABULARY) as u32).collect();
    let context = Context { tokens: &text, prompt: PROMPT, ..Context::default() };
    let setup =
        Setup { eos_token_ids: &[50256], total_tokens: 1024, vocabulary: VOCABULARY, tokenizer: None };
    let mut chain = Chain::new(config, &setup).expect("settings that are written here");
    let mut sampler = Sampler::new(config);
    let mut scores = Scores::with_capacity(VOCABULARY);
    let choose = |position: usize| {
        let begin = Instant::now();
        scores.set(black_box(logits));
        chain.process(&context, &mut scores);
        let token = sampler.choose(&scores, 0, position).expect("scores that are numbers");
        let time = begin.elapsed();
        black_box(token);
        seconds(time)
    };
    // The first ones make room, and are not counted.
    Figures::of((TEXT..TEXT + 10 + CHOICES).map(choose).skip(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_table_chooses_a_token() {
        let logits = logits();
        for (name, config) in cases() {
            config.check().expect(name);
            assert_eq!(config.without_effect(), [], "{name}");
            assert!(measure(&config, &logits).median > 0.0, "{name}");
        }
    }
}
