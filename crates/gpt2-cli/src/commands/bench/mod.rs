//! `gpt2 bench`: how fast a model runs, and how much of the machine that is.
//!
//! Prompts come from the linear congruential generator that the comparison with other programs uses too,
//! so that tokens can be compared.
//!
//! What memory gives moves within minutes where a machine is shared. So it is measured before every repetition and
//! after the last, on the very bytes that decoding reads: the model's own matrices, in the order of a token.

mod kernels;
mod processors;

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gpt2::cache::KvCache;
use gpt2::config::Config;
use gpt2::logits::{Logits, argmax};
use gpt2::model::{Model, Step, Want};
use gpt2::workspace::Workspace;
use gpt2_kernels::{Matrix, limits};
use serde::Serialize;

use super::Format;
use crate::arguments::{Options, at_most, positive};
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::terminal::{DIM, Terminal};

/// Measure the speed of a model on this machine.
///
/// Random prompts are read, then tokens are generated greedily, past end-of-text tokens. Figures are medians over the
/// repetitions, with the lowest and the highest. Between the repetitions all threads read the weights that a token needs,
/// which gives the memory bandwidth of the machine. The output hash covers all generated tokens: equal hashes mean equal
/// tokens.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Number of tokens in each prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive, allow_negative_numbers = true)]
    prompt_tokens: usize,
    /// Number of tokens to generate for each prompt
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive, allow_negative_numbers = true)]
    new_tokens: usize,
    /// Number of prompts to continue together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(1024), allow_negative_numbers = true)]
    batch: usize,
    /// Number of measurements
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_most(1000), allow_negative_numbers = true)]
    repetitions: usize,
    /// Measure the kernels instead, without a model: every weight format at every matrix shape of a GPT-2
    ///
    /// Takes a minute or two on an idle machine. `--threads` and `--kernels` apply.
    #[arg(long, conflicts_with_all = ["prompt_tokens", "new_tokens", "batch", "repetitions"])]
    kernels_table: bool,
    /// Size of GPT-2 whose matrix shapes `--kernels-table` measures
    #[arg(long, value_enum, default_value_t = kernels::Size::Small, requires = "kernels_table")]
    size: kernels::Size,
    /// Measure instead how long each sampler and processor takes to choose a token, without a model
    #[arg(long, conflicts_with_all = ["kernels_table", "prompt_tokens", "new_tokens", "batch", "repetitions"])]
    processors_table: bool,
    #[command(flatten)]
    format: Format,
}

/// Tokens of a prompt that go through the model together, as in generation.
const CHUNK: usize = 512;

/// The figures.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    dtype: &'a str,
    kv_dtype: &'a str,
    kernels: &'a str,
    threads: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    batch: usize,
    repetitions: usize,
    load_s: f64,
    prefill_tokens_per_second: f64,
    prefill_tokens_per_second_range: [f64; 2],
    /// None for a single new token: that one comes with the prompt.
    decode_tokens_per_second: Option<f64>,
    decode_tokens_per_second_range: Option<[f64; 2]>,
    /// The weights that decoding reads, by the time it takes.
    gigabytes_per_second: Option<f64>,
    /// The same weights, by the time it takes to read them and do nothing else.
    machine_gigabytes_per_second: f64,
    machine_gigabytes_per_second_range: [f64; 2],
    bandwidth_share: Option<f64>,
    peak_rss_mib: Option<f64>,
    output_hash: String,
    /// The first generated tokens of the first prompt.
    tokens: &'a [u32],
}

/// Tokens that are shown.
const SHOWN: usize = 8;

