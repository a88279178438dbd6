//! rten, on the `plain` ONNX models that prepare_onnx.py writes: same arguments, same work and same line of
//! JSON as the peers in Python (`measurement.py` says what the figures are).
//!
//! `--model` is the folder, `--variant` the name of a file in it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::time::Instant;

use rten::{Model, ModelOptions, NodeId, Value, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

const PROMPT: usize = 32;
const DECODED: usize = 128;
const BATCH_NEW: usize = 64;

/// rten reads the number of its threads from here, so this program starts itself once more to set it.
const THREADS_VARIABLE: &str = "RTEN_NUM_THREADS";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str, default: &str| {
        let position = arguments.iter().position(|argument| argument == name);
        position.and_then(|position| arguments.get(position + 1)).map_or(default, String::as_str).to_owned()
    };
    let number = |name: &str, default: &str| option(name, default).parse::<usize>().expect(name);
    let numbers = |name: &str, default: &str| -> Vec<usize> {
        option(name, default).split(',').filter_map(|number| number.parse().ok()).collect()
    };
    let threads = option("--threads", "2");
    if std::env::var(THREADS_VARIABLE).ok().as_deref() != Some(&threads) {
        let mut again = Command::new(&arguments[0]);
        let status = again.args(&arguments[1..]).env(THREADS_VARIABLE, &threads).status();
        exit(status.expect("this program can be started again").code().unwrap_or(1));
    }
    let variant = option("--variant", "plain");
    let path = format!("{}/{variant}.onnx", option("--model", "."));
    if arguments.iter().any(|argument| argument == "--first-token") {
        println!("{{\"first\": {:?}}}", Peer::load(&path).generate(&[prompt(PROMPT, 1)], 1)[0]);
        exit(0);
    }

    let reps = number("--reps", "3");
    let begin = Instant::now();
    let peer = Peer::load(&path);
    let load_s = begin.elapsed().as_secs_f64();
    let seconds = |batch: &[Vec<i32>], new: usize| {
        let begin = Instant::now();
        peer.generate(batch, new);
        begin.elapsed().as_secs_f64()
    };
    let median_seconds =
        |batch: &[Vec<i32>], new: usize| median((0..reps).map(|_| seconds(batch, new)).collect());

    let single = [prompt(PROMPT, 1)];
    let tokens = &peer.generate(&single, 8)[0];
    let first = median_seconds(&single, 1);
    let rates = (0..reps).map(|_| DECODED as f64 / (seconds(&single, DECODED + 1) - first)).collect();
    let decode_tps = median(rates);
    let rss_b1_mib = resident_mib();
    let prefill_tps = numbers("--prompt-lens", "32,512,1000").into_iter().map(|length| {
        let batch = [prompt(length, 7)];
        seconds(&batch, 1);
        format!("\"{length}\": {:.1}", length as f64 / median_seconds(&batch, 1))
    });
    let prefill_tps = prefill_tps.collect::<Vec<_>>().join(", ");
    let batch_tps = numbers("--batches", "8,32").into_iter().map(|size| {
        let batch: Vec<_> = (0..size as u64).map(|index| prompt(PROMPT, 11 + index)).collect();
        seconds(&batch, 2);
        format!("\"{size}\": {:.1}", (size * BATCH_NEW) as f64 / median_seconds(&batch, BATCH_NEW))
    });
    let batch_tps = batch_tps.collect::<Vec<_>>().join(", ");
    let rss_peak_mib = resident_mib();
    let cold: Vec<f64> = (0..number("--cold", "3")).map(|_| cold_start(&arguments)).collect();
    let cold_s = if cold.is_empty() { "null".to_owned() } else { format!("{:.3}", median(cold)) };
    println!(
        "{{\"peer\": \"rten\", \"variant\": \"{variant}\", \"threads\": {threads}, \"load_s\": {load_s:.3}, \
         \"versions\": {{\"rten\": \"{}\"}}, \"tokens\": {tokens:?}, \"decode_tps\": {decode_tps:.2}, \
         \"rss_b1_mib\": {rss_b1_mib:.1}, \"prefill_tps\": {{{prefill_tps}}}, \"batch_tps\": {{{batch_tps}}}, \
         \"rss_peak_mib\": {rss_peak_mib:.1}, \"cold_s\": {cold_s}}}",
        version(),
    );
}

struct Peer {
    model: Model,
    input_ids: NodeId,
    position_ids: NodeId,
    mask: NodeId,
    past: Vec<NodeId>,
    /// Logits, then the cache in the order of `past`.
    outputs: Vec<NodeId>,
    heads: usize,
    head_size: usize,
}