/// Measures and shows the figures.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    if arguments.kernels_table {
        return kernels::run(arguments.format.json, arguments.size, options, terminal);
    }
    if arguments.processors_table {
        return processors::run(arguments.format.json, terminal);
    }
    let files = ModelFiles::find(options, terminal)?;
    check(arguments, &files.config()?)?;
    let begin = Instant::now();
    files.say_remarks(terminal);
    let model = files.load_model(options, terminal)?;
    let load_s = begin.elapsed().as_secs_f64();

    // One more, not counted: it brings caches, clock and memory into their steady state.
    measure(&model, arguments);
    let mut runs = Vec::new();
    let mut reads = vec![read_speed(&model)];
    for _ in 0..arguments.repetitions {
        runs.push(measure(&model, arguments));
        reads.push(read_speed(&model));
    }

    let Arguments { prompt_tokens, new_tokens, batch, repetitions, .. } = *arguments;
    let prompts = (batch * prompt_tokens) as f64;
    let prefill = Figures::of(runs.iter().map(|run| prompts / run.prefill));
    let passes = (new_tokens - 1) as f64;
    let decode = (new_tokens > 1).then(|| Figures::of(runs.iter().map(|run| passes / run.decode)));
    let bytes = model.weights().bytes_per_token() as f64;
    let gigabytes_per_second = decode.as_ref().map(|decode| decode.median * bytes / 1e9);
    let machine = Figures::of(reads.into_iter().map(|speed| speed / 1e9));
    let batch_rate = |rate: f64| rate * batch as f64;
    let formats = options.formats();
    let record = Record {
        model: &files.name,
        dtype: formats.weights.name(),
        kv_dtype: formats.cache.name(),
        kernels: model.cpu().kernels.name(),
        threads: model.cpu().pool.threads(),
        prompt_tokens,
        new_tokens,
        batch,
        repetitions,
        load_s,
        prefill_tokens_per_second: prefill.median,
        prefill_tokens_per_second_range: prefill.range,
        decode_tokens_per_second: decode.as_ref().map(|decode| batch_rate(decode.median)),
        decode_tokens_per_second_range: decode.as_ref().map(|decode| decode.range.map(batch_rate)),
        gigabytes_per_second,
        machine_gigabytes_per_second: machine.median,
        machine_gigabytes_per_second_range: machine.range,
        bandwidth_share: gigabytes_per_second.map(|speed| speed / machine.median),
        peak_rss_mib: peak_memory_mib(),
        output_hash: format!("{:016x}", runs[0].hash),
        tokens: &runs[0].tokens,
    };
    if arguments.format.json {
        return Ok(terminal.output.json(&record)?);
    }
    show(&record, terminal)
}

fn check(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let Arguments { prompt_tokens, new_tokens, .. } = *arguments;
    // The last token is not fed back.
    if prompt_tokens.saturating_add(new_tokens) > config.n_positions + 1 {
        return Err(Failure::usage(format!(
            "{prompt_tokens} prompt tokens and {new_tokens} new ones do not fit into the model's context of {}",
            config.n_positions
        )));
    }
    Ok(())
}

fn show(record: &Record<'_>, terminal: &mut Terminal) -> Result<(), Failure> {
    let dim = terminal.output.style(DIM);
    let out = &mut terminal.output;
    let Record {
        model,
        dtype,
        kv_dtype,
        kernels,
        threads,
        prompt_tokens,
        new_tokens,
        batch,
        repetitions,
        ..
    } = record;
    let plural = if *threads == 1 { "" } else { "s" };
    writeln!(
        out,
        "{model}, {dtype}, keys and values in {kv_dtype}, {kernels} kernels, {threads} thread{plural}"
    )?;
    writeln!(
        out,
        "{dim}{batch} × {prompt_tokens} prompt tokens, {new_tokens} new tokens, median of {repetitions}{dim:#}"
    )?;
    writeln!(out)?;
    writeln!(out, "load        {:>10.2} s", record.load_s)?;
    let range = |[least, most]: [f64; 2]| match *repetitions {
        1 => String::new(),
        _ => format!(" {dim}{least:.1} to {most:.1}{dim:#}"),
    };
    let prefill = record.prefill_tokens_per_second;
    writeln!(out, "prefill     {prefill:>10.1} tokens/s{}", range(record.prefill_tokens_per_second_range))?;
    if let (Some(decode), Some(least_and_most)) =
        (record.decode_tokens_per_second, record.decode_tokens_per_second_range)
    {
        writeln!(out, "decode      {decode:>10.1} tokens/s{}", range(least_and_most))?;
    }
    if let (Some(speed), Some(share)) = (record.gigabytes_per_second, record.bandwidth_share) {
        let machine = record.machine_gigabytes_per_second;
        writeln!(
            out,
            "weights     {speed:>10.1} GB/s {dim}{:.0} % of the {machine:.1} GB/s this machine reads{dim:#}",
            100.0 * share
        )?;
    }
    if let Some(mib) = record.peak_rss_mib {
        writeln!(out, "peak memory {mib:>10.1} MiB")?;
    }
    writeln!(out, "output hash {:>16}", record.output_hash)?;
    Ok(())
}

/// One measurement.
struct Run {
    /// Seconds for all prompts.
    prefill: f64,
    /// Seconds for all tokens but the first of each sequence.
    decode: f64,
    hash: u64,
    /// The first of the first prompt's.
    tokens: Vec<u32>,
}