impl Peer {
    fn load(path: &str) -> Self {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(path).expect("an ONNX model");
        let id = |name: &str| model.node_id(name).expect(name);
        let mut past = Vec::new();
        let mut outputs = vec![id("logits")];
        for layer in (0..).take_while(|layer| model.find_node(&format!("past.{layer}.k")).is_some()) {
            for tensor in ["k", "v"] {
                past.push(id(&format!("past.{layer}.{tensor}")));
                outputs.push(id(&format!("present.{layer}.{tensor}")));
            }
        }
        let heads = std::fs::read_to_string(Path::new(path).with_file_name("heads.txt")).expect("heads.txt");
        let heads: Vec<usize> =
            heads.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let (input_ids, position_ids, mask) = (id("input_ids"), id("position_ids"), id("mask"));
        Self { input_ids, position_ids, mask, past, outputs, heads: heads[0], head_size: heads[1], model }
    }

    /// The likeliest next token of each row, and the cache, `tokens` included.
    fn run(&self, tokens: &[i32], rows: usize, done: usize, cache: Vec<Value>) -> (Vec<i32>, Vec<Value>) {
        let length = tokens.len() / rows;
        let total = done + length;
        let positions: Vec<i32> =
            (0..rows).flat_map(|_| (done..total).map(|position| position as i32)).collect();
        let mut mask = vec![0f32; length * total];
        for (position, row) in mask.chunks_mut(total).enumerate() {
            row[done + position + 1..].fill(-1e9);
        }
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![
            (self.input_ids, Tensor::from_data(&[rows, length], tokens.to_vec()).into()),
            (self.position_ids, Tensor::from_data(&[rows, length], positions).into()),
            (self.mask, Tensor::from_data(&[1, 1, length, total], mask).into()),
        ];
        inputs.extend(self.past.iter().copied().zip(cache.into_iter().map(ValueOrView::from)));
        let mut outputs = self.model.run(inputs, &self.outputs, None).expect("the model runs");
        let logits: NdTensor<f32, 3> = outputs.remove(0).try_into().expect("logits of three dimensions");
        let vocabulary = logits.size(2);
        (logits.to_vec().chunks(vocabulary).map(argmax).collect(), outputs)
    }

    /// `new` tokens for each of some prompts of one length.
    fn generate(&self, batch: &[Vec<i32>], new: usize) -> Vec<Vec<i32>> {
        let (rows, length) = (batch.len(), batch[0].len());
        let shape = [rows, self.heads, length + new, self.head_size];
        let cache = self.past.iter().map(|_| NdTensor::<f32, 4>::with_capacity(shape, 2).into()).collect();
        let (mut next, mut cache) = self.run(&batch.concat(), rows, 0, cache);
        let mut out: Vec<Vec<i32>> = next.iter().map(|token| vec![*token]).collect();
        for done in length..length + new - 1 {
            (next, cache) = self.run(&next, rows, done, cache);
            out.iter_mut().zip(&next).for_each(|(tokens, token)| tokens.push(*token));
        }
        out
    }
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> i32 {
    let best = logits
        .iter()
        .enumerate()
        .fold(0, |best, (token, logit)| if *logit > logits[best] { token } else { best });
    best as i32
}

/// Tokens from the linear congruential generator that all peers use, end-of-text not among them.
fn prompt(length: usize, seed: u64) -> Vec<i32> {
    let mut state = (seed * 2654435761) % (1 << 32);
    let token = || {
        state = (1664525 * state + 1013904223) % (1 << 32);
        ((state >> 8) % 50256) as i32
    };
    std::iter::repeat_with(token).take(length).collect()
}

/// Seconds from the start of this program to its first token.
fn cold_start(arguments: &[String]) -> f64 {
    let begin = Instant::now();
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).arg("--first-token").stdout(Stdio::piped());
    let mut process = command.spawn().expect("this program can be started again");
    let mut line = String::new();
    let output = process.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    let seconds = begin.elapsed().as_secs_f64();
    process.wait().expect("it ends");
    seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// The most memory that was resident so far.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    line.split_whitespace().next().expect("a number").parse::<f64>().expect("a number") / 1024.0
}

/// The version of rten that this program is built with.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let (_, entry) = lock.split_once("name = \"rten\"\nversion = \"").expect("rten is in Cargo.lock");
    entry.split('"').next().expect("a version")
}