/// Runs every prompt through the model, then generates greedily.
fn measure(model: &Model, arguments: &Arguments) -> Run {
    let Arguments { prompt_tokens, new_tokens, batch, .. } = *arguments;
    let prompts: Vec<Vec<u32>> = (0..batch)
        .map(|index| prompt(prompt_tokens, prompt_seed(index, batch), model.config().vocab_size))
        .collect();
    let mut caches: Vec<KvCache> = prompts.iter().map(|_| KvCache::new(model)).collect();
    // Short prompts go through the model together, long ones in chunks.
    let together = (CHUNK / prompt_tokens).clamp(1, batch);
    let mut work = Workspace::new(model, (together * prompt_tokens).min(CHUNK).max(batch), batch);
    let mut tokens: Vec<Vec<u32>> = vec![Vec::with_capacity(new_tokens); batch];

    let begin = Instant::now();
    for (first, caches) in (0..).step_by(together).zip(caches.chunks_mut(together)) {
        for start in (0..prompt_tokens).step_by(CHUNK) {
            let end = prompt_tokens.min(start + CHUNK);
            let want = if end == prompt_tokens { Want::Last } else { Want::Nothing };
            let steps = caches.iter_mut().zip(&prompts[first..]);
            let mut steps: Vec<Step<'_>> =
                steps.map(|(cache, prompt)| step(model, &prompt[start..end], cache, want)).collect();
            let logits = model.forward(&mut steps, &mut work);
            likeliest(model, &logits).into_iter().zip(&mut tokens[first..]).for_each(|(id, to)| to.push(id));
        }
    }
    let prefill = begin.elapsed();

    let begin = Instant::now();
    for _ in 1..new_tokens {
        let mut steps: Vec<Step<'_>> = caches
            .iter_mut()
            .zip(&tokens)
            .map(|(cache, tokens)| step(model, &tokens[tokens.len() - 1..], cache, Want::Last))
            .collect();
        let logits = model.forward(&mut steps, &mut work);
        likeliest(model, &logits).into_iter().zip(&mut tokens).for_each(|(id, to)| to.push(id));
    }
    let decode = begin.elapsed();
    let hash = fnv(tokens.iter().flatten().flat_map(|token| token.to_le_bytes()));
    let mut tokens = tokens.swap_remove(0);
    tokens.truncate(SHOWN);
    Run { prefill: seconds(prefill), decode: seconds(decode), hash, tokens }
}

/// The likeliest token of every row.
fn likeliest(model: &Model, logits: &Logits<'_>) -> Vec<u32> {
    let tokens: Vec<AtomicU32> = (0..logits.count()).map(|_| AtomicU32::new(0)).collect();
    model.cpu().pool.run(tokens.len(), |row, _| {
        tokens[row].store(argmax(logits.row(row)) as u32, Ordering::Relaxed);
    });
    tokens.into_iter().map(AtomicU32::into_inner).collect()
}

fn step<'a>(model: &Model, tokens: &'a [u32], cache: &'a mut KvCache, want: Want) -> Step<'a> {
    Step::new(model, tokens, cache, want).expect("lengths were checked, and tokens are of the vocabulary")
}

/// The seed of a prompt: 1 for a single one, from 11 on for several, as in the comparison.
fn prompt_seed(index: usize, batch: usize) -> u32 {
    if batch == 1 { 1 } else { 11 + index as u32 }
}

/// Random tokens, the last of the vocabulary (for GPT-2: end of text) not among them.
fn prompt(length: usize, seed: u32, vocabulary: usize) -> Vec<u32> {
    let choices = u32::try_from(vocabulary - 1).unwrap_or(u32::MAX).max(1);
    let mut state = seed.wrapping_mul(2_654_435_761);
    let token = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % choices
    };
    std::iter::repeat_with(token).take(length).collect()
}

/// The 64-bit hash of Fowler, Noll and Vo, variant 1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What several measurements of one thing gave.
struct Figures {
    median: f64,
    /// The lowest and the highest.
    range: [f64; 2],
}

impl Figures {
    /// # Panics
    /// Panics if there are none.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, range: [values[0], values[values.len() - 1]] }
    }
}

/// Bytes that all threads together read in a second, where they do nothing but read the weights of a token, some
/// times over. So a model that fits in a cache is measured against that cache.
fn read_speed(model: &Model) -> f64 {
    /// Bytes that take long enough to be timed.
    const ENOUGH: usize = 1 << 28;
    let matrices: Vec<&[u8]> = model.weights().matrices().map(Matrix::as_bytes).collect();
    let bytes = model.weights().bytes_per_token();
    let passes = (ENOUGH / bytes.max(1)).clamp(4, 256);
    let begin = Instant::now();
    for _ in 0..passes {
        std::hint::black_box(limits::read(model.cpu(), &matrices));
    }
    (passes * bytes) as f64 / seconds(begin.elapsed())
}

/// A time that can be divided by.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-9)
}

/// The most memory this process had at once, where the system tells (Linux).
fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_those_of_the_comparison() {
        assert_eq!(prompt(4, 1, 50257), [4807, 39947, 15460, 10375]);
        assert!(prompt(100, 3, 1).iter().all(|token| *token == 0));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv("foobar".bytes()), 0x85944171f73967e8);
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        let figures = Figures::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!((figures.median, figures.range), (2.0, [1.0, 3.0]));
        let figures = Figures::of([4.0, 1.0].into_iter());
        assert_eq!((figures.median, figures.range), (2.5, [1.0, 4.0]));
        assert_eq!(Figures::of([7.0].into_iter()).range, [7.0, 7.0]);
    }
}
